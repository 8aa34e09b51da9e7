//! Channels: byte streams between host and guest, opened on [`CHANNEL_PORT`](crate::CHANNEL_PORT) by one line
//! and answered by one line. Then bytes go both ways.

use crate::hello::PROTOCOL_FIRST;
use serde::{Deserialize, Serialize};

/// Longest line that opens a channel or answers, in bytes.
pub const CHANNEL_LINE_BYTES_MAX: usize = 512;

/// Where a channel leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// A TCP port on the guest's loopback.
    Port(u16),
}

/// Why a line opens no channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// It names a kind of channel that this version does not know.
    Unsupported,
    /// It names none.
    Malformed,
}

impl Channel {
    /// The line that opens it in a version of the protocol, without its newline.
    #[must_use]
    pub fn opening(&self, protocol: u32) -> String {
        match self {
            Channel::Port(port) if protocol == PROTOCOL_FIRST => port.to_string(),
            Channel::Port(port) => format!(r#"{{"port":{port}}}"#),
        }
    }

    /// Reads the line of any version.
    ///
    /// # Errors
    /// [`OpenError`] if it opens nothing.
    pub fn parse(line: &[u8]) -> Result<Channel, OpenError> {
        let channel = match serde_json::from_slice(line) {
            Ok(serde_json::Value::Number(port)) => {
                port.as_u64().and_then(|port| u16::try_from(port).ok()).map(Channel::Port)
            }
            Ok(serde_json::Value::Object(kind)) if kind.contains_key("port") => {
                serde_json::from_slice(line).ok()
            }
            Ok(serde_json::Value::Object(_)) => return Err(OpenError::Unsupported),
            _ => None,
        };
        channel.filter(|channel| *channel != Channel::Port(0)).ok_or(OpenError::Malformed)
    }
}

/// The guest's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Bytes follow.
    Yes,
    /// The init knows no such kind of channel.
    Unsupported,
    /// It leads nowhere now, for this reason.
    No(String),
}

impl Opened {
    /// Its line, without its newline.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Opened::Yes => "OK".to_owned(),
            Opened::Unsupported => "UNSUPPORTED".to_owned(),
            Opened::No(reason) => format!("ERR {reason}"),
        }
    }

    /// Reads a line. One that is none of these is a reason too.
    #[must_use]
    pub fn parse(line: &str) -> Opened {
        match line {
            "OK" => Opened::Yes,
            "UNSUPPORTED" => Opened::Unsupported,
            line => Opened::No(line.strip_prefix("ERR ").unwrap_or(line).to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_is_opened_by_the_line_of_its_protocol() {
        let port = Channel::Port(80);
        assert_eq!(port.opening(1), "80");
        assert_eq!(port.opening(2), r#"{"port":80}"#);
        assert_eq!(serde_json::to_string(&port).expect("JSON"), port.opening(2));
        for protocol in [1, 2, 3] {
            assert_eq!(Channel::parse(port.opening(protocol).as_bytes()), Ok(port));
        }
    }

    #[test]
    fn unknown_channel_differs_from_a_malformed_line() {
        for line in ["http", "0", "70000", "", "-1", r#"{"port":0}"#, r#"{"port":70000}"#] {
            assert_eq!(Channel::parse(line.as_bytes()), Err(OpenError::Malformed), "{line}");
        }
        for line in [r#"{"exec":["ls"]}"#, "{}"] {
            assert_eq!(Channel::parse(line.as_bytes()), Err(OpenError::Unsupported), "{line}");
        }
    }

    #[test]
    fn answers_are_read_back() {
        for opened in [Opened::Yes, Opened::Unsupported, Opened::No("it is away".to_owned())] {
            assert_eq!(Opened::parse(&opened.line()), opened);
        }
        assert_eq!(Opened::parse("what?"), Opened::No("what?".to_owned()));
    }
}
