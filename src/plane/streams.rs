//! Connections whose bytes are not frames: those that have just been accepted, and those that speak
//! HTTP. Their owner gets their bytes as they come, and decides what becomes of them.
//!
//! A stream begins with an accept and ends in one of two ways: it becomes a WebSocket
//! ([`Plane::upgrade`]), or it closes ([`Plane::finish`], [`Plane::abort`], or by its peer). While
//! it is one, the plane receives from it only when its owner asks for more
//! ([`Plane::read_on`]), so that a peer cannot make the owner hold more than it wants.

use std::net::IpAddr;

use bytes::Bytes;

use crate::id::ConnKey;
use crate::memory::Trim;
use crate::ring::{Completion, ListenerId, Ring};

use super::conn::{Conn, Incoming, Phase, Receiving};
use super::{Ended, Plane};

/// An event of a stream, for its owner.
#[derive(Debug)]
pub(crate) enum StreamEvent<B> {
    /// A connection was accepted, from a peer with this address, if it has one.
    Accepted(ListenerId, Option<IpAddr>),
    /// An accept has failed with this errno. The key names no connection.
    NotAccepted(ListenerId, i32),
    /// Bytes have come. The buffer has to be [given back](Plane::give_back) in the same turn.
    Received(B),
    /// The peer has ended its sending direction.
    PeerEnded,
    /// The socket is full: the bytes that the stream is owed wait.
    Blocked,
    /// Everything that the stream was owed is with the kernel again.
    Unblocked,
    /// The connection has ended.
    Closed,
}

impl<R: Ring> Plane<R> {
    /// Takes a listening socket.
    pub(crate) fn listen(&mut self, listener: R::Listener) -> ListenerId {
        self.ring.listen(listener)
    }

    /// Drops a listening socket, none of whose accepts is pending.
    pub(crate) fn forget(&mut self, listener: ListenerId) {
        self.ring.forget(listener);
    }

    /// Accepts one connection, which [`StreamEvent::Accepted`] announces. Returns the key that it
    /// will have, or `None` if all slots are taken.
    pub(crate) fn accept(&mut self, listener: ListenerId) -> Option<ConnKey> {
        let slot = self.free_slot()?;
        let conn = &mut self.conns[slot as usize];
        conn.phase = Phase::Accepting;
        let key = ConnKey { slot, generation: conn.generation };
        self.accepting.insert(slot, listener);
        self.to_accept.push_back(key);
        Some(key)
    }

    /// Ends the accepts of a listener. Each is still answered, by a connection or by a failure.
    pub(crate) fn stop_accepting(&mut self, listener: ListenerId) {
        for (&slot, &of) in &self.accepting {
            if of == listener {
                let generation = self.conns[slot as usize].generation;
                self.to_stop_accepting.push_back(ConnKey { slot, generation });
            }
        }
    }

    /// The next event of a stream.
    pub(crate) fn next_stream_event(&mut self) -> Option<(ConnKey, StreamEvent<R::Buffer>)> {
        self.stream_events.pop_front()
    }

    /// Gives back the buffer of [`StreamEvent::Received`].
    pub(crate) fn give_back(&mut self, buffer: R::Buffer) {
        self.ring.give_back(buffer);
    }

    /// Receives once more from a stream. The event that follows is [`StreamEvent::Received`],
    /// [`StreamEvent::PeerEnded`] or [`StreamEvent::Closed`].
    pub(crate) fn read_on(&mut self, key: ConnKey) {
        if self.is_stream(key) {
            self.go_on(key);
        }
    }

    /// Has a connection wait for more, or receives at once if it is known to be readable.
    fn go_on(&mut self, key: ConnKey) {
        let Some(conn) = self.conn(key) else { return };
        match (conn.receiving, conn.phase) {
            (Receiving::Not, _) => self.to_wait.push_back(key),
            (Receiving::Readable, Phase::Stream) => self.to_read.push_back(key),
            (Receiving::Readable, _) => self.to_receive.push_back(key),
            (Receiving::Waits | Receiving::Receives, _) => {}
        }
    }

    /// Whether the connection is a stream that does not close.
    pub(super) fn is_stream(&self, key: ConnKey) -> bool {
        self.conn(key).is_some_and(|conn| conn.phase == Phase::Stream)
    }

    /// Owes a stream these bytes.
    pub(crate) fn owe_stream(&mut self, key: ConnKey, bytes: Bytes) {
        if self.is_stream(key) {
            let staged = self.ring.stage(bytes);
            self.owe_slot(key.slot, staged);
        }
    }

    /// Makes a stream a WebSocket. Returns `false` if it has ended meanwhile. What it is still owed
    /// goes first.
    pub(crate) fn upgrade(&mut self, key: ConnKey) -> bool {
        let Some(conn) = self.conn_mut(key).filter(|conn| conn.phase == Phase::Stream) else {
            return false;
        };
        conn.phase = Phase::Open;
        self.streams -= 1;
        self.open += 1;
        self.counters.opened += 1;
        self.go_on(key);
        true
    }

    /// Closes a stream so that its peer can still read what it is owed: once that is sent, our
    /// direction ends, and the peer's bytes are discarded until the peer ends its own. Closing at
    /// once with unread input would reset the connection, and what the peer has not read would be
    /// lost with it. The owner [aborts](Self::abort) it when the peer takes too long.
    pub(crate) fn finish(&mut self, key: ConnKey) {
        let Some(conn) = self.conn_mut(key).filter(|conn| conn.phase == Phase::Stream) else {
            return;
        };
        conn.phase = Phase::Closing;
        self.finishing.insert(key.slot);
        self.go_on(key);
        self.discard_from_now_on(key);
    }

