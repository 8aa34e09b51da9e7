//! What must hold for a change: `Idempotency-Key` and `If-Match`.

use super::problem::Refused;
use crate::limits;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use hearth_engine::{Preconditions, Repeat};
use hearth_store::json::Tree;

/// The name of the header that makes a request repeatable.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The name of the header that tells the answer to a repeat.
pub(super) const IDEMPOTENCY_REPEATED: &str = "idempotency-repeated";

/// The headers of a change that name its preconditions.
#[derive(Debug)]
pub(super) struct PreconditionHeaders {
    key: Option<String>,
    generations: Option<Vec<u64>>,
    /// Method and path.
    target: String,
}

impl<S: Send + Sync> FromRequestParts<S> for PreconditionHeaders {
    type Rejection = Refused;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> Result<PreconditionHeaders, Refused> {
        Ok(PreconditionHeaders {
            key: key(&parts.headers)?,
            generations: generations(&parts.headers)?,
            target: format!("{} {}", parts.method, parts.uri.path()),
        })
    }
}

impl PreconditionHeaders {
    /// Whether the change is only for a job that exists.
    pub(super) fn names_generation(&self) -> bool {
        self.generations.is_some()
    }

    /// What they say. `body` is what the request says beyond its path.
    pub(super) fn preconditions(self, body: Option<&Tree>) -> Preconditions {
        let PreconditionHeaders { key, generations, target } = self;
        let digest = |key| {
            let body = body.and_then(|body| serde_json::to_string(body).ok()).unwrap_or_default();
            let digest = blake3::hash(format!("{target}\n{body}").as_bytes()).to_string();
            Repeat { key, digest }
        };
        Preconditions { repeat: key.map(digest), generations }
    }
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().unwrap_or_default().trim();
    let bytes = 1..=limits::KEY_BYTES_MAX;
    let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if values.next().is_some() || !visible || !bytes.contains(&key.len()) {
        let detail = format!(
            "Idempotency-Key is not one text of 1 to {} visible ASCII characters",
            limits::KEY_BYTES_MAX
        );
        return Err(Refused::new(400, "bad-header", "Bad header", detail)
            .help("make up a UUID for each change, and send it again with each repeat"));
    }
    Ok(Some(key.to_owned()))
}

fn generations(headers: &HeaderMap) -> Result<Option<Vec<u64>>, Refused> {
    let mut generations = Vec::new();
    let mut any = false;
    let mut values = headers.get_all(header::IF_MATCH).iter().peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    for value in values {
        for tag in value.to_str().unwrap_or("?").split(',').map(str::trim) {
            let bare = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
            match bare.parse() {
                Ok(generation) => generations.push(generation),
                Err(_) if tag == "*" => any = true,
                Err(_) => {
                    let detail = format!("If-Match holds {tag:?}, which is not a generation");
                    return Err(Refused::new(400, "bad-header", "Bad header", detail)
                        .help("send the ETag or the generation of the job, as \"3\""));
                }
            }
        }
    }
    // Any job that is there will do.
    Ok(Some(if any { Vec::new() } else { generations }))
}
