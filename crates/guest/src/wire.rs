//! The messages, as serde types.

use crate::hello::Hello;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the config drive holds: the configuration of the guest, with its workload or without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The instance this drive was made for.
    pub instance: String,
    /// The name of the root filesystem, for messages.
    pub rootfs: String,
    /// The digest of the root filesystem, which the scratch disk is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs_digest: Option<String>,
    /// How far to go without being told.
    pub stage: Stage,
    /// What runs in it, or that it comes later.
    #[serde(flatten)]
    pub workload: Delivery,
    /// The number of the stop signal, where the host does not say one. Policy, which may change while the
    /// command runs, so it is not part of the workload.
    #[serde(default = "sigterm")]
    pub stop_signal: u8,
    /// How long the command may take from its stop signal to SIGKILL, in seconds; likewise.
    pub stop_timeout_s: u32,
    /// Whose instance this is from the start; `None` in a pool.
    pub identity: Option<Identity>,
}

/// How the workload comes to the guest. On the drive an inline one has the form that it had before there
/// were others: its fields are those of the [`Config`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Delivery {
    /// By a [`Command::Workload`].
    Late {
        /// That it is late.
        workload: LateTag,
    },
    /// Here it is.
    Inline(Workload),
}

impl Delivery {
    /// One that comes by a [`Command::Workload`].
    pub const LATE: Delivery = Delivery::Late { workload: LateTag::Late };
}

/// The word `late` on the config drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LateTag {
    /// The word.
    Late,
}

/// What runs inside a guest: all that the init needs to run the command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Program and arguments; the program is an absolute path or is searched in `PATH`.
    pub cmd: Vec<String>,
    /// The environment of the command. `PATH` and `HOME` are added where it has none.
    pub env: BTreeMap<String, String>,
    /// When the command counts as ready.
    pub ready: Option<Ready>,
}

/// How far a guest goes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The init is up; the command waits for a [`Command::Identity`] with `go`.
    Init,
    /// The command is started at once.
    App,
}

/// Whose instance a guest is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The job.
    pub job_id: String,
    /// Its tenant.
    pub tenant: String,
    /// The generation of the job that this instance serves.
    pub generation: u64,
    /// The instance, as `/stats` shows it.
    pub vm_id: String,
}

/// When the command counts as ready. A check that has passed is not made again: readiness is
/// about the start. Checks begin 50 ms apart and slow down to one a second; one of http or tcp
/// may take 1 s, one of exec 5 s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// What is checked, inside the guest, on its loopback.
    pub check: ReadyCheck,
}

/// A readiness check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadyCheck {
    /// GET answers 2xx or 3xx. Redirects are not followed.
    Http {
        /// TCP port on the guest's loopback.
        port: u16,
        /// Path and query, beginning with `/`.
        path: String,
    },
    /// A connection is accepted.
    Tcp {
        /// TCP port on the guest's loopback.
        port: u16,
    },
    /// The command exits with 0.
    Exec(Vec<String>),
    /// The app writes `ready\n` to the socket named by `HEARTH_NOTIFY`.
    Notify,
}

