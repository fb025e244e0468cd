//! All tests that start the process or open real sockets: one binary, a module per subject.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lint table excepts test functions, this excepts what they call"
)]

/// The host: what keeps the process from running, and how it says so.
mod host;

/// The load generator, against the gateway.
mod storm;
