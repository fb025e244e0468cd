//! Floor 0. Identifiers that several floors share. Plain values, no behaviour beyond text forms.

use std::fmt;
use std::str::FromStr;

/// One connection of one shard: the index of its record and of its socket, and the generation.
pub use ringwave_ring::ConnKey;

/// One shard of this process: an index from 0, at most [`ShardId::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl ShardId {
    /// The most shards that one process can have. A home is found by hash over any number.
    pub(crate) const MAX: u16 = u16::MAX - 1;

    /// The position of this shard in a list of all shards.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One app of the configuration: its position in the list of apps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppIndex(pub u16);

/// The name of a connection on the wire, `\d+\.\d+` (PROTOCOL: connection_established). It is part
/// of every channel signature, so it is unguessable and never used twice by a process: `high`
/// carries 63 random bits. `low` says, masked, which shard and slot own the connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// The number before the dot.
    pub high: u64,
    /// The number behind the dot.
    pub low: u64,
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.high, self.low)
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a socket id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSocketId;

impl FromStr for SocketId {
    type Err = InvalidSocketId;

    /// Accepts exactly `\A\d+\.\d+\z`. Numbers that no shard of ours hands out (past 64 bits, or
    /// with leading zeros) are well-formed, but name no connection: they become an id that no
    /// connection has.
    fn from_str(text: &str) -> Result<Self, InvalidSocketId> {
        let (high, low) = text.split_once('.').ok_or(InvalidSocketId)?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(high) || !digits(low) {
            return Err(InvalidSocketId);
        }
        let number = |part: &str| match part.parse::<u64>() {
            Ok(value) if part.len() == 1 || !part.starts_with('0') => Some(value),
            _ => None,
        };
        match (number(high), number(low)) {
            (Some(high), Some(low)) => Ok(Self { high, low }),
            _ => Ok(Self::NOBODY),
        }
    }
}

impl SocketId {
    /// A well-formed id that no connection ever has (`high` is never 0).
    pub(crate) const NOBODY: Self = Self { high: 0, low: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_two_numbers_with_a_dot() {
        let id = SocketId { high: 12, low: 34 };
        assert_eq!(id.to_string(), "12.34");
        assert_eq!("12.34".parse(), Ok(id));
    }

    #[test]
    fn other_forms_are_refused_and_foreign_numbers_name_nobody() {
        for text in ["", ".", "1", "1.", ".1", "1.2.3", "a.1", "1.-2", "1.2\n", "+1.2"] {
            assert_eq!(text.parse::<SocketId>(), Err(InvalidSocketId), "{text:?}");
        }
        for text in ["99999999999999999999999.1", "012.34", "12.034"] {
            assert_eq!(text.parse(), Ok(SocketId::NOBODY), "{text:?}");
        }
    }
}
