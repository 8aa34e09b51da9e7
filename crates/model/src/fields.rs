//! The one grammar of fields: [`Declaration::read`] and [`Spec::read`] take a tree from any format
//! and find every problem at once; [`Spec::write`] is the inverse of the latter.

use crate::ids::{IdError, JobId, Tenant};
use crate::problems::{FieldError, FieldErrors, FieldPart, Path, Segment};
use crate::signal::Signal;
use crate::spec::{
    Boot, ImageName, LABELS_MAX, Lifecycle, Ready, ReadyCheck, Resources, Spec, Stage, WarmPool,
    label_key_fault, label_value_fault,
};
use crate::text::{cut, suggest};
use crate::value::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Most arguments of a command; a shell line fits many times.
pub const CMD_ARGS_MAX: usize = 256;
/// Most environment variables.
pub const ENV_VARS_MAX: usize = 256;
/// Most bytes of cmd and env together, so that a config drive and a process's start hold them.
pub const CMD_ENV_BYTES_MAX: usize = 48 * 1024;
/// Most virtual CPUs, Firecracker's limit.
pub const VCPU_MAX: i64 = 32;
/// Most memory in MiB.
pub const MEM_MIB_MAX: i64 = 1024 * 1024;
/// Most warm instances of one pool.
pub const POOL_MAX: i64 = 1000;
/// Seconds until a service that is not ready counts as failed.
pub const READY_TIMEOUT_S_DEFAULT: u32 = 60;
/// Seconds from the stop signal to SIGKILL.
pub const STOP_TIMEOUT_S_DEFAULT: u32 = 10;
/// Longest number that a message quotes whole, in bytes: no value that is meant is longer.
const QUOTED_BYTES_MAX: usize = 64;
/// MiB of scratch disk.
pub const DISK_MIB_DEFAULT: u32 = 1024;

/// The fields of a spec, in the order in which they are written.
pub const SPEC_FIELDS: &[&str] = &[
    "rootfs",
    "kernel",
    "cmd",
    "env",
    "resources",
    "lifecycle",
    "warm_pool",
    "ready",
    "boot",
    "retries",
    "timeout_s",
    "auto_remove",
    "stop_signal",
    "stop_timeout_s",
    "disk_mb",
    "labels",
];

/// The fields around a spec, in a file's entry and in a request. `vm_id` is another name for
/// `job_id`.
pub const DECLARATION_FIELDS: &[&str] = &["job_id", "vm_id", "tenant", "spec"];

/// The text that stands in a file or a request for the value at a path, if it is a number, a boolean
/// or null: what a hint quotes, since `1.10` and `1.1` are the same value.
pub type SourceText<'a> = dyn Fn(&Path) -> Option<String> + 'a;

/// A job as it is declared, in a file's entry or in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// The job's name, or `None` where it is left out.
    pub job_id: Option<JobId>,
    /// The tenant, or `None` where it is left out.
    pub tenant: Option<Tenant>,
    /// What the job runs.
    pub spec: Spec,
}

impl Declaration {
    /// Reads a declaration from a tree with [`DECLARATION_FIELDS`]. `source` gives the text that the
    /// tree was read from.
    ///
    /// # Errors
    /// As [`Spec::read`], with paths from the declaration on.
    pub fn read(tree: &Value, source: &SourceText<'_>) -> Result<Declaration, FieldErrors> {
        let mut reader = FieldReader::new(source, Rules::Declared);
        match reader.declaration(tree) {
            Some(declaration) if reader.errors.is_empty() => Ok(declaration),
            _ => Err(reader.errors),
        }
    }
}

impl Spec {
    /// Reads a spec from a tree that was accepted once, such as a row of the database: names of
    /// environment variables that would be refused today are kept.
    ///
    /// # Errors
    /// The problems of the tree, each with its place, in the order of the fields.
    pub fn read(tree: &Value) -> Result<Spec, FieldErrors> {
        let mut reader = FieldReader::new(&|_| None, Rules::Stored);
        let spec = reader.spec(tree);
        match spec {
            Some(spec) if reader.errors.is_empty() => Ok(spec),
            _ => Err(reader.errors),
        }
    }

