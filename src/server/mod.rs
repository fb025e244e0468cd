//! Floor 7. The process: what happens in which order from a configuration to an exit code.
//!
//! The main thread becomes the control thread: signals, reloads, and what shards report. Each shard
//! has a thread of its own, pinned to a core if the system allows; webhooks have one that is not.
//! Nothing is bound before the host has been found able.

pub(crate) mod admin;
pub(crate) mod ledger;
pub(crate) mod limits;
mod listen;
mod listener_options;
pub(crate) mod logging;
mod mailboxes;
mod memory_watch;
mod notify;
pub(crate) mod overview;
pub(crate) mod preflight;
mod reload;
mod screen;
mod shards;
pub(crate) mod signals;
mod status;
mod stop;
pub(crate) mod tcp_memory;
mod unix_socket;

use std::fmt;
use std::io;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::bus::{self, Outside, Port};
use crate::channels::KeyHash;
use crate::config::{Config, ListenAddr, LogFormat, Origin, ServerConfig};
use crate::front::{self, Door, Listeners};
use crate::id::ShardId;
use crate::memory::{Allowance, Holder, Lease, Per};
use crate::plane::BacklogLimits;
use crate::protocol::app::Apps;
use crate::refusals::Refusals;
use crate::ring::UringSizes;
use crate::shard::run::Setup;
use crate::shard::{self, Drain, InForce, Message, ShardParts, SocketIds};
use crate::webhooks::{self, Courier};

use admin::Question;
use ledger::{Ledger, Shares};
use listen::{Bound, Inherited};
use logging::LogLevel;
use notify::ServiceManager;
use overview::{Overview, State};
use preflight::{Host, HostError};
use reload::{Controls, Reload};
use shards::Shards;
pub(crate) use shards::placement;
use signals::{Signal, Signals};

/// The host or its configuration does not allow to serve (`EX_CONFIG` of `sysexits.h`).
const EXIT_HOST: u8 = 78;

/// A mistake in the program itself (`EX_SOFTWARE`).
const EXIT_SOFTWARE: u8 = 70;

/// Entries of a shard's submission queue: what one system call carries. The fan-out of a larger
/// channel takes several; a larger queue no longer lowers the cost per send.
const SUBMISSIONS: u32 = 4096;

/// Receive buffers per shard. Held within a turn only, so a few hundred serve any number of
/// connections: who finds none in a turn is received from in the next. The kernel goes through all
/// of them however few are in use, so that a shard soon holds them all: 1 MiB.
const RECEIVE_BUFFERS: u16 = 512;

/// Nearly every message of a client is smaller than this, header included, and so is handled in
/// place.
const RECEIVE_BUFFER_SIZE: usize = 2048;

/// Bytes of an entry of a ring of buffers, of submissions (with its place in the index) and of
/// completions, in `<linux/io_uring.h>`.
const RING_ENTRY: usize = 16;
const SUBMISSION: usize = 64 + 4;
const COMPLETION: usize = 16;

/// How often addresses are looked through.
const DOOR_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is told at most that addresses are not counted.
const UNCOUNTED_INTERVAL: Duration = Duration::from_secs(60);

