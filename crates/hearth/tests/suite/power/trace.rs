//! What strace says, read as what a run did to the files beneath a directory, and what it answered.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The calls that are read. Those that change files in other ways are among them, so that a run that
/// uses one is refused rather than misread.
pub(crate) const CALLS: &str = "trace=open,openat,openat2,creat,close,write,pwrite64,writev,pwritev,\
     pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,\
     unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,sendto,sendmsg,lseek,mmap,\
     copy_file_range,sendfile,splice,clone,clone3,fork,vfork";

/// What happened, in its order. Paths are absolute.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A file is there from now on, if it was not before.
    Create(PathBuf),
    /// Without an offset, at the end.
    Write {
        path: PathBuf,
        offset: Option<u64>,
        bytes: Rc<[u8]>,
    },
    Resize {
        path: PathBuf,
        len: u64,
    },
    /// Everything of the file or directory before the event of number `since` is on disk now, unless
    /// it failed: then what was not is dropped by the kernel, which no later call writes again.
    Sync {
        path: PathBuf,
        since: usize,
        failed: bool,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove(PathBuf),
    MakeDir(PathBuf),
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    Symlink(PathBuf),
    /// An answer to a request leaves.
    Answer,
    /// Something that is of no matter.
    Other,
}

/// Reads a trace on top of the events of earlier ones.
pub(crate) fn read(trace: &str, root: &Path, events: &mut Vec<Event>) {
    let mut reader = TraceReader {
        root,
        events,
        offsets: HashMap::new(),
        unfinished: HashMap::new(),
        others: Vec::new(),
    };
    trace.lines().for_each(|line| reader.line(line));
}

struct TraceReader<'a, 'b> {
    root: &'b Path,
    events: &'b mut Vec<Event>,
    /// Where each descriptor is; `None` where it is always at the end.
    offsets: HashMap<i32, Option<u64>>,
    /// By thread: the beginning of a call, and how many events there were.
    unfinished: HashMap<&'a str, (&'a str, usize)>,
    /// Processes of their own, which are no daemon yet.
    others: Vec<String>,
}