/// Host to guest, one JSON line each. Every command is idempotent, and each but Hello is answered by a
/// [`Report`], even where it changed nothing. One that the init does not know is answered by
/// [`Message::Unsupported`]; before protocol 2 it ended the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "do")]
pub enum Command {
    /// What the host speaks. Answered by [`Message::Hello`].
    Hello(Hello),
    /// Replaces the identity file, then starts the command if it was held and `go` is true. A
    /// guest ignores a generation lower than the one it has, and another job than its own: the
    /// report then shows the identity it kept. Sets the wall clock as well, where it is off by
    /// more than half a second. A guest whose workload is late takes none before that
    /// has come, nor after it has refused another until the first one comes again.
    Identity {
        /// Its job and generation from now on.
        identity: Identity,
        /// Whether a held command may start.
        go: bool,
        /// The host's wall clock, nanoseconds since 1970 UTC.
        clock_ns: u64,
    },
    /// The workload of a guest that was started without it. The first one stays for the guest's life.
    /// It is acknowledged by [`LateWorkload::generation`], and so is the same one again; another one is
    /// refused, by [`LateWorkload::refused`]. For an init that says [`LATE_WORKLOAD`].
    ///
    /// [`LATE_WORKLOAD`]: crate::LATE_WORKLOAD
    Workload {
        /// The generation of the job that it is of.
        generation: u64,
        /// What is to run.
        workload: Workload,
    },
    /// The stop signal to the command's own process, SIGKILL to everything after `timeout_s`,
    /// status drive, sync, reboot. A command that is still held ends at once, as by its stop
    /// signal. A second stop may only bring SIGKILL nearer. Ctrl-Alt-Del is a stop with the
    /// config's `stop_signal` and `stop_timeout_s`.
    Stop {
        /// Seconds from the stop signal to SIGKILL.
        timeout_s: u32,
        /// The number of the stop signal. An older init ignores it, and sends SIGTERM.
        #[serde(default = "sigterm")]
        signal: u8,
    },
    /// Corrects the wall clock by `ahead_ns`, then reports what it says. The correction is relative,
    /// so that a late one is still right. For a guest whose reports have a [`ClockReading`]: an older
    /// init ends the connection.
    Clock {
        /// Comes back in the reading.
        ask: u64,
        /// By how much the clock is ahead of the host's, in nanoseconds; 0 to leave it alone.
        ahead_ns: i64,
    },
}

/// The stop signal where an older daemon does not say one.
fn sigterm() -> u8 {
    15
}

/// Guest to host, one JSON line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Message {
    /// What the init speaks.
    Hello {
        /// That.
        hello: Hello,
    },
    /// A command was not understood, and nothing was done.
    Unsupported {
        /// Its name.
        unsupported: String,
    },
    /// How the guest is.
    Report(Box<Report>),
}

/// How a guest is: the whole state, whenever it changes, and once at the start
/// of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The instance of the config drive.
    pub instance: String,
    /// How far the guest is.
    pub phase: Phase,
    /// Whether the readiness check has passed (or there is none and the command runs).
    pub ready: bool,
    /// The identity that the guest has in its file.
    pub identity: Option<Identity>,
    /// Why the readiness check fails, the last time it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_detail: Option<String>,
    /// What the kernel has killed for lack of memory; an older init does not say.
    #[serde(default, skip_serializing_if = "OomKills::is_empty")]
    pub oom_kills: OomKills,
    /// The answer to the last [`Command::Clock`]. Absent from an init that cannot be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockReading>,
    /// Whether the workload has come, where it is late. Absent where it was on the config drive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<LateWorkload>,
}

/// How far a workload is that comes late.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateWorkload {
    /// The generation of the one that the guest has; `None` while the guest waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The last [`Command::Workload`], where it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedWorkload>,
}

/// A workload that the guest did not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedWorkload {
    /// Its generation.
    pub generation: u64,
    /// Why, as a sentence.
    pub reason: String,
}

/// What a guest's wall clock said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// That of the [`Command::Clock`]; 0 before the first.
    pub ask: u64,
    /// Nanoseconds since 1970 UTC.
    pub now_ns: u64,
}

/// Most processes that [`OomKills`] lists, so that a status drive holds them.
pub const OOM_KILLS_LISTED_MAX: usize = 4;

/// Processes that the guest's kernel has killed for lack of memory, but for the command itself: its
/// end is in [`Exit`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomKills {
    /// How many, since the command was started.
    pub count: u32,
    /// The last of them, oldest first, at most [`OOM_KILLS_LISTED_MAX`].
    pub last: Vec<OomKill>,
}

/// A process that the kernel has killed for lack of memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomKill {
    /// Its number in the guest.
    pub pid: u32,
    /// Its name as the kernel has it: at most 15 bytes of its program's name.
    pub name: String,
}

