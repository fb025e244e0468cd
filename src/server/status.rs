//! The status of the server, for `ringwave status`: its version and process, since when it serves,
//! and the counts of each shard, which are asked for at that moment.
//!
//! A shard that does not answer within two seconds is reported as silent, with unknown counts.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::admin::AdminRequest;
use super::asking::ask;
use crate::apps::Apps;
use crate::bus::Outside;
use crate::cluster::ClusterStatus;
use crate::config::ServerConfig;
use crate::shard::{ShardMessage, Totals};
use crate::time::{Clock, Millis};
use crate::version;

/// The time that shards may take to answer. A turn under full load takes some milliseconds.
const SHARDS_TIMEOUT: Duration = Duration::from_secs(2);

/// The status of a server, as `ringwave status --json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerStatus {
    /// The version of the running program.
    pub(crate) version: String,
    /// The commit that it was built from, if that is known.
    #[serde(default)]
    pub(crate) commit: Option<String>,
    /// Its process id.
    pub(crate) pid: u32,
    /// Whether it serves or stops.
    pub(crate) state: ServerState,
    /// The time at which it began to serve (RFC 3339, UTC).
    pub(crate) started_at: String,
    /// The time since then, in seconds.
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
    /// The cluster; `None` if the server stands alone.
    #[serde(default)]
    pub(crate) cluster: Option<ClusterStatus>,
}

/// The state of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ServerState {
    /// It accepts connections.
    #[default]
    Serving,
    /// It stops.
    Stopping,
}

/// One app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppStatus {
    /// Its id, as in `/apps/ID`.
    pub(crate) id: String,
    /// Whether its clients are admitted.
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
    /// The core that its thread is pinned to; `None`: the system did not allow that.
    pub(crate) core: Option<usize>,
    /// Whether it answered. The counts of a shard that did not are unknown.
    pub(crate) answered: bool,
    /// Its open WebSockets.
    pub(crate) connections: Option<u64>,
    /// The occupied channels whose home it is.
    pub(crate) channels: Option<u64>,
}

/// Answers requests for the status, with the facts that the control thread knows and the counts of
/// shards.
pub(super) struct StatusReporter {
    clock: Clock,
    /// The time at which the server began to serve.
    started: Millis,
    /// The same as text (RFC 3339, UTC).
    started_at: String,
    listeners: Vec<String>,
    /// The core of each shard.
    cores: Vec<Option<usize>>,
    bus: Outside<ShardMessage>,
    cluster: Option<watch::Receiver<ClusterStatus>>,
}

impl StatusReporter {
    /// The reporter of a server that serves from now on.
    pub(super) fn new(
        server: &ServerConfig,
        cores: Vec<Option<usize>>,
        bus: Outside<ShardMessage>,
        cluster: Option<watch::Receiver<ClusterStatus>>,
        clock: Clock,
    ) -> Self {
        let listeners = server.listeners.iter().map(ToString::to_string).collect();
        let (started, started_at) = (clock.now(), now());
        Self { clock, started, started_at, listeners, cores, bus, cluster }
    }

    /// Answers a request when the shards have answered, without making the caller wait.
    pub(super) fn answer(&self, request: AdminRequest, apps: &Arc<Apps>, state: ServerState) {
        let mut status = ServerStatus {
            version: version::NUMBER.to_owned(),
            commit: version::COMMIT.map(str::to_owned),
            pid: std::process::id(),
            state,
            started_at: self.started_at.clone(),
            uptime_s: self.clock.now().since(self.started).as_secs(),
            listeners: self.listeners.clone(),
            cluster: self.cluster.as_ref().map(|status| status.borrow().clone()),
            ..ServerStatus::default()
        };
        let (apps, cores) = (Arc::clone(apps), self.cores.clone());
        let counted = ask(&self.bus, SHARDS_TIMEOUT, ShardMessage::Count);
        tokio::spawn(async move {
            status.count(&apps, &cores, &counted.await);
            let text = serde_json::to_string(&status).map_err(|error| error.to_string());
            request.answer(&text).await;
        });
    }
}

impl ServerStatus {
    /// Adds the counts of the shards.
    fn count(&mut self, apps: &Apps, cores: &[Option<usize>], counts: &[Option<Totals>]) {
        let of_app = |index: usize| -> u64 {
            let channels = counts.iter().flatten().filter_map(|counts| counts.channels.get(index));
            channels.map(|&count| u64::from(count)).sum()
        };
        self.apps = apps
            .iter()
            .map(|app| AppStatus {
                id: app.id.clone(),
                enabled: app.rules.is_enabled(),
                connections: app.counters.connections().into(),
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

/// The date and time in whole seconds, in the form of the log.
fn now() -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _never = SystemTime.format_time(&mut Writer::new(&mut text));
    text.split('.').next().map(|seconds| format!("{seconds}Z")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::test_app;
    use crate::bus;

    // Paused time: the timeout is over as soon as nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_shard_that_does_not_answer_is_named_and_delays_no_answer() {
        let mut ports = bus::connect::<ShardMessage>(3, 1).unwrap();
        let outside = ports[0].outside();
        // The mailbox of shard 2 is full, shard 1 takes nothing.
        ports[0].send(crate::id::ShardId(2), ShardMessage::CloseListeners);
        let asked = tokio::spawn(ask(&outside, SHARDS_TIMEOUT, ShardMessage::Count));
        let Some(ShardMessage::Count(sender)) = ports[0].receive() else { panic!("not asked") };
        sender.send(Totals { connections: 7, channels: vec![5] }).unwrap();
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
