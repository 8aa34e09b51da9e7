//! A job's output: that of its instances one after the other, as text or as JSON lines, whole, its
//! end, or followed until the job has ended. Text is what the app wrote; of JSON lines, those that are
//! partial are continued by the next one of their stream.

use super::document::{OfJob, Refuses};
use super::problem::Refused;
use super::read::{self, JobPath, Params};
use super::{App, StreamPermit};
use crate::core::EngineHandle;
use crate::followed::Following;
use crate::stop::Stop;
use crate::{clock, convert, limits};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered, Stream, StreamExt};
use hearth_api::{Heartbeat, LogLine, LogRecord, NDJSON};
use hearth_engine::JobView;
use hearth_host::{Host, LogPage, LogQuery};
use hearth_model::{InstanceId, JobId};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use utoipa::IntoParams;

/// Which part of a log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogParams {
    /// Whether to continue with new lines until the job has ended.
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
    let following = params.follow.then(|| app.engine.follow(&job));
    let view = app.engine.job(&job)?;
    let (format, media) = match read::accepts(&headers, NDJSON) {
        true => (Format::JsonLines, NDJSON),
        false => (Format::Text, "text/plain; charset=utf-8"),
    };
    let permit = params.follow.then(|| app.follow()).transpose()?;
    let mut reader = Reader::new(app.host.clone(), format);
    let first = reader.first(&view, &part).await?;
    let body = if let (Some(permit), Some(following)) = (permit, following) {
        let follower = Follower::new(reader, job, following, &app.engine, &app.stop);
        let lines = follow(follower, first, permit);
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
    host: Arc<dyn Host>,
    format: Format,
    /// How far each instance's log was read.
    cursors: BTreeMap<InstanceId, u64>,
    /// Where the text so far does not end with a line feed: the instance that wrote it.
    begun: Option<InstanceId>,
}