impl OomKills {
    /// Adds one.
    pub fn add(&mut self, kill: OomKill) {
        self.count = self.count.saturating_add(1);
        if self.last.len() == OOM_KILLS_LISTED_MAX {
            self.last.remove(0);
        }
        self.last.push(kill);
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// How far a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The init is up and the command is held, or its workload has not come.
    Held,
    /// The command runs.
    Running,
    /// The command was told to stop.
    Stopping,
    /// The command has ended; the status drive is written, the reboot is near.
    Ended,
}

/// What the status drive holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The instance of the config drive, so that a stale drive is recognised. Empty where the
    /// config drive could not be read.
    pub instance: String,
    /// How the command ended.
    pub exit: Exit,
    /// Milliseconds from the guest's boot to the end.
    pub uptime_ms: u64,
    /// The last output of the command, for a host that could not read the ring in time. Lossy
    /// UTF-8, cut to what fits on the drive.
    pub tail: String,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// What happened.
    pub ending: Ending,
    /// Whether the host had asked for the stop.
    pub stop_requested: bool,
    /// Whether the command ended by SIGKILL and the kernel's log names it as killed for lack of
    /// memory. An init that does not say `oom_kills` means any process of the guest.
    pub out_of_memory: bool,
    /// What else the kernel has killed for lack of memory; `None` from an older init.
    #[serde(default)]
    pub oom_kills: Option<OomKills>,
}

impl Exit {
    /// An exit that was not requested and in which memory played no part.
    #[must_use]
    pub fn of(ending: Ending) -> Exit {
        let oom_kills = Some(OomKills::default());
        Exit { ending, stop_requested: false, out_of_memory: false, oom_kills }
    }
}

