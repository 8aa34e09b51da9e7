//! The two drives: a header of magic, length and BLAKE3 digest, then JSON.
//!
//! Layout: magic (8 bytes), payload length (u32 little-endian), digest of the payload (32 bytes),
//! payload, zeroes up to a multiple of 512 and at least 8 KiB (config) or to 4 KiB (status).

use crate::wire::{Config, Status};
use serde::{Serialize, de::DeserializeOwned};

/// Size of the status drive, in bytes: one page, so that it is written in one piece.
pub const STATUS_DRIVE_BYTES: usize = 4096;
/// Largest config drive, in bytes: the API's body limit with room to spare.
pub const CONFIG_DRIVE_BYTES_MAX: usize = 1024 * 1024;

const CONFIG_MAGIC: &[u8; 8] = b"HRTHCFG1";
const STATUS_MAGIC: &[u8; 8] = b"HRTHSTA1";
const HEADER_BYTES: usize = 8 + 4 + 32;
const SECTOR_BYTES: usize = 512;
/// Smallest config drive, in bytes: guests' kernels look for partition tables in the first 16
/// sectors and complain on the console, slowly, about a drive that has fewer.
const CONFIG_DRIVE_BYTES_MIN: usize = 16 * SECTOR_BYTES;

/// Why a drive could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// Nothing was written to it.
    #[error("the drive is blank")]
    Blank,
    /// It does not begin with the magic, or its digest does not match.
    #[error("the drive is damaged")]
    Damaged,
    /// The content does not fit.
    #[error("the drive's content has {bytes} bytes and the limit is {limit}")]
    TooLarge {
        /// What was to be written.
        bytes: usize,
        /// What fits.
        limit: usize,
    },
    /// The content is not what this version understands.
    #[error("cannot read the drive's content")]
    Content(#[source] serde_json::Error),
}

/// The bytes of a config drive, a multiple of 512.
///
/// # Errors
/// [`DriveError::TooLarge`] over [`CONFIG_DRIVE_BYTES_MAX`].
pub fn encode_config(config: &Config) -> Result<Vec<u8>, DriveError> {
    let mut bytes = encode(CONFIG_MAGIC, config, CONFIG_DRIVE_BYTES_MAX)?;
    let len = bytes.len().next_multiple_of(SECTOR_BYTES).max(CONFIG_DRIVE_BYTES_MIN);
    bytes.resize(len, 0);
    Ok(bytes)
}

/// Reads a config drive.
///
/// # Errors
/// Any [`DriveError`] but `TooLarge`.
pub fn decode_config(bytes: &[u8]) -> Result<Config, DriveError> {
    decode(CONFIG_MAGIC, bytes)
}

