//! A ring of subscribers, on a thread of its own. A turn does what is due, sleeps in the kernel,
//! and handles the completions.
//!
//! Connection `i` of the ring always has slot `i`. One that leaves and returns is a new generation
//! of its slot, which begins when the last operation of the old one has ended.

mod conn;
mod fixed_frames;
mod lifecycle;
mod open;
mod receive;
mod whisper;
mod whisper_schedule;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;

use crate::channel::ChannelAccess;
use crate::client_ring::ClientRing;
use crate::clock::{NS_PER_S, now_ns, ns};
use crate::counters::{Counter, Tally};
use crate::gaps::OpenGaps;
use crate::latency::LatencyMeter;
use crate::plan::StormPlan;
use crate::scenario::Scenario;
use crate::schedule::Schedule;
use crate::sequence::Sequence;
use crate::shared::{SharedState, StormStage};
use crate::target::PresenceMember;

use conn::{Phase, SubscriberConn};
use fixed_frames::FixedFrames;
use whisper::RecentWhisper;
use whisper_schedule::WhisperSchedules;

/// The longest sleep of a thread. It notices a new stage within that time.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// The interval at which a draining thread sums up the messages that it is owed, which visits every
/// connection.
const OWED_NS: u64 = NS_PER_S / 10;

/// The results that a thread returns when it ends.
pub(super) struct SubscriberResults {
    /// Latency of deliveries, in microseconds.
    pub(super) deliveries: Histogram<u64>,
    /// The time from the intended connect to the subscription, in microseconds.
    pub(super) handshakes: Histogram<u64>,
    /// Messages that never arrived at the connections that stayed, behind the last one that did.
    pub(super) owed: u64,
}

/// Runs the subscribers `share` until the storm stops.
///
/// # Errors
/// The ring could not be created.
pub(super) fn run(
    plan: &StormPlan,
    shared: &SharedState,
    thread: usize,
    share: Range<u32>,
) -> io::Result<SubscriberResults> {
    let mut subscribers = Subscribers::new(plan, shared, share)?;
    while subscribers.stage != StormStage::Stop {
        subscribers.turn();
        shared.post(thread, &subscribers.tally);
    }
    // The publishers have ended all requests.
    subscribers.settle_gaps();
    subscribers.tally.add(Counter::Unsent, subscribers.whispers_left());
    shared.post(thread, &subscribers.tally);
    Ok(subscribers.finish())
}

/// The subscribers of one ring. [`turn`](Self::turn) is called until the stage is `Stop`, then
/// [`finish`](Self::finish).
struct Subscribers<'a> {
    plan: &'a StormPlan,
    shared: &'a SharedState,
    ring: ClientRing,
    /// The number of its first connection among all of the storm.
    first: u32,
    conns: Vec<SubscriberConn>,
    /// The sequences by connection and sender, `senders` for each connection.
    sequences: Vec<Sequence>,
    /// The gaps in them that are not counted yet.
    gaps: OpenGaps,
    /// The senders per channel.
    senders: usize,
    /// The request that begins every handshake.
    handshake: Bytes,
    /// The message that subscribes, by channel. Only for public channels.
    subscribes: Vec<Bytes>,
    /// The schedule by which connections in `unopened` are opened.
    ramp: Schedule,
    /// The slots that were never opened.
    unopened: Range<u32>,
    /// The slots to open again, each with the time since when.
    returning: VecDeque<(u32, u64)>,
    /// The slots that failed at every address. Each returns at the time in front.
    waiting: VecDeque<(u64, u32, u64)>,
    /// Handshakes that are under way.
    in_flight: u32,
    /// The most handshakes that may be under way at a time on this ring.
    in_flight_max: u32,
    /// The schedule by which connections leave.
    turnover: Schedule,
    /// The slot whose connection left last. Without a turnover, the first one that has not left.
    leaver: u32,
    whispers: WhisperSchedules,
    /// The client events of the last second, in the order in which they were sent.
    recent_whispers: VecDeque<RecentWhisper>,
    frames: FixedFrames,
    /// The silence after which a connection pings; `u64::MAX` until the server has told it.
    ping_after_ns: u64,
    /// The next slot whose silence is checked, and the time at which it is.
    walk: (u32, u64),
    /// The last round in which all connections were told to drop.
    round: u32,
    /// The time at which the owed messages are summed up again.
    owed_due_ns: u64,
    /// The stage as of the last turn.
    stage: StormStage,
    /// The time of the turn, or of the completion that is handled.
    now_ns: u64,
    /// The position of the stamp in the last message.
    hint: usize,
    deliveries: LatencyMeter,
    handshakes: LatencyMeter,
    tally: Tally,
}

impl<'a> Subscribers<'a> {
    fn new(plan: &'a StormPlan, shared: &'a SharedState, share: Range<u32>) -> io::Result<Self> {
        let size = share.len();
        let rings = plan.shares().len().max(1) as u32;
        let senders = plan.senders_per_channel() as usize;
        let no_member = PresenceMember::default();
        let channel =
            |channel| plan.target.subscribe(plan.access, &plan.channel(channel), b"", no_member);
        let public = plan.access == ChannelAccess::Public;
        let part = share.len() as f64 / f64::from(plan.connections.max(1));
        let mut tally = Tally::default();
        tally.set(Counter::Owed, 1);
        Ok(Self {
            plan,
            shared,
            ring: ClientRing::new(size as u32, plan.host.direct_descriptors)?,
            first: share.start,
            conns: (0..size).map(|_| SubscriberConn::default()).collect(),
            sequences: vec![Sequence::default(); size * senders],
            gaps: OpenGaps::default(),
            senders,
            handshake: plan.target.handshake(),
            subscribes: (0..if public { plan.channels } else { 0 }).map(channel).collect(),
            ramp: Schedule::new(shared.began_ns, plan.ramp * part, 0, 1),
            unopened: 0..size as u32,
            returning: VecDeque::new(),
            waiting: VecDeque::new(),
            in_flight: 0,
            in_flight_max: (plan.in_flight / rings).max(1),
            turnover: Schedule::new(u64::MAX, 0.0, 0, 1),
            leaver: 0,
            whispers: WhisperSchedules::new(plan, share),
            recent_whispers: VecDeque::new(),
            frames: FixedFrames::new(),
            ping_after_ns: if plan.ping.is_zero() { u64::MAX } else { ns(plan.ping) },
            walk: (0, 0),
            round: 0,
            owed_due_ns: 0,
            stage: StormStage::Open,
            now_ns: now_ns(),
            hint: 0,
            deliveries: LatencyMeter::new(),
            handshakes: LatencyMeter::new(),
            tally,
        })
    }

