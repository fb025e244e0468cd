//! The receives of the simulated kernel, and the ways in which they end.

use std::os::fd::RawFd;

use super::{SimRing, length};
use crate::ring::{ConnKey, Op};

impl SimRing {
    pub(super) fn arm(&mut self, key: ConnKey, once: bool) {
        self.receiving.insert(key.slot, key);
        let installed = self.table[key.slot as usize].as_mut();
        let installed = installed.expect("a receive on an empty slot");
        (installed.once, installed.stopping) = (once, false);
    }

    /// Ends a receive whose end was asked for, sooner or later. Returns whether it did.
    pub(super) fn stop_receive(&mut self, slot: u32) -> bool {
        let stopping = self.table[slot as usize].as_ref().is_some_and(|of| of.stopping);
        if !stopping || !self.dice.chance(700) {
            return false;
        }
        if let Some(key) = self.receiving.remove(&slot) {
            self.complete(Op::Receive, key, -libc::ECANCELED, false, None);
        }
        true
    }

    pub(super) fn progress_receive(&mut self, slot: u32) {
        let Some(&key) = self.receiving.get(&slot) else { return };
        let Some(fd) = self.socket(key) else { return };
        let reset = self.dice.chance(self.faults.reset);
        let state = self.net.with(fd, |socket| {
            socket.reset |= reset;
            (socket.reset, socket.to_server.len(), socket.client_closed)
        });
        let Some((reset, arrived, closed)) = state else { return };
        let ended = if reset {
            Some(-libc::ECONNRESET)
        } else if self.dice.chance(self.faults.stray_again) {
            Some(-self.dice.one_of(&[libc::EAGAIN, libc::EINTR, libc::ENOMEM]))
        } else if arrived == 0 {
            closed.then_some(0)
        } else if self.dice.chance(self.faults.no_buffers) || self.free_buffers.is_empty() {
            Some(-libc::ENOBUFS)
        } else {
            None
        };
        if let Some(result) = ended {
            self.receiving.remove(&slot);
            return self.complete(Op::Receive, key, result, false, None);
        }
        if arrived > 0 {
            self.fill(key, fd, arrived);
        }
    }

    /// Completes a receive with some of the bytes that have arrived.
    fn fill(&mut self, key: ConnKey, fd: RawFd, arrived: usize) {
        let Some(buffer) = self.free_buffers.pop() else { return };
        let len = 1 + self.dice.below(arrived.min(self.buffer_size));
        let bytes = self.net.with(fd, |socket| socket.to_server.drain(..len).collect());
        self.filled.insert(buffer, bytes.unwrap_or_default());
        let once = self.table[key.slot as usize].as_ref().is_some_and(|of| of.once);
        let more = !once && !self.dice.chance(self.faults.silent_end);
        if !more {
            self.receiving.remove(&key.slot);
        }
        self.complete(Op::Receive, key, length(len), more, Some(buffer));
    }
}