/// The bytes of a status drive, always [`STATUS_DRIVE_BYTES`]. The tail is cut from its front
/// until all fits.
///
/// # Errors
/// [`DriveError::TooLarge`] where even without a tail it does not fit.
pub fn encode_status(status: &Status) -> Result<Vec<u8>, DriveError> {
    let mut status = status.clone();
    loop {
        match encode(STATUS_MAGIC, &status, STATUS_DRIVE_BYTES) {
            Ok(mut bytes) => {
                bytes.resize(STATUS_DRIVE_BYTES, 0);
                return Ok(bytes);
            }
            Err(DriveError::TooLarge { .. }) if !status.tail.is_empty() => {
                let half = (status.tail.len() / 8).max(1);
                let cut = (half..=status.tail.len())
                    .find(|&at| status.tail.is_char_boundary(at))
                    .unwrap_or(status.tail.len());
                status.tail.drain(..cut);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads a status drive.
///
/// # Errors
/// [`DriveError::Blank`] where the guest wrote nothing; else any but `TooLarge`.
pub fn decode_status(bytes: &[u8]) -> Result<Status, DriveError> {
    decode(STATUS_MAGIC, bytes)
}

fn encode<T: Serialize>(magic: &[u8; 8], value: &T, limit: usize) -> Result<Vec<u8>, DriveError> {
    let payload = serde_json::to_vec(value).map_err(DriveError::Content)?;
    let bytes = HEADER_BYTES + payload.len();
    let len = u32::try_from(payload.len()).ok().filter(|_| bytes <= limit);
    let Some(len) = len else { return Err(DriveError::TooLarge { bytes, limit }) };
    let mut drive = Vec::with_capacity(limit.min(bytes + SECTOR_BYTES));
    drive.extend_from_slice(magic);
    drive.extend_from_slice(&len.to_le_bytes());
    drive.extend_from_slice(blake3::hash(&payload).as_bytes());
    drive.extend_from_slice(&payload);
    Ok(drive)
}

fn decode<T: DeserializeOwned>(magic: &[u8; 8], bytes: &[u8]) -> Result<T, DriveError> {
    if bytes.iter().take(HEADER_BYTES).all(|&byte| byte == 0) {
        return Err(DriveError::Blank);
    }
    let (found, rest) = bytes.split_first_chunk::<8>().ok_or(DriveError::Damaged)?;
    let (len, rest) = rest.split_first_chunk::<4>().ok_or(DriveError::Damaged)?;
    let (digest, rest) = rest.split_first_chunk::<32>().ok_or(DriveError::Damaged)?;
    let payload = rest.get(..u32::from_le_bytes(*len) as usize).ok_or(DriveError::Damaged)?;
    if found != magic || blake3::hash(payload).as_bytes() != digest {
        return Err(DriveError::Damaged);
    }
    serde_json::from_slice(payload).map_err(DriveError::Content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        Command, Delivery, Ending, Exit, Identity, Ready, ReadyCheck, Stage, Workload,
    };
    use crate::{COMMAND_LINE_BYTES_MAX, CONTROL_LINE_BYTES_MAX};
    use proptest::prelude::*;

    fn config() -> impl Strategy<Value = Config> {
        let check = prop_oneof![
            (any::<u16>(), ".{0,20}").prop_map(|(port, path)| ReadyCheck::Http { port, path }),
            any::<u16>().prop_map(|port| ReadyCheck::Tcp { port }),
            prop::collection::vec(".{0,10}", 0..4).prop_map(ReadyCheck::Exec),
            Just(ReadyCheck::Notify),
        ];
        let identity = (".{0,10}", ".{0,10}", any::<u64>(), ".{0,10}").prop_map(
            |(job_id, tenant, generation, vm_id)| Identity { job_id, tenant, generation, vm_id },
        );
        (
            (".{0,10}", ".{0,20}", prop::collection::vec(".{0,20}", 0..5), any::<(u8, u32)>()),
            prop::collection::btree_map("[A-Z_]{1,10}", ".{0,40}", 0..6),
            (prop_oneof![Just(Stage::Init), Just(Stage::App)], any::<bool>()),
            prop::option::of(check.prop_map(|check| Ready { check })),
            prop::option::of(identity),
        )
            .prop_map(
                |(
                    (instance, rootfs, cmd, (stop_signal, stop_timeout_s)),
                    env,
                    (stage, late),
                    ready,
                    identity,
                )| {
                    let workload = Workload { cmd, env, ready };
                    Config {
                        instance,
                        rootfs_digest: Some(format!("digest of {rootfs}")),
                        rootfs,
                        stage,
                        workload: if late { Delivery::LATE } else { Delivery::Inline(workload) },
                        stop_signal,
                        stop_timeout_s,
                        identity,
                    }
                },
            )
    }

    fn status(ending: Ending, tail: String) -> Status {
        let exit = Exit::of(ending);
        Status { instance: "abc".to_owned(), exit, uptime_ms: 1500, tail }
    }

    #[test]
    fn a_blank_drive_is_told_from_a_damaged_one() {
        assert!(matches!(decode_status(&[0; STATUS_DRIVE_BYTES]), Err(DriveError::Blank)));
        assert!(matches!(decode_config(&[]), Err(DriveError::Blank)));
        assert!(matches!(decode_status(&[1; STATUS_DRIVE_BYTES]), Err(DriveError::Damaged)));
    }

    /// A drive with this payload, byte for byte.
    fn drive(magic: &[u8; 8], payload: &str) -> Vec<u8> {
        let len = u32::try_from(payload.len()).expect("short").to_le_bytes();
        let digest = blake3::hash(payload.as_bytes());
        [&magic[..], &len, digest.as_bytes(), payload.as_bytes(), &[0; 512]].concat()
    }

    #[test]
    fn drives_of_an_older_version_are_read() {
        let status = r#"{"instance":"abc","exit":{"ending":{"code":3},"stop_requested":false,"out_of_memory":true},"uptime_ms":1500,"tail":"on\n"}"#;
        let status = decode_status(&drive(STATUS_MAGIC, status)).expect("a status");
        assert_eq!((status.exit.ending, status.tail.as_str()), (Ending::Code(3), "on\n"));
        assert_eq!((status.exit.out_of_memory, status.exit.oom_kills), (true, None));
        let config = r#"{"instance":"abc","rootfs":"r.ext4","cmd":["/a"],"env":{},"stage":"app","ready":null,"stop_timeout_s":10,"identity":null}"#;
        let config = decode_config(&drive(CONFIG_MAGIC, config)).expect("a config");
        assert_eq!((config.stop_signal, config.stop_timeout_s), (15, 10));
        let Delivery::Inline(workload) = config.workload else { panic!("it is late") };
        assert_eq!(workload.cmd, ["/a"]);
    }

    #[test]
    fn config_with_neither_a_workload_nor_the_word_late_is_refused() {
        let config = |workload: &str| {
            let text = format!(
                r#"{{"instance":"abc","rootfs":"r","stage":"init","stop_timeout_s":1,"identity":null{workload}}}"#
            );
            decode_config(&drive(CONFIG_MAGIC, &text)).map(|config| config.workload)
        };
        assert_eq!(config(r#","workload":"late""#).expect("a config"), Delivery::LATE);
        for workload in ["", r#","cmd":["/a"]"#, r#","workload":"soon""#, r#","workload":{}"#] {
            let refused = config(workload);
            assert!(matches!(refused, Err(DriveError::Content(_))), "{workload}: {refused:?}");
        }
    }

    #[test]
    fn workload_that_fits_on_a_drive_fits_in_a_line() {
        let mut workload = Workload {
            cmd: vec!["/a".to_owned()],
            env: std::collections::BTreeMap::new(),
            ready: None,
        };
        let mut config = Config {
            instance: "abc".to_owned(),
            rootfs: "r".to_owned(),
            rootfs_digest: None,
            stage: Stage::Init,
            workload: Delivery::Inline(workload.clone()),
            stop_signal: 15,
            stop_timeout_s: 1,
            identity: None,
        };
        let bare = HEADER_BYTES + serde_json::to_vec(&config).expect("JSON").len();
        workload.cmd[0] += &"a".repeat(CONFIG_DRIVE_BYTES_MAX - bare);
        config.workload = Delivery::Inline(workload.clone());
        assert_eq!(encode_config(&config).expect("it just fits").len(), CONFIG_DRIVE_BYTES_MAX);
        let line = serde_json::to_vec(&Command::Workload { generation: u64::MAX, workload });
        let bytes = line.expect("JSON").len() + 1;
        assert!((CONTROL_LINE_BYTES_MAX..=COMMAND_LINE_BYTES_MAX).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_config_drive_is_not_taken_for_a_status_drive() {
        let page = encode_status(&status(Ending::Code(0), String::new())).expect("fits");
        assert!(matches!(decode_config(&page), Err(DriveError::Damaged)));
    }

    #[test]
    fn a_payload_of_another_version_is_named_as_such() {
        let page = encode(STATUS_MAGIC, &"a string", STATUS_DRIVE_BYTES).expect("fits");
        assert!(matches!(decode_status(&page), Err(DriveError::Content(_))));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_size() {
        let text = "x".repeat(STATUS_DRIVE_BYTES);
        let refused = encode_status(&status(Ending::SetUp(text), "tail".to_owned()));
        let Err(DriveError::TooLarge { bytes, limit }) = refused else { panic!("accepted") };
        assert!(bytes > limit && limit == STATUS_DRIVE_BYTES);
    }

    #[test]
    fn a_tail_keeps_its_end_and_nearly_fills_the_drive() {
        let tail = (0..2000).map(|n| format!("line {n}\n")).collect::<String>();
        let page = encode_status(&status(Ending::Code(0), tail.clone())).expect("fits");
        let kept = decode_status(&page).expect("whole").tail;
        assert!(tail.ends_with(&kept) && kept.len() > STATUS_DRIVE_BYTES / 2, "{}", kept.len());
    }

    proptest! {
        #[test]
        fn a_config_is_read_back_from_whole_sectors(config in config()) {
            let drive = encode_config(&config).expect("fits");
            prop_assert_eq!(drive.len() % SECTOR_BYTES, 0);
            prop_assert!(drive.len() >= CONFIG_DRIVE_BYTES_MIN);
            prop_assert_eq!(decode_config(&drive).expect("whole"), config);
        }

        #[test]
        fn any_tail_fits_and_stays_a_suffix(tail in "(\\PC|\x01|\n){0,3000}") {
            let page = encode_status(&status(Ending::Signal(9), tail.clone())).expect("fits");
            prop_assert_eq!(page.len(), STATUS_DRIVE_BYTES);
            prop_assert!(tail.ends_with(&decode_status(&page).expect("whole").tail));
        }

        #[test]
        fn one_flipped_bit_is_noticed(config in config(), at in any::<prop::sample::Index>()) {
            let mut drive = encode_config(&config).expect("fits");
            let used = HEADER_BYTES + serde_json::to_vec(&config).expect("JSON").len();
            let bit = at.index(used * 8);
            drive[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(matches!(decode_config(&drive), Err(DriveError::Damaged)));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_config(&bytes);
            let mut bytes = bytes;
            bytes.splice(0..0, *STATUS_MAGIC);
            let _ = decode_status(&bytes);
        }
    }
}
