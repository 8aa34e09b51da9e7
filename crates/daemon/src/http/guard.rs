//! No web page reaches the API: over TCP a request must name this daemon as its host, which a rebound
//! name does not, and a browser's request from another origin says so. A browser always sends a Host
//! and can't connect to a Unix socket, so HTTP/1.0 without a Host and Unix sockets are not checked.

use super::App;
use super::problem::Refused;
use crate::Listen;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hearth_model::Caller;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// The hosts by which this daemon may be called.
#[derive(Debug)]
pub(crate) enum Guard {
    /// Over TCP: by the names of the loopback and the address as bound.
    Tcp {
        /// As it stands in a Host.
        bound: String,
    },
    /// Over a Unix socket: by any name.
    Unix,
}

impl Guard {
    pub(crate) fn new(listen: &Listen) -> Guard {
        match listen {
            Listen::Tcp(address) => match address.ip() {
                IpAddr::V4(ip) => Guard::Tcp { bound: ip.to_string() },
                IpAddr::V6(ip) => Guard::Tcp { bound: format!("[{ip}]") },
            },
            Listen::Unix(_) => Guard::Unix,
        }
    }

    /// Why a request with this head is refused, if it is.
    fn refusal(&self, version: Version, uri: &Uri, headers: &HeaderMap) -> Option<Refused> {
        if matches!(self, Guard::Unix) {
            return None;
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = hosts.next();
        let named = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        let foreign = |host: &str| {
            let detail = format!("the request is for {host:?}, which is not this daemon");
            Refused::new(403, "foreign-host", "Not this host", detail)
                .help("call it by localhost, 127.0.0.1 or [::1]")
        };
        let unnamed = host.is_none() && version == Version::HTTP_10;
        if hosts.next().is_some() || !(unnamed || self.is_own(named)) {
            return Some(foreign(named));
        }
        if let Some(authority) = uri.authority()
            && !self.is_own(authority.as_str())
        {
            return Some(foreign(authority.as_str()));
        }
        let origin = headers.get(header::ORIGIN)?;
        let own = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
        if own.is_some_and(|own| own.eq_ignore_ascii_case(named)) {
            return None;
        }
        let detail = format!("the request comes from a page of {origin:?}");
        let help = "only pages of this daemon may use it";
        Some(Refused::new(403, "foreign-origin", "Another origin", detail).help(help))
    }

    fn is_own(&self, authority: &str) -> bool {
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        };
        let own = ["localhost", "127.0.0.1", "[::1]"];
        own.iter().any(|own| own.eq_ignore_ascii_case(host))
            || matches!(self, Guard::Tcp { bound } if bound == host)
    }
}

/// Refuses what a web page sent, before anything is read of it.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let caller = request.extensions().get().copied().unwrap_or(Caller::Unknown);
    let response = match app.guard.refusal(request.version(), request.uri(), request.headers()) {
        Some(refused) => refused.into_response(),
        None => caught(next.run(request)).await,
    };
    tracing::debug!(%method, path, %caller, status = response.status().as_u16(), "request");
    response
}

/// An answer, also where a handler panics: the panic fails its request and nothing else.
async fn caught(answer: impl Future<Output = Response>) -> Response {
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().copied();
            let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            tracing::error!(said, "a handler panicked");
            Refused::panicked().into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Guard, caught};
    use crate::Listen;
    use axum::http::{HeaderMap, HeaderValue, Uri, Version, header};

    fn check(host: &str, origin: Option<&'static str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).expect("a header"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
        }
        passes("127.0.0.2:8088", Version::HTTP_11, "/vms", &headers)
    }

    fn passes(listen: &str, version: Version, uri: &'static str, headers: &HeaderMap) -> bool {
        let guard = Guard::new(&listen.parse::<Listen>().expect("an address"));
        guard.refusal(version, &Uri::from_static(uri), headers).is_none()
    }

    #[test]
    fn http_1_0_needs_no_host_and_checks_the_one_it_has() {
        let none = HeaderMap::new();
        assert!(passes("127.0.0.1:1", Version::HTTP_10, "/vms", &none));
        assert!(!passes("127.0.0.1:1", Version::HTTP_11, "/vms", &none));
        assert!(!passes("127.0.0.1:1", Version::HTTP_10, "http://evil.example/vms", &none));
        for (name, value) in [(header::HOST, "evil.example"), (header::ORIGIN, "http://evil")] {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            assert!(!passes("127.0.0.1:1", Version::HTTP_10, "/vms", &headers), "{value}");
        }
    }

    #[test]
    fn a_unix_socket_takes_any_host() {
        for host in ["hearth", "", "evil.example", "localhost"] {
            let host = HeaderValue::from_static(host);
            let headers = HeaderMap::from_iter([(header::HOST, host)]);
            assert!(passes("unix:///run/h.sock", Version::HTTP_11, "http://x/vms", &headers));
        }
        assert!(passes("unix:///run/h.sock", Version::HTTP_11, "/vms", &HeaderMap::new()));
    }

    #[test]
    fn the_daemon_answers_to_its_own_names_on_any_port() {
        for host in ["localhost", "LocalHost:1", "127.0.0.1:8088", "[::1]", "[::1]:9", "127.0.0.2"]
        {
            assert!(check(host, None), "{host}");
        }
    }

    #[test]
    fn a_rebound_name_is_refused() {
        for host in ["evil.example", "evil.example:8088", "", "127.0.0.3", "localhost.evil.example"]
        {
            assert!(!check(host, None), "{host}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_with_a_sentence() {
        let response = caught(async { panic!("boom") }).await;
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }

    #[test]
    fn only_the_daemons_own_origin_may_use_it() {
        assert!(check("localhost:8088", Some("http://localhost:8088")));
        assert!(!check("localhost:8088", Some("http://localhost:3000")));
        assert!(!check("localhost:8088", Some("https://evil.example")));
        assert!(!check("localhost:8088", Some("null")));
    }
}
