//! Conducts a storm: starts the threads, leads them from stage to stage, samples what they and the
//! server do, and sums up.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use crate::clock::{NS_PER_S, now_ns, ns};
use crate::host::{HostMemory, Usage, private_memory};
use crate::outcome::{Marks, Outcome, RunFigures, Sample, Sums};
use crate::plan::{Plan, PlanError, Scenario};
use crate::shared::{Count, Shared, Stage, Tally, latencies};
use crate::wire::without_number;
use crate::{publisher, subscriber};

/// How often the conductor looks.
const LOOK: Duration = Duration::from_millis(50);
/// How often a sample is kept. Longer storms keep fewer.
const SAMPLE_NS: u64 = NS_PER_S / 2;
/// Samples that are kept at most; past it, every other one is dropped and the distance doubles.
const SAMPLES_MAX: usize = 2000;
/// Before the scenario runs: the host comes to rest, so that its memory can be read.
const SETTLE: Duration = Duration::from_millis(500);

/// Why a storm could not be run at all.
#[derive(Debug)]
pub enum StormError {
    /// The plan's numbers.
    Plan(PlanError),
    /// A thread had no ring, or could not be started.
    Thread(io::Error),
    /// The server's process is not there.
    NoProcess(u32),
    /// No connection to the server could be opened at all.
    NoServer(SocketAddr, io::Error),
}

impl fmt::Display for StormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(error) => error.fmt(f),
            Self::Thread(error) => {
                write!(f, "no ring could be set up: {error}; `ringwave doctor` tells why")
            }
            Self::NoProcess(pid) => write!(f, "there is no process {pid}"),
            Self::NoServer(address, error) => write!(
                f,
                "cannot connect to {address}: {}. Start the server, or name another one with --url",
                without_number(error)
            ),
        }
    }
}

impl std::error::Error for StormError {}

/// Runs a storm to its end. `progress` is shown a sample, and the stage in words, twice a second.
///
/// # Errors
/// It could not be run; nothing was measured.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(&str, &Sample)) -> Result<Outcome, StormError> {
    plan.check().map_err(StormError::Plan)?;
    if let Some(pid) = plan.pid {
        Usage::of(pid).ok_or(StormError::NoProcess(pid))?;
    }
    for address in plan.target.addresses() {
        find_server(*address)?;
    }
    let date = SystemTime::now();
    let shares = plan.shares();
    let threads = shares.len() + usize::from(plan.publishes());
    let before = Memory::now(plan);
    let shared = Shared::new(plan, threads, now_ns());
    thread::scope(|scope| {
        let mut subscribers = Vec::new();
        for (thread, share) in shares.into_iter().enumerate() {
            let shared = &shared;
            let body = move || subscriber::run(plan, shared, thread, share);
            subscribers.push(spawn(scope, format!("storm-{thread}"), body)?);
        }
        let publisher = if plan.publishes() {
            let body = || publisher::run(plan, &shared, threads - 1);
            Some(spawn(scope, "storm-api".to_owned(), body)?)
        } else {
            None
        };
        let mut conductor = Conductor::new(plan, &shared, before, progress);
        let failed = || {
            subscribers.iter().any(ScopedJoinHandle::is_finished)
                || publisher.as_ref().is_some_and(ScopedJoinHandle::is_finished)
        };
        conductor.conduct(&failed);
        shared.set_stage(Stage::Stop);
        let mut sums =
            Sums { deliveries: latencies(), handshakes: latencies(), answers: None, owed: 0 };
        for subscriber in subscribers {
            let takings = joined(subscriber)?;
            merge(&mut sums.deliveries, &takings.deliveries);
            merge(&mut sums.handshakes, &takings.handshakes);
            sums.owed += takings.owed;
        }
        sums.answers = publisher.map(joined).transpose()?;
        Ok(conductor.outcome(&sums, date))
    })
}

/// Finds out whether a server listens, by a connection that says nothing: a storm without a server
/// would only count its own failures.
fn find_server(address: SocketAddr) -> Result<(), StormError> {
    let connected = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT);
    connected.map(drop).map_err(|error| StormError::NoServer(address, error))
}

/// A server that takes longer for its first connection could not be measured.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

fn spawn<'s, T: Send + 's>(
    scope: &'s thread::Scope<'s, '_>,
    name: String,
    body: impl FnOnce() -> T + Send + 's,
) -> Result<ScopedJoinHandle<'s, T>, StormError> {
    thread::Builder::new().name(name).spawn_scoped(scope, body).map_err(StormError::Thread)
}

