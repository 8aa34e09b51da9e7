//! The ring: the last output of the command, both streams in one order, with offsets. Bounded in
//! bytes and in segments; what exceeds the bound falls off the front. It never blocks a writer.

use hearth_guest::{LOG_PAYLOAD_BYTES_MAX, LogFrameHeader, Stream};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Most runs of bytes of one stream that are kept. It bounds the memory that a command costs
/// which writes single bytes to stdout and stderr in turn.
const SEGMENTS_MAX: usize = 4096;

/// Output that is kept for readers.
pub(crate) struct Ring {
    inner: Mutex<Inner>,
    changed: Condvar,
    capacity_bytes: usize,
}

struct Inner {
    bytes: VecDeque<u8>,
    /// Offset of the first byte that is kept.
    start: u64,
    /// Runs of one stream: where each ends.
    segments: VecDeque<(u64, Stream)>,
    /// No more output will come.
    closed: bool,
    /// The highest offset up to which some reader has sent everything it could.
    delivered: u64,
}

impl Ring {
    /// An empty ring. Memory is taken as output comes.
    pub(crate) fn new(capacity_bytes: usize) -> Ring {
        let inner = Inner {
            bytes: VecDeque::new(),
            start: 0,
            segments: VecDeque::new(),
            closed: false,
            delivered: 0,
        };
        Ring { inner: Mutex::new(inner), changed: Condvar::new(), capacity_bytes }
    }

    /// Appends output.
    pub(crate) fn push(&self, stream: Stream, output: &[u8]) {
        if output.is_empty() {
            return;
        }
        let mut inner = self.lock();
        let end = inner.end() + output.len() as u64;
        let kept = &output[output.len().saturating_sub(self.capacity_bytes)..];
        let room = self.capacity_bytes - kept.len();
        let over = inner.bytes.len().saturating_sub(room);
        inner.bytes.drain(..over);
        inner.bytes.extend(kept);
        inner.start = end - inner.bytes.len() as u64;
        match inner.segments.back_mut() {
            Some((last, of)) if *of == stream => *last = end,
            _ => inner.segments.push_back((end, stream)),
        }
        inner.trim();
        self.changed.notify_all();
    }

