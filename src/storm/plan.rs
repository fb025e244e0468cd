//! The plan of a storm: plain values, and the arithmetic on them.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::Duration;

use clap::ValueEnum;

use crate::stamp::STAMP_LEN;
use crate::target::Target;

/// The scenario, which decides what is put under load. The texts are those of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Connect and subscribe, then hold
    Connect,
    /// Publish by API to subscribers
    Fanout,
    /// Publish by API, to channels with no or few subscribers
    Publish,
    /// Client events between subscribers
    Whisper,
    /// Connect, subscribe, leave, continuously
    Churn,
    /// As fanout, and a share of the subscribers stops reading
    Slow,
    /// All drop and return at once
    Reconnect,
}

impl Scenario {
    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Fanout => "fanout",
            Self::Publish => "publish",
            Self::Whisper => "whisper",
            Self::Churn => "churn",
            Self::Slow => "slow",
            Self::Reconnect => "reconnect",
        }
    }
}

/// The kind of the channels. The texts are those of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// No signature
    Public,
    /// Signed
    Private,
    /// Signed, and every connection is a member, of whom the server tells all others
    Presence,
}

/// Where connections come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sources {
    /// The kernel chooses.
    Any,
    /// These addresses, in turns.
    Range {
        /// The first one.
        first: Ipv4Addr,
        /// How many.
        count: u32,
    },
}

impl Sources {
    /// Reads `a.b.c.d` or `a.b.c.d/bits`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').unwrap_or((text, "32"));
        let (first, bits) = (address.parse::<Ipv4Addr>().ok()?, bits.parse::<u32>().ok()?);
        if !(8..=32).contains(&bits) {
            return None;
        }
        let size = 1u32 << (32 - bits);
        let base = first.to_bits() & !(size - 1);
        // No host has the network or the broadcast address of a range.
        let (base, count) = if size > 2 { (base + 1, size - 2) } else { (base, size) };
        Some(Self::Range { first: Ipv4Addr::from_bits(base), count })
    }

    /// Addresses of the loopback network for `connections`: as many as keep a port search short,
    /// others in every run, so that a former run's ports in TIME-WAIT don't count.
    #[must_use]
    pub fn loopback(connections: u32, run: u32) -> Self {
        let count = connections / PORTS_PER_SOURCE + 8;
        let first = Ipv4Addr::new(127, 16 + (run % 200) as u8, (run >> 8) as u8, 1);
        Self::Range { first, count }
    }

    /// The address of connection number `index`.
    #[must_use]
    pub const fn address(&self, index: u32) -> Option<Ipv4Addr> {
        match self {
            Self::Any => None,
            Self::Range { first, count } => {
                Some(Ipv4Addr::from_bits(first.to_bits() + index % *count))
            }
        }
    }
}

/// The resources that the host gives to each ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The longest file table: `RLIMIT_NOFILE`.
    pub slots_max: u32,
    /// Sockets live in the tables; without, all rings together are bound by `RLIMIT_NOFILE`.
    pub direct_descriptors: bool,
    /// Cores of the host.
    pub cores: u32,
}

/// A storm. Counts are in all, not per ring.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The command line that asked for it, without secrets, for the report.
    pub command: String,
    /// The scenario.
    pub scenario: Scenario,
    /// The server.
    pub target: Target,
    /// Tells storms that run at the same time apart; part of channel names and stamps.
    pub run: u32,
    /// Subscribers.
    pub connections: u32,
    /// Channels; subscriber `i` is on channel `i % channels`.
    pub channels: u32,
    /// The kind of all channels.
    pub kind: Kind,
    /// API connections that publish, or subscribers that whisper.
    pub publishers: u32,
    /// Messages per second of all publishers together; 0: each publishes as soon as it has the
    /// answer to its last one.
    pub rate: f64,
    /// Events per request; 1: the single API.
    pub batch: u32,
    /// Bytes of data per message.
    pub size: u32,
    /// Each request on a connection of its own.
    pub fresh: bool,
    /// Bytes of the `user_info` of each presence member; 0: none.
    pub user_info: u32,
    /// How long messages are sent, or connections are held or turned over.
    pub duration: Duration,
    /// New connections per second; 0: as fast as `in_flight` lets them.
    pub ramp: f64,
    /// Handshakes under way at a time.
    pub in_flight: u32,
    /// Threads with a ring each; 0: as many as it takes.
    pub rings: u32,
    /// Where connections come from.
    pub sources: Sources,
    /// Share of subscribers that stop reading, 0 to 1.
    pub slow_share: f64,
    /// How often all drop and return.
    pub rounds: u32,
    /// Connections that leave per second; 0: each as soon as it is subscribed.
    pub turnover: f64,
    /// After how much silence a connection pings; zero: as the server says.
    pub ping: Duration,
    /// How long all handshakes may take, and what is owed at the end may still take.
    pub grace: Duration,
    /// The server, to read its CPU time and memory.
    pub pid: Option<u32>,
    /// The resources that the host gives to each ring.
    pub room: Room,
}

