//! What `hearth serve` can be told. One table of it makes the flags, the variables, the keys of the
//! config file, `hearth config show` and the table of docs/settings.md, so that they can't differ.

use crate::logging::{self, LogFormat};
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use hearth_daemon::{
    Callers, Config, DEFAULT_DESIRED, DesiredPath, DiskOvercommit, HostChoice, JAIL_USERS,
    KeepImages, Listen, MassDeletion, Overcommit, Retention, default_state_dir, limits,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The variable that names the config file.
pub(crate) const CONFIG_VARIABLE: &str = "HEARTH_CONFIG";

/// One setting.
pub(crate) struct Setting {
    /// Its key in the file. The flag is this with dashes, the variable this in capitals behind
    /// `HEARTH_`.
    pub(crate) key: &'static str,
    /// What values it takes.
    pub(crate) kind: Kind,
    value_name: &'static str,
    help: &'static str,
    default: Default,
    /// A variable that counts as well, behind its own.
    pub(crate) other_variable: Option<&'static str>,
    take: fn(&mut Settings, &str) -> Result<(), String>,
    show: fn(&Settings) -> String,
}

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A text.
    Text,
    /// A path; in a file, a relative one begins at the file.
    Path,
    /// A whole number.
    Number,
    /// true or false.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// What holds where nothing is said.
#[derive(Clone, Copy)]
enum Default {
    /// This value.
    Is(&'static str),
    /// What this describes.
    Means(&'static str),
}

/// What the daemon is told, all in all.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    listen: Listen,
    group: String,
    open_loopback: bool,
    state_dir: Option<PathBuf>,
    desired: Option<PathBuf>,
    images: Option<PathBuf>,
    image_max_gb: u64,
    firecracker: Option<PathBuf>,
    jail: Option<bool>,
    jail_users: u32,
    host: HostKind,
    sim_boot_ms: u64,
    allow_delete: bool,
    vcpus_per_cpu: u32,
    memory_reserve_mb: u64,
    disk_overcommit: DiskOvercommit,
    keep_finished_jobs: u32,
    keep_finished_hours: u32,
    keep_log_hours: u32,
    keep_events: u32,
    keep_event_hours: u32,
    keep_image_hours: u32,
    keep_images_gb: u32,
    /// What is logged.
    pub(crate) log: String,
    /// How it is written.
    pub(crate) log_format: LogFormat,
}

/// What runs the microVMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostKind {
    Linux,
    Sim,
}

/// Every setting, in the order in which it is shown.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        kind: Kind::Text,
        value_name: "ADDRESS",
        help: "Where to listen: a loopback address or unix:///PATH",
        default: Default::Is("127.0.0.1:8088"),
        other_variable: None,
        take: |s, text| {
            text.parse()
                .map(|v| s.listen = v)
                .map_err(|error: hearth_daemon::ListenError| error.to_string())
        },
        show: |s| s.listen.to_string().trim_start_matches("http://").to_owned(),
    },
    Setting {
        key: "group",
        kind: Kind::Text,
        value_name: "GROUP",
        help: "The group whose members may use the daemon, beside root and the daemon's own user; empty for none",
        default: Default::Is(DEFAULT_GROUP),
        other_variable: None,
        take: |s, text| {
            s.group = text.to_owned();
            Ok(())
        },
        show: |s| s.group.clone(),
    },
    Setting {
        key: "open_loopback",
        kind: Kind::Switch,
        value_name: "true|false",
        help: "Let every local user use the daemon over the loopback",
        default: Default::Is("false"),
        other_variable: None,
        take: |s, text| switch(text).map(|v| s.open_loopback = v),
        show: |s| s.open_loopback.to_string(),
    },
    Setting {
        key: "state_dir",
        kind: Kind::Path,
        value_name: "DIR",
        help: "Where the state lives",
        default: Default::Means("/var/lib/hearth as root, else hearth in $XDG_STATE_HOME"),
        other_variable: None,
        take: |s, text| path(text).map(|v| s.state_dir = Some(v)),
        show: |s| shown(&s.state_dir()),
    },
    Setting {
        key: "desired",
        kind: Kind::Path,
        value_name: "FILE",
        help: "The desired-state file; FC_EX_CP_DESIRED_VMS_CONFIG is taken as well",
        default: Default::Means("config/desired_vms.exs, if it exists"),
        other_variable: Some("FC_EX_CP_DESIRED_VMS_CONFIG"),
        take: |s, text| path(text).map(|v| s.desired = Some(v)),
        show: |s| shown(s.desired.as_deref().unwrap_or(Path::new(DEFAULT_DESIRED))),
    },
    Setting {
        key: "images",
        kind: Kind::Path,
        value_name: "DIR",
        help: "Kernels and root filesystems",
        default: Default::Means("images in the state directory"),
        other_variable: None,
        take: |s, text| path(text).map(|v| s.images = Some(v)),
        show: |s| shown(&s.images()),
    },
    Setting {
        key: "image_max_gb",
        kind: Kind::Number,
        value_name: "GIB",
        help: "Largest image that may be used, in GiB, holes included",
        default: Default::Is("64"),
        other_variable: None,
        take: |s, text| number(text, 1).map(|v| s.image_max_gb = v),
        show: |s| s.image_max_gb.to_string(),
    },
    Setting {
        key: "firecracker",
        kind: Kind::Path,
        value_name: "FILE",
        help: "The Firecracker binary, 1.12 or newer",
        default: Default::Means("firecracker in PATH"),
        other_variable: None,
        take: |s, text| path(text).map(|v| s.firecracker = Some(v)),
        show: |s| shown(s.firecracker.as_deref().unwrap_or(Path::new("firecracker"))),
    },
    Setting {
        key: "jail",
        kind: Kind::Choice(&["on", "off"]),
        value_name: "on|off",
        help: "Confine each microVM's Firecracker to a user, namespaces and files of its own; only root's daemon can",
        default: Default::Means("on as root, else off"),
        other_variable: None,
        take: |s, text| word(text, &[("on", true), ("off", false)]).map(|v| s.jail = Some(v)),
        show: |s| if s.is_jailed() { "on" } else { "off" }.to_owned(),
    },
    Setting {
        key: "jail_users",
        kind: Kind::Number,
        value_name: "UID",
        help: "The first of the 65536 users and groups that microVMs are confined to",
        default: Default::Is("1879048192"),
        other_variable: None,
        take: |s, text| number(text, 1).map(|v| s.jail_users = v),
        show: |s| s.jail_users.to_string(),
    },
    Setting {
        key: "host",
        kind: Kind::Choice(&["linux", "sim"]),
        value_name: "HOST",
        help: "What runs the microVMs: linux (Firecracker on this machine) or sim (in memory; nothing really runs)",
        default: Default::Is("linux"),
        other_variable: None,
        take: |s, text| {
            word(text, &[("linux", HostKind::Linux), ("sim", HostKind::Sim)]).map(|v| s.host = v)
        },
        show: |s| {
            match s.host {
                HostKind::Linux => "linux",
                HostKind::Sim => "sim",
            }
            .to_owned()
        },
    },
    Setting {
        key: "sim_boot_ms",
        kind: Kind::Number,
        value_name: "MS",
        help: "How long a simulated microVM takes to boot, in milliseconds",
        default: Default::Is("200"),
        other_variable: None,
        take: |s, text| number(text, 0).map(|v| s.sim_boot_ms = v),
        show: |s| s.sim_boot_ms.to_string(),
    },
    Setting {
        key: "allow_delete",
        kind: Kind::Switch,
        value_name: "true|false",
        help: "Allow the file to delete more than half of its jobs at once",
        default: Default::Is("false"),
        other_variable: None,
        take: |s, text| switch(text).map(|v| s.allow_delete = v),
        show: |s| s.allow_delete.to_string(),
    },
    Setting {
        key: "vcpus_per_cpu",
        kind: Kind::Number,
        value_name: "N",
        help: "Virtual CPUs per processor of the host",
        default: Default::Is("8"),
        other_variable: None,
        take: |s, text| number(text, 1).map(|v| s.vcpus_per_cpu = v),
        show: |s| s.vcpus_per_cpu.to_string(),
    },
    Setting {
        key: "memory_reserve_mb",
        kind: Kind::Number,
        value_name: "MIB",
        help: "Memory reserved for the host, in MiB",
        default: Default::Is("512"),
        other_variable: None,
        take: |s, text| number(text, 0).map(|v| s.memory_reserve_mb = v),
        show: |s| s.memory_reserve_mb.to_string(),
    },
    Setting {
        key: "disk_overcommit",
        kind: Kind::Choice(&["warn", "refuse"]),
        value_name: "HOW",
        help: "Scratch disks that may need more space than is free: warn (start them anyway) or refuse (they wait for space)",
        default: Default::Is("warn"),
        other_variable: None,
        take: |s, text| {
            let words = [("warn", DiskOvercommit::Warn), ("refuse", DiskOvercommit::Refuse)];
            word(text, &words).map(|v| s.disk_overcommit = v)
        },
        show: |s| {
            match s.disk_overcommit {
                DiskOvercommit::Warn => "warn",
                DiskOvercommit::Refuse => "refuse",
            }
            .to_owned()
        },
    },
    Setting {
        key: "keep_finished_jobs",
        kind: Kind::Number,
        value_name: "N",
        help: "How many finished jobs to keep, the newest; jobs that a file declares always stay",
        default: Default::Is("1000"),
        other_variable: None,
        take: |s, text| number(text, 0).map(|v| s.keep_finished_jobs = v),
        show: |s| s.keep_finished_jobs.to_string(),
    },
    Setting {
        key: "keep_finished_hours",
        kind: Kind::Number,
        value_name: "HOURS",
        help: "How long to keep finished jobs, in hours",
        default: Default::Is("168"),
        other_variable: None,
        take: |s, text| number(text, 1).map(|v| s.keep_finished_hours = v),
        show: |s| s.keep_finished_hours.to_string(),
    },
    Setting {
        key: "keep_log_hours",
        kind: Kind::Number,
        value_name: "HOURS",
        help: "How long to keep logs of removed microVMs, in hours",
        default: Default::Is("168"),
        other_variable: None,
        take: |s, text| number(text, 1).map(|v| s.keep_log_hours = v),
        show: |s| s.keep_log_hours.to_string(),
    },
    Setting {
        key: "keep_events",
        kind: Kind::Number,
        value_name: "N",
        help: "How many events to keep, the newest",
        default: Default::Is("10000"),
        other_variable: None,
        take: |s, text| number(text, 100).map(|v| s.keep_events = v),
        show: |s| s.keep_events.to_string(),
    },
    Setting {
        key: "keep_event_hours",
        kind: Kind::Number,
        value_name: "HOURS",
        help: "How long to keep events, in hours",
        default: Default::Is("168"),
        other_variable: None,
        take: |s, text| number(text, 1).map(|v| s.keep_event_hours = v),
        show: |s| s.keep_event_hours.to_string(),
    },
    Setting {
        key: "keep_image_hours",
        kind: Kind::Number,
        value_name: "HOURS",
        help: "How long to keep copies of images that no job and no microVM uses, in hours",
        default: Default::Is("168"),
        other_variable: None,
        take: |s, text| number(text, 0).map(|v| s.keep_image_hours = v),
        show: |s| s.keep_image_hours.to_string(),
    },
    Setting {
        key: "keep_images_gb",
        kind: Kind::Number,
        value_name: "GB",
        help: "Most space for unused copies of images, in GiB: the least recently used are removed first",
        default: Default::Is("20"),
        other_variable: None,
        take: |s, text| number(text, 0).map(|v| s.keep_images_gb = v),
        show: |s| s.keep_images_gb.to_string(),
    },
    Setting {
        key: "log",
        kind: Kind::Text,
        value_name: "FILTER",
        help: "Log level or filter: error, warn, info, debug, trace, or by module",
        default: Default::Is("info"),
        other_variable: None,
        take: |s, text| logging::checked(text).map(|()| s.log = text.to_owned()),
        show: |s| s.log.clone(),
    },
    Setting {
        key: "log_format",
        kind: Kind::Choice(&["text", "json"]),
        value_name: "FORMAT",
        help: "Format of the log on stderr: text, or json (one object per line)",
        default: Default::Is("text"),
        other_variable: None,
        take: |s, text| {
            word(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
                .map(|v| s.log_format = v)
        },
        show: |s| {
            match s.log_format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
            }
            .to_owned()
        },
    },
];

