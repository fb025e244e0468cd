//! An entry of an inbox: what one call had for the node.
//!
//! The field `r` of the stream entry holds: the version (one byte), the origin (the 32 digits of
//! its id), the kind of the call (`b` or `r`), its number (8 bytes, big endian), and records.

use bytes::{Buf, BufMut, Bytes, BytesMut};

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
    /// Reads the field of a stream entry. Copies nothing.
    ///
    /// # Errors
    /// Another version, or no entry at all.
    pub(crate) fn decode(mut field: Bytes) -> Result<Self, EntryError> {
        let version = *field.first().ok_or(EntryError::Form)?;
        if version != VERSION {
            return Err(EntryError::Version(version));
        }
        if field.len() < HEAD {
            return Err(EntryError::Form);
        }
        field.advance(1);
        let origin = field.split_to(NodeId::LEN);
        let origin = std::str::from_utf8(&origin).map_err(|_| EntryError::Form)?;
        let origin = origin.parse().map_err(|_| EntryError::Form)?;
        let kind = match field.get_u8() {
            b'b' => CallKind::Batch,
            b'r' => CallKind::Registration,
            _ => return Err(EntryError::Form),
        };
        let number = field.get_u64();
        Ok(Self { origin, kind, number, records: field })
    }

    /// The field of a stream entry.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD + self.records.len());
        out.put_u8(VERSION);
        out.put_slice(self.origin.to_string().as_bytes());
        out.put_u8(self.kind.letter());
        out.put_u64(self.number);
        out.put_slice(&self.records);
        out.freeze()
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
