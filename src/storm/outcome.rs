//! The outcome of a storm: figures and the verdict.

mod table;

use std::collections::BTreeMap;
use std::time::SystemTime;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::checkpoint::{Checkpoint, Checkpoints, Interval};
use crate::clock::NS_PER_S;
use crate::counters::{Counter, Tally};
use crate::latency::LatencyPoint;
use crate::members::MemberFigures;
use crate::plan::StormPlan;
use crate::procfs::host_description;

/// The result of a storm. Serialised, it is what `--json` prints.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StormOutcome {
    /// The command, time and place of the run.
    pub run: RunFigures,
    /// The scenario's name.
    pub scenario: &'static str,
    /// The plan's numbers.
    pub plan: PlanFigures,
    /// No message was lost, duplicated, reordered, unpublished or unsent, no connection failed or
    /// stayed away, and the lists of members were right. Unless the plan expects outages, no
    /// connection was cut and no message is unknown either.
    pub passed: bool,
    /// Figures of the connections.
    pub connections: ConnectionFigures,
    /// Figures of the messages.
    pub messages: MessageFigures,
    /// The members of presence channels at the end, if they were compared.
    pub members: Option<MemberFigures>,
    /// The time from the intended send to the arrival, in microseconds.
    pub latency_us: Option<Latency>,
    /// The time from the intended connect to the subscription, in microseconds.
    pub handshake_us: Option<Latency>,
    /// The time from the intended publish to the API's response, in microseconds.
    pub publish_us: Option<Latency>,
    /// The cost to the server, if its processes were named: of all of them together.
    pub server: Option<ServerFigures>,
    /// The cost to each of its processes, in the order in which they were named.
    pub servers: Vec<ServerProcess>,
    /// The cost to this process.
    pub storm: StormFigures,
    /// The seconds until all connections were back, for each round of `reconnect`.
    pub rounds_s: Vec<f64>,
    /// The samples, two per second of a short storm and fewer of a long one.
    pub samples: Vec<Sample>,
    /// The latency of deliveries by second, in microseconds.
    pub delivery_seconds: Vec<LatencyPoint>,
    /// The latency of handshakes by second, in microseconds.
    pub handshake_seconds: Vec<LatencyPoint>,
    /// The problems in words, each with the number of its occurrences.
    pub problems: BTreeMap<String, u64>,
}

/// The command, time and place of a run. Figures that are kept mean nothing without them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunFigures {
    /// The time at which the storm began, in UTC, as HTTP writes dates (RFC 9110 section 5.6.7).
    pub date: String,
    /// The command line, without secrets.
    pub command: String,
    /// The host that the storm ran on.
    pub host: String,
    /// The version of the storm.
    pub version: &'static str,
}

/// The numbers of the plan.
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
    /// Connections that were subscribed at the end of the ramp.
    pub held: u64,
    /// Handshakes that led to a subscription, those of connections that came back included.
    pub handshakes: u64,
    /// Handshakes that did not lead to a subscription, or were never begun.
    pub failed: u64,
    /// Connections that the server or the network ended.
    pub cut: u64,
    /// Connections that were cut, should have returned, and did not.
    pub away: u64,
    /// Connects and handshakes, of publishers too, that failed and were begun again at the next
    /// address.
    pub retried: u64,
    /// Connections that stopped reading.
    pub slow: u64,
    /// Connections that stopped reading and were closed by the server.
    pub slow_closed: u64,
    /// Seconds from the first connect to the end of the ramp.
    pub ramp_s: f64,
    /// Handshakes per second in the ramp.
    pub ramp_per_s: f64,
    /// Handshakes per second while the scenario ran.
    pub churn_per_s: f64,
}

