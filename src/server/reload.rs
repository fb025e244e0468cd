//! Reads the configuration again while the process serves. A configuration that cannot be served
//! changes nothing. Apps, and the settings that are declared live, change at once on all shards.
//! The other settings stay as they are until a restart, and the operator gets a note that names
//! them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::apps::{App, Apps};
use crate::bus::Outside;
use crate::cluster::ClusterWorker;
use crate::config::{
    self, Changes, Config, ConfigError, ConfigInputs, LogDirective, MemoryLimit, Resolved,
    ServerConfig,
};
use crate::id::ShardId;
use crate::shard::{InForce, ShardMessage};
use crate::webhooks::WebhookWorker;

use super::admin::{AdminAnswer, AdminRequest};
use super::ledger::Shares;
use super::logging::FilterInForce;
use super::mailboxes;
use super::notify::ServiceManager;
use super::shared::SharedState;
use super::stop::Workers;

/// The time that shards may take to adopt a configuration. They look into their mailbox each turn.
const SHARDS_TIMEOUT: Duration = Duration::from_secs(10);

/// The parts of the process that get new settings from a reload.
pub(super) struct Controls {
    /// Delivers webhooks.
    pub(super) webhooks: WebhookWorker,
    /// The thread of the cluster; `None` if the server stands alone.
    pub(super) cluster: Option<ClusterWorker>,
    /// The shards.
    pub(super) bus: Outside<ShardMessage>,
    /// The state that shards share, which a reload does not change.
    pub(super) shared: SharedState,
    /// The filter of the log.
    pub(super) filter: FilterInForce,
    /// Sets the limit of memory.
    pub(super) memory: watch::Sender<MemoryLimit>,
}

/// The configuration in force, and the inputs of the next one.
pub(super) struct Reloader<'a> {
    inputs: &'a ConfigInputs,
    controls: Controls,
    /// The process was started with the development app.
    development: bool,
    apps: Arc<Apps>,
    server: ServerConfig,
    /// The settings of the server and of apps as text.
    resolved: Vec<Resolved>,
    /// The notes that the operator has been given so far.
    notes: Vec<String>,
}

impl<'a> Reloader<'a> {
    /// Begins with the configuration of the start.
    pub(super) fn new(started: &Config, inputs: &'a ConfigInputs, controls: Controls) -> Self {
        Self {
            inputs,
            controls,
            development: started.development,
            apps: Arc::clone(&started.apps),
            server: started.server.clone(),
            resolved: started.resolved.clone(),
            notes: started.notes.clone(),
        }
    }

    /// The time over which a stop spreads its closes; `None`: chosen by the number of connections.
    pub(super) const fn shutdown_window(&self) -> Option<Duration> {
        self.server.shutdown_window
    }

    /// The apps in force.
    pub(super) const fn apps(&self) -> &Arc<Apps> {
        &self.apps
    }

    /// The threads that end behind the connections, and the limit that the memory watch follows:
    /// the watch ends when that is dropped.
    pub(super) fn into_workers(self) -> (Workers, watch::Sender<MemoryLimit>) {
        let Controls { webhooks, cluster, memory, .. } = self.controls;
        (Workers { webhooks, cluster }, memory)
    }

    /// Reads the configuration and puts it in force. Reports the outcome to the log at once, and to
    /// the service manager and the operator who asked when all shards have it. The caller does not
    /// wait for that.
    pub(super) fn reload(&mut self, manager: &Arc<ServiceManager>, request: Option<AdminRequest>) {
        manager.reloading();
        let read = self.inputs.load().map_err(ReloadError::from);
        let read = read.and_then(|config| self.adopt(config));
        let (answer, late) = match read {
            Ok(report) => {
                tracing::info!("configuration reloaded: {}", report.summary);
                report.changes.iter().for_each(|change| tracing::info!("{change}"));
                report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                (Ok(report.text()), Some(self.put_in_force()))
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::error!(
                    "cannot reload the configuration, so the old one stays in force: {reason}"
                );
                (Err(reason), None)
            }
        };
        let (manager, status) = (Arc::clone(manager), self.server.starting_line());
        tokio::spawn(async move {
            let answer = settled(answer, late).await;
            manager.ready(&status);
            if let Some(request) = request {
                request.answer(&answer).await;
            }
        });
    }

