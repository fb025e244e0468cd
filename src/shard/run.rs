//! A shard on its own thread: the turn loop, and the runtime whose timers the front's tasks use.
//!
//! The loop sleeps on three things: one eventfd that both the plane's ring and the bus signal, a
//! task of the front whose timer is over, and the tick, which is a `timerfd_create(2)`: a timer of
//! the runtime costs three more system calls each time. A wake costs one `epoll_wait` beside what
//! the turn itself asks of the kernel. If work is left, the loop signals the eventfd, which the
//! next park finds readable, so that the runtime's timers get their turn.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{InForce, Shard, ShardParts};
use crate::apps::Apps;
use crate::channels::{ChannelKey, KeyHash};
use crate::front::gateway::{InFlight, Newcomers, Reservation};
use crate::front::{self, CurrentSettings, Gateway, GatewayCommand, Listeners, Reception};
use crate::id::AppIndex;
use crate::memory::Headroom;
use crate::memory::{Lease, Trim};
use crate::protocol::names::ChannelName;
use crate::ring::{Uring, UringSizes};
use crate::time::{Clock, Millis};

/// Entries of the runtime's ring, on which this thread begins no operations.
const RUNTIME_ENTRIES: u32 = 8;

/// The time that the front still has to finish its requests once all connections are closed or cut.
/// It has had the whole drain before.
const FRONT_STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// Turns that follow one another before the runtime is parked, some milliseconds if they have much
/// to do.
const TURNS_IN_A_ROW: u32 = 16;

/// Everything that a shard's thread needs.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The shard's state.
    pub(crate) parts: ShardParts,
    /// The plane's ring.
    pub(crate) ring: UringSizes,
    /// The most WebSockets. The ring has more slots than these.
    pub(crate) websockets_max: u32,
    /// Sockets to accept from.
    pub(crate) listeners: Listeners,
    /// The clock of the process.
    pub(crate) clock: Clock,
}

/// The progress that a shard reports to the control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Milestone {
    /// The shard accepts connections.
    Serving,
    /// The drain has closed all connections, and all requests that began before it are answered.
    /// The shard may still accept connections. Holds the time of the last close by the clock of the
    /// process, or `None` if there was nothing to close.
    Emptied(Option<Millis>),
    /// Every client has been sent its Close frame, and the shard no longer accepts connections.
    Drained,
}

/// Serves until [`super::ShardMessage::Stop`].
///
/// # Errors
/// The runtime or a ring could not be set up; nothing was served then.
///
/// # Panics
/// Resumes a panic of the shard.
pub(crate) fn run(setup: Setup, report: impl Fn(Milestone) + 'static) -> io::Result<()> {
    let mut builder = tokio_uring::builder();
    builder.entries(RUNTIME_ENTRIES);
    // Completions wait until the thread is in the kernel anyway, instead of interrupting it.
    builder.uring_builder(tokio_uring::uring_builder().setup_coop_taskrun());
    let runtime = tokio_uring::Runtime::new(&builder)?;
    // A turn takes as much as it takes, and the front's tasks are polled within it: the runtime must
    // not have them give way.
    runtime.block_on(tokio::task::unconstrained(drive(setup, report)))
}

async fn drive(setup: Setup, report: impl Fn(Milestone)) -> io::Result<()> {
    let Setup { parts, ring, websockets_max, listeners, clock } = setup;
    let lease = parts.memory.lease.sibling();
    let inbox = Rc::new(Inbox::new(&parts.in_force, parts.hash.clone(), lease, clock));
    let ring = Uring::new(&ring)?;
    ring.wake_by(parts.port.wake_fd())?;
    let mut sleep = Sleep::new(&parts)?;
    let mut shard = Shard::new(ring, parts);
    shard.plane.limit_websockets(websockets_max as usize);
    let reception = Reception::new(Handle(Rc::clone(&inbox)), inbox.settings.clone());
    let mut served = Served { shard, reception, inbox, commands: Vec::new() };
    served.reception.listen(&mut served.shard.plane, listeners)?;
    report(Milestone::Serving);

    let mut stopping = Stopping::default();
    while !served.shard.stopped() {
        served.turn(clock.now());
        stopping.follow(&served, &report);
        sleep.until_woken(&served).await;
    }
    // The front finishes requests in flight, or the timeout cuts them.
    let deadline = clock.now() + FRONT_STOP_TIMEOUT;
    while !served.reception.is_finished() && clock.now() < deadline {
        served.turn(clock.now());
        sleep.until_woken(&served).await;
    }
    served.shard.end();
    Ok(())
}

/// A shard and its front.
struct Served {
    shard: Shard<Uring>,
    reception: Reception<Handle>,
    inbox: Rc<Inbox>,
    /// The commands of the front that the shard takes next, reused to keep their allocation.
    commands: Vec<GatewayCommand>,
}

impl Served {
    /// Runs one turn of both.
    fn turn(&mut self, now: Millis) {
        let Self { shard, reception, inbox, commands } = self;
        if !shard.begin(now) {
            return;
        }
        inbox.see(shard);
        if shard.closes_listeners() {
            reception.stop();
        }
        loop {
            reception.turn(&mut shard.plane, now);
            inbox.take_commands(commands);
            if commands.is_empty() {
                break;
            }
            shard.obey(commands);
            inbox.see(shard);
        }
        commands.trim();
        shard.end_turn();
    }

