//! The world of one run: processes, their clients, Redis, and the driver that lets one of them at a
//! time do something, or lets something go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ringwave::testing::apps::{Admission, App};
use ringwave::testing::channels::{ChannelEvent, KeyHash};
use ringwave::testing::cluster::SimRedis;
use ringwave::testing::front::gateway::{GatewayCommand, Publication};
use ringwave::testing::id::AppIndex;
use ringwave::testing::time::Millis;
use ringwave_ring::sim::{Dice, SimNet};
use tokio::sync::oneshot;

use super::plan::ClusterPlan;
use super::process::Process;
use crate::client::{Channel, Client, Phase, Surroundings};
use crate::ledger::{Ledger, Source};
use crate::world::{channels, event, users};

/// The time for which a connection to a Redis that stands still is kept.
const SILENCE: Duration = Duration::from_secs(5);

/// An inbox that may be cut in a run.
const SMALL_INBOX: u64 = 1 << 20;

pub(crate) struct Cluster {
    pub(super) plan: ClusterPlan,
    pub(super) seed: u64,
    pub(super) dice: Dice,
    pub(super) net: SimNet,
    pub(super) redis: SimRedis,
    /// The data that a replica has, which lags behind.
    pub(super) replica: SimRedis,
    /// The time at which the replica was last up to date.
    pub(super) copied: Millis,
    /// The time until which Redis is away, and since when.
    pub(super) away_until: Option<(Millis, Millis)>,
    /// Processes that live, and those that have died.
    pub(super) processes: Vec<Option<Process>>,
    pub(super) channels: Vec<Channel>,
    users: Vec<String>,
    pub(super) clients: Vec<Client>,
    /// By client: its process and the shard there.
    pub(super) places: Vec<(usize, usize)>,
    pub(super) ledger: Ledger,
    pub(super) now: Millis,
    pub(super) terminated: Vec<(usize, String)>,
    pub(super) totals: Totals,
    /// Whether webhooks may have been told too little in this epoch, because a node is gone that
    /// knew of something.
    pub(super) notices_lost: bool,
    /// Clients of processes that had lost messages when they died.
    pub(super) excused: BTreeSet<usize>,
    /// Whether permits may have been lent twice, because a node that lives was buried.
    permits_lost: bool,
    /// Whether members may be too many, because those of a node that was buried or alone returned
    /// to channels that had filled.
    pub(super) overfull: bool,
    /// Occupations of channels and memberships that webhooks were told of, less those that ended.
    pub(super) noticed: BTreeMap<(usize, String, String), i64>,
    /// A digest of the run so far, which tells two runs apart.
    digest: u64,
}

/// The totals of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub delivered: u64,
    pub unconfirmed: u64,
    pub clients: u64,
    pub deaths: u64,
    pub drains: u64,
    pub reloads: u64,
    pub alone: u64,
    pub standstills: u64,
    pub absences: u64,
    pub failovers: u64,
    pub emptied: u64,
    pub evictions: u64,
    pub cut_off: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.unconfirmed += other.unconfirmed;
        self.clients += other.clients;
        self.deaths += other.deaths;
        self.drains += other.drains;
        self.reloads += other.reloads;
        self.alone += other.alone;
        self.standstills += other.standstills;
        self.absences += other.absences;
        self.failovers += other.failovers;
        self.emptied += other.emptied;
        self.evictions += other.evictions;
        self.cut_off += other.cut_off;
    }
}

impl Cluster {
    pub(crate) fn new(plan: ClusterPlan, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let (net, hash) = (SimNet::default(), KeyHash::seeded(seed));
        let redis = SimRedis::new(plan.settings.partitions, "run-0");
        let process = |number| Some(Process::new(&plan, &net, number as u64, seed, Millis(0)));
        Self {
            processes: (0..plan.nodes).map(process).collect(),
            replica: redis.clone(),
            channels: channels(&plan.node, &hash, &mut dice),
            users: users(&plan.node, &hash, &mut dice),
            seed,
            dice,
            net,
            redis,
            copied: Millis(0),
            away_until: None,
            clients: Vec::new(),
            places: Vec::new(),
            ledger: Ledger::of_cluster(),
            now: Millis(0),
            terminated: Vec::new(),
            totals: Totals::default(),
            notices_lost: false,
            excused: BTreeSet::new(),
            permits_lost: false,
            overfull: false,
            noticed: BTreeMap::new(),
            digest: 0,
            plan,
        }
    }