    /// The next frame from offset `from` on, waiting for one. A `from` that has fallen off the
    /// front, or that this ring has never reached, moves to the nearest offset there is. `None`
    /// once `gone` is set, or when the ring is closed and `from` is at its end.
    pub(crate) fn next(&self, from: u64, gone: &AtomicBool) -> Option<(LogFrameHeader, Vec<u8>)> {
        let mut inner = self.lock();
        let mut from = from;
        loop {
            if gone.load(Ordering::Acquire) {
                return None;
            }
            from = from.clamp(inner.start, inner.end());
            inner.delivered = inner.delivered.max(from);
            if let Some(frame) = inner.frame(from) {
                return Some(frame);
            }
            if inner.closed {
                self.changed.notify_all();
                return None;
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says that no more output will come; readers get what is left, then their end.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Wakes all who wait, so that they look at their `gone` flag.
    pub(crate) fn wake(&self) {
        let _inner = self.lock();
        self.changed.notify_all();
    }

    /// Waits until some reader has got all but the last `spare` bytes, or the deadline passes.
    pub(crate) fn wait_delivered(&self, spare: u64, deadline: Instant) {
        let mut inner = self.lock();
        while inner.end().saturating_sub(inner.delivered) > spare {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            inner =
                self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The last output of the command, at most `bytes_max` bytes of it.
    pub(crate) fn tail(&self, bytes_max: usize) -> Vec<u8> {
        let inner = self.lock();
        let mut tail = Vec::new();
        let mut from = inner.start;
        for &(end, stream) in &inner.segments {
            if stream != Stream::Init {
                let range = (from - inner.start) as usize..(end - inner.start) as usize;
                tail.extend(inner.bytes.range(range));
            }
            from = end;
        }
        tail.drain(..tail.len().saturating_sub(bytes_max));
        tail
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Offset after the last byte.
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Drops segments that are over the bound, with their bytes, and those that hold none.
    fn trim(&mut self) {
        while self.segments.len() > SEGMENTS_MAX {
            if let Some((end, _)) = self.segments.pop_front() {
                let over = end.saturating_sub(self.start) as usize;
                self.bytes.drain(..over.min(self.bytes.len()));
                self.start = self.start.max(end);
            }
        }
        while self.segments.front().is_some_and(|&(end, _)| end <= self.start) {
            self.segments.pop_front();
        }
    }

    fn frame(&self, from: u64) -> Option<(LogFrameHeader, Vec<u8>)> {
        let first = self.segments.partition_point(|&(end, _)| end <= from);
        let &(end, stream) = self.segments.get(first)?;
        let len = (end - from).min(LOG_PAYLOAD_BYTES_MAX as u64);
        let at = (from - self.start) as usize;
        let payload: Vec<u8> = self.bytes.range(at..at + len as usize).copied().collect();
        Some((LogFrameHeader { offset: from, stream, len: len as u32 }, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn read_all(ring: &Ring, from: u64) -> Vec<(LogFrameHeader, Vec<u8>)> {
        ring.close();
        let here = AtomicBool::new(false);
        let mut cursor = from;
        let mut frames = Vec::new();
        while let Some((header, payload)) = ring.next(cursor, &here) {
            cursor = header.offset + payload.len() as u64;
            frames.push((header, payload));
        }
        frames
    }

    #[test]
    fn a_reader_gets_both_streams_in_the_order_they_were_written() {
        let ring = Ring::new(100);
        ring.push(Stream::Stdout, b"one ");
        ring.push(Stream::Stdout, b"two ");
        ring.push(Stream::Stderr, b"oops");
        let frames = read_all(&ring, 0);
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[0].1, b"one two ");
        let header = LogFrameHeader { offset: 8, stream: Stream::Stderr, len: 4 };
        assert_eq!(frames[1], (header, b"oops".to_vec()));
    }

    #[test]
    fn reader_that_comes_back_continues_at_its_cursor() {
        let ring = Ring::new(100);
        ring.push(Stream::Stdout, b"abcdef");
        let frames = read_all(&ring, 4);
        assert_eq!((frames[0].0.offset, frames[0].1.as_slice()), (4, &b"ef"[..]));
    }

    #[test]
    fn what_has_fallen_off_shows_as_a_higher_offset() {
        let ring = Ring::new(4);
        ring.push(Stream::Stdout, b"abcdef");
        ring.push(Stream::Stderr, b"gh");
        let frames = read_all(&ring, 0);
        assert_eq!((frames[0].0.offset, frames[0].1.as_slice()), (4, &b"ef"[..]));
        assert_eq!((frames[1].0.offset, frames[1].1.as_slice()), (6, &b"gh"[..]));
        assert_eq!(ring.tail(3), b"fgh");
    }

    #[test]
    fn tail_has_what_the_command_wrote_only() {
        let ring = Ring::new(8);
        ring.push(Stream::Stdout, b"abc");
        ring.push(Stream::Init, b"init");
        ring.push(Stream::Stderr, b"def");
        assert_eq!(ring.tail(9), b"cdef");
        assert_eq!(ring.tail(2), b"ef");
    }

    #[test]
    fn a_cursor_from_the_future_moves_to_the_end() {
        let ring = Ring::new(10);
        ring.push(Stream::Stdout, b"abc");
        assert!(read_all(&ring, 999).is_empty());
    }

    #[test]
    fn alternating_single_bytes_stay_within_the_bound_of_segments() {
        let ring = Ring::new(1 << 20);
        for _ in 0..SEGMENTS_MAX {
            ring.push(Stream::Stdout, b"a");
            ring.push(Stream::Stderr, b"b");
        }
        assert_eq!(ring.lock().segments.len(), SEGMENTS_MAX);
        assert_eq!(ring.lock().bytes.len(), SEGMENTS_MAX);
        assert_eq!(read_all(&ring, 0)[0].0.offset, SEGMENTS_MAX as u64);
    }

    #[test]
    fn a_reader_that_is_gone_is_let_go_while_it_waits() {
        let ring = Ring::new(10);
        let gone = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| ring.next(0, &gone));
            gone.store(true, Ordering::Release);
            ring.wake();
            assert!(reader.join().expect("reader").is_none());
        });
    }

    #[test]
    fn drain_ends_when_a_reader_has_everything_or_at_the_deadline() {
        let ring = Ring::new(100);
        ring.push(Stream::Stdout, b"abcdef");
        let began = Instant::now();
        ring.wait_delivered(6, began + Duration::from_secs(60));
        ring.wait_delivered(0, began + Duration::from_millis(20));
        assert!(began.elapsed() >= Duration::from_millis(20));
        read_all(&ring, 0);
        ring.wait_delivered(0, began + Duration::from_secs(60));
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    proptest! {
        #[test]
        fn every_reader_sees_a_suffix_of_what_was_written(
            capacity in 1_usize..200,
            from in 0_u64..600,
            writes in prop::collection::vec((any::<bool>(), 0_usize..60), 0..20),
        ) {
            let ring = Ring::new(capacity);
            let mut all = Vec::new();
            for (n, (err, len)) in writes.iter().enumerate() {
                let stream = if *err { Stream::Stderr } else { Stream::Stdout };
                let output = vec![n as u8; *len];
                all.extend(output.iter().map(|byte| (*byte, stream)));
                ring.push(stream, &output);
            }
            let frames = read_all(&ring, from);
            let oldest = all.len().saturating_sub(capacity) as u64;
            let mut at = from.clamp(oldest, all.len() as u64);
            for (header, payload) in frames {
                prop_assert_eq!(header.offset, at);
                prop_assert_eq!(header.len as usize, payload.len());
                for byte in payload {
                    prop_assert_eq!((byte, header.stream), all[at as usize]);
                    at += 1;
                }
            }
            prop_assert_eq!(at, all.len() as u64);
        }
    }
}
