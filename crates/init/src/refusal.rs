//! Why the kernel refuses to execute a file, as a sentence. It follows the kernel's own rules
//! (Linux 6.1, `fs/binfmt_script.c` and `fs/binfmt_elf.c`) over the bytes as they are: it trims
//! nothing that the kernel does not trim.

use crate::program::{ProgramFile, look, quoted, shown};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that the kernel reads of a file to see what it is (`BINPRM_BUF_SIZE`).
const HEAD_BYTES: usize = 256;
/// How many interpreters may have an interpreter in turn (`exec_binprm`).
const INTERPRETERS_MAX: usize = 5;
/// Longest name of an ELF program's interpreter, in bytes (`PATH_MAX`).
const LOADER_BYTES_MAX: usize = 4096;
/// Most program headers of an ELF file: the kernel takes 64 KiB of them.
const PROGRAM_HEADERS_MAX: u64 = 1170;
/// `PT_INTERP` of an ELF program header.
const PT_INTERP: u64 = 3;
/// `e_machine` of x86-64, and of 32-bit x86, which kernels may run as well.
const X86_64: u64 = 62;
const X86: u64 = 3;

/// Why the kernel refused to execute `file` with `error`: the file, what is wrong with it, and the
/// remedy where there is a usual one.
pub(crate) fn why_refused(file: &Path, error: &std::io::Error, rootfs: &str) -> String {
    let name = shown(file.as_os_str().as_bytes());
    let no_format = error.raw_os_error() == Some(libc::ENOEXEC);
    let Fault { what, remedy } = match fault(file, no_format, 0) {
        Some(fault) => fault,
        None if no_format => Fault::of("wrong format (not an ELF or script)"),
        None => match error.kind() {
            ErrorKind::NotFound => Fault::of("not found"),
            ErrorKind::PermissionDenied => Fault::of("permission denied"),
            _ => return format!("{name}: cannot be started from {rootfs}: {error}"),
        },
    };
    let remedy = remedy.map(|remedy| format!(": {remedy}")).unwrap_or_default();
    format!("{name}: {what} in {rootfs}{remedy}")
}

/// What is wrong with a file.
struct Fault {
    what: String,
    remedy: Option<&'static str>,
}

impl Fault {
    fn of(what: impl Into<String>) -> Fault {
        Fault { what: what.into(), remedy: None }
    }

    fn with(self, remedy: &'static str) -> Fault {
        Fault { remedy: Some(remedy), ..self }
    }
}

/// What is wrong with `file` or with one of its interpreters; `None` if nothing is seen.
/// `no_format` is whether the kernel knew no format for one of them.
fn fault(file: &Path, no_format: bool, depth: usize) -> Option<Fault> {
    if depth > INTERPRETERS_MAX {
        let limit = format!("more than {INTERPRETERS_MAX} interpreters have one in turn");
        return Some(Fault::of(limit));
    }
    let file = File::open(file).ok()?;
    let mut head = Vec::new();
    (&file).take(HEAD_BYTES as u64).read_to_end(&mut head).ok()?;
    if head.starts_with(b"#!") {
        return match script_interpreter(&head) {
            Ok(name) => interpreter_fault(name, no_format, depth),
            Err(fault) => Some(fault),
        };
    }
    if head.starts_with(b"\x7fELF") {
        return elf_fault(&file, no_format);
    }
    no_format.then(|| unknown_format(&head))
}

/// The interpreter of a script, as `load_script` finds it: blanks are spaces and tabs, and the name
/// ends with a blank, a newline, a NUL or the file.
fn script_interpreter(head: &[u8]) -> Result<&[u8], Fault> {
    let line = &head[2..];
    let begin = line.iter().position(|byte| !b" \t".contains(byte)).unwrap_or(line.len());
    let name = &line[begin..];
    let end = name.iter().position(|byte| b" \t\n\0".contains(byte));
    match end {
        None if head.len() == HEAD_BYTES => {
            let what =
                format!("its #! line is longer than the {HEAD_BYTES} bytes that Linux reads");
            Err(Fault::of(what))
        }
        Some(0) => Err(Fault::of("its #! line names no interpreter")),
        None if name.is_empty() => Err(Fault::of("its #! line names no interpreter")),
        end => Ok(&name[..end.unwrap_or(name.len())]),
    }
}

