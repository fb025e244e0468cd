//! The order of the start: sockets that were passed, signals, host, Redis, listeners, log,
//! webhooks, shards, control socket, and only then the report that the server is up.

use std::process::ExitCode;
use std::sync::Arc;

use tokio::runtime;
use tokio::sync::{Mutex, watch};

use crate::bus::{self, Outside, Port};
use crate::channels::KeyHash;
use crate::cluster::{ClusterParts, ClusterWorker};
use crate::config::{Config, ConfigInputs, LogFormat, ServerConfig};
use crate::front::Listeners;
use crate::id::ShardId;
use crate::invariant::broken;
use crate::memory::Lease;
use crate::shard::run::Setup;
use crate::shard::{self, ShardMessage, ShardParts, SocketIds};
use crate::time::Clock;
use crate::webhooks::{WebhookWorker, WorkerSettings};

use super::control::Control;
use super::error::StartError;
use super::ledger::{Ledger, Shares};
use super::listen::{BoundListeners, Inherited, forgeable_addresses};
use super::logging::FilterInForce;
use super::monitor::{MonitorListener, Phase, Sources};
use super::notify::ServiceManager;
use super::preflight::HostSurvey;
use super::reload::{Controls, Reloader};
use super::shards::{Shards, pinning_note, placement};
use super::shared::SharedState;
use super::signals::Signals;
use super::sizes::{http_connections, ring_sizes, websockets};
use super::status::StatusReporter;
use super::{
    admin, banner, cluster_check, housekeeping, limits, listener_options, logging, mailboxes,
};
use super::{memory_watch, preflight};

/// Serves until a signal ends it. `inputs` is where `config` comes from, to be read again.
///
/// # Errors
/// The server cannot start, or a shard has failed.
pub(super) fn serve(mut config: Config, inputs: &ConfigInputs) -> Result<ExitCode, StartError> {
    let clock = Clock::start();
    let inherited = Inherited::take(&config.server.listeners)?;
    inherited.replace_listeners(&mut config)?;
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Control)?;
    // Before anything that a signal could interrupt: from here on it drains or is ignored.
    let signals = runtime.block_on(async { Signals::new() }).map_err(StartError::Control)?;
    let server = &config.server;
    limits::raise_nofile();
    limits::forgo_huge_pages();
    let host = preflight::check()?;
    host.holds(server.shards)?;
    if let Some(cluster) = &config.cluster {
        runtime.block_on(cluster_check::refuse_outsider(cluster))?;
    }
    let bound = match inherited.is_empty() {
        true => BoundListeners::bind(server)?,
        false => inherited.share(server.send_buffer, server.shards)?,
    };
    let started = logging::start(server.log_filter(), server.log_format);
    let (_log, filter) = started.map_err(StartError::Log)?;
    let shared = SharedState::new(http_connections(&config, &host), clock);
    let start = Start { config: &config, inputs, host: &host, shared: &shared };
    let ended = runtime.block_on(start.serve(bound, signals, filter));
    shared.refusals.log_rest();
    ended
}

/// The values that all steps of the start need.
struct Start<'a> {
    config: &'a Config,
    inputs: &'a ConfigInputs,
    host: &'a HostSurvey,
    shared: &'a SharedState,
}

/// The parts of the threads that speak with each other.
struct Setups {
    shards: Vec<Setup>,
    /// The way to send to all shards.
    bus: Outside<ShardMessage>,
    /// The parts of the cluster thread; `None` if the server stands alone.
    cluster: Option<ClusterParts>,
}