    /// The tree of a spec: defaults are left out where the seed's form has no such field.
    #[must_use]
    pub fn write(&self) -> Value {
        Part::Map(self.parts()).into()
    }

    /// What [`Spec::write`] makes a tree of, borrowed: rows and answers are written from it.
    #[must_use]
    pub fn parts(&self) -> Vec<(&str, Part<'_>)> {
        let mut parts = Vec::with_capacity(16);
        if let Some(rootfs) = &self.rootfs {
            parts.push(("rootfs", Part::Text(rootfs.as_str())));
        }
        parts.push(("kernel", Part::Text(self.kernel.as_str())));
        if !self.cmd.is_empty() {
            parts.push(("cmd", Part::Texts(&self.cmd)));
        }
        if !self.env.is_empty() {
            parts.push(("env", Part::TextMap(&self.env)));
        }
        let Resources { vcpu, mem_mib } = self.resources;
        let resources = vec![("vcpu", vcpu.into()), ("mem_mb", mem_mib.into())];
        parts.push(("resources", Part::Map(resources)));
        parts.push(("lifecycle", Part::Text(self.lifecycle.as_str())));
        if let Some(WarmPool { min, max, stage }) = self.warm_pool {
            let mut pool = vec![("min", min.into()), ("max", max.into())];
            if stage != Stage::default_for(self.lifecycle) {
                pool.push(("stage", Part::Text(stage.as_str())));
            }
            parts.push(("warm_pool", Part::Map(pool)));
        }
        if let Some(ready) = &self.ready {
            parts.push(("ready", ready_part(ready)));
        }
        if self.boot == Boot::Raw {
            parts.push(("boot", Part::Text("raw")));
        }
        if self.retries > 0 {
            parts.push(("retries", self.retries.into()));
        }
        if let Some(timeout_s) = self.timeout_s {
            parts.push(("timeout_s", timeout_s.into()));
        }
        if self.auto_remove {
            parts.push(("auto_remove", Part::Bool(true)));
        }
        if self.stop_signal != Signal::TERM {
            parts.push(("stop_signal", Part::Text(self.stop_signal.name())));
        }
        if self.stop_timeout_s != STOP_TIMEOUT_S_DEFAULT {
            parts.push(("stop_timeout_s", self.stop_timeout_s.into()));
        }
        if self.disk_mib != DISK_MIB_DEFAULT {
            parts.push(("disk_mb", self.disk_mib.into()));
        }
        if !self.labels.is_empty() {
            parts.push(("labels", Part::TextMap(&self.labels)));
        }
        parts
    }
}

/// A field's value as it stands in a spec.
#[derive(Clone, Debug)]
pub enum Part<'a> {
    /// A truth value.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A text.
    Text(&'a str),
    /// A list of texts.
    Texts(&'a [String]),
    /// Texts by name.
    TextMap(&'a BTreeMap<String, String>),
    /// Fields in their order.
    Map(Vec<(&'a str, Part<'a>)>),
}

impl From<u32> for Part<'_> {
    fn from(number: u32) -> Self {
        Part::Int(i64::from(number))
    }
}

impl From<Part<'_>> for Value {
    fn from(part: Part<'_>) -> Value {
        match part {
            Part::Bool(truth) => Value::Bool(truth),
            Part::Int(number) => Value::Int(number),
            Part::Text(text) => text.into(),
            Part::Texts(texts) => {
                Value::List(texts.iter().map(|text| text.as_str().into()).collect())
            }
            Part::TextMap(texts) => {
                let entry =
                    |(name, value): (&String, &String)| (name.clone(), value.as_str().into());
                Value::Map(texts.iter().map(entry).collect())
            }
            Part::Map(parts) => {
                let entry = |(key, part): (&str, Part<'_>)| (key.to_owned(), part.into());
                Value::Map(parts.into_iter().map(entry).collect())
            }
        }
    }
}

fn ready_part(ready: &Ready) -> Part<'_> {
    let check = match &ready.check {
        ReadyCheck::Http { port, path } => {
            let port = Part::Int(i64::from(*port));
            ("http", Part::Map(vec![("port", port), ("path", Part::Text(path))]))
        }
        ReadyCheck::Tcp { port } => ("tcp", Part::Map(vec![("port", Part::Int(i64::from(*port)))])),
        ReadyCheck::Exec(cmd) => ("exec", Part::Texts(cmd)),
        ReadyCheck::Notify => ("notify", Part::Bool(true)),
    };
    let mut parts = vec![check];
    if ready.timeout_s != READY_TIMEOUT_S_DEFAULT {
        parts.push(("timeout_s", ready.timeout_s.into()));
    }
    Part::Map(parts)
}

