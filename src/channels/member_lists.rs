//! The encoded lists of members that were asked for last. Every subscriber that joins a presence
//! channel gets the whole list, and encoding it anew for each of a thousand joins has a quadratic
//! cost. Few lists are kept, to save memory, because a crowd joins one channel, or a few.

use std::sync::Arc;

use crate::frame::Frame;
use crate::protocol::auth::Member;
use crate::protocol::outbound::{self, MemberList};

use super::cache::LastEvent;
use super::{ChannelKey, Outcome};

/// The number of lists that are kept.
const KEPT: usize = 4;

/// The encoded lists of members that were asked for last.
#[derive(Debug, Default)]
pub(super) struct MemberLists {
    /// The lists in the order of their last use, the most recent one at the end.
    kept: Vec<List>,
}

#[derive(Debug)]
struct List {
    /// The number of the channel in the table of homes.
    home: u32,
    list: MemberList,
    /// The encoded answer to a join. `None` if the list has changed since it was encoded.
    frame: Option<Frame>,
}

impl MemberLists {
    /// The answer to a join of this home's channel that was counted. `last` is the cached event of
    /// the channel.
    pub(super) fn subscribed<'a>(
        &mut self,
        home: u32,
        key: &ChannelKey,
        members: impl Iterator<Item = &'a Arc<Member>>,
        last: Option<&LastEvent>,
    ) -> Outcome {
        let name = key.name();
        let answer = match name.kind().is_presence() {
            true => self.succeeded(home, name, members),
            false => outbound::subscription_succeeded(name),
        };
        let missed = || outbound::cache_miss(name);
        let last = name.kind().is_cache().then(|| last.map_or_else(missed, |of| of.frame.clone()));
        Outcome::Subscribed { answer, last }
    }

    /// The encoded answer to a join of this home's presence channel.
    fn succeeded<'a>(
        &mut self,
        home: u32,
        channel: &str,
        members: impl Iterator<Item = &'a Arc<Member>>,
    ) -> Frame {
        let mut found = match self.kept.iter().position(|list| list.home == home) {
            Some(at) => self.kept.remove(at),
            None => List { home, list: encoded(members), frame: None },
        };
        let frame =
            found.frame.take().unwrap_or_else(|| found.list.subscription_succeeded(channel));
        found.frame = Some(frame.clone());
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push(found);
        frame
    }

    /// Adds a new member to the list of this home, if it is kept.
    pub(super) fn added(&mut self, home: u32, member: &Member) {
        if let Some(list) = self.kept.iter_mut().find(|list| list.home == home) {
            push(&mut list.list, member);
            list.frame = None;
        }
    }

    /// Forgets the list of this home, because a member has left or the home has another channel.
    pub(super) fn forget(&mut self, home: u32) {
        self.kept.retain(|list| list.home != home);
    }

    /// Gives all memory back.
    pub(super) fn trim(&mut self) {
        self.kept = Vec::new();
    }
}

fn encoded<'a>(members: impl Iterator<Item = &'a Arc<Member>>) -> MemberList {
    let mut list = MemberList::default();
    members.for_each(|member| push(&mut list, member));
    list
}

fn push(list: &mut MemberList, member: &Member) {
    list.push(&member.user_id, &member.id_json, member.user_info.as_deref());
}