/// Why a plan can't be run. The text says what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError(pub String);

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PlanError {}

impl Plan {
    /// Whether the numbers fit together.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> Result<(), PlanError> {
        let whisper = self.scenario == Scenario::Whisper;
        let rules = [
            (self.channels > 0, "at least one channel is needed"),
            (self.batch > 0, "a batch has at least one event"),
            (self.in_flight > 0, "at least one handshake must be allowed at a time"),
            (
                self.size as usize >= STAMP_LEN,
                "--size must be at least 47: each message is stamped",
            ),
            (self.rate >= 0.0 && self.rate.is_finite(), "--rate must not be negative"),
            ((0.0..=1.0).contains(&self.slow_share), "--slow-share is from 0 to 1"),
            (self.connections > 0 || self.publishes(), "there is nothing to do"),
            (!whisper || self.kind != Kind::Public, "client events need private channels"),
            (!whisper || self.rate > 0.0, "whispers have no answer to wait for: give a --rate"),
            (!whisper || self.publishers <= self.connections, "more whisperers than connections"),
            (self.lanes() <= u32::from(u16::MAX), "more than 65535 publishers per channel"),
        ];
        for (holds, rule) in rules {
            if !holds {
                return Err(PlanError(rule.to_owned()));
            }
        }
        let most = self.room.slots_max;
        if !self.room.direct_descriptors && self.connections > most {
            return Err(PlanError(format!(
                "before Linux 6.13 all connections need ordinary descriptors, and nofile allows \
                 {most} of them; raise it (ulimit -n)"
            )));
        }
        Ok(())
    }

    /// Whether anything is sent by API.
    #[must_use]
    pub const fn publishes(&self) -> bool {
        self.publishers > 0 && !matches!(self.scenario, Scenario::Whisper)
    }

    /// Senders per channel.
    pub(super) const fn lanes(&self) -> u32 {
        // Asked before the plan is checked, too.
        let channels = if self.channels > 0 { self.channels } else { 1 };
        let lanes = self.publishers.div_ceil(channels);
        if lanes > 0 { lanes } else { 1 }
    }

    /// Sender number `index`: its first channel, and its number among the senders of a channel. It
    /// serves every `publishers`-th channel from the first on.
    pub(super) const fn sender(&self, index: u32) -> (u32, u16) {
        (index % self.channels, (index / self.channels) as u16)
    }

    /// Position of a channel's lane in a list of all.
    pub(super) const fn lane_index(&self, channel: u32, lane: u16) -> usize {
        channel as usize * self.lanes() as usize + lane as usize
    }

    /// A channel's name.
    pub(super) fn channel(&self, channel: u32) -> String {
        let prefix = match self.kind {
            Kind::Public => "",
            Kind::Private => "private-",
            Kind::Presence => "presence-",
        };
        format!("{prefix}storm-{:08x}-{channel}", self.run)
    }

    /// The subscribers of each ring.
    pub(super) fn shares(&self) -> Vec<Range<u32>> {
        let needed = self.connections.div_ceil(self.room.slots_max.max(1));
        let wanted = if self.rings > 0 { self.rings } else { (self.room.cores / 2).max(1) };
        let rings = needed.max(wanted).min(self.connections);
        let edge = |ring: u32| {
            (u64::from(self.connections) * u64::from(ring) / u64::from(rings.max(1))) as u32
        };
        (0..rings).map(|ring| edge(ring)..edge(ring + 1)).collect()
    }

    /// Whether connection number `index` is one that stops reading.
    pub(super) fn is_slow(&self, index: u32) -> bool {
        let slow = |count: u32| (f64::from(count) * self.slow_share) as u32;
        self.scenario == Scenario::Slow && slow(index + 1) > slow(index)
    }
}

