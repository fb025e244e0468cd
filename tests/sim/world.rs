//! The world of one run: shards over simulated rings, their clients, a clock, and the driver that
//! lets one of them at a time do something.
//!
//! Shards sleep as the real ones do: a shard is turned when it has work, when its ring, its mailbox
//! or a command wakes it, or when its tick is due. While everything comes to rest the clock stands
//! still, so that no tick makes up for a wake-up that was forgotten.

mod reload;
mod rest;

use std::sync::Arc;
use std::time::Duration;

use ringwave::testing::apps::webhook::Webhooks;
use ringwave::testing::apps::{Admission, App, AppCounters, Apps};
use ringwave::testing::bus::{self, Outside, Port};
use ringwave::testing::channels::{Event, KeyHash, Retain, Topology};
use ringwave::testing::front::gateway::{GatewayCommand, Publication, Unserved};
use ringwave::testing::id::AppIndex;
use ringwave::testing::plane::BacklogLimits;
use ringwave::testing::protocol::names::ChannelName;
use ringwave::testing::protocol::origin::Origins;
use ringwave::testing::protocol::outbound;
use ringwave::testing::protocol::rules::{AppRules, ClientEvents, Limits, Standing};
use ringwave::testing::protocol::secret::Secret;
use ringwave::testing::shard::{InForce, Shard, ShardMessage, ShardParts, SocketIds};
use ringwave::testing::time::Millis;
use ringwave::testing::webhooks::NoticeSender;
use ringwave_ring::sim::{Dice, Faults, SimNet, SimRing};
use tokio::sync::oneshot;

use crate::client::{Channel, Client, Mood, Phase, Surroundings};
use crate::ledger::{Ledger, Source};
use crate::loops::Loops;
use crate::plan::Plan;
pub(crate) use reload::SWITCHED;

const CACHE_TTL: Duration = Duration::from_secs(600);

pub(crate) struct World {
    plan: Plan,
    dice: Dice,
    net: SimNet,
    apps: Arc<Apps>,
    loops: Loops,
    channels: Vec<Channel>,
    /// Ids of users, the same in both apps.
    users: Vec<String>,
    clients: Vec<Client>,
    ledger: Ledger,
    now: Millis,
    quiet: bool,
    draining: bool,
    hash: KeyHash,
    /// The control thread's way to the shards.
    control: Outside<ShardMessage>,
    /// Whether an app was off since everything was judged.
    switched_off: bool,
    terminated: Vec<(usize, String)>,
    terminations: Vec<oneshot::Receiver<Result<(), Unserved>>>,
    /// A digest of the run so far, which tells two runs apart.
    digest: u64,
}

/// A shard on a simulated ring. `seed` is that of the world.
fn simulated(
    plan: &Plan,
    net: &SimNet,
    apps: &Arc<Apps>,
    hash: KeyHash,
    seed: u64,
    port: Port<ShardMessage>,
) -> Shard<SimRing> {
    let seed = seed.wrapping_mul(1 << 20).wrapping_add(u64::from(port.id().0));
    let (slots, buffers, buffer) = (plan.slots, plan.buffers, plan.buffer);
    let ring = SimRing::new(net.clone(), seed, Faults::NONE, slots, buffers, buffer);
    Shard::new(ring.with_queue(plan.queue), parts(apps, plan.backlog, hash, seed, port))
}

impl World {
    pub(crate) fn new(plan: Plan, seed: u64) -> Self {
        let net = SimNet::default();
        let apps = Arc::new(Apps::new((0..2).map(|index| app(index, &plan)).collect()));
        let hash = KeyHash::seeded(seed);
        let shards = u16::try_from(plan.shards).unwrap();
        let ports = bus::connect::<ShardMessage>(shards, plan.mailbox).unwrap();
        let control = ports[0].outside();
        let shard = |port| simulated(&plan, &net, &apps, hash.clone(), seed, port);
        let shards: Vec<_> = ports.into_iter().map(shard).collect();
        let mut dice = Dice::new(seed);
        let channels = channels(&plan, &hash, &mut dice);
        let users = users(&plan, &hash, &mut dice);
        Self {
            hash,
            dice,
            net,
            apps,
            loops: Loops::new(shards, Millis(0)),
            channels,
            users,
            clients: Vec::new(),
            ledger: Ledger::default(),
            now: Millis(0),
            quiet: false,
            draining: false,
            control,
            switched_off: false,
            terminated: Vec::new(),
            terminations: Vec::new(),
            digest: 0,
            plan,
        }
    }

