//! What happens, as it happens, over restarts of the daemon.

use crate::client::{Client, path_of};
use crate::error::ClientError;
use crate::lines::{AWAY_LOOK_EVERY, AWAY_MAX, Lines};
use crate::wire::{EVENT_STREAM, Event, Page};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

/// What a follower of events hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Something happened.
    Happened(Event),
    /// Events that happened meanwhile are no longer kept; a sentence. What comes next is newer.
    Lost(String),
}

/// Events as they happen.
///
/// If the daemon ends, the follower waits for the next one, a minute at most, and continues after
/// the last event that it has.
#[derive(Debug)]
pub struct FollowedEvents {
    client: Client,
    job: Option<String>,
    lines: Lines,
    /// The last event that was seen.
    last: Option<u64>,
    /// What the next event is called; empty for a plain one.
    name: String,
}

#[derive(Deserialize)]
struct Loss {
    newest: u64,
    message: String,
}

impl Client {
    /// `GET /events`, or those of one job; the newest `limit`, oldest first.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn events(&self, job: Option<&str>, limit: usize) -> Result<Vec<Event>, ClientError> {
        let (operation, path) = events_of(job);
        let page: Page<Event> = self.get(&operation, &format!("{path}?limit={limit}")).await?;
        Ok(page.items)
    }

    /// The newest so many events and then each as it happens, over restarts of the daemon.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn follow_events(
        &self,
        job: Option<&str>,
        newest: usize,
    ) -> Result<FollowedEvents, ClientError> {
        let lines = self.event_lines(job, newest, None).await?;
        let (client, job) = (self.clone(), job.map(str::to_owned));
        Ok(FollowedEvents { client, job, lines, last: None, name: String::new() })
    }

    async fn event_lines(
        &self,
        job: Option<&str>,
        newest: usize,
        after: Option<u64>,
    ) -> Result<Lines, ClientError> {
        let (operation, path) = events_of(job);
        let query = match (after, newest) {
            (Some(after), _) => format!("?after={after}"),
            (None, 0) => String::new(),
            (None, newest) => format!("?limit={newest}"),
        };
        self.lines(operation, &format!("{path}{query}"), EVENT_STREAM).await
    }
}

impl FollowedEvents {
    /// The next of the news. It never ends by itself. Not cancel safe while a daemon is away; no
    /// event is lost by it.
    ///
    /// # Errors
    /// Where the daemon stays away, or refuses.
    pub async fn next(&mut self) -> Result<News, ClientError> {
        loop {
            match self.lines.next().await {
                Ok(Some(line)) => {
                    if let Some(news) = self.line(&line)? {
                        return Ok(news);
                    }
                }
                Ok(None) | Err(ClientError::Broken { .. }) => self.reopen().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes a line of the stream in: <https://html.spec.whatwg.org/#event-stream-interpretation>.
    fn line(&mut self, line: &[u8]) -> Result<Option<News>, ClientError> {
        let line = str::from_utf8(line).map_err(|error| self.lines.foreign(error))?;
        let (field, value) = line.split_once(": ").unwrap_or((line, ""));
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" if self.name == "lost" => {
                let loss: Loss =
                    serde_json::from_str(value).map_err(|error| self.lines.foreign(error))?;
                self.last = Some(loss.newest.min(self.last.unwrap_or(loss.newest)));
                self.name.clear();
                return Ok(Some(News::Lost(loss.message)));
            }
            "data" => {
                let event: Event =
                    serde_json::from_str(value).map_err(|error| self.lines.foreign(error))?;
                self.last = Some(event.id);
                return Ok(Some(News::Happened(event)));
            }
            // Ids are in the events too; comments, `retry` and empty lines say nothing to us.
            _ => {}
        }
        Ok(None)
    }

    async fn reopen(&mut self) -> Result<(), ClientError> {
        let begin = Instant::now();
        self.name.clear();
        loop {
            match self.client.event_lines(self.job.as_deref(), 0, self.last).await {
                Ok(lines) => {
                    self.lines = lines;
                    return Ok(());
                }
                Err(error) if !error.may_pass() || begin.elapsed() >= AWAY_MAX => {
                    return Err(error);
                }
                Err(_) => sleep(AWAY_LOOK_EVERY).await,
            }
        }
    }
}

/// What reading events is called, and where they are.
fn events_of(job: Option<&str>) -> (String, String) {
    match job {
        Some(job) => (format!("read the events of job {job}"), path_of(job, "/events")),
        None => ("read the events".to_owned(), "/events".to_owned()),
    }
}