fn joined<T>(thread: ScopedJoinHandle<'_, io::Result<T>>) -> Result<T, StormError> {
    let panicked = |_| io::Error::other("a thread of the storm panicked");
    thread.join().map_err(panicked).and_then(|taken| taken).map_err(StormError::Thread)
}

/// All histograms of a storm have the same bounds, so adding can't fail.
fn merge(into: &mut Histogram<u64>, part: &Histogram<u64>) {
    let _same_bounds = into.add(part);
}

/// Memory of the server and the host at a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// The server's own, in bytes.
    pub(super) server: u64,
    /// This process's own, in bytes.
    pub(super) storm: u64,
    pub(super) host: HostMemory,
}

impl Memory {
    fn now(plan: &Plan) -> Self {
        Self {
            server: plan.pid.and_then(private_memory).unwrap_or_default(),
            storm: private_memory(std::process::id()).unwrap_or_default(),
            host: HostMemory::now(),
        }
    }
}

/// The counts and the resource usage up to a moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    pub(super) at_ns: u64,
    pub(super) tally: Tally,
    pub(super) server: Usage,
    pub(super) storm: Usage,
}

impl Mark {
    /// `last` is the usage of the server that stands when its process is gone.
    fn now(plan: &Plan, shared: &Shared, last: Usage) -> Self {
        Self {
            at_ns: now_ns(),
            tally: shared.sum(),
            server: plan.pid.and_then(Usage::of).unwrap_or(last),
            storm: Usage::of(std::process::id()).unwrap_or_default(),
        }
    }
}

struct Conductor<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    progress: &'a mut dyn FnMut(&str, &Sample),
    marks: Marks,
    samples: Vec<Sample>,
    sample_ns: u64,
    /// The last one that was sampled.
    sampled: Mark,
    /// How long each round took until all were back.
    rounds_s: Vec<f64>,
    /// Connections that were not back when the wait for them was over.
    not_back: u64,
    /// The last wait ended because nothing had changed for the time of grace.
    given_up: bool,
    stage: &'static str,
}

impl<'a> Conductor<'a> {
    fn new(
        plan: &'a Plan,
        shared: &'a Shared,
        before: Memory,
        progress: &'a mut dyn FnMut(&str, &Sample),
    ) -> Self {
        let start = Mark::now(plan, shared, Usage::default());
        let marks = Marks { memory_before: before, start, ..Marks::default() };
        Self {
            plan,
            shared,
            progress,
            marks,
            samples: Vec::new(),
            sample_ns: SAMPLE_NS,
            sampled: start,
            rounds_s: Vec::new(),
            not_back: 0,
            given_up: false,
            stage: "connecting",
        }
    }

    /// Through all stages but the last one. Ends early when a thread has.
    fn conduct(&mut self, failed: &dyn Fn() -> bool) {
        let all = u64::from(self.plan.connections);
        let ramp_s = if self.plan.ramp > 0.0 { all as f64 / self.plan.ramp } else { 0.0 };
        let ramp_end_ns = self.shared.began_ns + (ramp_s * NS_PER_S as f64) as u64;
        self.until_settled(ramp_end_ns, failed, &|tally| {
            tally.of(Count::Subscribed) + tally.of(Count::Failed) >= all
        });
        self.marks.opened = self.mark();
        self.pause(SETTLE, failed);
        self.marks.memory_held = Memory::now(self.plan);
        self.marks.run = self.mark();
        if self.marks.run.tally.of(Count::Held) > 0 || all == 0 {
            self.run_scenario(failed);
        }
        self.stage = "draining";
        self.shared.set_stage(Stage::Drain);
        let nothing_owed =
            |tally: &Tally| tally.of(Count::Owed) == 0 && tally.of(Count::Outstanding) == 0;
        loop {
            self.until_settled(0, failed, &nothing_owed);
            // The sums are up to 100 ms old, and the last answer may be newer.
            self.pause(LOOK * 5, failed);
            if failed() || self.given_up || nothing_owed(&self.shared.sum()) {
                break;
            }
        }
        self.marks.end = self.mark();
        self.marks.memory_end = Memory::now(self.plan);
    }

