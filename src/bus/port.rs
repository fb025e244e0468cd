//! One shard's end of the bus.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, TrySendError, bounded};

use crate::id::ShardId;
use crate::memory::Trim;

use super::outside::Outside;
use super::peer::Peer;
use super::wake::Wake;

/// The number of messages that fit into one mailbox. Enough for the publishes that a shard hands on
/// between two turns of a busy neighbour; more would only delay back-pressure. A mailbox is
/// allocated once, with about 1 MiB.
pub(crate) const MAILBOX_MESSAGES: usize = 8192;

/// Connects `shards` shards with each other. The port at index `i` belongs on shard `i`'s thread.
///
/// # Errors
/// No eventfd could be made (file descriptors ran out).
#[cfg(any(test, loom, feature = "testing"))]
pub fn connect<M: Send>(shards: u16, capacity: usize) -> io::Result<Vec<Port<M>>> {
    connect_beside(shards, 0, capacity)
}

/// Connects `shards` shards and `others` with each other. The others are threads that speak with
/// shards as shards do among themselves; their ids and ports follow those of the shards, and
/// [`Outside`] does not send to them.
///
/// # Errors
/// No eventfd could be made (file descriptors ran out).
pub fn connect_beside<M: Send>(
    shards: u16,
    others: u16,
    capacity: usize,
) -> io::Result<Vec<Port<M>>> {
    let mut peers = Vec::new();
    let mut inboxes = Vec::new();
    let all = shards.saturating_add(others);
    for _ in 0..all {
        let (sender, receiver) = bounded(capacity);
        peers.push(Peer { mailbox: sender, wake: Wake::new()? });
        inboxes.push(receiver);
    }
    let peers: Arc<[Peer<M>]> = peers.into();
    let port = |(index, inbox)| Port {
        id: ShardId(index),
        shards,
        inbox,
        own: VecDeque::new(),
        spills: peers.iter().map(|_| VecDeque::new()).collect(),
        spilled: 0,
        spillings: 0,
        to_wake: vec![false; peers.len()],
        peers: Arc::clone(&peers),
    };
    Ok((0..all).zip(inboxes).map(port).collect())
}

/// One shard's end of the bus, for the shard's thread.
///
/// In a turn the owner takes messages with [`receive`](Self::receive), sends others with
/// [`send`](Self::send), and calls [`flush`](Self::flush), which wakes their receivers. While
/// [`spilling`](Self::spilling) returns `true`, it takes no new input from the network. Before the
/// owner sleeps on [`wake_fd`](Self::wake_fd), it calls [`sleep`](Self::sleep), and sleeps only if
/// that returns `true`. Afterwards it calls [`awake`](Self::awake).
#[derive(Debug)]
pub struct Port<M> {
    /// The shard whose port this is, or the id of another thread behind those of the shards.
    id: ShardId,
    /// The number of shards.
    shards: u16,
    /// Messages from other shards.
    inbox: Receiver<M>,
    /// Messages that this shard sent to itself.
    own: VecDeque<M>,
    /// Messages that did not fit into a mailbox, by destination, oldest first.
    spills: Box<[VecDeque<M>]>,
    /// The sum of the lengths of `spills`.
    spilled: usize,
    /// The number of messages that have waited in a spill so far.
    spillings: u64,
    /// Whether a message went into a mailbox since the last flush, by destination.
    to_wake: Vec<bool>,
    /// The mailboxes and wake-ups of all shards, by id.
    peers: Arc<[Peer<M>]>,
}

impl<M: Send> Port<M> {
    /// The shard whose port this is.
    #[must_use]
    pub const fn id(&self) -> ShardId {
        self.id
    }

    /// The number of shards.
    #[must_use]
    pub(crate) const fn shards(&self) -> u16 {
        self.shards
    }

