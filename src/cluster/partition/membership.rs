//! The name of a node in a partition, and what Redis was when it last entered under it.

use crate::time::Millis;

/// Whether the node has entered under its name.
#[derive(Debug)]
pub(super) enum Membership {
    /// It has not.
    Stranger {
        /// The name before, if there was one.
        former: Option<Former>,
    },
    /// It has.
    Member {
        /// The epoch as of the last entrance.
        epoch: Box<str>,
        /// The time before which no batch is sent.
        begins: Millis,
    },
}

/// The end of a name.
#[derive(Debug)]
pub(super) struct Former {
    /// The epoch as of the last entrance under that name or an earlier one.
    epoch: Option<Box<str>>,
    /// Whether messages may be lost since.
    pub(super) cut_off: bool,
}

impl Membership {
    /// The epoch as of the last entrance under this name.
    pub(super) fn epoch(&self) -> Option<&str> {
        match self {
            Self::Stranger { .. } => None,
            Self::Member { epoch, .. } => Some(epoch),
        }
    }

    /// The epoch as of the last entrance under any name.
    pub(super) fn last_epoch(&self) -> Option<&str> {
        match self {
            Self::Stranger { former } => former.as_ref()?.epoch.as_deref(),
            Self::Member { epoch, .. } => Some(epoch),
        }
    }

    /// Whether batches are sent.
    pub(super) fn has_begun(&self, now: Millis) -> bool {
        matches!(self, Self::Member { begins, .. } if *begins <= now)
    }

    /// The node enters this epoch. If it `waits`, no batch is sent before the given time.
    pub(super) fn enter(&mut self, entered: Box<str>, waits: Option<Millis>) {
        let begins = match self {
            Self::Member { begins, .. } => *begins,
            Self::Stranger { .. } => Millis(0),
        };
        let begins = waits.unwrap_or(begins);
        *self = Self::Member { epoch: entered, begins };
    }

    /// The node takes another name.
    pub(super) fn rename(&mut self, cut_off: bool) {
        let epoch = self.last_epoch().map(Box::from);
        *self = Self::Stranger { former: Some(Former { epoch, cut_off }) };
    }
}
