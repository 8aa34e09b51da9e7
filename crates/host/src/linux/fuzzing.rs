//! What only the fuzz targets reach. It exists only under `--cfg fuzzing`.

use super::images::Kind;
use super::instance_record::InstanceRecord;
use super::layout::Layout;
use super::logs::{self, LogWriter, Source};
use super::output::{self, Origin, Output};
use super::store::{ImageStore, Look, Looks};
use super::{channel, exit, probe, transfers};
use crate::{HostError, LogPage, LogQuery};
use hearth_guest::{Channel, PROTOCOL, Status};
use hearth_model::{Boot, Images, InstanceId, Spec};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tokio::net::UnixStream;

/// MiB of memory by a `/proc/meminfo`.
#[must_use]
pub fn memory_mib(meminfo: &str) -> u64 {
    probe::memory_mib(meminfo)
}

/// What is wrong with a kernel, an archive of modules, an ext4 and a disk of these bytes.
///
/// # Errors
/// Where the file can't be read.
pub fn image_faults(file: &File, len: u64) -> io::Result<Vec<Option<String>>> {
    let kinds = [Kind::Kernel, Kind::Modules, Kind::rootfs(Boot::Init), Kind::rootfs(Boot::Raw)];
    kinds.into_iter().map(|kind| kind.fault(file, len)).collect()
}

/// The instance record in a directory: whether the instance is of this boot, and its slot.
///
/// # Errors
/// Where it is none.
pub fn instance_record(dir: &Path, id: &InstanceId, boot_id: &str) -> io::Result<(bool, u32)> {
    let record = InstanceRecord::read(dir, id)?;
    record.write(dir)?;
    let again = InstanceRecord::read(dir, id)?;
    assert_eq!((again.boot(), again.hash()), (record.boot(), record.hash()));
    Ok((record.is_of_boot(boot_id), again.slot().0))
}

/// What a status drive says.
///
/// # Errors
/// Where it can't be read.
pub fn status(dir: &Path) -> io::Result<Option<Status>> {
    exit::status(dir)
}

/// Reads a log.
///
/// # Errors
/// Where it can't be read.
pub fn log(path: &Path, query: LogQuery) -> Result<LogPage, HostError> {
    logs::read(path, query)
}

/// Opens a log for writing and adds a line; returns the guest's offset before it.
///
/// # Errors
/// Where it can't be written.
pub fn log_line(path: &Path, text: &[u8]) -> io::Result<u64> {
    let mut writer = LogWriter::open(path)?;
    let offset = writer.offset();
    writer.line(Source::Stdout, offset, text)?;
    Ok(offset)
}

/// Reads a guest's frames into a log until the stream ends, and then the tail on its status drive.
///
/// # Errors
/// Where the frames are none, or the log can't be written.
pub async fn frames(stream: UnixStream, log: &Path, tail: &str) -> io::Result<()> {
    let output = Mutex::new(Output::open(log, Origin::Pipes)?);
    let read = output::read_frames(stream, &output).await;
    super::lock(&output).complete(log, tail)?;
    read
}

/// Asks a guest's forwarder for a port; returns its answer.
///
/// # Errors
/// Where there is none.
pub async fn forwarder(stream: UnixStream, port: u16) -> io::Result<String> {
    channel::ask(stream, &Channel::Port(port).opening(PROTOCOL)).await.map(|(_, answer)| answer)
}

/// A store of images beside the directory that it copies from.
#[derive(Debug)]
pub struct Library(ImageStore);

/// Opens one.
///
/// # Errors
/// Where its directories can't be made.
pub fn images(state: &Path, source: PathBuf) -> Result<Library, HostError> {
    let layout = Layout::open(state, Some(&state.join("run")))?;
    ImageStore::open(&layout, source, u64::MAX).map(Library)
}

impl Library {
    /// The digests of what a spec names.
    ///
    /// # Errors
    /// Where it names none, or what it names is unfit.
    pub fn resolve(&self, spec: &Spec) -> Result<Images, HostError> {
        let store = &self.0;
        let digest = |look| match look {
            Look::Known(digest) => Ok(digest),
            Look::Unknown(original) => transfers::copy_now(store, original),
        };
        let Looks { kernel, modules, rootfs } = store.look(spec)?;
        Ok(Images {
            kernel: digest(kernel)?,
            modules: modules.map(digest).transpose()?,
            rootfs: rootfs.map(digest).transpose()?,
        })
    }
}
