//! Everything that the command line prints. No other module prints.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use crate::args::Format;
use comfy_table::{ContentArrangement, Table, presets};
use hearth_api::{ClientError, Event, Health, Job, LogLine, Problem, Readiness, Stats};
use hearth_daemon::Listen;
use hearth_kernel::Imported;
use hearth_manifest::{Diagnostics, Styling};
use serde::Serialize;
use serde_json::json;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;

/// Prints in one format.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) fn new(format: Format) -> Output {
        Output { format }
    }

    /// An error with its causes, and what the daemon said of it.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        if self.format == Format::Json {
            let problem = error.downcast_ref::<ClientError>().and_then(ClientError::problem);
            let json = match problem {
                Some(problem) => json!({ "error": format!("{error}"), "problem": problem }),
                None => json!({ "error": format!("{error:#}") }),
            };
            eprintln!("{json}");
            return;
        }
        eprint!("hearth: {error}");
        for cause in error.chain().skip(1) {
            match cause.downcast_ref::<Problem>() {
                Some(problem) => eprint!(": {}", plain(&problem.to_string())),
                None => eprint!(": {}", plain(&cause.to_string())),
            }
        }
        eprintln!();
        if let Some(ClientError::Connect { .. }) = error.downcast_ref::<ClientError>() {
            eprintln!(
                "is it running? start it with `hearth serve`, or name another by --url or HEARTH_URL"
            );
        }
    }

    /// Something that is good to know.
    pub(crate) fn note(&self, text: &str) {
        eprintln!("hearth: {text}");
    }

    pub(crate) fn serving(&self, address: &Listen, host: &str) {
        line(&format!("hearth: listening on {address} ({host})"));
    }

    pub(crate) fn ended(&self) {
        line("hearth: ended; microVMs keep running, the next `hearth serve` takes them over");
    }

    pub(crate) fn valid(&self, label: &str, jobs: usize) {
        match self.format {
            Format::Json => json_line(&json!({ "file": label, "jobs": jobs, "problems": [] })),
            _ => {
                let noun = if jobs == 1 { "job" } else { "jobs" };
                line(&format!("{label}: {jobs} {noun}, no problems"));
            }
        }
    }

    pub(crate) fn invalid(&self, diagnostics: &Diagnostics) {
        if self.format == Format::Json {
            let problems: Vec<_> = diagnostics
                .iter()
                .map(|problem| {
                    json!({
                        "line": problem.line,
                        "column": problem.column,
                        "message": problem.message,
                        "help": problem.help,
                    })
                })
                .collect();
            let omitted = diagnostics.omitted();
            let file = diagnostics.label();
            return json_line(&json!({ "file": file, "problems": problems, "omitted": omitted }));
        }
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let styling = if colour { Styling::Ansi } else { Styling::Plain };
        eprintln!("{}", diagnostics.render(styling).trim_end());
        let count = diagnostics.count();
        let noun = if count == 1 { "problem" } else { "problems" };
        eprintln!("\nhearth: {} has {count} {noun}", diagnostics.label());
    }

    pub(crate) fn imported(&self, imported: &Imported) {
        let Imported { kernel, modules, version } = imported;
        match self.format {
            Format::Json => {
                json_line(&json!({ "version": version, "kernel": kernel, "modules": modules }));
            }
            _ => line(&format!(
                "imported Linux {version} as {} with its modules in {}",
                kernel.display(),
                modules.display()
            )),
        }
    }

    pub(crate) fn jobs(&self, jobs: &[Job]) {
        match self.format {
            Format::Json => json_line(&jobs),
            Format::Table if jobs.is_empty() => self.note("there are no jobs"),
            Format::Table => rows(
                ["JOB", "TENANT", "LIFECYCLE", "STATUS", "VM", "REASON"],
                jobs.iter().map(|job| {
                    [
                        job.job_id.clone(),
                        job.tenant.clone(),
                        text_of(job, "lifecycle"),
                        status(job),
                        or_dash(job.vm_id.as_deref()),
                        shortened(job.reason.as_deref().unwrap_or_default()),
                    ]
                }),
            ),
            Format::Wide => rows(
                [
                    "JOB",
                    "TENANT",
                    "LIFECYCLE",
                    "STATUS",
                    "VM",
                    "GEN",
                    "SINCE",
                    "ROOTFS",
                    "KERNEL",
                    "VCPU",
                    "MEM",
                    "REASON",
                ],
                jobs.iter().map(wide),
            ),
        }
    }

    pub(crate) fn job(&self, job: &Job, events: &[Event]) {
        if self.format == Format::Json {
            return json_line(job);
        }
        let spec = serde_json::to_string_pretty(&job.spec).unwrap_or_default();
        let fields = [
            ("job", job.job_id.clone()),
            ("tenant", job.tenant.clone()),
            ("status", status(job)),
            ("reason", or_dash(job.reason.as_deref())),
            ("since", job.since.clone()),
            ("vm", or_dash(job.vm_id.as_deref())),
            ("generation", job.generation.to_string()),
            ("exit code", job.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string())),
        ];
        for (name, value) in fields {
            line(&format!("{name:<11} {}", plain(&value)));
        }
        line(&format!("spec        {}", spec.replace('\n', "\n            ")));
        if !events.is_empty() {
            line("events");
            for event in events {
                line(&format!("  {}  {}", event.at, plain(&event.message)));
            }
        }
    }

    pub(crate) fn stats(&self, stats: &Stats) {
        if self.format == Format::Json {
            return json_line(stats);
        }
        let summary = stats.summary;
        let noun = if summary.total_jobs == 1 { "job" } else { "jobs" };
        line(&format!("{} {noun}, {} warm\n", summary.total_jobs, summary.total_warm));
        self.jobs(&stats.jobs);
        if !stats.warm_pool.is_empty() {
            line("");
            rows(
                ["SPEC", "VM", "STATUS", "ROOTFS", "REASON"],
                stats.warm_pool.iter().map(|warm| {
                    [
                        warm.spec_hash.clone(),
                        warm.vm_id.clone(),
                        warm.status.clone(),
                        warm.spec["rootfs"].as_str().unwrap_or("-").to_owned(),
                        shortened(warm.reason.as_deref().unwrap_or_default()),
                    ]
                }),
            );
        }
        for sentence in &stats.unidentified {
            line(&format!("unidentified: {}", plain(sentence)));
        }
    }

    pub(crate) fn events(&self, events: &[Event]) {
        match self.format {
            Format::Json => json_line(&events),
            _ => rows(
                ["AT", "JOB", "VM", "KIND", "MESSAGE"],
                events.iter().map(|event| {
                    [
                        event.at.clone(),
                        or_dash(event.job_id.as_deref()),
                        or_dash(event.instance.as_deref()),
                        event.kind.clone(),
                        event.message.clone(),
                    ]
                }),
            ),
        }
    }

    /// A job that was just changed.
    pub(crate) fn changed(&self, job: &Job) {
        if self.format == Format::Json {
            return json_line(job);
        }
        let reason = job.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        line(&format!("{} {}{}", job.job_id, job.status, plain(&reason)));
    }

    pub(crate) fn removed(&self, job: &str) {
        match self.format {
            Format::Json => json_line(&json!({ "job_id": job, "gone": true })),
            _ => line(&format!("{job} deleted")),
        }
    }

    pub(crate) fn going(&self, job: &str) {
        match self.format {
            Format::Json => json_line(&json!({ "job_id": job, "gone": false })),
            _ => line(&format!("{job} stopping; it is deleted once it has stopped")),
        }
    }

    /// A line of a job's output: its stderr to stderr. On a terminal control characters are shown
    /// as what they are, since a guest must not drive the user's terminal.
    pub(crate) fn log_line(&self, log: &LogLine) {
        if self.format == Format::Json {
            return json_line(log);
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
        match self.format {
            Format::Json => {
                json_line(
                    &json!({ "local": local.to_string(), "job_id": job, "guest_port": guest }),
                );
            }
            _ => line(&format!("forwarding {local} to port {guest} of {job}; Ctrl-C ends it")),
        }
    }

    pub(crate) fn version(&self, daemon: Option<&Health>, ready: Option<&Readiness>) {
        let own = env!("CARGO_PKG_VERSION");
        if self.format == Format::Json {
            return json_line(&json!({ "hearth": own, "daemon": daemon, "ready": ready }));
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

/// A line on stdout. Whoever closes the pipe has seen enough.
fn line(text: &str) {
    if writeln!(io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

fn json_line<T: Serialize>(value: &T) {
    line(&serde_json::to_string(value).unwrap_or_default());
}

fn rows<const N: usize>(header: [&str; N], cells: impl Iterator<Item = [String; N]>) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for row in cells {
        table.add_row(row.map(|cell| plain(&cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for text in table.lines() {
        line(text.trim_end());
    }
}

fn wide(job: &Job) -> [String; 12] {
    let number =
        |value: &serde_json::Value| value.as_u64().map_or("-".to_owned(), |n| n.to_string());
    [
        job.job_id.clone(),
        job.tenant.clone(),
        text_of(job, "lifecycle"),
        status(job),
        or_dash(job.vm_id.as_deref()),
        job.generation.to_string(),
        job.since.clone(),
        text_of(job, "rootfs"),
        text_of(job, "kernel"),
        number(&job.spec["resources"]["vcpu"]),
        number(&job.spec["resources"]["mem_mb"]),
        job.reason.clone().unwrap_or_default(),
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

/// The longest reason in a table, in characters; `get` shows all of it.
const REASON_CHARS_MAX: usize = 60;

fn shortened(text: &str) -> String {
    match text.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// With control characters shown as escapes, tabs and line ends excepted.
fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' && c != '\n' {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::{plain, shortened};

    #[test]
    fn a_guest_cannot_drive_the_terminal() {
        assert_eq!(plain("\u{1b}[2Jred\r\u{9b}x\tok"), "\\u{1b}[2Jred\\r\\u{9b}x\tok");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"é".repeat(61)), format!("{}…", "é".repeat(60)));
    }
}
