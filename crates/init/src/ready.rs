//! Readiness: the check of the spec, made inside the guest on its loopback until it passes once.
//! A check that has passed is not made again: readiness is about the start, not about health.

use crate::child::{Launch, Output, Reaper};
use crate::{program, refusal};
use hearth_guest::ReadyCheck;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time limit of one HTTP or TCP check.
const NET_LIMIT: Duration = Duration::from_secs(1);
/// Time limit of one exec check.
const EXEC_LIMIT: Duration = Duration::from_secs(5);
/// Pause after the first failure; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two checks.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Most bytes read of an HTTP answer to find its status.
const STATUS_LINE_BYTES_MAX: u64 = 256;

/// Makes one kind of check.
pub(crate) struct Checker {
    pub(crate) check: ReadyCheck,
    pub(crate) rootfs: String,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) reaper: Arc<Reaper>,
}

impl Checker {
    /// Checks until it passes. After each failure `tell` gets the reason, and answers whether to
    /// continue.
    pub(crate) fn until_passed(&self, mut tell: impl FnMut(&str) -> bool) -> bool {
        let mut pause = PAUSE_MIN;
        loop {
            match self.once() {
                Ok(()) => return true,
                Err(reason) if !tell(&reason) => return false,
                Err(_) => {}
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Makes the check once.
    ///
    /// # Errors
    /// Why it failed, as a sentence.
    pub(crate) fn once(&self) -> Result<(), String> {
        match &self.check {
            ReadyCheck::Http { port, path } => http(*port, path),
            ReadyCheck::Tcp { port } => connect(*port, NET_LIMIT)
                .map(drop)
                .map_err(|error| format!("tcp port {port}: {error}")),
            ReadyCheck::Exec(cmd) => self.exec(cmd),
            // The notify socket reports it; there is nothing to ask.
            ReadyCheck::Notify => Err("the app has not said that it is ready".to_owned()),
        }
    }

    fn exec(&self, cmd: &[String]) -> Result<(), String> {
        let name = cmd.first().map_or("", String::as_str);
        let path = self.env.get("PATH").map_or(program::DEFAULT_PATH, String::as_str);
        let file = program::resolve(name, path, &self.rootfs)?;
        let launch = Launch { file: &file, argv: cmd, env: &self.env, output: Output::Nowhere };
        let child = self.reaper.spawn(&launch);
        let pid = child.map_err(|error| refusal::why_refused(&file, &error, &self.rootfs))?.pid;
        let Some(status) = self.reaper.wait(pid, Some(Instant::now() + EXEC_LIMIT)) else {
            self.reaper.kill_group(pid);
            self.reaper.wait(pid, None);
            return Err(format!("{name}: no end within {} s", EXEC_LIMIT.as_secs()));
        };
        match (status.exit_status(), status.terminating_signal()) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => Err(format!("{name}: exit code {code}")),
            (None, signal) => Err(format!("{name}: killed by signal {}", signal.unwrap_or(0))),
        }
    }
}

/// Connects to a TCP port of the loopback: IPv4 first, since an app that listens on IPv6 alone is
/// the rarer one.
///
/// # Errors
/// That of the IPv4 connection where neither accepts.
pub(crate) fn connect(port: u16, limit: Duration) -> std::io::Result<TcpStream> {
    let four = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&four, limit)
        .or_else(|error| TcpStream::connect_timeout(&six, limit).map_err(|_| error))
}

fn http(port: u16, path: &str) -> Result<(), String> {
    let what = format!("http port {port} {path}");
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::WouldBlock => {
            format!("{what}: no answer within {} s", NET_LIMIT.as_secs())
        }
        _ => format!("{what}: {error}"),
    };
    if !path.starts_with('/') || path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(format!("{what}: not a path"));
    }
    let mut stream = connect(port, NET_LIMIT).map_err(failed)?;
    let deadline = Instant::now() + NET_LIMIT;
    stream.set_write_timeout(Some(NET_LIMIT)).map_err(failed)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: hearth-init\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut line = Vec::new();
    while !line.contains(&b'\n') && (line.len() as u64) < STATUS_LINE_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(failed(std::io::ErrorKind::WouldBlock.into()));
        }
        stream.set_read_timeout(Some(left)).map_err(failed)?;
        let mut chunk = [0; 64];
        match stream.read(&mut chunk).map_err(failed)? {
            0 => break,
            read => line.extend_from_slice(&chunk[..read]),
        }
    }
    match status_code(&line) {
        Some(200..=399) => Ok(()),
        Some(code) => Err(format!("{what}: answered {code}")),
        None => Err(format!("{what}: the answer is not HTTP")),
    }
}

