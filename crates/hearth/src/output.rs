//! Everything that the command line prints. No other module prints.

mod images;
mod log;
mod paint;
mod plan;
mod screen;
mod streams;

use crate::args::{Format, Usage};
use crate::config::{self, ConfigFile, Problems, Resolved, Source};
use crate::ps::status;
use crate::settings::{Kind, SETTINGS, Setting};
use crate::{exit, ps};
use anstream::{AutoStream, ColorChoice};
use hearth_api::{ClientError, Event, Health, Job, LogLine, Readiness, Stats};
use hearth_daemon::doctor::{Finding, Verdict};
use hearth_daemon::{Listen, Restored};
use hearth_desired_file::{Diagnostics, Styling};
use hearth_kernel::Imported;
use hearth_model::text::{plain, plain_json, visible};
pub(crate) use plan::Tense;
pub(crate) use streams::Purpose;

use log::LogText;
use paint::Line;
pub(crate) use paint::{Tone, Word, age, shortened};
use serde::Serialize;
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::Path;
use streams::{Stream, Streams};

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
    streams: Streams,
    /// Lines of a log that are begun.
    log: RefCell<LogText>,
}

impl Output {
    /// Colours go where `choice` says; [`ColorChoice::Auto`] looks at each stream, and at
    /// `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE` and `TERM`.
    pub(crate) fn new(format: Format, choice: ColorChoice, purpose: Purpose) -> Output {
        choice.write_global();
        Output {
            format,
            colour: AutoStream::choice(&io::stdout()) != ColorChoice::Never,
            error_colour: AutoStream::choice(&io::stderr()) != ColorChoice::Never,
            in_stream: Cell::new(false),
            streams: Streams::new(purpose),
            log: RefCell::default(),
        }
    }

    /// The exit code of a command that ends with `code`: lost output is an error whatever it did.
    pub(crate) fn exit_code(&self, code: u8) -> u8 {
        if self.streams.is_whole() { code } else { exit::ERROR }
    }

    /// Whether nothing more can be shown.
    pub(crate) fn is_over(&self) -> bool {
        self.streams.is_over()
    }

    /// Waits until the reader of the output is gone, if that can be known. Cancel safe.
    pub(crate) async fn reader_gone(&self) {
        self.streams.reader_gone().await;
    }

    /// Whether stderr takes colours.
    pub(crate) fn colours_errors(&self) -> bool {
        self.error_colour
    }

    /// Prints a value where programs read; whether it did.
    fn printed<T: Serialize + ?Sized>(&self, value: &T) -> bool {
        match self.format {
            Format::Table | Format::Wide => return false,
            Format::Json => self.exact(&(json_line(value) + "\n")),
            Format::Yaml => {
                if self.in_stream.replace(true) {
                    self.line("---");
                }
                self.exact(&(yaml(value).trim_end().to_owned() + "\n"));
            }
        }
        true
    }