/// The ports that are used of the 28,232 that a source address has by default: few enough that a
/// free one is found at once.
const PORTS_PER_SOURCE: u32 = 8192;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plan that is right.
    pub(crate) fn plan() -> Plan {
        let url = "ws://127.0.0.1:8080".to_owned();
        Plan {
            command: "ringwave storm fanout".to_owned(),
            scenario: Scenario::Fanout,
            target: Target::new(&[url], "100001", "app-key", "app-secret").unwrap(),
            run: 0xab,
            connections: 1000,
            channels: 10,
            kind: Kind::Public,
            publishers: 1,
            rate: 10.0,
            batch: 1,
            size: 128,
            fresh: false,
            user_info: 0,
            duration: Duration::from_secs(1),
            ramp: 0.0,
            in_flight: 100,
            rings: 0,
            sources: Sources::Any,
            slow_share: 0.0,
            rounds: 1,
            turnover: 0.0,
            ping: Duration::ZERO,
            grace: Duration::from_secs(10),
            pid: None,
            room: Room { slots_max: 20_000, direct_descriptors: true, cores: 2 },
        }
    }

    #[test]
    fn shares_cover_all_connections_once_and_fit_into_their_tables() {
        for (connections, rings, expected) in
            [(1, 0, 1), (1000, 4, 4), (20_000, 0, 1), (20_001, 0, 2), (1_000_000, 0, 50), (0, 0, 0)]
        {
            let plan = Plan { connections, rings, ..plan() };
            let shares = plan.shares();
            assert_eq!(shares.len(), expected, "{connections}");
            assert_eq!(shares.iter().flat_map(Clone::clone).count(), connections as usize);
            assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
            for share in &shares {
                assert!(share.len() <= 20_000);
            }
        }
    }

    #[test]
    fn every_channel_has_a_sender_and_no_two_share_a_lane() {
        for (channels, publishers) in [(1, 1), (1, 5), (10, 3), (3, 10), (7, 7)] {
            let plan = Plan { channels, publishers, ..plan() };
            let mut served = std::collections::HashSet::new();
            for index in 0..publishers {
                let (first, lane) = plan.sender(index);
                for channel in (first..channels).step_by(publishers as usize) {
                    assert!(u32::from(lane) < plan.lanes());
                    assert!(served.insert(plan.lane_index(channel, lane)));
                }
            }
            let channel_served =
                |c| (0..plan.lanes()).any(|l| served.contains(&plan.lane_index(c, l as u16)));
            assert!((0..channels).all(channel_served), "{channels} channels, {publishers}");
        }
    }

    #[test]
    fn the_slow_ones_are_the_share_that_was_asked_for() {
        for (slow_share, expected) in [(0.0, 0), (0.1, 100), (0.25, 250), (1.0, 1000)] {
            let plan = Plan { slow_share, scenario: Scenario::Slow, ..plan() };
            assert_eq!((0..1000).filter(|index| plan.is_slow(*index)).count(), expected);
        }
    }

    #[test]
    fn sources_are_ranges_without_network_and_broadcast() {
        let Some(Sources::Range { first, count }) = Sources::parse("10.1.2.3/24") else { panic!() };
        assert_eq!((first, count), (Ipv4Addr::new(10, 1, 2, 1), 254));
        let one = Sources::parse("10.1.2.3").unwrap();
        assert_eq!(one.address(5), Some(Ipv4Addr::new(10, 1, 2, 3)));
        for text in ["", "1.2.3", "1.2.3.4/33", "1.2.3.4/2", "::1"] {
            assert_eq!(Sources::parse(text), None, "{text}");
        }
        for run in [0, u32::MAX] {
            let sources = Sources::loopback(1_000_000, run);
            assert!((0..1000).all(|i| sources.address(i).unwrap().is_loopback()));
        }
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let refused = |plan: Plan| plan.check().unwrap_err().0;
        assert_eq!(plan().check(), Ok(()));
        assert!(refused(Plan { channels: 0, ..plan() }).contains("channel"));
        assert!(refused(Plan { size: 46, ..plan() }).contains("47"));
        assert!(refused(Plan { scenario: Scenario::Whisper, ..plan() }).contains("private"));
        let room = Room { slots_max: 500, direct_descriptors: false, cores: 1 };
        assert!(refused(Plan { room, ..plan() }).contains("nofile"));
    }
}
