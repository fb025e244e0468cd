//! The configuration, read anew while the process serves. All or nothing: what cannot be served
//! changes nothing. Apps change at once, on all shards; settings of the server that need a new
//! process are named, and stay as they are.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::bus::Outside;
use crate::config::{Config, ConfigError, Origin};
use crate::protocol::app::{App, Apps};
use crate::shard::Message;
use crate::webhooks::Courier;

use super::admin::{Request, Verdict};
use super::notify::ServiceManager;

/// Settings of the server that change without a restart: this thread's own, and one that apps
/// take along.
const LIVE: [&str; 2] = ["server.max_request_size", "server.shutdown_window"];

/// How long shards may take to see the new apps. They look into their mailbox in each turn.
const SHARDS_TIMEOUT: Duration = Duration::from_secs(10);

/// What is in force, and where to look for what comes next.
pub(super) struct Reload<'a> {
    origin: &'a Origin,
    courier: &'a Courier,
    /// What the process was started with.
    started: &'a Config,
    apps: Arc<Apps>,
    /// What the operator has been told so far.
    notes: Vec<String>,
    shutdown_window: Option<Duration>,
}

impl<'a> Reload<'a> {
    /// Nothing has been read anew yet.
    pub(super) fn new(started: &'a Config, origin: &'a Origin, courier: &'a Courier) -> Self {
        Self {
            origin,
            courier,
            started,
            apps: Arc::clone(&started.apps),
            notes: started.notes.clone(),
            shutdown_window: started.server.shutdown_window,
        }
    }

    /// The time over which a stop spreads its closes, as last read.
    pub(super) const fn shutdown_window(&self) -> Option<Duration> {
        self.shutdown_window
    }

    /// The apps, as last read.
    pub(super) const fn apps(&self) -> &Arc<Apps> {
        &self.apps
    }

    /// Reads the configuration, hands the apps to all shards, and tells the log, the service
    /// manager and whoever asked what came of it. The last two once all shards have the apps, and
    /// without keeping the caller waiting.
    pub(super) fn run(
        &mut self,
        bus: &Outside<Message>,
        manager: &Arc<ServiceManager>,
        request: Option<Request>,
    ) {
        manager.reloading();
        let read = self.origin.load().and_then(|config| self.adopt(config));
        let (verdict, taken) = match read {
            Ok(report) => {
                tracing::info!("the configuration was read anew: {}", report.summary);
                report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                // First: a shard may tell of an app as soon as it knows it.
                self.courier.configure(Arc::clone(&self.apps));
                (Ok(report.text()), Some(hand_out(bus, &self.apps)))
            }
            Err(error) => {
                tracing::error!("the configuration stays as it was: {error}");
                (Err(error.to_string()), None)
            }
        };
        let (manager, status) = (Arc::clone(manager), self.started.server.starting_line());
        tokio::spawn(async move {
            let verdict = settled(verdict, taken).await;
            manager.ready(&status);
            if let Some(request) = request {
                request.answer(&verdict).await;
            }
        });
    }

    fn adopt(&mut self, config: Config) -> Result<Report, ConfigError> {
        if config.development && !self.started.development {
            // It would come to wherever the process listens, and its secret is public.
            return Err(ConfigError::new(
                "no app is configured any more; the development app is only served from a start on",
            ));
        }
        let apps = self.apps.followed_by(&config.apps).ok_or_else(|| {
            ConfigError::new(
                "there were more than 65536 different apps since the start: restart the server",
            )
        })?;
        let summary = summary(&self.apps, &apps);
        let mut warnings: Vec<_> = restart_needed(self.started, &config).into_iter().collect();
        let new = config.notes.iter().filter(|note| !self.notes.contains(note));
        warnings.extend(new.cloned());
        self.apps = Arc::new(apps);
        self.notes = config.notes;
        self.shutdown_window = config.server.shutdown_window;
        Ok(Report { summary, warnings })
    }
}

/// What a reload comes to.
struct Report {
    summary: String,
    warnings: Vec<String>,
}

impl Report {
    fn text(&self) -> String {
        let warnings = self.warnings.iter().map(|warning| format!("\nNote: {warning}"));
        std::iter::once(self.summary.clone()).chain(warnings).collect()
    }
}

/// Sends the apps to all shards. The future waits until they have them: `false` if one does not.
fn hand_out(bus: &Outside<Message>, apps: &Arc<Apps>) -> impl Future<Output = bool> + use<> {
    let mut taken = Vec::new();
    bus.broadcast(|| {
        let (tell, told) = oneshot::channel();
        taken.push(told);
        Message::Apps(Arc::clone(apps), tell)
    });
    async move {
        let all = async {
            for told in taken {
                if told.await.is_err() {
                    return false;
                }
            }
            true
        };
        timeout(SHARDS_TIMEOUT, all).await.unwrap_or(false)
    }
}

async fn settled(verdict: Verdict, taken: Option<impl Future<Output = bool>>) -> Verdict {
    let Some(taken) = taken else { return verdict };
    if taken.await {
        return verdict;
    }
    let error = "a shard has not taken the new apps; the log of the server tells more";
    tracing::error!("{error}");
    Err(error.to_owned())
}

/// `2 apps; added: shop; removed: blog`.
fn summary(before: &Apps, after: &Apps) -> String {
    let count = after.iter().count();
    let mut text = format!("{count} app{}", if count == 1 { "" } else { "s" });
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
    text
}

/// Names the settings that are other than those that the process was started with, and that it
/// cannot change.
fn restart_needed(started: &Config, config: &Config) -> Option<String> {
    let fixed = |key: &str| key.starts_with("server.") && !LIVE.contains(&key);
    let was = |key: &str| started.resolved.iter().find(|line| line.key == key);
    let changed = config.resolved.iter().filter(|line| fixed(&line.key));
    let changed = changed.filter(|line| was(&line.key).is_none_or(|was| was.value != line.value));
    let keys: Vec<_> = changed.map(|line| line.key.as_str()).collect();
    (!keys.is_empty()).then(|| {
        let s = if keys.len() == 1 { "s" } else { "" };
        format!("{} change{s} with a restart only.", keys.join(", "))
    })
}
