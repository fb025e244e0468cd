//! All API connections, on a thread and a ring of their own, so that reading deliveries never
//! delays a publish. Each connection has one request under way at a time: what it publishes keeps
//! its order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use hdrhistogram::Histogram;
use ringwave_ring::{Completion, ConnKey, Op};
use rustix::io::Errno;

use crate::answer::Answer;
use crate::clock::{NS_PER_S, now_ns, ns};
use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::shared::{Count, Shared, Stage, Tally, latencies};
use crate::stamp::Stamp;
use crate::target;
use crate::wire::{Wire, without_number, words};

/// How long the thread sleeps at most.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// A connection that was idle for longer is opened anew: the server may be about to close it.
const IDLE_NS: u64 = 4 * NS_PER_S;
/// After a refusal, or the end of a connection, the same request is sent again: so much later,
/// unless the answer asks for another time.
const AGAIN_NS: u64 = NS_PER_S / 10;
const CANCELED: i32 = -Errno::CANCELED.raw_os_error();
/// How often a request is sent before its messages count as unpublished.
const ATTEMPTS_MAX: u32 = 600;

/// Publishes until the storm stops. Answers the time from the intended publish to the answer, in
/// microseconds.
///
/// # Errors
/// The ring could not be created.
pub(super) fn run(plan: &Plan, shared: &Shared, thread: usize) -> io::Result<Histogram<u64>> {
    let mut publisher = Publisher::new(plan, shared)?;
    while publisher.turn() {
        shared.post(thread, &publisher.tally);
    }
    Ok(publisher.answers)
}

struct Publisher<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    wire: Wire,
    apis: Vec<Api>,
    /// The times at which connections have something to send, with their numbers.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    /// The names of the channels, by number.
    names: Vec<String>,
    /// The body of the next request.
    body: Vec<u8>,
    started: bool,
    stage: Stage,
    now_ns: u64,
    answers: Histogram<u64>,
    tally: Tally,
}

/// One API connection, in all its generations.
#[derive(Debug)]
struct Api {
    generation: u32,
    open: bool,
    receiving: bool,
    sending: bool,
    schedule: Schedule,
    /// The channel of the next message.
    channel: u32,
    lane: u16,
    /// Memory of requests, reused.
    memory: BytesMut,
    /// The bytes of an answer that have arrived so far.
    answer: Vec<u8>,
    request: Option<Request>,
    /// The request waits for the connection to end, to be sent on a new one.
    reopening: bool,
    /// How the connection ended: 0 is the end of the stream, else an error of the kernel, negated.
    ended: i32,
    used_ns: u64,
}

/// A request that is to be answered with success.
#[derive(Clone, Debug)]
struct Request {
    bytes: Bytes,
    intended_ns: u64,
    /// How often it was sent, or had no connection to be sent on.
    attempts: u32,
    /// It was sent on the connection that is open, and has no answer. Otherwise it is in `due`, or
    /// waits for the end of its connection.
    under_way: bool,
}

impl Api {
    /// Takes note of an error of the kernel, unless it tells only what this process did itself.
    fn ended_with(&mut self, result: i32) {
        if result != CANCELED {
            self.ended = self.ended.min(result);
        }
    }
}

impl<'a> Publisher<'a> {
    fn new(plan: &'a Plan, shared: &'a Shared) -> io::Result<Self> {
        let api = |index| {
            let (channel, lane) = plan.sender(index);
            Api {
                generation: 0,
                open: false,
                receiving: false,
                sending: false,
                schedule: Schedule::new(0, 0.0, 0, 1),
                channel,
                lane,
                memory: BytesMut::new(),
                answer: Vec::new(),
                request: None,
                reopening: false,
                ended: 0,
                used_ns: 0,
            }
        };
        let mut tally = Tally::default();
        tally.set(Count::Owed, 1);
        Ok(Self {
            plan,
            shared,
            wire: Wire::new(plan.publishers, plan.room.direct_descriptors)?,
            apis: (0..plan.publishers).map(api).collect(),
            due: BinaryHeap::new(),
            names: (0..plan.channels).map(|channel| plan.channel(channel)).collect(),
            body: Vec::new(),
            started: false,
            stage: Stage::Open,
            now_ns: now_ns(),
            answers: latencies(),
            tally,
        })
    }

