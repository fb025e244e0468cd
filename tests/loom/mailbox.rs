//! A bounded queue of many senders and one receiver, after the one of `crossbeam-channel`: a sender
//! takes a position by moving `tail`, writes the message there, and stamps the place; the receiver
//! looks for the stamp.
//!
//! It promises less order than crossbeam does: positions are moved and looked at with relaxed
//! operations, where crossbeam has sequentially consistent ones. A lock around a queue would
//! promise more, and hide the fences that `Wake` needs.

use std::sync::{Arc, Mutex, TryLockError};

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Debug)]
struct Queue<T> {
    /// The next position to send to, free running.
    tail: AtomicUsize,
    /// The next position to receive from, free running. Written by the receiver alone.
    head: AtomicUsize,
    places: Box<[Place<T>]>,
    disconnected: AtomicBool,
}

impl<T> Queue<T> {
    fn len(&self) -> usize {
        self.tail.load(Ordering::Relaxed).saturating_sub(self.head.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct Place<T> {
    /// Twice the position that may be sent to this place, and 1 more once it may be received.
    stamp: AtomicUsize,
    /// The message, behind a lock that is never waited for: the stamp decides who owns the place.
    message: Mutex<Option<T>>,
}

impl<T> Place<T> {
    fn with<R>(&self, use_it: impl FnOnce(&mut Option<T>) -> R) -> R {
        match self.message.try_lock() {
            Ok(mut message) => use_it(&mut message),
            Err(TryLockError::WouldBlock) => panic!("a place of the mailbox has two owners"),
            Err(TryLockError::Poisoned(_)) => panic!("an owner of the place has panicked"),
        }
    }
}

#[derive(Debug)]
pub struct Sender<T>(Arc<Queue<T>>);

#[derive(Debug)]
pub struct Receiver<T>(Arc<Queue<T>>);

/// The message was not sent, and is returned.
#[derive(Debug)]
pub enum TrySendError<T> {
    Full(T),
    Disconnected(T),
}

/// There is no message.
#[derive(Debug)]
pub struct TryRecvError;

pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let place =
        |position| Place { stamp: AtomicUsize::new(2 * position), message: Mutex::new(None) };
    let queue = Arc::new(Queue {
        tail: AtomicUsize::new(0),
        head: AtomicUsize::new(0),
        places: (0..capacity).map(place).collect(),
        disconnected: AtomicBool::new(false),
    });
    (Sender(Arc::clone(&queue)), Receiver(queue))
}

impl<T> Sender<T> {
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let queue = &*self.0;
        if queue.disconnected.load(Ordering::Relaxed) {
            return Err(TrySendError::Disconnected(message));
        }
        let mut tail = queue.tail.load(Ordering::Relaxed);
        loop {
            let place = &queue.places[tail % queue.places.len()];
            let stamp = place.stamp.load(Ordering::Acquire);
            if stamp == 2 * tail {
                let order = (Ordering::Relaxed, Ordering::Relaxed);
                match queue.tail.compare_exchange(tail, tail + 1, order.0, order.1) {
                    Ok(_) => {
                        place.with(|there| *there = Some(message));
                        place.stamp.store(2 * tail + 1, Ordering::Release);
                        return Ok(());
                    }
                    Err(moved) => tail = moved,
                }
            } else if stamp < 2 * tail {
                // The place still holds a message of the round before.
                return Err(TrySendError::Full(message));
            } else {
                tail = queue.tail.load(Ordering::Relaxed);
            }
        }
    }
}

impl<T> Sender<T> {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn capacity(&self) -> Option<usize> {
        Some(self.0.places.len())
    }
}

impl<T> Receiver<T> {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let queue = &*self.0;
        let head = queue.head.load(Ordering::Relaxed);
        let place = &queue.places[head % queue.places.len()];
        if place.stamp.load(Ordering::Acquire) != 2 * head + 1 {
            return Err(TryRecvError);
        }
        let message = place.with(Option::take).expect("a stamped place has a message");
        place.stamp.store(2 * (head + queue.places.len()), Ordering::Release);
        queue.head.store(head + 1, Ordering::Relaxed);
        Ok(message)
    }

    /// Like crossbeam's, this counts a message that is still being written.
    pub fn is_empty(&self) -> bool {
        let queue = &*self.0;
        queue.head.load(Ordering::Relaxed) == queue.tail.load(Ordering::Relaxed)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.0.disconnected.store(true, Ordering::Relaxed);
    }
}
