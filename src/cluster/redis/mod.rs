//! The connections of a node to the Redis of its cluster.
//!
//! A [`Connector`] finds the server that has a partition, whichever kind of Redis it is, and makes
//! a connection: a [`Writer`](writer::Writer) for calls and a [`Reader`](reader::Reader) for the
//! inbox. Each has a socket of its own, because a read that waits holds up everything behind it on
//! its socket.
//!
//! Nothing here connects again. The owner of a connection drops it upon any error and asks the
//! connector for another one, because a node has to enter anew behind every reconnection.
//! While they ask something, both halves notice within [five seconds](link::SILENCE_MAX) that
//! nothing comes back.
//!
//! - [`peer`], [`socket`], [`tls`]: addresses, and the bytes to and from them
//! - [`link`], [`progress`]: requests and answers over one socket, as long as its bytes move
//! - [`identity`]: what a server tells about itself
//! - [`connector`]: the login, and the way to the server that has a partition
//! - [`writer`], [`reader`]: the two halves of a connection
//! - [`error`], [`call_error`]: what can go wrong, as the operator reads it
//! - [`acl`], [`mod@probe`]: the rights that a node needs, and the proof that it has them

mod acl;
mod call_error;
mod connector;
mod error;
mod identity;
mod keys;
mod link;
mod peer;
mod probe;
mod progress;
mod reader;
mod script;
mod socket;
mod tls;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use connector::Connector;
pub(crate) use error::RedisError;
pub(crate) use probe::probe;
