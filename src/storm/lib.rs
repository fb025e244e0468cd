//! The load generator behind `ringwave storm`: many clients of any server that speaks the Pusher
//! protocol. It uses the ring (`ringwave-ring`) and nothing of the gateway, so that it judges the
//! gateway as any other server and costs far less than what it measures.
//!
//! Its figures rest on these rules:
//! - Every message carries a `stamp`: who sent it, the how-manieth it is, and when it was *meant*
//!   to be sent. Latency is counted from there, so that a server (or a storm) that falls behind its
//!   schedule shows it: free of coordinated omission.
//! - Every subscriber keeps a `sequence` per sender: what was lost, came twice or came late is
//!   counted, not guessed. The closing state waits until nothing is owed or the grace is over.
//! - A connection is a socket in a ring's own file table, a record of a hundred bytes and, while a
//!   frame is cut, the piece of it. Frames are not parsed further than to their stamp, masks are
//!   zero (RFC 6455 allows any), and nothing is allocated per message.
//!
//! How it runs: [`run`] conducts on the caller's thread; each ring has a thread of its own
//! (`subscriber`), and all publishers share one more (`publisher`). They meet in `shared`
//! only: a stage that the conductor sets, and counters that it samples.

mod answer;
mod clock;
mod conduct;
mod frames;
mod host;
mod outcome;
mod plan;
mod publisher;
mod report;
mod schedule;
mod sequence;
mod shared;
mod signature;
mod stamp;
mod subscriber;
mod target;
mod wire;

pub use conduct::{StormError, run};
pub use outcome::{Outcome, Sample};
pub use plan::{Kind, Plan, PlanError, Room, Scenario, Sources};
pub use report::html;
pub use target::{Target, TargetError};
