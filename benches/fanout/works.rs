//! The kinds of work: their loads, their figures, and the servers that are compared.

use clap::ValueEnum;
use serde_json::Value;

use crate::load::Load;
use crate::server::{Kind, Server};

/// A part of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// One message to many, against both floors
    Fanout,
    /// The same under loads that let messages gather, against the coalesced floor alone
    FanoutCoalesced,
    /// Fan-out by several shards on one core, against one shard
    Shards,
    /// Connect and subscribe
    Storm,
    /// Publish by API, connections kept
    Publish,
    /// Publish by API, a connection each
    PublishFresh,
    /// Publish ten events per request
    Batch,
    /// A client event to one peer
    Whisper,
    /// Memory per idle connection
    Memory,
    /// A fifth of the readers stops
    Slow,
    /// From publish to receive
    Latency,
    /// All of these
    All,
}

/// One load, and the servers that bear it in turns. The first one is compared with the others.
pub(crate) struct Case {
    pub(crate) work: &'static str,
    pub(crate) load: Load,
    pub(crate) servers: Vec<Kind>,
    pub(crate) read: Read,
}

/// The kind of figures that a case yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    CpuPerDelivery,
    CpuPerRequest,
    CpuPerHandshake,
    Memory,
    Slow,
    Latency,
}

/// One measured value.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
}

/// The number of cores that each side used.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cores {
    /// The server and the generator, in the half second that kept each busiest.
    pub(crate) server: f64,
    pub(crate) generator: f64,
    /// All other processes of the host, on average: they make figures worse, and messages gather.
    pub(crate) others: f64,
}

/// The measurements of one server in one round.
pub(crate) struct Taken {
    pub(crate) figures: Vec<Figure>,
    pub(crate) cores: Cores,
}

impl Work {
    /// The cases. `shards` is the gateway's number of shards.
    pub(crate) fn cases(self, shards: usize) -> Vec<Case> {
        let gateway = Kind::Gateway(shards);
        let (both, one) =
            ([gateway, Kind::Floor, Kind::Coalesced].to_vec(), [gateway, Kind::Coalesced].to_vec());
        let cases = |work, read, servers: &[Kind], loads: Vec<Load>| {
            let case = |load| Case { work, load, servers: servers.to_vec(), read };
            loads.into_iter().map(case).collect::<Vec<_>>()
        };
        match self {
            Self::Fanout => cases("fan-out", Read::CpuPerDelivery, &both, fan_outs()),
            Self::FanoutCoalesced => {
                cases("fan-out", Read::CpuPerDelivery, &one, gathering_fan_outs())
            }
            Self::Shards => {
                let of = |shards| {
                    let servers = [Kind::Gateway(shards), Kind::Gateway(1)];
                    let loads = vec![Load::default(), Load { rate: 1000, ..Load::default() }];
                    cases("shards", Read::CpuPerDelivery, &servers, loads)
                };
                [2, 8, 64].into_iter().flat_map(of).collect()
            }
            Self::Storm => cases("storm", Read::CpuPerHandshake, &one, storms()),
            Self::Publish => cases("publish", Read::CpuPerRequest, &one, publishes(1, &[])),
            Self::PublishFresh => {
                cases("publish, fresh", Read::CpuPerRequest, &one, publishes(1, &["--fresh"]))
            }
            Self::Batch => cases("batch", Read::CpuPerRequest, &one, publishes(10, &[])),
            Self::Whisper => cases("whisper", Read::CpuPerRequest, &both, whispers()),
            Self::Memory => cases("memory", Read::Memory, &one, idlers()),
            Self::Slow => cases("slow", Read::Slow, &one, slow_readers()),
            Self::Latency => cases("latency", Read::Latency, &one, half_loads()),
            Self::All => {
                let all = Self::value_variants().iter();
                let each = all.filter(|work| !matches!(work, Self::All | Self::FanoutCoalesced));
                each.flat_map(|work| work.cases(shards)).collect()
            }
        }
    }

    /// Whether its loads are fan-outs of one kind, one of which can be chosen by flags.
    pub(crate) fn is_fan_out(self) -> bool {
        matches!(self, Self::Fanout | Self::FanoutCoalesced | Self::Latency)
    }
}

fn fan_outs() -> Vec<Load> {
    let base = Load::default;
    vec![
        base(),
        Load { connections: 100, rate: 1000, ..base() },
        Load { rate: 1000, ..base() },
        Load { rate: 0, ..base() },
        Load { connections: 15_000, rate: 2, ..base() },
        Load { size: 1024, ..base() },
        Load { size: 10 * 1024, ..base() },
        Load { connections: 10_000, channels: 1000, rate: 5000, ..base() },
    ]
}

fn gathering_fan_outs() -> Vec<Load> {
    let gathers = |load: &Load| load.rate == 0 || load.rate >= 1000;
    fan_outs().into_iter().filter(gathers).collect()
}

/// Connects with a channel of its own for each connection, so that the kinds differ by their
/// signatures alone, and no member is told of other joins.
fn storms() -> Vec<Load> {
    let base = Load { scenario: "connect", connections: 5000, seconds: 0.1, ..Load::default() };
    let base = Load { publishers: 0, ..base };
    let own = |kind| Load { kind, channels: base.connections, ..base.clone() };
    vec![base.clone(), own("public"), own("private"), own("presence")]
}

