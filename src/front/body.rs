//! Request bodies: collected whole, within a size, a time and the shard's memory for all of them.
//!
//! Only a body whose digest is signed is collected ([`receive`]). Any other body is read only to
//! find its end ([`discard`]), because the next request begins behind it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::pace::Pace;

/// Bytes of bodies that a shard may hold at a time. Counted as they arrive: what a head only
/// announces costs nothing.
#[derive(Clone, Debug)]
pub(super) struct BodyBudget {
    free: Rc<Cell<usize>>,
}

impl BodyBudget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { free: Rc::new(Cell::new(bytes_max)) }
    }
}

/// A body, and its share of the budget until dropped. The default is no body.
#[derive(Debug, Default)]
pub(super) struct Received {
    bytes: Vec<u8>,
    _held: Option<Held>,
}

impl Received {
    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreceived {
    /// Larger than the app allows, announced or sent.
    TooLarge,
    /// Not there in time.
    TooSlow,
    /// The shard holds too many bodies.
    OverBudget,
    /// Malformed chunks, or the connection ended: there is nobody left to answer.
    Broken,
}

/// The bytes that the head of a request announces: none where chunks follow, which tell their
/// lengths themselves. A body that announces too many is to be refused before any of it is asked
/// for (no `100 Continue`).
pub(super) fn announced(body: &Incoming) -> usize {
    usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX)
}

/// Reads and keeps a body of at most `bytes_max` bytes.
pub(super) async fn receive(
    body: &mut Incoming,
    bytes_max: usize,
    pace: &Pace,
    time_max: Duration,
    budget: &BodyBudget,
) -> Result<Received, Unreceived> {
    let collected = collect(body, bytes_max, budget);
    pace.within(time_max, collected).await.unwrap_or(Err(Unreceived::TooSlow))
}

/// Reads a body of at most `bytes_max` bytes and keeps nothing of it, so that the request behind it
/// begins where it ends. Returns how many bytes it had.
pub(super) async fn discard(
    body: &mut Incoming,
    bytes_max: usize,
    pace: &Pace,
    time_max: Duration,
) -> Result<usize, Unreceived> {
    let discarded = async {
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Unreceived::Broken)?;
            bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
            if bytes > bytes_max {
                return Err(Unreceived::TooLarge);
            }
        }
        Ok(bytes)
    };
    pace.within(time_max, discarded).await.unwrap_or(Err(Unreceived::TooSlow))
}

async fn collect(
    body: &mut Incoming,
    bytes_max: usize,
    budget: &BodyBudget,
) -> Result<Received, Unreceived> {
    let mut bytes = Vec::with_capacity(announced(body).min(FIRST_BYTES));
    let mut held = Held { free: Rc::clone(&budget.free), bytes: 0 };
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Unreceived::Broken)?;
        // Trailers mean nothing here.
        let Some(chunk) = frame.data_ref() else { continue };
        if chunk.len() > bytes_max - bytes.len() {
            return Err(Unreceived::TooLarge);
        }
        held.add(chunk.len())?;
        bytes.extend_from_slice(chunk);
    }
    Ok(Received { bytes, _held: Some(held) })
}

/// Bytes taken from the budget, given back when dropped.
#[derive(Debug)]
struct Held {
    free: Rc<Cell<usize>>,
    bytes: usize,
}

impl Held {
    fn add(&mut self, bytes: usize) -> Result<(), Unreceived> {
        let free = self.free.get().checked_sub(bytes).ok_or(Unreceived::OverBudget)?;
        self.free.set(free);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.free.set(self.free.get() + self.bytes);
    }
}

/// Usual bodies are smaller; larger ones grow as they arrive.
const FIRST_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dropped_body_held_is_free_again_and_never_more() {
        let budget = BodyBudget::new(100);
        let held = |bytes| {
            let mut held = Held { free: Rc::clone(&budget.free), bytes: 0 };
            held.add(bytes).map(|()| held)
        };
        let first = held(60).unwrap();
        assert_eq!(held(41).unwrap_err(), Unreceived::OverBudget);
        let second = held(40).unwrap();
        assert_eq!(budget.free.get(), 0);
        drop((first, second));
        assert_eq!(budget.free.get(), 100);
    }
}
