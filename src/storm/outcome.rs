//! The findings of a storm: figures and the verdict.

mod table;

use std::collections::BTreeMap;
use std::time::SystemTime;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clock::NS_PER_S;
use crate::conduct::{Mark, Memory};
use crate::host;
use crate::plan::Plan;
use crate::shared::{Count, Point, Tally};

pub(super) use table::time;

/// The result of a storm. Serialised, it is what `--json` prints.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// The command, time and place of the run.
    pub run: RunFigures,
    /// The scenario's name.
    pub scenario: &'static str,
    /// The plan's numbers.
    pub plan: PlanFigures,
    /// Nothing was lost, doubled, overtaken, cut or refused.
    pub passed: bool,
    /// Connections.
    pub connections: ConnectionFigures,
    /// Messages.
    pub messages: MessageFigures,
    /// From the intended send to the arrival, in microseconds.
    pub latency_us: Option<Latency>,
    /// From the intended connect to the subscription, in microseconds.
    pub handshake_us: Option<Latency>,
    /// From the intended publish to the API's answer, in microseconds.
    pub publish_us: Option<Latency>,
    /// The cost to the server, if its process was named.
    pub server: Option<ServerFigures>,
    /// The cost to this process.
    pub storm: StormFigures,
    /// How long each round of `reconnect` took until all were back, in seconds.
    pub rounds_s: Vec<f64>,
    /// Twice a second.
    pub samples: Vec<Sample>,
    /// Latency of deliveries by second, in microseconds.
    pub delivery_seconds: Vec<Point>,
    /// Latency of handshakes by second, in microseconds.
    pub handshake_seconds: Vec<Point>,
    /// The problems in words, each with the number of its occurrences.
    pub problems: BTreeMap<String, u64>,
}

/// The command, time and place of a run, without which a figure says nothing later.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunFigures {
    /// When the storm began, in the form of HTTP (RFC 9110 section 5.6.7), in UTC.
    pub date: String,
    /// The command line, without secrets.
    pub command: String,
    /// The host that the storm ran on.
    pub host: String,
    /// The version of the storm.
    pub version: &'static str,
}

/// The plan as it was asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PlanFigures {
    connections: u32,
    channels: u32,
    publishers: u32,
    rate: f64,
    batch: u32,
    size: u32,
    duration_s: f64,
    ramp: f64,
    turnover: f64,
    slow_share: f64,
    rings: usize,
}

/// The fate of the connections.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ConnectionFigures {
    /// Subscribed at the end of the ramp.
    pub held: u64,
    /// Handshakes that led to a subscription, those of connections that came back included.
    pub handshakes: u64,
    /// Handshakes that did not, those that were never begun included.
    pub failed: u64,
    /// Closed or lost by the server.
    pub cut: u64,
    /// Stopped reading.
    pub slow: u64,
    /// Stopped reading and were closed by the server.
    pub slow_closed: u64,
    /// From the first connect until the ramp was over, in seconds.
    pub ramp_s: f64,
    /// Handshakes per second, in the ramp.
    pub ramp_per_s: f64,
    /// Handshakes per second while the scenario ran.
    pub churn_per_s: f64,
}

/// The fate of the messages.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MessageFigures {
    /// Taken by the server, or whispered.
    pub sent: u64,
    /// Per second, while the scenario ran.
    pub sent_per_s: f64,
    /// Arrived, each at each subscriber once.
    pub delivered: u64,
    /// Per second, from the first send until nothing was owed.
    pub delivered_per_s: f64,
    /// Never arrived where they should have.
    pub lost: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived behind later ones.
    pub reordered: u64,
    /// Not taken by the server.
    pub unpublished: u64,
    /// Requests that the server refused for a while.
    pub refused: u64,
    /// Belonged to another storm on the same channels.
    pub foreign: u64,
}

/// Percentiles in microseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// 50 %.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// The longest.
    pub max: u64,
    /// Pairs of percentile and value, for a curve.
    pub curve: Vec<(f64, u64)>,
}

/// The cost of a storm to the server.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServerFigures {
    /// CPU microseconds (user, system) per delivery.
    pub cpu_us_per_delivery: Option<(f64, f64)>,
    /// CPU microseconds (user, system) per message that was published or whispered.
    pub cpu_us_per_message: Option<(f64, f64)>,
    /// CPU microseconds (user, system) per handshake of the ramp.
    pub cpu_us_per_handshake: Option<(f64, f64)>,
    /// CPU microseconds (user, system) per handshake while the scenario ran.
    pub cpu_us_per_churn: Option<(f64, f64)>,
    /// Cores in use while the scenario ran.
    pub cores: f64,
    /// Its own memory per connection held, in bytes.
    pub bytes_per_connection: Option<f64>,
    /// Its own memory before the first connection, in bytes.
    pub memory_before: u64,
    /// With all connections.
    pub memory_held: u64,
    /// At the end.
    pub memory_end: u64,
}

