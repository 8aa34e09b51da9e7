//! The one screen of `hearth status`.

use super::paint::{Tone, Word, age, plain, shortened};
use super::{Output, line, or_dash};
use crate::args::Format;
use crate::status::{Pool, Report};
use hearth_api::{DesiredFile, DesiredFileStatus, JobStatus};

impl Output {
    pub(crate) fn status(&self, report: &Report) {
        if self.printed(report) {
            return;
        }
        self.heading("daemon", &format!("{} at {}", plain(&report.version), report.url));
        if let Some(why) = &report.not_ready {
            self.heading("", &self.painted(&format!("not ready: {}", plain(why)), Tone::Bad));
        }
        if let Some(ready) = &report.ready {
            self.heading("host", &plain(&ready.host));
            for warning in &ready.warnings {
                self.heading("", &self.painted(&plain(warning), Tone::Busy));
            }
        }
        if let Some(file) = &report.desired_file {
            self.desired_file(file);
        }
        self.heading("jobs", &self.counted(&report.jobs));
        for sentence in &report.unidentified {
            self.heading("", &self.painted(&plain(sentence), Tone::Busy));
        }
        self.heading("pools", &pools_in_all(&report.pools));
        if !report.pools.is_empty() {
            line("");
            self.rows(
                ["SPEC", "WARM", "TARGET", "STARTING", "ROOTFS"],
                report.pools.iter().map(pool_words),
            );
        }
        if !report.problems.is_empty() {
            line("");
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

    fn heading(&self, name: &str, text: &str) {
        let tone = if name.is_empty() { Tone::Plain } else { Tone::Strong };
        let name = self.painted(&format!("{name:<8}"), tone);
        line(&format!("{name} {text}"));
    }

    fn counted(&self, jobs: &[(JobStatus, usize)]) -> String {
        if jobs.is_empty() {
            return "none".to_owned();
        }
        let total: usize = jobs.iter().map(|(_, count)| count).sum();
        let counts = jobs.iter().map(|(status, count)| {
            self.painted(&format!("{count} {status}"), Tone::of_status(*status))
        });
        format!("{total}: {}", counts.collect::<Vec<_>>().join(", "))
    }

    fn desired_file(&self, file: &DesiredFile) {
        let tone = match file.status {
            DesiredFileStatus::Loaded => Tone::Good,
            DesiredFileStatus::Absent => Tone::Plain,
            DesiredFileStatus::Failed | DesiredFileStatus::Held => Tone::Bad,
        };
        let status = self.painted(file.status.as_str(), tone);
        let since = age(&file.since, jiff::Timestamp::now());
        self.heading("file", &format!("{}: {status} for {since}", plain(&file.path)));
        if file.loaded_at.is_some() {
            let noun = if file.entries == 1 { "entry" } else { "entries" };
            self.heading(
                "",
                &format!(
                    "last load: {} {noun}, {} applied, {} deleted, {} refused, {} held",
                    file.entries,
                    file.applied,
                    file.deleted,
                    file.refused.len() + file.refused_omitted,
                    file.held.len()
                ),
            );
        }
        for entry in &file.refused {
            let text = format!("{}: {}", plain(&entry.job_id), plain(&entry.reason));
            self.heading("", &self.painted(&text, Tone::Bad));
        }
        if file.refused_omitted > 0 {
            self.heading("", &format!("and {} more", file.refused_omitted));
        }
        for text in [&file.problem, &file.help].into_iter().flatten() {
            self.heading("", &self.painted(&plain(text), tone));
        }
    }
}

fn pools_in_all(pools: &[Pool]) -> String {
    if pools.is_empty() {
        return "none".to_owned();
    }
    let warm: usize = pools.iter().map(|pool| pool.warm).sum();
    let target: u64 = pools.iter().map(|pool| pool.target).sum();
    format!("{warm} of {target} warm")
}

fn pool_words(pool: &Pool) -> [Word; 5] {
    let full = u64::try_from(pool.warm).is_ok_and(|warm| warm >= pool.target);
    let tone = if full { Tone::Good } else { Tone::Busy };
    [
        or_dash(pool.spec_hash.as_deref()).into(),
        Word::toned(pool.warm.to_string(), tone),
        pool.target.to_string().into(),
        pool.starting.to_string().into(),
        or_dash(pool.rootfs.as_deref()).into(),
    ]
}
