//! What is read back from the kernel, from disk and from a guest, each input as all of it:
//! `/proc/<pid>/stat`, `/proc/meminfo`, an instance's `manifest.json`, headers of images, a log, the
//! two drives, frames of output and lines of the control stream.
//!
//! Whatever is understood is written and read the same. A log's cursors grow and are those of whole
//! lines, a torn end is cut off, and a line that is added is read back. A drive whose digest does not
//! match is refused. What a guest sends is bounded and never more than it sent.

#![no_main]

use hearth_firecracker::fuzzing::stat;
use hearth_fuzz::work_dir;
use hearth_guest::{
    Command, Config, DriveError, LOG_FRAME_HEADER_BYTES, LOG_PAYLOAD_BYTES_MAX, LogCursor,
    LogFrameHeader, Message, STATUS_DRIVE_BYTES, Status, decode_config, decode_status,
    encode_config, encode_status,
};
use hearth_host::LogQuery;
use hearth_host::linux::fuzzing::{
    forwarder, frames, image_faults, instance_record, log, log_line, memory_mib, status,
};
use hearth_model::InstanceId;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::LazyLock;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime is made")
});
static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(work_dir);

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    kernel(&text);
    images(bytes);
    instance(bytes);
    written_log(bytes);
    drives(bytes);
    RUNTIME.block_on(guest(bytes));
    message::<Command>(bytes);
    message::<Message>(bytes);
    message::<LogCursor>(bytes);
});

/// The command's name is its own choice, and changes nothing of what is read.
fn kernel(text: &str) {
    let behind = "S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 654 3";
    assert_eq!(stat(&format!("42 ({text}) {behind}")), Some((false, 987)));
    assert_eq!(stat(&format!("42 ({text}) {}", behind.replacen('S', "Z", 1))), Some((true, 987)));
    if let Some((_, ticks)) = stat(text) {
        let shown = ticks.to_string();
        assert!(text.contains(&shown) || text.contains(&format!("+{shown}")) || text.contains('0'));
    }
    let mib = memory_mib(text);
    assert!(mib <= u64::MAX / 1024);
    assert!(mib == 0 || text.contains("MemTotal:"));
}

fn path(name: &str) -> PathBuf {
    DIR.path().join(name)
}

fn images(bytes: &[u8]) {
    let path = path("image");
    std::fs::write(&path, bytes).expect("it is written");
    let file = std::fs::File::open(&path).expect("it exists");
    let faults = image_faults(&file, bytes.len() as u64).expect("it is read");
    assert!(faults.iter().flatten().all(|fault| fault.starts_with("it is ")));
    assert_eq!(faults[0].is_none(), faults[0].is_none() && bytes.starts_with(b"\x7fELF"));
    assert!(!bytes.is_empty() || faults.iter().all(Option::is_some));
    // What is whole is not whole when its end is lacking, as far as a header says where it is.
    if faults[2].is_none() && bytes.len() > 2048 {
        assert_eq!(bytes[1024 + 0x38..1024 + 0x3a], [0x53, 0xef]);
    }
}

fn instance(bytes: &[u8]) {
    let dir = path("instance");
    std::fs::create_dir_all(&dir).expect("it is made");
    std::fs::write(dir.join("manifest.json"), bytes).expect("it is written");
    let id = InstanceId::parse("abc123").expect("it is one");
    let boot = "5d2b2d57-5b1e-4b7c-9a4e-000000000001";
    if let Ok(read) = instance_record(&dir, &id, boot) {
        assert_eq!(instance_record(&dir, &id, boot).expect("it was written"), read);
        assert!(String::from_utf8_lossy(bytes).contains("spec_hash"));
    }
    std::fs::write(dir.join("status.img"), bytes).expect("it is written");
    match (status(&dir), decode_status(&bytes[..bytes.len().min(STATUS_DRIVE_BYTES)])) {
        (Ok(found), decoded) => assert_eq!(found, decoded.ok()),
        (Err(_), decoded) => assert!(decoded.is_err()),
    }
}

fn written_log(bytes: &[u8]) {
    let path = path("x.log");
    let _ = std::fs::remove_file(self::path("x.log.1"));
    std::fs::write(&path, bytes).expect("it is written");
    let page = log(&path, LogQuery::default()).expect("it is read");
    let mut behind = 0;
    for line in &page.lines {
        assert!(behind < line.cursor, "{page:?}");
        behind = line.cursor;
        assert!(!line.text.contains('\n') && matches!(line.stream, "stdout" | "stderr" | "hearth"));
    }
    assert_eq!(page.next, behind);
    for tail in [0, 1, 3] {
        let last = log(&path, LogQuery { after: 0, tail: Some(tail) }).expect("it is read");
        assert_eq!(last.lines, page.lines[page.lines.len().saturating_sub(tail)..]);
        assert_eq!(last.next, page.next);
    }
    if let Some(middle) = page.lines.get(page.lines.len() / 2) {
        let after = LogQuery { after: middle.cursor, tail: None };
        let rest = log(&path, after).expect("it is read");
        assert_eq!(rest.lines, page.lines[page.lines.len() / 2 + 1..]);
    }
    // A daemon that continues it loses no whole line, and adds to it.
    let offset = log_line(&path, b"one more").expect("it is written");
    let more = log(&path, LogQuery::default()).expect("it is read");
    let (last, lines) = more.lines.split_last().expect("it has the new line");
    assert_eq!(last.text, "one more");
    assert!(lines.len() == page.lines.len() || lines.is_empty());
    assert_eq!(log_line(&path, b"and more").expect("it is written"), offset);
}

