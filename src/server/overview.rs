//! How the server is, for `ringwave status`: who it is, since when it serves, and what each shard
//! has, asked of the shards at that moment.
//!
//! Contract: the control thread is never held up. A shard gets its question only if its mailbox has
//! room, and two seconds to answer; one that does not is told as silent, and what it has is
//! unknown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout_at;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::admin::Request;
use crate::bus::Outside;
use crate::config::ServerConfig;
use crate::protocol::app::Apps;
use crate::shard::{Counts, Message};
use crate::version;

/// How long shards may take to answer. A turn under full load takes some milliseconds.
const SHARDS_TIMEOUT: Duration = Duration::from_secs(2);

/// The answer to a question for the status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerStatus {
    /// The version of the running program.
    pub(crate) version: String,
    /// The commit that it was built from, if that is known.
    #[serde(default)]
    pub(crate) commit: Option<String>,
    /// Its process.
    pub(crate) pid: u32,
    /// Whether it serves or stops.
    pub(crate) state: State,
    /// The time at which it began to serve (RFC 3339, UTC).
    pub(crate) started_at: String,
    /// How long ago that was.
    pub(crate) uptime_s: u64,
    /// The addresses that it listens on.
    pub(crate) listeners: Vec<String>,
    /// Open WebSockets of all apps.
    pub(crate) connections: u64,
    /// Occupied channels of all apps, those of silent shards not counted.
    pub(crate) channels: u64,
    /// The configured apps.
    pub(crate) apps: Vec<AppStatus>,
    /// All shards, in order.
    pub(crate) shards: Vec<ShardStatus>,
}

/// The state of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It serves.
    #[default]
    Serving,
    /// It was told to stop.
    Stopping,
}

/// One app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppStatus {
    /// As in `/apps/ID`.
    pub(crate) id: String,
    /// Whether it is served.
    pub(crate) enabled: bool,
    /// Its open WebSockets.
    pub(crate) connections: u64,
    /// Its occupied channels, those of silent shards not counted.
    pub(crate) channels: u64,
}

/// One shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardStatus {
    /// Its number.
    pub(crate) shard: usize,
    /// The core that its thread is pinned to; `None`: the system did not let it be.
    pub(crate) core: Option<usize>,
    /// Whether it answered. What a silent one has is not known.
    pub(crate) answered: bool,
    /// Its open WebSockets.
    pub(crate) connections: Option<u64>,
    /// The occupied channels whose home it is.
    pub(crate) channels: Option<u64>,
}

/// The facts that the control thread knows, and the bus by which it asks for the rest.
pub(super) struct Overview {
    /// The time at which it began to serve.
    started: Instant,
    /// The same, as text.
    started_at: String,
    listeners: Vec<String>,
    /// By shard.
    cores: Vec<Option<usize>>,
    bus: Outside<Message>,
}

impl Overview {
    /// The overview of a server that serves from now on.
    pub(super) fn new(
        server: &ServerConfig,
        cores: Vec<Option<usize>>,
        bus: Outside<Message>,
    ) -> Self {
        let listeners = server.listeners.iter().map(ToString::to_string).collect();
        Self { started: Instant::now(), started_at: now(), listeners, cores, bus }
    }

    /// Answers a request in its own time, without keeping the caller waiting.
    pub(super) fn answer(&self, request: Request, apps: &Arc<Apps>, state: State) {
        let mut status = ServerStatus {
            version: version::NUMBER.to_owned(),
            commit: version::COMMIT.map(str::to_owned),
            pid: std::process::id(),
            state,
            started_at: self.started_at.clone(),
            uptime_s: self.started.elapsed().as_secs(),
            listeners: self.listeners.clone(),
            ..ServerStatus::default()
        };
        let (apps, cores) = (Arc::clone(apps), self.cores.clone());
        let counted = counts(&self.bus, cores.len());
        tokio::spawn(async move {
            status.count(&apps, &cores, &counted.await);
            let text = serde_json::to_string(&status).map_err(|error| error.to_string());
            request.answer(&text).await;
        });
    }
}