/// What is wrong with the interpreter of a script.
fn interpreter_fault(name: &[u8], no_format: bool, depth: usize) -> Option<Fault> {
    // The command begins in `/`, and a relative name begins where the command does.
    let file = Path::new("/").join(OsStr::from_bytes(name));
    let missing = match unusable(name, &file) {
        None => {
            let inner = fault(&file, no_format, depth + 1)?;
            let what =
                format!("its interpreter {} cannot be executed: {}", quoted(name), inner.what);
            return Some(Fault { what, ..inner });
        }
        Some(fault) => fault,
    };
    Some(if name.ends_with(b"\r") {
        missing
            .with("the script has Windows line endings (CRLF); convert it to LF, as dos2unix does")
    } else if !name.starts_with(b"/") {
        missing.with(
            "an interpreter is not searched in PATH; name it by its absolute path, or write \
             #!/usr/bin/env and its name",
        )
    } else {
        missing
    })
}

/// Why a file cannot be anyone's interpreter.
fn unusable(name: &[u8], file: &Path) -> Option<Fault> {
    let why = match look(file) {
        ProgramFile::Executable => return None,
        ProgramFile::Absent => "was not found",
        ProgramFile::Directory => "is a directory",
        ProgramFile::NotExecutable => "is not executable",
    };
    Some(Fault::of(format!("its interpreter {} {why}", quoted(name))))
}

/// What is wrong with an ELF program.
fn elf_fault(file: &File, no_format: bool) -> Option<Fault> {
    let machine = number::<2>(file, 18)?;
    if no_format && machine != X86_64 {
        let what = format!("built for another machine ({})", machine_name(machine));
        return Some(Fault::of(what));
    }
    let loader = elf_interpreter(file)?;
    let missing = unusable(&loader, &Path::new("/").join(OsStr::from_bytes(&loader)))?;
    Some(missing.with(
        "it is the loader of the C library that the program was built for; install that library \
         in the image, or link the program statically",
    ))
}

fn machine_name(machine: u64) -> String {
    match machine {
        X86 => "x86".to_owned(),
        40 => "arm".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "riscv".to_owned(),
        other => format!("ELF machine {other}"),
    }
}

/// The dynamic loader of an ELF program: `PT_INTERP`, which may be anywhere in the file.
fn elf_interpreter(file: &File) -> Option<Vec<u8>> {
    let wide = number::<1>(file, 4)? == 2;
    let offset = |at: u64| if wide { number::<8>(file, at) } else { number::<4>(file, at) };
    let table = offset(if wide { 32 } else { 28 })?;
    let entry_bytes = number::<2>(file, if wide { 54 } else { 42 })?;
    let entries = number::<2>(file, if wide { 56 } else { 44 })?;
    let entry = (0..entries.min(PROGRAM_HEADERS_MAX))
        .map(|n| table.saturating_add(n * entry_bytes))
        .find(|&at| number::<4>(file, at) == Some(PT_INTERP))?;
    let at = offset(entry.checked_add(if wide { 8 } else { 4 })?)?;
    let mut name = vec![0; LOADER_BYTES_MAX];
    let read = file.read_at(&mut name, at).ok()?;
    let end = name[..read].iter().position(|&byte| byte == 0)?;
    name.truncate(end);
    Some(name)
}

/// What a file is of which the kernel knows no format.
fn unknown_format(head: &[u8]) -> Fault {
    const SHEBANG: &str = "begin it with a line such as #!/bin/sh";
    let text = head.trim_ascii_start();
    if head.is_empty() {
        Fault::of("the file is empty")
    } else if head.starts_with(b"\xef\xbb\xbf#!") {
        Fault::of("its #! comes after a byte order mark (BOM)").with("save it without the BOM")
    } else if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        Fault::of("wrong format (UTF-16 text)").with("save it as UTF-8")
    } else if text.starts_with(b"#!") {
        Fault::of("its #! comes after blanks or empty lines").with("remove them")
    } else if !head.contains(&0)
        && !std::str::from_utf8(head).is_err_and(|e| e.error_len().is_some())
    {
        Fault::of("wrong format (text without a #! line)").with(SHEBANG)
    } else {
        Fault::of("wrong format (not an ELF or script)")
    }
}