/// How often it is looked whether the minute of a refusal is over.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// Serves until a signal ends it. `origin` is where `config` comes from, to be read anew.
#[must_use]
pub(crate) fn run(config: Config, origin: &Origin) -> ExitCode {
    match serve(config, origin) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ringwave: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn serve(mut config: Config, origin: &Origin) -> Result<ExitCode, StartError> {
    let inherited = Inherited::take(&config.server.listeners)?;
    inherited.replace_listeners(&mut config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Thread)?;
    // First of all: from here on a signal drains, or is ignored.
    let signals = runtime.block_on(async { Signals::new() }).map_err(StartError::Thread)?;
    let server = &config.server;
    limits::raise_nofile();
    limits::forgo_huge_pages();
    let host = preflight::check()?;
    host.holds(server.shards)?;
    let bound = match inherited.is_empty() {
        true => Bound::bind(server)?,
        false => inherited.share(server.send_buffer, server.shards)?,
    };
    let format = match server.log_format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    let (_log, level) = logging::start(server.debug, format).map_err(StartError::Log)?;
    let http_connections_max = http_connections(&config, &host);
    let shared = FrontShared { http_connections_max, ..FrontShared::default() };
    let outer = (signals, level);
    let ended = runtime.block_on(control(&config, origin, &host, bound, &shared, outer));
    shared.refusals.tell_rest();
    ended
}

/// The control thread from here on.
async fn control(
    config: &Config,
    origin: &Origin,
    host: &Host,
    bound: Bound,
    shared: &FrontShared,
    (mut signals, level): (Signals, LogLevel),
) -> Result<ExitCode, StartError> {
    let server = &config.server;
    let manager = Arc::new(ServiceManager::from_environment());
    let courier = start_courier(config)?;
    memory_watch::measure(server.memory_limit, &shared.allowance);
    let (Bound { listeners, files, inherited }, started) = (bound, Instant::now());
    let at_start = in_force(server, &config.apps, shared);
    let parts = (&at_start, &courier, shared);
    let (setups, bus) = setups(server, ring_sizes(config, host), listeners, parts, started)?;
    let mut shards = Shards::start(setups, bus, files, started)?;
    let bus = shards.bus();
    tokio::spawn(mailboxes::deliver_late(bus.clone()));
    shards.until(|progress| progress.serving).await?;
    // Before the server is reported as up: a deployment may reload it at once.
    let mut requests = admin::listen(origin);
    announce(config, host, &shards.cores());
    manager.ready(&server.starting_line());
    tokio::spawn(Arc::clone(&manager).watch(bus.clone()));
    let (memory, limit) = watch::channel(server.memory_limit);
    tokio::spawn(memory_watch::watch(limit, Arc::clone(&shared.allowance), bus.clone()));
    tokio::spawn(keep_door(Arc::clone(&shared.door)));
    tokio::spawn(tell_refusals(Arc::clone(&shared.refusals)));
    let overview = Overview::new(server, shards.cores(), bus.clone());
    let controls = Controls { courier: &courier, bus, shared: shared.clone(), level, memory };
    let mut reload = Reload::new(config, origin, controls);
    let signal = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => reload.run(&manager, None),
                end => break end,
            },
            Some(request) = requests.recv() => match request.question() {
                Question::Reload => reload.run(&manager, Some(request)),
                Question::Status => overview.answer(request, reload.apps(), State::Serving),
            },
            failure = shards.failure() => return Err(failure),
        }
    };
    if let Signal::Now { exit_code } = signal {
        return Ok(ExitCode::from(exit_code));
    }
    let apps = Arc::clone(reload.apps());
    let connections = apps.iter().map(|app| u64::from(app.connections.count())).sum();
    let window = stop::window(reload.shutdown_window(), connections);
    let drain = Drain { window, successor: inherited };
    let shown = format!("{}s", window.as_secs_f64());
    tracing::info!(connections, window = %shown, "Gracefully terminating connections.");
    manager.stopping(stop::patience(drain));
    let mut stopping = pin!(stop::run(&mut shards, courier, drain));
    loop {
        tokio::select! {
            ended = &mut stopping => return ended.map(|()| ExitCode::SUCCESS),
            signal = signals.next() => if let Signal::Now { exit_code } = signal {
                return Ok(ExitCode::from(exit_code));
            },
            Some(request) = requests.recv() => match request.question() {
                Question::Reload => request.refuse("the server stops"),
                Question::Status => overview.answer(request, &apps, State::Stopping),
            },
        }
    }
}

/// Tells that the server is up, with which limits.
fn announce(config: &Config, host: &Host, cores: &[Option<usize>]) {
    let server = &config.server;
    match server.log_format {
        LogFormat::Text => screen::print(config, host, &placement(cores)),
        LogFormat::Json => tell_start(server),
    }
    let slots = limits::slots_note(host.nofile.soft, server.max_connections_per_shard);
    let http = http_connections(config, host);
    let http = limits::http_note(host.nofile.soft, http, server.max_http_connections);
    let table = limits::slots_per_shard(host.nofile.soft, server.max_connections_per_shard);
    let filled = ring_sizes(config, host).slots;
    let plain = limits::plain_note(host.nofile.soft, filled, table);
    let buffers = listener_options::note(server.send_buffer);
    let limited = slots.into_iter().chain(http).chain(plain).chain(buffers);
    let notes =
        config.notes.iter().cloned().chain(limited).chain(listen::believed_strangers(server));
    for note in notes.chain(shards::pinning_note(cores)) {
        tracing::warn!("{note}");
    }
    Ledger::of(server, &config.apps).notes().for_each(|note| tracing::warn!("{note}"));
}

