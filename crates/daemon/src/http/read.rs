//! Reads requests: bodies within a bound and a time, names from paths, parameters from queries.

use super::problem::Refused;
use crate::limits;
use axum::body::Body;
use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;
use hearth_model::JobId;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::ops::RangeInclusive;

/// How large a body may be, and what to do about one that is larger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    bytes_max: usize,
    help: &'static str,
}

/// The bound of one job.
pub(super) const CREATE: Bound = Bound {
    bytes_max: limits::BODY_BYTES_MAX,
    help: "move large configuration into the root filesystem",
};

/// The bound of many jobs.
pub(super) const DECLARED: Bound =
    Bound { bytes_max: limits::DECLARED_BYTES_MAX, help: "declare the jobs in several files" };

/// The whole body, which its head says is JSON.
pub(super) async fn json(headers: &HeaderMap, body: Body, bound: Bound) -> Result<Bytes, Refused> {
    announced(headers, bound)?;
    whole(body, bound).await
}

/// How many bytes a body has at most, by its head.
///
/// # Errors
/// If the head says that the body is not plain JSON, or is too large.
pub(super) fn announced(headers: &HeaderMap, bound: Bound) -> Result<usize, Refused> {
    is_json(headers)?;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    match announced.and_then(|bytes| bytes.parse::<usize>().ok()) {
        Some(bytes) if bytes > bound.bytes_max => Err(too_large(bound)),
        Some(bytes) => Ok(bytes),
        None => Ok(bound.bytes_max),
    }
}

/// Whether the head announces JSON as it is read here: in UTF-8 and not compressed.
fn is_json(headers: &HeaderMap) -> Result<(), Refused> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let types: Vec<String> = headers.get_all(header::CONTENT_TYPE).iter().map(text).collect();
    let [media] = types.as_slice() else {
        let found = if types.is_empty() { "not said" } else { "said more than once" };
        return Err(not_json(&format!("the body's type is {found}")));
    };
    let (name, parameters) = media.split_once(';').unwrap_or((media, ""));
    if !name.trim().eq_ignore_ascii_case("application/json") {
        return Err(not_json(&format!("the body's type is {}, not JSON", name.trim())));
    }
    let parameters = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    for (_, charset) in parameters.filter(|(key, _)| key.trim().eq_ignore_ascii_case("charset")) {
        let charset = charset.trim().trim_matches('"');
        if !["utf-8", "utf8", "us-ascii"].iter().any(|known| known.eq_ignore_ascii_case(charset)) {
            let detail = format!("the body's character set is {charset}, and JSON is UTF-8");
            return Err(unsupported(&detail).help("send it as UTF-8"));
        }
    }
    let codings = headers.get_all(header::CONTENT_ENCODING).iter().map(text);
    let codings: Vec<String> = codings.filter(|text| !text.trim().is_empty()).collect();
    if codings.iter().flat_map(|text| text.split(',')).any(|coding| {
        let coding = coding.trim();
        !coding.is_empty() && !coding.eq_ignore_ascii_case("identity")
    }) {
        return Err(compressed(&codings.join(", ")));
    }
    Ok(())
}

fn unsupported(detail: &str) -> Refused {
    Refused::new(415, "not-json", "Unsupported media type", detail)
}

fn not_json(detail: &str) -> Refused {
    unsupported(detail).help("send Content-Type: application/json")
}

fn compressed(coding: &str) -> Refused {
    unsupported(&format!("the body is compressed ({coding}), and is taken as plain JSON only"))
        .help("send it uncompressed, without Content-Encoding")
}

/// The whole body, within a time.
pub(super) async fn whole(body: Body, bound: Bound) -> Result<Bytes, Refused> {
    let collected = Limited::new(body, bound.bytes_max).collect();
    match tokio::time::timeout(limits::BODY_DEADLINE, collected).await {
        Ok(Ok(collected)) => plain(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(bound)),
        Ok(Err(error)) => {
            let detail = format!("the body broke off: {error}");
            Err(Refused::new(400, "broken-body", "Broken body", detail))
        }
        Err(_) => {
            let seconds = limits::BODY_DEADLINE.as_secs();
            let detail = format!("the body did not come within {seconds} s");
            Err(Refused::new(408, "slow-body", "Request timeout", detail))
        }
    }
}

/// A body that is not compressed: these are the first bytes of a gzip member (RFC 1952), which no JSON
/// text has.
fn plain(bytes: Bytes) -> Result<Bytes, Refused> {
    if bytes.starts_with(&[0x1f, 0x8b]) { Err(compressed("gzip")) } else { Ok(bytes) }
}

fn too_large(bound: Bound) -> Refused {
    let detail = format!("the body has more than {} bytes", bound.bytes_max);
    Refused::new(413, "large-body", "Body too large", detail).help(bound.help)
}