    /// Sends to one shard, itself included. The receiver is woken by the next
    /// [`flush`](Self::flush).
    pub fn send(&mut self, to: ShardId, message: M) {
        if let Err(message) = self.try_send(to, message) {
            self.spills[to.index()].push_back(message);
            self.spilled += 1;
            self.spillings += 1;
        }
    }

    /// Sends as [`send`](Self::send) does, but never through a spill. Other senders fill the
    /// mailbox at the same time, so only an attempt shows whether it has room.
    ///
    /// # Errors
    /// The mailbox has no room, or earlier messages wait for room. The error returns the message.
    pub(crate) fn try_send(&mut self, to: ShardId, message: M) -> Result<(), M> {
        if to == self.id {
            self.own.push_back(message);
            return Ok(());
        }
        let index = to.index();
        if !self.spills[index].is_empty() {
            return Err(message);
        }
        match self.peers[index].mailbox.try_send(message) {
            Ok(()) => self.to_wake[index] = true,
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => {
                return Err(message);
            }
        }
        Ok(())
    }

    /// The next message for this shard: its own first, then the mailbox's.
    pub fn receive(&mut self) -> Option<M> {
        self.own.pop_front().or_else(|| self.inbox.try_recv().ok())
    }

    /// The next message that this shard sent to itself.
    pub(crate) fn receive_own(&mut self) -> Option<M> {
        self.own.pop_front()
    }

    /// Retries spilled messages, then wakes the receivers that sleep.
    pub fn flush(&mut self) {
        if self.spilled > 0 {
            for index in 0..self.peers.len() {
                self.retry(index);
            }
        }
        for (peer, to_wake) in self.peers.iter().zip(&mut self.to_wake) {
            if std::mem::take(to_wake) {
                peer.wake.notify();
            }
        }
    }

    fn retry(&mut self, index: usize) {
        while let Some(message) = self.spills[index].pop_front() {
            match self.peers[index].mailbox.try_send(message) {
                Ok(()) => {
                    self.spilled -= 1;
                    self.to_wake[index] = true;
                }
                Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => {
                    self.spills[index].push_front(message);
                    return;
                }
            }
        }
    }

    /// Gives memory back that a burst has left.
    pub(crate) fn trim(&mut self) {
        self.own.trim();
        for spill in self.spills.iter_mut().filter(|spill| spill.is_empty()) {
            // There is one spill per shard, and a healthy shard uses none of them.
            *spill = VecDeque::new();
        }
    }

    /// The bytes that its lists hold, without the mailbox.
    #[cfg(feature = "testing")]
    #[must_use]
    pub(crate) fn room(&self) -> usize {
        self.own.room() + self.spills.iter().map(Trim::room).sum::<usize>()
    }

    /// Whether a message waits for room in a mailbox. No new input may be taken meanwhile.
    #[must_use]
    pub const fn spilling(&self) -> bool {
        self.spilled > 0
    }

    /// Whether another shard is behind with its messages: its mailbox is filled to more than an
    /// eighth. It looks at each mailbox.
    #[must_use]
    pub(crate) fn congested(&self) -> bool {
        let behind = |peer: &Peer<M>| {
            peer.mailbox.capacity().is_some_and(|most| peer.mailbox.len() > most / 8)
        };
        self.spilling() || self.peers.iter().any(behind)
    }

    /// The number of messages in the mailbox of this shard.
    #[must_use]
    pub(crate) fn waiting(&self) -> usize {
        self.inbox.len()
    }

    /// The number of messages that ever had to wait for room.
    #[must_use]
    pub(crate) const fn spillings(&self) -> u64 {
        self.spillings
    }