    fn has_work(&self) -> bool {
        self.shard.has_work() || self.reception.has_work()
    }

    /// The longest time until the next turn.
    fn period(&self) -> Duration {
        let tick = self.shard.tick_period();
        self.reception.period().map_or(tick, |period| period.min(tick))
    }
}

/// The milestones of a stop that have been reported.
#[derive(Default)]
struct Stopping {
    /// The token of the requests that began before the drain. `None` until the drain begins.
    before: Option<InFlight>,
    /// Whether [`Milestone::Emptied`] has been reported.
    emptied: bool,
    /// Whether [`Milestone::Drained`] has been reported.
    drained: bool,
}

impl Stopping {
    /// Reports each milestone to the control thread once it is reached. Called at the end of each
    /// turn.
    fn follow(&mut self, served: &Served, report: &impl Fn(Milestone)) {
        let Served { shard, reception, inbox, .. } = served;
        if !shard.draining() {
            return;
        }
        let before = self.before.get_or_insert_with(|| inbox.requests.take());
        if !self.emptied && shard.drained() && before.others() == 0 {
            self.emptied = true;
            report(Milestone::Emptied(shard.last_close()));
        }
        if !self.drained && reception.is_finished() && shard.all_told() {
            self.drained = true;
            report(Milestone::Drained);
        }
    }
}

/// The sources that wake the loop.
struct Sleep {
    /// The eventfd that the bus and the plane's ring signal.
    wake: AsyncFd<OwnedFd>,
    /// A timerfd that expires every `period`.
    timer: AsyncFd<OwnedFd>,
    /// The period that the timer is set to; zero before it is set.
    period: Duration,
    /// Whether the timer has expired since it was set.
    expired: Cell<bool>,
    /// The turns since the runtime was last parked.
    turns: u32,
}

impl Sleep {
    fn new(parts: &ShardParts) -> io::Result<Self> {
        let wake = parts.port.wake_fd().try_clone_to_owned()?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let (wake, timer) = (readable(wake)?, readable(timer)?);
        let (period, expired) = (Duration::ZERO, Cell::new(true));
        Ok(Self { wake, timer, period, expired, turns: 0 })
    }

    /// Sleeps, unless there is work left. Then the next turn follows at once, except for now and
    /// then: the runtime has timers of the front's tasks.
    async fn until_woken(&mut self, served: &Served) {
        let shard = &served.shard;
        self.turns += 1;
        if served.has_work() {
            if self.turns < TURNS_IN_A_ROW {
                return;
            }
            shard.port().wake_self();
        }
        self.turns = 0;
        self.tick_every(served.period());
        // A message has arrived meanwhile. The next turn takes it, but only after a park, in which
        // the runtime sees to its timers.
        if !shard.port().sleep() {
            shard.port().wake_self();
        }
        poll_fn(|context| self.poll(context, &served.reception)).await;
        shard.port().awake();
    }

    /// Sets the period of the timer, by one system call if it changes. A longer period waits until
    /// the timer has expired once more: connections that come and go would change it twice each.
    fn tick_every(&mut self, period: Duration) {
        if self.period == period || (self.period < period && !self.expired.replace(false)) {
            return;
        }
        let nanoseconds = period.subsec_nanos().into();
        let every = Timespec { tv_sec: period.as_secs().cast_signed(), tv_nsec: nanoseconds };
        let setting = Itimerspec { it_interval: every, it_value: every };
        match timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting) {
            Ok(_before) => self.period = period,
            // Never observed, because the period is valid. The timer keeps the old period, and the
            // next turn tries again.
            Err(error) => tracing::error!(%error, "the shard's timer cannot be set"),
        }
    }

    /// Takes the edges before the turn looks for work, so that whatever arrives later is another
    /// edge.
    fn poll(&self, context: &mut Context<'_>, reception: &Reception<Handle>) -> Poll<()> {
        reception.wake(context);
        let mut woken = reception.has_work();
        // The bus needs no reading: each signal is an edge of its own.
        woken |= took_edge(&self.wake, context);
        if took_edge(&self.timer, context) {
            woken = true;
            self.expired.set(true);
            // A timer that is not read does not expire again (fs/timerfd.c).
            let _none_yet = rustix::io::read(&self.timer, &mut [0; size_of::<u64>()]);
        }
        if woken { Poll::Ready(()) } else { Poll::Pending }
    }
}

fn took_edge(descriptor: &AsyncFd<OwnedFd>, context: &mut Context<'_>) -> bool {
    let Poll::Ready(ready) = descriptor.poll_read_ready(context) else { return false };
    // An error concerns the registration of this descriptor only: the other one still wakes the
    // loop.
    if let Ok(mut guard) = ready {
        guard.clear_ready();
    }
    true
}

