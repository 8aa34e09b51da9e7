//! The lines of an answer as they come.

use crate::error::ClientError;
use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::time::Duration;

/// Longest line, in bytes: a record of a log has 256 KiB, and JSON writes a control character in six.
const LINE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long a daemon may be away before a follower gives it up: an upgrade takes seconds.
pub(crate) const AWAY_MAX: Duration = Duration::from_secs(60);
/// How often a daemon that is away is asked for.
pub(crate) const AWAY_LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Lines {
    operation: String,
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    pub(crate) fn new(operation: String, body: Incoming) -> Lines {
        Lines { operation, body, buffer: BytesMut::new() }
    }

    /// The next line without its end; `None` at the end of the answer. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<BytesMut>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return Ok(Some(line));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(self.foreign("a line has no end"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.buffer.extend_from_slice(bytes);
                    }
                }
                Some(Err(error)) => {
                    let operation = self.operation.clone();
                    return Err(ClientError::Broken { operation, source: error.into() });
                }
            }
        }
    }

    /// Something that Hearth would not have said.
    pub(crate) fn foreign(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ClientError {
        ClientError::Foreign { operation: self.operation.clone(), source: source.into() }
    }
}
