//! The users of one presence channel: the members on all nodes, and the subscriptions of those that
//! are on this one.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use crate::id::ShardId;
use crate::protocol::auth::Member;

use super::super::ToHome;
use super::super::shard_counts::ShardCounts;
use super::standing::Standing;

/// The users of a presence channel, by user id.
#[derive(Debug, Default)]
pub(super) struct Attendance {
    table: HashTable<Attendee>,
    /// The hash is keyed, because ids come from the network.
    hash: RandomState,
    /// The number of users who are members.
    members: usize,
}

/// A user who is a member, or is about to become one on this node.
#[derive(Debug)]
pub(super) struct Attendee {
    /// The user as the other subscribers know it.
    pub(super) member: Arc<Member>,
    /// Whether the user is a member.
    is_member: bool,
    /// The standing of the user on this node.
    pub(super) standing: Standing,
    /// The user's subscriptions on this node, by shard.
    pub(super) subscriptions: ShardCounts,
    /// The messages that wait for the cluster's answer about the user, oldest first.
    pub(super) waiting: Vec<(ShardId, ToHome)>,
}

impl Attendee {
    /// The member and the limit of members of the first join that waits.
    pub(super) fn first_waiting(&self) -> Option<(Arc<Member>, Option<usize>)> {
        self.waiting.iter().find_map(|(_, message)| match message {
            ToHome::Join(join) => Some((join.authorised.member()?.clone(), join.max_members)),
            _ => None,
        })
    }
}

impl Attendance {
    /// The user with this id.
    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Attendee> {
        self.table.find_mut(self.hash.hash_one(id), |of| *of.member.user_id == *id)
    }

    /// The user with this member's id, who is no member yet if the id is new.
    pub(super) fn get_or_insert(&mut self, member: &Arc<Member>) -> &mut Attendee {
        let Self { table, hash, .. } = self;
        let hash_of = |of: &Attendee| hash.hash_one(&*of.member.user_id);
        let same = |of: &Attendee| of.member.user_id == member.user_id;
        let new = || Attendee {
            member: Arc::clone(member),
            is_member: false,
            standing: Standing::Out,
            subscriptions: ShardCounts::default(),
            waiting: Vec::new(),
        };
        table.entry(hash.hash_one(&*member.user_id), same, hash_of).or_insert_with(new).into_mut()
    }

    /// Makes a user a member. Returns `false` if it is one already.
    pub(super) fn add(&mut self, member: &Arc<Member>) -> bool {
        let attendee = self.get_or_insert(member);
        if attendee.is_member {
            return false;
        }
        attendee.is_member = true;
        // Subscribers know the user as the first of its subscriptions on any node gave it.
        attendee.member = Arc::clone(member);
        self.members += 1;
        true
    }

    /// Ends the membership of a user. Returns the member as the subscribers know it, or `None` if
    /// the user is none.
    pub(super) fn remove(&mut self, id: &str) -> Option<Arc<Member>> {
        let attendee = self.get_mut(id).filter(|attendee| attendee.is_member)?;
        attendee.is_member = false;
        let member = Arc::clone(&attendee.member);
        self.members -= 1;
        self.drop_if_unused(id);
        Some(member)
    }

    /// Forgets a user who is neither a member nor on this node.
    pub(super) fn drop_if_unused(&mut self, id: &str) {
        let hash = self.hash.hash_one(id);
        let unused = |of: &Attendee| {
            *of.member.user_id == *id && !of.is_member && of.standing == Standing::Out
        };
        if let Ok(found) = self.table.find_entry(hash, unused) {
            found.remove();
        }
    }

    /// The number of members.
    pub(super) const fn members(&self) -> usize {
        self.members
    }

    /// The members.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.table.iter().filter(|of| of.is_member).map(|of| &of.member)
    }

    /// Whether the cluster's answer about a user who enters is awaited.
    pub(super) fn is_entering(&self) -> bool {
        self.table.iter().any(|of| of.standing == Standing::Entering || !of.waiting.is_empty())
    }

    /// The users with this standing on this node.
    pub(super) fn standing(&self, standing: Standing) -> impl Iterator<Item = &Attendee> {
        self.table.iter().filter(move |of| of.standing == standing)
    }
}