    /// `false`: the storm stops.
    fn turn(&mut self) -> bool {
        self.stage = self.shared.stage();
        if self.stage == Stage::Stop {
            return false;
        }
        self.now_ns = now_ns();
        if self.stage == Stage::Run && !self.started {
            self.start();
        }
        while let Some(Reverse((due_ns, index))) = self.due.peek().copied() {
            if due_ns > self.now_ns {
                break;
            }
            self.due.pop();
            self.send_due(index);
        }
        if self.stage == Stage::Drain {
            // Nothing new is sent any more; what is under way is outstanding.
            self.tally.set(Count::Owed, 0);
        }
        let next = self.due.peek().map_or(u64::MAX, |Reverse((due_ns, _))| *due_ns);
        let until_due = Duration::from_nanos(next.saturating_sub(now_ns()));
        let completions = self.wire.wait(SLEEP_MAX.min(until_due));
        self.now_ns = now_ns();
        for completion in &completions {
            self.complete(completion);
        }
        self.wire.recycle(completions);
        true
    }

    fn start(&mut self) {
        self.started = true;
        let from_ns = self.shared.run_from_ns.load(Ordering::Acquire);
        // A batch goes when its share of the rate is due.
        let requests = self.plan.rate / f64::from(self.plan.batch);
        for index in 0..self.plan.publishers {
            let schedule = Schedule::new(from_ns, requests, index, self.plan.publishers);
            self.apis[index as usize].schedule = schedule;
            self.due.push(Reverse((schedule.due_ns(), index)));
        }
    }

    /// A connection has something to send, or has waited long enough to send it again.
    fn send_due(&mut self, index: u32) {
        if self.apis[index as usize].request.is_none() && !self.prepare(index) {
            return;
        }
        let api = &mut self.apis[index as usize];
        let idle = self.now_ns.saturating_sub(api.used_ns) > IDLE_NS;
        // A connection is opened for a request: an open one has had its own.
        let first = api.request.as_ref().is_some_and(|request| request.attempts == 0);
        let spent = self.plan.fresh && first;
        let closing = !api.open && (api.receiving || api.sending);
        if api.open && (idle || spent) && !api.sending {
            self.close(index);
        } else if !closing {
            if api.open || self.open(index) {
                self.send(index);
            }
            return;
        }
        // Goes on when the operations of the old connection have ended.
        self.apis[index as usize].reopening = true;
    }

    /// Uses a connection no longer.
    fn close(&mut self, index: u32) {
        let api = &mut self.apis[index as usize];
        api.open = false;
        if api.receiving || api.sending {
            self.wire.hang_up(key(api, index));
        }
    }

    /// Makes the next request, unless the time is over.
    fn prepare(&mut self, index: u32) -> bool {
        let Self { plan, shared, apis, body, .. } = self;
        let api = &mut apis[index as usize];
        let closed_loop = plan.rate <= 0.0;
        let intended_ns = if closed_loop { self.now_ns } else { api.schedule.due_ns() };
        if intended_ns >= shared.run_until_ns.load(Ordering::Acquire) || self.stage != Stage::Run {
            return false;
        }
        api.schedule.advance();
        body.clear();
        let single = plan.batch == 1;
        body.extend_from_slice(if single { b"" } else { b"{\"batch\":[" });
        for position in 0..plan.batch {
            let channel = api.channel;
            let sent = &shared.sent[plan.lane_index(channel, api.lane)];
            let sequence = sent.fetch_add(1, Ordering::SeqCst);
            let stamp = Stamp { run: plan.run, channel, lane: api.lane, sequence, intended_ns };
            if position > 0 {
                body.push(b',');
            }
            target::put_event(body, &self.names[channel as usize], &stamp, plan.size as usize);
            api.channel = next_channel(plan, index, channel);
        }
        body.extend_from_slice(if single { b"" } else { b"]}" });
        let path = if single { "events" } else { "batch_events" };
        let bytes = plan.target.publish(path, body, &mut api.memory);
        api.request = Some(Request { bytes, intended_ns, attempts: 0, under_way: false });
        self.tally.add(Count::Outstanding, 1);
        true
    }

    fn open(&mut self, index: u32) -> bool {
        let (target, sources) = (&self.plan.target, self.plan.sources);
        // Far from the subscribers' numbers.
        let source = |tried: u32| sources.address((index + tried).wrapping_mul(7919));
        if let Err(error) = self.wire.open(index, target.address(index), source) {
            self.shared.problem(format!("API connect: {}", without_number(&error)));
            if let Some(request) = self.apis[index as usize].request.as_mut() {
                request.attempts += 1;
            }
            self.again(index, AGAIN_NS);
            return false;
        }
        let api = &mut self.apis[index as usize];
        api.generation += 1;
        (api.open, api.receiving) = (true, true);
        api.ended = 0;
        api.answer.clear();
        self.wire.receive(key(api, index));
        true
    }

    fn send(&mut self, index: u32) {
        let api = &mut self.apis[index as usize];
        let key = key(api, index);
        let Some(request) = api.request.as_mut() else { return };
        request.attempts += 1;
        request.under_way = true;
        api.used_ns = self.now_ns;
        api.sending = true;
        self.wire.send(key, &request.bytes);
    }