impl<'a> TraceReader<'a, '_> {
    fn line(&mut self, line: &'a str) {
        let (thread, rest) = line.split_once(' ').expect("a thread and a call");
        let rest = rest.trim_start();
        if rest.starts_with("+++")
            || rest.starts_with("---")
            || self.others.iter().any(|o| o == thread)
        {
            return;
        }
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            self.answer(begun);
            self.unfinished.insert(thread, (begun, self.events.len()));
            return;
        }
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let (_, end) = resumed.split_once(" resumed>").expect("the rest of a call");
            let (begun, since) = self.unfinished.remove(thread).expect("its beginning");
            self.call(&format!("{begun}{end}"), since);
            return;
        }
        self.answer(rest);
        self.call(rest, self.events.len());
    }

    /// An answer counts from when its sending begins.
    fn answer(&mut self, call: &str) {
        const BEGINNING: &str = r#""\x48\x54\x54\x50\x2f\x31\x2e\x31\x20"#;
        let (name, arguments) = call.split_once('(').expect("a call");
        let sends = ["sendto", "sendmsg", "write", "writev"].contains(&name);
        if sends && arguments.contains(BEGINNING) {
            self.events.push(Event::Answer);
        }
    }

    fn call(&mut self, call: &str, since: usize) {
        let (name, rest) = call.split_once('(').expect("a call");
        let (arguments, result) = rest.rsplit_once(" = ").expect("a result");
        let arguments = arguments.trim_end().strip_suffix(')').expect("an end of arguments");
        let arguments = split(arguments);
        let sync = name == "fsync" || name == "fdatasync";
        if (result.starts_with('-') && !sync) || result.starts_with('?') {
            return;
        }
        match name {
            "open" | "openat" | "creat" | "openat2" => self.open(name, &arguments, result),
            "write" | "pwrite64" | "writev" => self.write(name, &arguments, result),
            "lseek" => {
                let at = result.split(' ').next().and_then(|at| at.parse().ok()).expect("a number");
                if let Some(Some(offset)) = self.offsets.get_mut(&descriptor(arguments[0])) {
                    *offset = at;
                }
            }
            "ftruncate" => {
                if let Some(path) = self.ours(of_descriptor(arguments[0])) {
                    let len = arguments[1].parse().expect("a length");
                    self.events.push(Event::Resize { path, len });
                }
            }
            "fsync" | "fdatasync" => {
                if let Some(path) = self.ours(of_descriptor(arguments[0])) {
                    let failed = result.starts_with('-');
                    self.events.push(Event::Sync { path, since, failed });
                }
            }
            "rename" | "renameat" | "renameat2" => {
                let (from, to) = two_paths(name, "rename", &arguments);
                self.two(from, to, |from, to| Event::Rename { from, to });
            }
            "link" | "linkat" => {
                let (from, to) = two_paths(name, "link", &arguments);
                self.two(from, to, |from, to| Event::Link { from, to });
            }
            "symlink" => self.one(Some(path(arguments[1])), Event::Symlink),
            "symlinkat" => self.one(Some(at(arguments[1], arguments[2])), Event::Symlink),
            "unlink" | "rmdir" => self.one(Some(path(arguments[0])), Event::Remove),
            "unlinkat" => self.one(Some(at(arguments[0], arguments[1])), Event::Remove),
            "mkdir" => self.one(Some(path(arguments[0])), Event::MakeDir),
            "mkdirat" => self.one(Some(at(arguments[0], arguments[1])), Event::MakeDir),
            "close" | "sendto" | "sendmsg" => {}
            "clone" | "clone3" | "fork" | "vfork" => {
                if !call.contains("CLONE_THREAD") {
                    self.others.push(result.split(' ').next().expect("a pid").to_owned());
                }
            }
            "mmap" => {
                let shared =
                    arguments[3].contains("MAP_SHARED") && arguments[2].contains("PROT_WRITE");
                let file = self.ours(of_descriptor(arguments[4])).filter(|_| shared);
                let index = |path: &PathBuf| path.to_string_lossy().ends_with("-shm");
                assert!(file.as_ref().is_none_or(index), "a file is written by memory: {file:?}");
            }
            // They take a descriptor or a path; whichever it is, it must not be ours.
            other => {
                let paths = arguments.iter().map(|argument| match argument.contains('<') {
                    true => of_descriptor(argument),
                    false => argument.starts_with('"').then(|| path(argument)),
                });
                let touched = paths.filter_map(|path| self.ours(path)).next();
                assert!(touched.is_none(), "{other} of {touched:?} is not understood");
            }
        }
    }

    fn open(&mut self, name: &str, arguments: &[&str], result: &str) {
        let (file, flags) = match name {
            "open" | "creat" => (path(arguments[0]), arguments[1]),
            _ => (at(arguments[0], arguments[1]), arguments[2]),
        };
        let appends = flags.contains("O_APPEND");
        self.offsets.insert(descriptor(result), (!appends).then_some(0));
        let Some(file) = self.ours(Some(file)) else { return };
        assert!(name != "creat", "it is not understood");
        if flags.contains("O_CREAT") {
            self.events.push(Event::Create(file.clone()));
        }
        if flags.contains("O_TRUNC") {
            self.events.push(Event::Resize { path: file, len: 0 });
        }
    }

    fn write(&mut self, name: &str, arguments: &[&str], result: &str) {
        let len: usize =
            result.split(' ').next().and_then(|len| len.parse().ok()).expect("a length");
        let number = descriptor(arguments[0]);
        let offset = match name {
            "pwrite64" => Some(arguments[3].parse().expect("an offset")),
            _ => match self.offsets.entry(number).or_insert(Some(0)) {
                Some(offset) => {
                    *offset += len as u64;
                    Some(*offset - len as u64)
                }
                None => None,
            },
        };
        let Some(path) = self.ours(of_descriptor(arguments[0])) else { return };
        let mut bytes = Vec::new();
        for text in arguments[1].split('"').skip(1).step_by(2) {
            bytes.extend(unescaped(text));
        }
        assert!(bytes.len() >= len, "the trace is cut off: {} of {len} bytes", bytes.len());
        bytes.truncate(len);
        self.events.push(Event::Write { path, offset, bytes: bytes.into() });
    }

    fn ours(&self, path: Option<PathBuf>) -> Option<PathBuf> {
        path.filter(|path| path.starts_with(self.root))
    }

    fn one(&mut self, path: Option<PathBuf>, event: impl FnOnce(PathBuf) -> Event) {
        if let Some(path) = self.ours(path) {
            self.events.push(event(path));
        }
    }

    fn two(&mut self, from: PathBuf, to: PathBuf, event: impl FnOnce(PathBuf, PathBuf) -> Event) {
        if to.starts_with(self.root) {
            self.events.push(event(from, to));
        }
    }
}

/// Arguments by their commas. Strings and paths are in hexadecimal, so that none is in them.
fn split(arguments: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (at, byte) in arguments.bytes().enumerate() {
        match byte {
            b'[' | b'{' | b'(' => depth += 1,
            b']' | b'}' | b')' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(arguments[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(arguments[from..].trim());
    parts
}

fn unescaped(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => panic!("not in hexadecimal: {text:.80}"),
    };
    let (bytes, rest) = text.as_bytes().as_chunks::<4>();
    assert!(rest.is_empty(), "not in hexadecimal: {text:.80}");
    bytes
        .iter()
        .map(|[back, x, high, low]| {
            assert!(*back == b'\\' && *x == b'x', "not in hexadecimal: {text:.80}");
            digit(*high) << 4 | digit(*low)
        })
        .collect()
}

fn as_path(text: &str) -> PathBuf {
    PathBuf::from(String::from_utf8(unescaped(text)).expect("a path in UTF-8"))
}

/// A path as it was given.
fn path(argument: &str) -> PathBuf {
    as_path(argument.trim_matches('"'))
}

/// What a descriptor stands for; `None` for files that have no name any more.
fn of_descriptor(argument: &str) -> Option<PathBuf> {
    let (_, name) = argument.split_once('<')?;
    Some(as_path(name.strip_suffix('>')?))
}

/// A path from a directory on.
fn at(directory: &str, argument: &str) -> PathBuf {
    let path = path(argument);
    match of_descriptor(directory) {
        Some(directory) => directory.join(path),
        None => path,
    }
}

fn two_paths(name: &str, plain: &str, arguments: &[&str]) -> (PathBuf, PathBuf) {
    match name == plain {
        true => (path(arguments[0]), path(arguments[1])),
        false => (at(arguments[0], arguments[1]), at(arguments[2], arguments[3])),
    }
}

fn descriptor(argument: &str) -> i32 {
    let number = argument.split('<').next().expect("a descriptor");
    number.trim().parse().unwrap_or_else(|_| panic!("no descriptor: {argument}"))
}