/// The job that a path names.
#[derive(Debug)]
pub(super) struct JobPath(pub(super) JobId);

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<JobPath, Refused> {
        let text = param(parts, state, "job_id").await?;
        // No job has such a name, so there is none.
        let none = |detail| Refused::new(404, "not-found", "No such job", detail);
        JobId::parse(&text).map(JobPath).map_err(|error| none(format!("there is no job: {error}")))
    }
}

/// The port that a path names.
#[derive(Debug)]
pub(super) struct PortPath(pub(super) u16);

impl<S: Send + Sync> FromRequestParts<S> for PortPath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PortPath, Refused> {
        let text = param(parts, state, "port").await?;
        text.parse().ok().filter(|port| *port != 0).map(PortPath).ok_or_else(|| {
            let detail = format!("{text:?} is not a port; ports are numbers from 1 to 65535");
            Refused::new(404, "no-such-page", "No such route", detail)
        })
    }
}

async fn param<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: &str,
) -> Result<String, Refused> {
    let malformed = || Refused::new(404, "not-found", "No such job", "the path is not UTF-8");
    let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| malformed())?;
    let found = params.iter().find(|(key, _)| *key == name);
    found.map(|(_, value)| value.to_owned()).ok_or_else(malformed)
}

/// The parameters of a query; unknown ones are errors.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Params<T>, Refused> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Params(params)),
            Err(error) => {
                let detail = error.body_text();
                let detail = detail.trim_start_matches("Failed to deserialize query string: ");
                Err(Refused::new(
                    400,
                    "bad-query",
                    "Bad query",
                    format!("the query is wrong: {detail}"),
                ))
            }
        }
    }
}

/// Whether the client asked for this media type.
pub(super) fn accepts(headers: &HeaderMap, media: &str) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains(media))
}

/// A parameter of the query that makes no sense.
pub(super) fn bad_query(parameter: &str, detail: &str) -> Refused {
    let detail = format!("the query is wrong: {parameter}: {detail}");
    Refused::new(400, "bad-query", "Bad query", detail)
}

/// How many of something, within bounds.
pub(super) fn count(
    parameter: &str,
    asked: usize,
    bounds: RangeInclusive<usize>,
) -> Result<usize, Refused> {
    if bounds.contains(&asked) {
        return Ok(asked);
    }
    let (least, most) = bounds.into_inner();
    Err(bad_query(parameter, &format!("{asked} is out of range: {least} to {most}")))
}

/// The one of `all` that goes by this word.
pub(super) fn one_of<T: Copy>(
    parameter: &str,
    word: &str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, Refused> {
    all.iter().copied().find(|one| name(*one) == word).ok_or_else(|| {
        let known: Vec<&str> = all.iter().map(|one| name(*one)).collect();
        bad_query(parameter, &format!("{word:?} is not one of {}", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &[(&'static str, &'static str)], refused: Option<&str>) {
        let field = |(name, value): &(&'static str, &'static str)| {
            (header::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        fields.iter().map(field).for_each(|(name, value)| {
            headers.append(name, value);
        });
        let said = announced(&headers, CREATE).err();
        let said = said.map(|said| String::from_utf8(said.body()).expect("JSON is UTF-8"));
        match (said, refused) {
            (None, None) => {}
            (Some(said), Some(part)) => assert!(said.contains(part), "{said}"),
            (said, _) => panic!("{fields:?}: {said:?}"),
        }
    }

    #[test]
    fn plain_json_in_utf8_is_taken() {
        let json = ("content-type", "application/json");
        check(&[json], None);
        check(&[("content-type", "Application/JSON; charset=UTF-8")], None);
        check(&[("content-type", "application/json;charset=\"utf-8\"; x=y")], None);
        check(&[json, ("content-encoding", "identity")], None);
        check(&[json, ("content-encoding", "")], None);
    }

    #[test]
    fn other_types_charsets_and_encodings_are_refused() {
        let json = ("content-type", "application/json");
        check(&[], Some("type is not said"));
        check(&[json, json], Some("said more than once"));
        check(&[("content-type", "text/plain")], Some("type is text/plain, not JSON"));
        check(&[("content-type", "application/jsonp")], Some("application/jsonp, not JSON"));
        check(&[("content-type", "application/json; charset=utf-16")], Some("send it as UTF-8"));
        for coding in ["gzip", "GZIP", "br", "deflate", "zstd", "identity, gzip", "compress"] {
            check(&[json, ("content-encoding", coding)], Some("send it uncompressed"));
        }
        check(&[json, ("content-encoding", "identity"), ("content-encoding", "gzip")], Some("415"));
        check(&[json, ("content-length", "9999999")], Some("\"status\":413"));
    }

    #[test]
    fn gzip_without_its_header_is_named() {
        let refused = plain(Bytes::from_static(&[0x1f, 0x8b, 8, 0])).expect_err("it is not JSON");
        let said = String::from_utf8(refused.body()).expect("JSON is UTF-8");
        assert!(said.contains("\"status\":415") && said.contains("uncompressed"), "{said}");
    }
}
