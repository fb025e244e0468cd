//! The connections to Redis, as the [driver](super::driver) uses them: one to write and one to read
//! for each partition. Tests have others.

use std::error::Error;

use bytes::Bytes;

use super::redis::{self, CallHead, Executed};
use super::wire::{Entered, Entrance, NodeId};

/// The connections of one partition.
#[derive(Debug)]
pub(crate) struct Connection<W, R> {
    /// For entrances and calls.
    pub(crate) writer: W,
    /// For the inbox.
    pub(crate) reader: R,
    /// The `run_id` of the server; empty if it does not tell.
    pub(crate) run_id: Box<str>,
}

/// Makes connections.
pub(crate) trait Connector {
    /// The end for entrances and calls.
    type Writer: Writer;
    /// The end for the inbox.
    type Reader: Reader;
    /// The reason why the server cannot be used, for the operator.
    type Error: Error + 'static;

    /// Connects to the server of a partition.
    ///
    /// # Errors
    /// The server cannot be reached or used.
    async fn connect(
        &self,
        partition: u16,
    ) -> Result<Connection<Self::Writer, Self::Reader>, Self::Error>;
}

/// The end of a connection for entrances and calls. After an error it is not used again.
pub(crate) trait Writer {
    /// The reason why there is no answer, for the operator.
    type Error: Error + 'static;

    /// Introduces the node.
    ///
    /// # Errors
    /// There is no answer, or the node is refused.
    async fn enter(&mut self, node: NodeId, entrance: &Entrance) -> Result<Entered, Self::Error>;

    /// Has commands executed.
    ///
    /// # Errors
    /// There is no answer; the commands may have been executed.
    async fn call(
        &mut self,
        head: &CallHead<'_>,
        commands: Vec<Bytes>,
    ) -> Result<Executed, Self::Error>;
}

/// The end of a connection for the inbox. After an error it is not used again.
pub(crate) trait Reader {
    /// The reason why there is no answer, for the operator.
    type Error: Error + 'static;

    /// Waits for entries of the node's inbox behind `after`, and returns them with their ids; none
    /// after a while without any.
    ///
    /// # Errors
    /// There is no answer.
    async fn read(
        &mut self,
        node: NodeId,
        after: &str,
    ) -> Result<Vec<(Box<str>, Bytes)>, Self::Error>;
}

impl Connector for redis::Connector {
    type Writer = redis::Writer;
    type Reader = redis::Reader;
    type Error = redis::ConnectError;

    async fn connect(
        &self,
        partition: u16,
    ) -> Result<Connection<redis::Writer, redis::Reader>, redis::ConnectError> {
        let redis::Connection { writer, reader, run_id, .. } = self.connect(partition).await?;
        Ok(Connection { writer, reader, run_id })
    }
}

impl Writer for redis::Writer {
    type Error = redis::CallError;

    async fn enter(
        &mut self,
        node: NodeId,
        entrance: &Entrance,
    ) -> Result<Entered, redis::CallError> {
        self.enter(node, entrance).await
    }

    async fn call(
        &mut self,
        head: &CallHead<'_>,
        commands: Vec<Bytes>,
    ) -> Result<Executed, redis::CallError> {
        self.call(head, commands).await
    }
}

impl Reader for redis::Reader {
    type Error = redis::CallError;

    async fn read(
        &mut self,
        node: NodeId,
        after: &str,
    ) -> Result<Vec<(Box<str>, Bytes)>, redis::CallError> {
        self.read(node, after).await
    }
}
