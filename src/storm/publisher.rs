//! All API connections, on a thread and a ring of their own, so that reading deliveries never
//! delays a publish. Each connection has one request under way at a time, so that its messages keep
//! their order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use hdrhistogram::Histogram;
use ringwave_ring::{Completion, ConnKey, Op};
use rustix::io::Errno;

use crate::client_ring::ClientRing;
use crate::clock::{NS_PER_S, now_ns, ns};
use crate::counters::{Counter, Tally};
use crate::error_text::{errno_text, without_number};
use crate::latency::{new_histogram, record_ns};
use crate::plan::StormPlan;
use crate::response::ApiResponse;
use crate::schedule::Schedule;
use crate::shared::{SharedState, StormStage};
use crate::stamp::Stamp;
use crate::target;

/// The longest sleep of the thread. It notices a new stage within that time.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// A connection that was idle for longer is replaced, because the server may be about to close it.
const IDLE_NS: u64 = 4 * NS_PER_S;
/// The wait before a request is sent again after a refusal or the end of its connection, unless the
/// response asks for another time.
const RETRY_NS: u64 = NS_PER_S / 10;
const CANCELED: i32 = -Errno::CANCELED.raw_os_error();
/// The number of attempts after which the messages of a request count as unpublished.
const ATTEMPTS_MAX: u32 = 600;

/// Publishes until the storm stops. Returns the times from the intended publish to the response, in
/// microseconds.
///
/// # Errors
/// The ring could not be created.
pub(crate) fn run(
    plan: &StormPlan,
    shared: &SharedState,
    thread: usize,
) -> io::Result<Histogram<u64>> {
    let mut publisher = Publisher::new(plan, shared)?;
    while publisher.turn() {
        shared.post(thread, &publisher.tally);
    }
    Ok(publisher.responses)
}

/// The publishers of a storm. [`turn`](Self::turn) is called until it returns `false`.
struct Publisher<'a> {
    plan: &'a StormPlan,
    shared: &'a SharedState,
    ring: ClientRing,
    connections: Vec<ApiConnection>,
    /// The times at which connections have something to send, with their numbers.
    due: BinaryHeap<Reverse<(u64, u32)>>,
    /// The names of the channels, by number.
    names: Vec<String>,
    /// The body of the next request.
    body: Vec<u8>,
    started: bool,
    stage: StormStage,
    now_ns: u64,
    responses: Histogram<u64>,
    tally: Tally,
}

/// One API connection: a slot of the ring, and one socket after the other in it.
#[derive(Debug)]
struct ApiConnection {
    generation: u32,
    open: bool,
    receiving: bool,
    sending: bool,
    schedule: Schedule,
    /// The channel of the next message.
    channel: u32,
    /// Its number among the senders of that channel.
    sender: u16,
    /// The memory of requests, which is used again.
    memory: BytesMut,
    /// The bytes of a response that have arrived so far.
    response: Vec<u8>,
    request: Option<PublishRequest>,
    /// The request waits until the connection has ended, to be sent on a new one.
    reopening: bool,
    /// The end of the connection: 0 for the end of the stream, or a negative errno.
    ended: i32,
    used_ns: u64,
}

/// A request that is sent until the server accepts it or refuses it for good.
#[derive(Clone, Debug)]
struct PublishRequest {
    bytes: Bytes,
    intended_ns: u64,
    /// The number of times that it was sent, or could not be sent for want of a connection.
    attempts: u32,
    /// It was sent on the open connection and has no response yet. Otherwise it is in `due`, or
    /// waits for the end of its connection.
    under_way: bool,
}

impl ApiConnection {
    /// Notes an error of the kernel, unless this process caused it by cancelling the operation.
    fn ended_with(&mut self, result: i32) {
        if result != CANCELED {
            self.ended = self.ended.min(result);
        }
    }
}

impl<'a> Publisher<'a> {
    fn new(plan: &'a StormPlan, shared: &'a SharedState) -> io::Result<Self> {
        let api = |index| {
            let (channel, sender) = plan.sender(index);
            ApiConnection {
                generation: 0,
                open: false,
                receiving: false,
                sending: false,
                schedule: Schedule::new(0, 0.0, 0, 1),
                channel,
                sender,
                memory: BytesMut::new(),
                response: Vec::new(),
                request: None,
                reopening: false,
                ended: 0,
                used_ns: 0,
            }
        };
        let mut tally = Tally::default();
        tally.set(Counter::Owed, 1);
        Ok(Self {
            plan,
            shared,
            ring: ClientRing::new(plan.publishers, plan.host.direct_descriptors)?,
            connections: (0..plan.publishers).map(api).collect(),
            due: BinaryHeap::new(),
            names: (0..plan.channels).map(|channel| plan.channel(channel)).collect(),
            body: Vec::new(),
            started: false,
            stage: StormStage::Open,
            now_ns: now_ns(),
            responses: new_histogram(),
            tally,
        })
    }