/// The start as one line of the log, with what a machine looks for as fields.
fn tell_start(server: &ServerConfig) {
    let places: Vec<_> = server.listeners.iter().map(ToString::to_string).collect();
    let (version, listeners, shards) = (crate::version::NUMBER, places.join(", "), server.shards);
    tracing::info!(version, listeners, shards, "{}", server.starting_line());
}

/// Forgets addresses that have nothing any more, for as long as the process lives.
async fn keep_door(door: Arc<Door>) {
    let mut every = tokio::time::interval(DOOR_INTERVAL);
    let (mut uncounted, mut told) = (0_u64, None::<Instant>);
    loop {
        every.tick().await;
        uncounted = uncounted.saturating_add(door.forget_idle());
        if uncounted > 0 && told.is_none_or(|told| told.elapsed() >= UNCOUNTED_INTERVAL) {
            tracing::warn!(uncounted, "more addresses than can be counted: let in without limits");
            (uncounted, told) = (0, Some(Instant::now()));
        }
    }
}

/// Tells how often what was refused, minute by minute, for as long as the process lives.
async fn tell_refusals(refusals: Arc<Refusals>) {
    let started = Instant::now();
    let mut every = tokio::time::interval(TELL_INTERVAL);
    loop {
        every.tick().await;
        refusals.tell(u32::try_from(started.elapsed().as_secs()).unwrap_or(u32::MAX));
    }
}

fn start_courier(config: &Config) -> Result<Courier, StartError> {
    let shares = Shares::of_settings(&config.server, &config.apps);
    let settings = webhooks::Settings {
        queue_bytes: shares.queue,
        notice_bytes: shares.notices,
        spool: config.server.webhook_spool.clone(),
    };
    Courier::start(Arc::clone(&config.apps), settings).map_err(StartError::Webhooks)
}

/// Returns the parts of each shard, and the way to send to all of them.
fn setups(
    server: &ServerConfig,
    ring: UringSizes,
    listeners: Vec<Listeners>,
    (in_force, courier, shared): (&InForce, &Courier, &FrontShared),
    started: Instant,
) -> Result<(Vec<Setup>, Outside<Message>), StartError> {
    let count = u16::try_from(server.shards).unwrap_or(ShardId::MAX);
    let ports = bus::connect(count, bus::MAILBOX_MESSAGES).map_err(StartError::Thread)?;
    let outside = ports.first().map(Port::outside);
    let outside = outside.ok_or_else(|| StartError::Thread(io::ErrorKind::InvalidInput.into()))?;
    let (hash, socket_ids) = (KeyHash::default(), SocketIds::new());
    let Shares { cache, unfinished, .. } = Shares::of_settings(server, &in_force.apps);
    let setups = ports.into_iter().zip(listeners).map(|(port, listeners)| {
        let parts = ShardParts {
            in_force: in_force.clone(),
            hash: hash.clone(),
            socket_ids: socket_ids.clone(),
            port,
            tap: courier.tap(),
            refusals: Arc::clone(&shared.refusals),
            memory: shard::Memory {
                lease: Lease::new(Arc::clone(&shared.allowance)),
                cache,
                unfinished,
            },
        };
        Setup { parts, ring, listeners, started }
    });
    Ok((setups.collect(), outside))
}

/// The memory that a shard holds with or without connections, with rings of the usual size.
#[must_use]
pub(crate) fn budget() -> Vec<Holder> {
    let holder = |name, bytes| Holder { name, bytes, per: Per::Shard };
    let front = 2 * front::Settings::default().connections_max as usize;
    vec![
        holder(
            "receive buffers",
            usize::from(RECEIVE_BUFFERS) * (RECEIVE_BUFFER_SIZE + RING_ENTRY),
        ),
        holder("ring of the sockets", SUBMISSIONS as usize * (SUBMISSION + 4 * COMPLETION)),
        holder("ring of the front", front * (SUBMISSION + 2 * COMPLETION)),
        holder("mailbox", bus::MAILBOX_MESSAGES * (size_of::<Message>() + size_of::<usize>())),
    ]
}