/// Why this can't name an environment variable, if it can't. A name that shows as another one, or not
/// at all, is not one that is meant.
#[must_use]
pub fn env_name_fault(name: &str) -> Option<String> {
    let invisible = |c: &char| {
        matches!(c, '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}')
            || matches!(c, '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
    };
    if name.is_empty() {
        Some("it is empty".to_owned())
    } else if name.contains('=') {
        Some("it holds `=`".to_owned())
    } else if name.contains(char::is_control) {
        Some("it holds a control character".to_owned())
    } else {
        let found = name.chars().find(invisible)?;
        Some(format!("it holds the invisible character U+{:04X}", u32::from(found)))
    }
}

/// A hint to put what was written in quotes.
#[must_use]
pub fn quoted(written: &str) -> String {
    match cut(written, QUOTED_BYTES_MAX) {
        Cow::Borrowed(whole) => format!("write \"{whole}\""),
        Cow::Owned(_) => "put it in quotes".to_owned(),
    }
}

/// Collects the errors while it walks a tree; `path` is where it stands.
struct FieldReader<'s> {
    path: Path,
    errors: FieldErrors,
    source: &'s SourceText<'s>,
    rules: Rules,
}

/// Which rules a tree has to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// Those of today.
    Declared,
    /// Those of the version that accepted it, which were fewer.
    Stored,
}

type Entries = [(String, Value)];

