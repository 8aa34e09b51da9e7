//! Everything that the command line prints. No other module prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod paint;
mod plan;
mod screen;

use crate::args::Format;
use crate::config::{self, ConfigFile, Problems, Resolved, Source};
use crate::settings::{Kind, SETTINGS, Setting};
use anstream::{AutoStream, ColorChoice};
use hearth_api::{ClientError, Event, Health, Job, LogLine, Problem, Readiness, Stats};
use hearth_daemon::doctor::{Finding, Verdict};
use hearth_daemon::{Listen, Restored};
use hearth_kernel::Imported;
use hearth_manifest::{Diagnostics, Styling};
pub(crate) use plan::Tense;

use paint::{Tone, Word, age, painted, plain, shortened};
use serde::Serialize;
use serde_json::json;
use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;

/// Prints in one format.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    /// Whether stdout takes colours.
    colour: bool,
    /// Whether stderr does.
    error_colour: bool,
    /// Whether a YAML document was printed, so that the next begins with a line of its own.
    in_stream: Cell<bool>,
}

impl Output {
    /// Colours go where `choice` says; [`ColorChoice::Auto`] looks at each stream, and at
    /// `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE` and `TERM`.
    pub(crate) fn new(format: Format, choice: ColorChoice) -> Output {
        choice.write_global();
        Output {
            format,
            colour: AutoStream::choice(&io::stdout()) != ColorChoice::Never,
            error_colour: AutoStream::choice(&io::stderr()) != ColorChoice::Never,
            in_stream: Cell::new(false),
        }
    }

    /// Whether stderr takes colours.
    pub(crate) fn colours_errors(&self) -> bool {
        self.error_colour
    }

    /// Prints a value where programs read; whether it did.
    fn printed<T: Serialize + ?Sized>(&self, value: &T) -> bool {
        match self.format {
            Format::Table | Format::Wide => return false,
            Format::Json => line(&serde_json::to_string(value).unwrap_or_default()),
            Format::Yaml => {
                if self.in_stream.replace(true) {
                    line("---");
                }
                line(serde_saphyr::to_string(&value).unwrap_or_default().trim_end());
            }
        }
        true
    }