/// The cost of a storm to this process, and to the host.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StormFigures {
    /// Cores in use while the scenario ran.
    pub cores: f64,
    /// CPU microseconds per delivery.
    pub cpu_us_per_delivery: Option<f64>,
    /// Own memory per connection, in bytes.
    pub bytes_per_connection: Option<f64>,
    /// Growth of the host's kernel objects per connection, in bytes: both ends of a loopback
    /// connection, and whatever else the host did.
    pub slab_bytes_per_connection: Option<f64>,
    /// Decrease of the host's available memory per connection, in bytes.
    pub host_bytes_per_connection: Option<f64>,
}

/// The figures since the previous sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since the storm began.
    pub at_s: f64,
    /// Connections that are subscribed.
    pub connections: u64,
    /// Handshakes per second.
    pub handshakes_per_s: f64,
    /// Messages taken by the server per second.
    pub sent_per_s: f64,
    /// Deliveries per second.
    pub delivered_per_s: f64,
    /// Cores that the server used in user mode.
    pub server_user: f64,
    /// Cores that the server used in the kernel.
    pub server_system: f64,
    /// Resident memory of the server in bytes.
    pub server_resident: u64,
    /// Cores that this process used.
    pub storm: f64,
}

/// Moments of a storm.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    pub(super) memory_before: Memory,
    pub(super) memory_held: Memory,
    pub(super) memory_end: Memory,
    /// Before the first connection.
    pub(super) start: Mark,
    /// When the ramp was over.
    pub(super) opened: Mark,
    /// When the scenario began.
    pub(super) run: Mark,
    /// When nothing was owed any more, or the grace was over.
    pub(super) end: Mark,
}

/// The results that threads hand over at their end, merged.
pub(super) struct Sums {
    pub(super) deliveries: Histogram<u64>,
    pub(super) handshakes: Histogram<u64>,
    pub(super) answers: Option<Histogram<u64>>,
    pub(super) owed: u64,
}

impl Sample {
    pub(super) fn between(began_ns: u64, from: &Mark, to: &Mark) -> Self {
        let seconds = seconds(from, to);
        let rate = |counts: &[Count]| grown(counts, from, to) as f64 / seconds;
        Self {
            at_s: to.at_ns.saturating_sub(began_ns) as f64 / NS_PER_S as f64,
            connections: to.tally.of(Count::Held),
            handshakes_per_s: rate(&[Count::Subscribed]),
            sent_per_s: rate(&SENT),
            delivered_per_s: rate(&[Count::Delivered]),
            server_user: risen(from.server.user_s, to.server.user_s) / seconds,
            server_system: risen(from.server.system_s, to.server.system_s) / seconds,
            server_resident: to.server.resident,
            storm: risen(from.storm.cpu_s(), to.storm.cpu_s()) / seconds,
        }
    }
}

impl Outcome {
    pub(super) fn new(plan: &Plan, marks: &Marks, tally: &Tally, sums: &Sums) -> Self {
        let connections = connections(plan, marks, tally);
        let messages = messages(plan, marks, tally, sums);
        let harmless = |n: u64| n == 0;
        let passed = [messages.lost, messages.duplicated, messages.reordered, messages.unpublished]
            .into_iter()
            .chain([connections.failed, connections.cut])
            .all(harmless);
        Self {
            scenario: plan.scenario.name(),
            plan: PlanFigures::of(plan),
            passed,
            latency_us: Latency::of(&sums.deliveries),
            handshake_us: Latency::of(&sums.handshakes),
            publish_us: sums.answers.as_ref().and_then(Latency::of),
            server: plan.pid.map(|_| server(marks, &connections)),
            storm: storm(marks, &connections),
            connections,
            messages,
            ..Self::default()
        }
    }
}

