//! Messages of homes and shards become commands.

use super::Node;
use super::gather::Asking;
use crate::apps::webhook::EventKind;
use crate::channels::{
    Answer, ChannelKey, ChannelPath, Enter, Event, FromCluster, Registered, ReplyTo, Retain, Step,
    Steps, ToCluster, UserPath,
};
use crate::cluster::partition::Partition;
use crate::cluster::wire::{Command, JoinFlags, MemberText, Retained};
use crate::id::ShardId;
use crate::protocol::auth::Member;
use crate::time::Millis;

impl Node {
    /// Handles a message of a home or of a shard.
    pub(crate) fn handle(&mut self, message: ToCluster, now: Millis) {
        match message {
            ToCluster::Publish(event) => return self.publish(event, None, now),
            ToCluster::PublishAndConfirm(event, reply_to) => {
                return self.publish(*event, Some(reply_to), now);
            }
            ToCluster::Ask(reply_to, question) => return self.ask(reply_to, question, now),
            ToCluster::Terminate(reply_to, app, user_id) => {
                return self.ask_nodes(reply_to, Asking::Terminate(app, user_id), now);
            }
            ToCluster::MorePlaces(reply_to, app) => return self.more_places(reply_to, app, now),
            ToCluster::Registered(registered) => return self.registered(*registered),
            ToCluster::Alone(shard) => return self.home_is_alone(shard),
            // Homes answer these themselves, and register everything afterwards.
            _ if self.alone => return,
            ToCluster::Users(steps) => return self.users(steps, now),
            _ => {}
        }
        if !self.is_unaware(&message)
            && let Some((command, partition)) = self.command_of(message)
        {
            self.push(partition, command, None, now);
        }
    }

    /// A home has learnt that it is alone.
    fn home_is_alone(&mut self, shard: ShardId) {
        if let Some(owed) = self.unaware.get_mut(&shard) {
            *owed -= 1;
            if *owed == 0 {
                self.unaware.remove(&shard);
            }
        }
    }

    /// Whether the home of a channel has sent this before it learnt that it was alone. It has
    /// answered itself since, and registers what has become of it.
    fn is_unaware(&self, message: &ToCluster) -> bool {
        let key = match message {
            ToCluster::Join(key, _)
            | ToCluster::Leave(key)
            | ToCluster::Count(key, _)
            | ToCluster::Part(key, _) => key,
            ToCluster::Enter(enter) => &enter.key,
            _ => return false,
        };
        self.unaware.contains_key(&self.directory.topology().home_of(key))
    }

    /// The command of a home about one channel, and its partition.
    fn command_of(&self, message: ToCluster) -> Option<(Command, u16)> {
        let path = |key: &ChannelKey| self.directory.channel_path(key);
        let vacating = |key: &ChannelKey| self.directory.flags(key, EventKind::ChannelVacated);
        let parting = |key: &ChannelKey| self.directory.flags(key, EventKind::MemberRemoved);
        Some(match message {
            ToCluster::Join(key, count) => {
                let (channel, partition) = path(&key)?;
                (Command::Join(channel, count, vacating(&key)), partition)
            }
            ToCluster::Leave(key) => {
                let (channel, partition) = path(&key)?;
                (Command::Leave(channel, vacating(&key)), partition)
            }
            ToCluster::Count(key, count) => {
                let (channel, partition) = path(&key)?;
                (Command::Count(channel, count), partition)
            }
            ToCluster::Enter(enter) => {
                let Enter { key, member, max_members } = *enter;
                let (channel, partition) = path(&key)?;
                let flags = parting(&key);
                (enter_command(channel, &member, max_members, flags), partition)
            }
            ToCluster::Part(key, user_id) => {
                let (channel, partition) = path(&key)?;
                (Command::Part(channel, (*user_id).into(), parting(&key)), partition)
            }
            _ => return None,
        })
    }

    pub(super) fn push(
        &mut self,
        partition: u16,
        command: Command,
        confirm: Option<ReplyTo>,
        now: Millis,
    ) {
        if let Some(member) = self.member(partition) {
            member.partition.push(command, confirm, now);
        }
    }

