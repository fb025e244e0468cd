//! The half of a connection that calls the scripts.

use ::redis::Value;
use bytes::Bytes;

use super::call_error::CallError;
use super::keys::Keys;
use super::link::Link;
use super::script::HashedScript;
use crate::cluster::wire::{CallKind, Entered, Entrance, NodeId};

/// The half of a connection that calls the scripts. After an error it is of no use any more.
#[derive(Debug)]
pub(crate) struct Writer {
    link: Link,
    keys: Keys,
    enter: HashedScript,
    call: HashedScript,
}

/// The arguments of a call in front of its commands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallHead<'a> {
    /// The node.
    pub(crate) node: NodeId,
    /// The epoch that the node entered.
    pub(crate) epoch: &'a str,
    /// The kind of the call.
    pub(crate) kind: CallKind,
    /// Its number.
    pub(crate) number: u64,
    /// The duration of a lease in milliseconds.
    pub(crate) lease_ms: u64,
    /// The time in milliseconds for which an inbox is kept behind the lease of its node.
    pub(crate) retention_ms: u64,
    /// The bytes of unread records that an inbox holds at most.
    pub(crate) inbox_bytes: u64,
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Executed {
    /// It was executed, now or before.
    Done,
    /// Nothing was executed: the node has to enter first.
    Enter,
}

impl Writer {
    pub(super) const fn new(
        link: Link,
        keys: Keys,
        enter: HashedScript,
        call: HashedScript,
    ) -> Self {
        Self { link, keys, enter, call }
    }

    /// The link, for other requests than calls.
    pub(super) const fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// Introduces the node.
    ///
    /// # Errors
    /// The cluster has another number of partitions ([`CallError::Partitions`]), or there is no
    /// usable answer.
    pub(crate) async fn enter(
        &mut self,
        node: NodeId,
        entrance: &Entrance,
    ) -> Result<Entered, CallError> {
        let mut args = self.introduction(node);
        entrance.push_args(&mut args);
        let answer = self.enter.run(&mut self.link, &self.keys.nodes(), &args).await?;
        let elements = elements_of(answer);
        elements.as_deref().and_then(Entered::of).ok_or(CallError::Unreadable("the entrance"))
    }

    /// Calls the script with a batch of commands, given as their arguments.
    ///
    /// # Errors
    /// There is no usable answer. Whether the batch was executed is not known then.
    pub(crate) async fn call(
        &mut self,
        head: &CallHead<'_>,
        commands: Vec<Bytes>,
    ) -> Result<Executed, CallError> {
        let mut args = self.introduction(head.node);
        head.push_args(&mut args);
        args.extend(commands);
        match self.call.run(&mut self.link, &self.keys.nodes(), &args).await? {
            Value::SimpleString(answer) => Executed::of(answer.as_bytes()),
            Value::BulkString(answer) => Executed::of(&answer),
            _ => None,
        }
        .ok_or(CallError::Unreadable("a call"))
    }

    fn introduction(&self, node: NodeId) -> Vec<Bytes> {
        vec![self.keys.tag().clone(), node.to_string().into()]
    }
}

impl CallHead<'_> {
    fn push_args(&self, out: &mut Vec<Bytes>) {
        let kind = char::from(self.kind.letter()).to_string();
        let Self { epoch, number, lease_ms, retention_ms, inbox_bytes, .. } = self;
        out.extend([Bytes::copy_from_slice(epoch.as_bytes()), kind.into()]);
        let numbers = [number, lease_ms, retention_ms, inbox_bytes];
        out.extend(numbers.map(|number| Bytes::from(number.to_string())));
    }
}

impl Executed {
    fn of(answer: &[u8]) -> Option<Self> {
        match answer {
            b"done" => Some(Self::Done),
            b"enter" => Some(Self::Enter),
            _ => None,
        }
    }
}

/// The elements of a list; `None` if it is none, or has other elements than texts and numbers.
fn elements_of(answer: Value) -> Option<Vec<Bytes>> {
    let Value::Array(elements) = answer else { return None };
    let element = |value| match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into()),
        Value::Int(number) => Some(number.to_string().into()),
        _ => None,
    };
    elements.into_iter().map(element).collect()
}