/// The fate of the messages.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MessageFigures {
    /// Messages that the server accepted, and client events that were sent.
    pub sent: u64,
    /// Messages sent per second while the scenario ran.
    pub sent_per_s: f64,
    /// Messages that arrived, each counted once per subscriber.
    pub delivered: u64,
    /// Deliveries per second, from the first send until nothing was owed.
    pub delivered_per_s: f64,
    /// Deliveries that were owed and never came.
    pub lost: u64,
    /// Messages that arrived again.
    pub duplicated: u64,
    /// Messages that arrived behind later ones.
    pub reordered: u64,
    /// Messages that were sent while subscribers were away, which are not owed to them. Some may
    /// have arrived as they came back.
    pub missed_away: u64,
    /// Messages that the server refused, and that were not accepted later.
    pub unpublished: u64,
    /// Messages without a response, which the server may have accepted. They are owed to nobody,
    /// and may arrive once.
    pub unknown: u64,
    /// Messages that were due and were never handed over to a server.
    pub unsent: u64,
    /// Requests that the server refused for the time being (429 or 503).
    pub refused: u64,
    /// Messages of another storm on the same channels.
    pub foreign: u64,
    /// The refused requests by status.
    pub refusals: BTreeMap<u16, u64>,
}

/// Percentiles in microseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Latency {
    /// The number of latencies.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: u64,
    /// The 90th percentile.
    pub p90: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p999: u64,
    /// The longest latency.
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
    /// The memory that belongs to the server alone, per connection held, in bytes.
    pub bytes_per_connection: Option<f64>,
    /// The memory that belongs to the server alone, before the first connection, in bytes.
    pub memory_before: u64,
    /// The same with all connections.
    pub memory_held: u64,
    /// The same at the end.
    pub memory_end: u64,
}

/// The cost of a storm to one process of the server.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServerProcess {
    /// The number of the process.
    pub pid: u32,
    /// The process's URL, if as many processes as URLs were named.
    pub url: Option<String>,
    /// Cores in use while the scenario ran.
    pub cores: f64,
    /// The memory that belongs to the process alone, before the first connection, in bytes.
    pub memory_before: u64,
    /// The same with all connections.
    pub memory_held: u64,
    /// The same at the end; zero if the process was gone.
    pub memory_end: u64,
}

/// The cost of a storm to this process, and to the host.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StormFigures {
    /// Cores in use while the scenario ran.
    pub cores: f64,
    /// CPU microseconds per delivery.
    pub cpu_us_per_delivery: Option<f64>,
    /// The memory that belongs to this process alone, per connection, in bytes.
    pub bytes_per_connection: Option<f64>,
    /// The growth of the host's kernel objects per connection, in bytes: both ends of a loopback
    /// connection, and whatever else the host did.
    pub slab_bytes_per_connection: Option<f64>,
    /// The decrease of the host's available memory per connection, in bytes.
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
    /// Messages sent per second.
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

/// The results of the publishers.
pub(crate) struct PublisherResults {
    /// The times from the intended publish to the response, in microseconds.
    pub(crate) responses: Histogram<u64>,
    /// The requests that were refused for the time being, by status.
    pub(crate) refusals: BTreeMap<u16, u64>,
    /// The time of the last response after the time of the scenario was over.
    pub(crate) overtime_ns: u64,
}

/// The results that threads return when they end, merged.
pub(crate) struct MergedResults {
    pub(crate) deliveries: Histogram<u64>,
    pub(crate) handshakes: Histogram<u64>,
    /// The results of the publishers; none without any.
    pub(crate) publisher: Option<PublisherResults>,
    /// The members of presence channels, if they were compared.
    pub(crate) members: Option<MemberFigures>,
    /// Messages that never arrived, behind the last one that did.
    pub(crate) owed: u64,
}

impl Sample {
    pub(crate) fn between(began_ns: u64, from: &Checkpoint, to: &Checkpoint) -> Self {
        let interval = Interval { from, to };
        let seconds = interval.seconds();
        let (server_user_s, server_system_s) = interval.server_cpu_s();
        Self {
            at_s: to.at_ns.saturating_sub(began_ns) as f64 / NS_PER_S as f64,
            connections: to.tally.of(Counter::Held),
            handshakes_per_s: interval.rate(&[Counter::Subscribed]),
            sent_per_s: interval.rate(&SENT),
            delivered_per_s: interval.rate(&[Counter::Delivered]),
            server_user: server_user_s / seconds,
            server_system: server_system_s / seconds,
            server_resident: to.server_resident(),
            storm: interval.storm_cpu_s() / seconds,
        }
    }
}