fn drives(bytes: &[u8]) {
    for decoded in [decode_config(bytes).map(drop), decode_status(bytes).map(drop)] {
        assert!(!matches!(decoded, Err(DriveError::TooLarge { .. })));
    }
    let whole = |magic: &[u8; 8]| {
        let mut drive = magic.to_vec();
        drive.extend((bytes.len() as u32).to_le_bytes());
        drive.extend(blake3::hash(bytes).as_bytes());
        drive.extend(bytes);
        drive
    };
    let (config, status) = (whole(b"HRTHCFG1"), whole(b"HRTHSTA1"));
    assert!(matches!(decode_config(&status), Err(DriveError::Damaged)));
    assert!(matches!(decode_status(&config), Err(DriveError::Damaged)));
    if let Ok(config) = decode_config(&config) {
        let drive = encode_config(&config).expect("it is no larger than it was");
        assert_eq!(drive.len() % 512, 0);
        assert_eq!(decode_config(&drive).expect("it was written just now"), config);
    }
    if let Ok(status) = decode_status(&status) {
        match encode_status(&status) {
            Ok(page) => {
                assert_eq!(page.len(), STATUS_DRIVE_BYTES);
                let read = decode_status(&page).expect("it was written just now");
                assert!(status.tail.ends_with(&read.tail));
                assert_eq!(read, Status { tail: read.tail.clone(), ..status });
            }
            Err(DriveError::TooLarge { bytes, limit }) => assert!(bytes > limit),
            Err(error) => panic!("{error}"),
        }
    }
    message::<Config>(bytes);
    message::<Status>(bytes);
}

/// Whatever is understood is written and read the same.
fn message<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<T>(bytes) {
        let written = serde_json::to_vec(&message).expect("it is JSON");
        assert!(!written.contains(&b'\n'));
        assert_eq!(serde_json::from_slice::<T>(&written).expect("it was written"), message);
    }
}

/// A guest's output and its forwarder's answer, which end with the stream.
async fn guest(bytes: &[u8]) {
    if let Some(header) = bytes.first_chunk::<LOG_FRAME_HEADER_BYTES>()
        && let Some(decoded) = LogFrameHeader::decode(header)
    {
        assert_eq!(decoded.encode(), *header);
        assert!(decoded.len as usize <= LOG_PAYLOAD_BYTES_MAX);
    }
    let path = path("guest.log");
    for path in [path.clone(), self::path("guest.log.1")] {
        let _ = std::fs::remove_file(path);
    }
    let ((host, _guest), said) = (said(bytes).await, String::from_utf8_lossy(bytes));
    let tail: String = said.chars().take(200).collect();
    let read = frames(host, &path, &tail).await;
    let page = log(&path, LogQuery::default()).expect("it is read");
    let own = page.lines.iter().filter(|line| line.stream != "hearth");
    let logged: usize = own.map(|line| line.text.len()).sum();
    // What is no UTF-8 takes three bytes for one; and the tail is there twice at most.
    assert!(logged <= 3 * bytes.len() + 3 * tail.len(), "{logged} of {}", bytes.len());
    assert!(read.is_ok() || bytes.len() >= LOG_FRAME_HEADER_BYTES);
    let (host, _guest) = self::said(bytes).await;
    match forwarder(host, 80).await {
        Ok(answer) => {
            assert!(!answer.contains('\n') && answer.len() <= 3 * 512);
            let line = said.split('\n').next().unwrap_or_default();
            assert_eq!(answer, line);
        }
        Err(_) => assert!(bytes.iter().take(513).all(|&byte| byte != b'\n')),
    }
}

/// The ends of host and guest of a stream on which the guest has said this and nothing more.
async fn said(bytes: &[u8]) -> (UnixStream, UnixStream) {
    let (host, mut guest) = UnixStream::pair().expect("a pair is made");
    let bytes = bytes[..bytes.len().min(64 * 1024)].to_vec();
    guest.write_all(&bytes).await.expect("it fits into the buffer");
    guest.shutdown().await.expect("it is ended");
    // The host writes first, to a guest that is still there.
    (host, guest)
}