    /// Changes the filter of the log, if there is a change, until the next reload. Returns the
    /// filter in force.
    pub(super) fn change_log(&mut self, change: Option<LogDirective>) -> String {
        let filter = &mut self.controls.filter;
        if let Some(change) = change {
            let changed = filter.get().changed_by(change);
            let (before, after) = (filter.get().to_string(), changed.to_string());
            tracing::info!(before, after, "the filter of the log changes");
            filter.set(changed);
        }
        filter.get().to_string()
    }

    /// Makes the configuration that was read the one to be in force. Changes nothing if it fails.
    fn adopt(&mut self, config: Config) -> Result<ReloadReport, ReloadError> {
        if config.development && !self.development {
            // It would be served wherever the process listens, and its secret is public.
            return Err(ReloadError::NoApp);
        }
        let apps = self.apps.followed_by(&config.apps).ok_or(ReloadError::TooManyApps)?;
        let Changes { in_force: changes, pending } =
            Changes::between(&self.resolved, &config.resolved);
        let summary = summary(&self.apps, &apps, changes.is_empty());
        let new = config.notes.iter().filter(|note| !self.notes.contains(note));
        let warnings = pending.into_iter().chain(new.cloned()).collect();
        self.apps = Arc::new(apps);
        self.server = self.server.followed_by(&config.server);
        self.resolved = config::in_force(&self.resolved, &config.resolved);
        self.notes = config.notes;
        Ok(ReloadReport { summary, changes, warnings })
    }

    /// Hands the adopted configuration to all parts that work by it. The future returns the shards
    /// that have not taken it in time.
    fn put_in_force(&mut self) -> impl Future<Output = Vec<ShardId>> + use<> {
        let Controls { webhooks, cluster, bus, shared, filter, memory } = &mut self.controls;
        filter.set(self.server.log_filter());
        memory.send_if_modified(|limit| {
            std::mem::replace(limit, self.server.memory_limit) != self.server.memory_limit
        });
        // Before the shards, because a shard may send a notice of an app as soon as it has it.
        let shares = Shares::of_settings(&self.server, &self.apps);
        webhooks.configure(Arc::clone(&self.apps), shares.queue);
        if let Some(cluster) = cluster {
            cluster.configure(Arc::clone(&self.apps));
        }
        hand_out(bus, &Arc::new(shared.in_force(&self.server, &self.apps)))
    }
}

/// The reason for which a configuration that was read is not put in force.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("no app is configured any more; the development app is only served from a start on")]
    NoApp,
    #[error("there were more than 65536 different apps since the start: restart the server")]
    TooManyApps,
}

/// The outcome of a reload that succeeded.
struct ReloadReport {
    summary: String,
    changes: Vec<String>,
    warnings: Vec<String>,
}

impl ReloadReport {
    fn text(&self) -> String {
        let changes = self.changes.iter().map(|change| format!("\n{change}"));
        let warnings = self.warnings.iter().map(|warning| format!("\nNote: {warning}"));
        std::iter::once(self.summary.clone()).chain(changes).chain(warnings).collect()
    }
}

/// Sends the configuration to all shards. The future waits until they have it, and returns those
/// that do not have it in time.
fn hand_out(
    bus: &Outside<ShardMessage>,
    in_force: &Arc<InForce>,
) -> impl Future<Output = Vec<ShardId>> + use<> {
    let mut answers = Vec::new();
    bus.broadcast(|| {
        let (sender, answer) = oneshot::channel();
        answers.push(answer);
        ShardMessage::InForce(Arc::clone(in_force), sender)
    });
    async move {
        let deadline = Instant::now() + SHARDS_TIMEOUT;
        let mut late = Vec::new();
        for (shard, answer) in (0..).map(ShardId).zip(answers) {
            if !matches!(timeout_at(deadline, answer).await, Ok(Ok(()))) {
                late.push(shard);
            }
        }
        late
    }
}