impl<'s> FieldReader<'s> {
    fn new(source: &'s SourceText<'s>, rules: Rules) -> FieldReader<'s> {
        FieldReader { path: Path::default(), errors: FieldErrors::default(), source, rules }
    }

    fn error(&mut self, detail: impl Into<String>) {
        self.push(self.path.clone(), FieldPart::Value, detail.into(), None);
    }

    fn error_with_help(&mut self, detail: impl Into<String>, help: impl Into<String>) {
        self.push(self.path.clone(), FieldPart::Value, detail.into(), Some(help.into()));
    }

    fn error_at(
        &mut self,
        key: &str,
        target: FieldPart,
        detail: impl Into<String>,
        help: Option<String>,
    ) {
        let mut path = self.path.clone();
        path.0.push(Segment::Key(key.to_owned()));
        self.push(path, target, detail.into(), help);
    }

    fn push(&mut self, path: Path, target: FieldPart, detail: String, help: Option<String>) {
        self.errors.push(FieldError { path, target, detail, help });
    }

    fn within<T>(&mut self, segment: Segment, read: impl FnOnce(&mut FieldReader<'s>) -> T) -> T {
        self.path.0.push(segment);
        let read = read(self);
        self.path.0.pop();
        read
    }

    /// The entries of a map, with an error for each key that is not known.
    fn map<'v>(&mut self, value: &'v Value, known: &[&str]) -> Option<&'v Entries> {
        let Value::Map(entries) = value else {
            self.error(format!("expected a map, found {}", value.kind()));
            return None;
        };
        for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            if self.errors.is_full() {
                self.errors.omit();
                continue;
            }
            let help = match suggest(key, known) {
                Some(name) => format!("did you mean `{name}`?"),
                None if known == DECLARATION_FIELDS && SPEC_FIELDS.contains(&key.as_str()) => {
                    format!("`{key}` belongs in `spec`")
                }
                None => format!("known fields are {}", known.join(", ")),
            };
            self.error_at(key, FieldPart::Key, format!("unknown field `{key}`"), Some(help));
        }
        Some(entries)
    }

    /// Reads a field that may be absent; null counts as absent.
    fn optional<T>(
        &mut self,
        entries: &Entries,
        key: &str,
        read: impl FnOnce(&mut FieldReader<'s>, &Value) -> Option<T>,
    ) -> Option<T> {
        let (_, value) = entries.iter().find(|(k, v)| k == key && *v != Value::Null)?;
        self.within(Segment::Key(key.to_owned()), |reader| read(reader, value))
    }

    fn required<T>(
        &mut self,
        entries: &Entries,
        key: &str,
        read: impl FnOnce(&mut FieldReader<'s>, &Value) -> Option<T>,
    ) -> Option<T> {
        if !entries.iter().any(|(k, v)| k == key && *v != Value::Null) {
            self.error_at(key, FieldPart::Absent, format!("missing field `{key}`"), None);
            return None;
        }
        self.optional(entries, key, read)
    }

    fn text(&mut self, value: &Value) -> Option<String> {
        match value {
            Value::String(text) if text.contains('\0') => {
                self.error("holds a NUL character");
                None
            }
            Value::String(text) => Some(text.clone()),
            Value::List(_) | Value::Map(_) => {
                self.error(format!("expected a string, found {}", value.kind()));
                None
            }
            scalar => {
                let written = self.written(scalar);
                let help = match written.as_str() {
                    "" => "write \"\" for an empty text".to_owned(),
                    _ if *scalar == Value::Null => {
                        format!("write \"{written}\", or \"\" for an empty text")
                    }
                    _ => quoted(&written),
                };
                let found = match written.as_str() {
                    "" => Cow::Borrowed("nothing"),
                    written => cut(written, QUOTED_BYTES_MAX),
                };
                self.error_with_help(format!("expected a string, found {found}"), help);
                None
            }
        }
    }

    fn truth(&mut self, value: &Value) -> Option<bool> {
        match value {
            Value::Bool(truth) => Some(*truth),
            other => {
                self.error(format!("expected true or false, found {}", other.kind()));
                None
            }
        }
    }

    fn integer(&mut self, value: &Value, min: i64, max: i64) -> Option<u32> {
        match value {
            Value::Int(number) if (min..=max).contains(number) => u32::try_from(*number).ok(),
            Value::Int(_) | Value::BigInt(_) => {
                let written = self.written(value);
                let found = cut(&written, QUOTED_BYTES_MAX);
                self.error(format!("{found} is out of range: {min} to {max}"));
                None
            }
            Value::Float(_) => {
                let written = self.written(value);
                let detail =
                    format!("expected an integer, found {}", cut(&written, QUOTED_BYTES_MAX));
                let number = written.replace('_', "").parse::<f64>().unwrap_or(f64::NAN);
                if number.fract() == 0.0 && (min as f64..=max as f64).contains(&number) {
                    self.error_with_help(detail, format!("write {number:.0}"));
                } else {
                    self.error(detail);
                }
                None
            }
            other => {
                self.error(format!("expected an integer, found {}", other.kind()));
                None
            }
        }
    }

    fn signal(&mut self, value: &Value) -> Option<Signal> {
        let text = self.text(value)?;
        let nearest = match Signal::parse(&text) {
            Ok(signal) => return Some(signal),
            Err(nearest) => nearest,
        };
        let help = match nearest {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => "name it as in \"SIGINT\", \"SIGRTMIN+3\" or \"2\"".to_owned(),
        };
        self.error_with_help(format!("{text:?} is not a signal"), help);
        None
    }

    /// A scalar as it stands in the file or the request.
    fn written(&self, value: &Value) -> String {
        (self.source)(&self.path).unwrap_or_else(|| value.to_string())
    }

    fn choice<T: Copy>(&mut self, value: &Value, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(value)?;
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*choice);
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let detail = format!("{text:?} is not one of {}", names.join(", "));
        match suggest(&text, &names) {
            Some(name) => self.error_with_help(detail, format!("did you mean \"{name}\"?")),
            None => self.error(detail),
        }
        None
    }

    fn image(&mut self, value: &Value) -> Option<ImageName> {
        let text = self.text(value)?;
        ImageName::parse(&text).map_err(|detail| self.error(detail)).ok()
    }

    fn command(&mut self, value: &Value) -> Option<Vec<String>> {
        let Value::List(items) = value else {
            self.error(format!("expected a list of strings, found {}", value.kind()));
            return None;
        };
        if items.is_empty() || items.len() > CMD_ARGS_MAX {
            self.error(format!("has {} elements; 1 to {CMD_ARGS_MAX} are allowed", items.len()));
            return None;
        }
        let cmd: Option<Vec<String>> = items
            .iter()
            .enumerate()
            .map(|(at, item)| self.within(Segment::Index(at), |reader| reader.text(item)))
            .collect();
        if cmd.as_ref().is_some_and(|cmd| cmd[0].is_empty()) {
            self.within(Segment::Index(0), |reader| reader.error("the program is empty"));
            return None;
        }
        cmd
    }

    fn env_name_fault(&self, name: &str) -> Option<String> {
        match self.rules {
            Rules::Declared => env_name_fault(name),
            Rules::Stored => None,
        }
    }

    fn env(&mut self, value: &Value) -> Option<BTreeMap<String, String>> {
        let Value::Map(entries) = value else {
            self.error(format!("expected a map, found {}", value.kind()));
            return None;
        };
        if entries.len() > ENV_VARS_MAX {
            self.error(format!("has {} variables; {ENV_VARS_MAX} is the limit", entries.len()));
            return None;
        }
        let mut env = BTreeMap::new();
        for (key, value) in entries {
            self.within(Segment::Key(key.clone()), |reader| {
                if let Some(fault) = reader.env_name_fault(key) {
                    let detail = format!("{key:?} can't name an environment variable: {fault}");
                    reader.push(reader.path.clone(), FieldPart::Key, detail, None);
                }
                if let Some(text) = reader.text(value) {
                    env.insert(key.clone(), text);
                }
            });
        }
        Some(env)
    }

    fn labels(&mut self, value: &Value) -> Option<BTreeMap<String, String>> {
        let Value::Map(entries) = value else {
            self.error(format!("expected a map, found {}", value.kind()));
            return None;
        };
        if entries.len() > LABELS_MAX {
            self.error(format!("has {} labels; {LABELS_MAX} is the limit", entries.len()));
            return None;
        }
        let mut labels = BTreeMap::new();
        for (key, value) in entries {
            self.within(Segment::Key(key.clone()), |reader| {
                if let Some(fault) = label_key_fault(key) {
                    let detail = format!("{key:?} is not the key of a label");
                    reader.push(reader.path.clone(), FieldPart::Key, detail, Some(fault));
                }
                let Some(text) = reader.text(value) else { return };
                if let Some(fault) = label_value_fault(&text) {
                    reader.error_with_help(format!("{text:?} is not the value of a label"), fault);
                }
                labels.insert(key.clone(), text);
            });
        }
        Some(labels)
    }

    fn resources(&mut self, value: &Value) -> Option<Resources> {
        let entries = self.map(value, &["vcpu", "mem_mb"])?;
        let vcpu = self.required(entries, "vcpu", |r, v| r.integer(v, 1, VCPU_MAX));
        let mem_mib = self.required(entries, "mem_mb", |r, v| r.integer(v, 1, MEM_MIB_MAX));
        Some(Resources { vcpu: vcpu?, mem_mib: mem_mib? })
    }

    fn warm_pool(&mut self, value: &Value, lifecycle: Option<Lifecycle>) -> Option<WarmPool> {
        let entries = self.map(value, &["min", "max", "stage"])?;
        let min = self.optional(entries, "min", |r, v| r.integer(v, 0, POOL_MAX)).unwrap_or(0);
        let max = self.optional(entries, "max", |r, v| r.integer(v, 0, POOL_MAX)).unwrap_or(min);
        let stages = [("init", Stage::Init), ("app", Stage::App)];
        let stage = self.optional(entries, "stage", |r, v| r.choice(v, &stages));
        if max < min {
            let detail = format!("{max} is less than `min`, which is {min}");
            self.error_at("max", FieldPart::Value, detail, None);
        }
        let lifecycle = lifecycle?;
        if lifecycle == Lifecycle::Job && stage == Some(Stage::App) {
            let detail = "a `job` would run before it is claimed";
            self.error_at("stage", FieldPart::Value, detail, Some("use \"init\"".to_owned()));
        }
        Some(WarmPool { min, max, stage: stage.unwrap_or(Stage::default_for(lifecycle)) })
    }

    fn port(&mut self, entries: &Entries) -> Option<u16> {
        self.required(entries, "port", |r, v| r.integer(v, 1, 65535))
            .and_then(|port| u16::try_from(port).ok())
    }

    fn ready(&mut self, value: &Value) -> Option<Ready> {
        const KINDS: [&str; 4] = ["http", "tcp", "exec", "notify"];
        let entries = self.map(value, &["http", "tcp", "exec", "notify", "timeout_s"])?;
        let timeout_s = self
            .optional(entries, "timeout_s", |r, v| r.integer(v, 1, 86_400))
            .unwrap_or(READY_TIMEOUT_S_DEFAULT);
        if entries.iter().filter(|(key, _)| KINDS.contains(&key.as_str())).count() != 1 {
            self.error("needs exactly one of http, tcp, exec and notify");
            return None;
        }
        let http = self.optional(entries, "http", |reader, value| {
            let entries = reader.map(value, &["port", "path"])?;
            let path = reader.optional(entries, "path", |reader, value| {
                let path = reader.text(value)?;
                if !path.starts_with('/') || path.contains(|c: char| c.is_control() || c == ' ') {
                    reader.error("must begin with \"/\" and hold no spaces");
                }
                Some(path)
            });
            let path = path.unwrap_or_else(|| "/".to_owned());
            Some(ReadyCheck::Http { port: reader.port(entries)?, path })
        });
        let tcp = self.optional(entries, "tcp", |reader, value| {
            let entries = reader.map(value, &["port"])?;
            Some(ReadyCheck::Tcp { port: reader.port(entries)? })
        });
        let exec = self.optional(entries, "exec", FieldReader::command).map(ReadyCheck::Exec);
        let notify = self.optional(entries, "notify", |reader, value| {
            if *value != Value::Bool(true) {
                reader.error("must be true");
            }
            Some(ReadyCheck::Notify)
        });
        Some(Ready { check: http.or(tcp).or(exec).or(notify)?, timeout_s })
    }

    fn declaration(&mut self, tree: &Value) -> Option<Declaration> {
        let entries = self.map(tree, DECLARATION_FIELDS)?;
        let job_id = self.optional(entries, "job_id", |r, v| r.name(v, JobId::parse));
        let vm_id = self.optional(entries, "vm_id", |r, v| r.name(v, JobId::parse));
        if let (Some(job_id), Some(vm_id)) = (&job_id, &vm_id)
            && job_id != vm_id
        {
            let detail =
                format!("`vm_id` is another name for `job_id`, which is \"{job_id}\" here");
            self.error_at("vm_id", FieldPart::Key, detail, Some("leave it out".to_owned()));
        }
        let tenant = self.optional(entries, "tenant", |r, v| r.name(v, Tenant::parse));
        let spec = self.required(entries, "spec", FieldReader::spec)?;
        Some(Declaration { job_id: job_id.or(vm_id), tenant, spec })
    }

    fn name<T>(&mut self, value: &Value, parse: impl Fn(&str) -> Result<T, IdError>) -> Option<T> {
        let text = self.text(value)?;
        parse(&text).map_err(|error| self.error(error.detail)).ok()
    }

    fn spec(&mut self, tree: &Value) -> Option<Spec> {
        let entries = self.map(tree, SPEC_FIELDS)?;
        let boots = [("init", Boot::Init), ("raw", Boot::Raw)];
        let boot = self.optional(entries, "boot", |r, v| r.choice(v, &boots)).unwrap_or(Boot::Init);
        let (rootfs, cmd) = match boot {
            Boot::Init => (
                self.required(entries, "rootfs", FieldReader::image).map(Some),
                self.required(entries, "cmd", FieldReader::command),
            ),
            Boot::Raw => (
                Some(self.optional(entries, "rootfs", FieldReader::image)),
                Some(self.optional(entries, "cmd", FieldReader::command).unwrap_or_default()),
            ),
        };
        let kernel = self.required(entries, "kernel", FieldReader::image);
        let env = self.optional(entries, "env", FieldReader::env).unwrap_or_default();
        let resources = self.required(entries, "resources", FieldReader::resources);
        let lifecycles = Lifecycle::ALL.map(|lifecycle| (lifecycle.as_str(), lifecycle));
        let lifecycle = self.required(entries, "lifecycle", |r, v| r.choice(v, &lifecycles));
        let warm_pool = self.optional(entries, "warm_pool", |r, v| r.warm_pool(v, lifecycle));
        let ready = self.optional(entries, "ready", FieldReader::ready);
        let retries = self.optional(entries, "retries", |r, v| r.integer(v, 0, 100));
        let timeout_s = self.optional(entries, "timeout_s", |r, v| r.integer(v, 1, 31_536_000));
        let auto_remove = self.optional(entries, "auto_remove", FieldReader::truth);
        let signal = self.optional(entries, "stop_signal", FieldReader::signal);
        let stop = self.optional(entries, "stop_timeout_s", |r, v| r.integer(v, 0, 3600));
        let disk = self.optional(entries, "disk_mb", |r, v| r.integer(v, 16, MEM_MIB_MAX));
        let labels = self.optional(entries, "labels", FieldReader::labels);
        let spec = Spec {
            boot,
            rootfs: rootfs?,
            kernel: kernel?,
            cmd: cmd?,
            env,
            resources: resources?,
            lifecycle: lifecycle?,
            warm_pool,
            ready,
            retries: retries.unwrap_or(0),
            timeout_s,
            auto_remove: auto_remove.unwrap_or(false),
            stop_signal: signal.unwrap_or(Signal::TERM),
            stop_timeout_s: stop.unwrap_or(STOP_TIMEOUT_S_DEFAULT),
            disk_mib: disk.unwrap_or(DISK_MIB_DEFAULT),
            labels: labels.unwrap_or_default(),
        };
        self.whole(&spec);
        Some(spec)
    }

    /// Rules that span fields.
    fn whole(&mut self, spec: &Spec) {
        let bytes = spec.cmd.iter().map(String::len).sum::<usize>()
            + spec.env.iter().map(|(k, v)| k.len() + v.len() + 2).sum::<usize>();
        if bytes > CMD_ENV_BYTES_MAX {
            self.error(format!("cmd and env have {bytes} bytes; {CMD_ENV_BYTES_MAX} is the limit"));
        }
        if spec.lifecycle != Lifecycle::Job {
            for (set, key) in [
                (spec.retries > 0, "retries"),
                (spec.timeout_s.is_some(), "timeout_s"),
                (spec.auto_remove, "auto_remove"),
            ] {
                if set {
                    let detail = format!("`{key}` is for lifecycle \"job\"");
                    self.error_at(key, FieldPart::Key, detail, Some("remove it".to_owned()));
                }
            }
        }
        if spec.boot == Boot::Raw {
            let why = "needs Hearth's init, which `boot: \"raw\"` turns off";
            if !spec.env.is_empty() {
                self.error_at("env", FieldPart::Value, why, None);
            }
            if spec.ready.is_some() {
                self.error_at("ready", FieldPart::Value, why, None);
            }
            if spec.stop_signal != Signal::TERM {
                self.error_at("stop_signal", FieldPart::Value, why, None);
            }
            if spec.lifecycle == Lifecycle::Job {
                self.error_at("lifecycle", FieldPart::Value, format!("\"job\" {why}"), None);
            }
            if spec.warm_pool.is_some_and(|pool| pool.stage == Stage::Init) {
                self.error_at("warm_pool", FieldPart::Value, format!("stage \"init\" {why}"), None);
            }
        }
    }
}
