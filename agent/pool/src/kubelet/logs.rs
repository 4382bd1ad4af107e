//! `containerLogs`: the output of one run of a container, as a kubelet gives it.
//!
//! The agent keeps one log for all runs of a microVM; which part of it one run wrote follows from the times of the runs. What is
//! asked for, what is a run's, and how its records become lines is pure; [`Tail`] reads.

use std::io;
use std::time::Duration;

use axum::body::Bytes;
use futures_util::Stream;
use k8s_openapi::jiff::Timestamp;
use secovia_agent_api::client::{Client as Agent, ClientError, LogStream};
use secovia_agent_api::{ContainerEnd, ContainerState, LogEvent, LogQuery, LogRecord, Vm, VmState};
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use crate::pod::container_name;

/// A run's first words may be stamped a little before the run itself.
const SLACK_MS: u64 = 20;

/// How often is looked whether a run that is followed goes on.
const LOOK: Duration = Duration::from_secs(1);

/// When a run is over, what it wrote last comes within this time.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// What may be asked for, as it stands in the query.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Query {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<u64>,
    since_seconds: Option<u64>,
    since_time: Option<String>,
    limit_bytes: Option<u64>,
    stream: Option<String>,
}

/// Which streams are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streams {
    All,
    Stdout,
    Stderr,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    follow: bool,
    /// The run before the present one.
    pub(super) previous: bool,
    timestamps: bool,
    tail: Option<u64>,
    since_ms: u64,
    limit: Option<u64>,
    streams: Streams,
}

impl Query {
    /// What is asked for at `now_ms` (milliseconds since 1970-01-01 UTC), or what is wrong with it.
    pub(super) fn parse(self, now_ms: u64) -> Result<Options, String> {
        let since_time = self.since_time.filter(|text| !text.is_empty());
        let since_ms = match (self.since_seconds, since_time) {
            (Some(_), Some(_)) => return Err("at most one of sinceSeconds and sinceTime may be given".into()),
            (Some(0), None) => return Err("sinceSeconds has to be at least 1".into()),
            (Some(seconds), None) => now_ms.saturating_sub(seconds.saturating_mul(1_000)),
            (None, Some(text)) => {
                let time: Timestamp = text
                    .parse()
                    .map_err(|_| "sinceTime is no time; give one such as 2026-01-31T12:00:00Z".to_string())?;
                u64::try_from(time.as_millisecond()).unwrap_or(0)
            }
            (None, None) => 0,
        };
        if self.limit_bytes == Some(0) {
            return Err("limitBytes has to be at least 1".into());
        }
        let streams = match self.stream.as_deref() {
            None | Some("" | "All") => Streams::All,
            Some("Stdout") => Streams::Stdout,
            Some("Stderr") => Streams::Stderr,
            Some(_) => return Err("stream has to be All, Stdout or Stderr".into()),
        };
        if streams != Streams::All && self.tail_lines.is_some() {
            return Err("tailLines may not be given with one stream alone".into());
        }
        Ok(Options {
            follow: switch("follow", self.follow)?,
            previous: switch("previous", self.previous)?,
            timestamps: switch("timestamps", self.timestamps)?,
            tail: self.tail_lines,
            since_ms,
            limit: self.limit_bytes,
            streams,
        })
    }
}

fn switch(name: &str, text: Option<String>) -> Result<bool, String> {
    match text.as_deref() {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(_) => Err(format!("{name} has to be true or false")),
    }
}

/// What is known of a container's runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Runs {
    /// Two runs differ by it: starts of the microVM, and of the container in it.
    number: (u32, u32),
    /// The present one goes on.
    is_live: bool,
    /// When the last one that is over began, where it did, and ended.
    last: Option<(Option<u64>, u64)>,
    /// There will be no more.
    is_over: bool,
}