    fn turn(&mut self) {
        self.now_ns = now_ns();
        self.enter_stage();
        self.open_due();
        self.leave_due();
        self.whisper_due();
        self.walk_due();
        let completions = self.ring.wait(self.until_due());
        for completion in &completions {
            self.complete(completion);
        }
        self.ring.recycle(completions);
        if self.stage >= StormStage::Drain && self.now_ns >= self.owed_due_ns {
            self.owed_due_ns = self.now_ns + OWED_NS;
            self.tally.set(Counter::Owed, self.owed() + self.whispers_left());
        }
        let second = self.shared.second(self.now_ns);
        self.deliveries.turn(second, &self.shared.deliveries);
        self.handshakes.turn(second, &self.shared.handshakes);
    }

    /// Takes the steps with which a new stage begins.
    fn enter_stage(&mut self) {
        let stage = self.shared.stage();
        if stage == self.stage {
            return;
        }
        self.stage = stage;
        match stage {
            StormStage::Run => {
                let from = self.shared.run_from_ns.load(Ordering::Acquire);
                let part = self.conns.len() as f64 / f64::from(self.plan.connections.max(1));
                self.turnover = Schedule::new(from, self.plan.turnover * part, 0, 1);
                self.whispers.start(from);
                if self.plan.scenario == Scenario::Slow {
                    self.stop_reading();
                }
            }
            StormStage::Drain => self.read_again(),
            StormStage::Open | StormStage::Settle | StormStage::Stop => {}
        }
    }

    /// The time until something is due.
    fn until_due(&self) -> Duration {
        let due = self.next_opening().min(self.next_leave()).min(self.whispers.next_ns());
        let now = now_ns();
        SLEEP_MAX.min(Duration::from_nanos(due.saturating_sub(now)))
    }

    /// Whether the scenario runs at this moment.
    fn running(&self) -> bool {
        self.stage == StormStage::Run
            && self.now_ns >= self.shared.run_from_ns.load(Ordering::Acquire)
            && self.now_ns < self.shared.run_until_ns.load(Ordering::Acquire)
    }

    /// The number of sent messages that have not arrived at connections which stayed to the end or
    /// were cut for good.
    fn owed(&self) -> u64 {
        let mut owed = 0;
        for (slot, conn) in self.conns.iter().enumerate() {
            if !matches!(conn.phase, Phase::Subscribed | Phase::Cut) || conn.slow {
                continue;
            }
            let channel = self.channel_of(slot as u32);
            for sender in 0..self.senders {
                if self.is_sender(slot as u32, sender) {
                    continue;
                }
                let index = self.plan.sender_index(channel, sender as u16);
                let sent = self.shared.sent[index].load(Ordering::Acquire);
                owed += self
                    .owed_among(index, self.sequences[slot * self.senders + sender].behind(sent));
            }
        }
        owed
    }

    /// The number of owed messages among these of a sender.
    fn owed_among(&self, sender_index: usize, numbers: Range<u32>) -> u64 {
        let all = numbers.len() as u64;
        // Most gaps are empty, and only an exemption needs the lock.
        let exempt = if all == 0 { 0 } else { self.shared.exempt.count(sender_index, numbers) };
        all - u64::from(exempt)
    }

    /// The number of the connection in a slot among all of the storm.
    const fn index_of(&self, slot: u32) -> u32 {
        self.first + slot
    }

    /// The number of cuts that have made another user of the connection in a slot.
    fn cuts_of(&self, slot: u32) -> u32 {
        if self.plan.ghosts.is_some() { self.conns[slot as usize].cuts } else { 0 }
    }

    /// Counts a connection that is subscribed.
    fn hold(&mut self, slot: u32) {
        self.tally.add(Counter::Held, 1);
        self.shared.set_member(self.index_of(slot), Some(self.cuts_of(slot)));
    }

    /// Counts a connection that is not subscribed any more.
    fn let_go(&mut self, slot: u32) {
        self.tally.subtract(Counter::Held, 1);
        self.shared.set_member(self.index_of(slot), None);
    }

    const fn channel_of(&self, slot: u32) -> u32 {
        self.index_of(slot) % self.plan.channels
    }

    /// Whether the connection in a slot is this sender of its channel. A server does not send
    /// client events back to their sender. Whisperer `i` is connection `i`.
    fn is_sender(&self, slot: u32, sender: usize) -> bool {
        let index = self.index_of(slot);
        self.plan.scenario == Scenario::Whisper
            && index < self.plan.publishers
            && usize::from(self.plan.sender(index).1) == sender
    }

    fn finish(mut self) -> SubscriberResults {
        self.now_ns = now_ns();
        SubscriberResults {
            owed: self.owed(),
            deliveries: self.deliveries.finish(&self.shared.deliveries),
            handshakes: self.handshakes.finish(&self.shared.handshakes),
        }
    }
}