impl RunFigures {
    pub(super) fn new(plan: &Plan, date: SystemTime) -> Self {
        Self {
            date: httpdate::fmt_http_date(date),
            command: plan.command.clone(),
            host: host::described(plan.room.cores),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

impl PlanFigures {
    fn of(plan: &Plan) -> Self {
        Self {
            connections: plan.connections,
            channels: plan.channels,
            publishers: plan.publishers,
            rate: plan.rate,
            batch: plan.batch,
            size: plan.size,
            duration_s: plan.duration.as_secs_f64(),
            ramp: plan.ramp,
            turnover: plan.turnover,
            slow_share: plan.slow_share,
            rings: plan.shares().len(),
        }
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        let curve = histogram.iter_quantiles(3);
        Some(Self {
            count: histogram.len(),
            mean: histogram.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
            curve: curve.map(|step| (step.quantile(), step.value_iterated_to())).collect(),
        })
    }
}

/// Fewer connections say nothing of memory: an allocator's next block would be shared among them.
const CONNECTIONS_MIN: u64 = 1000;

/// Either way of sending.
const SENT: [Count; 2] = [Count::Published, Count::Whispered];

fn connections(plan: &Plan, marks: &Marks, tally: &Tally) -> ConnectionFigures {
    let ramp_s = seconds(&marks.start, &marks.opened);
    let run_s = seconds(&marks.run, &marks.end);
    let opened = marks.opened.tally.of(Count::Subscribed);
    let tried = opened + marks.opened.tally.of(Count::Failed);
    // Those that were never tried, or whose handshake was never answered.
    let unfinished = u64::from(plan.connections).saturating_sub(tried);
    ConnectionFigures {
        held: marks.run.tally.of(Count::Held),
        handshakes: tally.of(Count::Subscribed),
        failed: tally.of(Count::Failed) + unfinished,
        cut: tally.of(Count::Cut),
        slow: tally.of(Count::Slow),
        slow_closed: tally.of(Count::SlowClosed),
        ramp_s,
        ramp_per_s: opened as f64 / ramp_s,
        churn_per_s: grown(&[Count::Subscribed], &marks.run, &marks.end) as f64 / run_s,
    }
}

fn messages(plan: &Plan, marks: &Marks, tally: &Tally, sums: &Sums) -> MessageFigures {
    let sent: u64 = SENT.iter().map(|count| tally.of(*count)).sum();
    let delivered = tally.of(Count::Delivered);
    let run_s = seconds(&marks.run, &marks.end);
    let unanswered = tally.of(Count::Outstanding) * u64::from(plan.batch);
    MessageFigures {
        sent,
        sent_per_s: sent as f64 / plan.duration.as_secs_f64().max(0.001),
        delivered,
        delivered_per_s: delivered as f64 / run_s,
        lost: tally.of(Count::Missing) + sums.owed,
        duplicated: tally.of(Count::Duplicated),
        reordered: tally.of(Count::Reordered),
        unpublished: tally.of(Count::Unpublished) + unanswered,
        refused: tally.of(Count::Refused),
        foreign: tally.of(Count::Foreign),
    }
}

fn server(marks: &Marks, connections: &ConnectionFigures) -> ServerFigures {
    let Marks { start, opened, run, end, .. } = marks;
    let memory = [marks.memory_before, marks.memory_held, marks.memory_end].map(|m| m.server);
    ServerFigures {
        cpu_us_per_delivery: cpu_us(&[Count::Delivered], run, end),
        cpu_us_per_message: cpu_us(&SENT, run, end),
        cpu_us_per_handshake: cpu_us(&[Count::Subscribed], start, opened),
        cpu_us_per_churn: cpu_us(&[Count::Subscribed], run, end),
        cores: risen(run.server.cpu_s(), end.server.cpu_s()) / seconds(run, end),
        bytes_per_connection: per_connection(memory[1], memory[0], connections),
        memory_before: memory[0],
        memory_held: memory[1],
        memory_end: memory[2],
    }
}

fn storm(marks: &Marks, connections: &ConnectionFigures) -> StormFigures {
    let Marks { run, end, memory_before: before, memory_held: held, .. } = marks;
    let cpu_s = risen(run.storm.cpu_s(), end.storm.cpu_s());
    let delivered = grown(&[Count::Delivered], run, end);
    let per = |now, then| per_connection(now, then, connections);
    StormFigures {
        cores: cpu_s / seconds(run, end),
        cpu_us_per_delivery: (delivered > 0).then(|| cpu_s * 1e6 / delivered as f64),
        bytes_per_connection: per(held.storm, before.storm),
        slab_bytes_per_connection: per(held.host.slab, before.host.slab),
        // The other way round: what is available shrinks.
        host_bytes_per_connection: per(before.host.available, held.host.available),
    }
}

/// CPU microseconds (user, system) of the server per event between two moments.
fn cpu_us(counts: &[Count], from: &Mark, to: &Mark) -> Option<(f64, f64)> {
    let events = grown(counts, from, to);
    let per = |now: f64, then: f64| risen(then, now) * 1e6 / events as f64;
    (events > 0).then(|| {
        let (to, from) = (to.server, from.server);
        (per(to.user_s, from.user_s), per(to.system_s, from.system_s))
    })
}

/// The growth of memory for each connection. Memory that has shrunk says nothing of them: the
/// host, or the allocator, gave something else back meanwhile.
fn per_connection(more: u64, less: u64, connections: &ConnectionFigures) -> Option<f64> {
    let held = connections.held;
    let grown = more.checked_sub(less).filter(|_| held >= CONNECTIONS_MIN);
    grown.map(|bytes| bytes as f64 / held as f64)
}

fn grown(counts: &[Count], from: &Mark, to: &Mark) -> u64 {
    counts.iter().map(|count| to.tally.of(*count).saturating_sub(from.tally.of(*count))).sum()
}

/// The rise of a time of the CPU. The kernel's split of it into user and system is revised
/// with every tick, and a process that ends takes its exact figure along: neither gives time back.
fn risen(from_s: f64, to_s: f64) -> f64 {
    if to_s > from_s { to_s - from_s } else { 0.0 }
}

/// Never zero: it is divided by.
fn seconds(from: &Mark, to: &Mark) -> f64 {
    (to.at_ns.saturating_sub(from.at_ns) as f64 / NS_PER_S as f64).max(0.001)
}
