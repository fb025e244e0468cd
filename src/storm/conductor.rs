//! Conducts a storm: starts the threads, leads them from stage to stage, samples their counters and
//! the server's resource usage, and sums up.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, SystemTime};

use crate::checkpoint::{Checkpoint, Checkpoints, MemorySnapshot};
use crate::clock::{NS_PER_S, now_ns, ns};
use crate::counters::{Counter, Tally};
use crate::error_text::without_number;
use crate::latency::{LatencyPoint, LatencyTimeline, merge, new_histogram};
use crate::members::{self, MemberFigures};
use crate::outcome::{MergedResults, RunFigures, Sample, StormOutcome};
use crate::plan::{PlanError, StormPlan};
use crate::procfs::ProcessUsage;
use crate::scenario::Scenario;
use crate::shared::{SharedState, StormStage};
use crate::{publisher, subscriber};

/// The interval at which the conductor looks at the counters.
const LOOK: Duration = Duration::from_millis(50);
/// The interval at which a sample is kept. Longer storms keep fewer.
const SAMPLE_NS: u64 = NS_PER_S / 2;
/// The most samples that are kept. With more, every other one is dropped and the distance doubles.
const SAMPLES_MAX: usize = 2000;
/// The pause before the scenario runs. The host comes to rest, so that its memory can be read.
const SETTLE: Duration = Duration::from_millis(500);

/// The reason why a storm could not be run at all.
#[derive(Debug)]
pub enum StormError {
    /// The numbers of the plan contradict each other.
    Plan(PlanError),
    /// A thread could not be started, or got no ring.
    Thread(io::Error),
    /// There is no process with this number.
    NoProcess(u32),
    /// No connection to the server could be opened.
    NoServer(SocketAddr, io::Error),
}

impl fmt::Display for StormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan(error) => error.fmt(f),
            Self::Thread(error) => write!(
                f,
                "cannot start a thread with a ring: {}; `ringwave doctor` tells why",
                without_number(error)
            ),
            Self::NoProcess(pid) => write!(f, "--pid {pid} is not a running process"),
            Self::NoServer(address, error) => write!(
                f,
                "cannot connect to {address}: {}. Start the server, or name another one with --url",
                without_number(error)
            ),
        }
    }
}

impl Error for StormError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Plan(error) => Some(error),
            Self::Thread(error) | Self::NoServer(_, error) => Some(error),
            Self::NoProcess(_) => None,
        }
    }
}

/// Runs a storm to its end, and calls `progress` with the stage in words and a sample twice a
/// second.
///
/// # Errors
/// The storm could not be run; nothing was measured.
pub fn run(
    plan: &StormPlan,
    progress: &mut dyn FnMut(&str, &Sample),
) -> Result<StormOutcome, StormError> {
    plan.check().map_err(StormError::Plan)?;
    for pid in &plan.pids {
        ProcessUsage::of(*pid).ok_or(StormError::NoProcess(*pid))?;
    }
    for address in plan.target.addresses() {
        find_server(*address)?;
    }
    let date = SystemTime::now();
    let shares = plan.shares();
    let threads = shares.len() + usize::from(plan.publishes());
    let memory_before = MemorySnapshot::now(plan);
    let shared = SharedState::new(plan, threads, now_ns());
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
        let mut conductor = Conductor::new(plan, &shared, memory_before, progress);
        let failed = || {
            subscribers.iter().any(ScopedJoinHandle::is_finished)
                || publisher.as_ref().is_some_and(ScopedJoinHandle::is_finished)
        };
        conductor.conduct(&failed);
        shared.set_stage(StormStage::Settle);
        let publisher = publisher.map(joined).transpose();
        shared.set_stage(StormStage::Stop);
        let mut merged = MergedResults {
            deliveries: new_histogram(),
            handshakes: new_histogram(),
            publisher: publisher?,
            members: conductor.members.take(),
            owed: 0,
        };
        for subscriber in subscribers {
            let results = joined(subscriber)?;
            merge(&mut merged.deliveries, &results.deliveries);
            merge(&mut merged.handshakes, &results.handshakes);
            merged.owed += results.owed;
        }
        Ok(conductor.outcome(&merged, date))
    })
}

/// Checks that a server listens, by a connection that sends nothing. Without a server a storm would
/// only count its own failures.
fn find_server(address: SocketAddr) -> Result<(), StormError> {
    let connected = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT);
    connected.map(drop).map_err(|error| StormError::NoServer(address, error))
}

/// The time limit of the first connection. A slower server cannot be measured.
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
    thread.join().map_err(panicked).flatten().map_err(StormError::Thread)
}

/// The conductor of one storm. [`conduct`](Self::conduct) is called once, then, when the threads
/// have ended, [`outcome`](Self::outcome).
struct Conductor<'a> {
    plan: &'a StormPlan,
    shared: &'a SharedState,
    progress: &'a mut dyn FnMut(&str, &Sample),
    checkpoints: Checkpoints,
    samples: Vec<Sample>,
    sample_ns: u64,
    /// The checkpoint at the end of the last sample.
    sampled: Checkpoint,
    /// The seconds until all connections were back, for each round.
    rounds_s: Vec<f64>,
    /// Connections that were not back when the wait for them ended.
    not_back: u64,
    /// The members of presence channels at the end, if they were compared.
    members: Option<MemberFigures>,
    /// Whether the last wait ended because nothing had changed for the grace period.
    given_up: bool,
    stage: &'static str,
}

