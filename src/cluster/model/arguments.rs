//! The arguments of a call, as the scripts read them.

use bytes::Bytes;

use crate::channels::{ChannelPath, UserPath};
use crate::cluster::wire::{JoinFlags, NodeId};

/// The arguments that have not been read. Each function takes the next one; `None` if there is
/// none, or if it does not fit.
pub(super) struct Arguments<'a>(std::slice::Iter<'a, Bytes>);

impl<'a> Arguments<'a> {
    pub(super) fn new(args: &'a [Bytes]) -> Self {
        Self(args.iter())
    }

    pub(super) fn next(&mut self) -> Option<Bytes> {
        self.0.next().cloned()
    }

    pub(super) fn text(&mut self) -> Option<Box<str>> {
        std::str::from_utf8(&self.next()?).ok().map(Box::from)
    }

    pub(super) fn number<N: std::str::FromStr>(&mut self) -> Option<N> {
        self.text()?.parse().ok()
    }

    pub(super) fn channel(&mut self) -> Option<ChannelPath> {
        self.text().map(|text| ChannelPath::from_text(&text))
    }

    pub(super) fn user(&mut self) -> Option<UserPath> {
        self.text().map(|text| UserPath::from_text(&text))
    }

    pub(super) fn node(&mut self) -> Option<NodeId> {
        self.number()
    }

    pub(super) fn flags(&mut self) -> Option<JoinFlags> {
        let letters = self.next()?;
        let has = |letter| letters.contains(&letter);
        let [presence, counted, told, anew] = [b'p', b'c', b't', b'a'].map(has);
        Some(JoinFlags { presence, counted, told, anew })
    }
}
