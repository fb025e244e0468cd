//! The verbs about channels.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Call, DEBOUNCE_MS, MEMBER_BYTES, Mark, PresentMember};
use crate::channels::ChannelPath;
use crate::cluster::wire::{Admitted, CallKind, JoinFlags, MemberText, NodeId, Record, Retained};
use crate::frame::Frame;

impl Call<'_> {
    pub(super) fn join(&mut self, channel: &ChannelPath, count: u32, flags: JoinFlags) {
        let node = self.head.node;
        let nodes = self.model.channels.entry(channel.clone()).or_default();
        let vacant = nodes.is_empty();
        let before = nodes.insert(node, count);
        self.model.interests.entry(node).or_default().insert(channel.clone());
        if flags.counted {
            self.marks().insert(Mark::Counted(channel.clone()));
        }
        let undone = vacant && self.undo_departure(channel, "");
        let listed = flags.presence && self.lists_members();
        let complete = self.head.kind == CallKind::Batch && (listed || !flags.presence);
        let members = if listed { self.list_members(channel) } else { Vec::new() };
        self.tell_own(&Record::Joined {
            channel: channel.clone(),
            first: vacant && !undone && !flags.anew,
            exact: complete && self.model.stale.is_empty(),
            total: self.total(channel),
            last: self.last_event(channel),
            members,
        });
        if flags.counted && before != Some(count) {
            self.tell_count(channel);
        }
    }

    /// Whether the answer to a join lists members.
    fn lists_members(&mut self) -> bool {
        let batch = self.head.kind == CallKind::Batch;
        let room = self.member_bytes < MEMBER_BYTES;
        self.withheld |= batch && !room;
        batch && room
    }

    fn list_members(&mut self, channel: &ChannelPath) -> Vec<MemberText> {
        let members = self.model.members.get(channel);
        let members = members.into_iter().flat_map(BTreeMap::values);
        let members: Vec<_> = members.map(|member| member.text.clone()).collect();
        self.member_bytes += members.iter().map(|member| member.bytes().len()).sum::<usize>();
        members
    }

    pub(super) fn leave(&mut self, channel: &ChannelPath, flags: JoinFlags) {
        let (changed, vacated) = self.unregister(self.head.node, channel);
        self.model.interests.entry(self.head.node).or_default().remove(channel);
        self.tell_own(&Record::Left(channel.clone(), vacated));
        if flags.counted {
            self.marks().remove(&Mark::Counted(channel.clone()));
            if changed {
                self.tell_count(channel);
                self.tell_own(&Record::Count(channel.clone(), self.total(channel), true));
            }
        }
        if vacated && flags.told {
            self.depart(channel, "");
        }
    }

    pub(super) fn count(&mut self, channel: &ChannelPath, count: u32) {
        let node = self.head.node;
        let nodes = self.model.channels.get_mut(channel);
        let Some(own) = nodes.and_then(|nodes| nodes.get_mut(&node)) else { return };
        if std::mem::replace(own, count) == count {
            self.tell_own(&Record::Count(channel.clone(), self.total(channel), true));
            return;
        }
        self.marks().insert(Mark::Counted(channel.clone()));
        self.tell_count(channel);
    }

    pub(super) fn enter(
        &mut self,
        channel: &ChannelPath,
        user_id: &str,
        member: MemberText,
        max: u32,
        flags: JoinFlags,
    ) {
        let admitted = self.admit(channel, user_id, member, max, flags);
        self.tell_own(&Record::Entered(channel.clone(), user_id.into(), admitted));
    }

    fn admit(
        &mut self,
        channel: &ChannelPath,
        user_id: &str,
        text: MemberText,
        max: u32,
        flags: JoinFlags,
    ) -> Admitted {
        let members = self.model.members.entry(channel.clone()).or_default();
        let present = members.contains_key(user_id);
        if !present && max > 0 && members.len() >= max as usize {
            return Admitted::Full;
        }
        if !self.marks().insert(Mark::Member(channel.clone(), user_id.into())) {
            return Admitted::Again;
        }
        let members = self.model.members.entry(channel.clone()).or_default();
        let member = PresentMember { nodes: 0, text: text.clone() };
        members.entry(user_id.into()).or_insert(member).nodes += 1;
        if present {
            return Admitted::Again;
        }
        let undone = self.undo_departure(channel, user_id);
        if flags.anew {
            return Admitted::Again;
        }
        self.tell_all(self.nodes_of(channel), &Record::Added(channel.clone(), text));
        if undone { Admitted::Returned } else { Admitted::New }
    }

    pub(super) fn part(&mut self, channel: &ChannelPath, user_id: &str, flags: JoinFlags) {
        if self.marks().remove(&Mark::Member(channel.clone(), user_id.into())) {
            self.remove_member(channel, user_id, flags.told);
        }
        self.tell_own(&Record::Parted(channel.clone(), user_id.into()));
    }

    pub(super) fn retain(&mut self, channel: ChannelPath, ttl_ms: u64, kept: Bytes) {
        if ttl_ms > 0 {
            self.model.events.insert(channel, (kept, self.now_ms + ttl_ms));
        }
    }

    pub(super) fn publish(&mut self, channel: &ChannelPath, record: &[u8]) {
        for node in self.nodes_of_or_stale(channel) {
            self.tell_encoded(node, record);
        }
    }

    pub(super) fn keep(&mut self, channel: &ChannelPath, ttl_ms: u64, kept: Bytes) {
        if ttl_ms > 0 {
            let event = (kept, self.now_ms + ttl_ms);
            self.model.events.entry(channel.clone()).or_insert(event);
        }
    }

    pub(super) fn state(&mut self, channel: &ChannelPath, request: u32, payload: &Bytes) {
        let nodes = self.nodes_of_or_stale(channel);
        let members = self.model.members.get(channel).map_or(0, BTreeMap::len);
        let members = u32::try_from(members).unwrap_or(u32::MAX);
        let last = self.last_event(channel);
        self.tell_asked(request, members, last, &nodes);
        self.question(nodes, request, payload);
    }

    pub(super) fn users(&mut self, channel: &ChannelPath, request: u32) {
        let members = self.model.members.get(channel);
        let users = members.into_iter().flat_map(BTreeMap::keys).cloned().collect();
        self.tell_own(&Record::Users(request, users));
    }

    /// Takes a node's part of a member out of a channel.
    pub(super) fn remove_member(&mut self, channel: &ChannelPath, user_id: &str, told: bool) {
        let Some(members) = self.model.members.get_mut(channel) else { return };
        let Some(member) = members.get_mut(user_id) else { return };
        member.nodes -= 1;
        if member.nodes > 0 {
            return;
        }
        members.remove(user_id);
        let removed = Record::Removed(channel.clone(), user_id.into());
        self.tell_all(self.nodes_of(channel), &removed);
        if told {
            self.depart(channel, user_id);
        }
    }

    /// Takes out the registration of a node. Returns whether there was one, and whether it was the
    /// last of the channel.
    pub(super) fn unregister(&mut self, node: NodeId, channel: &ChannelPath) -> (bool, bool) {
        let Some(nodes) = self.model.channels.get_mut(channel) else { return (false, false) };
        let changed = nodes.remove(&node).is_some();
        let vacated = nodes.is_empty();
        if vacated {
            self.model.channels.remove(channel);
        }
        (changed, vacated)
    }

    /// Remembers a departure until webhooks are to be told.
    pub(super) fn depart(&mut self, channel: &ChannelPath, user_id: &str) {
        let departure = (channel.clone(), user_id.into());
        self.model.gone.insert(departure, self.now_ms + DEBOUNCE_MS);
    }

    fn undo_departure(&mut self, channel: &ChannelPath, user_id: &str) -> bool {
        self.model.gone.remove(&(channel.clone(), user_id.into())).is_some()
    }

    /// Tells a channel's nodes the number of its subscriptions.
    pub(super) fn tell_count(&mut self, channel: &ChannelPath) {
        let total = self.total(channel);
        for node in self.nodes_of(channel) {
            self.tell(node, &Record::Count(channel.clone(), total, node == self.head.node));
        }
    }

    fn total(&self, channel: &ChannelPath) -> u32 {
        self.model.channels.get(channel).map_or(0, |nodes| nodes.values().sum())
    }

    fn nodes_of(&self, channel: &ChannelPath) -> Vec<NodeId> {
        let nodes = self.model.channels.get(channel);
        nodes.into_iter().flat_map(BTreeMap::keys).copied().collect()
    }

    fn nodes_of_or_stale(&self, channel: &ChannelPath) -> Vec<NodeId> {
        let mut nodes = self.nodes_of(channel);
        nodes.extend(&self.model.stale);
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// The last event of a cache channel, with its remaining time.
    fn last_event(&self, channel: &ChannelPath) -> Option<(Retained, Frame)> {
        let (kept, expires_ms) = self.model.events.get(channel)?;
        Retained::read(kept.clone(), expires_ms.saturating_sub(self.now_ms))
    }
}
