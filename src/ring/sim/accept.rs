//! The accepts of the simulated kernel, and the ways in which they end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::rc::Rc;

use super::{Accepting, Installed, SimNet, SimRing};
use crate::ring::{ConnKey, ListenerId, Op};

/// A listening socket: connections that wait to be accepted, with the addresses of their clients.
/// Rings that listen on clones of one compete for its connections.
#[derive(Clone, Debug, Default)]
pub struct SimListener(Rc<RefCell<VecDeque<Waiting>>>);

/// A connection that waits to be accepted: its number in the network and its client's address.
type Waiting = (RawFd, Option<IpAddr>);

impl SimListener {
    /// Makes a new connection to this socket. Returns its number in the network.
    #[must_use]
    pub fn connect(&self, net: &SimNet, client: Option<IpAddr>) -> RawFd {
        let fd = net.connect();
        self.0.borrow_mut().push_back((fd, client));
        fd
    }

    /// The number of connections that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.borrow().len()
    }

    fn accept(&self) -> Option<Waiting> {
        self.0.borrow_mut().pop_front()
    }
}

impl SimRing {
    pub(super) fn arm_accept(&mut self, listener: ListenerId, key: ConnKey) {
        self.accepting.insert(key.slot, Accepting { key, listener, stopping: false });
    }

    pub(super) fn stop_accept(&mut self, key: ConnKey) {
        if let Some(accept) = self.accepting.get_mut(&key.slot).filter(|of| of.key == key) {
            accept.stopping = true;
        }
    }

    /// Whether the accept would end.
    pub(super) fn accepts(&self, accept: &Accepting) -> bool {
        let listener = self.listeners[usize::from(accept.listener.0)].as_ref();
        accept.stopping || listener.is_some_and(|of| of.waiting() > 0)
    }

    pub(super) fn progress_accept(&mut self, slot: u32) {
        let Some(Accepting { key, listener, stopping }) = self.accepting.remove(&slot) else {
            return;
        };
        if self.dice.chance(self.faults.accept) {
            let errno = self.dice.one_of(&[
                libc::ECONNABORTED,
                libc::EAGAIN,
                libc::EMFILE,
                libc::ENFILE,
                libc::ENOMEM,
            ]);
            return self.accept_ended(key, -errno);
        }
        let socket = self.listeners[usize::from(listener.0)].as_ref();
        // A cancellation may find a connection that has just come.
        let looks = !stopping || self.dice.chance(300);
        let accepted = socket.filter(|_| looks).and_then(SimListener::accept);
        match accepted {
            Some((fd, peer)) => {
                self.table[slot as usize] = Some(Installed::new(fd));
                self.peers.insert(slot, peer);
                self.complete(Op::Accept, key, 0);
            }
            None if stopping => self.accept_ended(key, -libc::ECANCELED),
            None => {
                self.accepting.insert(slot, Accepting { key, listener, stopping });
            }
        }
    }

    fn accept_ended(&mut self, key: ConnKey, result: i32) {
        self.peers.insert(key.slot, None);
        self.complete(Op::Accept, key, result);
    }
}