impl<'a> Conductor<'a> {
    fn new(
        plan: &'a StormPlan,
        shared: &'a SharedState,
        memory_before: MemorySnapshot,
        progress: &'a mut dyn FnMut(&str, &Sample),
    ) -> Self {
        let start = Checkpoint::now(plan, shared, &[]);
        let sampled = start.clone();
        let checkpoints = Checkpoints { memory_before, start, ..Checkpoints::default() };
        Self {
            plan,
            shared,
            progress,
            checkpoints,
            samples: Vec::new(),
            sample_ns: SAMPLE_NS,
            sampled,
            rounds_s: Vec::new(),
            not_back: 0,
            members: None,
            given_up: false,
            stage: "connecting",
        }
    }

    /// Goes through all stages but the last one. Ends early if a thread has ended.
    fn conduct(&mut self, failed: &dyn Fn() -> bool) {
        let all = u64::from(self.plan.connections);
        let ramp_s = if self.plan.ramp > 0.0 { all as f64 / self.plan.ramp } else { 0.0 };
        let ramp_end_ns = self.shared.began_ns + (ramp_s * NS_PER_S as f64) as u64;
        self.until_settled(ramp_end_ns, failed, &|tally| {
            tally.of(Counter::Subscribed) + tally.of(Counter::Failed) >= all
        });
        self.checkpoints.opened = self.checkpoint();
        self.pause(SETTLE, failed);
        self.checkpoints.memory_held = MemorySnapshot::now(self.plan);
        self.checkpoints.run = self.checkpoint();
        if self.checkpoints.run.tally.of(Counter::Held) > 0 || all == 0 {
            self.run_scenario(failed);
        }
        self.stage = "draining";
        self.shared.set_stage(StormStage::Drain);
        let nothing_owed =
            |tally: &Tally| tally.of(Counter::Owed) == 0 && tally.of(Counter::Away) == 0;
        loop {
            self.until_settled(0, failed, &nothing_owed);
            // The sums are up to 100 ms old, and the last answer may be newer.
            self.pause(LOOK * 5, failed);
            if failed() || self.given_up || nothing_owed(&self.shared.sum()) {
                break;
            }
        }
        self.checkpoints.end = self.checkpoint();
        self.checkpoints.memory_end = MemorySnapshot::now(self.plan);
        let check = |patience| members::check(self.plan, self.shared, patience);
        self.members = self.plan.ghosts.map(check);
    }

    fn run_scenario(&mut self, failed: &dyn Fn() -> bool) {
        self.stage = self.plan.scenario.name();
        let from_ns = now_ns() + 2 * ns(LOOK);
        let until_ns = from_ns + ns(self.plan.duration);
        self.shared.run_from_ns.store(from_ns, Ordering::Release);
        self.shared.run_until_ns.store(until_ns, Ordering::Release);
        self.shared.set_stage(StormStage::Run);
        if self.plan.scenario == Scenario::Reconnect {
            for _ in 0..self.plan.rounds {
                self.round(failed);
            }
        }
        self.pause(Duration::from_nanos(until_ns.saturating_sub(now_ns())), failed);
    }

    /// Has all connections drop at once and return at once.
    fn round(&mut self, failed: &dyn Fn() -> bool) {
        let before = self.shared.sum();
        let at_ns = now_ns();
        self.shared.round_at_ns.store(at_ns, Ordering::Release);
        self.shared.round.fetch_add(1, Ordering::AcqRel);
        let expected = before.of(Counter::Subscribed) + before.of(Counter::Held);
        let failed_before = before.of(Counter::Failed);
        self.until_settled(0, failed, &|tally| {
            tally.of(Counter::Subscribed) + tally.of(Counter::Failed) - failed_before >= expected
        });
        let back = self.shared.sum().of(Counter::Held);
        if back < before.of(Counter::Held) {
            let lost = before.of(Counter::Held) - back;
            self.shared.problem(format!("{lost} connections were not back in time"));
            self.not_back += lost;
        }
        self.rounds_s.push((now_ns() - at_ns) as f64 / NS_PER_S as f64);
        self.pause(SETTLE, failed);
    }

    /// Waits until `done`, or until nothing has changed for the grace period. The grace period does
    /// not begin before `not_before_ns`.
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
                tally.of(Counter::Subscribed) + tally.of(Counter::Failed),
                tally.of(Counter::Delivered) + tally.of(Counter::Published),
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

    /// Lets time pass, and takes samples.
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
        let checkpoint = self.checkpoint();
        let sample = Sample::between(self.shared.began_ns, &self.sampled, &checkpoint);
        self.sampled = checkpoint;
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
        // A thread adds the latencies of a second when it notices that the second is over.
        let second = self.shared.second(now).saturating_sub(1);
        for timeline in [&self.shared.deliveries, &self.shared.handshakes] {
            timeline.lock().unwrap_or_else(PoisonError::into_inner).settle(second);
        }
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint::now(self.plan, self.shared, &self.sampled.servers)
    }

    fn outcome(self, merged: &MergedResults, date: SystemTime) -> StormOutcome {
        let mut tally = self.shared.sum();
        tally.add(Counter::Failed, self.not_back);
        let mut outcome = StormOutcome::new(self.plan, &self.checkpoints, &tally, merged);
        outcome.run = RunFigures::new(self.plan, date);
        outcome.rounds_s = self.rounds_s;
        outcome.samples = self.samples;
        outcome.delivery_seconds = all_points(&self.shared.deliveries);
        outcome.handshake_seconds = all_points(&self.shared.handshakes);
        outcome.problems = self.shared.problems();
        outcome
    }
}

/// The points of all seconds of a storm that is over.
fn all_points(timeline: &Mutex<LatencyTimeline>) -> Vec<LatencyPoint> {
    let mut timeline = timeline.lock().unwrap_or_else(PoisonError::into_inner);
    timeline.settle(u64::MAX);
    timeline.points().to_vec()
}