    /// Runs everything from the first connection to the last. Returns a digest of the run and its
    /// totals.
    pub(crate) fn run(mut self) -> (u64, Totals) {
        for _ in 0..self.plan.epochs {
            for _ in 0..self.plan.steps {
                self.step();
            }
            self.rest();
            self.judge();
            (self.notices_lost, self.permits_lost) = (false, false);
        }
        self.finish();
        self.totals.delivered = self.ledger.delivered;
        self.totals.unconfirmed = self.ledger.refused;
        self.totals.clients = self.clients.len() as u64;
        (self.digest, self.totals)
    }

    fn step(&mut self) {
        self.ledger.step += 1;
        match self.dice.below(100) {
            0..30 => self.some_turn(),
            30..60 => self.some_link(),
            60..64 => {
                self.now =
                    self.now + Duration::from_millis(self.dice.below(self.plan.stride_ms) as u64);
            }
            64..69 => self.connect(),
            69..77 => self.publish(),
            77 if self.dice.chance(100) => self.terminate(),
            78 => self.some_fault(),
            _ => self.some_client(),
        }
        self.ledger.poll_answers();
        self.watch_silence();
        self.note(self.ledger.delivered ^ self.now.0);
    }

    /// Notes which processes were silent for so long that the cluster takes something from them.
    pub(super) fn watch_silence(&mut self) {
        let settings = &self.plan.settings;
        // The interval at which leases are renewed, and at which nodes look for those that are
        // over.
        let renewal = Duration::from_secs(2);
        let forgotten = (settings.lease + settings.retention).saturating_sub(2 * renewal);
        for process in self.processes.iter_mut().flatten() {
            let silence = process.heard.iter().map(|heard| self.now.since(*heard)).max();
            let silence = silence.unwrap_or_default();
            let buried = silence >= settings.lease.saturating_sub(renewal);
            self.permits_lost |= buried;
            self.overfull |= buried;
            self.notices_lost |= silence >= forgotten;
            process.may_lose |= silence >= forgotten
                || (buried && self.ledger.disordered)
                || settings.inbox < SMALL_INBOX;
            if process.went_alone() {
                self.totals.alone += 1;
                self.ledger.divided = true;
                (self.permits_lost, self.overfull) = (true, true);
            }
            process.may_lose |= self.ledger.divided;
            self.notices_lost |= process.may_lose;
        }
    }

    /// A process that lives and does not stand still.
    pub(super) fn some_process(&mut self) -> Option<usize> {
        let index = self.dice.below(self.processes.len());
        let process = self.processes[index].as_ref()?;
        (process.still_until <= self.now).then_some(index)
    }

    /// One that does not stop either.
    pub(super) fn some_server(&mut self) -> Option<usize> {
        self.some_process().filter(|&index| !self.process(index).is_stopping())
    }

    pub(super) fn process(&mut self, index: usize) -> &mut Process {
        self.processes[index].as_mut().expect("a process that lives")
    }

    fn some_turn(&mut self) {
        let Some(index) = self.some_process() else { return };
        let (shards, now) = (self.plan.node.shards, self.now);
        let which = self.dice.below(shards + 1);
        let process = self.process(index);
        if which == shards {
            process.turn_node_if_due(now);
        } else {
            process.turn_if_due(which, now);
        }
        self.after_turns(index);
    }

    /// Takes note of what a process has done.
    pub(super) fn after_turns(&mut self, index: usize) {
        let Self { processes, clients, places, net, now, noticed, .. } = self;
        let Some(process) = &mut processes[index] else { return };
        for (client, place) in clients.iter_mut().zip(places) {
            if place.0 == index {
                process.loops.watch_close(client, net, *now);
            }
        }
        for notice in process.notices() {
            let (user, change) = match notice.event {
                ChannelEvent::Occupied => (String::new(), 1),
                ChannelEvent::Vacated => (String::new(), -1),
                ChannelEvent::MemberAdded(user) => (user.to_string(), 1),
                ChannelEvent::MemberRemoved(user) => (user.to_string(), -1),
                _ => continue,
            };
            let key = (usize::from(notice.app.0), notice.channel.to_string(), user);
            *noticed.entry(key).or_default() += change;
        }
        self.end_if_stopped(index);
    }

