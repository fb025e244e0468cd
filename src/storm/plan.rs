//! The plan of a storm: plain values, and the arithmetic on them.

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::channel::ChannelAccess;
use crate::scenario::Scenario;
use crate::source_addresses::SourceAddresses;
use crate::stamp::STAMP_LEN;
use crate::target::TargetServer;

/// The limits of the host that a storm runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostLimits {
    /// The most sockets that one ring can hold, by `RLIMIT_NOFILE`.
    pub slots_max: u32,
    /// Sockets live in the tables of the rings. Otherwise they have ordinary descriptors, and
    /// `slots_max` bounds all rings together.
    pub direct_descriptors: bool,
    /// The cores of the host.
    pub cores: u32,
}

/// The plan of a storm. Numbers are for the whole storm, not per ring.
#[derive(Clone, Debug)]
pub struct StormPlan {
    /// The command line that asked for it, without secrets, for the report.
    pub command: String,
    /// The scenario.
    pub scenario: Scenario,
    /// The server.
    pub target: TargetServer,
    /// Tells storms apart that run at the same time; part of channel names and stamps.
    pub run: u32,
    /// Subscribers.
    pub connections: u32,
    /// Channels; subscriber `i` is on channel `i % channels`.
    pub channels: u32,
    /// The kind of the channels.
    pub access: ChannelAccess,
    /// API connections that publish, or subscribers that send client events.
    pub publishers: u32,
    /// Messages per second of all publishers together; 0: each publishes as soon as it has the
    /// response to its last request.
    pub rate: f64,
    /// Events per request; 1: the API for single events.
    pub batch: u32,
    /// Bytes of data per message.
    pub size: u32,
    /// Each request goes on a connection of its own.
    pub fresh: bool,
    /// A request that was refused for the time being is repeated at the next address, after the
    /// wait that the server asks for.
    pub retry: bool,
    /// A connection that was cut returns, to the next address. Neither cuts nor requests without a
    /// response fail the storm then.
    pub failover: bool,
    /// Bytes of the `user_info` of each presence member; 0: none.
    pub user_info: u32,
    /// The time for which messages are sent, or connections are held or replaced.
    pub duration: Duration,
    /// New connections per second; 0: as fast as `in_flight` allows.
    pub ramp: f64,
    /// The most handshakes that are under way at a time.
    pub in_flight: u32,
    /// Threads with a ring each; 0: half as many as there are cores. There are more if the
    /// connections need them.
    pub rings: u32,
    /// The addresses that connections come from.
    pub sources: SourceAddresses,
    /// The share of the subscribers that stop reading, 0 to 1.
    pub slow_share: f64,
    /// The number of times that all connections drop and return.
    pub rounds: u32,
    /// Connections that leave per second; 0: each leaves as soon as it is subscribed.
    pub turnover: f64,
    /// The silence after which a connection pings; zero: as the server says.
    pub ping: Duration,
    /// The time without progress after which the storm stops waiting for handshakes, or at the end
    /// for owed messages.
    pub grace: Duration,
    /// The time within which all nodes have to list the connected members of presence channels, and
    /// no others, at the end; none: they are not asked. A connection that is cut returns as another
    /// user then, so that the member that it was can be told from it.
    pub ghosts: Option<Duration>,
    /// The server's processes, whose CPU time and memory are read. If there are as many as
    /// addresses, they are in the same order.
    pub pids: Vec<u32>,
    /// The limits of this host.
    pub host: HostLimits,
}

/// The reason why a plan cannot be carried out. The text names the flag to change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PlanError {
    /// There is no channel.
    NoChannels,
    /// A batch has no event.
    EmptyBatch,
    /// No handshake may be under way.
    NoHandshakes,
    /// A message of this size has no room for its stamp.
    NoRoomForStamp(u32),
    /// This is no rate.
    Rate(f64),
    /// This is no share.
    SlowShare(f64),
    /// There are neither connections nor publishers.
    NothingToDo,
    /// Client events are not allowed on public channels.
    PublicClientEvents,
    /// Only presence channels have members.
    GhostsWithoutMembers,
    /// Client events have no response that could pace them.
    ClientEventsWithoutRate,
    /// More subscribers should send client events than there are.
    TooFewWhisperers {
        /// Subscribers that should send.
        publishers: u32,
        /// Subscribers.
        connections: u32,
    },
    /// A channel has so many senders that a stamp cannot number them.
    TooManySenders(u32),
    /// The kernel needs ordinary descriptors, of which there are too few.
    TooFewDescriptors {
        /// Descriptors that are needed.
        connections: u32,
        /// Descriptors that the limit allows.
        limit: u32,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoChannels => f.write_str("--channels must be at least 1"),
            Self::EmptyBatch => f.write_str("--batch must be at least 1"),
            Self::NoHandshakes => f.write_str("--in-flight must be at least 1"),
            Self::NoRoomForStamp(size) => write!(
                f,
                "--size {size} is too small: the stamp in each message takes {STAMP_LEN} bytes"
            ),
            Self::Rate(rate) => write!(f, "--rate {rate} is not a number of messages per second"),
            Self::SlowShare(share) => write!(f, "--slow-share {share} is not between 0 and 1"),
            Self::NothingToDo => {
                f.write_str("there is nothing to do: give --connections or --publishers")
            }
            Self::PublicClientEvents => {
                f.write_str("client events need --kind private or --kind presence")
            }
            Self::GhostsWithoutMembers => f.write_str("--ghosts needs --kind presence"),
            Self::ClientEventsWithoutRate => {
                f.write_str("client events have no response to wait for: give a --rate")
            }
            Self::TooFewWhisperers { publishers, connections } => write!(
                f,
                "--publishers {publishers} is more than --connections {connections}: subscribers \
                 send the client events"
            ),
            Self::TooManySenders(senders) => {
                write!(f, "{senders} publishers per channel are more than {}", u16::MAX)
            }
            Self::TooFewDescriptors { connections, limit } => write!(
                f,
                "{connections} connections need as many file descriptors before Linux 6.13, and \
                 the limit is {limit}; raise it (ulimit -n)"
            ),
        }
    }
}