/// A little-endian number of `N` bytes.
fn number<const N: usize>(file: &File, at: u64) -> Option<u64> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::{Launch, Output, shared_reaper};
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    const CRLF: &str =
        "the script has Windows line endings (CRLF); convert it to LF, as dos2unix does";

    /// A directory for programs, which stands as `DIR` in what is expected.
    struct Programs(tempfile::TempDir);

    impl Programs {
        fn new() -> Programs {
            Programs(tempfile::tempdir().expect("tempdir"))
        }

        fn place(&self, name: &str, content: &[u8], mode: u32) {
            let file = self.0.path().join(name);
            std::fs::write(&file, content).expect("write");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("chmod");
        }

        /// What is said of a program of this content, which the kernel has to refuse.
        fn check(&self, content: &[u8], expected: &str) {
            let dir = self.0.path().display().to_string();
            let content = String::from_utf8(content.to_vec())
                .map_or_else(|_| content.to_vec(), |text| text.replace("DIR", &dir).into_bytes());
            self.place("app", &content, 0o755);
            let file = self.0.path().join("app");
            let (argv, env) = (["app".to_owned()], BTreeMap::new());
            let launch = Launch { file: &file, argv: &argv, env: &env, output: Output::Nowhere };
            let error = shared_reaper().spawn(&launch).err().expect("refused");
            let said = why_refused(&file, &error, "web.ext4").replace(&dir, "DIR");
            assert_eq!(said, format!("DIR/app: {expected}"), "{error}");
        }
    }

    #[test]
    fn interpreter_is_named_as_the_kernel_reads_it() {
        let programs = Programs::new();
        let missing = |name: &str| format!("its interpreter \"{name}\" was not found in web.ext4");
        programs.check(b"#! /no/such/shell -e\n", &missing("/no/such/shell"));
        programs.check(b"#!\t/no/such/shell \t\n", &missing("/no/such/shell"));
        programs.check(b"#!/no/such/shell", &missing("/no/such/shell"));
        programs.check(b"#!/no/such/shell\0-e\n", &missing("/no/such/shell"));
        programs.check("#!/bin/sh\u{a0}-e\n".as_bytes(), &missing(r"/bin/sh\u{a0}-e"));
        programs.check(b"#!/bin/sh\xff\n", &missing(r"/bin/sh\xff"));
        programs.check(b"#!/bin/sh\x0b\n", &missing(r"/bin/sh\u{b}"));
    }

    #[test]
    fn windows_line_endings_of_a_script_are_named() {
        let programs = Programs::new();
        let missing =
            |name: &str| format!("its interpreter \"{name}\" was not found in web.ext4: {CRLF}");
        programs.check(b"#!/bin/sh\r\necho hello\r\n", &missing(r"/bin/sh\r"));
        programs.check(b"#! sh\r\n", &missing(r"sh\r"));
        programs.check(b"#!\r\n", &missing(r"\r"));
    }

    #[test]
    fn unusable_interpreter_is_refused_with_its_reason() {
        let programs = Programs::new();
        let path = "an interpreter is not searched in PATH; name it by its absolute path, or write \
                    #!/usr/bin/env and its name";
        let missing = format!("its interpreter \"sh\" was not found in web.ext4: {path}");
        programs.check(b"#!sh\n", &missing);
        programs.check(b"#!/usr\n", "its interpreter \"/usr\" is a directory in web.ext4");
        programs.place("plain", b"#!/bin/sh\n", 0o644);
        let plain = "its interpreter \"DIR/plain\" is not executable in web.ext4";
        programs.check(b"#!DIR/plain\n", plain);
        programs.check(b"#!\n", "its #! line names no interpreter in web.ext4");
        programs.check(b"#! \t ", "its #! line names no interpreter in web.ext4");
        let long = format!("#!/{}\n", "x".repeat(HEAD_BYTES));
        let cut = "its #! line is longer than the 256 bytes that Linux reads in web.ext4";
        programs.check(long.as_bytes(), cut);
    }

    #[test]
    fn chain_of_interpreters_is_followed_to_the_fault() {
        let programs = Programs::new();
        programs.place("one", b"#!/bin/sh\r\n", 0o755);
        let chain = "its interpreter \"DIR/one\" cannot be executed: its interpreter \
                     \"/bin/sh\\r\" was not found in web.ext4";
        programs.check(b"#!DIR/one\n", &format!("{chain}: {CRLF}"));
        programs.place("text", b"echo hello\n", 0o755);
        let text = "its interpreter \"DIR/text\" cannot be executed: wrong format (text without a \
                    #! line) in web.ext4: begin it with a line such as #!/bin/sh";
        programs.check(b"#!DIR/text\n", text);
        let dir = programs.0.path().display().to_string();
        let this = "its interpreter \"DIR/app\" cannot be executed: ".repeat(INTERPRETERS_MAX);
        let circle = "its interpreter \"DIR/app\" cannot be executed: more than 5 interpreters \
                      have one in turn in web.ext4";
        assert!(dir.len() < HEAD_BYTES);
        programs.check(b"#!DIR/app\n", &format!("{this}{circle}"));
    }

    #[test]
    fn file_of_no_known_format_is_described() {
        let programs = Programs::new();
        programs.check(b"", "the file is empty in web.ext4");
        programs.check(
            b"\xef\xbb\xbf#!/bin/sh\n",
            "its #! comes after a byte order mark (BOM) in web.ext4: save it without the BOM",
        );
        programs.check(
            b"\n#!/bin/sh\n",
            "its #! comes after blanks or empty lines in web.ext4: remove them",
        );
        programs
            .check(b"\xff\xfe#\0!\0", "wrong format (UTF-16 text) in web.ext4: save it as UTF-8");
        programs
            .check(b"\x00\x01\x02 no program", "wrong format (not an ELF or script) in web.ext4");
    }

    fn foreign(machine: u8) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        (elf[16], elf[18]) = (2, machine);
        elf
    }

    #[test]
    fn program_of_another_machine_is_named() {
        let programs = Programs::new();
        for (machine, name) in [(183, "aarch64"), (243, "riscv"), (8, "ELF machine 8")] {
            let expected = format!("built for another machine ({name}) in web.ext4");
            programs.check(&foreign(machine), &expected);
        }
    }

    #[test]
    fn missing_dynamic_loader_is_named_wherever_it_stands() {
        let programs = Programs::new();
        let mut elf = std::fs::read("/bin/sh").expect("a dynamic program");
        let loader = elf_interpreter(&File::open("/bin/sh").expect("open")).expect("a loader");
        let at = elf.windows(loader.len()).position(|w| w == loader).expect("its name");
        elf[at + 1..at + 4].copy_from_slice(b"nil");
        let said = |name: &str| {
            format!(
                "its interpreter \"{name}\" was not found in web.ext4: it is the loader of the C \
                 library that the program was built for; install that library in the image, or \
                 link the program statically"
            )
        };
        let name = String::from_utf8(elf[at..at + loader.len()].to_vec()).expect("text");
        programs.check(&elf, &said(&name));
        // At the end of the file, where patchelf moves it.
        let (moved, end) = (b"/no/such/loader\0", elf.len() as u64);
        let header =
            (64..).step_by(56).find(|&at| elf[at..at + 4] == 3u32.to_le_bytes()).expect("a header");
        elf[header + 8..header + 16].copy_from_slice(&end.to_le_bytes());
        elf[header + 32..header + 40].copy_from_slice(&(moved.len() as u64).to_le_bytes());
        elf.extend_from_slice(moved);
        programs.check(&elf, &said("/no/such/loader"));
    }

    proptest::proptest! {
        #[test]
        fn any_file_is_described_without_a_panic(
            magic in proptest::sample::select(vec![&b""[..], b"#!", b"\x7fELF\x01", b"\x7fELF\x02"]),
            rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
        ) {
            let file = tempfile::NamedTempFile::new().expect("tempfile");
            std::fs::write(file.path(), [magic, &rest].concat()).expect("write");
            for errno in [libc::ENOEXEC, libc::ENOENT, libc::EACCES] {
                let error = std::io::Error::from_raw_os_error(errno);
                let said = why_refused(file.path(), &error, "web.ext4");
                proptest::prop_assert!(said.contains("web.ext4"));
            }
        }
    }
}
