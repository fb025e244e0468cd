//! The questions of nodes to nodes, and the answers: a version, and JSON.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of both. A node that does not know the version of a question does not answer.
const VERSION: u8 = 1;

/// A question to the shards of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub(super) enum NodeQuestion {
    /// The number of subscriptions of a channel.
    State {
        /// The path of the channel.
        channel: String,
    },
    /// The occupied channels whose names begin with a prefix.
    Occupied {
        /// The id of the app.
        app: String,
        /// The prefix.
        prefix: String,
    },
    /// Close the connections of a user.
    Terminate {
        /// The id of the app.
        app: String,
        /// The id of the user.
        user: String,
    },
    /// The number of connections.
    Connections {
        /// The id of the app.
        app: String,
    },
}

/// The answer of a node, or a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NodeAnswer {
    /// The number of subscriptions or of connections.
    Number(u32),
    /// Some channels.
    Channels {
        /// Their names, each with its number of subscriptions on the node and of members.
        list: Vec<(String, u32, u32)>,
        /// Whether this is the last part.
        last: bool,
    },
    /// The node has done what was asked.
    Done,
}

/// The text of a question or an answer.
pub(super) fn encode(value: &impl Serialize) -> Bytes {
    let mut text = vec![VERSION];
    // Neither has a map with keys that are no strings, which is all that could fail.
    let _never = serde_json::to_writer(&mut text, value);
    text.into()
}

/// Reads it again; `None` if it is none, or of another version.
pub(super) fn decode<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    let (&VERSION, json) = text.split_first()? else { return None };
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_payload_of_this_version_is_refused() {
        let question = NodeQuestion::State { channel: "app:news".into() };
        let text = encode(&question);
        assert_eq!(decode(&text), Some(question));
        let answer = NodeAnswer::Channels { list: vec![("a".into(), 1, 2)], last: true };
        assert_eq!(decode(&encode(&answer)), Some(answer));
        let other = [&[VERSION + 1], &text[1..]].concat();
        for text in [&[][..], &[VERSION], &other, b"\x01{}", b"\x01{\"ask\":\"what\"}"] {
            assert_eq!(decode::<NodeQuestion>(text), None);
        }
    }
}
