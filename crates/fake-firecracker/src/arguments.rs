//! The arguments that Hearth gives, and what Firecracker makes of wrong ones.

use std::path::PathBuf;

/// What a process was asked for.
#[derive(Debug)]
pub(crate) enum Asked {
    Version,
    SnapshotVersion,
    Serve(Serve),
}

/// A process with an API.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) id: String,
    pub(crate) api_sock: PathBuf,
    pub(crate) log_path: Option<PathBuf>,
    pub(crate) body_bytes_max: usize,
}

/// What is wrong with them.
#[derive(Debug)]
pub(crate) enum Wrong {
    Unexpected(String),
    NoValue(String),
    Id(String),
    Level(String),
}

pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Asked, Wrong> {
    let mut serve = Serve {
        id: "anonymous-instance".to_owned(),
        api_sock: PathBuf::from("/run/firecracker.socket"),
        log_path: None,
        body_bytes_max: 51_200,
    };
    let mut level = None;
    while let Some(word) = words.next() {
        let name = word.trim_start_matches('-').to_owned();
        let mut value = || words.next().ok_or_else(|| Wrong::NoValue(name.clone()));
        match word.as_str() {
            // Either is answered whatever the other arguments are.
            "--version" => return Ok(Asked::Version),
            "--snapshot-version" => return Ok(Asked::SnapshotVersion),
            "--id" => serve.id = value()?,
            "--api-sock" => serve.api_sock = value()?.into(),
            "--log-path" => serve.log_path = Some(value()?.into()),
            "--level" => level = Some(value()?),
            "--http-api-max-payload-size" => {
                let text = value()?;
                serve.body_bytes_max = text.parse().map_err(|_| Wrong::Unexpected(text))?;
            }
            _ => return Err(Wrong::Unexpected(name)),
        }
    }
    let fits = |id: &str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if !fits(&serve.id) {
        return Err(Wrong::Id(serve.id));
    }
    let levels = ["off", "error", "warn", "warning", "info", "debug", "trace"];
    match level {
        Some(level) if !levels.contains(&level.to_ascii_lowercase().as_str()) => {
            Err(Wrong::Level(level))
        }
        _ => Ok(Asked::Serve(serve)),
    }
}
