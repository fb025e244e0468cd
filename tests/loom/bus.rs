//! The bus as it is in `src/bus`, with loom's atomics and lock, and with a mailbox that loom can
//! see into: `crossbeam-channel` cannot be built on loom.

// `src/bus` and `src/id.rs` import the mailbox, atomics and a type from these names.
extern crate self as crossbeam_channel;
extern crate self as ringwave_loom;
extern crate self as ringwave_ring;

#[path = "../../src/bus/mod.rs"]
#[allow(dead_code, reason = "only the gateway uses all of it")]
pub mod bus;
#[path = "../../src/id.rs"]
#[allow(dead_code, reason = "only the gateway uses all of it")]
pub mod id;
mod mailbox;

pub use mailbox::{Receiver, Sender, TrySendError, bounded};

/// The type that `src/id.rs` takes from the package of the ring. The bus does not use it.
#[derive(Debug)]
pub struct ConnKey;

/// The functions that the bus takes from `src/memory`, whose calls of the allocator have no place
/// in a model.
mod memory {
    use std::collections::VecDeque;

    pub trait Trim {
        fn trim(&mut self);
        fn room(&self) -> usize;
    }

    impl<T> Trim for VecDeque<T> {
        fn trim(&mut self) {}

        fn room(&self) -> usize {
            self.capacity() * size_of::<T>()
        }
    }
}

/// The types that `src/bus/sync.rs` takes from here.
pub mod sync {
    pub use loom::sync::atomic::{Ordering, fence};
    pub use loom::sync::{Mutex, MutexGuard};

    /// loom's atomic, except that a store is a swap. loom keeps no order between a store and a swap
    /// of another thread that has read the value before it, although a swap follows right behind
    /// what it reads: it would let a sender, whose swap came too early, read its own `false` again
    /// instead of the owner's `true` behind it. A relaxed swap synchronises no more than a store.
    #[derive(Debug)]
    pub struct AtomicBool(loom::sync::atomic::AtomicBool);

    impl AtomicBool {
        pub fn new(value: bool) -> Self {
            Self(loom::sync::atomic::AtomicBool::new(value))
        }

        pub fn load(&self, order: Ordering) -> bool {
            self.0.load(order)
        }

        pub fn store(&self, value: bool, order: Ordering) {
            self.0.swap(value, order);
        }

        pub fn swap(&self, value: bool, order: Ordering) -> bool {
            self.0.swap(value, order)
        }
    }
}
