//! The encoding of values, as arguments of calls and as fields of records: a number is a decimal
//! text, a flag is `0` or `1`, an id is its text, and where there may be none, none is empty.

use std::fmt::Display;
use std::str::FromStr;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::NodeId;
use crate::channels::{ChannelPath, UserPath};

/// The bytes of a length: 32 bits, big endian.
const LENGTH: usize = 4;

/// Encodes a text.
pub(crate) fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Encodes a number.
pub(crate) fn number(number: impl Display) -> Bytes {
    number.to_string().into()
}

/// Encodes an id.
pub(crate) fn id(id: impl Display) -> Bytes {
    id.to_string().into()
}

/// Encodes a number or an id, if there is one.
pub(super) fn optional(value: Option<impl Display>) -> Bytes {
    value.map_or_else(Bytes::new, id)
}

/// Encodes a flag.
pub(super) const fn flag(set: bool) -> Bytes {
    Bytes::from_static(if set { b"1" } else { b"0" })
}

/// Encoded values that have not been read. Each function takes the next one; `None` if there is
/// none, or if it does not fit.
pub(crate) trait Values {
    /// The next value as it is.
    fn next(&mut self) -> Option<Bytes>;

    /// Whether all values have been read.
    fn is_empty(&self) -> bool;

    fn text(&mut self) -> Option<Box<str>> {
        std::str::from_utf8(&self.next()?).ok().map(Box::from)
    }

    fn number<N: FromStr>(&mut self) -> Option<N> {
        std::str::from_utf8(&self.next()?).ok()?.parse().ok()
    }

    /// `Some(None)` if the value is empty.
    fn optional<N: FromStr>(&mut self) -> Option<Option<N>> {
        let text = self.text()?;
        if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
    }

    fn flag(&mut self) -> Option<bool> {
        match &*self.next()? {
            b"0" => Some(false),
            b"1" => Some(true),
            _ => None,
        }
    }

    fn node(&mut self) -> Option<NodeId> {
        self.number()
    }

    fn channel(&mut self) -> Option<ChannelPath> {
        self.text().map(|text| ChannelPath::from_text(&text))
    }

    fn user(&mut self) -> Option<UserPath> {
        self.text().map(|text| UserPath::from_text(&text))
    }

    /// Reads all that are left; `None` if one of them does not fit.
    fn all<T>(&mut self, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut values = Vec::new();
        while !self.is_empty() {
            values.push(read(self)?);
        }
        Some(values)
    }
}

/// The values of a list: the arguments of a call, or the elements of an answer.
#[derive(Debug)]
pub(crate) struct Listed<'a>(pub(crate) std::slice::Iter<'a, Bytes>);

impl Values for Listed<'_> {
    fn next(&mut self) -> Option<Bytes> {
        self.0.next().cloned()
    }

    fn is_empty(&self) -> bool {
        self.0.len() == 0
    }
}

/// The fields of a record, each with its length before it.
#[derive(Debug)]
pub(super) struct Fields(Bytes);

impl Values for Fields {
    fn next(&mut self) -> Option<Bytes> {
        take(&mut self.0)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Encodes a record: a letter, the length of the rest, and fields, each with its length before it.
pub(super) fn record(letter: u8, fields: &[Bytes]) -> Bytes {
    let len: usize = fields.iter().map(|field| LENGTH + field.len()).sum();
    let mut out = BytesMut::with_capacity(1 + LENGTH + len);
    out.put_u8(letter);
    put_length(&mut out, len);
    fields.iter().for_each(|field| put(&mut out, field));
    out.freeze()
}

/// Takes the next record: its letter and its fields. `None`, and nothing is taken, if what follows
/// is no record.
pub(super) fn take_record(rest: &mut Bytes) -> Option<(u8, Fields)> {
    let letter = *rest.first()?;
    let mut behind = rest.slice(1..);
    let fields = take(&mut behind)?;
    *rest = behind;
    Some((letter, Fields(fields)))
}

/// Appends bytes with their length before them.
pub(super) fn put(out: &mut BytesMut, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.put_slice(bytes);
}

/// Takes bytes that have their length before them. `None`, and nothing is taken, if they are cut
/// short.
pub(super) fn take(rest: &mut Bytes) -> Option<Bytes> {
    let len = u32::from_be_bytes(*rest.first_chunk()?) as usize;
    if rest.len() - LENGTH < len {
        return None;
    }
    rest.advance(LENGTH);
    Some(rest.split_to(len))
}

fn put_length(out: &mut BytesMut, len: usize) {
    // Records and their fields are far below 4 GiB: an event has at most 1 GiB.
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded() -> Bytes {
        record(b'X', &[text("a"), number(7), flag(true), id(NodeId(5)), text("b"), text("c")])
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut rest = [encoded(), encoded()].concat().into();
        for _ in 0..2 {
            let (letter, mut fields) = take_record(&mut rest).unwrap();
            assert_eq!((letter, fields.text().as_deref()), (b'X', Some("a")));
            assert_eq!((fields.number(), fields.flag()), (Some(7_u8), Some(true)));
            assert_eq!(fields.node(), Some(NodeId(5)));
            assert_eq!(fields.all(Fields::text), Some(vec!["b".into(), "c".into()]));
            assert_eq!(fields.next(), None);
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn nothing_is_taken_of_a_record_that_is_cut_short() {
        let whole = encoded();
        for len in 0..whole.len() {
            let mut rest = whole.slice(..len);
            assert!(take_record(&mut rest).is_none(), "{len}");
            assert_eq!(rest, whole[..len]);
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_none() {
        let values = [text("x"), Bytes::from_static(b"\xff"), text("2"), text("-1")];
        assert_eq!(Listed(values[..1].iter()).number::<u32>(), None);
        assert_eq!(Listed(values[1..].iter()).text(), None);
        assert_eq!(Listed(values[2..].iter()).flag(), None);
        assert_eq!(Listed(values[2..].iter()).all(Listed::number::<u32>), None);
    }
}
