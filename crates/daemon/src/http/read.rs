//! Reads requests: bodies within a bound and a time, names from paths, parameters from queries.

use super::problem::Refused;
use crate::limits;
use axum::body::Body;
use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
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

/// The body as JSON.
pub(super) async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    bound: Bound,
) -> Result<T, Refused> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = media.map(|media| media.split(';').next().unwrap_or_default().trim());
    if !media.is_some_and(|media| media.eq_ignore_ascii_case("application/json")) {
        let detail = format!("the body's type is {}, not JSON", media.unwrap_or("not said"));
        return Err(Refused::new(415, "not-json", "Unsupported media type", detail)
            .help("send Content-Type: application/json"));
    }
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|bytes| bytes.parse::<usize>().ok()) > Some(bound.bytes_max) {
        return Err(too_large(bound));
    }
    let bytes = whole(body, bound).await?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Refused::new(400, "not-json", "Not JSON", format!("the body is not JSON: {error}"))
            .help("nothing was changed")
    })
}

async fn whole(body: Body, bound: Bound) -> Result<Bytes, Refused> {
    let collected = Limited::new(body, bound.bytes_max).collect();
    match tokio::time::timeout(limits::BODY_DEADLINE, collected).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
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
            Refused::new(404, "no-such-page", "No such page", detail)
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