impl Start<'_> {
    /// Starts all threads and becomes the control thread.
    async fn serve(
        &self,
        bound: BoundListeners,
        signals: Signals,
        filter: FilterInForce,
    ) -> Result<ExitCode, StartError> {
        let Self { config, inputs, shared, .. } = *self;
        let server = &config.server;
        let manager = Arc::new(ServiceManager::from_environment());
        let monitor = config.admin.as_ref().map(MonitorListener::bind).transpose()?;
        let webhooks = self.start_webhooks()?;
        memory_watch::measure(server.memory_limit, &shared.allowance);
        let BoundListeners { listeners, files, inherited } = bound;
        let Setups { shards: setups, bus, cluster } = self.setups(listeners, &webhooks)?;
        // Before the shards, which speak to it as soon as they have connections.
        let cluster = cluster.map(ClusterWorker::start).transpose()?;
        let cluster_status = cluster.as_ref().map(ClusterWorker::status);
        let mut shards = Shards::start(setups, bus, files, shared.clock)?;
        let bus = shards.bus();
        tokio::spawn(mailboxes::deliver_late(bus.clone()));
        let phase = watch::Sender::new(Phase::Starting);
        if let Some(monitor) = monitor {
            let sources = Sources {
                bus: bus.clone(),
                phase: phase.subscribe(),
                cluster: cluster_status.clone(),
                webhooks: webhooks.figures(),
                shared: shared.clone(),
                asking: Mutex::default(),
            };
            tokio::spawn(monitor.serve(sources));
        }
        shards.until(|progress| progress.serving).await?;
        // Before the server is reported as up, because a deployment may reload it at once.
        let requests = admin::listen(inputs);
        phase.send_replace(Phase::Serving);
        self.announce(&shards.cores());
        manager.ready(&server.starting_line());
        tokio::spawn(Arc::clone(&manager).watch(bus.clone()));
        let memory = self.start_housekeeping(&bus);
        let reporter = StatusReporter::new(
            server,
            shards.cores(),
            bus.clone(),
            cluster_status.clone(),
            shared.clock,
        );
        let controls = Controls { webhooks, cluster, bus, shared: shared.clone(), filter, memory };
        let reloader = Reloader::new(config, inputs, controls);
        let control = Control {
            signals,
            requests,
            shards,
            cluster: cluster_status,
            reporter,
            reloader,
            manager,
            phase,
            inherited,
        };
        Ok(control.run().await?)
    }

    fn start_webhooks(&self) -> Result<WebhookWorker, StartError> {
        let Self { config: Config { server, apps, .. }, shared, .. } = self;
        let shares = Shares::of_settings(server, apps);
        let settings = WorkerSettings {
            queue_bytes: shares.queue,
            notice_bytes: shares.notices,
            debounces: self.config.cluster.is_none(),
            spool: server.webhook_spool.clone(),
        };
        Ok(WebhookWorker::start(Arc::clone(apps), settings, shared.clock)?)
    }

    /// Connects the shards, and the node of a cluster, with each other.
    fn setups(
        &self,
        listeners: Vec<Listeners>,
        webhooks: &WebhookWorker,
    ) -> Result<Setups, StartError> {
        let Self { config: Config { server, apps, cluster, .. }, host, shared, .. } = self;
        let others = u16::from(cluster.is_some());
        let ports = bus::connect_beside(shard_count(server), others, bus::MAILBOX_MESSAGES);
        let mut ports = ports.map_err(StartError::Mailboxes)?;
        // A configuration has at least one shard.
        let outside = ports.first().map(Port::outside);
        let outside = outside.ok_or_else(|| StartError::Mailboxes(NO_SHARDS.into()))?;
        let (hash, socket_ids) = (KeyHash::random(), SocketIds::new());
        let cluster = cluster.as_ref().and_then(|settings| {
            Some(ClusterParts {
                settings: Arc::new(settings.clone()),
                address: node_address(server),
                apps: Arc::clone(apps),
                hash: hash.clone(),
                port: ports.pop()?,
                notices: webhooks.notice_sender(),
                clock: shared.clock,
            })
        });
        let in_force = shared.in_force(server, apps);
        let ring = ring_sizes(self.config, host);
        let websockets_max = websockets(self.config, host);
        let Shares { cache, unfinished, .. } = Shares::of_settings(server, apps);
        let setups = ports.into_iter().zip(listeners).map(|(port, listeners)| {
            let parts = ShardParts {
                in_force: in_force.clone(),
                hash: hash.clone(),
                socket_ids: socket_ids.clone(),
                port,
                notices: webhooks.notice_sender(),
                refusals: Arc::clone(&shared.refusals),
                memory: shard::Memory {
                    lease: Lease::new(Arc::clone(&shared.allowance)),
                    cache,
                    unfinished,
                },
                clustered: others > 0,
            };
            Setup { parts, ring, websockets_max, listeners, clock: shared.clock }
        });
        Ok(Setups { shards: setups.collect(), bus: outside, cluster })
    }

    /// Logs that the server is up, and with which limits.
    fn announce(&self, cores: &[Option<usize>]) {
        let Self { config, host, .. } = self;
        let server = &config.server;
        match server.log_format {
            LogFormat::Text => banner::print(config, host, &placement(cores)),
            LogFormat::Json => log_start(server),
        }
        let limited = limit_notes(config, host);
        let notes = config.notes.iter().cloned().chain(limited).chain(forgeable_addresses(server));
        for note in notes.chain(pinning_note(cores)) {
            tracing::warn!("{note}");
        }
        Ledger::of(server, &config.apps).notes().for_each(|note| tracing::warn!("{note}"));
    }

    /// Starts the regular tasks. Returns the way to change the limit of memory.
    fn start_housekeeping(
        &self,
        bus: &Outside<ShardMessage>,
    ) -> watch::Sender<crate::config::MemoryLimit> {
        let Self { config, shared, .. } = self;
        let (memory, limit) = watch::channel(config.server.memory_limit);
        let SharedState { allowance, addresses, refusals, headroom, clock, .. } = shared;
        let (allowance, headroom) = (Arc::clone(allowance), Arc::clone(headroom));
        tokio::spawn(memory_watch::watch(limit, allowance, headroom, bus.clone()));
        tokio::spawn(housekeeping::forget_addresses(Arc::clone(addresses), *clock));
        tokio::spawn(housekeeping::log_refusals(Arc::clone(refusals), *clock));
        memory
    }
}

