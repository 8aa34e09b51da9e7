//! The log stream: frames of the command's output with their offsets.
//!
//! The offset counts the bytes of both streams together since the guest's boot. A reader names
//! the offset it wants next; where the ring no longer holds it, the first frame's offset is
//! higher, and the difference is what was lost. An offset that the ring has never reached moves
//! back to its end. After the command's end a reader gets what is left, then the end of the
//! stream; the guest waits for that up to a second before it reboots.

use serde::{Deserialize, Serialize};

/// Bytes of a frame's header: offset (u64), stream (u8), length (u32), little-endian.
pub const LOG_FRAME_HEADER_BYTES: usize = 13;
/// Longest payload of a frame, in bytes.
pub const LOG_PAYLOAD_BYTES_MAX: usize = 16 * 1024;

/// What a reader sends first, as one JSON line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCursor {
    /// The first offset that the reader lacks.
    pub from: u64,
}

/// Which output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// stdout of the command.
    Stdout,
    /// stderr of the command.
    Stderr,
    /// What the init itself has to say.
    Init,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogFrameHeader {
    /// Offset of the first payload byte.
    pub offset: u64,
    /// Which output it is of.
    pub stream: Stream,
    /// Payload bytes that follow, at most [`LOG_PAYLOAD_BYTES_MAX`].
    pub len: u32,
}

impl LogFrameHeader {
    /// The header as it travels.
    #[must_use]
    pub fn encode(&self) -> [u8; LOG_FRAME_HEADER_BYTES] {
        let mut bytes = [0; LOG_FRAME_HEADER_BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8] = match self.stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
            Stream::Init => 3,
        };
        bytes[9..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// Reads a header. `None` where the stream is unknown, the length is over the bound or the
    /// payload would end beyond all offsets: the peer does not speak this protocol, and the
    /// connection should be closed.
    #[must_use]
    pub fn decode(bytes: &[u8; LOG_FRAME_HEADER_BYTES]) -> Option<LogFrameHeader> {
        let (offset, rest) = bytes.split_first_chunk::<8>()?;
        let (&tag, len) = rest.split_first()?;
        let stream = match tag {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            3 => Stream::Init,
            _ => return None,
        };
        let len = u32::from_le_bytes(len.try_into().ok()?);
        let offset = u64::from_le_bytes(*offset);
        offset.checked_add(u64::from(len))?;
        (len as usize <= LOG_PAYLOAD_BYTES_MAX).then_some(LogFrameHeader { offset, stream, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cursor_is_one_short_line() {
        let line = serde_json::to_string(&LogCursor { from: 7 }).expect("JSON");
        assert_eq!(line, r#"{"from":7}"#);
    }

    #[test]
    fn a_header_that_is_none_is_refused() {
        let header = LogFrameHeader { offset: 1, stream: Stream::Stderr, len: 5 };
        let mut unknown = header.encode();
        unknown[8] = 4;
        assert_eq!(LogFrameHeader::decode(&unknown), None);
        let long = LogFrameHeader { len: LOG_PAYLOAD_BYTES_MAX as u32 + 1, ..header };
        assert_eq!(LogFrameHeader::decode(&long.encode()), None);
        let far = LogFrameHeader { offset: u64::MAX - 4, ..header };
        assert_eq!(LogFrameHeader::decode(&far.encode()), None);
        let last = LogFrameHeader { offset: u64::MAX - 5, ..header };
        assert_eq!(LogFrameHeader::decode(&last.encode()), Some(last));
    }

    proptest! {
        #[test]
        fn a_header_is_read_back(
            offset in 0..=u64::MAX - LOG_PAYLOAD_BYTES_MAX as u64,
            stream in prop::sample::select(vec![Stream::Stdout, Stream::Stderr, Stream::Init]),
            len in 0..=LOG_PAYLOAD_BYTES_MAX as u32,
        ) {
            let header = LogFrameHeader { offset, stream, len };
            prop_assert_eq!(LogFrameHeader::decode(&header.encode()), Some(header));
        }
    }
}
