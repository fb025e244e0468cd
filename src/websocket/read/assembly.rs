//! Floor 1. A data message that did not come in one piece: its payload so far.

use super::header::Data;
use super::utf8::{InvalidUtf8, Text};
use super::{Message, Violation};

/// The pieces of one message, joined and checked as they come.
#[derive(Debug)]
pub(super) struct Assembly {
    body: Body,
    /// The number of frames of the message that are complete.
    pub(super) frames: u32,
}

#[derive(Debug)]
enum Body {
    Text(Text),
    Binary(Vec<u8>),
}

impl Assembly {
    /// An empty message, of the kind that its first frame announces.
    pub(super) fn new(kind: Data) -> Self {
        let body = match kind {
            Data::Text => Body::Text(Text::default()),
            Data::Binary | Data::Continuation => Body::Binary(Vec::new()),
        };
        Self { body, frames: 0 }
    }

    /// The number of payload bytes that have come so far.
    pub(super) const fn len(&self) -> usize {
        match &self.body {
            Body::Text(text) => text.len(),
            Body::Binary(bytes) => bytes.len(),
        }
    }

    /// Bytes of memory that the payload occupies.
    pub(super) const fn capacity(&self) -> usize {
        match &self.body {
            Body::Text(text) => text.capacity(),
            Body::Binary(bytes) => bytes.capacity(),
        }
    }

    /// Appends the next piece. `len_max` is the most that the whole message can have: the memory
    /// doubles as it fills, but not beyond that.
    pub(super) fn push(&mut self, piece: &[u8], len_max: usize) -> Result<(), Violation> {
        let needed = self.len() + piece.len();
        if needed > self.capacity() {
            let more = needed.max(len_max.min(2 * self.capacity())) - self.len();
            match &mut self.body {
                Body::Text(text) => text.reserve_exact(more),
                Body::Binary(bytes) => bytes.reserve_exact(more),
            }
        }
        match &mut self.body {
            Body::Text(text) => text.push(piece)?,
            Body::Binary(bytes) => bytes.extend_from_slice(piece),
        }
        Ok(())
    }

    /// The message, once its last piece has come.
    pub(super) fn message(&self) -> Result<Message<'_>, Violation> {
        Ok(match &self.body {
            Body::Text(text) => Message::Text(text.finished()?),
            Body::Binary(bytes) => Message::Binary(bytes),
        })
    }
}

impl From<InvalidUtf8> for Violation {
    fn from(_: InvalidUtf8) -> Self {
        Self::NOT_UTF8
    }
}
