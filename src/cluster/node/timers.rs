//! The work that the clock alone brings about, and the state for the operator.

use std::time::Duration;

use super::records::retain;
use super::report::Report;
use super::{Member, Node};
use crate::channels::{Answer, Event, FromCluster};
use crate::cluster::partition::Expired;
use crate::cluster::settings::WhenAway;
use crate::cluster::status::{ClusterState, ClusterStatus};
use crate::cluster::wire::Command;
use crate::time::Millis;

/// The work that is not done at each tick.
const SECOND: Duration = Duration::from_secs(1);

/// The interval at which the log repeats that entries cannot be read, or calls not be kept.
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// The number of backlogs of a partition that changes of subscriptions may fill while Redis is
/// away. They cannot be refused as events can, because clients come and go.
const CHANGES_MAX: usize = 2;

impl Node {
    /// Does what is due by the clock.
    pub(crate) fn tick(&mut self, now: Millis) {
        let every_second = now.since(self.last_second) >= SECOND;
        if every_second {
            self.last_second = now;
            self.report_junk(now);
            self.report_crowding(now);
            let dropped = std::mem::take(&mut self.dropped);
            if dropped > 0 {
                self.effects.report(Report::Dropped(dropped));
            }
        }
        for (partition, reply_to) in self.questions.expire(now) {
            self.silent(partition, reply_to);
        }
        self.inquiries.expire(now);
        self.expire_publishes(now);
        self.tick_quotas(now, every_second);
        self.watch_absence(now);
        self.watch_backlogs(now);
    }

    /// The time until [`tick`](Self::tick) has something to do that somebody waits for.
    pub(crate) fn pause(&self) -> Duration {
        let idle = self.questions.is_empty()
            && self.inquiries.is_empty()
            && !self.quotas.is_waiting()
            && self.is_settled();
        if idle { SECOND } else { SECOND / 20 }
    }

    /// The state for the operator.
    pub(crate) fn status(&self, now: Millis) -> ClusterStatus {
        let partitions = || self.partitions.iter().map(|member| &member.partition);
        let away_since = partitions().filter_map(|partition| partition.away_since()).min();
        let (unreadable, other_versions) = self.junk();
        let nodes = self.partitions.first().into_iter().flat_map(Member::addresses);
        ClusterStatus {
            name: self.settings.name.clone(),
            redis: self.settings.place.to_string(),
            state: match (self.alone, away_since) {
                (true, _) => ClusterState::Alone,
                (false, Some(_)) => ClusterState::Away,
                (false, None) => ClusterState::Serving,
            },
            away_s: away_since.map(|since| now.since(since).as_secs()),
            nodes: nodes.map(String::from).collect(),
            repeated_calls: partitions().map(|partition| partition.repeated()).sum(),
            backlog_bytes: self.waiting_bytes(),
            unreadable,
            other_versions,
        }
    }

    /// The cluster is back: homes stop to answer themselves.
    pub(super) fn return_from_alone(&mut self) {
        if std::mem::take(&mut self.alone) {
            self.restore_quotas();
            let shards = self.directory.topology().shards();
            self.effects.tell_all(shards, || FromCluster::Alone(false));
        }
    }

    fn expire_publishes(&mut self, now: Millis) {
        // However impatient: a call of a Redis that serves takes a moment.
        let patience = self.settings.patience.max(SECOND);
        let limit = Millis(now.0.saturating_sub(u64::try_from(patience.as_millis()).unwrap_or(0)));
        for member in &mut self.partitions {
            let Expired { publishers, dropped } = member.partition.expire(limit);
            self.effects.answer_all(publishers, || Answer::Away);
            self.dropped += dropped;
        }
    }