    fn for_programs(&self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    /// A line in the making, for stdout.
    fn begin(&self) -> Line {
        Line::new(self.colour)
    }

    /// A line in the making, for stderr.
    fn begin_remark(&self) -> Line {
        Line::new(self.error_colour)
    }

    /// Prints a line on stdout.
    fn print(&self, line: &Line) {
        self.exact(&format!("{line}\n"));
    }

    fn line(&self, text: impl Display) {
        self.print(&self.begin().text(text));
    }

    /// Prints on stdout what is fit for it as it is.
    fn exact(&self, text: &str) {
        self.write(Stream::Stdout, text.as_bytes());
    }

    fn write(&self, stream: Stream, bytes: &[u8]) {
        if let Err(lost) = self.streams.write(stream, bytes) {
            self.error(&lost.into());
        }
    }

    /// Prints a line on stderr.
    fn remark(&self, line: &Line) {
        self.streams.remark(format!("{line}\n").as_bytes());
    }

    fn rows<const N: usize>(&self, header: [&str; N], rows: impl Iterator<Item = [Word; N]>) {
        for text in paint::table(header, rows, self.colour) {
            self.exact(&(text + "\n"));
        }
    }

    /// The help, the version, or what is wrong with a command line.
    pub(crate) fn usage(&self, usage: &Usage) {
        let colour = if usage.is_asked_for { self.colour } else { self.error_colour };
        let text = match &usage.styled {
            Some(styled) if colour => styled.into(),
            _ => plain(&usage.bare),
        };
        match usage.is_asked_for {
            true => self.exact(&text),
            false => self.streams.remark(text.as_bytes()),
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
            return self.remark(&self.begin_remark().text(json_line(&json)));
        }
        let causes = error.chain().skip(1);
        let line = self.begin_remark().toned("hearth:", Tone::Bad).text(format_args!(" {error}"));
        self.remark(&causes.fold(line, |line, cause| line.text(format_args!(": {cause}"))));
        if let Some(help) = help_for(error) {
            self.remark(&self.begin_remark().text(help));
        }
    }

    fn problems(&self, problems: &Problems) {
        if self.for_programs() {
            let in_file = problems.file.as_ref().map(file_problems);
            let variables = &problems.variables;
            let all =
                json!({ "error": problems.to_string(), "file": in_file, "variables": variables });
            return self.remark(&self.begin_remark().text(json_line(&all)));
        }
        if let Some(file) = &problems.file {
            self.drawn(&file.render(self.error_colour));
            self.remark(&self.begin_remark());
        }
        let problem = |word: &str, sentence: &dyn Display| {
            let line = self.begin_remark().toned(word, Tone::Bad);
            self.remark(&line.text(format_args!(" {sentence}")));
        };
        problems.variables.iter().for_each(|sentence| problem("error:", sentence));
        problem("hearth:", problems);
    }

    /// A drawing of problems, which has its colours.
    fn drawn(&self, drawing: &str) {
        let drawing = if self.error_colour { visible(drawing) } else { plain(drawing) };
        self.streams.remark(format!("{}\n", drawing.trim_end()).as_bytes());
    }

    /// What `hearth config check` found.
    pub(crate) fn checked(&self, file: &ConfigFile) {
        if self.printed(&file_problems(file)) {
            return;
        }
        let label = file.path.display();
        if file.problems.is_empty() {
            let count = counted(file.count(), "setting");
            return self.line(format_args!("{label}: {count}, no problems"));
        }
        self.drawn(&file.render(self.error_colour));
        let problems = counted(file.problems.len() + file.omitted, "problem");
        self.remark(&self.begin_remark().text(format_args!("\nhearth: {label} has {problems}")));
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
        self.remark(&self.begin_remark().text(format_args!("hearth: {text}")));
    }

    /// The final output of a command that ends at once, whatever else it is about to print.
    pub(crate) fn final_remark(text: &str) {
        Streams::new(Purpose::Result).remark(format!("hearth: {}\n", plain(text)).as_bytes());
    }

    /// What is waited for, for somebody who watches.
    pub(crate) fn waiting(&self, text: &str) {
        if io::stderr().is_terminal() {
            self.note(text);
        }
    }

    pub(crate) fn serving(&self, address: &Listen, host: &str) {
        self.line(format_args!("hearth: listening on {address} ({host})"));
    }

    pub(crate) fn ended(&self) {
        self.line("hearth: ended; microVMs keep running, the next `hearth serve` takes them over");
    }

    /// A shell's script, as it is.
    pub(crate) fn script(&self, script: &[u8]) {
        self.write(Stream::Stdout, script);
    }

    pub(crate) fn manual(&self, directory: &Path) {
        if !self.printed(&json!({ "directory": directory })) {
            self.line(format_args!(
                "the manual is in {0}; man -l {0}/hearth.1 shows it",
                directory.display()
            ));
        }
    }

    pub(crate) fn valid(&self, label: &str, jobs: usize) {
        if !self.printed(&json!({ "file": label, "jobs": jobs, "problems": [] })) {
            let noun = if jobs == 1 { "job" } else { "jobs" };
            self.line(format_args!("{label}: {jobs} {noun}, no problems"));
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
        self.drawn(&diagnostics.render(styling));
    }

    /// A file's text: as it is, but on a terminal.
    pub(crate) fn text(&self, text: &str) {
        let text = format!("{}\n", text.trim_end_matches('\n'));
        self.exact(&if io::stdout().is_terminal() { plain(&text) } else { text.into() });
    }

    pub(crate) fn converted(&self, label: &str, path: &Path, jobs: usize) {
        let path = path.display().to_string();
        if !self.printed(&json!({ "file": label, "jobs": jobs, "into": path })) {
            let noun = if jobs == 1 { "job" } else { "jobs" };
            self.line(format_args!("{label}: {jobs} {noun} written to {path}"));
        }
    }

    pub(crate) fn imported(&self, imported: &Imported) {
        let Imported { kernel, modules, version } = imported;
        if !self.printed(&json!({ "version": version, "kernel": kernel, "modules": modules })) {
            self.line(format_args!(
                "imported Linux {version} as {} with its modules in {}",
                kernel.display(),
                modules.display()
            ));
        }
    }

    pub(crate) fn backed_up(&self, file: &Path, jobs: usize) {
        if !self.printed(&json!({ "file": file, "jobs": jobs })) {
            self.line(format_args!("{}: a backup of {}", file.display(), counted(jobs, "job")));
        }
    }

    pub(crate) fn restored(&self, file: &Path, restored: &Restored) {
        let Restored { contents, replaced } = restored;
        let shown = json!({ "file": file, "jobs": contents.jobs, "replaced": replaced });
        if self.printed(&shown) {
            return;
        }
        self.line(format_args!(
            "restored {} from {}",
            counted(contents.jobs, "job"),
            file.display()
        ));
        if let Some(replaced) = replaced {
            self.line(format_args!("the previous database is {}", replaced.display()));
        }
    }

    /// What `hearth doctor` found, with what it does about it, or could.
    pub(crate) fn findings(&self, findings: &[Finding], repairs: bool) {
        let word = |finding: &Finding| match finding.verdict {
            Verdict::Good => ("ok", Tone::Good),
            Verdict::Warn => ("warn", Tone::Busy),
            Verdict::Bad => ("bad", Tone::Bad),
        };
        if self.for_programs() {
            let all: Vec<_> = findings
                .iter()
                .map(|finding| {
                    json!({ "about": finding.about, "verdict": word(finding).0,
                            "finding": finding.sentence, "repair": finding.repair() })
                })
                .collect();
            self.printed(&all);
            return;
        }
        for finding in findings {
            let (word, tone) = word(finding);
            let about = finding.about;
            let line = self.begin().toned(format_args!("{word:<4}"), tone);
            self.print(&line.text(format_args!(" {about:<9} {}", finding.sentence)));
            match finding.repair() {
                Some(repair) if repairs => {
                    self.line(format_args!("{:>14} repairing: {repair}", ""));
                }
                Some(repair) => self.line(format_args!("{:>14} --repair would {repair}", "")),
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
            self.print(&self.begin().toned(failure, Tone::Bad));
        }
        self.line(format_args!("repaired {}", counted(done, "thing")));
    }

    pub(crate) fn jobs(&self, jobs: &[Job]) {
        if self.printed(jobs) {
            return;
        }
        if jobs.is_empty() {
            return self.note("there are no jobs");
        }
        let now = jiff::Timestamp::now();
        match self.format {
            Format::Wide => self.rows(ps::WIDE, jobs.iter().map(|job| ps::wide(job, now))),
            _ => self.rows(ps::NARROW, jobs.iter().map(|job| ps::narrow(job, now))),
        }
    }

    pub(crate) fn job(&self, job: &Job, events: &[Event]) {
        if self.printed(job) {
            return;
        }
        let spec = serde_json::to_string_pretty(&job.spec).unwrap_or_default();
        let of_status = Tone::of_status(job.status);
        let fields = [
            ("job", job.job_id.clone(), Tone::Plain),
            ("tenant", job.tenant.clone(), Tone::Plain),
            ("status", status(job), of_status),
            ("reason", or_dash(job.reason.as_deref()), Tone::Plain),
            ("since", job.since.clone(), Tone::Plain),
            ("vm", or_dash(job.vm_id.as_deref()), Tone::Plain),
            ("generation", job.generation.to_string(), Tone::Plain),
            ("exit code", job.exit_code.map_or_else(|| "-".into(), |c| c.to_string()), Tone::Plain),
            ("exit", job.exit.map_or_else(|| "-".into(), |exit| exit.to_string()), Tone::Plain),
        ];
        for (name, value, tone) in fields {
            self.print(&self.begin().text(format_args!("{name:<11} ")).toned(value, tone));
        }
        self.line(format_args!("spec        {}", spec.replace('\n', "\n            ")));
        if !events.is_empty() {
            self.line("events");
            for event in events {
                let line = self.begin().text(format_args!("  {}  ", event.at));
                self.print(&line.toned(&event.message, Tone::of_event(event.kind)));
            }
        }
    }

    pub(crate) fn stats(&self, stats: &Stats) {
        if self.printed(stats) {
            return;
        }
        let summary = stats.summary;
        let noun = if summary.total_jobs == 1 { "job" } else { "jobs" };
        self.line(format_args!("{} {noun}, {} warm\n", summary.total_jobs, summary.total_warm));
        self.jobs(&stats.jobs);
        if !stats.warm_pool.is_empty() {
            self.line("");
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
            self.line(format_args!("unidentified: {}", sentence));
        }
    }

    pub(crate) fn events(&self, events: &[Event]) {
        if self.printed(events) {
            return;
        }
        if self.format == Format::Wide {
            let number = |number: Option<u64>| number.map_or("-".to_owned(), |n| n.to_string());
            return self.rows(
                ["ID", "AT", "JOB", "VM", "GEN", "CALLER", "KIND", "MESSAGE"],
                events.iter().map(|event| {
                    let [at, job, vm, kind, message] = event_words(event);
                    [
                        event.id.to_string().into(),
                        at,
                        job,
                        vm,
                        number(event.generation).into(),
                        event.caller.map_or_else(|| "-".to_owned(), |who| who.to_string()).into(),
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
        let line = self.begin().text(format_args!("{}  {job}  ", event.at));
        let line = line.toned(event.kind, Tone::of_event(event.kind));
        self.print(&line.text(format_args!("  {}", event.message)));
    }

    /// Events that can't be shown any more.
    pub(crate) fn lost(&self, sentence: &str) {
        let line = self.begin_remark().toned("hearth:", Tone::Bad);
        self.remark(&line.text(format_args!(" {sentence}")));
    }

    /// A job that was just changed.
    pub(crate) fn changed(&self, job: &Job) {
        if self.printed(job) {
            return;
        }
        let reason = job.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let line = self.begin().text(format_args!("{} ", job.job_id));
        self.print(&line.toned(job.status, Tone::of_status(job.status)).text(reason));
    }

    pub(crate) fn removed(&self, job: &str) {
        if !self.printed(&json!({ "job_id": job, "gone": true })) {
            self.line(format_args!("{job} deleted"));
        }
    }

    pub(crate) fn going(&self, job: &str) {
        if !self.printed(&json!({ "job_id": job, "gone": false })) {
            self.line(format_args!("{job} stopping; it is deleted once it has stopped"));
        }
    }

    /// A record of a job's output: its stderr to stderr.
    pub(crate) fn log_line(&self, log: &LogLine) {
        if self.printed(log) {
            return;
        }
        let terminals = [io::stdout().is_terminal(), io::stderr().is_terminal()];
        let text = self.log.borrow_mut().next(log, terminals);
        let stream = if log.stream == "stdout" { Stream::Stdout } else { Stream::Stderr };
        self.write(stream, text.as_bytes());
    }

    pub(crate) fn ended_without_code(&self, job: &Job) {
        let reason = job.reason.as_deref().unwrap_or("no reason is known");
        self.note(&format!("job {} is {}: {reason}", job.job_id, job.status));
    }

    pub(crate) fn forwarding(&self, local: SocketAddr, job: &str, guest: u16) {
        let printed = self
            .printed(&json!({ "local": local.to_string(), "job_id": job, "guest_port": guest }));
        if !printed {
            self.line(format_args!("forwarding {local} to port {guest} of {job}; Ctrl-C ends it"));
        }
    }

    pub(crate) fn version(&self, daemon: Option<&Health>, ready: Option<&Readiness>) {
        let own = env!("CARGO_PKG_VERSION");
        if self.printed(&json!({ "hearth": own, "daemon": daemon, "ready": ready })) {
            return;
        }
        self.line(format_args!("hearth {own}"));
        match daemon {
            Some(health) => self.line(format_args!("daemon {}", health.version)),
            None => self.line("daemon: none answers"),
        }
        if let Some(ready) = ready {
            self.line(format_args!("host   {}", ready.host));
            for warning in &ready.warnings {
                self.line(format_args!("       {}", warning));
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

/// A value as JSON on one line.
fn json_line<T: Serialize + ?Sized>(value: &T) -> String {
    plain_json(&serde_json::to_string(value).unwrap_or_default()).into_owned()
}

/// A value as a YAML document: as JSON, which is YAML, where it has characters that are not seen.
fn yaml<T: Serialize + ?Sized>(value: &T) -> String {
    let yaml = serde_saphyr::to_string(&value).unwrap_or_default();
    if plain(&yaml) == yaml { yaml } else { json_line(value) }
}

fn event_words(event: &Event) -> [Word; 5] {
    let tone = Tone::of_event(event.kind);
    [
        event.at.as_str().into(),
        or_dash(event.job_id.as_deref()).into(),
        or_dash(event.instance.as_deref()).into(),
        Word::toned(event.kind.as_str(), tone),
        Word::toned(event.message.as_str(), tone),
    ]
}

pub(crate) fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}