fn publishes(batch: u32, more: &'static [&'static str]) -> Vec<Load> {
    vec![Load { scenario: "publish", connections: 0, rate: 0, batch, more, ..Load::default() }]
}

/// Pairs of clients: so many, and so often, that the server serves many of them per turn, yet
/// hardly ever two events of one.
fn whispers() -> Vec<Load> {
    let pairs = Load { scenario: "whisper", kind: "private", rate: 50_000, ..Load::default() };
    vec![Load { connections: 2000, channels: 1000, publishers: 1000, ..pairs }]
}

fn idlers() -> Vec<Load> {
    let base = storms().swap_remove(0);
    let base = Load { connections: 12_000, ..base };
    let presence: &[&str] = &["--user-info", "100"];
    vec![
        base.clone(),
        Load { kind: "private", channels: base.connections, ..base.clone() },
        Load { kind: "presence", channels: base.connections / 20, more: presence, ..base },
    ]
}

/// Loads of one megabyte per second to each reader, for long enough to fill the kernel's buffers (4
/// MB of the sender by default, and what the reader's took) and then the server's.
fn slow_readers() -> Vec<Load> {
    let load = Load { connections: 100, rate: 100, size: 10_000, ..Load::default() };
    vec![Load { scenario: "slow", more: &["--slow-share", "0.2"], seconds: 9.0, ..load }]
}

/// Loads of about half of the messages that a core can send one by one.
fn half_loads() -> Vec<Load> {
    vec![
        Load { rate: 100, ..Load::default() },
        Load { connections: 100, rate: 1000, ..Load::default() },
    ]
}

impl Case {
    /// Puts a server under the load and returns the figures of the case.
    ///
    /// # Errors
    /// The server did not bear the load.
    pub(crate) fn take(&self, server: &Server) -> Result<Taken, String> {
        if self.read == Read::Memory {
            warm(server)?;
        }
        let all_read = || Load { scenario: "fanout", more: &[], seconds: 3.0, ..self.load.clone() };
        let without = (self.read == Read::Slow).then(|| all_read().run(server)).transpose()?;
        let outcome = self.load.run(server)?;
        let cpu_us = |name: &str| {
            let pair = &outcome["server"][name];
            number(&pair[0]) + number(&pair[1])
        };
        let p = |outcome: &Value, name: &str| number(&outcome["latency_us"][name]);
        let figure = |name, value| Figure { name, value };
        let figures = match self.read {
            Read::CpuPerDelivery => {
                vec![figure("CPU us per delivery", cpu_us("cpu_us_per_delivery"))]
            }
            Read::CpuPerRequest => {
                let events = f64::from(self.load.batch);
                vec![figure("CPU us per request", cpu_us("cpu_us_per_message") * events)]
            }
            Read::CpuPerHandshake => {
                vec![figure("CPU us per handshake", cpu_us("cpu_us_per_handshake"))]
            }
            Read::Memory => {
                let bytes = number(&outcome["server"]["bytes_per_connection"]);
                vec![figure("bytes per connection", bytes)]
            }
            Read::Slow => {
                let without = p(&without.unwrap_or_default(), "p99");
                vec![
                    figure("closed for their backlog", slow_closed(&outcome)),
                    figure("growth, MB", growth(&outcome) / 1e6),
                    figure("p99 against without", p(&outcome, "p99") / without),
                ]
            }
            Read::Latency => vec![
                figure("p50, us", p(&outcome, "p50")),
                figure("p99, us", p(&outcome, "p99")),
                figure("p99.9, us", p(&outcome, "p999")),
            ],
        };
        Ok(Taken { figures, cores: Cores::of(&outcome) })
    }
}

/// Lets a server touch what it touches once: code and receive buffers. It is done by few
/// connections, which leave nothing behind that later ones could use. With more of them, the
/// records of all slots would have been touched, because the kernel hands out the slots of a file
/// table in turns.
fn warm(server: &Server) -> Result<(), String> {
    let few = Load { scenario: "churn", connections: 50, publishers: 0, ..Load::default() };
    Load { seconds: 1.0, more: &["--turnover", "1500"], ..few }.run(server).map(drop)
}

fn slow_closed(outcome: &Value) -> f64 {
    number(&outcome["connections"]["slow_closed"])
}

impl Cores {
    fn of(outcome: &Value) -> Self {
        let samples = outcome["samples"].as_array().map_or(&[][..], Vec::as_slice);
        let of_server =
            |sample: &Value| number(&sample["server_user"]) + number(&sample["server_system"]);
        let of_generator = |sample: &Value| number(&sample["storm"]);
        Self {
            server: samples.iter().map(of_server).fold(0.0, f64::max),
            generator: samples.iter().map(of_generator).fold(0.0, f64::max),
            others: number(&outcome["others"]),
        }
    }
}

/// The bytes by which a server's resident memory grew at most after the first message.
fn growth(outcome: &Value) -> f64 {
    let samples = outcome["samples"].as_array().map_or(&[][..], Vec::as_slice);
    let resident = |sample: &Value| number(&sample["server_resident"]);
    let quiet = samples.iter().take_while(|sample| number(&sample["sent_per_s"]) == 0.0);
    let before = quiet.last().or_else(|| samples.first()).map_or(0.0, resident);
    samples.iter().map(resident).fold(before, f64::max) - before
}

/// The number in a value, or NaN if there is none.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}
