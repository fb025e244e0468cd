//! Attacks by clients that know the public key of an app, most without a signature: a test each, on
//! the real process, with the bound that holds for all other clients. The tests run one after the
//! other, in a binary of their own, because a neighbour would blur their measurements. They judge
//! bytes, counts and ratios of rounds that alternate, because the machine has other work to do.

#![allow(unreachable_pub, reason = "modules of one binary have no public surface")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lint table excepts test functions, this excepts what they call"
)]

/// One connection that makes the process hold or send much more than it sent.
mod amplification;
/// Connections that idle where requests and new connections need descriptors.
mod descriptors;
/// Thousands of subscriptions that end at once.
mod ends;
/// Connections that ask for more than their share of a turn.
mod fairness;
/// Everything that clients can make the process hold, under a limit of memory by the kernel.
mod memory;
/// Subscribers that never read, and what the kernel holds for them.
mod slow_readers;
/// Requests without a signature.
mod unsigned;

/// The bystanders, and floods beside them.
mod bystander;

// The processes that the tests start, and the clients that they use.
#[allow(dead_code, reason = "shared with the tests of `it`, which use the rest")]
#[path = "../support/mod.rs"]
mod support;

use support::{client, frames, gateway, http, left_out, memory_limit_group, raw, sign};

/// Held by a test while it runs.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Waits until no other test runs. A test that failed does not block the others.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
