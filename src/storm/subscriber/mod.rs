//! A ring of subscribers, on a thread of its own. A turn does what is due, sleeps in the kernel,
//! and looks at what came.
//!
//! Connection `i` of the ring has slot `i` for ever: one that leaves and returns is a new
//! generation of its slot, and never before the last operation of the old one has ended.

mod conn;
mod life;
mod open;
mod receive;
mod whisper;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;

use crate::clock::{NS_PER_S, now_ns, ns};
use crate::frames;
use crate::plan::{Kind, Plan, Scenario};
use crate::schedule::Schedule;
use crate::sequence::Sequence;
use crate::shared::{Count, Meter, Shared, Stage, Tally};
use crate::target::Member;
use crate::wire::Wire;

use conn::{Conn, Phase};
use whisper::Whispers;

/// How long a thread sleeps at most: so soon it notices a new stage.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// How often a draining thread sums up what it is owed: that looks at every connection.
const OWED_NS: u64 = NS_PER_S / 10;

/// The results that a thread hands over when it ends.
pub(super) struct Takings {
    /// Latency of deliveries, in microseconds.
    pub(super) deliveries: Histogram<u64>,
    /// From the intended connect to the subscription, in microseconds.
    pub(super) handshakes: Histogram<u64>,
    /// Messages that never came to those who stayed, behind the last one that did.
    pub(super) owed: u64,
}

/// Runs the subscribers `share` until the storm stops.
///
/// # Errors
/// The ring could not be created.
pub(super) fn run(
    plan: &Plan,
    shared: &Shared,
    thread: usize,
    share: Range<u32>,
) -> io::Result<Takings> {
    let mut subscribers = Subscribers::new(plan, shared, share)?;
    while subscribers.stage != Stage::Stop {
        subscribers.turn();
        shared.post(thread, &subscribers.tally);
    }
    let takings = subscribers.finish();
    Ok(takings)
}

struct Subscribers<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    wire: Wire,
    /// The number of the first one among all of the storm.
    first: u32,
    conns: Vec<Conn>,
    /// `lanes` per connection.
    sequences: Vec<Sequence>,
    lanes: usize,
    /// The request that every handshake sends.
    handshake: Bytes,
    /// The message that every subscribe sends, by channel. Only for public channels.
    subscribes: Vec<Bytes>,
    /// The schedule by which connections in `unopened` are opened.
    ramp: Schedule,
    /// Slots that were never opened.
    unopened: Range<u32>,
    /// Slots to open again, and since when.
    again: VecDeque<(u32, u64)>,
    in_flight: u32,
    in_flight_max: u32,
    /// The schedule by which connections leave.
    turnover: Schedule,
    /// The slot after the last one that left.
    leaver: u32,
    whispers: Whispers,
    words: Words,
    /// Silence after which a connection pings; `u64::MAX` until a server has said.
    ping_after_ns: u64,
    /// The next slot to look after, and when.
    walk: (u32, u64),
    /// How often all were told to drop.
    round: u32,
    /// The time at which the owed messages are summed up again.
    owed_due_ns: u64,
    stage: Stage,
    now_ns: u64,
    /// The position of the stamp in the last message.
    hint: usize,
    deliveries: Meter,
    handshakes: Meter,
    tally: Tally,
}

