//! Problem details as answers.

use crate::convert;
use crate::core::AskError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hearth_api::{PROBLEM_JSON, Problem};

/// An answer that says why not.
#[derive(Clone, Debug)]
pub(crate) struct Refused(Box<Problem>);

impl Refused {
    pub(crate) fn new(status: u16, slug: &str, title: &str, detail: impl Into<String>) -> Refused {
        Refused(Box::new(convert::problem(status, slug, title, detail)))
    }

    /// One that may pass, with `Retry-After`.
    pub(crate) fn for_now(slug: &str, title: &str, detail: impl Into<String>) -> Refused {
        Refused(Box::new(convert::for_now(slug, title, detail, "try again")))
    }

    /// With what to do about it.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Refused {
        self.0.help = Some(help.into());
        self
    }

    /// What was wrong.
    pub(crate) fn detail(&self) -> &str {
        &self.0.detail
    }

    /// Its status code.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// When to send the request again: the value of `Retry-After`, in seconds.
    pub(crate) fn retry_after(&self) -> Option<&'static str> {
        (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some("1")
    }

    /// What travels.
    pub(crate) fn body(&self) -> Vec<u8> {
        written(&self.0)
    }

    /// A handler panicked, which is a bug.
    pub(super) fn panicked() -> Refused {
        let detail = "the request met a bug in Hearth, which is in the log of the daemon";
        Refused::new(500, "bug", "A bug in Hearth", detail)
            .help("what was asked may have happened: look; microVMs are not touched by this")
    }
}

fn written(problem: &Problem) -> Vec<u8> {
    serde_json::to_vec(problem).unwrap_or_default()
}

impl From<Box<Problem>> for Refused {
    fn from(problem: Box<Problem>) -> Refused {
        Refused(problem)
    }
}

impl From<AskError> for Refused {
    fn from(error: AskError) -> Refused {
        if let AskError::Refused(hearth_engine::Refusal::Store { .. }) = &error {
            tracing::error!(cause = %error, "a request was refused");
        }
        Refused(Box::new(convert::refused(&error)))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.body()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        response
    }
}