impl Runs {
    /// Those of this container; none where it is not one of the microVM's.
    pub(super) fn of(vm: &Vm, container: &str) -> Option<Self> {
        let is_up = matches!(vm.state, VmState::Running | VmState::Stopping);
        if vm.containers.is_empty() {
            return (container_name(vm)?.as_str() == container).then(|| Self {
                number: (vm.starts, 0),
                is_live: is_up && vm.started_at_ms.is_some(),
                last: vm
                    .last_run
                    .as_ref()
                    .map(|run| (run.started_at_ms, run.ended_at_ms)),
                is_over: !vm.state.is_active(),
            });
        }
        let container = vm.containers.iter().find(|other| other.name == container)?;
        let times = |end: &ContainerEnd| (end.started_at_ms, end.ended_at_ms);
        Some(Self {
            number: (vm.starts, container.restarts),
            is_live: is_up && matches!(container.state, ContainerState::Running { .. }),
            last: match &container.state {
                ContainerState::Ended(end) => Some(times(end)),
                _ => container.last.as_ref().map(times),
            },
            is_over: matches!(container.state, ContainerState::Ended(_)) || !vm.state.is_active(),
        })
    }

    /// Where the run that is asked for lies in the log; none where there was none.
    pub(super) fn span(&self, previous: bool) -> Option<Span> {
        let of_last = self.last.map(|(started_ms, ended_ms)| Span {
            from_ms: match (self.number, started_ms) {
                ((1, 0), _) | (_, None) => 0,
                (_, Some(started_ms)) => started_ms.saturating_sub(SLACK_MS),
            },
            until_ms: (self.is_live || previous).then_some(ended_ms),
            live: false,
        });
        match (previous, self.is_live) {
            (false, true) => Some(Span {
                from_ms: self.last.map_or(0, |(_, ended_ms)| ended_ms.saturating_add(1)),
                until_ms: None,
                live: true,
            }),
            (false, false) => of_last,
            // What came to rest for good is the present run, and the one before it is not remembered.
            (true, false) if self.is_over => None,
            (true, _) => of_last,
        }
    }
}

/// The part of a log that is one run's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    from_ms: u64,
    until_ms: Option<u64>,
    /// It goes on.
    live: bool,
}

/// Makes lines of records.
#[derive(Debug, Clone)]
struct Shape {
    timestamps: bool,
    streams: Streams,
    until_ms: Option<u64>,
    /// So many lines are left out first.
    skip: u64,
    /// So many bytes may still come.
    left: Option<u64>,
    at_line_start: bool,
}

impl Shape {
    fn new(options: &Options, span: Span) -> Self {
        Self {
            timestamps: options.timestamps,
            streams: options.streams,
            until_ms: span.until_ms,
            skip: 0,
            left: options.limit,
            at_line_start: true,
        }
    }

    /// Whether nothing more comes, whatever the log holds.
    fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// The bytes of a record that are wanted.
    fn bytes(&self, record: LogRecord) -> Option<Vec<u8>> {
        if self.until_ms.is_some_and(|until_ms| record.at_ms > until_ms) {
            return None;
        }
        let bytes = match (record.event, self.streams) {
            (LogEvent::Stdout(bytes), Streams::All | Streams::Stdout) => bytes,
            (LogEvent::Stderr(bytes), Streams::All | Streams::Stderr) => bytes,
            (LogEvent::Stdout(_) | LogEvent::Stderr(_) | LogEvent::Gap(_), _) => return None,
        };
        bytes.into_bytes().ok()
    }

    /// What a record adds to the answer.
    fn add(&mut self, record: LogRecord, to: &mut Vec<u8>) {
        let time = i64::try_from(record.at_ms).unwrap_or(i64::MAX);
        let Some(bytes) = self.bytes(record) else {
            return;
        };
        let begun = to.len();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let is_whole = line.ends_with(b"\n");
            if self.skip > 0 {
                self.skip -= u64::from(is_whole);
                continue;
            }
            if self.timestamps && self.at_line_start {
                let time = Timestamp::from_millisecond(time).unwrap_or(Timestamp::MAX);
                to.extend_from_slice(format!("{time:.9} ").as_bytes());
            }
            to.extend_from_slice(line);
            self.at_line_start = is_whole;
        }
        if let Some(left) = &mut self.left {
            let most = usize::try_from(*left).unwrap_or(usize::MAX);
            to.truncate(begun.saturating_add(most));
            *left -= (to.len() - begun) as u64;
        }
    }
}