    /// Ends both directions of a stream at once, when everything that it is owed is sent. The peer
    /// must have nothing more to send: whatever came afterwards would be answered by a reset, which
    /// can destroy what it has not read yet.
    pub(crate) fn close_stream(&mut self, key: ConnKey) {
        let Some(conn) = self.conn_mut(key).filter(|conn| conn.phase == Phase::Stream) else {
            return;
        };
        (conn.phase, conn.incoming) = (Phase::Closing, Incoming::Closed);
        self.finishing.insert(key.slot);
        self.end_when_sent(key);
    }

    /// Ends a stream now, also one that [finishes](Self::finish) or [closes](Self::close_stream).
    pub(crate) fn abort(&mut self, key: ConnKey) {
        let finishes = self.conn(key).is_some() && self.finishing.contains(&key.slot);
        if self.is_stream(key) || finishes {
            self.kill(key, Ended::Ours);
        }
    }

    /// Handles the end of an accept.
    pub(super) fn accepted(&mut self, completion: &Completion) {
        let key = completion.key;
        let peer = self.ring.peer(completion);
        let Some(listener) = self.accepting.remove(&key.slot) else {
            self.counters.stale += 1;
            return;
        };
        let now = self.now;
        let conn = &mut self.conns[key.slot as usize];
        let event = if completion.result < 0 {
            conn.end();
            self.free.push(key.slot, conn);
            StreamEvent::NotAccepted(listener, -completion.result)
        } else {
            conn.start(now, Phase::Stream);
            self.streams += 1;
            StreamEvent::Accepted(listener, peer)
        };
        self.stream_events.push_back((key, event));
    }

    /// Handles a receive of a stream.
    pub(super) fn stream_received(&mut self, completion: &Completion) {
        let (key, now) = (completion.key, self.now);
        let Some(conn) = self.conn_mut(key) else { return };
        // A stream that is known to be readable is received from when its owner asks for more.
        conn.receiving = if completion.left { Receiving::Readable } else { Receiving::Not };
        if completion.result > 0 {
            conn.touch(now);
        }
        let buffer = self.ring.take_buffer(completion);
        match -completion.result {
            0 => self.stream_events.push_back((key, StreamEvent::PeerEnded)),
            ..0 => {
                let event = buffer.map_or(StreamEvent::PeerEnded, StreamEvent::Received);
                self.stream_events.push_back((key, event));
            }
            // There was nothing, or no buffer or memory.
            libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM => {
                self.counters.fruitless += 1;
                if let Some(conn) = self.conn_mut(key) {
                    conn.receiving = Receiving::Not;
                }
                self.to_wait.push_back(key);
            }
            errno => self.kill(key, Ended::Failed(errno)),
        }
    }

    /// Queues receives from streams, `most` of them at most. Returns whether there are any.
    pub(super) fn queue_reads(&mut self, most: usize) -> bool {
        let mut queued = 0;
        while queued < most
            && let Some(&key) = self.to_read.front()
        {
            if self.conn(key).is_some_and(Conn::is_to_be_received_from) {
                if self.ring.receive(key).is_err() {
                    return true;
                }
                self.conns[key.slot as usize].receiving = Receiving::Receives;
                queued += 1;
            }
            self.to_read.pop_front();
        }
        queued > 0
    }

    /// Queues the accepts and the ends of accepts. Returns `false` if the kernel took nothing.
    pub(super) fn start_accepts(&mut self) -> bool {
        while let Some(&key) = self.to_accept.front() {
            let Some(&listener) = self.accepting.get(&key.slot) else {
                self.to_accept.pop_front();
                continue;
            };
            if self.ring.accept(listener, key).is_ok() {
                self.to_accept.pop_front();
            } else if !self.submit() {
                return false;
            }
        }
        while let Some(&key) = self.to_stop_accepting.front() {
            let ended = !self.accepting.contains_key(&key.slot);
            if ended || self.ring.stop_accepting(key).is_ok() {
                self.to_stop_accepting.pop_front();
            } else if !self.submit() {
                return false;
            }
        }
        true
    }

    /// Tells the owner of a stream that its socket is full.
    pub(super) fn stream_blocked(&mut self, key: ConnKey) {
        if self.is_stream(key) {
            self.stream_events.push_back((key, StreamEvent::Blocked));
        }
    }

    /// Tells the owner of a stream that its backlog is sent.
    pub(super) fn stream_unblocked(&mut self, key: ConnKey) {
        if self.is_stream(key) {
            self.stream_events.push_back((key, StreamEvent::Unblocked));
        }
    }

    /// Tells the owner of a stream that its connection has ended.
    pub(super) fn stream_closed(&mut self, key: ConnKey) {
        self.streams -= 1;
        self.stream_events.push_back((key, StreamEvent::Closed));
    }

    /// Drops the events of streams that nobody asks for any more.
    pub(super) fn drop_stream_events(&mut self) {
        while let Some((_, event)) = self.stream_events.pop_front() {
            if let StreamEvent::Received(buffer) = event {
                self.ring.give_back(buffer);
            }
        }
    }

    pub(super) fn trim_streams(&mut self) {
        self.to_accept.trim();
        self.to_read.trim();
        self.to_stop_accepting.trim();
        self.stream_events.trim();
    }
}