    /// Whether no message waits for this shard, and every receiver has been woken for the messages
    /// that it was sent.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.inbox.is_empty()
            && self.own.is_empty()
            && self.spilled == 0
            && !self.to_wake.contains(&true)
    }

    /// Announces that the owner sleeps. Returns `false` if a message is there already: then the
    /// owner must not sleep.
    #[must_use]
    pub fn sleep(&self) -> bool {
        let wake = &self.peers[self.id.index()].wake;
        wake.sleep();
        let quiet = self.inbox.is_empty() && self.own.is_empty();
        if !quiet {
            wake.awake();
        }
        quiet
    }

    /// Announces that the owner runs again.
    pub fn awake(&self) {
        self.peers[self.id.index()].wake.awake();
    }

    /// The eventfd that is written when a message arrives while the owner sleeps. It is never read,
    /// so each write has to be an edge to whatever watches it.
    #[must_use]
    pub fn wake_fd(&self) -> BorrowedFd<'_> {
        self.peers[self.id.index()].wake.fd()
    }

    /// A sender for threads that are not shards.
    #[must_use]
    pub fn outside(&self) -> Outside<M> {
        Outside::new(Arc::clone(&self.peers), self.shards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_spills_and_keeps_the_order() {
        let mut ports = connect::<u32>(2, 4).unwrap();
        let mut receiver = ports.pop().unwrap();
        let mut sender = ports.pop().unwrap();
        for n in 0..10 {
            sender.send(ShardId(1), n);
        }
        assert!(sender.spilling());
        let mut received = Vec::new();
        while received.len() < 10 {
            sender.flush();
            received.extend(std::iter::from_fn(|| receiver.receive()));
        }
        assert_eq!(received, (0..10).collect::<Vec<_>>());
        assert!(!sender.spilling());
    }

    #[test]
    fn two_shards_with_full_mailboxes_do_not_lock_each_other() {
        let mut ports = connect::<u32>(2, 1).unwrap();
        for n in 0..50 {
            ports[0].send(ShardId(1), n);
            ports[1].send(ShardId(0), n);
        }
        let mut seen = [0, 0];
        while ports[0].spilling() || ports[1].spilling() || seen != [50, 50] {
            for (port, seen) in ports.iter_mut().zip(&mut seen) {
                while let Some(n) = port.receive() {
                    assert_eq!(n, *seen);
                    *seen += 1;
                }
                port.flush();
            }
        }
    }

    #[test]
    fn the_eventfd_is_written_only_while_the_owner_sleeps() {
        let mut ports = connect::<u32>(2, 4).unwrap();
        let mut receiver = ports.pop().unwrap();
        let mut sender = ports.pop().unwrap();
        sender.send(ShardId(1), 1);
        sender.flush();
        assert!(!receiver.peers[1].wake.take_written(), "awake: nothing to write");
        assert!(!receiver.sleep(), "a message is there");
        assert_eq!(receiver.receive(), Some(1));
        assert!(receiver.sleep());
        sender.send(ShardId(1), 2);
        sender.flush();
        assert!(receiver.peers[1].wake.take_written());
        sender.send(ShardId(1), 3);
        sender.flush();
        assert!(!receiver.peers[1].wake.take_written(), "one write wakes it");
    }

    #[test]
    fn a_thread_beside_the_shards_is_a_peer_but_hears_nothing_from_outside() {
        let mut ports = connect_beside::<u32>(2, 1, 4).unwrap();
        let mut beside = ports.pop().unwrap();
        assert_eq!((beside.id(), beside.shards()), (ShardId(2), 2));
        ports[0].outside().broadcast(|| 7);
        assert_eq!((ports[1].receive(), beside.receive()), (Some(7), None));
        ports[1].send(ShardId(2), 1);
        beside.send(ShardId(0), 2);
        assert_eq!((beside.receive(), ports[0].receive()), (Some(1), Some(7)));
        assert_eq!(ports[0].receive(), Some(2));
    }

    #[test]
    fn a_message_to_oneself_needs_no_mailbox() {
        let mut port = connect::<u32>(1, 1).unwrap().remove(0);
        for n in 0..5 {
            port.send(ShardId(0), n);
        }
        assert!(!port.spilling());
        assert_eq!(std::iter::from_fn(|| port.receive()).count(), 5);
    }
}
