//! Floor 2. The mailboxes between shards: one bounded lock-free mailbox per shard, and an eventfd
//! that is written only while its owner sleeps.
//!
//! Contract:
//! - [`Port::send`] never blocks and never drops. A message that does not fit into a full mailbox
//!   waits in a spill of its destination and is retried at each [`Port::flush`]; the order per pair
//!   of sender and receiver is kept.
//! - While anything is spilled ([`Port::spilling`]) the owner takes no new input from the network,
//!   so a spill is bounded by the input that was already inside. The owner goes on receiving, so
//!   two shards with full mailboxes cannot hold each other up for ever.
//! - [`Outside`], the control thread's way in, never blocks either: a message that finds a mailbox
//!   full waits in order, and of each variant only the newest one waits.
//! - Before it sleeps, the owner calls [`Port::sleep`] and sleeps only on `true`; a message that
//!   arrives afterwards writes the eventfd.

mod outside;
mod peer;
mod port;
mod sync;
mod wake;

pub use outside::Outside;
pub(crate) use port::MAILBOX_MESSAGES;
pub use port::Port;
#[cfg(any(test, loom, feature = "testing"))]
pub use port::connect;
pub use port::connect_beside;
