//! A shard on its own thread: the turn loop, and the runtime whose timers the front's tasks use.
//!
//! The loop sleeps on three things: one eventfd that both the plane's ring and the bus signal, a
//! task of the front whose timer is over, and the tick, which is a `timerfd_create(2)`: a timer of
//! the runtime costs three more system calls each time. A wake costs one `epoll_wait` beside what
//! the turn itself asks of the kernel. If work is left, the loop signals the eventfd, which the
//! next park finds readable, so that the runtime's timers get their turn.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ShardParts;
use super::served::Served;
use crate::front::Listeners;
use crate::front::gateway::InFlight;
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
    // A turn takes as much as it takes, and the front's tasks are polled within it: the runtime
    // must not have them give way.
    runtime.block_on(tokio::task::unconstrained(drive(setup, report)))
}

async fn drive(setup: Setup, report: impl Fn(Milestone)) -> io::Result<()> {
    let Setup { parts, ring, websockets_max, listeners, clock } = setup;
    let ring = Uring::new(&ring)?;
    ring.wake_by(parts.port.wake_fd())?;
    let mut sleep = Sleep::new(&parts)?;
    let mut served = Served::new(ring, parts, websockets_max, clock);
    served.listen(listeners)?;
    report(Milestone::Serving);

    let mut stopping = Stopping::default();
    while !served.shard().stopped() {
        served.turn(clock.now());
        stopping.follow(&served, &report);
        sleep.until_woken(&served).await;
    }
    // The front finishes requests in flight, or the timeout cuts them.
    let deadline = clock.now() + FRONT_STOP_TIMEOUT;
    while !served.front_ended() && clock.now() < deadline {
        served.turn(clock.now());
        sleep.until_woken(&served).await;
    }
    served.end();
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
    fn follow(&mut self, served: &Served<Uring>, report: &impl Fn(Milestone)) {
        let shard = served.shard();
        if !shard.draining() {
            return;
        }
        let before = self.before.get_or_insert_with(|| served.requests());
        if !self.emptied && shard.drained() && before.others() == 0 {
            self.emptied = true;
            report(Milestone::Emptied(shard.last_close()));
        }
        if !self.drained && served.front_ended() && shard.all_told() {
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
    async fn until_woken(&mut self, served: &Served<Uring>) {
        let shard = served.shard();
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
        poll_fn(|context| self.poll(context, served)).await;
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
    fn poll(&self, context: &mut Context<'_>, served: &Served<Uring>) -> Poll<()> {
        served.wake(context);
        let mut woken = served.has_task();
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