    /// Runs everything from the first connection to the last. Returns a digest of the run and its
    /// totals.
    pub(crate) fn run(mut self) -> (u64, Summary) {
        for _ in 0..self.plan.epochs {
            self.set_faults(self.plan.faults);
            for _ in 0..self.plan.steps {
                self.step();
            }
            self.judge();
            self.idle();
        }
        self.finish();
        let sum = |count: fn(&ringwave::testing::plane::Counters) -> u64| {
            self.loops.shards.iter().map(|shard| count(shard.plane().counters())).sum::<u64>()
        };
        let summary = Summary {
            delivered: self.ledger.delivered,
            refused: self.ledger.refused,
            early: self.ledger.early,
            opened: sum(|counters| counters.opened),
            short_sends: sum(|counters| counters.short_sends),
            too_slow: sum(|counters| counters.too_slow),
            fruitless: sum(|counters| counters.fruitless),
            stale: sum(|counters| counters.stale),
        };
        (self.digest, summary)
    }

    fn set_faults(&mut self, faults: Faults) {
        self.loops
            .shards
            .iter_mut()
            .for_each(|shard| shard.plane_mut().ring_mut().set_faults(faults));
    }

    fn step(&mut self) {
        self.ledger.step += 1;
        match self.dice.below(100) {
            0..45 => self.some_shard(),
            45..48 => {
                self.now = self.now + Duration::from_millis(self.dice.roll() % 60);
                self.control.flush();
            }
            48..54 => self.connect(),
            54..62 => self.publish(),
            62 if self.dice.chance(100) => self.terminate(),
            63 if self.dice.chance(50) => self.switch(),
            _ => self.some_client(),
        }
        self.ledger.poll_answers();
    }

    fn some_shard(&mut self) {
        let shard = self.dice.below(self.loops.shards.len());
        let due = self.loops.is_due(shard, self.now);
        if due || self.loops.wants_a_turn(shard) || self.dice.chance(20) {
            self.turn(shard);
        }
    }

    fn turn(&mut self, index: usize) {
        self.loops.turn(index, self.now);
        for client in self.clients.iter_mut().filter(|client| client.shard == index) {
            self.loops.watch_close(client, &self.net, self.now);
        }
        self.note(index as u64 + 1);
        let counters = *self.loops.shards[index].plane().counters();
        self.note(counters.sends ^ (counters.short_sends << 20) ^ (counters.stale << 40));
    }

    fn connect(&mut self) {
        let index = self.dice.below(self.loops.shards.len());
        // The real loop takes sockets over within a turn, behind the messages of others.
        self.turn(index);
        let live = self.clients.iter().filter(|client| client.phase != Phase::Gone).count();
        let shard = &self.loops.shards[index];
        if shard.plane().stalled() || shard.free_places() == 0 || live >= self.plan.clients {
            return;
        }
        let app = self.dice.below(2);
        if !self.admits(index, app) {
            return;
        }
        let app = Arc::clone(self.apps.get(AppIndex(app as u16)).unwrap());
        let admission = Admission::take(&app).unwrap();
        let fd = self.net.connect_with(self.plan.socket);
        let id = self.clients.len();
        let user = self.users[id % self.users.len()].clone();
        let mut client = Client::new(id, fd, index, &app, user, self.now);
        client.rude = self.dice.chance(100);
        if self.dice.chance(200) {
            let channel = self.dice.below(self.channels.len());
            self.with(|with| {
                if with.channels[channel].app == client.app && !with.channels[channel].signed {
                    client.subscribe(channel, &app, with);
                }
            });
        }
        let leftover = client.leftover(self.dice.below(200));
        self.loops.open(&mut client, admission, &leftover);
        self.clients.push(client);
    }

    fn publish(&mut self) {
        let app = self.dice.below(2);
        let shard = self.dice.below(self.loops.shards.len());
        if !self.admits(shard, app) {
            return;
        }
        let of_app = |channel: &(usize, &Channel)| channel.1.app == app;
        let of_app: Vec<usize> =
            self.channels.iter().enumerate().filter(of_app).map(|(index, _)| index).collect();
        let (mut ids, mut events) = (Vec::new(), Vec::new());
        for _ in 0..1 + self.dice.below(3) {
            let channel = self.dice.one_of(&of_app);
            let except = self.some_subscriber(channel).filter(|_| self.dice.chance(200));
            let kept = self.channels[channel].cache;
            let filler = self.dice.below(self.plan.filler);
            let source = Source::Shard(shard);
            let id = self.ledger.publish(channel, source, except, kept, filler);
            let except = except.map(|client| &self.clients[client]);
            let data = &self.ledger.message(id).data;
            let event = event(&self.channels[channel], &self.hash, data, except);
            events.push(Publication { event, wants_state: self.dice.chance(300) });
            ids.push(id);
        }
        let (reply, answer) = oneshot::channel();
        self.ledger.ask(answer, ids);
        self.loops.commands[shard].push(GatewayCommand::Publish { events, reply });
    }

