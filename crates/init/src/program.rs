//! Finding the program of a command. It never starts one.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where programs are searched when the environment names no `PATH`.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file to execute: `program` itself where it has a slash (relative to `/`), else the first
/// executable file of that name in `path`.
///
/// # Errors
/// A sentence that names the program and `rootfs`.
pub(crate) fn resolve(program: &str, path: &str, rootfs: &str) -> Result<PathBuf, String> {
    if program.is_empty() {
        return Err("the command is empty".to_owned());
    }
    let name = shown(program.as_bytes());
    if program.contains('/') {
        let file = Path::new("/").join(program);
        return match look(&file) {
            ProgramFile::Executable => Ok(file),
            ProgramFile::Absent => {
                Err(format!("{name}: not found in {rootfs}{}", odd_end(program)))
            }
            ProgramFile::Directory => Err(format!("{name}: is a directory in {rootfs}")),
            ProgramFile::NotExecutable => Err(format!("{name}: permission denied in {rootfs}")),
        };
    }
    let mut refused = false;
    for folder in path.split(':').filter(|folder| !folder.is_empty()) {
        let file = Path::new("/").join(folder).join(program);
        match look(&file) {
            ProgramFile::Executable => return Ok(file),
            ProgramFile::NotExecutable => refused = true,
            ProgramFile::Absent | ProgramFile::Directory => {}
        }
    }
    match refused {
        true => Err(format!("{name}: permission denied in {rootfs}")),
        false => {
            let (path, why) = (shown(path.as_bytes()), odd_end(program));
            Err(format!("{name}: not found in {rootfs} (PATH is {path}){why}"))
        }
    }
}

/// What is odd about the end of a name that was not found.
fn odd_end(name: &str) -> &'static str {
    match name.chars().last() {
        Some('\r') => ": the name ends with a carriage return; remove it from the spec",
        Some(end) if end.is_whitespace() => ": the name ends with a blank; remove it from the spec",
        _ => "",
    }
}

/// What is at a path.
pub(crate) enum ProgramFile {
    Executable,
    Absent,
    Directory,
    NotExecutable,
}

/// What the kernel would find at `file` to execute.
pub(crate) fn look(file: &Path) -> ProgramFile {
    match std::fs::metadata(file) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => ProgramFile::NotExecutable,
        Err(_) => ProgramFile::Absent,
        Ok(about) if about.is_dir() => ProgramFile::Directory,
        Ok(about) if about.permissions().mode() & 0o111 == 0 => ProgramFile::NotExecutable,
        Ok(_) => ProgramFile::Executable,
    }
}

/// A name of the guest for a sentence: as it is, in quotes and escaped if its bytes would not show.
pub(crate) fn shown(name: &[u8]) -> String {
    let quoted = quoted(name);
    let plain = quoted.as_bytes().get(1..quoted.len() - 1) == Some(name) && !name.contains(&b' ');
    if plain { String::from_utf8_lossy(name).into_owned() } else { quoted }
}

/// The same, always in quotes.
pub(crate) fn quoted(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("\"{}\"", name.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(dir: &Path, name: &str, content: &[u8], mode: u32) -> String {
        let file = dir.join(name);
        std::fs::write(&file, content).expect("write");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("chmod");
        file.display().to_string()
    }

    fn refusal(program: &str) -> String {
        resolve(program, DEFAULT_PATH, "web.ext4").expect_err("refused")
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
    fn path_search_skips_what_is_not_executable() {
        let (one, two) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
        place(one.path(), "server", b"x", 0o644);
        let path = format!("{}::{}", one.path().display(), two.path().display());
        let refused = resolve("server", &path, "web.ext4").expect_err("not executable");
        assert_eq!(refused, "server: permission denied in web.ext4");
        let found = place(two.path(), "server", b"x", 0o755);
        assert_eq!(resolve("server", &path, "web.ext4"), Ok(PathBuf::from(found)));
    }

    #[test]
    fn a_name_that_is_not_found_is_shown_with_all_its_bytes() {
        let cr = ": the name ends with a carriage return; remove it from the spec";
        assert_eq!(refusal("/bin/sh\r"), format!("\"/bin/sh\\r\": not found in web.ext4{cr}"));
        let blank = ": the name ends with a blank; remove it from the spec";
        assert_eq!(refusal("/bin/sh "), format!("\"/bin/sh \": not found in web.ext4{blank}"));
        let refused = resolve("no\u{200b}such\r", "/bin\r", "web.ext4").expect_err("refused");
        let name = r#""no\u{200b}such\r": not found in web.ext4 (PATH is "/bin\r")"#;
        assert_eq!(refused, format!("{name}{cr}"));
        assert_eq!(shown("/opt/größe".as_bytes()), "/opt/größe");
        assert_eq!(shown(b"/opt/\xff"), r#""/opt/\xff""#);
    }
}