/// What happened to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It exited with this code.
    Code(u8),
    /// It was killed by this signal.
    Signal(u8),
    /// It could not be started; the text is a sentence such as
    /// `/app/bin/server: not found in rootfs-web.ext4`.
    NotStarted(String),
    /// The init could not prepare the guest (a drive, a mount); the text says what.
    SetUp(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T>(value: &T, json: &str)
    where
        T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        assert_eq!(serde_json::to_string(value).expect("JSON"), json);
        assert_eq!(&serde_json::from_str::<T>(json).expect(json), value);
    }

    #[test]
    fn commands_and_reports_keep_their_form() {
        let identity = Identity {
            job_id: "web-1".to_owned(),
            tenant: "prod".to_owned(),
            generation: 3,
            vm_id: "vm-abc".to_owned(),
        };
        check(
            &Command::Identity { identity: identity.clone(), go: true, clock_ns: 5 },
            r#"{"do":"identity","identity":{"job_id":"web-1","tenant":"prod","generation":3,"vm_id":"vm-abc"},"go":true,"clock_ns":5}"#,
        );
        check(
            &Command::Stop { timeout_s: 10, signal: 2 },
            r#"{"do":"stop","timeout_s":10,"signal":2}"#,
        );
        let report = Report {
            instance: "abc".to_owned(),
            phase: Phase::Held,
            ready: false,
            identity: None,
            ready_detail: None,
            oom_kills: OomKills::default(),
            clock: None,
            workload: None,
        };
        check(&report, r#"{"instance":"abc","phase":"held","ready":false,"identity":null}"#);
        let clock = Some(ClockReading { ask: 7, now_ns: 9 });
        check(
            &Report { clock, ..report },
            r#"{"instance":"abc","phase":"held","ready":false,"identity":null,"clock":{"ask":7,"now_ns":9}}"#,
        );
        check(&Command::Clock { ask: 7, ahead_ns: -5 }, r#"{"do":"clock","ask":7,"ahead_ns":-5}"#);
    }

    #[test]
    fn late_workload_keeps_its_form() {
        let workload = Workload {
            cmd: vec!["/bin/web".to_owned()],
            env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
            ready: Some(Ready { check: ReadyCheck::Tcp { port: 80 } }),
        };
        check(
            &Command::Workload { generation: 3, workload },
            r#"{"do":"workload","generation":3,"workload":{"cmd":["/bin/web"],"env":{"A":"b"},"ready":{"check":{"tcp":{"port":80}}}}}"#,
        );
        check(&LateWorkload::default(), "{}");
        let refused = RefusedWorkload { generation: 4, reason: "another".to_owned() };
        check(
            &LateWorkload { generation: Some(3), refused: Some(refused) },
            r#"{"generation":3,"refused":{"generation":4,"reason":"another"}}"#,
        );
    }

    #[test]
    fn hello_and_unsupported_keep_their_form() {
        let hello = Hello { protocol: 2, capabilities: ["x".to_owned()].into() };
        check(
            &Command::Hello(hello.clone()),
            r#"{"do":"hello","protocol":2,"capabilities":["x"]}"#,
        );
        check(&Message::Hello { hello }, r#"{"hello":{"protocol":2,"capabilities":["x"]}}"#);
        let unsupported = Message::Unsupported { unsupported: "dance".to_owned() };
        check(&unsupported, r#"{"unsupported":"dance"}"#);
        let bare = r#"{"do":"hello","protocol":7}"#;
        let Command::Hello(hello) = serde_json::from_str(bare).expect("read") else {
            panic!("another")
        };
        assert_eq!(hello.protocol, 7);
    }

    #[test]
    fn transcript_of_protocol_1_is_read() {
        let (mut commands, mut reports) = (0, 0);
        for line in include_str!("../tests/protocol-1.txt").lines() {
            if let Some(said) = line.strip_prefix("> ") {
                check(&serde_json::from_str::<Command>(said).expect(said), said);
                commands += 1;
            } else if let Some(said) = line.strip_prefix("< ") {
                let message = serde_json::from_str::<Message>(said).expect(said);
                assert!(matches!(message, Message::Report(_)), "{said}");
                check(&message, said);
                reports += 1;
            }
        }
        assert_eq!((commands, reports), (5, 6));
    }

    #[test]
    fn report_lists_the_last_of_the_kills() {
        let mut oom_kills = OomKills::default();
        (1..=6).for_each(|pid| oom_kills.add(OomKill { pid, name: "tail".to_owned() }));
        assert_eq!(oom_kills.count, 6);
        assert_eq!(oom_kills.last.iter().map(|kill| kill.pid).collect::<Vec<_>>(), [3, 4, 5, 6]);
        oom_kills.last.truncate(1);
        let json = r#"{"count":6,"last":[{"pid":3,"name":"tail"}]}"#;
        check(&oom_kills, json);
    }

    #[test]
    fn lines_of_an_older_version_are_read() {
        let stop = serde_json::from_str(r#"{"do":"stop","timeout_s":10}"#).expect("read");
        assert_eq!(Command::Stop { timeout_s: 10, signal: 15 }, stop);
        let line = r#"{"instance":"abc","phase":"running","ready":true,"identity":null}"#;
        let report = serde_json::from_str::<Report>(line).expect("read");
        assert_eq!((report.phase, report.oom_kills.count), (Phase::Running, 0));
    }

    #[test]
    fn endings_keep_their_form() {
        check(&Ending::Code(7), r#"{"code":7}"#);
        check(&Ending::Signal(9), r#"{"signal":9}"#);
        check(&Ending::NotStarted("x".to_owned()), r#"{"not_started":"x"}"#);
        check(&Ending::SetUp("x".to_owned()), r#"{"set_up":"x"}"#);
    }

    #[test]
    fn a_line_with_fields_of_a_later_version_is_read() {
        let line = r#"{"do":"stop","timeout_s":1,"why":"later"}"#;
        let command = serde_json::from_str::<Command>(line).expect("read");
        assert_eq!(command, Command::Stop { timeout_s: 1, signal: 15 });
    }
}