/// Asks all shards at once. The future has what each of them answers in time.
fn counts(
    bus: &Outside<Message>,
    shards: usize,
) -> impl Future<Output = Vec<Option<Counts>>> + use<> {
    let mut answers = Vec::with_capacity(shards);
    // A mailbox that is full is that of a shard that does not turn: its answer is lost with it.
    bus.offer(|| {
        let (tell, told) = oneshot::channel();
        answers.push(told);
        Message::Count(tell)
    });
    async move {
        let deadline = tokio::time::Instant::now() + SHARDS_TIMEOUT;
        let mut counts = Vec::with_capacity(answers.len());
        for answer in answers {
            counts.push(timeout_at(deadline, answer).await.ok().and_then(Result::ok));
        }
        counts
    }
}

impl ServerStatus {
    /// Adds up what the shards have told.
    fn count(&mut self, apps: &Apps, cores: &[Option<usize>], counts: &[Option<Counts>]) {
        let of_app = |index: usize| -> u64 {
            let told = counts.iter().flatten().filter_map(|counts| counts.channels.get(index));
            told.map(|&channels| u64::from(channels)).sum()
        };
        self.apps = apps
            .iter()
            .map(|app| AppStatus {
                id: app.id.clone(),
                enabled: app.is_enabled(),
                connections: app.connections.count().into(),
                channels: of_app(app.index.0.into()),
            })
            .collect();
        self.connections = self.apps.iter().map(|app| app.connections).sum();
        self.channels = self.apps.iter().map(|app| app.channels).sum();
        let shards = cores.iter().zip(counts).enumerate();
        self.shards = shards
            .map(|(shard, (&core, counts))| ShardStatus {
                shard,
                core,
                answered: counts.is_some(),
                connections: counts.as_ref().map(|counts| counts.connections as u64),
                channels: counts.as_ref().map(|counts| {
                    counts.channels.iter().map(|&channels| u64::from(channels)).sum()
                }),
            })
            .collect();
    }

    /// The numbers of the shards that did not answer.
    #[must_use]
    pub(crate) fn silent(&self) -> Vec<usize> {
        self.shards.iter().filter(|shard| !shard.answered).map(|shard| shard.shard).collect()
    }
}

/// The time in whole seconds, as the log has it.
fn now() -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _never = SystemTime.format_time(&mut Writer::new(&mut text));
    text.split('.').next().map(|seconds| format!("{seconds}Z")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus;
    use crate::protocol::app::test_app;

    // Paused time: the timeout is over as soon as nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_shard_that_does_not_answer_is_named_and_holds_nobody_up() {
        let mut ports = bus::connect::<Message>(3, 1).unwrap();
        let outside = ports[0].outside();
        // The mailbox of shard 2 is full, shard 1 takes nothing.
        ports[0].send(crate::id::ShardId(2), Message::CloseListeners);
        let asked = tokio::spawn(counts(&outside, 3));
        let Some(Message::Count(tell)) = ports[0].receive() else { panic!("not asked") };
        tell.send(Counts { connections: 7, channels: vec![5] }).unwrap();
        let counts = asked.await.unwrap();
        let mut status = ServerStatus::default();
        status.count(&Apps::new(vec![test_app()]), &[Some(0), Some(1), None], &counts);
        assert_eq!(status.silent(), [1, 2]);
        assert_eq!((status.channels, status.apps[0].channels), (5, 5));
        assert_eq!(status.shards[0].connections, Some(7));
        assert_eq!((status.shards[1].core, status.shards[2].core), (Some(1), None));
    }

    #[test]
    fn the_time_is_told_in_whole_seconds_of_utc() {
        let now = now();
        assert_eq!((now.len(), now.ends_with('Z')), ("2026-01-01T00:00:00Z".len(), true), "{now}");
    }
}
