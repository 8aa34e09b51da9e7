//! Finding the program of a command, and saying why one can't be started. It never starts one.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where programs are searched when the environment names no `PATH`.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of a program that are read to see what it is: program headers lie at its front.
const HEAD_BYTES: usize = 4096;
/// `PT_INTERP` of an ELF program header.
const PT_INTERP: u32 = 3;

/// The file to execute: `program` itself where it has a slash (relative to `/`), else the first
/// executable file of that name in `path`.
///
/// # Errors
/// A sentence that names the program and `rootfs`.
pub(crate) fn resolve(program: &str, path: &str, rootfs: &str) -> Result<PathBuf, String> {
    if program.is_empty() {
        return Err("the command is empty".to_owned());
    }
    if program.contains('/') {
        let file = Path::new("/").join(program);
        return match look(&file) {
            Found::Executable => Ok(file),
            Found::Absent => Err(format!("{program}: not found in {rootfs}")),
            Found::Directory => Err(format!("{program}: is a directory in {rootfs}")),
            Found::NotExecutable => Err(format!("{program}: permission denied in {rootfs}")),
        };
    }
    let mut refused = false;
    for folder in path.split(':').filter(|folder| !folder.is_empty()) {
        let file = Path::new("/").join(folder).join(program);
        match look(&file) {
            Found::Executable => return Ok(file),
            Found::NotExecutable => refused = true,
            Found::Absent | Found::Directory => {}
        }
    }
    match refused {
        true => Err(format!("{program}: permission denied in {rootfs}")),
        false => Err(format!("{program}: not found in {rootfs} (PATH is {path})")),
    }
}

/// Why the kernel refused to execute `file`, as a sentence.
pub(crate) fn why_refused(file: &Path, error: &std::io::Error, rootfs: &str) -> String {
    let name = file.display();
    let head = head(file);
    match error.kind() {
        ErrorKind::NotFound => match interpreter(&head) {
            Some(interpreter) => {
                format!("{name}: its interpreter {interpreter} was not found in {rootfs}")
            }
            None => format!("{name}: not found in {rootfs}"),
        },
        ErrorKind::PermissionDenied => format!("{name}: permission denied in {rootfs}"),
        _ if error.raw_os_error() == Some(libc::ENOEXEC) => match foreign_machine(&head) {
            Some(machine) => {
                format!("{name}: built for another machine ({machine}) in {rootfs}")
            }
            None => format!("{name}: wrong format (not an ELF or script) in {rootfs}"),
        },
        _ => format!("{name}: cannot be started from {rootfs}: {error}"),
    }
}

enum Found {
    Executable,
    Absent,
    Directory,
    NotExecutable,
}

fn look(file: &Path) -> Found {
    match std::fs::metadata(file) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Found::NotExecutable,
        Err(_) => Found::Absent,
        Ok(about) if about.is_dir() => Found::Directory,
        Ok(about) if about.permissions().mode() & 0o111 == 0 => Found::NotExecutable,
        Ok(_) => Found::Executable,
    }
}

fn head(file: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    if let Ok(file) = std::fs::File::open(file) {
        let _ = file.take(HEAD_BYTES as u64).read_to_end(&mut head);
    }
    head
}