/// Whose members may use the daemon.
const DEFAULT_GROUP: &str = "hearth";

const WEEK_HOURS: u32 = 7 * 24;

fn hours(hours: u32) -> Duration {
    Duration::from_secs(u64::from(hours) * 60 * 60)
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("a path can't be empty".to_owned()) } else { Ok(text.into()) }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn number<T: FromStr + PartialOrd + From<u8> + std::fmt::Display>(
    text: &str,
    min: u8,
) -> Result<T, String> {
    let least = T::from(min);
    match text.parse() {
        Ok(number) if number >= least => Ok(number),
        Ok(_) => Err(format!("{text} is out of range: at least {least}")),
        Err(_) => Err(format!("{text:?} is not a whole number, or far too large")),
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        format!("{text:?} is none of {}", words.join(", "))
    })
}

impl Setting {
    pub(crate) fn flag(&self) -> String {
        format!("--{}", self.key.replace('_', "-"))
    }

    pub(crate) fn variable(&self) -> String {
        format!("HEARTH_{}", self.key.to_uppercase())
    }

    /// Its value, as it would be written.
    pub(crate) fn value(&self, settings: &Settings) -> String {
        (self.show)(settings)
    }

    /// Takes a value that was written somewhere.
    ///
    /// # Errors
    /// Where it does not fit. A sentence.
    pub(crate) fn take(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        (self.take)(settings, text)
    }