    fn for_programs(&self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    fn painted(&self, text: &str, tone: Tone) -> String {
        painted(text, tone, self.colour)
    }

    fn rows<const N: usize>(&self, header: [&str; N], rows: impl Iterator<Item = [Word; N]>) {
        for text in paint::table(header, rows, self.colour) {
            line(&text);
        }
    }

    /// An error with its causes, and what the daemon said of it.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        if let Some(problems) = error.downcast_ref::<Problems>() {
            return self.problems(problems);
        }
        if self.for_programs() {
            let problem = error.downcast_ref::<ClientError>().and_then(ClientError::problem);
            let json = match problem {
                Some(problem) => json!({ "error": format!("{error}"), "problem": problem }),
                None => json!({ "error": format!("{error:#}"), "help": help_for(error) }),
            };
            eprintln!("{json}");
            return;
        }
        eprint!("{} {error}", painted("hearth:", Tone::Bad, self.error_colour));
        for cause in error.chain().skip(1) {
            match cause.downcast_ref::<Problem>() {
                Some(problem) => eprint!(": {}", plain(&problem.to_string())),
                None => eprint!(": {}", plain(&cause.to_string())),
            }
        }
        eprintln!();
        if let Some(help) = help_for(error) {
            eprintln!("{help}");
        }
    }

    fn problems(&self, problems: &Problems) {
        if self.for_programs() {
            let in_file = problems.file.as_ref().map(file_problems);
            let variables = &problems.variables;
            eprintln!(
                "{}",
                json!({ "error": problems.to_string(), "file": in_file, "variables": variables })
            );
            return;
        }
        if let Some(file) = &problems.file {
            eprintln!("{}\n", file.render(self.error_colour));
        }
        for problem in &problems.variables {
            eprintln!("{} {}", painted("error:", Tone::Bad, self.error_colour), plain(problem));
        }
        eprintln!("{} {problems}", painted("hearth:", Tone::Bad, self.error_colour));
    }

    /// What `hearth config check` found.
    pub(crate) fn checked(&self, file: &ConfigFile) {
        if self.printed(&file_problems(file)) {
            return;
        }
        let label = file.path.display();
        if file.problems.is_empty() {
            return line(&format!("{label}: {}, no problems", counted(file.count(), "setting")));
        }
        eprintln!("{}\n", file.render(self.error_colour));
        eprintln!("hearth: {label} has {}", counted(file.problems.len() + file.omitted, "problem"));
    }

    /// What `hearth config show` found.
    pub(crate) fn settings(&self, resolved: &Resolved) {
        let rows = SETTINGS.iter().zip(&resolved.sources);
        let value = |setting: &Setting| setting.value(&resolved.settings);
        if self.for_programs() {
            let settings: Vec<_> = rows
                .map(|(setting, source)| {
                    json!({
                        "setting": setting.key,
                        "value": typed(setting, &value(setting)),
                        "from": source.to_string(),
                        "flag": setting.flag(),
                        "variable": setting.variable(),
                    })
                })
                .collect();
            self.printed(&json!({ "file": resolved.file, "settings": settings }));
            return;
        }
        let words = |setting: &Setting, source: &Source| {
            [setting.key.into(), value(setting).into(), Word::from(source.to_string())]
        };
        if self.format == Format::Wide {
            let rows = rows.map(|(setting, source)| {
                let [key, value, from] = words(setting, source);
                [key, value, from, setting.flag().into(), setting.variable().into()]
            });
            return self.rows(["SETTING", "VALUE", "FROM", "FLAG", "VARIABLE"], rows);
        }
        self.rows(
            ["SETTING", "VALUE", "FROM"],
            rows.map(|(setting, source)| words(setting, source)),
        );
    }

    /// Something that is good to know.
    pub(crate) fn note(&self, text: &str) {
        eprintln!("hearth: {text}");
    }

    /// What is waited for, for somebody who watches.
    pub(crate) fn waiting(&self, text: &str) {
        if io::stderr().is_terminal() {
            self.note(&plain(text));
        }
    }

    pub(crate) fn serving(&self, address: &Listen, host: &str) {
        line(&format!("hearth: listening on {address} ({host})"));
    }

    pub(crate) fn ended(&self) {
        line("hearth: ended; microVMs keep running, the next `hearth serve` takes them over");
    }

    /// A shell's script, as it is.
    pub(crate) fn script(&self, script: &[u8]) {
        if io::stdout().write_all(script).is_err() {
            std::process::exit(0);
        }
    }

    pub(crate) fn manual(&self, directory: &Path) {
        if !self.printed(&json!({ "directory": directory })) {
            line(&format!(
                "the manual is in {0}; man -l {0}/hearth.1 shows it",
                directory.display()
            ));
        }
    }

    pub(crate) fn valid(&self, label: &str, jobs: usize) {
        if !self.printed(&json!({ "file": label, "jobs": jobs, "problems": [] })) {
            let noun = if jobs == 1 { "job" } else { "jobs" };
            line(&format!("{label}: {jobs} {noun}, no problems"));
        }
    }

    pub(crate) fn invalid(&self, diagnostics: &Diagnostics) {
        if self.for_programs() {
            let problems: Vec<_> = diagnostics
                .iter()
                .map(|problem| {
                    json!({
                        "line": problem.line,
                        "column": problem.column,
                        "end_column": problem.end_column,
                        "message": problem.message,
                        "help": problem.help,
                        "pointer": problem.pointer,
                    })
                })
                .collect();
            let omitted = diagnostics.omitted();
            let file = diagnostics.label();
            self.printed(&json!({ "file": file, "problems": problems, "omitted": omitted }));
            return;
        }
        let colour = self.error_colour;
        let styling = if colour { Styling::Ansi } else { Styling::Plain };
        eprintln!("{}", diagnostics.render(styling).trim_end());
    }

    /// A file's text, as it is.
    pub(crate) fn text(&self, text: &str) {
        line(text.trim_end_matches('\n'));
    }

    pub(crate) fn converted(&self, label: &str, path: &Path, jobs: usize) {
        let path = path.display().to_string();
        if !self.printed(&json!({ "file": label, "jobs": jobs, "into": path })) {
            let noun = if jobs == 1 { "job" } else { "jobs" };
            line(&format!("{label}: {jobs} {noun} written to {path}"));
        }
    }

    pub(crate) fn imported(&self, imported: &Imported) {
        let Imported { kernel, modules, version } = imported;
        if !self.printed(&json!({ "version": version, "kernel": kernel, "modules": modules })) {
            line(&format!(
                "imported Linux {version} as {} with its modules in {}",
                kernel.display(),
                modules.display()
            ));
        }
    }

    pub(crate) fn backed_up(&self, file: &Path, jobs: usize) {
        if !self.printed(&json!({ "file": file, "jobs": jobs })) {
            line(&format!("{}: a backup of {}", file.display(), counted(jobs, "job")));
        }
    }

    pub(crate) fn restored(&self, file: &Path, restored: &Restored) {
        let Restored { contents, replaced } = restored;
        let shown = json!({ "file": file, "jobs": contents.jobs, "replaced": replaced });
        if self.printed(&shown) {
            return;
        }
        line(&format!("restored {} from {}", counted(contents.jobs, "job"), file.display()));
        if let Some(replaced) = replaced {
            line(&format!("the database of before is {}", replaced.display()));
        }
    }

    /// What `hearth doctor` found, with what it does about it, or could.
    pub(crate) fn findings(&self, findings: &[Finding], repairs: bool) {
        let word = |finding: &Finding| match finding.verdict {
            Verdict::Good => ("ok", Tone::Good),
            Verdict::Odd => ("odd", Tone::Busy),
            Verdict::Bad => ("bad", Tone::Bad),
        };
        if self.for_programs() {
            let all: Vec<_> = findings
                .iter()
                .map(|finding| {
                    json!({ "about": finding.about, "verdict": word(finding).0,
                            "finding": finding.sentence, "repair": finding.mend() })
                })
                .collect();
            self.printed(&all);
            return;
        }
        for finding in findings {
            let (word, tone) = word(finding);
            let about = finding.about;
            line(&format!(
                "{} {about:<9} {}",
                self.painted(&format!("{word:<4}"), tone),
                plain(&finding.sentence)
            ));
            match finding.mend() {
                Some(mend) if repairs => line(&format!("{:>14} repairing: {mend}", "")),
                Some(mend) => line(&format!("{:>14} --repair would {mend}", "")),
                None => {}
            }
        }
    }

    /// What `hearth doctor --repair` did.
    pub(crate) fn repaired(&self, done: usize, failures: &[String]) {
        if self.for_programs() {
            self.printed(&json!({ "repaired": done, "failures": failures }));
            return;
        }
        for failure in failures {
            line(&self.painted(&plain(failure), Tone::Bad));
        }
        line(&format!("repaired {}", counted(done, "thing")));
    }

    pub(crate) fn jobs(&self, jobs: &[Job]) {
        if self.printed(jobs) {
            return;
        }
        if jobs.is_empty() {
            return self.note("there are no jobs");
        }
        let now = jiff::Timestamp::now();
        if self.format == Format::Wide {
            let header = [
                "JOB",
                "TENANT",
                "LIFECYCLE",
                "STATUS",
                "AGE",
                "VM",
                "GEN",
                "SINCE",
                "ROOTFS",
                "KERNEL",
                "VCPU",
                "MEM",
                "REASON",
            ];
            return self.rows(header, jobs.iter().map(|job| wide(job, now)));
        }
        let narrow = |job: &Job| {
            [
                job.job_id.as_str().into(),
                job.tenant.as_str().into(),
                text_of(job, "lifecycle").into(),
                Word::toned(status(job), Tone::of_status(job.status)),
                age(&job.since, now).into(),
                or_dash(job.vm_id.as_deref()).into(),
                shortened(job.reason.as_deref().unwrap_or_default()).into(),
            ]
        };
        let header = ["JOB", "TENANT", "LIFECYCLE", "STATUS", "AGE", "VM", "REASON"];
        self.rows(header, jobs.iter().map(narrow));
    }

    pub(crate) fn job(&self, job: &Job, events: &[Event]) {
        if self.printed(job) {
            return;
        }
        let spec = serde_json::to_string_pretty(&job.spec).unwrap_or_default();
        let status = self.painted(&status(job), Tone::of_status(job.status));
        let fields = [
            ("job", plain(&job.job_id)),
            ("tenant", plain(&job.tenant)),
            ("status", status),
            ("reason", plain(&or_dash(job.reason.as_deref()))),
            ("since", plain(&job.since)),
            ("vm", plain(&or_dash(job.vm_id.as_deref()))),
            ("generation", job.generation.to_string()),
            ("exit code", job.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string())),
        ];
        for (name, value) in fields {
            line(&format!("{name:<11} {value}"));
        }
        line(&format!("spec        {}", spec.replace('\n', "\n            ")));
        if !events.is_empty() {
            line("events");
            for event in events {
                let message = self.painted(&plain(&event.message), Tone::of_event(&event.kind));
                line(&format!("  {}  {message}", event.at));
            }
        }
    }

    pub(crate) fn stats(&self, stats: &Stats) {
        if self.printed(stats) {
            return;
        }
        let summary = stats.summary;
        let noun = if summary.total_jobs == 1 { "job" } else { "jobs" };
        line(&format!("{} {noun}, {} warm\n", summary.total_jobs, summary.total_warm));
        self.jobs(&stats.jobs);
        if !stats.warm_pool.is_empty() {
            line("");
            self.rows(
                ["SPEC", "VM", "STATUS", "ROOTFS", "REASON"],
                stats.warm_pool.iter().map(|warm| {
                    let reason = warm.reason.as_deref().unwrap_or_default();
                    [
                        warm.spec_hash.as_str().into(),
                        warm.vm_id.as_str().into(),
                        Word::toned(warm.status.as_str(), Tone::of_warm(&warm.status)),
                        warm.spec["rootfs"].as_str().unwrap_or("-").into(),
                        if self.format == Format::Wide {
                            reason.into()
                        } else {
                            shortened(reason).into()
                        },
                    ]
                }),
            );
        }
        for sentence in &stats.unidentified {
            line(&format!("unidentified: {}", plain(sentence)));
        }
    }

    pub(crate) fn events(&self, events: &[Event]) {
        if self.printed(events) {
            return;
        }
        if self.format == Format::Wide {
            let number = |number: Option<u64>| number.map_or("-".to_owned(), |n| n.to_string());
            return self.rows(
                ["ID", "AT", "JOB", "VM", "GEN", "KIND", "MESSAGE"],
                events.iter().map(|event| {
                    let [at, job, vm, kind, message] = event_words(event);
                    [
                        event.id.to_string().into(),
                        at,
                        job,
                        vm,
                        number(event.generation).into(),
                        kind,
                        message,
                    ]
                }),
            );
        }
        self.rows(["AT", "JOB", "VM", "KIND", "MESSAGE"], events.iter().map(event_words));
    }

    /// An event that has just happened: one line, since those to come are not known.
    pub(crate) fn event(&self, event: &Event) {
        if self.printed(event) {
            return;
        }
        let job = event.job_id.as_deref().unwrap_or("-");
        let kind = self.painted(&event.kind, Tone::of_event(&event.kind));
        line(&format!("{}  {job}  {kind}  {}", event.at, plain(&event.message)));
    }

    /// Events that can't be shown any more.
    pub(crate) fn lost(&self, sentence: &str) {
        eprintln!("{} {}", painted("hearth:", Tone::Bad, self.error_colour), plain(sentence));
    }

    /// A job that was just changed.
    pub(crate) fn changed(&self, job: &Job) {
        if self.printed(job) {
            return;
        }
        let reason = job.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let status = self.painted(job.status.as_str(), Tone::of_status(job.status));
        line(&format!("{} {status}{}", job.job_id, plain(&reason)));
    }

    pub(crate) fn removed(&self, job: &str) {
        if !self.printed(&json!({ "job_id": job, "gone": true })) {
            line(&format!("{job} deleted"));
        }
    }

    pub(crate) fn going(&self, job: &str) {
        if !self.printed(&json!({ "job_id": job, "gone": false })) {
            line(&format!("{job} stopping; it is deleted once it has stopped"));
        }
    }

    /// A line of a job's output: its stderr to stderr. On a terminal control characters are shown
    /// as what they are, since a guest must not drive the user's terminal.
    pub(crate) fn log_line(&self, log: &LogLine) {
        if self.printed(log) {
            return;
        }
        if log.stream == "stdout" {
            let text = if io::stdout().is_terminal() { plain(&log.text) } else { log.text.clone() };
            line(&text);
        } else {
            let text = if io::stderr().is_terminal() { plain(&log.text) } else { log.text.clone() };
            eprintln!("{text}");
        }
    }

    pub(crate) fn ended_without_code(&self, job: &Job) {
        let reason = job.reason.as_deref().unwrap_or("no reason is known");
        eprintln!("hearth: job {} is {}: {}", job.job_id, job.status, plain(reason));
    }

    pub(crate) fn forwarding(&self, local: SocketAddr, job: &str, guest: u16) {
        let printed = self
            .printed(&json!({ "local": local.to_string(), "job_id": job, "guest_port": guest }));
        if !printed {
            line(&format!("forwarding {local} to port {guest} of {job}; Ctrl-C ends it"));
        }
    }

    pub(crate) fn version(&self, daemon: Option<&Health>, ready: Option<&Readiness>) {
        let own = env!("CARGO_PKG_VERSION");
        if self.printed(&json!({ "hearth": own, "daemon": daemon, "ready": ready })) {
            return;
        }
        line(&format!("hearth {own}"));
        match daemon {
            Some(health) => line(&format!("daemon {}", plain(&health.version))),
            None => line("daemon: none answers"),
        }
        if let Some(ready) = ready {
            line(&format!("host   {}", plain(&ready.host)));
            for warning in &ready.warnings {
                line(&format!("       {}", plain(warning)));
            }
        }
    }
}