    fn some_subscriber(&mut self, channel: usize) -> Option<usize> {
        let client = self.dice.below(self.clients.len().max(1));
        let of = self.clients.get(client)?;
        (of.is_subscribed(channel) && of.socket_id.is_some()).then_some(client)
    }

    fn terminate(&mut self) {
        let Some(of) = self.dice.below(self.clients.len() + 1).checked_sub(1) else { return };
        let (app, user) = (self.clients[of].app, self.clients[of].user.clone());
        self.terminated.push((app, user.clone()));
        let (reply, answer) = oneshot::channel();
        self.terminations.push(answer);
        let shard = self.dice.below(self.loops.shards.len());
        let app = Arc::clone(self.apps.get(AppIndex(app as u16)).unwrap());
        self.loops.commands[shard].push(GatewayCommand::Terminate { app, user_id: user, reply });
    }

    fn some_client(&mut self) {
        let live = |client: &&Client| client.phase != Phase::Gone;
        let live: Vec<usize> = self.clients.iter().filter(live).map(|client| client.id).collect();
        if live.is_empty() {
            return;
        }
        let id = self.dice.one_of(&live);
        let action = self.dice.below(1000);
        let most = 1 + self.dice.below(self.plan.bite);
        let channel = self.dice.below(self.channels.len());
        let filler = self.dice.below(self.plan.filler.min(2000));
        self.with_client(id, |client, app, with| {
            let speaks = client.is_open() && client.mood != Mood::Mute && !client.is_busy();
            let knows = with.channels[channel].app == client.app;
            match action {
                0..370 => drop(client.read(most, with)),
                370..640 => drop(client.write(most, with.net, with.now)),
                _ if !speaks => {}
                640..660 => client.sign_in(app, with),
                660..730 if knows => client.subscribe(channel, app, with),
                // These follow each other, often in one packet and before the server has answered.
                730..800 if knows => {
                    client.subscribe(channel, app, with);
                    client.whisper(channel, filler, with);
                    if with.dice.chance(300) {
                        client.unsubscribe(channel, with);
                        client.whisper(channel, filler, with);
                    }
                }
                800..860 if knows => client.unsubscribe(channel, with),
                860..940 if knows => client.whisper(channel, filler, with),
                940..950 => client.ping(with.dice),
                950..965 => client.mood = Mood::Stalls,
                965..980 => client.mood = Mood::Reads,
                980..984 => client.mood = Mood::Mute,
                984..988 => client.leave(with),
                988..992 => client.vanish(with),
                992..994 => client.violate(with),
                _ => {}
            }
        });
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Surroundings<'_>) -> T) -> T {
        act(&mut self.parts().2)
    }

    fn with_client<T>(
        &mut self,
        id: usize,
        act: impl FnOnce(&mut Client, &App, &mut Surroundings<'_>) -> T,
    ) -> T {
        let (clients, apps, mut with) = self.parts();
        let client = &mut clients[id];
        let app = apps.get(AppIndex(client.app as u16)).unwrap();
        act(client, app, &mut with)
    }

    /// The clients, and the parts of the world that each of them sees.
    fn parts(&mut self) -> (&mut [Client], &Apps, Surroundings<'_>) {
        let with = Surroundings {
            net: &self.net,
            dice: &mut self.dice,
            ledger: &mut self.ledger,
            channels: &self.channels,
            users: &self.users,
            now: self.now,
            quiet: self.quiet,
            draining: self.draining,
            members_max: self.plan.members_max,
            switched_off: self.switched_off,
            terminated: &self.terminated,
        };
        (&mut self.clients, &self.apps, with)
    }

    fn note(&mut self, number: u64) {
        self.digest = (self.digest ^ number).wrapping_mul(0x0100_0000_01b3).rotate_left(7);
    }
}

/// The totals of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Summary {
    pub delivered: u64,
    pub refused: u64,
    pub early: u64,
    pub opened: u64,
    pub short_sends: u64,
    pub too_slow: u64,
    pub fruitless: u64,
    pub stale: u64,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.delivered += other.delivered;
        self.refused += other.refused;
        self.early += other.early;
        self.opened += other.opened;
        self.short_sends += other.short_sends;
        self.too_slow += other.too_slow;
        self.fruitless += other.fruitless;
        self.stale += other.stale;
    }
}