    /// Goes on alone if Redis is away for longer than the patience.
    fn watch_absence(&mut self, now: Millis) {
        // A node that is in some partition is not alone, and one that has just returned is busy.
        let all = self.partitions.iter().map(|member| member.partition.outside_since());
        let latest = all.collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max());
        let Some(since) = latest.filter(|_| !self.alone) else { return };
        let away = now.since(since);
        if self.settings.when_away == WhenAway::Local && away > self.settings.patience {
            self.effects.report(Report::Alone { away });
            self.go_alone(false, now);
        }
    }

    /// Gives up what waits for a partition that is away, if it is too much.
    fn watch_backlogs(&mut self, now: Millis) {
        let most = CHANGES_MAX.saturating_mul(self.backlog_share());
        let overflows = |member: &Member| {
            !member.partition.has_entered() && member.partition.waiting_bytes() > most
        };
        if !self.partitions.iter().any(overflows) {
            return;
        }
        self.effects.report(Report::Overflowed { bytes: self.waiting_bytes() });
        if !self.partitions.iter().any(|member| member.partition.has_entered()) {
            return self.go_alone(true, now);
        }
        for index in 0..self.partitions() {
            if self.member(index).is_some_and(|member| overflows(member)) {
                self.give_up(index, true, false, now);
            }
        }
    }

    /// Has homes answer themselves. What waits for Redis is given up, and the node returns under
    /// another name: the old one is buried when its lease is over. `cut_off`: the subscribers have
    /// to return then, because they miss messages.
    fn go_alone(&mut self, cut_off: bool, now: Millis) {
        self.alone = true;
        let local = self.settings.when_away == WhenAway::Local;
        let topology = self.directory.topology();
        self.effects.tell_all(topology.shards(), || FromCluster::Alone(true));
        topology.shards().for_each(|shard| *self.unaware.entry(shard).or_default() += 1);
        for index in 0..self.partitions() {
            self.give_up(index, cut_off, local, now);
        }
        if local {
            self.lift_quotas();
        }
    }

    /// Drops what waits for a partition, but delivers the events of it `here` if there is nobody
    /// else. The node enters under another name, and homes register and ask anew.
    fn give_up(&mut self, partition: u16, cut_off: bool, here: bool, now: Millis) {
        let Some(member) = self.member(partition) else { return };
        let waiting: Vec<_> = member.partition.drain().collect();
        self.rename(partition, false, cut_off, now);
        for (command, confirm) in waiting {
            let delivered = here && self.deliver_here(command);
            let answer = || if delivered { Answer::Barrier } else { Answer::Away };
            confirm.into_iter().for_each(|to| self.effects.answer(to, answer()));
        }
    }

    /// Delivers an event that waited for Redis to the subscribers of this node.
    fn deliver_here(&mut self, command: Command) -> bool {
        let Command::Publish { channel, frame, except, retained } = command else { return false };
        if let Some((_, key)) = self.directory.channel(&channel) {
            let retain = retained.map(|retained| Box::new(retain(retained)));
            self.deliver(Event { key, frame, except, retain });
        }
        true
    }

    fn junk(&self) -> (u64, u64) {
        let all = self.partitions.iter().map(|member| member.partition.junk());
        all.fold((0, 0), |(a, b), (unreadable, foreign)| (a + unreadable, b + foreign))
    }

    fn report_junk(&mut self, now: Millis) {
        let (reported, at) = self.junk_reported;
        let (unreadable, foreign) = self.junk();
        let quiet = at.is_some_and(|at| now.since(at) < LOG_PERIOD);
        if (unreadable, foreign) != reported && !quiet {
            self.junk_reported = ((unreadable, foreign), Some(now));
            self.effects.report(Report::Junk { unreadable, foreign });
        }
    }

    fn report_crowding(&mut self, now: Millis) {
        let (reported, at) = self.crowding_reported;
        let all: u64 = self.partitions.iter().map(|of| of.partition.crowded_out()).sum();
        let quiet = at.is_some_and(|at| now.since(at) < LOG_PERIOD);
        if all > reported && !quiet {
            self.crowding_reported = (all, Some(now));
            self.effects.report(Report::CrowdedOut(all - reported));
        }
    }
}