/// The interpreter of a script, or the dynamic loader of an ELF program.
fn interpreter(head: &[u8]) -> Option<String> {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|&byte| byte == b'\n').next()?;
        return Some(String::from_utf8_lossy(line).split_whitespace().next()?.to_owned());
    }
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(number::<8>(head, 32)?).ok()?;
    let entry_bytes = number::<2>(head, 54)? as usize;
    let entries = number::<2>(head, 56)? as usize;
    let entry = (0..entries)
        .map(|n| table.saturating_add(n * entry_bytes))
        .find(|&at| number::<4>(head, at) == Some(u64::from(PT_INTERP)))?;
    let at = usize::try_from(number::<8>(head, entry.checked_add(8)?)?).ok()?;
    let name = head.get(at..)?.split(|&byte| byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// The machine that an ELF program is for, where it is not x86-64.
fn foreign_machine(head: &[u8]) -> Option<String> {
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    match number::<2>(head, 18)? {
        62 => None,
        3 => Some("x86".to_owned()),
        40 => Some("arm".to_owned()),
        183 => Some("aarch64".to_owned()),
        243 => Some("riscv".to_owned()),
        other => Some(format!("ELF machine {other}")),
    }
}

/// A little-endian number of `N` bytes.
fn number<const N: usize>(head: &[u8], at: usize) -> Option<u64> {
    let bytes = head.get(at..at.checked_add(N)?)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::{Launch, Output, shared_reaper};
    use std::collections::BTreeMap;

    fn place(dir: &Path, name: &str, content: &[u8], mode: u32) -> String {
        let file = dir.join(name);
        std::fs::write(&file, content).expect("write");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("chmod");
        file.display().to_string()
    }

    fn refusal(program: &str) -> String {
        resolve(program, DEFAULT_PATH, "web.ext4").expect_err("refused")
    }

    /// Starts `program`, which the kernel has to refuse.
    fn kernel_refusal(program: &str) -> String {
        let file = resolve(program, DEFAULT_PATH, "web.ext4").expect("found");
        let (argv, env) = (vec![program.to_owned()], BTreeMap::new());
        let launch = Launch { file: &file, argv: &argv, env: &env, output: Output::Nowhere };
        let error = shared_reaper().spawn(&launch).err().expect("refused");
        why_refused(&file, &error, "web.ext4")
    }

    #[test]
    fn a_program_that_cannot_be_run_is_refused_with_its_reason() {
        let dir = tempfile::tempdir().expect("tempdir");
        let plain = place(dir.path(), "plain", b"x", 0o644);
        assert_eq!(refusal("/app/bin/server"), "/app/bin/server: not found in web.ext4");
        assert_eq!(refusal("/etc/passwd/x"), "/etc/passwd/x: not found in web.ext4");
        assert_eq!(refusal("/usr"), "/usr: is a directory in web.ext4");
        assert_eq!(refusal(&plain), format!("{plain}: permission denied in web.ext4"));
        assert_eq!(refusal(""), "the command is empty");
        assert!(refusal("no-such-program").starts_with("no-such-program: not found in web.ext4"));
    }

    #[test]
    fn a_name_is_searched_along_the_path_past_what_is_not_executable() {
        let (one, two) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
        place(one.path(), "server", b"x", 0o644);
        let path = format!("{}::{}", one.path().display(), two.path().display());
        let refused = resolve("server", &path, "web.ext4").expect_err("not executable");
        assert_eq!(refused, "server: permission denied in web.ext4");
        let found = place(two.path(), "server", b"x", 0o755);
        assert_eq!(resolve("server", &path, "web.ext4"), Ok(PathBuf::from(found)));
    }

    #[test]
    fn what_the_kernel_refuses_to_execute_is_explained() {
        let dir = tempfile::tempdir().expect("tempdir");
        let script = place(dir.path(), "script", b"#! /no/such/shell -e\n", 0o755);
        let expected =
            format!("{script}: its interpreter /no/such/shell was not found in web.ext4");
        assert_eq!(kernel_refusal(&script), expected);
        let junk = place(dir.path(), "junk", b"\x00\x01\x02 no program", 0o755);
        let expected = format!("{junk}: wrong format (not an ELF or script) in web.ext4");
        assert_eq!(kernel_refusal(&junk), expected);
        let mut arm = b"\x7fELF\x02\x01\x01".to_vec();
        arm.resize(64, 0);
        arm[16] = 2;
        arm[18] = 183;
        let arm = place(dir.path(), "arm", &arm, 0o755);
        let expected = format!("{arm}: built for another machine (aarch64) in web.ext4");
        assert_eq!(kernel_refusal(&arm), expected);
    }

    #[test]
    fn a_missing_dynamic_loader_is_named() {
        let mut program = std::fs::read("/bin/sh").expect("a dynamic program");
        let found = interpreter(&program[..HEAD_BYTES]).expect("sh has a loader");
        assert!(found.contains("ld-linux"), "{found}");
        let at = program.windows(found.len()).position(|w| w == found.as_bytes()).expect("name");
        program[at + 1..at + 4].copy_from_slice(b"nil");
        let dir = tempfile::tempdir().expect("tempdir");
        let program = place(dir.path(), "server", &program, 0o755);
        let refused = kernel_refusal(&program);
        assert!(refused.starts_with(&format!("{program}: its interpreter /nil")), "{refused}");
    }

    proptest::proptest! {
        #[test]
        fn any_head_of_a_file_is_read_without_a_panic(
            mut head in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            let _ = (interpreter(&head), foreign_machine(&head));
            head.splice(0..0, *b"\x7fELF\x02\x01");
            let _ = (interpreter(&head), foreign_machine(&head));
        }
    }
}
