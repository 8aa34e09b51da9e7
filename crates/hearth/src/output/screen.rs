//! The one screen of `hearth status`.

use super::paint::{Line, Tone, Word, age, shortened};
use super::{Output, or_dash};
use crate::args::Format;
use crate::status::Report;
use hearth_api::{DesiredFile, DesiredFileStatus, JobStatus, Pool};
use std::fmt::Display;

impl Output {
    pub(crate) fn status(&self, report: &Report) {
        if self.printed(report) {
            return;
        }
        let daemon = format!("{} at {}", report.version, report.url);
        self.heading("daemon", daemon, Tone::Plain);
        if let Some(why) = &report.not_ready {
            self.heading("", format_args!("not ready: {why}"), Tone::Bad);
        }
        if let Some(ready) = &report.ready {
            self.heading("host", &ready.host, Tone::Plain);
            for warning in &ready.warnings {
                self.heading("", warning, Tone::Busy);
            }
        }
        if let Some(file) = &report.desired_file {
            self.desired_file(file);
        }
        self.headed("jobs", &self.counted(&report.jobs));
        for sentence in &report.unidentified {
            self.heading("", sentence, Tone::Busy);
        }
        self.heading("pools", pools_in_all(&report.pools), Tone::Plain);
        if !report.pools.is_empty() {
            self.line("");
            self.rows(
                [
                    "SPEC", "TENANT", "JOBS", "WARM", "TARGET", "STARTING", "HITS", "MISSES",
                    "ROOTFS",
                ],
                report.pools.iter().map(pool_words),
            );
        }
        if !report.problems.is_empty() {
            self.line("");
            let cut = |text: &str| match self.format {
                Format::Wide => text.to_owned(),
                _ => shortened(text),
            };
            self.rows(
                ["LAST PROBLEMS", "JOB", "MESSAGE"],
                report.problems.iter().map(|event| {
                    [
                        event.at.as_str().into(),
                        or_dash(event.job_id.as_deref()).into(),
                        Word::toned(cut(&event.message), Tone::Bad),
                    ]
                }),
            );
        }
    }

    fn heading(&self, name: &str, text: impl Display, tone: Tone) {
        self.headed(name, &self.begin().toned(text, tone));
    }

    fn headed(&self, name: &str, line: &Line) {
        let tone = if name.is_empty() { Tone::Plain } else { Tone::Strong };
        self.print(&self.begin().toned(format_args!("{name:<8}"), tone).text(" ").line(line));
    }

    fn counted(&self, jobs: &[(JobStatus, usize)]) -> Line {
        if jobs.is_empty() {
            return self.begin().text("none");
        }
        let total: usize = jobs.iter().map(|(_, count)| count).sum();
        let mut line = self.begin().text(format_args!("{total}: "));
        for (at, (status, count)) in jobs.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let tone = Tone::of_status(*status);
            line = line.text(comma).toned(format_args!("{count} {status}"), tone);
        }
        line
    }

    fn desired_file(&self, file: &DesiredFile) {
        let tone = match file.status {
            DesiredFileStatus::Loaded => Tone::Good,
            DesiredFileStatus::Absent => Tone::Plain,
            DesiredFileStatus::Failed | DesiredFileStatus::Held => Tone::Bad,
        };
        let since = age(&file.since, jiff::Timestamp::now());
        let line = self.begin().text(format_args!("{}: ", file.path));
        let line = line.toned(file.status.as_str(), tone).text(format_args!(" for {since}"));
        self.headed("file", &line);
        if file.loaded_at.is_some() {
            let noun = if file.entries == 1 { "entry" } else { "entries" };
            let counts = format!(
                "last load: {} {noun}, {} applied, {} deleted, {} refused, {} held",
                file.entries,
                file.applied,
                file.deleted,
                file.refused.len() + file.refused_omitted,
                file.held.len()
            );
            self.heading("", counts, Tone::Plain);
        }
        for entry in &file.refused {
            self.heading("", format_args!("{}: {}", entry.job_id, entry.reason), Tone::Bad);
        }
        if file.refused_omitted > 0 {
            self.heading("", format_args!("and {} more", file.refused_omitted), Tone::Plain);
        }
        for text in [&file.problem, &file.help].into_iter().flatten() {
            self.heading("", text, tone);
        }
    }
}

fn pools_in_all(pools: &[Pool]) -> String {
    if pools.is_empty() {
        return "none".to_owned();
    }
    let warm: usize = pools.iter().map(|pool| pool.warm).sum();
    let target: u64 = pools.iter().map(|pool| u64::from(pool.target)).sum();
    format!("{warm} of {target} warm")
}

fn pool_words(pool: &Pool) -> [Word; 9] {
    let full = u32::try_from(pool.warm).is_ok_and(|warm| warm >= pool.target);
    let tone = if full { Tone::Good } else { Tone::Busy };
    [
        pool.spec_hash.as_str().into(),
        or_dash(pool.tenant.as_deref()).into(),
        pool.jobs.to_string().into(),
        Word::toned(pool.warm.to_string(), tone),
        pool.target.to_string().into(),
        pool.starting.to_string().into(),
        pool.hits.to_string().into(),
        pool.misses.to_string().into(),
        or_dash(pool.rootfs.as_deref()).into(),
    ]
}
