//! All API connections, on a thread and a ring of their own, so that reading deliveries never
//! delays a publish. Each connection has one request under way at a time, so that its messages keep
//! their order.
//!
//! A message that is due is sent, however late. A request that found no server is sent to the next
//! one; a request that a server may have is never sent twice. So each message ends as one of these:
//! accepted, unpublished, unknown or unsent.

mod connection;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use ringwave_ring::{Completion, Op};
use rustix::io::Errno;

use crate::client_ring::ClientRing;
use crate::clock::{NS_PER_S, now_ns, ns};
use crate::counters::{Counter, Tally};
use crate::error_text::{errno_text, without_number};
use crate::latency::{new_histogram, record_ns};
use crate::outcome::PublisherResults;
use crate::plan::StormPlan;
use crate::response::ApiResponse;
use crate::schedule::Schedule;
use crate::shared::{SharedState, StormStage};
use crate::stamp::Stamp;
use crate::target;

use connection::{ApiConnection, Handover, PublishRequest, RefusedRequest};

/// The longest sleep of the thread. It notices a new stage within that time.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// The time that a server has for a response, as the PHP client waits. A server that gives none by
/// then may have taken the request.
const RESPONSE_NS: u64 = 30 * NS_PER_S;
/// The interval at which connections are looked at whose responses may be overdue.
const LOOK_NS: u64 = NS_PER_S / 10;
/// A connection that was idle for longer is replaced, because the server may be about to close it.
const IDLE_NS: u64 = 4 * NS_PER_S;
/// The wait before another attempt when no address takes connections, and before a refused request
/// is repeated unless the response asks for another time.
const RETRY_NS: u64 = NS_PER_S / 10;

/// Publishes until the storm settles.
///
/// # Errors
/// The ring could not be created.
pub(crate) fn run(
    plan: &StormPlan,
    shared: &SharedState,
    thread: usize,
) -> io::Result<PublisherResults> {
    let mut publisher = Publisher::new(plan, shared)?;
    while publisher.turn() {
        shared.post(thread, &publisher.tally);
    }
    publisher.settle();
    shared.post(thread, &publisher.tally);
    Ok(publisher.results)
}

/// The publishers of a storm. [`turn`](Self::turn) is called until it returns `false`, then
/// [`settle`](Self::settle).
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
    /// The time that a server has for a response.
    response_ns: u64,
    /// The time at which connections were last looked at.
    looked_ns: u64,
    results: PublisherResults,
    tally: Tally,
}

impl<'a> Publisher<'a> {
    fn new(plan: &'a StormPlan, shared: &'a SharedState) -> io::Result<Self> {
        let mut tally = Tally::default();
        tally.set(Counter::Owed, 1);
        let results = PublisherResults {
            responses: new_histogram(),
            refusals: BTreeMap::new(),
            overtime_ns: 0,
        };
        Ok(Self {
            plan,
            shared,
            ring: ClientRing::new(plan.publishers, plan.host.direct_descriptors)?,
            connections: (0..plan.publishers).map(|i| ApiConnection::new(plan, i)).collect(),
            due: BinaryHeap::new(),
            names: (0..plan.channels).map(|channel| plan.channel(channel)).collect(),
            body: Vec::new(),
            started: false,
            stage: StormStage::Open,
            now_ns: now_ns(),
            response_ns: RESPONSE_NS,
            looked_ns: 0,
            results,
            tally,
        })
    }

