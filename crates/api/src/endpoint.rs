//! Where a daemon is: an address of the loopback, or a Unix socket.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a client connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://HOST:PORT`.
    Tcp {
        /// Host name or address; an IPv6 address with its brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// `unix:///PATH`.
    Unix(PathBuf),
}

/// Why a text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not the address of a daemon: {detail}; write http://127.0.0.1:8088 or unix:///run/hearth.sock"
)]
pub struct EndpointError {
    text: String,
    detail: &'static str,
}

impl Endpoint {
    /// What a request says in its `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        match self {
            Endpoint::Tcp { host, port } => format!("{host}:{port}"),
            Endpoint::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Endpoint, EndpointError> {
        let wrong = |detail| EndpointError { text: text.to_owned(), detail };
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(wrong("the path of a socket is absolute"));
            }
            return Ok(Endpoint::Unix(PathBuf::from(path)));
        }
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(wrong("it begins with neither http:// nor unix://"));
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@']) {
            return Err(wrong("it has more than a host and a port"));
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong("the port is not a number up to 65535"))?)
            }
            _ => (authority, 80),
        };
        if host.is_empty() {
            return Err(wrong("it has no host"));
        }
        Ok(Endpoint::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { host, port } => write!(f, "http://{host}:{port}"),
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;
    use expect_test::{Expect, expect};
    use std::str::FromStr;

    fn check(text: &str, expected: Expect) {
        let outcome = match Endpoint::from_str(text) {
            Ok(endpoint) => format!("{endpoint} (Host: {})", endpoint.authority()),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&outcome);
    }

    #[test]
    fn addresses_and_sockets_are_endpoints() {
        check("http://127.0.0.1:8088", expect!["http://127.0.0.1:8088 (Host: 127.0.0.1:8088)"]);
        check("http://[::1]:1/", expect!["http://[::1]:1 (Host: [::1]:1)"]);
        check("http://[::1]", expect!["http://[::1]:80 (Host: [::1]:80)"]);
        check("unix:///run/h.sock", expect!["unix:///run/h.sock (Host: localhost)"]);
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_the_form_that_is() {
        check(
            "https://a",
            expect![[
                r#""https://a" is not the address of a daemon: it begins with neither http:// nor unix://; write http://127.0.0.1:8088 or unix:///run/hearth.sock"#
            ]],
        );
        check(
            "http://a:99999",
            expect![[
                r#""http://a:99999" is not the address of a daemon: the port is not a number up to 65535; write http://127.0.0.1:8088 or unix:///run/hearth.sock"#
            ]],
        );
        check(
            "unix://run/h.sock",
            expect![[
                r#""unix://run/h.sock" is not the address of a daemon: the path of a socket is absolute; write http://127.0.0.1:8088 or unix:///run/hearth.sock"#
            ]],
        );
    }
}
