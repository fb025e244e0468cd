//! A shard on its own thread: one tokio-uring runtime for the front, and the turn loop beside it.
//!
//! The loop sleeps on three things: one eventfd that both the plane's ring and the bus signal,
//! commands of the front, and the tick, which is a `timerfd_create(2)`: a timer of the runtime
//! costs three more system calls each time. A wake costs one `epoll_wait` and one submission of the
//! front's ring beside what the turn itself asks of the kernel. It never keeps itself awake through
//! the runtime: tokio-uring submits the front's operations when the runtime *parks*
//! (`on_thread_park`), so a loop that is always ready would starve the front. If work is left, the
//! loop signals the eventfd, which the next park finds readable.
//!
//! The loop is a task like those of the front, not the future that the runtime blocks on: a task
//! that another one wakes runs behind it in the same round, while the runtime's own future is
//! looked at again only after one more `epoll_wait`. So all requests that came together are in one
//! turn, and their answers are written when it has taken them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::{InForce, Shard, ShardParts};
use crate::apps::Apps;
use crate::channels::{ChannelKey, KeyHash};
use crate::front::gateway::{InFlight, Newcomers, Reservation};
use crate::front::{self, CurrentSettings, Gateway, GatewayCommand, Listeners};
use crate::id::AppIndex;
use crate::memory::Headroom;
use crate::memory::{Lease, Trim};
use crate::protocol::names::ChannelName;
use crate::ring::{Uring, UringSizes};
use crate::time::{Clock, Millis};

/// Entries of the front's ring. tokio-uring cannot survive a full submission queue, so it holds two
/// operations of each HTTP connection that the front serves at a time.
const FRONT_ENTRIES_MAX: u32 = 32_768;

/// The time that the front still has to finish its requests once all connections are closed or cut.
/// It has had the whole drain before.
const FRONT_STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// The number of sends in a turn above which the loop first lets the front write its answers, if
/// the turn took more than one command. Publishers that are answered first have their next events
/// ready when the sends are done, and the next turn takes all of these together. Fewer sends are
/// done too soon (some 300 us) to be worth a delay, and the event of a lone request leaves before
/// its answer.
const ANSWER_FIRST: usize = 64;

/// Everything that a shard's thread needs.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The shard's state.
    pub(crate) parts: ShardParts,
    /// The plane's ring.
    pub(crate) ring: UringSizes,
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
    let connections_max = setup.parts.in_force.front.connections_max;
    let entries = (connections_max * 2).next_power_of_two().min(FRONT_ENTRIES_MAX);
    let mut builder = tokio_uring::builder();
    builder.entries(entries);
    // Completions wait until the thread is in the kernel anyway, instead of interrupting it.
    builder.uring_builder(tokio_uring::uring_builder().setup_coop_taskrun());
    let runtime = tokio_uring::Runtime::new(&builder)?;
    let ended = runtime.block_on(async { tokio_uring::spawn(drive(setup, report)).await });
    ended.unwrap_or_else(|failed| match failed.try_into_panic() {
        Ok(panic) => resume_unwind(panic),
        Err(cancelled) => Err(io::Error::other(cancelled)),
    })
}

async fn drive(setup: Setup, report: impl Fn(Milestone)) -> io::Result<()> {
    let Setup { parts, ring, listeners, clock } = setup;
    let lease = parts.memory.lease.sibling();
    let handle = Handle(Rc::new(Inbox::new(&parts.in_force, parts.hash.clone(), lease, clock)));
    let ring = Uring::new(&ring)?;
    ring.wake_by(parts.port.wake_fd())?;
    let mut sleep = Sleep::new(&parts)?;
    let mut shard = Shard::new(ring, parts);
    handle.0.free_slots.set(shard.free_slots());

    let (stop_front, stopped) = watch::channel(false);
    let serving = front::serve(listeners, handle.clone(), handle.0.settings.clone(), stopped)?;
    let mut front = tokio_uring::spawn(serving);
    report(Milestone::Serving);

    let mut commands = Vec::new();
    let mut stopping = Stopping::default();
    while !shard.stopped() {
        handle.0.take_commands(&mut commands);
        let several = commands.len() > 1;
        if shard.take_in(clock.now(), &mut commands) {
            if several && shard.owed() > ANSWER_FIRST {
                yield_to_front().await;
            }
            shard.send_out();
        }
        commands.trim();
        handle.0.free_slots.set(shard.free_slots());
        handle.0.overloaded.set(shard.overloaded());
        handle.0.alone.set(shard.stands_alone());
        handle.0.headroom.set(shard.headroom());
        handle.0.see_configuration(&shard);
        handle.0.newcomers.set(shard.newcomers());
        if shard.closes_listeners() && !*stop_front.borrow() {
            // The front finishes requests in flight.
            let _front_gone = stop_front.send(true);
        }
        stopping.follow(&shard, &handle.0, front.is_finished(), &report);
        if front.is_finished() && !shard.closes_listeners() {
            return front_ended(&mut front).await;
        }
        if shard.has_work() {
            shard.port().wake_self();
        }
        sleep.until_woken(&shard, &handle.0).await;
    }
    shard.end();
    // The front finishes requests in flight, or the timeout cuts them.
    let _cut = tokio::time::timeout(FRONT_STOP_TIMEOUT, &mut front).await;
    Ok(())
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
    fn follow(
        &mut self,
        shard: &Shard<Uring>,
        inbox: &Inbox,
        front_ended: bool,
        report: &impl Fn(Milestone),
    ) {
        if !shard.draining() {
            return;
        }
        let before = self.before.get_or_insert_with(|| inbox.requests.take());
        if !self.emptied && shard.drained() && before.others() == 0 {
            self.emptied = true;
            report(Milestone::Emptied(shard.last_close()));
        }
        let idle = inbox.commands.borrow().is_empty();
        if !self.drained && front_ended && idle && shard.all_told() {
            self.drained = true;
            report(Milestone::Drained);
        }
    }
}