/// An event with the text of a message, for all subscribers but one.
pub(crate) fn event(
    channel: &Channel,
    hash: &KeyHash,
    data: &str,
    except: Option<&Client>,
) -> Event {
    let Channel { name, app, cache, .. } = channel;
    let parsed = ChannelName::parse(name, 200, false).unwrap();
    let retain = || Box::new(Retain { data: data.into(), ttl: CACHE_TTL });
    Event {
        key: hash.channel(AppIndex(*app as u16), parsed),
        frame: outbound::event("word", data, name),
        except: except.map(|client| client.socket_id.as_ref().unwrap().parse().unwrap()),
        retain: cache.then(retain),
    }
}

/// The parts of a shard without webhooks, whose memory is not limited.
pub(crate) fn parts(
    apps: &Arc<Apps>,
    backlog: BacklogLimits,
    hash: KeyHash,
    seed: u64,
    port: Port<ShardMessage>,
) -> ShardParts {
    ShardParts {
        in_force: InForce {
            apps: Arc::clone(apps),
            backlog,
            front: Arc::default(),
            shutdown_window: None,
        },
        hash,
        socket_ids: SocketIds::seeded(seed),
        port,
        notices: NoticeSender::default(),
        refusals: Arc::default(),
        memory: Default::default(),
        clustered: false,
    }
}

pub(crate) fn app(index: u16, plan: &Plan) -> App {
    App {
        index: AppIndex(index),
        id: format!("app-{index}"),
        rules: AppRules {
            standing: Standing::Enabled,
            key: format!("key-{index}"),
            secret: Secret::new(&format!("secret-{index}")),
            more_keys: Vec::new(),
            activity_timeout_s: 30,
            client_events: ClientEvents::Members,
            client_events_on_public: false,
            rate_limit: None,
            strict_names: false,
            subscription_errors: true,
            auth_timestamp_tolerance: Duration::from_secs(600),
            limits: Limits { max_presence_members: Some(plan.members_max), ..Limits::default() },
        },
        ping_interval: plan.ping_interval,
        pong_timeout: plan.pong_timeout,
        max_connections: None,
        allowed_origins: Origins::parse(&["*".into()]).unwrap(),
        // One app has them, and the clients of the other never hear of any.
        subscription_counts: index == 1,
        cache_ttl: CACHE_TTL,
        user_authentication_timeout: None,
        webhooks: Webhooks::default(),
        counters: AppCounters::of(AppIndex(index)),
    }
}

/// Channels whose homes are spread as the dice say, whatever the hash. Both apps use the same names
/// for different channels.
pub(crate) fn channels(plan: &Plan, hash: &KeyHash, dice: &mut Dice) -> Vec<Channel> {
    let kinds = ["public", "cache-", "private-", "presence-", "private-cache-", "presence-cache-"];
    let topology = Topology::new(plan.shards as u16);
    let mut channels = Vec::new();
    for index in 0..plan.channels {
        let prefix = kinds[(index + dice.below(2)) % kinds.len()];
        let homes = [dice.below(plan.shards), dice.below(plan.shards)];
        let at_home = |name: &str| {
            let name = ChannelName::parse(name, 200, false).unwrap();
            let home = |app| topology.home_of(&hash.channel(AppIndex(app), name.clone())).index();
            [home(0), home(1)] == homes
        };
        let names = (0..1_000_000).map(|number| format!("{prefix}{index:02}-{number:06}"));
        let name = names.into_iter().find(|name| at_home(name)).expect("a name for these homes");
        for app in 0..2 {
            channels.push(Channel {
                name: name.clone(),
                app,
                signed: prefix.starts_with('p') && prefix != "public",
                presence: prefix.starts_with("presence"),
                counted: app == 1 && !prefix.starts_with("presence"),
                cache: prefix.contains("cache"),
            });
        }
    }
    channels
}

/// Users whose homes are spread as the dice say. They are few, so that most have several
/// connections.
pub(crate) fn users(plan: &Plan, hash: &KeyHash, dice: &mut Dice) -> Vec<String> {
    let topology = Topology::new(plan.shards as u16);
    let user = |index: usize| {
        let homes = [dice.below(plan.shards), dice.below(plan.shards)];
        let at_home = |id: &str| {
            let home = |app| topology.home_of_user(&hash.user(AppIndex(app), id.into())).index();
            [home(0), home(1)] == homes
        };
        let ids = (0..1_000_000).map(|number| format!("user-{index:02}-{number:06}"));
        ids.into_iter().find(|id| at_home(id)).expect("an id for these homes")
    };
    (0..7).map(user).collect()
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{:?}", self.plan);
        }
    }
}
