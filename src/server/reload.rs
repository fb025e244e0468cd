//! The configuration, read anew while the process serves. All or nothing: a configuration that
//! cannot be served changes nothing. Apps change at once, on all shards, and so do the settings
//! that are declared to take effect on a reload; changes of the others are named, and wait for a
//! restart.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::bus::Outside;
use crate::config::{
    self, Changes, Config, ConfigError, ConfigInputs, MemoryLimit, Resolved, ServerConfig,
};
use crate::id::ShardId;
use crate::protocol::app::{App, Apps};
use crate::shard::{InForce, Message};
use crate::webhooks::Courier;

use super::FrontShared;
use super::admin::{Request, Verdict};
use super::ledger::Shares;
use super::logging::LogLevel;
use super::mailboxes;
use super::notify::ServiceManager;

/// The time in which shards have to adopt a configuration. They read their mailbox in each turn, so
/// one that takes longer hangs.
const SHARDS_TIMEOUT: Duration = Duration::from_secs(10);

/// The parts of the process that work by settings and that a reload tells of new ones.
pub(super) struct Controls<'a> {
    /// Delivers webhooks.
    pub(super) courier: &'a Courier,
    /// The shards.
    pub(super) bus: Outside<Message>,
    /// The state that the fronts keep while their settings change.
    pub(super) shared: FrontShared,
    /// The log.
    pub(super) level: LogLevel,
    /// The watch of the memory.
    pub(super) memory: watch::Sender<MemoryLimit>,
}

/// The configuration in force, and where to read the next one.
pub(super) struct Reload<'a> {
    inputs: &'a ConfigInputs,
    controls: Controls<'a>,
    /// The process was started with the development app.
    development: bool,
    apps: Arc<Apps>,
    server: ServerConfig,
    /// The same as text, with the settings of apps.
    resolved: Vec<Resolved>,
    /// The notes that the operator has been given so far.
    notes: Vec<String>,
}

impl<'a> Reload<'a> {
    /// Nothing has been read anew yet.
    pub(super) fn new(started: &Config, inputs: &'a ConfigInputs, controls: Controls<'a>) -> Self {
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

    /// The time over which a stop spreads its closes, as last read.
    pub(super) const fn shutdown_window(&self) -> Option<Duration> {
        self.server.shutdown_window
    }

    /// The apps, as last read.
    pub(super) const fn apps(&self) -> &Arc<Apps> {
        &self.apps
    }

    /// Reads the configuration, puts it in force, and reports the outcome to the log, the service
    /// manager and the operator who asked. The last two hear of it once all shards have it, and the
    /// caller does not wait for that.
    pub(super) fn run(&mut self, manager: &Arc<ServiceManager>, request: Option<Request>) {
        manager.reloading();
        let read = self.inputs.load().map_err(ReloadError::Config);
        let read = read.and_then(|config| self.adopt(config));
        let (verdict, late) = match read {
            Ok(report) => {
                tracing::info!("the configuration was read anew: {}", report.summary);
                report.changes.iter().for_each(|change| tracing::info!("{change}"));
                report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                (Ok(report.text()), Some(self.put_in_force()))
            }
            Err(error) => {
                tracing::error!("the configuration stays as it was: {error}");
                (Err(error.to_string()), None)
            }
        };
        let (manager, status) = (Arc::clone(manager), self.server.starting_line());
        tokio::spawn(async move {
            let verdict = settled(verdict, late).await;
            manager.ready(&status);
            if let Some(request) = request {
                request.answer(&verdict).await;
            }
        });
    }

    /// Takes the configuration that was read as the one in force. On an error nothing changes.
    fn adopt(&mut self, config: Config) -> Result<Report, ReloadError> {
        if config.development && !self.development {
            // It would come to wherever the process listens, and its secret is public.
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
        Ok(Report { summary, changes, warnings })
    }

    /// Hands the adopted configuration to all parts that work by it. The future returns the shards
    /// that have not taken it in time.
    fn put_in_force(&self) -> impl Future<Output = Vec<ShardId>> + use<> {
        let Controls { courier, bus, shared, level, memory } = &self.controls;
        level.set_debug(self.server.debug);
        memory.send_if_modified(|limit| {
            std::mem::replace(limit, self.server.memory_limit) != self.server.memory_limit
        });
        // Before the shards: one of them may tell of an app as soon as it knows it.
        let shares = Shares::of_settings(&self.server, &self.apps);
        courier.configure(Arc::clone(&self.apps), shares.queue);
        hand_out(bus, &Arc::new(super::in_force(&self.server, &self.apps, shared)))
    }
}

/// The reason why a configuration that was read anew is not put in force.
#[derive(Debug)]
enum ReloadError {
    /// It cannot be served.
    Config(ConfigError),
    /// It has no app, so that the development app would be served.
    NoApp,
    /// With its apps there were more since the start than an [`AppIndex`](crate::id::AppIndex) can
    /// tell apart.
    TooManyApps,
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::NoApp => f.write_str(
                "no app is configured any more; the development app is only served from a start on",
            ),
            Self::TooManyApps => f.write_str(
                "there were more than 65536 different apps since the start: restart the server",
            ),
        }
    }
}