/// The answer once the shards had time to adopt the configuration.
async fn settled(
    answer: AdminAnswer,
    late: Option<impl Future<Output = Vec<ShardId>>>,
) -> AdminAnswer {
    let Some(late) = late else { return answer };
    let late = late.await;
    if late.is_empty() {
        return answer;
    }
    let names = mailboxes::names(&late);
    let error = format!(
        "{names} did not take the new configuration within {} s. The rest of the server works by \
         it, and {names} will when the thread runs again; if it never does, restart the server",
        SHARDS_TIMEOUT.as_secs()
    );
    tracing::error!("{error}");
    Err(error)
}

/// Summarises a reload: `2 apps; added: shop; removed: blog`, or `2 apps; nothing changed`. `same`:
/// no setting has changed.
fn summary(before: &Apps, after: &Apps, same: bool) -> String {
    let count = after.iter().count();
    let mut text = format!("{count} app{}", if count == 1 { "" } else { "s" });
    let bare = text.len();
    let was = |app: &App| before.by_id(&app.id).map(|app| app.rules.is_enabled());
    let ids = |apps: &Apps, which: &dyn Fn(&App) -> bool| {
        let ids: Vec<_> =
            apps.iter().filter(|app| which(app)).map(|app| app.id.as_str().to_owned()).collect();
        ids.join(", ")
    };
    for (what, ids) in [
        ("added", ids(after, &|app| was(app).is_none())),
        ("enabled", ids(after, &|app| app.rules.is_enabled() && was(app) == Some(false))),
        ("disabled", ids(after, &|app| !app.rules.is_enabled() && was(app) == Some(true))),
        ("removed", ids(before, &|app| after.by_id(&app.id).is_none())),
    ] {
        if !ids.is_empty() {
            text.push_str(&format!("; {what}: {ids}"));
        }
    }
    if same && text.len() == bare {
        text.push_str("; nothing changed");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus;

    // Paused time: ten seconds pass as soon as nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_shard_that_hangs_is_named_and_the_others_have_the_configuration() {
        let mut ports = bus::connect::<ShardMessage>(3, 1).unwrap();
        let outside = ports[0].outside();
        let config = |backlog| crate::plane::BacklogLimits { connection: backlog, shard: backlog };
        let in_force = |backlog| {
            let (apps, front) = (Arc::new(Apps::new(Vec::new())), Arc::default());
            Arc::new(InForce { apps, backlog: config(backlog), front, shutdown_window: None })
        };
        let taken = |port: &mut bus::Port<ShardMessage>| match port.receive() {
            Some(ShardMessage::InForce(in_force, taken)) => {
                let _gone = taken.send(());
                Some(in_force.backlog.connection)
            }
            _ => None,
        };
        // Three reloads, of which the second shard takes none.
        for backlog in 1..=3 {
            let late = tokio::spawn(hand_out(&outside, &in_force(backlog)));
            assert_eq!(taken(&mut ports[0]), Some(backlog));
            assert_eq!(taken(&mut ports[2]), Some(backlog));
            let late = late.await.unwrap();
            assert_eq!(late, [ShardId(1)]);
            let answer = settled(Ok("fine".to_owned()), Some(async { late })).await;
            assert!(answer.unwrap_err().starts_with("shard 1 did not take the new configuration"));
        }
        // When the shard runs again, it gets the message in its mailbox, then the last one.
        assert_eq!(taken(&mut ports[1]), Some(1));
        assert!(outside.flush().is_empty());
        assert_eq!((taken(&mut ports[1]), taken(&mut ports[1])), (Some(3), None));
    }
}
