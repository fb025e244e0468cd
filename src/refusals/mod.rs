//! Floor 3. The log lines about everything that is refused. Each cause has one warning per app and
//! minute, which says what came, what was expected, how to mend it, and how often it happened. Each
//! refused connection has a line beside that, up to ten a second of one cause.
//!
//! Contract:
//! - [`Refusals::note`] is called for each refusal, on the thread that refuses. The first refusal
//!   of a cause and app is logged at WARN. Those that follow are counted. Of these a connection or
//!   a handshake is logged at INFO, unless its cause has had [ten such lines](log::LINES_MAX) in
//!   this second. Everything else costs two relaxed loads and one relaxed addition: nothing is
//!   locked and nothing is formatted. (With `--debug` it is logged at DEBUG.)
//! - [`Refusals::log_counts`] is called by the control thread about once a second, and begins
//!   another second. When a minute is over, it logs the count and begins another minute. After a
//!   minute without refusals, the next refusal is logged at WARN again. So the threads that refuse
//!   read no clock.
//! - Memory is bounded whatever clients send: there is one counter per cause and *configured* app,
//!   and one per cause for refusals that belong to no app. No text of a client is kept.
//! - A sentence never holds a secret or a signature. Keys, which users mistake for secrets, are
//!   [shortened](crate::text::Shortened).
//!
//! All shards share one table, because the bounds on lines are bounds on the process. A table per
//! shard would give as many lines as there are cores.

mod cause;
mod client;
mod closed;
mod connection;
mod handshake;
mod log;
mod message;
mod phrases;
mod refusal;
mod request;

pub(crate) use client::RefusedClient;
pub(crate) use closed::ClosedWebSocket;
pub(crate) use connection::RefusedConnection;
pub(crate) use handshake::RefusedHandshake;
pub(crate) use log::Refusals;
pub(crate) use message::{MessageSubject, RefusedMessage};
pub(crate) use refusal::Refusal;
pub(crate) use request::{AnswerText, RefusedRequest, RefusedSignature};

#[cfg(test)]
mod tests;