impl Reader {
    fn new(host: Arc<dyn Host>, format: Format) -> Reader {
        Reader { host, format, cursors: BTreeMap::new(), begun: None }
    }

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
        self.host
            .logs(instance, query)
            .await
            .map_err(|error| Refused::for_now("log", "Log unavailable", error.sentence()))
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

/// One that reads a job's output as it is written. It is woken by the writer of a log and by a step that shows
/// the job otherwise; while nothing happens it does nothing.
struct Follower {
    reader: Reader,
    job: JobId,
    following: Following,
    engine: EngineHandle,
    stop: Stop,
    /// Changes when the log of an instance has grown.
    logs: BTreeMap<InstanceId, watch::Receiver<()>>,
    /// When the log was read last.
    read_at: Instant,
}

fn follow(follower: Follower, first: Bytes, permit: StreamPermit) -> impl Stream<Item = Bytes> {
    let first = stream::iter((!first.is_empty()).then_some(first));
    let lines = stream::unfold((follower, permit), |(mut follower, permit)| async move {
        follower.next().await.map(|bytes| (bytes, (follower, permit)))
    });
    first.chain(lines)
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
    fn new(
        reader: Reader,
        job: JobId,
        following: Following,
        engine: &EngineHandle,
        stop: &Stop,
    ) -> Follower {
        let (engine, stop) = (engine.clone(), stop.clone());
        let (logs, read_at) = (BTreeMap::new(), Instant::now());
        Follower { reader, job, following, engine, stop, logs, read_at }
    }

    /// The next lines; `None` once the job has ended and all was sent, or the daemon ends.
    async fn next(&mut self) -> Option<Bytes> {
        let mut stop = self.stop.clone();
        loop {
            // The job is looked at before its log is read, so that what an ended one wrote last is read; and
            // the logs are waited for from before that, so that no line comes in between.
            let view = self.engine.job(&self.job).ok()?;
            let ended = convert::status(view.status).is_final();
            self.wait_for(&view.instances);
            let text = self.reader.new_lines(&view).await.ok()?;
            self.read_at = Instant::now();
            if !text.is_empty() {
                return Some(text);
            }
            if ended {
                return None;
            }
            tokio::select! {
                // Both arms are cancel safe.
                biased;
                () = stop.asked() => return None,
                () = self.woken() => {}
            }
        }
    }

    /// Waits for the logs of these instances, and of no others, from now on.
    fn wait_for(&mut self, instances: &[InstanceId]) {
        self.logs.retain(|instance, _| instances.contains(instance));
        for instance in instances {
            let subscribe = || self.reader.host.log_changes(instance);
            self.logs.entry(instance.clone()).or_insert_with(subscribe).mark_unchanged();
        }
    }

    /// Waits until there may be something to read. Cancel safe.
    async fn woken(&mut self) {
        let mut grown: FuturesUnordered<_> =
            self.logs.values_mut().map(|log| log.changed()).collect();
        tokio::select! {
            // Both arms are cancel safe.
            biased;
            () = self.following.shown_otherwise() => {}
            // A host that has gone writes nothing more.
            Some(Ok(())) = grown.next() => {}
        }
        sleep_until(self.read_at + limits::FOLLOW_READS_APART).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{self, Work};
    use crate::{executor, observer};
    use futures_util::future::poll_fn;
    use hearth_engine::{Config, Engine, Preconditions, Restart, Stop as StopJob, Upsert};
    use hearth_host::sim::{SimConfig, SimHost};
    use hearth_model::{Caller, Resolution, Spec, Value};
    use hearth_planner::{Capacity, Limits};
    use hearth_store::Sqlite;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;
    use tokio::time::sleep;

    const SHORT: Duration = Duration::from_millis(200);

    #[tokio::test(start_paused = true)]
    async fn quiet_log_has_heartbeats_and_busy_log_has_none() {
        let line = Bytes::from_static(b"line\n");
        let lines = stream::unfold(0, |at| {
            let line = line.clone();
            async move {
                // Four lines at short intervals, then silence, then one more and the end.
                match at {
                    0..4 => sleep(limits::HEARTBEAT_EVERY - SHORT).await,
                    4 => sleep(limits::HEARTBEAT_EVERY * 3 - SHORT).await,
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

    /// An engine on a simulated host, and what carries its work out.
    struct Stack {
        host: SimHost,
        engine: EngineHandle,
        stop: Stop,
        _ends: (tempfile::TempDir, watch::Sender<bool>, JoinSet<()>),
    }

    fn stack() -> Stack {
        let dir = tempfile::tempdir().unwrap();
        let host =
            SimHost::new(SimConfig { boot: Duration::from_millis(5), ..SimConfig::default() });
        let capacity =
            Capacity { vcpus: 64, memory_mib: 64 * 1024, overhead_mib: 0, scratch_mib: None };
        let config = Config {
            capacity,
            disk_overcommit: hearth_engine::DiskOvercommit::Warn,
            limits: Limits::default(),
            retention: hearth_engine::Retention::default(),
            boot_id: "boot".to_owned(),
            seed: 1,
        };
        let store = Sqlite::open(&dir.path().join("hearth.db")).unwrap();
        let (work, inbox) = mpsc::unbounded_channel::<Work>();
        let engine = Engine::open(store, config).unwrap();
        let (engine, _) = core::spawn(engine, Arc::new(host.clone()), work).unwrap();
        let (ends, stop) = Stop::channel();
        let mut tasks = JoinSet::new();
        let shared: Arc<dyn Host> = Arc::new(host.clone());
        tasks.spawn(executor::run(shared.clone(), engine.clone(), inbox, stop.clone()));
        let seen = watch::channel(false).0;
        tasks.spawn(observer::run(shared, engine.clone(), seen, stop.clone()));
        Stack { host, engine, stop, _ends: (dir, ends, tasks) }
    }

    fn spec() -> Arc<Spec> {
        let field = |name: &str, value: Value| (name.to_owned(), value);
        let size = vec![field("vcpu", Value::Int(1)), field("mem_mb", Value::Int(128))];
        let fields = vec![
            field("rootfs", "rootfs-web.ext4".into()),
            field("kernel", "vmlinux".into()),
            field("cmd", Value::List(vec!["serve".into()])),
            field("resources", Value::Map(size)),
            field("lifecycle", "service".into()),
        ];
        Arc::new(Spec::read(&Value::Map(fields)).unwrap())
    }

    impl Stack {
        async fn post(&self, job: &JobId) {
            let (job, resolution) = (Some(job.clone()), self.resolution().await);
            let upsert = Upsert { job, tenant: None, spec: spec(), resolution };
            let none = Preconditions::NONE;
            self.engine.request(Caller::Unknown, none, upsert).await.unwrap();
        }

        async fn resolution(&self) -> Resolution {
            executor::resolve(&self.host, &spec()).await
        }

        /// Waits until the job runs, and returns its instance.
        async fn running(&self, job: &JobId, not: Option<&InstanceId>) -> InstanceId {
            loop {
                let view = self.engine.job(job).unwrap();
                let serves =
                    view.status == hearth_planner::Status::Running && view.reason.is_none();
                if let Some(instance) = view.instance.clone().filter(|_| serves)
                    && not != Some(&instance)
                {
                    return instance;
                }
                sleep(Duration::from_millis(5)).await;
            }
        }

        fn follow(&self, job: &JobId) -> Pin<Box<dyn Stream<Item = Bytes> + Send>> {
            let following = self.engine.follow(job);
            let reader = Reader::new(Arc::new(self.host.clone()), Format::Text);
            let follower = Follower::new(reader, job.clone(), following, &self.engine, &self.stop);
            let permit = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
            Box::pin(follow(follower, Bytes::new(), permit))
        }
    }

    /// A follower in a task of its own: its lines, and how often it was woken.
    fn spawned(
        mut lines: impl Stream<Item = Bytes> + Send + Unpin + 'static,
    ) -> (mpsc::UnboundedReceiver<Bytes>, Arc<AtomicUsize>) {
        let (sender, received) = mpsc::unbounded_channel();
        let wakeups = Arc::new(AtomicUsize::new(0));
        let counted = wakeups.clone();
        tokio::spawn(async move {
            while let Some(bytes) = poll_fn(|context| {
                counted.fetch_add(1, Ordering::Relaxed);
                lines.poll_next_unpin(context)
            })
            .await
            {
                sender.send(bytes).unwrap();
            }
        });
        (received, wakeups)
    }

    /// Reads until a line comes.
    async fn until_line(lines: &mut mpsc::UnboundedReceiver<Bytes>, line: &str) {
        let mut text = String::new();
        while !text.contains(line) {
            let bytes = timeout(Duration::from_secs(20), lines.recv()).await.expect("in time");
            text.push_str(std::str::from_utf8(&bytes.expect("it continues")).unwrap());
        }
    }

    #[tokio::test]
    async fn follower_is_woken_by_what_concerns_it_alone() {
        let stack = stack();
        let job = JobId::parse("web").unwrap();
        stack.post(&job).await;
        let instance = stack.running(&job, None).await;
        let (mut lines, wakeups) = spawned(stack.follow(&job));
        until_line(&mut lines, "simulated: serve").await;
        // The time in which it could be woken by a timer, or by what other jobs do.
        sleep(Duration::from_millis(200)).await;
        let before = wakeups.load(Ordering::Relaxed);
        for other in ["a", "b", "c"] {
            let other = JobId::parse(other).unwrap();
            stack.post(&other).await;
            let instance = stack.running(&other, None).await;
            stack.host.write_line(&instance, "of another job");
        }
        sleep(Duration::from_millis(1500)).await;
        assert_eq!(wakeups.load(Ordering::Relaxed), before);
        stack.host.write_line(&instance, "one more");
        until_line(&mut lines, "one more").await;
        // Its next instance is followed from its first line.
        let (spec, resolution) = (spec(), stack.resolution().await);
        let restart = Restart { job: job.clone(), spec, resolution };
        let none = || Preconditions::NONE;
        stack.engine.request(Caller::Unknown, none(), restart).await.unwrap();
        until_line(&mut lines, "simulated: serve").await;
        let next = stack.running(&job, Some(&instance)).await;
        stack.host.write_line(&next, "of the next");
        until_line(&mut lines, "of the next").await;
        let stop = StopJob { job: job.clone() };
        stack.engine.request(Caller::Unknown, none(), stop).await.unwrap();
        let end = timeout(Duration::from_secs(20), lines.recv()).await;
        assert_eq!(end, Ok(None), "it ends with its job");
    }
}
