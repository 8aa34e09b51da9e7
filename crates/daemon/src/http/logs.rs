//! A job's output: that of its instances one after the other, as text or as JSON lines, whole, its
//! end, or followed until the job has ended. Text is what the app wrote; of JSON lines, those that are
//! partial are continued by the next one of their stream.

use super::document::{OfJob, Refuses};
use super::problem::Refused;
use super::read::{self, JobPath, Params};
use super::{App, Slot, jobs};
use crate::followed::Following;
use crate::{clock, convert, limits};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use hearth_api::{Heartbeat, LogLine, LogRecord, NDJSON};
use hearth_engine::JobView;
use hearth_host::{LogPage, LogQuery};
use hearth_model::{InstanceId, JobId};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::time::{Instant, sleep, timeout};
use utoipa::IntoParams;

/// Which part of a log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogParams {
    /// Whether to go on with new lines until the job has ended.
    #[serde(default)]
    #[param(value_type = bool, required = false)]
    follow: bool,
    /// Only this many of the last lines.
    #[param(value_type = u32, required = false, minimum = 0, maximum = 1_000_000)]
    tail: Option<usize>,
    /// Only lines that came since this time, or since this long ago.
    #[param(value_type = String, required = false, example = "10m")]
    since: Option<String>,
    /// Only lines behind these: `vm_id` and `cursor` of the last one that was read of each microVM,
    /// with commas between. What is older than the oldest of these microVMs counts as read.
    #[param(value_type = String, required = false,
        pattern = "^vm-[0-9a-z]{10}:[0-9]{1,19}(,vm-[0-9a-z]{10}:[0-9]{1,19})*$")]
    after: Option<String>,
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    JsonLines,
}

/// `GET /vms/{job_id}/logs`: text, or JSON lines for `Accept: application/x-ndjson`.
#[utoipa::path(get, path = "/vms/{job_id}/logs", operation_id = "readLog", summary = "The output of a job's microVMs, one after the other. While nothing is written, followed JSON lines have a heartbeat every 15 s, which readers ignore.",
    params(OfJob, LogParams),
    responses((status = 200, description = "Lines, oldest first.",
        content((String = "text/plain"), (LogRecord = "application/x-ndjson"))), Refuses<400>, Refuses<403>, Refuses<404>, Refuses<503>))]
pub(super) async fn logs(
    State(app): State<Arc<App>>,
    JobPath(job): JobPath,
    Params(params): Params<LogParams>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let part = Part::read(&params)?;
    // Before anything is read, so that the job is not deleted meanwhile.
    let following = params.follow.then(|| app.intake.follow(&job));
    let view = jobs::view(&app, &job).await?;
    let (format, media) = match read::accepts(&headers, NDJSON) {
        true => (Format::JsonLines, NDJSON),
        false => (Format::Text, "text/plain; charset=utf-8"),
    };
    let slot = params.follow.then(|| app.follow()).transpose()?;
    let mut reader = Reader { app, format, cursors: BTreeMap::new(), begun: None };
    let first = reader.first(&view, &part).await?;
    let body = if let (Some(slot), Some(following)) = (slot, following) {
        let ended = convert::status(view.status).is_final();
        let lines = follow(reader, job, first, view, ended, (slot, following));
        match format {
            Format::Text => Body::from_stream(lines.map(Ok::<_, Infallible>)),
            Format::JsonLines => Body::from_stream(with_heartbeats(lines).map(Ok::<_, Infallible>)),
        }
    } else {
        Body::from(first)
    };
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(media))], body).into_response())
}

/// The part of a log that is read first.
#[derive(Debug)]
struct Part {
    tail: Option<usize>,
    since: Option<Timestamp>,
    after: BTreeMap<InstanceId, u64>,
}

impl Part {
    fn read(params: &LogParams) -> Result<Part, Refused> {
        let since = params.since.as_deref().map(since).transpose()?;
        let places = params.after.iter().flat_map(|places| places.split(','));
        let after = places.map(place).collect::<Result<_, _>>()?;
        let bounded = |lines| read::count("tail", lines, 0..=limits::TAIL_MAX);
        Ok(Part { tail: params.tail.map(bounded).transpose()?, since, after })
    }

