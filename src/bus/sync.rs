//! The atomics and the lock of the bus. The models of `tests/loom` are compiled with `--cfg loom`
//! and bring their own, with which loom tries every order that the memory model allows.

#[cfg(loom)]
pub(super) use ringwave_loom::sync::{AtomicBool, Mutex, MutexGuard, Ordering, fence};
#[cfg(not(loom))]
pub(super) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering, fence},
};