    fn default(&self) -> &'static str {
        match self.default {
            Default::Is(text) | Default::Means(text) => text,
        }
    }

    fn arg(&'static self) -> Arg {
        let help =
            format!("{} [default: {}] [env: {}]", self.help, self.default(), self.variable());
        let arg = Arg::new(self.key)
            .long(self.key.replace('_', "-"))
            .value_name(self.value_name)
            .action(ArgAction::Set)
            .help(help);
        match self.kind {
            Kind::Switch => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_parser(PossibleValuesParser::new(["true", "false"]))
                .hide_possible_values(true),
            Kind::Choice(words) => {
                arg.value_parser(PossibleValuesParser::new(words)).hide_possible_values(true)
            }
            Kind::Text | Kind::Path | Kind::Number => arg.value_parser(|text: &str| {
                self.take(&mut Settings::new(), text).map(|()| text.to_owned())
            }),
        }
    }
}

impl Settings {
    /// What holds where nothing is said.
    pub(crate) fn new() -> Settings {
        let loopback = std::net::Ipv4Addr::LOCALHOST;
        Settings {
            listen: Listen::Tcp((loopback, 8088).into()),
            group: DEFAULT_GROUP.to_owned(),
            open_loopback: false,
            state_dir: None,
            desired: None,
            images: None,
            image_max_gb: limits::IMAGE_MAX_GIB,
            firecracker: None,
            jail: None,
            jail_users: JAIL_USERS,
            host: HostKind::Linux,
            sim_boot_ms: 200,
            allow_delete: false,
            vcpus_per_cpu: limits::VCPUS_PER_CPU,
            memory_reserve_mb: limits::MEMORY_RESERVE_MIB,
            disk_overcommit: DiskOvercommit::Warn,
            keep_finished_jobs: 1000,
            keep_finished_hours: WEEK_HOURS,
            keep_log_hours: WEEK_HOURS,
            keep_events: 10_000,
            keep_event_hours: WEEK_HOURS,
            keep_image_hours: WEEK_HOURS,
            keep_images_gb: 20,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
        }
    }