    fn run_scenario(&mut self, failed: &dyn Fn() -> bool) {
        self.stage = self.plan.scenario.name();
        let from_ns = now_ns() + 2 * ns(LOOK);
        let until_ns = from_ns + ns(self.plan.duration);
        self.shared.run_from_ns.store(from_ns, Ordering::Release);
        self.shared.run_until_ns.store(until_ns, Ordering::Release);
        self.shared.set_stage(Stage::Run);
        if self.plan.scenario == Scenario::Reconnect {
            for _ in 0..self.plan.rounds {
                self.round(failed);
            }
        }
        self.pause(Duration::from_nanos(until_ns.saturating_sub(now_ns())), failed);
    }

    /// All drop at once and return at once.
    fn round(&mut self, failed: &dyn Fn() -> bool) {
        let before = self.shared.sum();
        let at_ns = now_ns();
        self.shared.round_at_ns.store(at_ns, Ordering::Release);
        self.shared.round.fetch_add(1, Ordering::AcqRel);
        let expected = before.of(Count::Subscribed) + before.of(Count::Held);
        let failed_before = before.of(Count::Failed);
        self.until_settled(0, failed, &|tally| {
            tally.of(Count::Subscribed) + tally.of(Count::Failed) - failed_before >= expected
        });
        let back = self.shared.sum().of(Count::Held);
        if back < before.of(Count::Held) {
            let lost = before.of(Count::Held) - back;
            self.shared.problem(format!("{lost} were not back in time"));
            self.not_back += lost;
        }
        self.rounds_s.push((now_ns() - at_ns) as f64 / NS_PER_S as f64);
        self.pause(SETTLE, failed);
    }

    /// Waits until `done`, or until nothing has changed for the time of grace.
    fn until_settled(
        &mut self,
        not_before_ns: u64,
        failed: &dyn Fn() -> bool,
        done: &dyn Fn(&Tally) -> bool,
    ) {
        self.given_up = false;
        let mut last = (0, 0);
        let mut moved_ns = now_ns();
        loop {
            let tally = self.shared.sum();
            if done(&tally) || failed() {
                return;
            }
            let state = (
                tally.of(Count::Subscribed) + tally.of(Count::Failed),
                tally.of(Count::Delivered) + tally.of(Count::Requests),
            );
            let now = now_ns();
            if state != last || now < not_before_ns {
                (last, moved_ns) = (state, now);
            }
            if now - moved_ns > ns(self.plan.grace) {
                self.given_up = true;
                return;
            }
            self.pause(LOOK, failed);
        }
    }

    /// Lets time pass, and looks.
    fn pause(&mut self, time: Duration, failed: &dyn Fn() -> bool) {
        let until_ns = now_ns() + ns(time);
        loop {
            let left = until_ns.saturating_sub(now_ns());
            if left == 0 || failed() {
                return;
            }
            thread::park_timeout(LOOK.min(Duration::from_nanos(left)));
            self.look();
        }
    }

    fn look(&mut self) {
        let now = now_ns();
        if now - self.sampled.at_ns < self.sample_ns {
            return;
        }
        let mark = self.mark();
        let sample = Sample::between(self.shared.began_ns, &self.sampled, &mark);
        self.sampled = mark;
        (self.progress)(self.stage, &sample);
        self.samples.push(sample);
        if self.samples.len() >= SAMPLES_MAX {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.sample_ns *= 2;
        }
        // A thread adds a second's latencies when it notices that it is over.
        let second = ((now - self.shared.began_ns) / NS_PER_S).saturating_sub(1);
        for timeline in [&self.shared.deliveries, &self.shared.handshakes] {
            timeline.lock().unwrap_or_else(PoisonError::into_inner).settle(second);
        }
    }

    fn mark(&self) -> Mark {
        Mark::now(self.plan, self.shared, self.sampled.server)
    }

    fn outcome(self, sums: &Sums, date: SystemTime) -> Outcome {
        let points = |timeline: &std::sync::Mutex<crate::shared::Timeline>| {
            let mut timeline = timeline.lock().unwrap_or_else(PoisonError::into_inner);
            timeline.settle(u64::MAX);
            timeline.points().to_vec()
        };
        let mut tally = self.shared.sum();
        tally.add(Count::Failed, self.not_back);
        let mut outcome = Outcome::new(self.plan, &self.marks, &tally, sums);
        outcome.run = RunFigures::new(self.plan, date);
        outcome.rounds_s = self.rounds_s;
        outcome.samples = self.samples;
        outcome.delivery_seconds = points(&self.shared.deliveries);
        outcome.handshake_seconds = points(&self.shared.handshakes);
        outcome.problems = self.shared.problems();
        outcome
    }
}
