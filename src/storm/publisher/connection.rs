//! The record of one API connection, and of the request on it.

use bytes::{Bytes, BytesMut};
use ringwave_ring::ConnKey;
use rustix::io::Errno;

use crate::plan::StormPlan;
use crate::schedule::Schedule;

/// The result of an operation that this process has cancelled.
const CANCELED: i32 = -Errno::CANCELED.raw_os_error();

/// One API connection: a slot of the ring, and one socket after the other in it.
#[derive(Debug)]
pub(super) struct ApiConnection {
    pub(super) generation: u32,
    pub(super) open: bool,
    pub(super) receiving: bool,
    pub(super) sending: bool,
    pub(super) schedule: Schedule,
    /// The channel of the next message.
    pub(super) channel: u32,
    /// Its number among the senders of that channel.
    pub(super) sender: u16,
    /// The turn on the addresses of the server. It goes on to the next one after a failure.
    pub(super) turn: u32,
    /// The connects that have failed since the last request was handed over.
    pub(super) failures: u32,
    /// The memory of requests, which is used again.
    pub(super) memory: BytesMut,
    /// The bytes of a response that have arrived so far.
    pub(super) response: Vec<u8>,
    pub(super) request: Option<PublishRequest>,
    /// The messages of the request: the index of each sender, and the number.
    pub(super) messages: Vec<(usize, u32)>,
    /// The messages that were refused and wait to be sent again, with new numbers.
    pub(super) repeat: Option<RefusedRequest>,
    /// The request waits until the connection has ended, to be sent on a new one.
    pub(super) reopening: bool,
    /// The end of the connection: 0 for the end of the stream, or a negative errno.
    pub(super) ended: i32,
    /// It was closed because the server did not answer in time.
    pub(super) silent: bool,
    /// The time of the last request or response.
    pub(super) used_ns: u64,
}

/// A request that is under way until the server answers it, or its connection ends.
#[derive(Clone, Debug)]
pub(super) struct PublishRequest {
    pub(super) bytes: Bytes,
    pub(super) intended_ns: u64,
    /// The channel of its first message.
    pub(super) channel: u32,
    pub(super) handover: Handover,
}

/// The progress of a request on its way to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handover {
    /// No server has it. It is in `due`, or waits for the end of its connection.
    Waiting,
    /// It is being sent. If that fails, no server has all of it, so none can have accepted it.
    Sending,
    /// All of it was sent, so that the server may have accepted it.
    Sent,
}

/// A request that was refused for the time being.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefusedRequest {
    pub(super) intended_ns: u64,
    /// The channel of its first message.
    pub(super) channel: u32,
}

impl ApiConnection {
    pub(super) fn new(plan: &StormPlan, index: u32) -> Self {
        let (channel, sender) = plan.sender(index);
        Self {
            generation: 0,
            open: false,
            receiving: false,
            sending: false,
            schedule: Schedule::new(0, 0.0, 0, 1),
            channel,
            sender,
            turn: plan.publisher_turn(index),
            failures: 0,
            memory: BytesMut::new(),
            response: Vec::new(),
            request: None,
            messages: Vec::new(),
            repeat: None,
            reopening: false,
            ended: 0,
            silent: false,
            used_ns: 0,
        }
    }

    /// The key of this generation of a slot.
    pub(super) const fn key(&self, slot: u32) -> ConnKey {
        ConnKey { slot, generation: self.generation }
    }

    /// Notes the end of the send of a request.
    pub(super) fn sent(&mut self, result: i32) {
        self.sending = false;
        self.ended_with(result.min(0));
        if let Some(request) = &mut self.request
            && request.handover == Handover::Sending
            && usize::try_from(result) == Ok(request.bytes.len())
        {
            request.handover = Handover::Sent;
            self.failures = 0;
        }
    }

    /// Notes an error of the kernel, unless this process caused it by cancelling the operation.
    pub(super) fn ended_with(&mut self, result: i32) {
        if result != CANCELED {
            self.ended = self.ended.min(result);
        }
    }

    /// Whether a request is under way on this connection.
    pub(super) fn has_request_under_way(&self) -> bool {
        self.request.as_ref().is_some_and(|request| request.handover != Handover::Waiting)
    }
}