    /// Lets a step of some connection to Redis happen, or be lost.
    fn some_link(&mut self) {
        let Some(index) = self.some_process() else { return };
        let partition = self.dice.below(usize::from(self.plan.settings.partitions)) as u16;
        let (action, bite) = (self.dice.below(4), 1 + self.dice.below(self.plan.bite));
        let (lost, now) = (self.dice.chance(self.plan.lost), self.now);
        if let Some((since, until)) = self.away_until {
            if now < until {
                if now.since(since) > SILENCE {
                    self.process(index).node.disconnect(partition, now);
                }
                return;
            }
            self.away_until = None;
        }
        let Self { processes, redis, .. } = self;
        let Some(process) = &mut processes[index] else { return };
        match action {
            0 => {
                let connected = process.node.connect(partition, redis, !lost, now);
                if connected && !lost {
                    process.heard[usize::from(partition)] = now;
                }
            }
            1 => {
                if process.node.send(partition, redis, !lost, now) {
                    process.called[usize::from(partition)] = now;
                }
            }
            2 if lost => process.node.disconnect(partition, now),
            2 => {
                if process.node.hear(partition, now) && process.node.is_connected(partition) {
                    process.heard[usize::from(partition)] = process.called[usize::from(partition)];
                }
            }
            _ => drop(process.node.read(partition, redis, bite, now)),
        }
        self.after_turns(index);
    }

    fn connect(&mut self) {
        let Some(index) = self.some_server() else { return };
        let shard = self.dice.below(self.plan.node.shards);
        let app = self.dice.below(2);
        let live = self.clients.iter().filter(|client| client.phase != Phase::Gone).count();
        let now = self.now;
        let process = self.process(index);
        process.loops.turn(shard, now);
        let of = &process.loops.shards[shard];
        let full = of.plane().stalled() || of.free_places() == 0;
        let app = Arc::clone(process.apps.get(AppIndex(app as u16)).unwrap());
        self.after_turns(index);
        if full || live >= self.plan.node.clients {
            return;
        }
        let Some(admission) = Admission::take(&app) else {
            let (reply, _answer) = oneshot::channel();
            return self.process(index).loops.commands[shard]
                .push(GatewayCommand::MorePlaces { app, reply });
        };
        let fd = self.net.connect_with(self.plan.node.socket);
        let id = self.clients.len();
        let user = self.users[id % self.users.len()].clone();
        let mut client = Client::new(id, fd, shard, &app, user, now);
        let process = self.process(index);
        process.loops.open(&mut client, admission, &[]);
        self.clients.push(client);
        self.places.push((index, shard));
        self.check_quota();
    }

    /// Checks that there are no more connections than the quota allows, unless nodes were alone:
    /// what they have admitted stays.
    fn check_quota(&self) {
        let live = self.processes.iter().flatten();
        let open: u32 =
            live.map(|of| of.apps.get(AppIndex(1)).unwrap().counters.connections()).sum();
        let lost = self.permits_lost || self.totals.alone > 0;
        assert!(open <= self.plan.quota || lost, "{open} connections");
    }

    fn publish(&mut self) {
        let Some(index) = self.some_server() else { return };
        let (app, shard) = (self.dice.below(2), self.dice.below(self.plan.node.shards));
        let of_app = |channel: &(usize, &Channel)| channel.1.app == app;
        let of_app: Vec<usize> =
            self.channels.iter().enumerate().filter(of_app).map(|(index, _)| index).collect();
        let (mut ids, mut events) = (Vec::new(), Vec::new());
        for _ in 0..1 + self.dice.below(3) {
            let channel = self.dice.one_of(&of_app);
            let except = self.some_subscriber(channel).filter(|_| self.dice.chance(200));
            let kept = self.channels[channel].cache;
            let filler = self.dice.below(self.plan.node.filler);
            let source = Source::Shard(index * self.plan.node.shards + shard);
            let id = self.ledger.publish(channel, source, except, kept, filler);
            events.push(self.publication(index, channel, id, except));
            ids.push(id);
        }
        let (reply, answer) = oneshot::channel();
        self.ledger.ask(answer, ids);
        self.process(index).loops.commands[shard].push(GatewayCommand::Publish { events, reply });
    }

    fn publication(
        &mut self,
        process: usize,
        channel: usize,
        id: usize,
        except: Option<usize>,
    ) -> Publication {
        let wants_state = self.dice.chance(100);
        let except = except.map(|client| &self.clients[client]);
        let hash = &self.processes[process].as_ref().unwrap().hash;
        let event = event(&self.channels[channel], hash, &self.ledger.message(id).data, except);
        Publication { event, wants_state }
    }