/// The error that ends the shard after the front has ended without being stopped.
async fn front_ended(front: &mut tokio::task::JoinHandle<()>) -> io::Result<()> {
    match front.await {
        Ok(()) => Err(io::Error::other("the front ended without being told to")),
        Err(panicked) => Err(io::Error::other(panicked)),
    }
}

/// Yields once, so that all other tasks that are ready now run first.
async fn yield_to_front() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The sources that wake the loop.
struct Sleep {
    /// The eventfd that the bus and the plane's ring signal.
    wake: AsyncFd<OwnedFd>,
    /// A timerfd that expires every `period`.
    timer: AsyncFd<OwnedFd>,
    /// The period that the timer is set to; zero before it is set.
    period: Duration,
}

impl Sleep {
    fn new(parts: &ShardParts) -> io::Result<Self> {
        let wake = parts.port.wake_fd().try_clone_to_owned()?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        Ok(Self { wake: readable(wake)?, timer: readable(timer)?, period: Duration::ZERO })
    }

    async fn until_woken(&mut self, shard: &Shard<Uring>, inbox: &Inbox) {
        self.tick_every(shard.tick_period());
        // A message has arrived meanwhile. The next turn takes it, but only after a park, which
        // submits the front's operations.
        if !shard.port().sleep() {
            shard.port().wake_self();
        }
        poll_fn(|context| self.poll(context, inbox)).await;
        shard.port().awake();
    }

    /// Sets the period of the timer. Makes one system call if the period changes, none otherwise.
    fn tick_every(&mut self, period: Duration) {
        if self.period == period {
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
    fn poll(&self, context: &mut Context<'_>, inbox: &Inbox) -> Poll<()> {
        let mut woken = inbox.poll_commands(context).is_ready();
        // The bus needs no reading: each signal is an edge of its own.
        woken |= took_edge(&self.wake, context);
        if took_edge(&self.timer, context) {
            woken = true;
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
    /// Wakes the loop when a command arrives. `None` if the loop has been woken already, or has not
    /// slept yet.
    waker: RefCell<Option<Waker>>,
    /// The number of free slots, as of the last turn.
    free_slots: Cell<usize>,
    /// The number of free slots that are reserved for handshakes under way.
    reserved_slots: Rc<Cell<usize>>,
    /// Whether the shard was overloaded, as of the last turn.
    overloaded: Cell<bool>,
    /// Whether the node served its clients alone, as of the last turn.
    alone: Cell<bool>,
    /// The memory that is left, as of the last turn.
    headroom: Cell<Headroom>,
    /// The treatment of WebSockets that are opened now, as of the last turn; `None` without a
    /// drain.
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
            waker: RefCell::default(),
            free_slots: Cell::new(0),
            reserved_slots: Rc::default(),
            overloaded: Cell::new(false),
            alone: Cell::new(false),
            headroom: Cell::default(),
            newcomers: Cell::new(None),
            requests: RefCell::default(),
        }
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
        if let Some(waker) = self.0.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn overloaded(&self) -> bool {
        // A request of a few bytes can make events of megabytes, one for each of its channels.
        let waiting = self.0.waiting_bytes.get();
        self.0.overloaded.get() || waiting > self.0.front.borrow().bodies_bytes_max
    }

    fn stands_alone(&self) -> bool {
        self.0.alone.get()
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
        let free = self.0.free_slots.get() > self.0.reserved_slots.get();
        free.then(|| Reservation::of(&self.0.reserved_slots))
    }
}
