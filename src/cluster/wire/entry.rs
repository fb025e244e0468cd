//! An entry of an inbox: what one call had for the node.
//!
//! The names and values of the stream entry's fields, one behind the other, are: the version (one
//! byte), the origin (the 32 digits of its id), the kind of the call (`b` or `r`), its number (8
//! bytes, big endian), and records.

use bytes::{Buf, Bytes};

use super::{NodeId, Record};

/// The version of this language. Entries of another version are counted and passed over.
const VERSION: u8 = 1;

/// The bytes before the records.
const HEAD: usize = 1 + NodeId::LEN + 1 + 8;

/// An entry of an inbox, with the records still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The node whose call it was.
    pub(crate) origin: NodeId,
    /// The kind of the call.
    pub(crate) kind: CallKind,
    /// Its number.
    pub(crate) number: u64,
    /// The encoded records.
    pub(crate) records: Bytes,
}

/// The kind of a call, each with its own numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum CallKind {
    /// `b`: a batch, executed once.
    Batch,
    /// `r`: a registration anew, which may be executed twice.
    Registration,
}

/// The reason why an entry cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryError {
    /// It is of another version.
    Version(u8),
    /// It does not have the form of an entry.
    Form,
}

impl CallKind {
    /// The letter.
    pub(crate) const fn letter(self) -> u8 {
        match self {
            Self::Batch => b'b',
            Self::Registration => b'r',
        }
    }
}

impl Entry {
    /// Reads an entry. Copies nothing.
    ///
    /// # Errors
    /// Another version, or no entry at all.
    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, EntryError> {
        let version = *bytes.first().ok_or(EntryError::Form)?;
        if version != VERSION {
            return Err(EntryError::Version(version));
        }
        if bytes.len() < HEAD {
            return Err(EntryError::Form);
        }
        bytes.advance(1);
        let origin = bytes.split_to(NodeId::LEN);
        let origin = std::str::from_utf8(&origin).map_err(|_| EntryError::Form)?;
        let origin = origin.parse().map_err(|_| EntryError::Form)?;
        let kind = match bytes.get_u8() {
            b'b' => CallKind::Batch,
            b'r' => CallKind::Registration,
            _ => return Err(EntryError::Form),
        };
        let number = bytes.get_u64();
        Ok(Self { origin, kind, number, records: bytes })
    }

    /// The bytes of the stream entry.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(HEAD + self.records.len());
        out.push(VERSION);
        out.extend_from_slice(self.origin.to_string().as_bytes());
        out.push(self.kind.letter());
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&self.records);
        out.into()
    }

    /// The records, in their order; `None` stands for one that cannot be read.
    pub(crate) fn records(&self) -> impl Iterator<Item = Option<Record>> + use<> {
        let mut rest = self.records.clone();
        std::iter::from_fn(move || match Record::next(&mut rest) {
            None if !rest.is_empty() => {
                rest.clear();
                Some(None)
            }
            next => next,
        })
    }
}
