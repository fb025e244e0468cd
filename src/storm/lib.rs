//! The load generator behind `ringwave storm`: many clients of any server that speaks the Pusher
//! protocol. It uses the ring (`ringwave-ring`) and nothing of the gateway, so that it judges the
//! gateway as any other server and costs far less than what it measures.
//!
//! The figures rest on these rules:
//! - Every message carries a *stamp*: its sender, its number, and the time at which it was *meant*
//!   to be sent. Latency is counted from that time, so that a server (or a storm) that falls behind
//!   its schedule shows it. The figures are free of coordinated omission.
//! - Every subscriber keeps a *sequence* per sender. Messages that are lost, duplicated or
//!   reordered are counted, not guessed. At the end the storm waits until nothing is owed or the
//!   grace period is over.
//! - A message that any node accepts is owed to every connection that was subscribed at any node
//!   before it was sent, until that connection is cut. A message that was refused or left without
//!   a response is owed to nobody.
//! - A connection is a socket in a ring's own file table, a record of a hundred bytes and, while a
//!   frame is incomplete, its beginning. Frames are not parsed further than to their stamp, masks
//!   are zero (RFC 6455 allows any), and no message costs an allocation.
//!
//! # Threads
//! [`run`] conducts the storm on the caller's thread. Each ring of subscribers has a thread of its
//! own, and all publishers share one more. They meet in the shared state only: a stage that the
//! conductor sets, and counters that it samples.
//!
//! # Modules
//! Each module uses only modules of the rows below it, and its own children.
//!
//! | modules | contents |
//! |---|---|
//! | `conductor` | starts the threads, leads them from stage to stage, and sums up |
//! | `subscriber`, `publisher`, `report` | the two kinds of threads; the outcome as a page |
//! | `outcome` | figures and the verdict |
//! | `checkpoint`, `members`, `client_ring` | readings to compare; sockets on a ring |
//! | `shared` | the state that all threads share |
//! | `plan` | the numbers of a storm, checked against each other |
//! | `target` | the server, and the requests in its protocol |
//! | all others | values: channels, scenarios, stamps, sequences, schedules, latencies, frames |

mod channel;
mod checkpoint;
mod client_ring;
mod clock;
mod conductor;
mod counters;
mod duration_text;
mod error_text;
mod exempt;
mod frames;
mod gaps;
mod latency;
mod members;
mod outcome;
mod plan;
mod procfs;
mod publisher;
mod report;
mod response;
mod scenario;
mod schedule;
mod sequence;
mod shared;
mod signature;
mod source_addresses;
mod stamp;
mod subscriber;
mod target;

pub use channel::ChannelAccess;
pub use conductor::{StormError, run};
pub use members::MemberFigures;
pub use outcome::{Sample, StormOutcome};
pub use plan::{HostLimits, PlanError, StormPlan};
pub use report::html;
pub use scenario::Scenario;
pub use source_addresses::{SourceAddresses, SourceAddressesError};
pub use target::{TargetError, TargetServer};