/// Watches a descriptor for the edges at which it becomes readable.
///
/// # Errors
/// The runtime cannot watch it (`epoll_ctl(2)`).
pub(crate) fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        deprecated,
        reason = "unsound only for types whose descriptor changes or closes while registered; an \
                  OwnedFd keeps its own, and the successor is an unsafe function"
    )]
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

/// The front's handle to its shard.
#[derive(Clone)]
struct Handle(Rc<Inbox>);

/// The state that the front and the loop of a shard share. The front writes commands, and the loop
/// publishes the state of the shard after each turn.
struct Inbox {
    /// Makes the keys of channels.
    hash: KeyHash,
    /// The apps, as of the last turn.
    apps: RefCell<Arc<Apps>>,
    /// The settings that `settings` was made of, as of the last turn.
    front: RefCell<Arc<front::Settings>>,
    /// The same settings as the front reads them: a copy of this shard's own, because all shards
    /// would write the reference count of a shared one.
    settings: CurrentSettings,
    /// Commands that the next turn takes.
    commands: RefCell<Vec<GatewayCommand>>,
    /// Bytes of the events in `commands`.
    waiting_bytes: Cell<usize>,
    /// The lease that is charged for the memory that the front takes on for clients.
    lease: RefCell<Lease>,
    /// The clock of the process.
    clock: Clock,
    /// The number of free places for WebSockets, as of the last turn.
    free_places: Cell<usize>,
    /// The number of free places that are reserved for handshakes under way.
    reserved_places: Rc<Cell<usize>>,
    /// Whether the shard was overloaded, as of the last turn.
    overloaded: Cell<bool>,
    /// The memory that is left, as of the last turn.
    headroom: Cell<Headroom>,
    /// How WebSockets that are opened now are treated, as of the last turn. `None` without a drain.
    newcomers: Cell<Option<Newcomers>>,
    /// The token that each request holds while it is answered.
    requests: RefCell<InFlight>,
}

impl Inbox {
    fn new(in_force: &InForce, hash: KeyHash, lease: Lease, clock: Clock) -> Self {
        Self {
            hash,
            apps: RefCell::new(Arc::clone(&in_force.apps)),
            settings: CurrentSettings::new(front::Settings::clone(&in_force.front)),
            front: RefCell::new(Arc::clone(&in_force.front)),
            commands: RefCell::default(),
            waiting_bytes: Cell::new(0),
            lease: RefCell::new(lease),
            clock,
            free_places: Cell::new(0),
            reserved_places: Rc::default(),
            overloaded: Cell::new(false),
            headroom: Cell::default(),
            newcomers: Cell::new(None),
            requests: RefCell::default(),
        }
    }

    /// Takes over the state of the shard, for the front.
    fn see(&self, shard: &Shard<Uring>) {
        self.free_places.set(shard.free_places());
        self.overloaded.set(shard.overloaded());
        self.headroom.set(shard.headroom());
        self.newcomers.set(shard.newcomers());
        self.see_configuration(shard);
    }

    /// Takes over the shard's configuration if a reload has changed it.
    fn see_configuration(&self, shard: &Shard<Uring>) {
        if !Arc::ptr_eq(&self.apps.borrow(), shard.apps()) {
            self.apps.replace(Arc::clone(shard.apps()));
        }
        let front = shard.front_settings();
        if !Arc::ptr_eq(&self.front.borrow(), front) {
            self.front.replace(Arc::clone(front));
            self.settings.replace(front::Settings::clone(front));
        }
    }

    fn take_commands(&self, into: &mut Vec<GatewayCommand>) {
        let mut commands = self.commands.borrow_mut();
        into.append(&mut commands);
        self.waiting_bytes.set(0);
        commands.trim();
    }
}

impl Gateway for Handle {
    fn apps(&self) -> Arc<Apps> {
        Arc::clone(&self.0.apps.borrow())
    }

    fn channel(&self, app: AppIndex, name: ChannelName) -> ChannelKey {
        self.0.hash.channel(app, name)
    }

    fn submit(&self, command: GatewayCommand) {
        if let GatewayCommand::Publish { events, .. } = &command {
            let bytes: usize = events.iter().map(|of| of.event.frame.len()).sum();
            self.0.waiting_bytes.set(self.0.waiting_bytes.get().saturating_add(bytes));
        }
        self.0.commands.borrow_mut().push(command);
    }

    fn overloaded(&self) -> bool {
        // A request of a few bytes can make events of megabytes, one for each of its channels.
        let waiting = self.0.waiting_bytes.get();
        self.0.overloaded.get() || waiting > self.0.front.borrow().bodies_bytes_max
    }

    fn headroom(&self) -> Headroom {
        self.0.headroom.get()
    }

    fn takes_on(&self, bytes: usize) -> bool {
        self.0.lease.borrow_mut().charge(bytes, self.0.clock.now().0)
    }

    fn stopping(&self) -> Option<Newcomers> {
        self.0.newcomers.get()
    }

    fn begin_request(&self) -> InFlight {
        self.0.requests.borrow().clone()
    }

    fn reserve(&self) -> Option<Reservation> {
        let free = self.0.free_places.get() > self.0.reserved_places.get();
        free.then(|| Reservation::of(&self.0.reserved_places))
    }
}
