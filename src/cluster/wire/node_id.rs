//! The id of a node.

use std::fmt;
use std::str::FromStr;

/// The id of a node: 128 random bits, made anew by each process, so that another process is another
/// node. Written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub(crate) u128);

impl NodeId {
    /// The number of digits of its text.
    pub(crate) const LEN: usize = 32;
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not the id of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidNodeId;

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    fn from_str(text: &str) -> Result<Self, InvalidNodeId> {
        let digits = text.len() == Self::LEN && text.bytes().all(|b| b.is_ascii_hexdigit());
        let id = u128::from_str_radix(text, 16).map_err(|_| InvalidNodeId)?;
        digits.then_some(Self(id)).ok_or(InvalidNodeId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ids_are_32_digits() {
        let id = NodeId(0xabc);
        assert_eq!(id.to_string().len(), NodeId::LEN);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "abc", &"+".repeat(32), &"g".repeat(32), &"0".repeat(33)] {
            assert_eq!(text.parse::<NodeId>(), Err(InvalidNodeId), "{text}");
        }
    }
}
