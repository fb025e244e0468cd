//! The messages of the cluster: its answers, and the changes that other nodes have made.

use std::collections::HashSet;
use std::sync::Arc;

use crate::frame::Frame;
use crate::id::ShardId;
use crate::protocol::auth::Member;
use crate::protocol::outbound;
use crate::time::Millis;

use super::super::cluster::{ClusterJoined, Enter, EnterOutcome, FromCluster, ToCluster};
use super::super::message::{Join, ToHome};
use super::super::table::ChannelRecord;
use super::super::{ChannelEvent, ChannelKey, Event, Outbox};
use super::Replicas;
use super::registration::Task;
use super::standing::Standing;

impl Replicas {
    /// Handles a message of the cluster. Those about users go to
    /// [`UserReplicas`](super::super::UserReplicas).
    pub(crate) fn learn(&mut self, message: FromCluster, now: Millis, out: &mut Outbox) {
        self.take(message, now, out);
        self.answer_alone(now, out);
    }

    pub(super) fn take(&mut self, message: FromCluster, now: Millis, out: &mut Outbox) {
        match message {
            FromCluster::Joined(joined) => self.joined(*joined, now, out),
            FromCluster::Left(key) => self.left(&key, out),
            FromCluster::Count(key, total, own) => self.counted(&key, total, own, now, out),
            FromCluster::Added(key, member) => self.added(&key, &member, out),
            FromCluster::Removed(key, user_id) => self.removed(&key, &user_id, out),
            FromCluster::Entered(key, user_id, outcome) => {
                self.entered(&key, &user_id, outcome, now, out);
            }
            FromCluster::Parted(key, user_id) => self.parted(&key, &user_id, out),
            FromCluster::Event(event) => self.event(event, now, out),
            FromCluster::Register(partition) => self.walk(Task::Register, partition),
            FromCluster::Settled(partition) => self.walk(Task::Resynchronise, partition),
            FromCluster::Alone(alone) => self.set_alone(alone, now, out),
            FromCluster::Online(..) | FromCluster::Certain(_) | FromCluster::CutOff(_) => {}
        }
    }

    /// The node is in a channel. If it was already, the members and the last event are brought up
    /// to date.
    fn joined(&mut self, joined: ClusterJoined, now: Millis, out: &mut Outbox) {
        let ClusterJoined { key, occupied, exact, last, members } = joined;
        let Some(number) = self.channels.find(&key) else { return };
        let replica = &mut self.channels[number];
        let enters = replica.standing == Standing::Entering;
        if !enters && replica.standing != Standing::In {
            return;
        }
        replica.standing = Standing::In;
        replica.inexact = !exact && key.name().kind().is_presence();
        match last {
            Some((frame, retain)) => self.channels.cache.put(&key, frame, *retain, now),
            None if enters => self.channels.cache.forget(&key),
            // A Redis that was emptied has lost the event, and this is the last copy.
            None => {}
        }
        for member in &members {
            self.added(&key, member, out);
        }
        if exact {
            self.remove_others(number, &members, out);
        }
        if occupied {
            self.channels.wanted.notify(&key, ChannelEvent::Occupied, out);
        }
        let waiting = std::mem::take(&mut self.channels[number].waiting);
        self.resume(waiting, now, out);
    }

    /// Removes the members that are not in a list of all. Users of this node stay: the cluster has
    /// them, or is about to be told of them.
    fn remove_others(&mut self, number: u32, members: &[Arc<Member>], out: &mut Outbox) {
        let replica = &self.channels[number];
        let Some(attendance) = &replica.attendance else { return };
        let listed: HashSet<&str> = members.iter().map(|member| &*member.user_id).collect();
        let here: HashSet<&str> =
            attendance.standing(Standing::In).map(|of| &*of.member.user_id).collect();
        let ids = attendance.all().map(|member| &member.user_id);
        let gone = ids.filter(|id| !listed.contains(&***id) && !here.contains(&***id));
        let (gone, key): (Vec<_>, _) = (gone.cloned().collect(), replica.key.clone());
        for user_id in gone {
            self.removed(&key, &user_id, out);
        }
    }

    /// The node has left a channel. If a subscriber has come meanwhile, it joins once more.
    fn left(&mut self, key: &ChannelKey, out: &mut Outbox) {
        let Some(number) = self.channels.find(key) else { return };
        if self.channels[number].standing != Standing::Leaving {
            return;
        }
        self.channels.cache.forget(key);
        self.channels.lists.forget(number);
        let members = self.channels[number].users();
        self.channels.members_removed(key.app(), members);
        let replica = &mut self.channels[number];
        if replica.waiting.is_empty() {
            self.channels.remove(number);
            return;
        }
        replica.attendance = None;
        replica.standing = Standing::Out;
        self.enter_channel(number, out);
    }

    fn counted(&mut self, key: &ChannelKey, total: u32, own: bool, now: Millis, out: &mut Outbox) {
        if own {
            self.channels.wanted.notify(key, ChannelEvent::SubscriptionCount(total), out);
        }
        if let Some(number) = self.channels.find(key) {
            self.channels.announce_count(number, total, now, out);
        }
    }

    fn added(&mut self, key: &ChannelKey, member: &Arc<Member>, out: &mut Outbox) {
        let Some(number) = self.channels.find(key) else { return };
        let attendance = self.channels[number].attendance.get_or_insert_default();
        if attendance.add(member) {
            self.channels.lists.added(number, member);
            self.channels.member_added(key.app());
            let added = outbound::member_added(key.name(), member);
            self.deliver(number, &added, out);
        }
    }

