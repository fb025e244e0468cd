//! The world of one run: processes, their clients, Redis, and the driver that lets one of them at a
//! time do something, or lets something go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ringwave::testing::apps::{Admission, App};
use ringwave::testing::channels::{ChannelEvent, Event, KeyHash, Retain};
use ringwave::testing::cluster::SimRedis;
use ringwave::testing::front::gateway::{GatewayCommand, Publication};
use ringwave::testing::id::AppIndex;
use ringwave::testing::protocol::names::ChannelName;
use ringwave::testing::protocol::outbound;
use ringwave::testing::time::Millis;
use ringwave_ring::sim::{Dice, SimNet};
use tokio::sync::oneshot;
use tracing::debug;

use super::plan::ClusterPlan;
use super::process::Process;
use crate::client::{Channel, Client, Phase, Surroundings};
use crate::ledger::{Ledger, Source};
use crate::world::{channels, users};

const CACHE_TTL: Duration = Duration::from_secs(600);

/// The time for which a connection to a Redis that stands still is kept.
const SILENCE: Duration = Duration::from_secs(5);

/// An inbox that may be cut in a run.
const SMALL_INBOX: u64 = 1 << 20;

pub(crate) struct Cluster {
    pub(super) plan: ClusterPlan,
    seed: u64,
    pub(super) dice: Dice,
    net: SimNet,
    pub(super) redis: SimRedis,
    /// The data that a replica has, which lags behind.
    replica: SimRedis,
    /// The time at which the replica was last up to date.
    copied: Millis,
    /// The time until which Redis is away, and since when.
    away_until: Option<(Millis, Millis)>,
    /// Processes that live, and those that have died.
    pub(super) processes: Vec<Option<Process>>,
    pub(super) channels: Vec<Channel>,
    users: Vec<String>,
    pub(super) clients: Vec<Client>,
    /// By client: its process and the shard there.
    places: Vec<(usize, usize)>,
    pub(super) ledger: Ledger,
    pub(super) now: Millis,
    pub(super) terminated: Vec<(usize, String)>,
    pub(super) totals: Totals,
    /// Whether webhooks may have been told too little in this epoch, because a node is gone that
    /// knew of something.
    pub(super) notices_lost: bool,
    /// Clients of processes that had lost messages when they died.
    excused: BTreeSet<usize>,
    /// Whether permits may have been lent twice, because a node that lives was buried.
    permits_lost: bool,
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
            78 => self.some_trouble(),
            _ => self.some_client(),
        }
        self.ledger.poll_answers();
        self.watch_silence();
        self.note(self.ledger.delivered ^ self.now.0);
    }

    /// Notes which processes were silent for so long that the cluster takes something from them.
    fn watch_silence(&mut self) {
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
            self.notices_lost |= silence >= forgotten;
            process.may_lose |= silence >= forgotten
                || (buried && self.ledger.disordered)
                || settings.inbox < SMALL_INBOX;
            self.notices_lost |= process.may_lose;
        }
    }

    /// A process that lives and does not stand still.
    fn some_process(&mut self) -> Option<usize> {
        let index = self.dice.below(self.processes.len());
        let process = self.processes[index].as_ref()?;
        (process.still_until <= self.now).then_some(index)
    }

    fn process(&mut self, index: usize) -> &mut Process {
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
            if place.0 != index || client.phase == Phase::Gone {
                continue;
            }
            let plane = process.shards[place.1].plane();
            if client.closing.is_none() && !client.conn.is_some_and(|key| plane.is_open(key)) {
                client.closing = Some(*now);
            }
            if client.released.is_none() && net.released(client.fd) {
                client.released = Some(*now);
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

    fn some_trouble(&mut self) {
        let chance = |rate| rate * 10;
        if self.dice.chance(chance(self.plan.standstill)) {
            self.stand_still();
        }
        if self.dice.chance(chance(self.plan.death)) {
            self.die();
        }
        if self.dice.chance(chance(self.plan.absence)) {
            self.leave_redis();
        }
        if self.dice.chance(chance(self.plan.emptied)) {
            self.empty_redis();
        }
        if self.dice.chance(chance(self.plan.eviction)) {
            self.evict();
        }
        // A replica lags by less than a lease.
        if self.dice.chance(300) || self.now.since(self.copied) > self.plan.settings.lease / 2 {
            self.replica = self.redis.clone();
            self.copied = self.now;
        } else if self.dice.chance(chance(self.plan.failover)) {
            self.fail_over();
        }
    }

    fn stand_still(&mut self) {
        let Some(index) = self.some_process() else { return };
        self.totals.standstills += 1;
        let time = Duration::from_millis(self.dice.below(self.plan.standstill_ms) as u64);
        let until = self.now + time;
        debug!("{:?}: process {index} stands still until {until:?}", self.now);
        self.process(index).still_until = until;
    }

    /// A process is killed, and another one is started.
    fn die(&mut self) {
        let index = self.dice.below(self.processes.len());
        let Some(process) = self.processes[index].take() else { return };
        if process.may_lose {
            let here = (0..self.places.len()).filter(|&client| self.places[client].0 == index);
            self.excused.extend(here);
        }
        self.totals.deaths += 1;
        debug!("{:?}: process {index} dies", self.now);
        self.notices_lost = true;
        for id in 0..self.clients.len() {
            if self.places[id].0 == index && self.clients[id].phase != Phase::Gone {
                self.with_client(id, |client, with| client.vanish(with));
            }
        }
        let number = self.processes.len() as u64;
        let process = Process::new(&self.plan, &self.net, number, self.seed, self.now);
        self.processes.push(Some(process));
    }

    fn leave_redis(&mut self) {
        self.totals.absences += 1;
        let time = Duration::from_millis(self.dice.below(self.plan.absence_ms) as u64);
        debug!("{:?}: Redis is away for {time:?}", self.now);
        self.away_until = Some((self.now, self.now + time));
        if self.dice.chance(500) {
            self.disconnect_all();
        }
    }

    fn disconnect_all(&mut self) {
        let now = self.now;
        for process in self.processes.iter_mut().flatten() {
            (0..self.plan.settings.partitions).for_each(|of| process.node.disconnect(of, now));
        }
    }

    fn fail_over(&mut self) {
        self.totals.failovers += 1;
        debug!("{:?}: Redis fails over to the data of {:?}", self.now, self.copied);
        self.ledger.disordered = true;
        self.notices_lost = true;
        self.redis = self.replica.clone();
        self.redis.rename(&format!("run-{}", self.ledger.step));
        self.disconnect_all();
    }

    fn empty_redis(&mut self) {
        self.totals.emptied += 1;
        debug!("{:?}: Redis is emptied", self.now);
        self.ledger.disordered = true;
        self.notices_lost = true;
        self.ledger.forget_kept();
        self.redis.empty();
        if self.dice.chance(500) {
            self.redis.rename(&format!("run-{}", self.ledger.step));
            self.disconnect_all();
        }
        (self.replica, self.copied) = (self.redis.clone(), self.now);
    }

    fn evict(&mut self) {
        let Some(index) = self.some_process() else { return };
        self.totals.evictions += 1;
        let partition = self.dice.below(usize::from(self.plan.settings.partitions)) as u16;
        let Self { processes, redis, now, .. } = self;
        if let Some(process) = &mut processes[index] {
            debug!("{now:?}: the inbox of process {index} is evicted");
            process.may_lose = true;
            redis.evict(&process.node, partition);
        }
    }

    fn connect(&mut self) {
        let Some(index) = self.some_process() else { return };
        let shard = self.dice.below(self.plan.node.shards);
        let app = self.dice.below(2);
        let live = self.clients.iter().filter(|client| client.phase != Phase::Gone).count();
        let now = self.now;
        let process = self.process(index);
        process.turn(shard, now);
        let of = &process.shards[shard];
        let full = of.plane().stalled() || of.free_places() == 0;
        let app = Arc::clone(process.apps.get(AppIndex(app as u16)).unwrap());
        self.after_turns(index);
        if full || live >= self.plan.node.clients {
            return;
        }
        let Some(admission) = Admission::take(&app) else {
            let (reply, _answer) = oneshot::channel();
            return self.process(index).commands[shard]
                .push(GatewayCommand::MorePlaces { app, reply });
        };
        let fd = self.net.connect_with(self.plan.node.socket);
        let id = self.clients.len();
        let user = self.users[id % self.users.len()].clone();
        let mut client = Client::new(id, fd, shard, &app, user, now);
        let process = self.process(index);
        let keys: Vec<_> = process.shards[shard].plane().keys().collect();
        process.shards[shard].open(fd, admission, Vec::new(), &[]);
        process.wake(shard);
        client.conn = process.shards[shard].plane().keys().find(|key| !keys.contains(key));
        self.clients.push(client);
        self.places.push((index, shard));
        self.check_quota();
    }

    /// Checks that there are no more connections than the quota allows.
    fn check_quota(&self) {
        let live = self.processes.iter().flatten();
        let open: u32 =
            live.map(|of| of.apps.get(AppIndex(1)).unwrap().counters.connections()).sum();
        assert!(open <= self.plan.quota || self.permits_lost, "{open} connections");
    }

    fn publish(&mut self) {
        let Some(index) = self.some_process() else { return };
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
        self.process(index).commands[shard].push(GatewayCommand::Publish { events, reply });
    }

    fn publication(
        &mut self,
        process: usize,
        channel: usize,
        id: usize,
        except: Option<usize>,
    ) -> Publication {
        let wants_state = self.dice.chance(100);
        let Channel { name, app, cache, .. } = &self.channels[channel];
        let parsed = ChannelName::parse(name, 200, false).unwrap();
        let socket_id = |of: usize| self.clients[of].socket_id.clone().unwrap().parse().unwrap();
        let data = &self.ledger.message(id).data;
        let retain = || Box::new(Retain { data: data.as_str().into(), ttl: CACHE_TTL });
        let hash = &self.processes[process].as_ref().unwrap().hash;
        let event = Event {
            key: hash.channel(AppIndex(*app as u16), parsed),
            frame: outbound::event("word", data, name),
            except: except.map(socket_id),
            retain: cache.then(retain),
        };
        Publication { event, wants_state }
    }

    fn some_subscriber(&mut self, channel: usize) -> Option<usize> {
        let client = self.dice.below(self.clients.len().max(1));
        let of = self.clients.get(client)?;
        (of.is_subscribed(channel) && of.socket_id.is_some()).then_some(client)
    }

    fn terminate(&mut self) {
        let Some(of) = self.dice.below(self.clients.len() + 1).checked_sub(1) else { return };
        let Some(index) = self.some_process() else { return };
        let (app, user) = (self.clients[of].app, self.clients[of].user.clone());
        self.terminated.push((app, user.clone()));
        let (reply, _answer) = oneshot::channel();
        let process = self.process(index);
        let app = Arc::clone(process.apps.get(AppIndex(app as u16)).unwrap());
        process.commands[0].push(GatewayCommand::Terminate { app, user_id: user, reply });
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
            draining: process.is_some_and(|process| process.may_lose),
            members_max: self.plan.node.members_max,
            switched_off: false,
            terminated: &self.terminated,
        };
        act(&mut self.clients[id], &mut with)
    }

    /// Whether the process of a client lives, and has dropped no client event.
    pub(super) fn is_heard(&self, client: usize) -> bool {
        let process = self.processes[self.places[client].0].as_ref();
        process.is_some_and(|process| process.node.losses().dropped == 0)
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
