//! What a Firecracker, or whatever has taken its place, says: answers of its API, the handshake of
//! its vsock, its version, and what a guest prints on its console. Each input is read as all of them.
//!
//! The client ends each call, with what was said or with an error that names the call. The vsock
//! hands on every byte behind the acknowledgement. The console shows the end of what was printed,
//! and nothing that commands a terminal.

#![no_main]

use hearth_firecracker::{
    Action, ApiError, CONSOLE_BYTES_MAX, Client, Console, Directory, InstanceInfo, Version,
    escaped, vsock,
};
use hearth_fuzz::is_tame;
use libfuzzer_sys::fuzz_target;
use rustix::fs::{CWD, Mode, mkfifoat};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

/// No machine is so slow that a call takes a hundred times its deadline.
const PATIENCE: f32 = 100.0;
/// The longest acknowledgement of a vsock.
const ACKNOWLEDGEMENT_BYTES_MAX: usize = 16;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime is made")
});
static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let dir = hearth_fuzz::work_dir();
    mkfifoat(CWD, dir.path().join("console"), Mode::RUSR | Mode::WUSR).expect("a FIFO is made");
    dir
});

fuzz_target!(|said: &[u8]| {
    RUNTIME.block_on(async {
        api(said).await;
        connection(said).await;
        console(said);
    });
    version(said);
});

/// Two calls, each answered with what was said, and then the end of the stream.
async fn api(said: &[u8]) {
    let listener = listener("api.sock");
    let directory = Arc::new(Directory::open(DIR.path()).expect("it exists"));
    let client = Client::new(directory, "api.sock", PATIENCE);
    let answer = async {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.expect("the client connects");
            let mut request = [0; 512];
            let _ = stream.read(&mut request).await;
            // The client may have gone already.
            let _ = stream.write_all(said).await;
            let _ = stream.shutdown().await;
        }
    };
    let calls = async {
        let described = client.describe().await;
        (described, client.action(Action::SendCtrlAltDel).await)
    };
    let ((described, done), ()) = tokio::join!(calls, answer);
    let text = String::from_utf8_lossy(said);
    if let Ok(InstanceInfo { id, vmm_version, .. }) = &described {
        assert!(status(said).is_none_or(|status| (200..300).contains(&status)));
        assert!(id.len() <= said.len() && vmm_version.len() <= said.len());
    }
    let checked = [described.map(drop), done].map(|result| (result.is_ok(), result));
    for (at, (fine, result)) in checked.into_iter().enumerate() {
        assert!(!fine || text.contains("HTTP/1."), "it took {text:?} for an answer");
        let operation = ["GET /", "PUT /actions"][at];
        if let Err(error) = result {
            refused(&error, operation, said);
        }
    }
}

fn refused(error: &ApiError, operation: &str, said: &[u8]) {
    assert!(error.to_string().contains(operation), "{error}");
    match error {
        ApiError::Rejected { status, fault_message, .. } => {
            assert!(!(200..300).contains(status), "{error}");
            assert!(fault_message.len() <= 3 * said.len());
            assert_eq!(error.is_transient(), *status >= 500, "{error}");
        }
        ApiError::Json { .. } => assert!(!error.is_transient()),
        ApiError::Broken { .. } => assert!(error.is_transient()),
        ApiError::Connect { .. } | ApiError::Deadline { .. } | ApiError::TooLarge { .. } => {
            panic!("the answer was there: {error}")
        }
    }
}

/// The status of a plain answer.
fn status(said: &[u8]) -> Option<u16> {
    let line = said.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let status: u16 = str::from_utf8(line).ok()?.parse().ok()?;
    // Interim answers come before another.
    (status >= 200).then_some(status)
}

async fn connection(said: &[u8]) {
    let listener = listener("v.sock");
    let path = DIR.path().join("v.sock");
    let answer = async {
        let (mut stream, _) = listener.accept().await.expect("the client connects");
        let mut request = [0; 11];
        let _ = stream.read_exact(&mut request).await;
        assert_eq!(&request, b"CONNECT 52\n");
        let _ = stream.write_all(said).await;
        // The end of file follows only once it was connected, so that it does not come too soon.
        stream
    };
    let connect = async {
        // The second attempt is not accepted, and ends with the deadline.
        vsock::connect(&path, 52, Duration::from_millis(1)).await
    };
    let (connected, guest) = tokio::join!(connect, answer);
    drop(guest);
    let line = said.iter().position(|&byte| byte == b'\n').map(|end| &said[..=end]);
    if let Ok(mut stream) = connected {
        let line = line.expect("a line was acknowledged");
        assert!(line.starts_with(b"OK ") && line.len() <= ACKNOWLEDGEMENT_BYTES_MAX, "{line:?}");
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest).await;
        assert!(read.is_err() || rest == said[line.len()..]);
    }
}

fn listener(name: &str) -> UnixListener {
    let path = DIR.path().join(name);
    let _ = std::fs::remove_file(&path);
    UnixListener::bind(path).expect("it is free")
}

fn version(said: &[u8]) {
    let text = String::from_utf8_lossy(said);
    if let Some(version) = Version::parse(&text) {
        let shown = version.to_string();
        assert_eq!(Version::parse(&format!("Firecracker v{shown}-dev")), Some(version));
        assert!(version.concerns().len() <= 2);
    }
}

fn console(said: &[u8]) {
    let path: &Path = &DIR.path().join("console");
    let mut console = Console::open(path).expect("it is a FIFO");
    let mut writer = OpenOptions::new();
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut writer = writer.write(true).custom_flags(nonblocking).open(path).expect("it is read");
    for piece in said.chunks(4096) {
        writer.write_all(piece).expect("it was drained");
        console.drain_now();
    }
    let kept = &said[said.len().saturating_sub(CONSOLE_BYTES_MAX)..];
    assert_eq!(console.recent(usize::MAX), kept);
    assert_eq!(console.recent(3), kept[kept.len().saturating_sub(3)..]);
    let tail = console.tail(5);
    assert!(tail.len() <= 5);
    let shown = |line: &String| is_tame(&line.replace('\t', " "));
    assert!(tail.iter().all(|line| !line.is_empty() && shown(line)), "{tail:?}");
    if let Some(reason) = console.panic() {
        assert!(shown(&reason), "{reason:?}");
        assert!(String::from_utf8_lossy(kept).contains("Kernel panic"));
    }
    let once = escaped(&String::from_utf8_lossy(said));
    assert_eq!(escaped(&once), once);
}
