//! A shard on its own thread: one tokio-uring runtime for the front, and the turn loop beside it.
//!
//! The loop sleeps on four things: the plane's ring, the bus' eventfd, commands of the front, and
//! the tick. It never wakes itself through the runtime: tokio-uring submits the front's operations
//! when the runtime *parks* (`on_thread_park`), so a loop that is always ready would starve the
//! front. What is left to do goes through the eventfd, which the next park finds readable.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::timers::TICK;
use super::{Shard, ShardParts};
use crate::front::{self, Command, Gateway, Listeners};
use crate::protocol::app::Apps;
use crate::ring::{Uring, UringSizes};
use crate::time::Millis;

/// Entries of the front's ring. tokio-uring cannot survive a full submission queue, so it holds two
/// operations of each HTTP connection that the front serves at a time.
const FRONT_ENTRIES_MAX: u32 = 32_768;

/// How long the front may take to end its requests after a stop.
const FRONT_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What a shard's thread needs.
#[derive(Debug)]
pub struct Setup {
    /// The shard's state.
    pub parts: ShardParts,
    /// The plane's ring.
    pub ring: UringSizes,
    /// The front's bounds.
    pub front: front::Settings,
    /// Sockets to accept from.
    pub listeners: Listeners,
    /// Where the process' clock started.
    pub started: Instant,
}

/// What a shard tells the control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// It accepts.
    Serving,
    /// Its drain is over: no connection is left.
    Drained,
}

/// Serves until [`super::Message::Stop`].
///
/// # Errors
/// The runtime or a ring could not be set up; nothing was served then.
pub fn run(setup: Setup, report: &dyn Fn(Milestone)) -> io::Result<()> {
    let entries = (setup.front.connections_max * 2).next_power_of_two().min(FRONT_ENTRIES_MAX);
    let mut builder = tokio_uring::builder();
    builder.entries(entries);
    let runtime = tokio_uring::Runtime::new(&builder)?;
    runtime.block_on(drive(setup, report))
}

async fn drive(setup: Setup, report: &dyn Fn(Milestone)) -> io::Result<()> {
    let Setup { parts, ring, front: settings, listeners, started } = setup;
    let handle = Handle(Rc::new(Inbox::new(Arc::clone(&parts.apps))));
    let mut shard = Shard::new(Uring::new(&ring)?, parts);
    let mut sleep = Sleep::new(&shard)?;
    handle.0.room.set(shard.has_room());

    let (stop_front, stopped) = watch::channel(false);
    let mut front = tokio_uring::spawn(front::serve(listeners, handle.clone(), settings, stopped));
    report(Milestone::Serving);

    let mut commands = Vec::new();
    let mut drained = false;
    while !shard.stopped() {
        commands.append(&mut handle.0.commands.borrow_mut());
        shard.turn(Millis(elapsed_ms(started)), &mut commands);
        handle.0.room.set(shard.has_room());
        handle.0.overloaded.set(shard.overloaded());
        if shard.draining() && !handle.0.draining.replace(true) {
            // Accepts nothing more; requests in flight end.
            let _front_gone = stop_front.send(true);
        }
        if !drained && shard.drained() && front.is_finished() {
            drained = true;
            report(Milestone::Drained);
        }
        if front.is_finished() && !handle.0.draining.get() {
            return front_ended(&mut front).await;
        }
        if shard.has_work() {
            shard.port().wake_self();
        }
        sleep.until_woken(&shard, &handle.0).await;
    }
    // Requests in flight end, or are cut.
    let _cut = tokio::time::timeout(FRONT_STOP_TIMEOUT, &mut front).await;
    Ok(())
}

/// The front ends by itself only when it cannot serve at all.
async fn front_ended(front: &mut tokio::task::JoinHandle<io::Result<()>>) -> io::Result<()> {
    match front.await {
        Ok(Ok(())) => Err(io::Error::other("the front ended without being told to")),
        Ok(Err(error)) => Err(error),
        Err(panicked) => Err(io::Error::other(panicked)),
    }
}

fn elapsed_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What wakes the loop.
struct Sleep {
    ring: AsyncFd<Fd>,
    bus: AsyncFd<Fd>,
    tick: Interval,
}

impl Sleep {
    fn new(shard: &Shard<Uring>) -> io::Result<Self> {
        let ring = watched(shard.plane().ring().as_raw_fd())?;
        let bus = watched(shard.port().wake_fd().as_raw_fd())?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Ok(Self { ring, bus, tick })
    }

    async fn until_woken(&mut self, shard: &Shard<Uring>, inbox: &Inbox) {
        // A message that came meanwhile: another turn, but by way of the park.
        if !shard.port().sleep() {
            shard.port().wake_self();
        }
        poll_fn(|context| self.poll(context, inbox)).await;
        shard.port().awake();
    }

    /// Readiness is a hint that is taken before the turn that looks: what comes after it makes the
    /// descriptor ready anew.
    fn poll(&mut self, context: &mut Context<'_>, inbox: &Inbox) -> Poll<()> {
        let mut woken = inbox.poll_commands(context).is_ready();
        for source in [&self.ring, &self.bus] {
            if let Poll::Ready(ready) = source.poll_read_ready(context) {
                woken = true;
                // An error here is one of the descriptor's registration: the tick still wakes us.
                if let Ok(mut guard) = ready {
                    guard.clear_ready();
                }
            }
        }
        woken |= self.tick.poll_tick(context).is_ready();
        if woken { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[expect(
    deprecated,
    reason = "unsound only for descriptors that change or close while registered; both are the \
              shard's, which `drive` drops after its `Sleep`, and the successor is an unsafe \
              function"
)]
fn watched(descriptor: RawFd) -> io::Result<AsyncFd<Fd>> {
    AsyncFd::with_interest(Fd(descriptor), Interest::READABLE)
}

/// A descriptor that somebody else owns, for as long as the loop runs.
struct Fd(RawFd);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// The front's way to its shard.
#[derive(Clone)]
struct Handle(Rc<Inbox>);

struct Inbox {
    apps: Arc<Apps>,
    /// Commands that the next turn takes.
    commands: RefCell<Vec<Command>>,
    /// Wakes the loop.
    waker: RefCell<Option<Waker>>,
    /// As of the last turn.
    room: Cell<bool>,
    overloaded: Cell<bool>,
    draining: Cell<bool>,
}

impl Inbox {
    fn new(apps: Arc<Apps>) -> Self {
        Self {
            apps,
            commands: RefCell::default(),
            waker: RefCell::default(),
            room: Cell::new(false),
            overloaded: Cell::new(false),
            draining: Cell::new(false),
        }
    }

    fn poll_commands(&self, context: &Context<'_>) -> Poll<()> {
        if !self.commands.borrow().is_empty() {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Gateway for Handle {
    fn apps(&self) -> Arc<Apps> {
        Arc::clone(&self.0.apps)
    }

    fn submit(&self, command: Command) {
        self.0.commands.borrow_mut().push(command);
        if let Some(waker) = self.0.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn overloaded(&self) -> bool {
        self.0.overloaded.get()
    }

    fn draining(&self) -> bool {
        self.0.draining.get()
    }

    fn has_room(&self) -> bool {
        self.0.room.get()
    }
}