impl<'a> Subscribers<'a> {
    fn new(plan: &'a Plan, shared: &'a Shared, share: Range<u32>) -> io::Result<Self> {
        let size = share.len();
        let rings = plan.shares().len().max(1) as u32;
        let lanes = plan.lanes() as usize;
        let nobody = Member::default();
        let channel =
            |channel| plan.target.subscribe(plan.kind, &plan.channel(channel), b"", nobody);
        let public = plan.kind == Kind::Public;
        let part = share.len() as f64 / f64::from(plan.connections.max(1));
        let mut tally = Tally::default();
        tally.set(Count::Owed, 1);
        Ok(Self {
            plan,
            shared,
            wire: Wire::new(size as u32, plan.room.direct_descriptors)?,
            first: share.start,
            conns: (0..size).map(|_| Conn::default()).collect(),
            sequences: vec![Sequence::default(); size * lanes],
            lanes,
            handshake: plan.target.handshake(),
            subscribes: (0..if public { plan.channels } else { 0 }).map(channel).collect(),
            ramp: Schedule::new(shared.began_ns, plan.ramp * part, 0, 1),
            unopened: 0..size as u32,
            again: VecDeque::new(),
            in_flight: 0,
            in_flight_max: (plan.in_flight / rings).max(1),
            turnover: Schedule::new(u64::MAX, 0.0, 0, 1),
            leaver: 0,
            whispers: Whispers::new(plan, share),
            words: Words::new(),
            ping_after_ns: if plan.ping.is_zero() { u64::MAX } else { ns(plan.ping) },
            walk: (0, 0),
            round: 0,
            owed_due_ns: 0,
            stage: Stage::Open,
            now_ns: now_ns(),
            hint: 0,
            deliveries: Meter::new(),
            handshakes: Meter::new(),
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
        let completions = self.wire.wait(self.until_due());
        for completion in &completions {
            self.complete(completion);
        }
        self.wire.recycle(completions);
        if self.stage == Stage::Drain && self.now_ns >= self.owed_due_ns {
            self.owed_due_ns = self.now_ns + OWED_NS;
            self.tally.set(Count::Owed, self.owed());
        }
        self.deliveries.turn(self.shared, self.now_ns, &self.shared.deliveries);
        self.handshakes.turn(self.shared, self.now_ns, &self.shared.handshakes);
    }

    /// Takes the steps with which a new stage begins.
    fn enter_stage(&mut self) {
        let stage = self.shared.stage();
        if stage == self.stage {
            return;
        }
        self.stage = stage;
        match stage {
            Stage::Run => {
                let from = self.shared.run_from_ns.load(Ordering::Acquire);
                let part = self.conns.len() as f64 / f64::from(self.plan.connections.max(1));
                self.turnover = Schedule::new(from, self.plan.turnover * part, 0, 1);
                self.whispers.start(from);
                if self.plan.scenario == Scenario::Slow {
                    self.stop_reading();
                }
            }
            Stage::Drain => self.read_again(),
            Stage::Open | Stage::Stop => {}
        }
    }

    /// How long nothing is due.
    fn until_due(&self) -> Duration {
        let due = self.next_opening().min(self.next_leave()).min(self.next_whisper());
        let now = now_ns();
        SLEEP_MAX.min(Duration::from_nanos(due.saturating_sub(now)))
    }

    /// Whether the scenario runs at this moment.
    fn running(&self) -> bool {
        self.stage == Stage::Run
            && self.now_ns >= self.shared.run_from_ns.load(Ordering::Acquire)
            && self.now_ns < self.shared.run_until_ns.load(Ordering::Acquire)
    }

    /// The number of sent messages that have not reached the connections which stayed to the end
    /// or were cut.
    fn owed(&self) -> u64 {
        let mut owed = 0;
        for (slot, conn) in self.conns.iter().enumerate() {
            if !matches!(conn.phase, Phase::Subscribed | Phase::Cut) || conn.slow {
                continue;
            }
            let channel = self.channel_of(slot as u32);
            for lane in 0..self.lanes {
                if self.is_own_lane(slot as u32, lane) {
                    continue;
                }
                let index = self.plan.lane_index(channel, lane as u16);
                let sent = self.shared.sent[index].load(Ordering::Acquire);
                owed += u64::from(self.sequences[slot * self.lanes + lane].owed(sent));
            }
        }
        owed
    }

    /// Number of a slot's connection among all of the storm.
    const fn index_of(&self, slot: u32) -> u32 {
        self.first + slot
    }

    const fn channel_of(&self, slot: u32) -> u32 {
        self.index_of(slot) % self.plan.channels
    }

    /// Whisperers are not told what they said themselves: whisperer `i` is connection `i`.
    fn is_own_lane(&self, slot: u32, lane: usize) -> bool {
        let index = self.index_of(slot);
        self.plan.scenario == Scenario::Whisper
            && index < self.plan.publishers
            && usize::from(self.plan.sender(index).1) == lane
    }

    fn finish(mut self) -> Takings {
        self.now_ns = now_ns();
        Takings {
            owed: self.owed(),
            deliveries: self.deliveries.finish(&self.shared.deliveries),
            handshakes: self.handshakes.finish(&self.shared.handshakes),
        }
    }
}

/// A tick of [`Conn::heard`].
const HEARD_NS: u64 = NS_PER_S / 8;

/// The time in ticks of [`Conn::heard`].
const fn ticks(ns: u64) -> u32 {
    (ns / HEARD_NS) as u32
}

/// The frames that a subscriber sends again and again.
struct Words {
    ping: Bytes,
    pong: Bytes,
    close: Bytes,
}

impl Words {
    fn new() -> Self {
        Self {
            ping: frames::text(br#"{"event":"pusher:ping","data":{}}"#),
            pong: frames::text(br#"{"event":"pusher:pong","data":{}}"#),
            close: frames::close(),
        }
    }
}
