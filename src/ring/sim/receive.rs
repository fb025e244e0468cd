//! The waits and the receives of the simulated kernel, and the ways in which they end.

use std::os::fd::RawFd;

use super::SimRing;
use crate::ring::{ConnKey, Op};

impl SimRing {
    /// Ends a wait if its socket has something to receive, by the receive that belongs to it, or
    /// else with a result that names the events, or is an error of the wait itself.
    pub(super) fn progress_wait(&mut self, slot: u32) {
        let Some(&(key, op)) = self.waiting.get(&slot) else { return };
        let Some(fd) = self.socket(key) else { return };
        let reset = self.dice.chance(self.faults.reset);
        let events = self.net.with(fd, |socket| {
            socket.reset |= reset;
            socket.events()
        });
        let events = events.unwrap_or(libc::POLLNVAL);
        if events == 0 && !self.dice.chance(self.faults.spurious) {
            return;
        }
        self.waiting.remove(&slot);
        if op == Op::Receive {
            return self.receive_now(key);
        }
        let failed = self.dice.chance(self.faults.stray_again);
        let result = if failed { -libc::ENOMEM } else { i32::from(events) };
        self.complete(Op::Readable, key, result);
    }

    /// Cancels a receive that waits.
    pub(super) fn stop_receive(&mut self, key: ConnKey) {
        if self.waiting.get(&key.slot) == Some(&(key, Op::Receive)) {
            self.waiting.remove(&key.slot);
            self.complete(Op::Receive, key, -libc::ECANCELED);
        }
    }

    /// Receives what one buffer takes, or completes with the reason why it does not.
    pub(super) fn receive_now(&mut self, key: ConnKey) {
        let fd = self.socket(key).expect("a receive on an empty slot");
        let reset = self.dice.chance(self.faults.reset);
        let state = self.net.with(fd, |socket| {
            socket.reset |= reset;
            (socket.reset, socket.to_server.len(), socket.client_closed)
        });
        let (reset, arrived, closed) = state.expect("a socket that was installed");
        let result = if reset {
            -libc::ECONNRESET
        } else if self.dice.chance(self.faults.stray_again) {
            -self.dice.one_of(&[libc::EAGAIN, libc::EINTR, libc::ENOMEM])
        } else if arrived == 0 {
            if closed { 0 } else { -libc::EAGAIN }
        } else if self.dice.chance(self.faults.no_buffers) {
            -libc::ENOBUFS
        } else {
            return self.fill(key, fd, arrived);
        };
        self.complete(Op::Receive, key, result);
    }

    /// Completes a receive with some of the bytes that have arrived, if a buffer is free.
    fn fill(&mut self, key: ConnKey, fd: RawFd, arrived: usize) {
        let Some(buffer) = self.free_buffers.pop() else {
            return self.complete(Op::Receive, key, -libc::ENOBUFS);
        };
        let len = 1 + self.dice.below(arrived.min(self.buffer_size));
        let taken = self.net.with(fd, |socket| {
            let bytes = socket.to_server.drain(..len).collect();
            (bytes, socket.readable())
        });
        let (bytes, left) = taken.expect("a socket that was installed");
        let known = !self.dice.chance(self.faults.unknown_left);
        self.complete_receive(key, bytes, left && known, buffer);
    }
}