    /// Where each instance's log is read from. What is older than the first place that was given
    /// was read before.
    fn begin(&self, instances: &[InstanceId]) -> BTreeMap<InstanceId, u64> {
        let first = instances.iter().position(|id| self.after.contains_key(id)).unwrap_or(0);
        let place = |id: &InstanceId| self.after.get(id).copied().unwrap_or(0);
        instances[first..].iter().map(|id| (id.clone(), place(id))).collect()
    }

    fn has(&self, line: &hearth_host::LogLine) -> bool {
        let came = || line.at.parse::<Timestamp>().ok();
        self.since.is_none_or(|since| came().is_none_or(|came| came >= since))
    }
}

/// A time, or how long ago it was.
fn since(text: &str) -> Result<Timestamp, Refused> {
    let ago = || {
        let ago = text.parse::<SignedDuration>().ok().filter(|ago| !ago.is_negative())?;
        Timestamp::now().checked_sub(ago).ok()
    };
    text.parse::<Timestamp>().ok().or_else(ago).ok_or_else(|| {
        let help = "write a time such as 2026-11-24T09:30:00Z, or how long ago, such as 90s or 1h";
        read::bad_query("since", &format!("{text:?} is not a time")).help(help)
    })
}

/// A place in an instance's log, as lines name it.
fn place(text: &str) -> Result<(InstanceId, u64), Refused> {
    let parts = text.strip_prefix("vm-").and_then(|rest| rest.split_once(':'));
    let place = parts.and_then(|(id, at)| Some((InstanceId::parse(id).ok()?, at.parse().ok()?)));
    place.ok_or_else(|| {
        read::bad_query("after", &format!("{text:?} is not a position in a log"))
            .help("write vm_id and cursor of a line, as vm-…:123")
    })
}

struct Reader {
    app: Arc<App>,
    format: Format,
    /// How far each instance's log was read.
    cursors: BTreeMap<InstanceId, u64>,
    /// Where the text so far does not end with a line feed: the instance that wrote it.
    begun: Option<InstanceId>,
}

impl Reader {
    /// A part of the log so far, from the newest instance backwards.
    async fn first(&mut self, view: &JobView, part: &Part) -> Result<Bytes, Refused> {
        let mut left = part.tail;
        let mut pages = VecDeque::new();
        let begin = part.begin(&view.instances);
        for instance in view.instances.iter().rev() {
            let Some(after) = begin.get(instance).copied() else {
                // Whatever is in it was read before.
                self.cursors.insert(instance.clone(), u64::MAX);
                continue;
            };
            let mut page = self.page(instance, LogQuery { after, tail: left }).await?;
            page.lines.retain(|line| part.has(line));
            if let Some(left) = &mut left {
                *left = left.saturating_sub(page.line_count());
            }
            self.cursors.insert(instance.clone(), page.next);
            pages.push_front((instance, page));
        }
        let mut text = Vec::new();
        for (instance, page) in pages {
            self.write(instance, &page, &mut text);
        }
        Ok(text.into())
    }

    /// What is new since the last reading.
    async fn new_lines(&mut self, view: &JobView) -> Result<Bytes, Refused> {
        let mut text = Vec::new();
        for instance in &view.instances {
            let after = self.cursors.get(instance).copied().unwrap_or(0);
            let page = self.page(instance, LogQuery { after, tail: None }).await?;
            self.write(instance, &page, &mut text);
            self.cursors.insert(instance.clone(), page.next);
        }
        Ok(text.into())
    }

    async fn page(&self, instance: &InstanceId, query: LogQuery) -> Result<LogPage, Refused> {
        self.app.host.logs(instance, query).await.map_err(|error| {
            Refused::new(503, "log", "Log unavailable", error.sentence()).help("try again")
        })
    }

    fn write(&mut self, instance: &InstanceId, page: &LogPage, text: &mut Vec<u8>) {
        for line in &page.lines {
            match self.format {
                Format::Text => self.write_text(instance, line, text),
                Format::JsonLines => {
                    let line = LogLine {
                        at: line.at.clone(),
                        vm_id: instance.vm_id(),
                        stream: line.stream.to_owned(),
                        text: line.text.clone(),
                        partial: line.partial,
                        cursor: line.cursor,
                    };
                    text.extend(serde_json::to_vec(&line).unwrap_or_default());
                    text.push(b'\n');
                }
            }
        }
    }