fn ring_sizes(config: &Config, host: &Host) -> UringSizes {
    let slots = limits::slots_per_shard(host.nofile.soft, config.server.max_connections_per_shard);
    let slots = match host.direct_descriptors() {
        true => slots,
        false => limits::plain_slots(descriptors(config, host), slots),
    };
    UringSizes {
        slots,
        submissions: SUBMISSIONS,
        buffers: RECEIVE_BUFFERS,
        buffer_size: RECEIVE_BUFFER_SIZE,
        direct_descriptors: host.direct_descriptors(),
    }
}

/// The state that all shards share. A reload does not change it.
#[derive(Clone, Debug, Default)]
struct FrontShared {
    /// The number of HTTP connections of each shard that the limit of open files allows.
    http_connections_max: u32,
    /// The connections and requests of each address.
    door: Arc<Door>,
    /// The refusals that the log still has to tell.
    refusals: Arc<Refusals>,
    /// The memory that may be taken for clients before the next look.
    allowance: Arc<Allowance>,
}

fn http_connections(config: &Config, host: &Host) -> u32 {
    let (descriptors, wanted) = (descriptors(config, host), config.server.max_http_connections);
    limits::http_connections(descriptors, host.direct_descriptors(), wanted)
}

/// The number of descriptors that each shard may have for its connections.
fn descriptors(config: &Config, host: &Host) -> u64 {
    let endpoints = config.apps.iter().map(|app| app.webhooks.iter().count()).sum();
    limits::descriptors_per_shard(host.nofile.soft, config.server.shards, endpoints)
}

/// The configuration of shards that these settings and apps make.
fn in_force(server: &ServerConfig, apps: &Arc<Apps>, shared: &FrontShared) -> InForce {
    let shares = Shares::of_settings(server, apps);
    let backlog =
        BacklogLimits { connection: server.backlog_per_connection, shard: shares.backlogs };
    let front = front::Settings {
        path_prefix: server.path.clone(),
        connections_max: shared.http_connections_max,
        head_timeout: server.header_timeout,
        proxies: server.trusted_proxies.clone(),
        limits: server.address_limits,
        door: Arc::clone(&shared.door),
        refusals: Arc::clone(&shared.refusals),
        bodies_bytes_max: shares.bodies,
        connections_when_short: shares.connections_when_short,
        ..front::Settings::default()
    };
    InForce { apps: Arc::clone(apps), backlog, front: Arc::new(front) }
}

/// Why the server could not start or go on, with what to do about it.
#[derive(Debug)]
enum StartError {
    Host(HostError),
    Listen { address: ListenAddr, error: io::Error },
    Inherited(io::Error),
    DevelopmentInPublic(ListenAddr),
    Log(io::Error),
    Thread(io::Error),
    Webhooks(io::Error),
    Shard(ShardId, io::Error),
    Panicked(ShardId),
}

impl StartError {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Panicked(_) => EXIT_SOFTWARE,
            _ => EXIT_HOST,
        }
    }
}

impl From<HostError> for StartError {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => error.fmt(f),
            Self::Listen { address, error } => {
                let advice = listen::advice(address, error);
                write!(f, "Failed to listen on {address}: {}\n{advice}", cause(error))
            }
            Self::Inherited(error) => write!(
                f,
                "A socket that the service manager handed over (LISTEN_FDS) is of no use: {error}\n\
                 A socket unit needs ListenStream= with a port or a path, and Accept=no."
            ),
            Self::DevelopmentInPublic(address) => write!(
                f,
                "The development app, whose secret is public, is not served on {address}, which \
                 the service manager opened.\n\
                 Set REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET."
            ),
            Self::Log(error) => write!(f, "The log could not be started: {error}"),
            Self::Thread(error) => write!(
                f,
                "A thread or its means could not be had: {error}\nRaise the limits of processes \
                 and open files of this user (ulimit -u, ulimit -n)."
            ),
            Self::Webhooks(error) => write!(
                f,
                "Webhooks cannot be sent: {error}\nserver.webhook_spool has to be a directory that \
                 this user may write to, of this process alone."
            ),
            Self::Shard(shard, error) => write!(
                f,
                "Shard {} could not be set up: {error}\nRun `ringwave doctor`: it tells what this \
                 host lacks.",
                shard.0
            ),
            Self::Panicked(shard) => write!(
                f,
                "Shard {} ended by a mistake of ours, told above; the process cannot go on \
                 without it.\nPlease report it. A supervisor that restarts the process brings \
                 clients back.",
                shard.0
            ),
        }
    }
}

/// The error without its number.
fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