/// The code of a status line such as `HTTP/1.1 200 OK`.
fn status_code(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|&byte| byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::shared_reaper;
    use std::net::TcpListener;

    fn once(check: ReadyCheck) -> Result<(), String> {
        let env = BTreeMap::from([("HERE".to_owned(), "yes".to_owned())]);
        let rootfs = "web.ext4".to_owned();
        Checker { check, rootfs, env, reaper: shared_reaper() }.once()
    }

    /// A server that gives `answer` to one connection and hands back what it was asked.
    fn server(answer: &'static [u8]) -> (u16, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).expect("read") == 0 {
                    break;
                }
                asked.push(byte[0]);
            }
            stream.write_all(answer).expect("write");
            String::from_utf8(asked).expect("text")
        });
        (port, served)
    }

    fn http_answer(answer: &'static [u8]) -> Result<(), String> {
        let (port, served) = server(answer);
        let result = once(ReadyCheck::Http { port, path: "/health?x=1".to_owned() });
        let asked = served.join().expect("served");
        assert!(asked.starts_with("GET /health?x=1 HTTP/1.1\r\n"), "{asked}");
        result.map_err(|reason| reason.replace(&port.to_string(), "PORT"))
    }

    #[test]
    fn an_http_check_passes_on_2xx_and_3xx_and_tells_anything_else() {
        assert_eq!(http_answer(b"HTTP/1.1 200 OK\r\n\r\nbody"), Ok(()));
        assert_eq!(http_answer(b"HTTP/1.0 302 Found\r\n"), Ok(()));
        let failed = |what: &str| Err(format!("http port PORT /health?x=1: {what}"));
        assert_eq!(http_answer(b"HTTP/1.1 503 No\r\n"), failed("answered 503"));
        assert_eq!(http_answer(b"SSH-2.0-OpenSSH\r\n"), failed("the answer is not HTTP"));
        assert_eq!(http_answer(b""), failed("the answer is not HTTP"));
    }

    #[test]
    fn an_http_check_of_a_silent_server_ends_at_its_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let began = Instant::now();
        let reason = once(ReadyCheck::Http { port, path: "/".to_owned() }).expect_err("silent");
        assert_eq!(reason, format!("http port {port} /: no answer within 1 s"));
        assert!(began.elapsed() < NET_LIMIT * 4);
    }

    #[test]
    fn a_path_that_would_smuggle_a_header_is_not_asked_for() {
        let path = "/ HTTP/1.1\r\nX: y".to_owned();
        assert!(once(ReadyCheck::Http { port: 1, path }).is_err());
    }

    #[test]
    fn a_tcp_check_passes_when_something_accepts() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        assert_eq!(once(ReadyCheck::Tcp { port }), Ok(()));
        drop(listener);
        let reason = once(ReadyCheck::Tcp { port }).expect_err("closed");
        assert!(reason.starts_with(&format!("tcp port {port}: Connection refused")), "{reason}");
    }

    #[test]
    fn an_exec_check_has_the_apps_environment_and_passes_on_code_0() {
        let sh = |script: &str| {
            once(ReadyCheck::Exec(vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()]))
        };
        assert_eq!(sh("test \"$HERE\" = yes"), Ok(()));
        assert_eq!(sh("exit 3"), Err("sh: exit code 3".to_owned()));
        assert_eq!(sh("kill -9 $$"), Err("sh: killed by signal 9".to_owned()));
        let missing = once(ReadyCheck::Exec(vec!["/no/such".to_owned()]));
        assert_eq!(missing, Err("/no/such: not found in web.ext4".to_owned()));
    }

    #[test]
    fn an_exec_check_that_hangs_is_killed_at_its_limit() {
        let hang = vec!["sh".to_owned(), "-c".to_owned(), "sleep 600".to_owned()];
        let began = Instant::now();
        assert_eq!(once(ReadyCheck::Exec(hang)), Err("sh: no end within 5 s".to_owned()));
        assert!(began.elapsed() < EXEC_LIMIT * 4);
    }

    #[test]
    fn checks_continue_until_one_passes_or_they_are_cancelled() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        drop(listener);
        let (env, rootfs) = (BTreeMap::new(), "web.ext4".to_owned());
        let check = ReadyCheck::Tcp { port };
        let checker = Checker { check, rootfs, env, reaper: shared_reaper() };
        let mut reopened = None;
        assert!(checker.until_passed(|_| {
            reopened = TcpListener::bind(("127.0.0.1", port)).ok();
            true
        }));
        drop(reopened);
        assert!(!checker.until_passed(|_| false));
    }
}