    fn state_dir(&self) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(default_state_dir)
    }

    /// Whether microVMs are confined.
    fn is_jailed(&self) -> bool {
        self.jail.unwrap_or_else(|| rustix::process::geteuid().is_root())
    }

    /// The images directory.
    pub(crate) fn images(&self) -> PathBuf {
        self.images.clone().unwrap_or_else(|| self.state_dir().join("images"))
    }

    /// What the daemon is started with.
    pub(crate) fn into_config(self) -> Config {
        let jail_users = self.is_jailed().then_some(self.jail_users);
        Config {
            state_dir: self.state_dir(),
            listen: self.listen,
            callers: Callers { group: self.group, open_loopback: self.open_loopback },
            images: self.images,
            image_max_gib: self.image_max_gb,
            desired: self.desired.map_or(DesiredPath::Default, DesiredPath::Named),
            deletions: if self.allow_delete { MassDeletion::Allowed } else { MassDeletion::Held },
            host: match self.host {
                HostKind::Linux => HostChoice::Linux { firecracker: self.firecracker, jail_users },
                HostKind::Sim => HostChoice::Sim { boot: Duration::from_millis(self.sim_boot_ms) },
            },
            overcommit: Overcommit {
                vcpus_per_cpu: self.vcpus_per_cpu,
                memory_reserve_mib: self.memory_reserve_mb,
                disk: self.disk_overcommit,
            },
            retention: Retention {
                finished_jobs_max: self.keep_finished_jobs as usize,
                finished_for: hours(self.keep_finished_hours),
                removed_after: limits::AUTO_REMOVE_AFTER,
                logs_for: hours(self.keep_log_hours),
                events_max: u64::from(self.keep_events),
                events_for: hours(self.keep_event_hours),
            },
            keep_images: KeepImages {
                unused_for: hours(self.keep_image_hours),
                bytes: u64::from(self.keep_images_gb) << 30,
            },
        }
    }
}