    /// Publishes an event, or tells its publisher that it cannot be published.
    fn publish(&mut self, event: Event, confirm: Option<ReplyTo>, now: Millis) {
        if self.serves_alone() {
            self.deliver(event);
            confirm.into_iter().for_each(|to| self.effects.answer(to, Answer::Barrier));
            return;
        }
        let Some((channel, partition)) = self.directory.channel_path(&event.key) else {
            // The app was removed, and so are its subscribers.
            confirm.into_iter().for_each(|to| self.effects.answer(to, Answer::Barrier));
            return;
        };
        let refused = confirm.is_some() && self.is_hopeless(partition, now);
        if self.alone || !self.has_room(partition) || refused {
            match confirm {
                Some(to) => self.effects.answer(to, Answer::Away),
                None => self.dropped += 1,
            }
            return;
        }
        let Event { frame, except, retain, .. } = event;
        let retained = retain.map(|retain| retained(*retain));
        let command = Command::Publish { channel, frame, except, retained };
        self.push(partition, command, confirm, now);
    }

    /// Hands an event to the home on this node.
    pub(super) fn deliver(&mut self, event: Event) {
        let home = self.directory.topology().home_of(&event.key);
        self.effects.tell(home, FromCluster::Event(event));
    }

    /// Whether one more event may wait for a partition. Those that are away fill no more than their
    /// share, and the others go on.
    fn has_room(&self, partition: u16) -> bool {
        let partition = self.partition(partition);
        partition.is_some_and(|partition| partition.waiting_bytes() < self.backlog_share())
    }

    /// Whether a publisher, or who asks, would only wait to be told that Redis is away.
    pub(super) fn is_hopeless(&self, partition: u16, now: Millis) -> bool {
        let away_since = self.partition(partition).and_then(Partition::away_since);
        away_since.is_some_and(|since| now.since(since) > self.settings.patience)
    }

    fn users(&mut self, steps: Steps, now: Millis) {
        for (key, step) in steps {
            if let Some((user, partition)) = self.directory.user_path(&key) {
                self.push(partition, step_command(user, step), None, now);
            }
        }
    }

    /// Takes a part of what a home has registered with a partition.
    fn registered(&mut self, registered: Registered) {
        let Registered { partition, channels, events, users, last } = registered;
        let mut commands = Vec::new();
        let anew = self.member(partition).is_some_and(|member| member.emptied);
        for (key, count, members) in channels {
            let path = self.directory.channel_path(&key);
            let Some((channel, _)) = path.filter(|&(_, of)| of == partition) else { continue };
            let anew = |flags| JoinFlags { anew, ..flags };
            let flags = anew(self.directory.flags(&key, EventKind::ChannelVacated));
            commands.push(Command::Join(channel.clone(), count, flags));
            let flags = anew(self.directory.flags(&key, EventKind::MemberRemoved));
            // They are members, however many there are.
            let enter = |member| enter_command(channel.clone(), member, None, flags);
            commands.extend(members.iter().map(|member| enter(member)));
        }
        for event in events {
            let path = self.directory.channel_path(&event.key);
            let kept = path.filter(|&(_, of)| of == partition).zip(event.retain);
            commands.extend(kept.map(|((channel, _), retain)| {
                Command::Keep(channel, retained(*retain), event.frame)
            }));
        }
        for (key, step) in users {
            let path = self.directory.user_path(&key);
            let user = path.filter(|&(_, of)| of == partition);
            commands.extend(user.map(|(user, _)| step_command(user, step)));
        }
        let Some(member) = self.member(partition) else { return };
        commands.into_iter().for_each(|command| member.partition.register(command));
        if last && member.partition.registered() {
            self.ask_shards_to_register(partition);
        }
    }

    /// Has all homes register everything with a partition.
    pub(super) fn ask_shards_to_register(&mut self, partition: u16) {
        let shards = self.directory.topology().shards();
        let asked = |partition: &mut Partition| partition.ask_shards(shards.len());
        if self.member(partition).is_some_and(|member| asked(&mut member.partition)) {
            let id = self.partition_id(partition);
            self.effects.tell_all(shards, || FromCluster::Register(id));
        }
    }
}

fn enter_command(
    channel: ChannelPath,
    member: &Member,
    max_members: Option<usize>,
    flags: JoinFlags,
) -> Command {
    let max = max_members.map_or(0, |max| u32::try_from(max).unwrap_or(u32::MAX));
    let user_id = (*member.user_id).into();
    Command::Enter { channel, user_id, member: MemberText::of(member), max, flags }
}

const fn step_command(user: UserPath, step: Step) -> Command {
    match step {
        Step::Arrived => Command::Online(user),
        Step::Left => Command::Offline(user),
        Step::Watch => Command::Watch(user),
        Step::Unwatch => Command::Unwatch(user),
    }
}

/// The part of an event that is kept, at least for a millisecond.
fn retained(retain: Retain) -> Retained {
    let ttl_ms = u64::try_from(retain.ttl.as_millis()).unwrap_or(u64::MAX);
    Retained { data: retain.data, ttl_ms: ttl_ms.max(1) }
}