const NO_SHARDS: std::io::ErrorKind = std::io::ErrorKind::InvalidInput;

/// The number of shards. The settings allow fewer than a shard id can count.
fn shard_count(server: &ServerConfig) -> u16 {
    u16::try_from(server.shards).unwrap_or_else(|_| {
        broken("the configuration has more shards than a process can have");
        ShardId::MAX
    })
}

/// The name of this node for the operators of others: its host, and where it listens.
fn node_address(server: &ServerConfig) -> Box<str> {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let listener = server.listeners.first().map(|listener| format!(" {listener}"));
    format!("{host}{}", listener.unwrap_or_default()).into()
}

/// Notes about limits of the host that are lower than the settings ask for.
fn limit_notes(config: &Config, host: &HostSurvey) -> impl Iterator<Item = String> {
    let (server, nofile) = (&config.server, host.nofile.soft);
    let slots = limits::slots_note(nofile, server.max_connections_per_shard);
    let http = http_connections(config, host);
    let http = limits::http_note(nofile, http, server.max_http_connections);
    let table = limits::places_per_shard(nofile, server.max_connections_per_shard);
    let filled = websockets(config, host);
    let plain = limits::plain_note(nofile, filled, table);
    let buffers = listener_options::note(server.send_buffer);
    slots.into_iter().chain(http).chain(plain).chain(buffers)
}

/// Logs the start as one line, with fields for machines.
fn log_start(server: &ServerConfig) {
    let places: Vec<_> = server.listeners.iter().map(ToString::to_string).collect();
    let (version, listeners, shards) = (crate::version::NUMBER, places.join(", "), server.shards);
    tracing::info!(version, listeners, shards, "{}", server.starting_line());
}
