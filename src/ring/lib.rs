//! Floor 1. The lower half of the plane: sockets by slot, operations, completions. The trait
//! [`Ring`] separates the plane from the kernel, and carries the contract. [`Uring`] is Linux's
//! `io_uring`, with the unsafe code of the data plane; the thread that drives it also sleeps in it.
//! `sim::SimRing` is a simulated kernel that injects faults, so that the plane's real code runs
//! under both.
//!
//! This is a package of its own, which the gateway has as its module `ring` and the load generator
//! uses as well. Two features add code that the server does not need: `sim` adds the simulated
//! kernel, for tests and simulations, and `accept` adds an accept through the ring, for benches.

mod buffers;
#[cfg(any(debug_assertions, feature = "sim"))]
mod contract;
mod narrow;
mod ring;
#[cfg(feature = "sim")]
pub mod sim;
mod sockets;
mod uring;

pub use ring::{Completion, ConnKey, ListenerId, Op, QueueFull, Ring, SendRefused, Staged};
pub use uring::{Listening, Uring, UringSizes};
