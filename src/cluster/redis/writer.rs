//! The half of a connection that calls the scripts.

use ::redis::Value;
use bytes::Bytes;

use super::call_error::CallError;
use super::error::RedisError;
use super::keys::Keys;
use super::link::Link;
use super::peer::Peer;
use super::script::HashedScript;
use crate::cluster::store::{self, CallHead, Executed};
use crate::cluster::wire::{self, Entered, Entrance, NodeId};

/// The half of a connection that calls the scripts. After an error it is of no use any more.
#[derive(Debug)]
pub(crate) struct Writer {
    peer: Peer,
    link: Link,
    keys: Keys,
    enter: HashedScript,
    call: HashedScript,
}

impl Writer {
    pub(super) const fn new(
        peer: Peer,
        link: Link,
        keys: Keys,
        enter: HashedScript,
        call: HashedScript,
    ) -> Self {
        Self { peer, link, keys, enter, call }
    }

    /// The address of the server.
    #[cfg(test)]
    pub(super) fn server(&self) -> String {
        super::peer::Bare(&self.peer.address).to_string()
    }

    /// The link, for other requests than calls.
    pub(super) const fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    fn introduction(&self, node: NodeId) -> Vec<Bytes> {
        vec![self.keys.tag().clone(), wire::id(node)]
    }

    fn failed(&self, cause: CallError) -> RedisError {
        RedisError::of_call(&self.peer, cause)
    }
}

impl store::Writer for Writer {
    type Error = RedisError;

    async fn enter(&mut self, node: NodeId, entrance: &Entrance) -> Result<Entered, RedisError> {
        let mut args = self.introduction(node);
        entrance.push_args(&mut args);
        let answer = self.enter.run(&mut self.link, &self.keys.nodes(), &args).await;
        let ours = entrance.partitions;
        let refused = |cause| RedisError::of_entrance(&self.peer, cause, ours);
        let elements = elements_of(answer.map_err(refused)?);
        let entered = elements.as_deref().and_then(Entered::of);
        entered.ok_or_else(|| self.failed(CallError::Unreadable("the entrance")))
    }

    async fn call(&mut self, head: &CallHead, commands: &[Bytes]) -> Result<Executed, RedisError> {
        let mut args = self.introduction(head.node);
        push_head(head, &mut args);
        args.extend_from_slice(commands);
        let answer = self.call.run(&mut self.link, &self.keys.nodes(), &args).await;
        let executed = executed_of(&answer.map_err(|cause| self.failed(cause))?);
        executed.ok_or_else(|| self.failed(CallError::Unreadable("a call")))
    }
}

/// Appends the arguments of a call behind the node and in front of the commands.
fn push_head(head: &CallHead, args: &mut Vec<Bytes>) {
    args.push(wire::text(&head.epoch));
    args.push(Bytes::copy_from_slice(&[head.kind.letter()]));
    let numbers = [head.number, head.lease_ms, head.retention_ms, head.inbox_bytes];
    args.extend(numbers.map(wire::number));
}

fn executed_of(answer: &Value) -> Option<Executed> {
    let answer = match answer {
        Value::SimpleString(text) => text.as_bytes(),
        Value::BulkString(text) => text,
        _ => return None,
    };
    match answer {
        b"done" => Some(Executed::Done),
        b"enter" => Some(Executed::Enter),
        _ => None,
    }
}

/// The elements of a list; `None` if it is none, or has other elements than texts and numbers.
fn elements_of(answer: Value) -> Option<Vec<Bytes>> {
    let Value::Array(elements) = answer else { return None };
    let element = |value| match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into()),
        Value::Int(number) => Some(wire::number(number)),
        _ => None,
    };
    elements.into_iter().map(element).collect()
}