    /// Takes one turn. Returns `false` when the storm settles.
    fn turn(&mut self) -> bool {
        self.stage = self.shared.stage();
        if self.stage >= StormStage::Settle {
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
        self.give_up_silent();
        if self.stage == StormStage::Drain {
            self.tally.set(Counter::Owed, self.unfinished());
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

    /// The number of connections that have still to send something, or wait for a response.
    fn unfinished(&self) -> u64 {
        let until_ns = self.shared.run_until_ns.load(Ordering::Acquire);
        let paced = self.started && self.plan.rate > 0.0;
        let unfinished = |api: &&ApiConnection| {
            let due = paced && api.schedule.due_ns() < until_ns;
            api.request.is_some() || api.repeat.is_some() || due
        };
        self.connections.iter().filter(unfinished).count() as u64
    }

    /// Sends the request that is due on a connection: the next one, or the last one once more.
    fn send_due(&mut self, index: u32) {
        if self.connections[index as usize].request.is_none() && !self.prepare(index) {
            return;
        }
        let api = &mut self.connections[index as usize];
        let idle = self.now_ns.saturating_sub(api.used_ns) > IDLE_NS;
        let closing = !api.open && (api.receiving || api.sending);
        // A response that came before all of its request leaves the rest of it in the way.
        if api.open && (idle || self.plan.fresh || api.sending) {
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

    /// Closes connections whose servers have not answered in time.
    fn give_up_silent(&mut self) {
        if self.now_ns.saturating_sub(self.looked_ns) < LOOK_NS {
            return;
        }
        self.looked_ns = self.now_ns;
        for index in 0..self.plan.publishers {
            let api = &mut self.connections[index as usize];
            let waited_ns = self.now_ns.saturating_sub(api.used_ns);
            if api.open && api.has_request_under_way() && waited_ns > self.response_ns {
                api.silent = true;
                self.close(index);
            }
        }
    }

    /// Ends the use of a connection.
    fn close(&mut self, index: u32) {
        let api = &mut self.connections[index as usize];
        api.open = false;
        if api.receiving || api.sending {
            self.ring.hang_up(api.key(index));
        }
    }

    /// Makes the next request, or a refused one again. Returns `false` when the scenario is over.
    fn prepare(&mut self, index: u32) -> bool {
        let api = &mut self.connections[index as usize];
        let intended_ns = if let Some(refused) = api.repeat.take() {
            api.channel = refused.channel;
            refused.intended_ns
        } else {
            let closed_loop = self.plan.rate <= 0.0;
            let due_ns = if closed_loop { self.now_ns } else { api.schedule.due_ns() };
            if due_ns >= self.shared.run_until_ns.load(Ordering::Acquire) {
                return false;
            }
            api.schedule.advance();
            due_ns
        };
        self.write(index, intended_ns);
        true
    }

    /// Writes a request whose messages have the next numbers of their senders.
    fn write(&mut self, index: u32, intended_ns: u64) {
        let Self { plan, shared, connections, body, .. } = self;
        let api = &mut connections[index as usize];
        let first_channel = api.channel;
        body.clear();
        api.messages.clear();
        let single = plan.batch == 1;
        body.extend_from_slice(if single { b"" } else { b"{\"batch\":[" });
        for position in 0..plan.batch {
            let (channel, sender) = (api.channel, api.sender);
            let sender_index = plan.sender_index(channel, sender);
            let sequence = shared.sent[sender_index].fetch_add(1, Ordering::SeqCst);
            let stamp = Stamp { run: plan.run, channel, sender, sequence, intended_ns };
            if position > 0 {
                body.push(b',');
            }
            target::put_event(body, &self.names[channel as usize], &stamp, plan.size as usize);
            // The first number of the request stays.
            shared.open_from[sender_index].fetch_min(sequence, Ordering::SeqCst);
            api.messages.push((sender_index, sequence));
            api.channel = next_channel(plan, index, channel);
        }
        body.extend_from_slice(if single { b"" } else { b"]}" });
        let path = if single { "events" } else { "batch_events" };
        let bytes = plan.target.publish(path, body, &mut api.memory);
        let (channel, handover) = (first_channel, Handover::Waiting);
        api.request = Some(PublishRequest { bytes, intended_ns, channel, handover });
    }

    fn open(&mut self, index: u32) -> bool {
        let (target, sources) = (&self.plan.target, self.plan.sources);
        // A prime, so that the addresses are not those of the first subscribers.
        let source = |tried: u32| sources.address((index + tried).wrapping_mul(7919));
        let address = target.address(self.connections[index as usize].turn);
        if let Err(error) = self.ring.open(index, address, source) {
            self.try_next(index, &without_number(&error));
            return false;
        }
        let api = &mut self.connections[index as usize];
        api.generation += 1;
        (api.open, api.receiving) = (true, true);
        api.ended = 0;
        api.response.clear();
        self.ring.receive(api.key(index));
        true
    }

    fn send(&mut self, index: u32) {
        let api = &mut self.connections[index as usize];
        let key = api.key(index);
        let Some(request) = api.request.as_mut() else { return };
        request.handover = Handover::Sending;
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
                api.sent(completion.result);
                self.reopen_if_over(index);
            }
            _ => {}
        }
    }

    fn receive_ended(&mut self, index: u32, result: i32) {
        let api = &mut self.connections[index as usize];
        let for_now = [Errno::NOBUFS, Errno::AGAIN].map(|errno| -errno.raw_os_error());
        if result > 0 || for_now.contains(&result) {
            self.ring.receive(api.key(index));
            return;
        }
        api.receiving = false;
        api.ended_with(result);
        self.close(index);
        self.reopen_if_over(index);
    }

    /// Once a connection has ended, sends the request that waits for a new one, or that the old one
    /// could not hand over.
    fn reopen_if_over(&mut self, index: u32) {
        let api = &mut self.connections[index as usize];
        if api.open || api.receiving || api.sending || api.generation == 0 {
            return;
        }
        self.ring.release(index);
        let reopening = std::mem::take(&mut api.reopening);
        let end = if std::mem::take(&mut api.silent) {
            format!("there was none within {} s", self.response_ns / NS_PER_S)
        } else if api.ended == 0 {
            "the server ended the stream".to_owned()
        } else {
            errno_text(api.ended)
        };
        match api.request.as_ref().map(|request| request.handover) {
            Some(Handover::Sent) => {
                self.shared.problem(format!("API connection ended before the response: {end}"));
                self.connections[index as usize].turn += 1;
                self.abandon(index, Counter::Unknown);
            }
            Some(Handover::Sending) => self.try_next(index, &end),
            Some(Handover::Waiting) | None if reopening => {
                api.used_ns = self.now_ns;
                self.due.push(Reverse((self.now_ns, index)));
            }
            Some(Handover::Waiting) | None => {}
        }
    }

    /// Sends a request that no server has to the next one: at once, or after a wait if none was
    /// left to try.
    fn try_next(&mut self, index: u32, why: &str) {
        self.shared.problem(format!("API request not handed over: {why}"));
        self.tally.add(Counter::Retried, 1);
        let api = &mut self.connections[index as usize];
        if let Some(request) = &mut api.request {
            request.handover = Handover::Waiting;
        }
        api.turn += 1;
        api.failures += 1;
        let all_tried = api.failures.is_multiple_of(self.plan.target.nodes());
        let wait_ns = if all_tried { RETRY_NS } else { 0 };
        self.due.push(Reverse((self.now_ns + wait_ns, index)));
    }

    fn responded(&mut self, index: u32) {
        let api = &mut self.connections[index as usize];
        let Some(response) = ApiResponse::parse(&api.response, SystemTime::now()) else { return };
        let last_line = last_line(api.response.get(..response.len).unwrap_or_default());
        api.response.drain(..response.len.min(api.response.len()));
        api.used_ns = self.now_ns;
        // A response without a request says why the server closes an idle connection.
        let requested = api.has_request_under_way();
        if response.closes {
            self.close(index);
        }
        if !requested {
            return;
        }
        self.tally.add(Counter::Requests, 1);
        let until_ns = self.shared.run_until_ns.load(Ordering::Acquire);
        self.results.overtime_ns = self.now_ns.saturating_sub(until_ns);
        match response.status {
            200..=299 => self.accepted(index),
            429 | 503 => {
                self.tally.add(Counter::Refused, 1);
                *self.results.refusals.entry(response.status).or_default() += 1;
                self.refused(index, response.retry_after.map_or(RETRY_NS, ns));
            }
            status => {
                self.shared.problem(format!("API: {status} {last_line}"));
                self.abandon(index, Counter::Unpublished);
            }
        }
    }

    fn accepted(&mut self, index: u32) {
        if let Some(request) = self.connections[index as usize].request.take() {
            self.end_request(index);
            let taken_ns = self.now_ns.saturating_sub(request.intended_ns);
            record_ns(&mut self.results.responses, taken_ns);
            self.tally.add(Counter::Published, u64::from(self.plan.batch));
        }
        self.next(index);
    }

    /// Gives up a request that was refused for the time being, or repeats it after this wait.
    fn refused(&mut self, index: u32, wait_ns: u64) {
        let api = &mut self.connections[index as usize];
        let Some(request) = api.request.as_ref().filter(|_| self.plan.retry) else {
            return self.abandon(index, Counter::Unpublished);
        };
        let PublishRequest { intended_ns, channel, .. } = *request;
        api.repeat = Some(RefusedRequest { intended_ns, channel });
        self.drop_request(index);
        self.due.push(Reverse((self.now_ns.saturating_add(wait_ns), index)));
        if self.plan.target.nodes() > 1 {
            self.connections[index as usize].turn += 1;
            self.close(index);
        }
    }

    /// Gives up the messages of the request, counts them, and goes on to the next one.
    fn abandon(&mut self, index: u32, counter: Counter) {
        self.drop_request(index);
        self.tally.add(counter, u64::from(self.plan.batch));
        self.next(index);
    }

    /// Drops the request. Its messages are owed to nobody.
    fn drop_request(&mut self, index: u32) {
        let api = &mut self.connections[index as usize];
        api.request = None;
        for &(sender, number) in &api.messages {
            self.shared.exempt.add(sender, number);
        }
        self.end_request(index);
    }

    /// Ends the request of a connection for those who see gaps among its messages.
    fn end_request(&mut self, index: u32) {
        for (sender, _) in self.connections[index as usize].messages.drain(..) {
            self.shared.open_from[sender].store(u32::MAX, Ordering::SeqCst);
        }
    }

    /// Sends the next request when it is due, or at once if it is overdue.
    fn next(&mut self, index: u32) {
        let due_ns = self.connections[index as usize].schedule.due_ns();
        self.due.push(Reverse((due_ns, index)));
    }

    /// Counts the messages that the storm did not wait for any longer.
    fn settle(&mut self) {
        let batch = u64::from(self.plan.batch);
        let until_ns = self.shared.run_until_ns.load(Ordering::Acquire);
        for index in 0..self.plan.publishers {
            let api = &self.connections[index as usize];
            if self.started {
                self.tally.add(Counter::Unsent, api.schedule.left_before(until_ns) * batch);
            }
            if api.repeat.is_some() {
                self.tally.add(Counter::Unpublished, batch);
            }
            match api.request.as_ref().map(|request| request.handover) {
                Some(Handover::Waiting) => self.abandon(index, Counter::Unsent),
                Some(Handover::Sending | Handover::Sent) => self.abandon(index, Counter::Unknown),
                None => {}
            }
        }
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

#[cfg(test)]
mod tests;