    fn some_subscriber(&mut self, channel: usize) -> Option<usize> {
        let client = self.dice.below(self.clients.len().max(1));
        let of = self.clients.get(client)?;
        (of.is_subscribed(channel) && of.socket_id.is_some()).then_some(client)
    }

    fn terminate(&mut self) {
        let Some(of) = self.dice.below(self.clients.len() + 1).checked_sub(1) else { return };
        let Some(index) = self.some_server() else { return };
        let (app, user) = (self.clients[of].app, self.clients[of].user.clone());
        self.terminated.push((app, user.clone()));
        let (reply, _answer) = oneshot::channel();
        let process = self.process(index);
        let app = Arc::clone(process.apps.get(AppIndex(app as u16)).unwrap());
        process.loops.commands[0].push(GatewayCommand::Terminate { app, user_id: user, reply });
    }

    fn some_client(&mut self) {
        let live = |client: &&Client| client.phase != Phase::Gone;
        let live: Vec<usize> = self.clients.iter().filter(live).map(|client| client.id).collect();
        if live.is_empty() {
            return;
        }
        let id = self.dice.one_of(&live);
        let action = self.dice.below(1000);
        let channel = self.dice.below(self.channels.len());
        let filler = self.dice.below(self.plan.node.filler);
        let app = self.app_of(id);
        self.with_client(id, |client, with| {
            let speaks = client.is_open() && !client.is_busy();
            let knows = with.channels[channel].app == client.app;
            match action {
                0..300 => drop(client.read(usize::MAX, with)),
                300..540 => drop(client.write(usize::MAX, with.net, with.now)),
                _ if !speaks => {}
                540..560 => client.sign_in(&app, with),
                560..730 if knows => client.subscribe(channel, &app, with),
                730..800 if knows => {
                    client.subscribe(channel, &app, with);
                    client.whisper(channel, filler, with);
                    if with.dice.chance(300) {
                        client.unsubscribe(channel, with);
                        client.whisper(channel, filler, with);
                    }
                }
                800..880 if knows => client.unsubscribe(channel, with),
                880..960 if knows => client.whisper(channel, filler, with),
                960..970 => client.leave(with),
                970..980 => client.vanish(with),
                _ => {}
            }
        });
    }

    pub(super) fn app_of(&self, client: usize) -> Arc<App> {
        let index = AppIndex(self.clients[client].app as u16);
        // All processes have the same rules.
        let process = self.processes.iter().flatten().next().expect("a process lives");
        Arc::clone(process.apps.get(index).unwrap())
    }

    pub(super) fn with_client<T>(
        &mut self,
        id: usize,
        act: impl FnOnce(&mut Client, &mut Surroundings<'_>) -> T,
    ) -> T {
        let process = self.processes[self.places[id].0].as_ref();
        let mut with = Surroundings {
            net: &self.net,
            dice: &mut self.dice,
            ledger: &mut self.ledger,
            channels: &self.channels,
            users: &self.users,
            now: self.now,
            quiet: false,
            draining: process.is_none_or(|process| process.may_lose || process.is_stopping()),
            members_max: self.plan.node.members_max,
            switched_off: false,
            terminated: &self.terminated,
        };
        act(&mut self.clients[id], &mut with)
    }

    /// Whether the process of a client lives, and has dropped no client event.
    pub(super) fn is_heard(&self, client: usize) -> bool {
        let process = self.processes[self.places[client].0].as_ref();
        process.is_some_and(|of| of.node.losses().dropped == 0 && !of.is_stopping())
    }

    /// The clients whose process may have lost messages.
    pub(super) fn clients_that_may_lose(&self) -> BTreeSet<usize> {
        let loses = |process: usize| self.processes[process].as_ref().is_some_and(|of| of.may_lose);
        let here = (0..self.places.len()).filter(|&client| loses(self.places[client].0));
        here.chain(self.excused.iter().copied()).collect()
    }

    /// Ends all trouble.
    pub(super) fn heal(&mut self) {
        self.away_until = None;
        for process in self.processes.iter_mut().flatten() {
            process.still_until = self.now;
        }
    }

    pub(super) fn note(&mut self, number: u64) {
        self.digest = (self.digest ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(7);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?} {:?}", self.plan, self.totals);
        }
    }
}
