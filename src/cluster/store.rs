//! The connections to Redis, as the [driver](super::driver) uses them: one to write and one to read
//! for each partition. Tests connect to a model instead.

use bytes::Bytes;

use super::wire::{CallKind, Entered, Entrance, NodeId};

/// Everything of a call but its commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallHead {
    /// The node that calls.
    pub(crate) node: NodeId,
    /// The epoch of the partition, as of the last entrance.
    pub(crate) epoch: Box<str>,
    /// The kind of the call.
    pub(crate) kind: CallKind,
    /// Its number.
    pub(crate) number: u64,
    /// The duration of a lease in milliseconds.
    pub(crate) lease_ms: u64,
    /// The time in milliseconds for which the inbox of a silent node is kept behind its lease.
    pub(crate) retention_ms: u64,
    /// The unread bytes of an inbox above which it is cut.
    pub(crate) inbox_bytes: u64,
}

/// The answer to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Executed {
    /// The call was executed, now or before.
    Done,
    /// Nothing was executed: the node has to enter first.
    Enter,
}

/// The connections of one partition.
#[derive(Debug)]
pub(crate) struct Connection<W, R> {
    /// The end for entrances and calls.
    pub(crate) writer: W,
    /// The end for the inbox.
    pub(crate) reader: R,
    /// The `run_id` of the server; empty if it does not tell.
    pub(crate) run_id: Box<str>,
}

/// Makes connections.
pub(crate) trait Connector {
    /// The end for entrances and calls.
    type Writer: Writer<Error = Self::Error>;
    /// The end for the inbox.
    type Reader: Reader<Error = Self::Error>;
    /// The reason why Redis cannot be used, for the operator.
    type Error: std::error::Error + 'static;

    /// Connects to the server of a partition.
    ///
    /// # Errors
    /// The server cannot be reached or does not let the node in.
    async fn connect(
        &self,
        partition: u16,
    ) -> Result<Connection<Self::Writer, Self::Reader>, Self::Error>;
}

/// The end of a connection for entrances and calls. After an error it is not used again.
pub(crate) trait Writer {
    /// The reason why the server did not answer.
    type Error;

    /// Introduces the node.
    ///
    /// # Errors
    /// The server did not answer, or refuses the node.
    async fn enter(&mut self, node: NodeId, entrance: &Entrance) -> Result<Entered, Self::Error>;

    /// Has commands executed.
    ///
    /// # Errors
    /// The server did not answer; the commands may have been executed.
    async fn call(&mut self, head: &CallHead, args: &[Bytes]) -> Result<Executed, Self::Error>;
}

/// The end of a connection for the inbox. After an error it is not used again.
pub(crate) trait Reader {
    /// The reason why the server did not answer.
    type Error;

    /// Waits for entries of the node's inbox behind `after`, and returns them with their ids. May
    /// return none, after a while.
    ///
    /// # Errors
    /// The server did not answer.
    async fn read(
        &mut self,
        node: NodeId,
        after: &str,
    ) -> Result<Vec<(Box<str>, Bytes)>, Self::Error>;
}
