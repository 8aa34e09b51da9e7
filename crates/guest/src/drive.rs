//! The two drives: a header of magic, length and BLAKE3 digest, then JSON.
//!
//! Layout: magic (8 bytes), payload length (u32 little-endian), digest of the payload (32 bytes),
//! payload, zeroes up to a multiple of 512 (config) or to 4 KiB (status).

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
    bytes.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 0);
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