impl Error for ReloadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(error) => error.source(),
            Self::NoApp | Self::TooManyApps => None,
        }
    }
}

/// The outcome of a reload.
struct Report {
    summary: String,
    changes: Vec<String>,
    warnings: Vec<String>,
}

impl Report {
    fn text(&self) -> String {
        let changes = self.changes.iter().map(|change| format!("\n{change}"));
        let warnings = self.warnings.iter().map(|warning| format!("\nNote: {warning}"));
        std::iter::once(self.summary.clone()).chain(changes).chain(warnings).collect()
    }
}

/// Sends it to all shards. The future waits until they have it, and returns those that have not in
/// time.
fn hand_out(
    bus: &Outside<Message>,
    in_force: &Arc<InForce>,
) -> impl Future<Output = Vec<ShardId>> + use<> {
    let mut answers = Vec::new();
    bus.broadcast(|| {
        let (tell, told) = oneshot::channel();
        answers.push(told);
        Message::InForce(Arc::clone(in_force), tell)
    });
    async move {
        let deadline = Instant::now() + SHARDS_TIMEOUT;
        let mut late = Vec::new();
        for (shard, told) in (0..).map(ShardId).zip(answers) {
            if !matches!(timeout_at(deadline, told).await, Ok(Ok(()))) {
                late.push(shard);
            }
        }
        late
    }
}

async fn settled(verdict: Verdict, late: Option<impl Future<Output = Vec<ShardId>>>) -> Verdict {
    let Some(late) = late else { return verdict };
    let late = late.await;
    if late.is_empty() {
        return verdict;
    }
    let names = mailboxes::names(&late);
    let error = format!(
        "{names} did not take the new configuration within {} s. The rest of the server works by \
         it, and {names} will as soon as it turns again; if it never does, restart the server",
        SHARDS_TIMEOUT.as_secs()
    );
    tracing::error!("{error}");
    Err(error)
}

/// `2 apps; added: shop; removed: blog`, or `2 apps; nothing changed`. `same` says that no setting
/// changed.
fn summary(before: &Apps, after: &Apps, same: bool) -> String {
    let count = after.iter().count();
    let mut text = format!("{count} app{}", if count == 1 { "" } else { "s" });
    let bare = text.len();
    let was = |app: &App| before.by_id(&app.id).map(|app| app.is_enabled());
    let ids = |apps: &Apps, which: &dyn Fn(&App) -> bool| {
        let ids: Vec<_> =
            apps.iter().filter(|app| which(app)).map(|app| app.id.as_str().to_owned()).collect();
        ids.join(", ")
    };
    for (what, ids) in [
        ("added", ids(after, &|app| was(app).is_none())),
        ("enabled", ids(after, &|app| app.is_enabled() && was(app) == Some(false))),
        ("disabled", ids(after, &|app| !app.is_enabled() && was(app) == Some(true))),
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
    async fn a_shard_that_does_not_turn_is_named_and_the_others_have_the_configuration() {
        let mut ports = bus::connect::<Message>(3, 1).unwrap();
        let outside = ports[0].outside();
        let config = |backlog| crate::plane::BacklogLimits { connection: backlog, shard: backlog };
        let in_force = |backlog| {
            let (apps, front) = (Arc::new(Apps::new(Vec::new())), Arc::default());
            Arc::new(InForce { apps, backlog: config(backlog), front })
        };
        let taken = |port: &mut bus::Port<Message>| match port.receive() {
            Some(Message::InForce(in_force, taken)) => {
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
            let verdict = settled(Ok("fine".to_owned()), Some(async { late })).await;
            assert!(verdict.unwrap_err().starts_with("shard 1 did not take the new configuration"));
        }
        // When it turns again it has what it had in its mailbox, then the last one.
        assert_eq!(taken(&mut ports[1]), Some(1));
        assert!(outside.flush().is_empty());
        assert_eq!((taken(&mut ports[1]), taken(&mut ports[1])), (Some(3), None));
    }
}
