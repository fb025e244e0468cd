//! The half of a connection that reads the inbox of a node.

use ::redis::{Value, cmd};
use bytes::Bytes;

use super::call_error::CallError;
use super::error::RedisError;
use super::keys::Keys;
use super::link::Link;
use super::peer::Peer;
use crate::cluster::store;
use crate::cluster::wire::NodeId;

/// The half of a connection that reads inboxes. After an error it is of no use any more.
#[derive(Debug)]
pub(crate) struct Reader {
    peer: Peer,
    link: Link,
    keys: Keys,
}

/// The time for which a read waits at the server for an entry. With four seconds in which the
/// server stands still it is below the deadline of an answer.
const BLOCK_MS: u32 = 500;

/// The entries of one answer. An entry is what a call had for the node; this many are read while
/// the ones before are handed over, and an answer stays small where calls are.
const ENTRIES_MAX: u32 = 100;

impl Reader {
    pub(super) const fn new(peer: Peer, link: Link, keys: Keys) -> Self {
        Self { peer, link, keys }
    }

    fn failed(&self, cause: CallError) -> RedisError {
        RedisError::of_call(&self.peer, cause)
    }
}

impl store::Reader for Reader {
    type Error = RedisError;

    /// Waits half a second at most.
    async fn read(
        &mut self,
        node: NodeId,
        after: &str,
    ) -> Result<Vec<(Box<str>, Bytes)>, RedisError> {
        let mut request = cmd("XREAD");
        request.arg("COUNT").arg(ENTRIES_MAX).arg("BLOCK").arg(BLOCK_MS);
        request.arg("STREAMS").arg(&self.keys.inbox(node)[..]).arg(after);
        let answer = self.link.request(&request).await;
        let entries = entries_of(answer.map_err(|cause| self.failed(cause))?);
        entries.ok_or_else(|| self.failed(CallError::Unreadable("XREAD")))
    }
}

/// The entries of the only stream of an answer: `[[key, [[id, [field, value, …]], …]]]`.
fn entries_of(answer: Value) -> Option<Vec<(Box<str>, Bytes)>> {
    match answer {
        Value::Nil => Some(Vec::new()),
        Value::Array(streams) => {
            let (_key, entries) = pair(streams.into_iter().next()?)?;
            let Value::Array(entries) = entries else { return None };
            entries.into_iter().map(entry_of).collect()
        }
        _ => None,
    }
}

fn entry_of(entry: Value) -> Option<(Box<str>, Bytes)> {
    let (Value::BulkString(id), fields) = pair(entry)? else { return None };
    let id = String::from_utf8(id).ok()?;
    Some((id.into(), joined(fields).unwrap_or_default()))
}

/// The names and values of an entry's fields, one behind the other. `None` if it was deleted.
fn joined(fields: Value) -> Option<Bytes> {
    let Value::Array(parts) = fields else { return None };
    let part = |part| match part {
        Value::BulkString(part) => Some(part),
        _ => None,
    };
    let parts: Vec<Vec<u8>> = parts.into_iter().map(part).collect::<Option<_>>()?;
    Some(parts.concat().into())
}

fn pair(value: Value) -> Option<(Value, Value)> {
    let Value::Array(elements) = value else { return None };
    let [first, second] = elements.try_into().ok()?;
    Some((first, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn list(values: impl Into<Vec<Value>>) -> Value {
        Value::Array(values.into())
    }

    #[test]
    fn entries_come_with_their_ids_and_the_parts_of_each_are_put_together() {
        let one = list([text("1-0"), list([text("head"), text("record")])]);
        let two = list([text("1-1"), list([text("head"), text("a"), text("b"), text("")])]);
        let deleted = list([text("1-2"), Value::Nil]);
        let stranger = list([text("1-3"), list([text("a"), Value::Int(1)])]);
        let answer = list([list([text("in:1"), list([one, two, deleted, stranger])])]);
        let entries = entries_of(answer).unwrap();
        let ids: Vec<&str> = entries.iter().map(|(id, _)| &**id).collect();
        assert_eq!(ids, ["1-0", "1-1", "1-2", "1-3"]);
        let fields: Vec<&[u8]> = entries.iter().map(|(_, field)| &field[..]).collect();
        assert_eq!(fields, [&b"headrecord"[..], b"headab", b"", b""]);
    }

    #[test]
    fn answers_of_another_form_are_refused() {
        assert_eq!(entries_of(Value::Nil), Some(Vec::new()));
        for answer in [
            text("x"),
            list([]),
            list([text("x")]),
            list([list([text("x"), text("y")])]),
            list([list([text("x"), list([text("y")])])]),
            list([list([text("x"), list([list([Value::Int(1), Value::Nil])])])]),
        ] {
            assert_eq!(entries_of(answer.clone()), None, "{answer:?}");
        }
    }
}