/// Reads the output of one run.
pub(super) struct Tail {
    agent: Agent,
    vm: String,
    container: String,
    number: (u32, u32),
    stream: LogStream,
    shape: Shape,
    follow: bool,
}

impl Tail {
    /// At the beginning of what is asked for: of the container `container` of the microVM `vm`.
    pub(super) async fn open(
        agent: Agent,
        (vm, container): (&Vm, &str),
        (runs, span): (Runs, Span),
        options: &Options,
    ) -> Result<Self, ClientError> {
        let mut query = LogQuery {
            follow: options.follow && span.live,
            tail: options.tail,
            since: Some(span.from_ms.max(options.since_ms)).filter(|ms| *ms > 0),
            container: (!vm.containers.is_empty()).then(|| container.to_string()),
        };
        let mut shape = Shape::new(options, span);
        if let (Some(tail), Some(_)) = (options.tail, span.until_ms) {
            // The last lines of the log are another run's: this one's are counted first.
            query.tail = None;
            let lines = count(agent.vm_logs(&vm.id, &query).await?, &shape).await?;
            shape.skip = lines.saturating_sub(tail);
        }
        Ok(Self {
            stream: agent.vm_logs(&vm.id, &query).await?,
            agent,
            vm: vm.id.clone(),
            container: container.into(),
            number: runs.number,
            shape,
            follow: query.follow,
        })
    }

    /// The output, piece by piece.
    pub(super) fn pieces(self) -> impl Stream<Item = io::Result<Bytes>> {
        futures_util::stream::try_unfold(self, |mut tail| async move {
            let piece = tail.next().await.map_err(io::Error::other)?;
            Ok(piece.map(|piece| (piece, tail)))
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let mut piece = Vec::new();
        while piece.is_empty() {
            if self.shape.is_done() {
                return Ok(None);
            }
            let Some(record) = self.record().await? else {
                return Ok(None);
            };
            self.shape.add(record, &mut piece);
        }
        Ok(Some(piece.into()))
    }

    /// The next record of this run. The agent follows a microVM from run to run; whoever asked, wants this one.
    async fn record(&mut self) -> Result<Option<LogRecord>, ClientError> {
        while self.follow {
            tokio::select! {
                record = self.stream.next() => return record,
                () = sleep(LOOK) => {}
            }
            let goes_on = match self.agent.vm(&self.vm).await {
                Ok(vm) => {
                    let runs = Runs::of(&vm, &self.container);
                    runs.is_some_and(|runs| runs.is_live && runs.number == self.number)
                }
                Err(ClientError::Refused(_)) => false,
                // The agent is away for a moment: the stream tells whether for long.
                Err(_) => true,
            };
            self.follow = goes_on;
        }
        self.last_words().await
    }

    async fn last_words(&mut self) -> Result<Option<LogRecord>, ClientError> {
        timeout(LAST_WORDS, self.stream.next()).await.unwrap_or(Ok(None))
    }
}

/// How many lines of a log are wanted.
async fn count(mut stream: LogStream, shape: &Shape) -> Result<u64, ClientError> {
    let (mut lines, mut is_open) = (0_u64, false);
    while let Some(record) = stream.next().await? {
        let Some(bytes) = shape.bytes(record) else {
            continue;
        };
        let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
        lines = lines.saturating_add(ends as u64);
        is_open = bytes.last().map_or(is_open, |byte| *byte != b'\n');
    }
    Ok(lines.saturating_add(u64::from(is_open)))
}

#[cfg(test)]
mod tests;