/// The flags of `hearth serve` that were given.
#[derive(Clone, Debug, std::default::Default)]
pub(crate) struct ServeArgs {
    /// The config file.
    pub(crate) config: Option<PathBuf>,
    /// Values by key, each known to fit.
    pub(crate) flags: BTreeMap<&'static str, String>,
}

impl clap::Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!(
                "The config file, in TOML; it holds what the other flags set \
                 [default: {DEFAULT_FILE}, if it exists] [env: {CONFIG_VARIABLE}]"
            ));
        command.arg(config).args(SETTINGS.iter().map(Setting::arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        ServeArgs::augment_args(command)
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<ServeArgs, clap::Error> {
        let mut args = ServeArgs::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one("config").cloned();
        for Setting { key, .. } in SETTINGS {
            if let Some(text) = matches.get_one::<String>(key) {
                self.flags.insert(key, text.clone());
            }
        }
        Ok(())
    }
}

/// Where the config file is looked for, in words.
const DEFAULT_FILE: &str = "/etc/hearth/hearth.toml as root, else hearth/hearth.toml in \
                            $XDG_CONFIG_HOME";

/// Where the config file is looked for.
pub(crate) fn default_file() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/etc/hearth/hearth.toml");
    }
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    from("XDG_CONFIG_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".config")))
        .unwrap_or_else(|| PathBuf::from("."))
        .join("hearth/hearth.toml")
}

#[cfg(test)]
mod tests {
    use super::{Default, SETTINGS, Settings};

    #[test]
    fn documentation_lists_every_setting() {
        let page = include_str!("../../../docs/settings.md");
        for setting in SETTINGS {
            let (flag, variable) = (setting.flag(), setting.variable());
            let (key, default) = (setting.key, setting.default());
            let row = format!("| `{key}` | `{flag}` | `{variable}` | {default} |");
            assert!(page.contains(&row), "missing in docs/settings.md:\n{row}");
        }
    }

    #[test]
    fn defaults_are_as_documented_and_every_value_can_be_written() {
        for setting in SETTINGS {
            let shown = setting.value(&Settings::new());
            if let Default::Is(text) = setting.default {
                assert_eq!(shown, text, "{}", setting.key);
            }
            let mut settings = Settings::new();
            setting.take(&mut settings, &shown).expect(setting.key);
            assert_eq!(setting.value(&settings), shown, "{}", setting.key);
        }
    }
}
