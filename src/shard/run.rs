//! A shard on its own thread: one tokio-uring runtime for the front, and the turn loop beside it.
//!
//! The loop sleeps on three things: one eventfd that both the plane's ring and the bus signal,
//! commands of the front, and the tick. It never wakes itself through the runtime: tokio-uring
//! submits the front's operations when the runtime *parks* (`on_thread_park`), so a loop that is
//! always ready would starve the front. What is left to do goes through the eventfd, which the next
//! park finds readable.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
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
use crate::front::gateway::Reservation;
use crate::front::{self, Command, Gateway, Listeners};
use crate::protocol::app::Apps;
use crate::ring::{Uring, UringSizes};
use crate::time::Millis;

/// Entries of the front's ring. tokio-uring cannot survive a full submission queue, so it holds two
/// operations of each HTTP connection that the front serves at a time.
const FRONT_ENTRIES_MAX: u32 = 32_768;

/// How long the front may still take to end its requests when all connections are closed or cut. It
/// had the whole drain before.
const FRONT_STOP_TIMEOUT: Duration = Duration::from_millis(500);

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
    let ring = Uring::new(&ring)?;
    ring.wake_by(parts.port.wake_fd())?;
    let mut sleep = Sleep::new(&parts)?;
    let mut shard = Shard::new(ring, parts);
    handle.0.free_slots.set(shard.free_slots());

    let (stop_front, stopped) = watch::channel(false);
    let mut front = tokio_uring::spawn(front::serve(listeners, handle.clone(), settings, stopped));
    report(Milestone::Serving);

    let mut commands = Vec::new();
    let mut drained = false;
    while !shard.stopped() {
        commands.append(&mut handle.0.commands.borrow_mut());
        shard.turn(Millis(elapsed_ms(started)), &mut commands);
        handle.0.free_slots.set(shard.free_slots());
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
    wake: AsyncFd<OwnedFd>,
    tick: Interval,
}

impl Sleep {
    fn new(parts: &ShardParts) -> io::Result<Self> {
        let wake = parts.port.wake_fd().try_clone_to_owned()?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        #[expect(
            deprecated,
            reason = "unsound only for types whose descriptor changes or closes while registered; \
                      an OwnedFd keeps its own, and the successor is an unsafe function"
        )]
        let wake = AsyncFd::with_interest(wake, Interest::READABLE)?;
        Ok(Self { wake, tick })
    }

    async fn until_woken(&mut self, shard: &Shard<Uring>, inbox: &Inbox) {
        // A message that came meanwhile: another turn, but by way of the park.
        if !shard.port().sleep() {
            shard.port().wake_self();
        }
        poll_fn(|context| self.poll(context, inbox)).await;
        shard.port().awake();
    }

    /// An edge is taken before the turn that looks: what comes after it is another edge.
    fn poll(&mut self, context: &mut Context<'_>, inbox: &Inbox) -> Poll<()> {
        let mut woken = inbox.poll_commands(context).is_ready();
        if let Poll::Ready(ready) = self.wake.poll_read_ready(context) {
            woken = true;
            // An error here is one of the descriptor's registration: the tick still wakes us.
            if let Ok(mut guard) = ready {
                guard.clear_ready();
            }
        }
        woken |= self.tick.poll_tick(context).is_ready();
        if woken { Poll::Ready(()) } else { Poll::Pending }
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
    free_slots: Cell<usize>,
    /// Of these, how many are for handshakes under way.
    reserved_slots: Rc<Cell<usize>>,
    /// As of the last turn.
    overloaded: Cell<bool>,
    /// As of the last turn.
    draining: Cell<bool>,
}

impl Inbox {
    fn new(apps: Arc<Apps>) -> Self {
        Self {
            apps,
            commands: RefCell::default(),
            waker: RefCell::default(),
            free_slots: Cell::new(0),
            reserved_slots: Rc::default(),
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

    fn reserve(&self) -> Option<Reservation> {
        let free = self.0.free_slots.get() > self.0.reserved_slots.get();
        free.then(|| Reservation::of(&self.0.reserved_slots))
    }
}