    /// Takes one turn. Returns `false` when the storm stops.
    fn turn(&mut self) -> bool {
        self.stage = self.shared.stage();
        if self.stage == StormStage::Stop {
            return false;
        }
        self.now_ns = now_ns();
        if self.stage == StormStage::Run && !self.started {
            self.start();
        }
        while let Some(Reverse((due_ns, index))) = self.due.peek().copied() {
            if due_ns > self.now_ns {
                break;
            }
            self.due.pop();
            self.send_due(index);
        }
        if self.stage == StormStage::Drain {
            // Nothing new is sent any more, and requests under way count as outstanding.
            self.tally.set(Counter::Owed, 0);
        }
        let next = self.due.peek().map_or(u64::MAX, |Reverse((due_ns, _))| *due_ns);
        let until_due = Duration::from_nanos(next.saturating_sub(now_ns()));
        let completions = self.ring.wait(SLEEP_MAX.min(until_due));
        self.now_ns = now_ns();
        for completion in &completions {
            self.complete(completion);
        }
        self.ring.recycle(completions);
        true
    }

    fn start(&mut self) {
        self.started = true;
        let from_ns = self.shared.run_from_ns.load(Ordering::Acquire);
        // A batch is one request for several messages of the rate.
        let requests = self.plan.rate / f64::from(self.plan.batch);
        for index in 0..self.plan.publishers {
            let schedule = Schedule::new(from_ns, requests, index, self.plan.publishers);
            self.connections[index as usize].schedule = schedule;
            self.due.push(Reverse((schedule.due_ns(), index)));
        }
    }

    /// Sends the request that is due on a connection: the next one, or the last one once more.
    fn send_due(&mut self, index: u32) {
        if self.connections[index as usize].request.is_none() && !self.prepare(index) {
            return;
        }
        let api = &mut self.connections[index as usize];
        let idle = self.now_ns.saturating_sub(api.used_ns) > IDLE_NS;
        // An open connection has had the request that it was opened for.
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
        // This goes on when the operations of the old connection have ended.
        self.connections[index as usize].reopening = true;
    }

    /// Ends the use of a connection.
    fn close(&mut self, index: u32) {
        let api = &mut self.connections[index as usize];
        api.open = false;
        if api.receiving || api.sending {
            self.ring.hang_up(key(api, index));
        }
    }

    /// Makes the next request. Returns `false` when the scenario is over.
    fn prepare(&mut self, index: u32) -> bool {
        let Self { plan, shared, connections, body, .. } = self;
        let api = &mut connections[index as usize];
        let closed_loop = plan.rate <= 0.0;
        let intended_ns = if closed_loop { self.now_ns } else { api.schedule.due_ns() };
        if intended_ns >= shared.run_until_ns.load(Ordering::Acquire)
            || self.stage != StormStage::Run
        {
            return false;
        }
        api.schedule.advance();
        body.clear();
        let single = plan.batch == 1;
        body.extend_from_slice(if single { b"" } else { b"{\"batch\":[" });
        for position in 0..plan.batch {
            let channel = api.channel;
            let sent = &shared.sent[plan.sender_index(channel, api.sender)];
            let sequence = sent.fetch_add(1, Ordering::SeqCst);
            let sender = api.sender;
            let stamp = Stamp { run: plan.run, channel, sender, sequence, intended_ns };
            if position > 0 {
                body.push(b',');
            }
            target::put_event(body, &self.names[channel as usize], &stamp, plan.size as usize);
            api.channel = next_channel(plan, index, channel);
        }
        body.extend_from_slice(if single { b"" } else { b"]}" });
        let path = if single { "events" } else { "batch_events" };
        let bytes = plan.target.publish(path, body, &mut api.memory);
        api.request = Some(PublishRequest { bytes, intended_ns, attempts: 0, under_way: false });
        self.tally.add(Counter::Outstanding, 1);
        true
    }

    fn open(&mut self, index: u32) -> bool {
        let (target, sources) = (&self.plan.target, self.plan.sources);
        // A prime, so that the addresses are not those of the first subscribers.
        let source = |tried: u32| sources.address((index + tried).wrapping_mul(7919));
        if let Err(error) = self.ring.open(index, target.address(index), source) {
            self.shared.problem(format!("API connect: {}", without_number(&error)));
            if let Some(request) = self.connections[index as usize].request.as_mut() {
                request.attempts += 1;
            }
            self.retry(index, RETRY_NS);
            return false;
        }
        let api = &mut self.connections[index as usize];
        api.generation += 1;
        (api.open, api.receiving) = (true, true);
        api.ended = 0;
        api.response.clear();
        self.ring.receive(key(api, index));
        true
    }