fn file_problems(file: &ConfigFile) -> serde_json::Value {
    let problem = |problem: &config::Problem| {
        json!({
            "line": problem.line,
            "column": problem.column,
            "message": problem.message,
            "help": problem.help,
        })
    };
    let problems: Vec<_> = file.problems.iter().map(problem).collect();
    let omitted = file.omitted;
    json!({ "file": file.path, "settings": file.count(), "problems": problems, "omitted": omitted })
}

/// The value of a setting as JSON writes it.
fn typed(setting: &Setting, value: &str) -> serde_json::Value {
    match setting.kind {
        Kind::Number | Kind::Switch => value.parse().unwrap_or_else(|_| value.into()),
        Kind::Text | Kind::Path | Kind::Choice(_) => value.into(),
    }
}

/// What to do about an error that does not say so itself.
fn help_for(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref::<ClientError>()? {
        ClientError::Connect { .. } => Some(
            "is it running? start it with `hearth serve`, or name another by --url or HEARTH_URL",
        ),
        _ => None,
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A line on stdout. Whoever closes the pipe has seen enough.
fn line(text: &str) {
    if writeln!(io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

fn wide(job: &Job, now: jiff::Timestamp) -> [Word; 13] {
    let number =
        |value: &serde_json::Value| value.as_u64().map_or("-".to_owned(), |n| n.to_string());
    [
        job.job_id.as_str().into(),
        job.tenant.as_str().into(),
        text_of(job, "lifecycle").into(),
        Word::toned(status(job), Tone::of_status(job.status)),
        age(&job.since, now).into(),
        or_dash(job.vm_id.as_deref()).into(),
        job.generation.to_string().into(),
        job.since.as_str().into(),
        text_of(job, "rootfs").into(),
        text_of(job, "kernel").into(),
        number(&job.spec["resources"]["vcpu"]).into(),
        number(&job.spec["resources"]["mem_mb"]).into(),
        job.reason.as_deref().unwrap_or_default().into(),
    ]
}

fn event_words(event: &Event) -> [Word; 5] {
    let tone = Tone::of_event(&event.kind);
    [
        event.at.as_str().into(),
        or_dash(event.job_id.as_deref()).into(),
        or_dash(event.instance.as_deref()).into(),
        Word::toned(event.kind.as_str(), tone),
        Word::toned(event.message.as_str(), tone),
    ]
}

fn status(job: &Job) -> String {
    match (job.status.is_final(), job.exit_code) {
        (true, Some(code)) if code != 0 => format!("{} ({code})", job.status),
        _ => job.status.to_string(),
    }
}

fn text_of(job: &Job, field: &str) -> String {
    or_dash(job.spec[field].as_str())
}

fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}