    fn removed(&mut self, key: &ChannelKey, user_id: &str, out: &mut Outbox) {
        let Some(number) = self.channels.find(key) else { return };
        let mut attendance = self.channels[number].attendance.as_mut();
        // The cluster has buried this node, which lives: its users are about to enter once more.
        let attendee = attendance.as_mut().and_then(|of| of.get_mut(user_id));
        if attendee.is_some_and(|attendee| attendee.standing == Standing::In) {
            return;
        }
        if let Some(gone) = attendance.and_then(|of| of.remove(user_id)) {
            self.channels.lists.forget(number);
            self.channels.members_removed(key.app(), 1);
            let removed = outbound::member_removed(key.name(), &gone.id_json);
            self.deliver(number, &removed, out);
        }
    }

    fn deliver(&self, number: u32, frame: &Frame, out: &mut Outbox) {
        self.channels[number].deliver(frame, None, out);
    }

    /// The cluster has answered that a user enters.
    fn entered(
        &mut self,
        key: &ChannelKey,
        user_id: &Arc<str>,
        outcome: EnterOutcome,
        now: Millis,
        out: &mut Outbox,
    ) {
        let number = self.channels.find(key);
        let attendance = number.and_then(|number| self.channels[number].attendance.as_mut());
        let attendee = attendance.and_then(|of| of.get_mut(user_id));
        match (number, attendee.map_or(Standing::Out, |attendee| attendee.standing)) {
            (Some(number), Standing::Entering) => self.settle(number, user_id, outcome, now, out),
            (_, Standing::Out) if outcome != EnterOutcome::Full => {
                // The first answer of two was that the channel is full, and the user was refused.
                self.tell(ToCluster::Part(key.clone(), Arc::clone(user_id)), out);
            }
            (_, Standing::In) if outcome == (EnterOutcome::Entered { told: true }) => {
                // The cluster had buried this node, and told webhooks that the user was gone.
                self.channels.wanted.notify(
                    key,
                    ChannelEvent::MemberAdded(Arc::clone(user_id)),
                    out,
                );
            }
            _ => {}
        }
    }

    /// Admits or refuses a user who waits for the cluster.
    fn settle(
        &mut self,
        number: u32,
        user_id: &str,
        outcome: EnterOutcome,
        now: Millis,
        out: &mut Outbox,
    ) {
        let replica = &mut self.channels[number];
        let attendance = replica.attendance.as_mut();
        let Some(attendee) = attendance.and_then(|of| of.get_mut(user_id)) else { return };
        let waiting = std::mem::take(&mut attendee.waiting);
        match outcome {
            EnterOutcome::Entered { told } => {
                attendee.standing = Standing::In;
                let (key, member) = (replica.key.clone(), Arc::clone(&attendee.member));
                if told {
                    let user_id = Arc::clone(&member.user_id);
                    self.channels.wanted.notify(&key, ChannelEvent::MemberAdded(user_id), out);
                }
                // The news of the member may have been lost with an earlier inbox.
                self.added(&key, &member, out);
                self.resume(waiting, now, out);
            }
            EnterOutcome::Full => {
                attendee.standing = Standing::Out;
                self.refuse_all(waiting, now, out);
                if let Some(attendance) = &mut self.channels[number].attendance {
                    attendance.drop_if_unused(user_id);
                }
            }
        }
        self.leave_if_unused(number, out);
    }

    /// Refuses the joins that have waited, and handles what waited behind them.
    fn refuse_all(&mut self, waiting: Vec<(ShardId, ToHome)>, now: Millis, out: &mut Outbox) {
        for (from, message) in waiting {
            match message {
                ToHome::Join(join) => {
                    self.pending.remove(&(from, join.ticket));
                    let Join { key, conn, ticket, .. } = *join;
                    self.channels.refuse(from, key, conn, ticket, out);
                }
                behind => {
                    self.no_longer_pending(from, &behind);
                    self.dispatch(from, behind, now, out);
                }
            }
        }
    }

    /// The cluster knows that a user has left this node. If a subscriber of the user has come
    /// meanwhile, the user enters once more.
    fn parted(&mut self, key: &ChannelKey, user_id: &str, out: &mut Outbox) {
        let Some(number) = self.channels.find(key) else { return };
        let Some(attendance) = self.channels[number].attendance.as_mut() else { return };
        let Some(attendee) = attendance.get_mut(user_id) else { return };
        if attendee.standing != Standing::Leaving {
            return;
        }
        let Some((member, max_members)) = attendee.first_waiting() else {
            attendee.standing = Standing::Out;
            attendance.drop_if_unused(user_id);
            return;
        };
        attendee.standing = Standing::Entering;
        let enter = Enter { key: key.clone(), member, max_members };
        self.tell(ToCluster::Enter(Box::new(enter)), out);
    }

    fn event(&mut self, event: Event, now: Millis, out: &mut Outbox) {
        let Event { key, frame, except, retain } = event;
        let Some(number) = self.channels.find(&key) else { return };
        if let Some(retain) = retain {
            self.channels.cache.put(&key, frame.clone(), *retain, now);
        }
        self.channels[number].deliver(&frame, except, out);
    }
}
