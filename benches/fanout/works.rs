//! The kinds of work: their loads, and the servers that are compared.

use clap::ValueEnum;

use crate::case::{Case, Read, Unit};
use crate::host;
use crate::load::Load;
use crate::server::Kind;

/// A part of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// One message to many, against both floors
    Fanout,
    /// The same under loads that let messages gather, against the coalesced floor alone
    FanoutCoalesced,
    /// Several shards: on one core against one shard, and on as many cores
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

impl Work {
    /// The cases. `shards` is the gateway's number of shards, and the peers are compared with it
    /// wherever a floor is.
    pub(crate) fn cases(self, shards: usize, peers: &[Kind]) -> Vec<Case> {
        let gateway = Kind::Gateway { shards, cores: 1 };
        let with = |floors: &[Kind]| [&[gateway], floors, peers].concat();
        let both = || with(&[Kind::Floor, Kind::Coalesced]);
        let one = || with(&[Kind::Coalesced]);
        let deliveries = Read::Cpu(Unit::Delivery);
        let requests = Read::Cpu(Unit::Request);
        match self {
            Self::Fanout => Case::each("fan-out", deliveries, &both(), fan_outs()),
            Self::FanoutCoalesced => {
                Case::each("fan-out", deliveries, &one(), gathering_fan_outs())
            }
            Self::Shards => [shards_on_one_core(), shards_on_their_cores()].concat(),
            Self::Storm => Case::each("storm", Read::Cpu(Unit::Handshake), &one(), storms()),
            Self::Publish => Case::each("publish", requests, &one(), publishes(1, &[])),
            Self::PublishFresh => {
                Case::each("publish, fresh", requests, &one(), publishes(1, &["--fresh"]))
            }
            Self::Batch => Case::each("batch", requests, &one(), publishes(10, &[])),
            Self::Whisper => Case::each("whisper", requests, &both(), whispers()),
            Self::Memory => Case::each("memory", Read::Memory, &one(), idlers()),
            Self::Slow => Case::each("slow", Read::Slow, &one(), slow_readers()),
            Self::Latency => Case::each("latency", Read::Latency, &one(), half_loads()),
            Self::All => {
                let all = Self::value_variants().iter();
                let each = all.filter(|work| !matches!(work, Self::All | Self::FanoutCoalesced));
                each.flat_map(|work| work.cases(shards, peers)).collect()
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

/// Fan-outs by several shards on one core, each against one shard there: the price of more shards
/// than cores.
fn shards_on_one_core() -> Vec<Case> {
    let of = |shards| {
        let servers = [shards, 1].map(|shards| Kind::Gateway { shards, cores: 1 });
        let loads = vec![Load::default(), Load { rate: 1000, ..Load::default() }];
        Case::each("shards", Read::Cpu(Unit::Delivery), &servers, loads)
    };
    [2, 8, 64].into_iter().flat_map(of).collect()
}

/// The same loads on one shard with a core of its own, on two, and so on: the share of linear.
/// Publishers and channels are so many that the busiest server still has another request to take
/// up, and the handshakes are so many for each shard that opening them takes a while.
fn shards_on_their_cores() -> Vec<Case> {
    let (fitting, left_out): (Vec<_>, Vec<_>) =
        [1, 2, 4, 8, 16].into_iter().partition(|shards| *shards < host::cores());
    let servers: Vec<_> =
        fitting.into_iter().map(|shards| Kind::Gateway { shards, cores: shards }).collect();
    let note = (!left_out.is_empty()).then(|| {
        let left_out = left_out.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let cores = host::cores();
        format!(
            "left out: {left_out} shards, because each needs a core of its own and the load one \
             more, and this host has {cores}"
        )
    });
    let busy = Load { publishers: 64, rate: 0, ..Load::default() };
    let fan_out = Load { connections: 4000, channels: 16, ..busy.clone() };
    let publish = Load { scenario: "publish", connections: 0, ..busy };
    let connect = Load { scenario: "connect", kind: "private", seconds: 0.1, ..Load::default() };
    let connect = Load { publishers: 0, connections: 15_000, channels: 15_000, ..connect };
    let case = |(unit, load)| Case {
        note: note.clone(),
        connections_per_shard: unit == Unit::Handshake,
        ..Case::new("scaling", Read::Throughput(unit), &servers, load)
    };
    let loads = [(Unit::Delivery, fan_out), (Unit::Request, publish), (Unit::Handshake, connect)];
    loads.map(case).into()
}

/// Connects with a channel of its own for each connection, so that the kinds differ by their
/// signatures alone, and no member is told of other joins. The last one has few handshakes under
/// way at a time, as a server has that is not in a storm: fewer of them share a system call.
fn storms() -> Vec<Load> {
    let base = Load { scenario: "connect", connections: 5000, seconds: 0.1, ..Load::default() };
    let base = Load { publishers: 0, ..base };
    let own = |kind| Load { kind, channels: base.connections, ..base.clone() };
    let few = Load { more: &["--in-flight", "64"], ..own("private") };
    vec![base.clone(), own("public"), own("private"), own("presence"), few]
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