    fn complete(&mut self, completion: &Completion) {
        let index = completion.key.slot;
        let Some(api) = self.apis.get_mut(index as usize) else { return };
        let current = api.generation == completion.key.generation;
        match completion.op {
            Op::Receive => {
                if let Some(mut buffer) = self.wire.buffer(completion) {
                    if current && completion.result > 0 {
                        api.answer.extend_from_slice(buffer.as_mut());
                    }
                    self.wire.give_back(buffer);
                }
                if current {
                    self.answered(index);
                    if !completion.more {
                        self.receive_ended(index, completion.result);
                    }
                }
            }
            Op::Send if current => {
                api.sending = false;
                api.ended_with(completion.result);
                self.reopen_if_over(index);
            }
            _ => {}
        }
    }

    fn receive_ended(&mut self, index: u32, result: i32) {
        let api = &mut self.apis[index as usize];
        let for_now = [Errno::NOBUFS, Errno::AGAIN].map(|errno| -errno.raw_os_error());
        if result > 0 || for_now.contains(&result) {
            self.wire.receive(key(api, index));
            return;
        }
        api.receiving = false;
        api.ended_with(result);
        self.close(index);
        self.reopen_if_over(index);
    }

    /// Once a connection has ended: what waits for a new one is sent, and so is what the old one
    /// left without an answer.
    fn reopen_if_over(&mut self, index: u32) {
        let api = &mut self.apis[index as usize];
        if api.open || api.receiving || api.sending || api.generation == 0 {
            return;
        }
        self.wire.release(index);
        let unanswered =
            api.request.as_mut().is_some_and(|request| std::mem::take(&mut request.under_way));
        if unanswered {
            let problem = match api.ended {
                0 => "API connection ended before the answer".to_owned(),
                error => format!("API connection ended before the answer: {}", words(error)),
            };
            self.shared.problem(problem);
            self.again(index, AGAIN_NS);
        } else if std::mem::take(&mut api.reopening) {
            api.used_ns = self.now_ns;
            self.due.push(Reverse((self.now_ns, index)));
        }
    }

    fn answered(&mut self, index: u32) {
        let api = &mut self.apis[index as usize];
        let Some(answer) = Answer::parse(&api.answer, SystemTime::now()) else { return };
        let last_line = last_line(api.answer.get(..answer.len).unwrap_or_default());
        api.answer.drain(..answer.len.min(api.answer.len()));
        api.used_ns = self.now_ns;
        // Without a request it says why the server closes an idle connection.
        let asked =
            api.request.as_mut().is_some_and(|request| std::mem::take(&mut request.under_way));
        if answer.closes {
            self.close(index);
        }
        if !asked {
            return;
        }
        self.tally.add(Count::Requests, 1);
        match answer.status {
            200..=299 => self.accepted(index),
            429 | 503 => {
                self.tally.add(Count::Refused, 1);
                self.again(index, answer.retry_after.map_or(AGAIN_NS, ns));
            }
            status => {
                self.shared.problem(format!("API: {status} {last_line}"));
                self.give_up(index);
            }
        }
    }

    fn accepted(&mut self, index: u32) {
        if let Some(request) = self.apis[index as usize].request.take() {
            let took_ns = self.now_ns.saturating_sub(request.intended_ns);
            self.answers.saturating_record((took_ns / 1000).max(1));
            self.tally.add(Count::Published, u64::from(self.plan.batch));
        }
        self.next(index);
    }

    /// The same request once more, in a while.
    fn again(&mut self, index: u32, wait_ns: u64) {
        let request = self.apis[index as usize].request.as_ref();
        if request.is_some_and(|request| request.attempts > ATTEMPTS_MAX) {
            self.give_up(index);
        } else {
            self.due.push(Reverse((self.now_ns.saturating_add(wait_ns), index)));
        }
    }

    fn give_up(&mut self, index: u32) {
        self.apis[index as usize].request = None;
        self.tally.add(Count::Unpublished, u64::from(self.plan.batch));
        self.next(index);
    }

    /// The request is over; the next one is sent when it is due, or at once when it is overdue.
    fn next(&mut self, index: u32) {
        self.tally.take(Count::Outstanding, 1);
        let due_ns = self.apis[index as usize].schedule.due_ns();
        self.due.push(Reverse((due_ns, index)));
    }
}

/// The last line of an answer, cut to what a report has room for.
fn last_line(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    text.lines().last().unwrap_or_default().chars().take(200).collect()
}

/// The channel after this one for a publisher that serves several.
const fn next_channel(plan: &Plan, index: u32, channel: u32) -> u32 {
    let next = channel + plan.publishers;
    if next < plan.channels { next } else { plan.sender(index).0 }
}

const fn key(api: &Api, index: u32) -> ConnKey {
    ConnKey { slot: index, generation: api.generation }
}
