//! The socket under a connection: gives up a reader that takes nothing of its answer, and says in
//! problem details what hyper refuses with an empty answer, before a request reaches a handler.
//!
//! From a 101 on the socket carries somebody else's bytes, and it does neither.

use super::problem::Refused;
use crate::limits;
use bytes::{Buf, Bytes};
use hearth_api::PROBLEM_JSON;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

pub(super) struct Socket<S> {
    inner: S,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// What is left to be written instead of what hyper wrote.
    instead: Option<Bytes>,
    /// What the caller is told whatever it sends.
    refusal: Option<Refused>,
    upgraded: bool,
}

impl<S: AsyncWrite + Unpin> Socket<S> {
    pub(super) fn new(inner: S, refusal: Option<Refused>) -> Socket<S> {
        Socket { inner, stalled: None, instead: None, refusal, upgraded: false }
    }

    /// `outcome` within the deadline, which restarts with everything that the peer takes.
    fn within<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() || self.upgraded {
            self.stalled = None;
            return outcome;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limits::WRITE_DEADLINE)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.within(context, outcome)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.upgraded && self.instead.is_none() {
            self.upgraded = bytes.starts_with(b"HTTP/1.1 101 ");
            self.instead = refused_by_hyper(bytes).map(|status| match &self.refusal {
                Some(refusal) => whole(refusal),
                None => whole(&problem(status)),
            });
        }
        let Some(mut instead) = self.instead.take() else { return self.write(context, bytes) };
        while !instead.is_empty() {
            match self.write(context, &instead) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => instead.advance(count),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.instead = Some(instead);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(context);
        self.within(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_shutdown(context);
        self.within(context, outcome)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

/// The status of an answer that hyper itself gives: an error without a word. Every error of
/// Hearth's own has a body.
fn refused_by_hyper(answer: &[u8]) -> Option<u16> {
    let head = answer.strip_prefix(b"HTTP/1.1 4")?.strip_suffix(b"\r\n\r\n")?;
    let head = str::from_utf8(head).ok()?;
    let empty = head.split("\r\n").any(|line| line.eq_ignore_ascii_case("content-length: 0"));
    let status = head.get(..2).filter(|_| empty)?.parse::<u16>().ok()?;
    Some(400 + status)
}

/// The same refusal with a sentence.
fn problem(status: u16) -> Refused {
    match status {
        414 => {
            let detail = "the address of the request is too long";
            Refused::new(414, "long-address", "Address too long", detail)
                .help("ids have at most 64 characters, cursors come from answers")
        }
        431 => {
            let (bytes, count) = (limits::HEAD_BYTES_MAX, limits::HEADERS_MAX);
            let detail =
                format!("the head of the request has more than {bytes} bytes or {count} headers");
            Refused::new(431, "large-head", "Headers too large", detail)
        }
        _ => Refused::new(status, "not-http", "Not HTTP", "the request is not HTTP/1.1"),
    }
}

/// A whole answer, after which the connection is closed.
fn whole(refused: &Refused) -> Bytes {
    let status = refused.status();
    let body = refused.body();
    let retry_after = refused.retry_after().map(|seconds| format!("retry-after: {seconds}\r\n"));
    let retry_after = retry_after.unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\n\
         {retry_after}connection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, timeout};

    fn pair() -> (Socket<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(64);
        (Socket::new(near, None), far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_given_up() {
        let (mut socket, _far) = pair();
        let begin = Instant::now();
        let error = socket.write_all(&[b'x'; 1000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(begin.elapsed().as_secs(), limits::WRITE_DEADLINE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_a_little_is_waited_for() {
        let (mut socket, mut far) = pair();
        let reading = async {
            let mut bytes = [0; 10];
            for _ in 0..10 {
                sleep(limits::WRITE_DEADLINE / 2).await;
                far.read_exact(&mut bytes).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(socket.write_all(&[b'x'; 150]), reading);
        written.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn upgraded_connection_has_no_time_limit_and_carries_all_bytes() {
        let (mut socket, mut far) = pair();
        let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
        socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await.unwrap();
        let mut head = vec![0; 36];
        far.read_exact(&mut head).await.unwrap();
        socket.write_all(answer).await.unwrap();
        let mut carried = vec![0; answer.len()];
        far.read_exact(&mut carried).await.unwrap();
        assert_eq!(carried, answer);
        let day = std::time::Duration::from_secs(24 * 3600);
        timeout(day, socket.write_all(&[b'x'; 1000])).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn what_hyper_refuses_without_a_word_gets_one() {
        let (mut socket, mut far) = pair();
        let answer: &[u8] =
            b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let writing = async {
            socket.write_all(answer).await.unwrap();
            drop(socket);
        };
        let mut said = String::new();
        let ((), read) = tokio::join!(writing, far.read_to_string(&mut said));
        read.unwrap();
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{said}");
        assert!(head.contains("application/problem+json"), "{said}");
        assert!(body.contains("more than 16384 bytes or 100 headers"), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn unreadable_request_of_a_refused_caller_gets_his_refusal() {
        for (refusal, retry_after) in [
            (Refused::for_now("unavailable", "Unavailable", "not now"), true),
            (Refused::new(403, "not-admitted", "Not admitted", "never"), false),
        ] {
            let (near, mut far) = duplex(64);
            let status = refusal.status();
            let mut socket = Socket::new(near, Some(refusal));
            let writing = async {
                let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
                socket.write_all(answer).await.unwrap();
                drop(socket);
            };
            let mut said = String::new();
            let ((), read) = tokio::join!(writing, far.read_to_string(&mut said));
            read.unwrap();
            assert!(said.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{said}");
            assert_eq!(said.contains("\r\nretry-after: 1\r\n"), retry_after, "{said}");
        }
    }

    #[test]
    fn hearths_own_refusals_are_left_alone() {
        assert_eq!(refused_by_hyper(b"HTTP/1.1 400 x\r\ncontent-length: 0\r\n\r\n"), Some(400));
        assert_eq!(refused_by_hyper(b"HTTP/1.1 404 x\r\ncontent-length: 9\r\n\r\n"), None);
        assert_eq!(refused_by_hyper(b"HTTP/1.1 202 x\r\ncontent-length: 0\r\n\r\n"), None);
        assert_eq!(refused_by_hyper(b"HTTP/1.1 4"), None);
    }
}