impl StormOutcome {
    pub(crate) fn new(
        plan: &StormPlan,
        checkpoints: &Checkpoints,
        tally: &Tally,
        results: &MergedResults,
    ) -> Self {
        let connections = connections(plan, checkpoints, tally);
        let messages = messages(plan, checkpoints, tally, results);
        Self {
            scenario: plan.scenario.name(),
            plan: PlanFigures::of(plan),
            passed: passed(plan, &connections, &messages, results.members.as_ref()),
            members: results.members.clone(),
            latency_us: Latency::of(&results.deliveries),
            handshake_us: Latency::of(&results.handshakes),
            publish_us: results.publisher.as_ref().and_then(|p| Latency::of(&p.responses)),
            server: (!plan.pids.is_empty()).then(|| server(checkpoints, &connections)),
            servers: servers(plan, checkpoints),
            storm: storm(checkpoints, &connections),
            connections,
            messages,
            ..Self::default()
        }
    }
}

impl RunFigures {
    pub(crate) fn new(plan: &StormPlan, date: SystemTime) -> Self {
        Self {
            date: httpdate::fmt_http_date(date),
            command: plan.command.clone(),
            host: host_description(plan.host.cores),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

impl PlanFigures {
    fn of(plan: &StormPlan) -> Self {
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

/// Memory per connection is told from so many connections on. With fewer, the blocks that the
/// allocator rounds up to would dominate it.
const CONNECTIONS_MIN: u64 = 1000;

/// Messages that were sent in either way.
const SENT: [Counter; 2] = [Counter::Published, Counter::Whispered];

/// The verdict. An outage costs no message that is owed, so a plan may expect outages.
fn passed(
    plan: &StormPlan,
    connections: &ConnectionFigures,
    messages: &MessageFigures,
    members: Option<&MemberFigures>,
) -> bool {
    let faults = [messages.lost, messages.duplicated, messages.reordered];
    let undone = [messages.unpublished, messages.unsent, connections.failed, connections.away];
    let outages = if plan.failover { [0, 0] } else { [connections.cut, messages.unknown] };
    let all = [&faults[..], &undone[..], &outages[..]].concat();
    all.iter().all(|count| *count == 0) && members.is_none_or(MemberFigures::are_right)
}

fn connections(plan: &StormPlan, checkpoints: &Checkpoints, tally: &Tally) -> ConnectionFigures {
    let opened = &checkpoints.opened.tally;
    // Those that were never tried, and those whose handshake was never answered.
    let tried = opened.of(Counter::Subscribed) + opened.of(Counter::Failed);
    let unfinished = u64::from(plan.connections).saturating_sub(tried);
    ConnectionFigures {
        held: checkpoints.run.tally.of(Counter::Held),
        handshakes: tally.of(Counter::Subscribed),
        failed: tally.of(Counter::Failed) + unfinished,
        cut: tally.of(Counter::Cut),
        away: tally.of(Counter::Away),
        retried: tally.of(Counter::Retried),
        slow: tally.of(Counter::Slow),
        slow_closed: tally.of(Counter::SlowClosed),
        ramp_s: checkpoints.ramp().seconds(),
        ramp_per_s: checkpoints.ramp().rate(&[Counter::Subscribed]),
        churn_per_s: checkpoints.scenario().rate(&[Counter::Subscribed]),
    }
}

fn messages(
    plan: &StormPlan,
    checkpoints: &Checkpoints,
    tally: &Tally,
    results: &MergedResults,
) -> MessageFigures {
    let sent: u64 = SENT.iter().map(|counter| tally.of(*counter)).sum();
    let delivered = tally.of(Counter::Delivered);
    // A server that fell behind answered the last requests after the measured time.
    let publisher = results.publisher.as_ref();
    let overtime_s = publisher.map_or(0.0, |p| p.overtime_ns as f64 / NS_PER_S as f64);
    let taken_s = plan.duration.as_secs_f64() + overtime_s;
    MessageFigures {
        sent,
        sent_per_s: sent as f64 / taken_s.max(0.001),
        delivered,
        delivered_per_s: delivered as f64 / checkpoints.scenario().seconds(),
        lost: tally.of(Counter::Missing) + results.owed,
        duplicated: tally.of(Counter::Duplicated),
        reordered: tally.of(Counter::Reordered),
        missed_away: tally.of(Counter::MissedAway),
        unpublished: tally.of(Counter::Unpublished),
        unknown: tally.of(Counter::Unknown),
        unsent: tally.of(Counter::Unsent),
        refused: tally.of(Counter::Refused),
        refusals: publisher.map(|p| p.refusals.clone()).unwrap_or_default(),
        foreign: tally.of(Counter::Foreign),
    }
}

fn server(checkpoints: &Checkpoints, connections: &ConnectionFigures) -> ServerFigures {
    let (ramp, scenario) = (checkpoints.ramp(), checkpoints.scenario());
    let Checkpoints { memory_before, memory_held, memory_end, .. } = checkpoints;
    ServerFigures {
        cpu_us_per_delivery: scenario.server_cpu_us_per(&[Counter::Delivered]),
        cpu_us_per_message: scenario.server_cpu_us_per(&SENT),
        cpu_us_per_handshake: ramp.server_cpu_us_per(&[Counter::Subscribed]),
        cpu_us_per_churn: scenario.server_cpu_us_per(&[Counter::Subscribed]),
        cores: scenario.server_cores(),
        bytes_per_connection: connections.share(memory_held.server(), memory_before.server()),
        memory_before: memory_before.server(),
        memory_held: memory_held.server(),
        memory_end: memory_end.server(),
    }
}

fn servers(plan: &StormPlan, checkpoints: &Checkpoints) -> Vec<ServerProcess> {
    let Checkpoints { memory_before, memory_held, memory_end, .. } = checkpoints;
    let urls = plan.target.urls();
    let of = |(process, pid): (usize, &u32)| ServerProcess {
        pid: *pid,
        url: urls.get(process).filter(|_| urls.len() == plan.pids.len()).cloned(),
        cores: checkpoints.scenario().cores_of(process),
        memory_before: memory_before.of(process),
        memory_held: memory_held.of(process),
        memory_end: memory_end.of(process),
    };
    plan.pids.iter().enumerate().map(of).collect()
}

fn storm(checkpoints: &Checkpoints, connections: &ConnectionFigures) -> StormFigures {
    let scenario = checkpoints.scenario();
    let Checkpoints { memory_before: before, memory_held: held, .. } = checkpoints;
    let cpu_s = scenario.storm_cpu_s();
    let delivered = scenario.events(&[Counter::Delivered]);
    StormFigures {
        cores: cpu_s / scenario.seconds(),
        cpu_us_per_delivery: (delivered > 0).then(|| cpu_s * 1e6 / delivered as f64),
        bytes_per_connection: connections.share(held.storm, before.storm),
        slab_bytes_per_connection: connections.share(held.host.slab, before.host.slab),
        // The other way round, because available memory shrinks.
        host_bytes_per_connection: connections.share(before.host.available, held.host.available),
    }
}

impl ConnectionFigures {
    /// The growth of memory per connection. Memory that has shrunk says nothing about connections,
    /// because the host or the allocator gave something else back meanwhile.
    fn share(&self, more: u64, less: u64) -> Option<f64> {
        let grown = more.checked_sub(less).filter(|_| self.held >= CONNECTIONS_MIN);
        grown.map(|bytes| bytes as f64 / self.held as f64)
    }
}