    /// What the app wrote, byte for byte. What Hearth and other microVMs say begins on a line of its
    /// own.
    fn write_text(
        &mut self,
        instance: &InstanceId,
        line: &hearth_host::LogLine,
        text: &mut Vec<u8>,
    ) {
        let continues = self.begun.as_ref() == Some(instance) && line.stream != "hearth";
        if self.begun.is_some() && !continues {
            text.push(b'\n');
        }
        text.extend_from_slice(line.text.as_bytes());
        if !line.partial {
            text.push(b'\n');
        }
        self.begun = line.partial.then(|| instance.clone());
    }
}

/// Where a follower stands.
struct Follower {
    reader: Reader,
    job: JobId,
    view: JobView,
    asked: Instant,
    /// Sent before anything else.
    first: Option<Bytes>,
    /// The job had ended before the last reading: there is nothing more to come.
    ended: bool,
    _held: (Slot, Following),
}

fn follow(
    reader: Reader,
    job: JobId,
    first: Bytes,
    view: JobView,
    ended: bool,
    held: (Slot, Following),
) -> impl Stream<Item = Bytes> {
    let asked = Instant::now();
    let follower = Follower { reader, job, view, asked, first: Some(first), ended, _held: held };
    stream::unfold(follower, |mut follower| async move {
        follower.next().await.map(|bytes| (bytes, follower))
    })
}

/// The same lines, with a heartbeat whenever nothing was written for a while.
fn with_heartbeats(lines: impl Stream<Item = Bytes>) -> impl Stream<Item = Bytes> {
    stream::unfold(Box::pin(lines), |mut lines| async move {
        // Cancel safe: what is being read stays in the stream.
        match timeout(limits::HEARTBEAT_EVERY, lines.next()).await {
            Ok(bytes) => bytes.map(|bytes| (bytes, lines)),
            Err(_) => Some((heartbeat(), lines)),
        }
    })
}

fn heartbeat() -> Bytes {
    let heartbeat = Heartbeat { heartbeat: clock::now().wall };
    let mut line = serde_json::to_vec(&heartbeat).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

impl Follower {
    /// The next lines; `None` once the job has ended and all was sent, or the daemon ends.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Some(first);
        }
        let mut stop = self.reader.app.stop.clone();
        while !self.ended {
            tokio::select! {
                // Both arms are cancel safe.
                biased;
                () = stop.asked() => return None,
                () = sleep(limits::FOLLOW_EVERY) => {}
            }
            // The question comes before the reading, so that what an ended job wrote last is read.
            if self.asked.elapsed() >= limits::FOLLOW_ASK_EVERY {
                self.asked = Instant::now();
                self.view = jobs::view(&self.reader.app, &self.job).await.ok()?;
                self.ended = convert::status(self.view.status).is_final();
            }
            let text = self.reader.new_lines(&self.view).await.ok()?;
            if !text.is_empty() {
                return Some(text);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn quiet_log_has_heartbeats_and_busy_log_has_none() {
        let line = Bytes::from_static(b"line\n");
        let lines = stream::unfold(0, |at| {
            let line = line.clone();
            async move {
                // Four lines at short intervals, then silence, then one more and the end.
                match at {
                    0..4 => sleep(limits::HEARTBEAT_EVERY - limits::FOLLOW_EVERY).await,
                    4 => sleep(limits::HEARTBEAT_EVERY * 3 - limits::FOLLOW_EVERY).await,
                    _ => return None,
                }
                Some((line, at + 1))
            }
        });
        let begin = Instant::now();
        let records: Vec<(Bytes, u64)> = with_heartbeats(lines)
            .map(|record| (record, begin.elapsed().as_secs()))
            .collect()
            .await;
        let kinds: Vec<(bool, u64)> = records.iter().map(|(it, at)| (*it == line, *at)).collect();
        let lines_at = [14, 29, 44, 59].map(|at| (true, at));
        assert_eq!(kinds[..4], lines_at);
        assert_eq!(kinds[4..], [(false, 74), (false, 89), (true, 104)]);
        let beat: LogRecord = serde_json::from_slice(&records[4].0).expect("a record");
        assert!(matches!(beat, LogRecord::Heartbeat(_)), "{beat:?}");
    }
}