    fn send(&mut self, index: u32) {
        let api = &mut self.connections[index as usize];
        let key = key(api, index);
        let Some(request) = api.request.as_mut() else { return };
        request.attempts += 1;
        request.under_way = true;
        api.used_ns = self.now_ns;
        api.sending = true;
        self.ring.send(key, &request.bytes);
    }

    fn complete(&mut self, completion: &Completion) {
        let index = completion.key.slot;
        let Some(api) = self.connections.get_mut(index as usize) else { return };
        let current = api.generation == completion.key.generation;
        match completion.op {
            Op::Receive => {
                if let Some(mut buffer) = self.ring.buffer(completion) {
                    if current && completion.result > 0 {
                        api.response.extend_from_slice(buffer.as_mut());
                    }
                    self.ring.give_back(buffer);
                }
                if current {
                    self.responded(index);
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
        let api = &mut self.connections[index as usize];
        let for_now = [Errno::NOBUFS, Errno::AGAIN].map(|errno| -errno.raw_os_error());
        if result > 0 || for_now.contains(&result) {
            self.ring.receive(key(api, index));
            return;
        }
        api.receiving = false;
        api.ended_with(result);
        self.close(index);
        self.reopen_if_over(index);
    }

    /// Once a connection has ended, sends the request that waits for a new one, or that the old one
    /// left without a response.
    fn reopen_if_over(&mut self, index: u32) {
        let api = &mut self.connections[index as usize];
        if api.open || api.receiving || api.sending || api.generation == 0 {
            return;
        }
        self.ring.release(index);
        let unanswered =
            api.request.as_mut().is_some_and(|request| std::mem::take(&mut request.under_way));
        if unanswered {
            let problem = match api.ended {
                0 => "API connection ended before the response".to_owned(),
                error => format!("API connection ended before the response: {}", errno_text(error)),
            };
            self.shared.problem(problem);
            self.retry(index, RETRY_NS);
        } else if std::mem::take(&mut api.reopening) {
            api.used_ns = self.now_ns;
            self.due.push(Reverse((self.now_ns, index)));
        }
    }

    fn responded(&mut self, index: u32) {
        let api = &mut self.connections[index as usize];
        let Some(response) = ApiResponse::parse(&api.response, SystemTime::now()) else { return };
        let last_line = last_line(api.response.get(..response.len).unwrap_or_default());
        api.response.drain(..response.len.min(api.response.len()));
        api.used_ns = self.now_ns;
        // A response without a request says why the server closes an idle connection.
        let requested =
            api.request.as_mut().is_some_and(|request| std::mem::take(&mut request.under_way));
        if response.closes {
            self.close(index);
        }
        if !requested {
            return;
        }
        self.tally.add(Counter::Requests, 1);
        match response.status {
            200..=299 => self.accepted(index),
            429 | 503 => {
                self.tally.add(Counter::Refused, 1);
                self.retry(index, response.retry_after.map_or(RETRY_NS, ns));
            }
            status => {
                self.shared.problem(format!("API: {status} {last_line}"));
                self.give_up(index);
            }
        }
    }

    fn accepted(&mut self, index: u32) {
        if let Some(request) = self.connections[index as usize].request.take() {
            record_ns(&mut self.responses, self.now_ns.saturating_sub(request.intended_ns));
            self.tally.add(Counter::Published, u64::from(self.plan.batch));
        }
        self.next(index);
    }

    /// Sends the same request once more after a wait, unless it was sent too often.
    fn retry(&mut self, index: u32, wait_ns: u64) {
        let request = self.connections[index as usize].request.as_ref();
        if request.is_some_and(|request| request.attempts > ATTEMPTS_MAX) {
            self.give_up(index);
        } else {
            self.due.push(Reverse((self.now_ns.saturating_add(wait_ns), index)));
        }
    }

    fn give_up(&mut self, index: u32) {
        self.connections[index as usize].request = None;
        self.tally.add(Counter::Unpublished, u64::from(self.plan.batch));
        self.next(index);
    }

    /// Ends a request. The next one is sent when it is due, or at once if it is overdue.
    fn next(&mut self, index: u32) {
        self.tally.subtract(Counter::Outstanding, 1);
        let due_ns = self.connections[index as usize].schedule.due_ns();
        self.due.push(Reverse((due_ns, index)));
    }
}

/// The last line of a response, cut to the room that a report has.
fn last_line(response: &[u8]) -> String {
    let text = String::from_utf8_lossy(response);
    text.lines().last().unwrap_or_default().chars().take(200).collect()
}

/// The channel after this one for a publisher that serves several.
const fn next_channel(plan: &StormPlan, index: u32, channel: u32) -> u32 {
    let next = channel + plan.publishers;
    if next < plan.channels { next } else { plan.sender(index).0 }
}

const fn key(api: &ApiConnection, index: u32) -> ConnKey {
    ConnKey { slot: index, generation: api.generation }
}