impl Error for PlanError {}

impl StormPlan {
    /// Checks whether the numbers fit together.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn check(&self) -> Result<(), PlanError> {
        let &Self { publishers, connections, .. } = self;
        let senders = self.senders_per_channel();
        let limit = self.host.slots_max;
        let whispers = self.scenario == Scenario::Whisper;
        let rules = [
            (self.channels > 0, PlanError::NoChannels),
            (self.batch > 0, PlanError::EmptyBatch),
            (self.in_flight > 0, PlanError::NoHandshakes),
            (self.size as usize >= STAMP_LEN, PlanError::NoRoomForStamp(self.size)),
            (self.rate >= 0.0 && self.rate.is_finite(), PlanError::Rate(self.rate)),
            ((0.0..=1.0).contains(&self.slow_share), PlanError::SlowShare(self.slow_share)),
            (connections > 0 || self.publishes(), PlanError::NothingToDo),
            (!whispers || self.access != ChannelAccess::Public, PlanError::PublicClientEvents),
            (
                self.ghosts.is_none() || self.access == ChannelAccess::Presence,
                PlanError::GhostsWithoutMembers,
            ),
            (!whispers || self.rate > 0.0, PlanError::ClientEventsWithoutRate),
            (
                !whispers || publishers <= connections,
                PlanError::TooFewWhisperers { publishers, connections },
            ),
            (senders <= u32::from(u16::MAX), PlanError::TooManySenders(senders)),
            (
                self.host.direct_descriptors || connections <= limit,
                PlanError::TooFewDescriptors { connections, limit },
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Whether messages are sent through the API.
    #[must_use]
    pub const fn publishes(&self) -> bool {
        self.publishers > 0 && !matches!(self.scenario, Scenario::Whisper)
    }

    /// The senders per channel, at least one.
    pub(crate) const fn senders_per_channel(&self) -> u32 {
        // This is asked before the plan is checked, too.
        let channels = if self.channels > 0 { self.channels } else { 1 };
        let senders = self.publishers.div_ceil(channels);
        if senders > 0 { senders } else { 1 }
    }

    /// The first channel of publisher number `index`, and its number among the senders of a
    /// channel. It serves every `publishers`-th channel from the first one on.
    pub(crate) const fn sender(&self, index: u32) -> (u32, u16) {
        (index % self.channels, (index / self.channels) as u16)
    }

    /// The turn of connection number `index` on the server's addresses. The connections of each
    /// channel spread over all of them, in whatever number of channels.
    pub(crate) const fn subscriber_turn(&self, index: u32) -> u32 {
        index % self.channels + index / self.channels
    }

    /// The turn of publisher number `index` on the server's addresses. It is one ahead of the first
    /// subscriber of its channel, so that messages go from one node to another.
    pub(crate) const fn publisher_turn(&self, index: u32) -> u32 {
        self.subscriber_turn(index) + 1
    }

    /// The position of a sender of a channel in a list of all senders of all channels.
    pub(crate) const fn sender_index(&self, channel: u32, sender: u16) -> usize {
        channel as usize * self.senders_per_channel() as usize + sender as usize
    }

    /// The name of a channel.
    pub(crate) fn channel(&self, channel: u32) -> String {
        format!("{}storm-{:08x}-{channel}", self.access.prefix(), self.run)
    }

    /// The numbers of the subscribers of each ring.
    pub(crate) fn shares(&self) -> Vec<Range<u32>> {
        let needed = self.connections.div_ceil(self.host.slots_max.max(1));
        let wanted = if self.rings > 0 { self.rings } else { (self.host.cores / 2).max(1) };
        let rings = needed.max(wanted).min(self.connections);
        let edge = |ring: u32| {
            (u64::from(self.connections) * u64::from(ring) / u64::from(rings.max(1))) as u32
        };
        (0..rings).map(|ring| edge(ring)..edge(ring + 1)).collect()
    }

    /// Whether connection number `index` stops reading.
    pub(crate) fn is_slow(&self, index: u32) -> bool {
        let slow = |count: u32| (f64::from(count) * self.slow_share) as u32;
        self.scenario == Scenario::Slow && slow(index + 1) > slow(index)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plan without contradictions.
    pub(crate) fn plan() -> StormPlan {
        let url = "ws://127.0.0.1:8080".to_owned();
        StormPlan {
            command: "ringwave storm fanout".to_owned(),
            scenario: Scenario::Fanout,
            target: TargetServer::new(&[url], "100001", "app-key", "app-secret").unwrap(),
            run: 0xab,
            connections: 1000,
            channels: 10,
            access: ChannelAccess::Public,
            publishers: 1,
            rate: 10.0,
            batch: 1,
            size: 128,
            fresh: false,
            retry: false,
            failover: false,
            user_info: 0,
            duration: Duration::from_secs(1),
            ramp: 0.0,
            in_flight: 100,
            rings: 0,
            sources: SourceAddresses::Any,
            slow_share: 0.0,
            rounds: 1,
            turnover: 0.0,
            ping: Duration::ZERO,
            grace: Duration::from_secs(10),
            ghosts: None,
            pids: Vec::new(),
            host: HostLimits { slots_max: 20_000, direct_descriptors: true, cores: 2 },
        }
    }

    #[test]
    fn shares_cover_all_connections_once_and_fit_into_their_tables() {
        for (connections, rings, expected) in
            [(1, 0, 1), (1000, 4, 4), (20_000, 0, 1), (20_001, 0, 2), (1_000_000, 0, 50), (0, 0, 0)]
        {
            let plan = StormPlan { connections, rings, ..plan() };
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
    fn every_channel_has_a_sender_and_no_two_share_a_number() {
        for (channels, publishers) in [(1, 1), (1, 5), (10, 3), (3, 10), (7, 7)] {
            let plan = StormPlan { channels, publishers, ..plan() };
            let mut served = std::collections::HashSet::new();
            for index in 0..publishers {
                let (first, sender) = plan.sender(index);
                for channel in (first..channels).step_by(publishers as usize) {
                    assert!(u32::from(sender) < plan.senders_per_channel());
                    assert!(served.insert(plan.sender_index(channel, sender)));
                }
            }
            let channel_served = |c| {
                (0..plan.senders_per_channel())
                    .any(|s| served.contains(&plan.sender_index(c, s as u16)))
            };
            assert!((0..channels).all(channel_served), "{channels} channels, {publishers}");
        }
    }

    #[test]
    fn each_channel_is_spread_over_all_nodes_and_no_message_stays_on_one() {
        for (channels, nodes) in [(1, 2), (2, 2), (4, 2), (3, 3), (6, 3), (7, 3), (10, 4)] {
            let plan = StormPlan { channels, ..plan() };
            for channel in 0..channels {
                let mut held = vec![0; nodes as usize];
                for index in (channel..channels * nodes * 5).step_by(channels as usize) {
                    held[(plan.subscriber_turn(index) % nodes) as usize] += 1;
                }
                assert_eq!(held, vec![5; nodes as usize], "{channels} channels, {nodes} nodes");
                let publisher = plan.publisher_turn(channel) % nodes;
                assert_ne!(publisher, plan.subscriber_turn(channel) % nodes);
            }
        }
    }

    #[test]
    fn the_slow_share_of_the_connections_is_slow() {
        for (slow_share, expected) in [(0.0, 0), (0.1, 100), (0.25, 250), (1.0, 1000)] {
            let plan = StormPlan { slow_share, scenario: Scenario::Slow, ..plan() };
            assert_eq!((0..1000).filter(|index| plan.is_slow(*index)).count(), expected);
        }
    }

    #[test]
    fn contradictions_are_named() {
        let refused = |plan: StormPlan| plan.check().unwrap_err();
        assert_eq!(plan().check(), Ok(()));
        assert_eq!(refused(StormPlan { channels: 0, ..plan() }), PlanError::NoChannels);
        let small = refused(StormPlan { size: 46, ..plan() });
        assert_eq!(small, PlanError::NoRoomForStamp(46));
        assert!(small.to_string().contains("47"), "{small}");
        let whispers = StormPlan { scenario: Scenario::Whisper, ..plan() };
        assert_eq!(refused(whispers), PlanError::PublicClientEvents);
        let ghosts = StormPlan { ghosts: Some(Duration::ZERO), ..plan() };
        assert_eq!(refused(ghosts), PlanError::GhostsWithoutMembers);
        let host = HostLimits { slots_max: 500, direct_descriptors: false, cores: 1 };
        let few = refused(StormPlan { host, ..plan() });
        assert_eq!(few, PlanError::TooFewDescriptors { connections: 1000, limit: 500 });
    }
}
