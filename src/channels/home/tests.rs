//! [`Homes`] against a model of it: what each call posts to whom, in which order, and what is left.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::super::KeyHash;
use super::*;
use crate::id::ConnKey;
use crate::websocket::encode;

const CHANNELS: [&str; 7] =
    ["news", "presence-a", "presence-cache-b", "cache-c", "cache-d", "private-cache-e", "cache-f"];
/// Channels from here on are those of a second app.
const OF_SECOND_APP: usize = 4;
const SHARDS: u16 = 3;
const USERS: [(&str, &str); 4] = [("7", "7"), ("7", "\"7\""), ("ann", "\"ann\""), ("b", "\"b\"")];
/// Tight enough that random publishes run into both.
const BOUNDS: CacheBounds = CacheBounds { events: 3, bytes: 300 };
const MAX_MEMBERS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Join {
        channel: usize,
        shard: u16,
        user: usize,
        limited: bool,
    },
    Again {
        which: Index,
    },
    /// The subscription of a counted join ends. The shard may not know yet that it was counted.
    Leave {
        which: Index,
        told: bool,
    },
    /// A client event of a connection that may not know yet what became of its join.
    Whisper {
        which: Index,
    },
    /// A connection whose join was refused asks once more before it knows of that.
    AgainRefused {
        which: Index,
    },
    /// The shard has heard of a refusal, or the connection has left before that.
    LeaveRefused {
        which: Index,
    },
    Publish {
        channel: usize,
        padding: usize,
        ttl_ms: Option<u64>,
        except: bool,
        asks: bool,
    },
    /// Time passes, and a tick drops what has expired or does not come yet.
    Pass {
        ms: u64,
        tick: bool,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let (channel, shard, user) = (0..CHANNELS.len(), 0..SHARDS, 0..USERS.len());
    let ttl_ms = prop::option::weighted(0.7, 0..20_u64);
    prop_oneof![
        4 => (channel.clone(), shard, user, any::<bool>()).prop_map(
            |(channel, shard, user, limited)| Step::Join { channel, shard, user, limited }
        ),
        1 => any::<Index>().prop_map(|which| Step::Again { which }),
        3 => (any::<Index>(), any::<bool>()).prop_map(|(which, told)| Step::Leave { which, told }),
        3 => any::<Index>().prop_map(|which| Step::Whisper { which }),
        1 => any::<Index>().prop_map(|which| Step::AgainRefused { which }),
        2 => any::<Index>().prop_map(|which| Step::LeaveRefused { which }),
        4 => (channel, 0..150_usize, ttl_ms, any::<bool>(), any::<bool>()).prop_map(
            |(channel, padding, ttl_ms, except, asks)| {
                Step::Publish { channel, padding, ttl_ms, except, asks }
            }
        ),
        3 => (0..10_u64, any::<bool>()).prop_map(|(ms, tick)| Step::Pass { ms, tick }),
    ]
}

/// A message to a shard, with its frames decoded.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Deliver(usize, Vec<Value>, Option<SocketId>),
    Joined(usize, u32, bool, Option<Vec<Value>>),
    Published(u32, ChannelState),
    NotMember(ConnKey),
}

/// By shard, in order.
type Posted = BTreeMap<u16, Vec<Told>>;

/// A channel as the model knows it.
#[derive(Debug, Default)]
struct Channel {
    by_shard: BTreeMap<u16, u32>,
    /// By user id: how the first subscription spelt it, and how many there are.
    users: BTreeMap<&'static str, (&'static str, u32)>,
    event: Option<Event>,
}

#[derive(Clone, Debug)]
struct Event {
    number: usize,
    expires: u64,
    data: Arc<str>,
    bytes: usize,
    shown: Value,
}

/// A join as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Asked {
    channel: usize,
    shard: u16,
    user: usize,
    ticket: u32,
}

struct Model {
    homes: Homes,
    keys: Vec<ChannelKey>,
    channels: Vec<Channel>,
    /// Counted joins.
    subscribed: Vec<Asked>,
    /// Refused joins that the home has heard no leave of.
    refused: Vec<Asked>,
    now: u64,
    calls: u32,
    expected: Posted,
}

impl Model {
    fn new(bounds: CacheBounds) -> Self {
        let hash = KeyHash::default();
        let parse = |name: &&str| ChannelName::parse(name, 200, true).unwrap();
        Self {
            homes: Homes::new(bounds),
            keys: CHANNELS
                .iter()
                .enumerate()
                .map(|(channel, name)| hash.key(app_of(channel), parse(name)))
                .collect(),
            channels: CHANNELS.iter().map(|_| Channel::default()).collect(),
            subscribed: Vec::new(),
            refused: Vec::new(),
            now: 1000,
            calls: 0,
            expected: Posted::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        self.calls += 1;
        self.expected.clear();
        match *step {
            Step::Join { channel, shard, user, limited } => {
                self.join(channel, shard, user, limited.then_some(MAX_MEMBERS));
            }
            Step::Again { ref which } => {
                if let Some(of) = pick(&self.subscribed, which) {
                    self.again(of);
                }
            }
            Step::Leave { ref which, told } => {
                if let Some(of) = pick(&self.subscribed, which) {
                    self.leave(of, told);
                }
            }
            Step::Whisper { ref which } => {
                let all = [&self.subscribed[..], &self.refused[..]].concat();
                if let Some(of) = pick(&all, which) {
                    self.whisper(of);
                }
            }
            Step::AgainRefused { ref which } => {
                if let Some(of) = pick(&self.refused, which) {
                    self.expect(of.shard, Told::Joined(of.channel, of.ticket, true, None));
                    self.call_join(of, true, None);
                }
            }
            Step::LeaveRefused { ref which } => {
                if let Some(of) = pick(&self.refused, which) {
                    self.leave_refused(of);
                }
            }
            Step::Publish { channel, padding, ttl_ms, except, asks } => {
                self.publish(channel, padding, ttl_ms, except, asks);
            }
            Step::Pass { ms, tick } => {
                self.now += ms;
                if tick {
                    self.tick();
                }
            }
        }
        self.check();
    }

    fn join(&mut self, channel: usize, shard: u16, user: usize, most: Option<usize>) {
        let presence = self.kind(channel).is_presence();
        let (user_id, id_json) = USERS[user];
        let users = &self.channels[channel].users;
        let known = users.contains_key(user_id);
        let full = presence && !known && most.is_some_and(|most| users.len() >= most);
        let asked = Asked { channel, shard, user, ticket: self.calls };
        if full {
            self.expect(shard, Told::Joined(channel, self.calls, false, None));
            self.refused.push(asked);
        } else {
            if presence && !known {
                self.expect_membership(channel, "member_added", id_json, Some(user));
            }
            self.count(asked);
            let first = self.first(channel);
            self.expect(shard, Told::Joined(channel, self.calls, false, Some(first)));
        }
        self.call_join(asked, false, most);
    }

    fn count(&mut self, asked: Asked) {
        let Asked { channel, shard, user, .. } = asked;
        let presence = self.kind(channel).is_presence();
        let of = &mut self.channels[channel];
        *of.by_shard.entry(shard).or_default() += 1;
        if presence {
            let (user_id, id_json) = USERS[user];
            of.users.entry(user_id).or_insert((id_json, 0)).1 += 1;
        }
        self.subscribed.push(asked);
    }

    fn again(&mut self, of: Asked) {
        let first = self.first(of.channel);
        self.expect(of.shard, Told::Joined(of.channel, of.ticket, true, Some(first)));
        self.call_join(of, true, Some(MAX_MEMBERS));
    }

    fn call_join(&mut self, asked: Asked, again: bool, max_members: Option<usize>) {
        let Asked { channel, shard, user, ticket } = asked;
        let join = Join {
            key: self.keys[channel].clone(),
            shard: ShardId(shard),
            conn: conn_of(ticket),
            ticket,
            member: self.member(channel, user),
            again,
            max_members,
        };
        let now = Millis(self.now);
        self.change(channel, |homes, mut post| homes.join(join, now, &mut post));
    }

    fn leave(&mut self, asked: Asked, told: bool) {
        let Asked { channel, shard, user, ticket } = asked;
        let place = self.subscribed.iter().position(|of| *of == asked).unwrap();
        self.subscribed.swap_remove(place);
        let of = &mut self.channels[channel];
        *of.by_shard.get_mut(&shard).unwrap() -= 1;
        of.by_shard.retain(|_, count| *count > 0);
        if let Some((id_json, count)) = of.users.get_mut(USERS[user].0) {
            let id_json = *id_json;
            *count -= 1;
            if *count == 0 {
                of.users.remove(USERS[user].0);
                self.expect_membership(channel, "member_removed", id_json, None);
            }
        }
        self.call_leave(asked, (!told).then_some(ticket));
    }

    fn leave_refused(&mut self, of: Asked) {
        self.refused.retain(|other| *other != of);
        self.call_leave(of, Some(of.ticket));
    }

    fn call_leave(&mut self, asked: Asked, ticket: Option<u32>) {
        let Asked { channel, shard, user, .. } = asked;
        let leave = Leave {
            key: self.keys[channel].clone(),
            shard: ShardId(shard),
            member: self.member(channel, user),
            ticket,
        };
        self.change(channel, |homes, mut post| homes.leave(&leave, &mut post));
    }

    /// Relayed to all if the sender's join was counted; otherwise its shard is told.
    fn whisper(&mut self, of: Asked) {
        let shown = json!({ "event": "client-e", "by": of.ticket });
        let (frame, except) = (frame(&shown), Some(SocketId { high: 9, low: 9 }));
        let counted = self.subscribed.contains(&of);
        if counted {
            self.expect_all(of.channel, &Told::Deliver(of.channel, vec![shown], except));
        } else {
            self.expect(of.shard, Told::NotMember(conn_of(of.ticket)));
        }
        let (shard, conn, ticket) = (ShardId(of.shard), conn_of(of.ticket), of.ticket);
        let publish = Publish {
            key: self.keys[of.channel].clone(),
            frame,
            cached: None,
            except,
            whisper: None,
            joining: Some(JoiningSender { shard, conn, ticket }),
            by_client: true,
            answer_to: None,
        };
        let (now, mut relayed) = (Millis(self.now), false);
        self.call(|homes, mut post| relayed = homes.publish(publish, now, &mut post));
        assert_eq!(relayed, counted);
    }

    fn publish(
        &mut self,
        channel: usize,
        padding: usize,
        ttl_ms: Option<u64>,
        except: bool,
        asks: bool,
    ) {
        let number = self.calls as usize;
        let shown = json!({ "event": number, "padding": "x".repeat(padding) });
        let frame = frame(&shown);
        let data: Arc<str> = format!("data of {number}").into();
        let ttl_ms = ttl_ms.filter(|_| self.kind(channel).is_cache());
        if let Some(ttl_ms) = ttl_ms {
            let (expires, bytes) = (self.now + ttl_ms, frame.len() + data.len());
            let (data, shown) = (Arc::clone(&data), shown.clone());
            let event = Event { number, expires, data, bytes, shown };
            let fits = bytes <= self.homes.cache.bounds().bytes;
            self.channels[channel].event = fits.then_some(event);
            self.evict();
        }
        let except = except.then_some(SocketId { high: 9, low: 9 });
        self.expect_all(channel, &Told::Deliver(channel, vec![shown], except));
        if asks {
            self.expect(1, Told::Published(self.calls, self.state(channel)));
        }
        let publish = Publish {
            key: self.keys[channel].clone(),
            frame,
            cached: ttl_ms.map(|ttl_ms| (data, Duration::from_millis(ttl_ms))),
            except,
            whisper: None,
            joining: None,
            by_client: false,
            answer_to: asks.then_some((ShardId(1), self.calls, 3)),
        };
        let now = Millis(self.now);
        self.call(|homes, mut post| assert!(homes.publish(publish, now, &mut post)));
    }

    /// Evicts events of the app with the most, the first to expire first, until both bounds hold.
    fn evict(&mut self) {
        let bounds = self.homes.cache.bounds();
        loop {
            let of_apps = [self.events(AppIndex(0)), self.events(AppIndex(1))];
            let counts = of_apps.each_ref().map(Vec::len);
            let bytes = of_apps.each_ref().map(|of| of.iter().map(|event| event.bytes).sum());
            let [first, second] = if counts[0] + counts[1] > bounds.events {
                counts
            } else if bytes[0] + bytes[1] > bounds.bytes {
                bytes
            } else {
                return;
            };
            let most: &Vec<Event> = &of_apps[usize::from(second >= first)];
            let out = most.iter().min_by_key(|event| (event.expires, event.number)).unwrap().number;
            for of in &mut self.channels {
                of.event.take_if(|event| event.number == out);
            }
        }
    }

    fn events(&self, app: AppIndex) -> Vec<Event> {
        let of_app = self.channels.iter().enumerate().filter(|(at, _)| app_of(*at) == app);
        of_app.filter_map(|(_, of)| of.event.clone()).collect()
    }

    fn tick(&mut self) {
        for of in &mut self.channels {
            of.event.take_if(|event| event.expires <= self.now);
        }
        self.homes.expire(Millis(self.now));
    }

    /// Calls, and compares what was posted with what is expected.
    fn call(&mut self, call: impl FnOnce(&mut Homes, &mut dyn FnMut(ShardId, Message))) {
        let (mut posted, keys) = (Posted::new(), &self.keys);
        call(&mut self.homes, &mut |shard, message| {
            posted.entry(shard.0).or_default().push(told(keys, message));
        });
        assert_eq!(posted, self.expected);
    }

    /// A join or a leave: what it tells to have changed is what has.
    fn change(
        &mut self,
        channel: usize,
        change: impl FnOnce(&mut Homes, &mut dyn FnMut(ShardId, Message)) -> Change,
    ) {
        let state = |model: &Self| model.homes.state(&model.keys[channel], Millis(model.now));
        let before = state(self);
        let mut told = Change::default();
        self.call(|homes, post| told = change(homes, post));
        let after = state(self);
        let subscribers = before.subscription_count != after.subscription_count;
        let expected = Change {
            subscribers,
            occupancy: before.occupied() != after.occupied(),
            membership: before.user_count != after.user_count,
        };
        assert_eq!(told, expected);
    }

    fn expect(&mut self, shard: u16, told: Told) {
        self.expected.entry(shard).or_default().push(told);
    }

    fn expect_all(&mut self, channel: usize, told: &Told) {
        for shard in self.channels[channel].by_shard.keys().copied().collect::<Vec<_>>() {
            self.expect(shard, told.clone());
        }
    }

    fn expect_membership(&mut self, channel: usize, what: &str, id: &str, info: Option<usize>) {
        let id: Value = serde_json::from_str(id).unwrap();
        let data = match info {
            Some(user) => json!({ "user_id": id, "user_info": { "n": user } }),
            None => json!({ "user_id": id }),
        };
        let event = format!("pusher_internal:{what}");
        let shown = json!({ "event": event, "data": data, "channel": CHANNELS[channel] });
        self.expect_all(channel, &Told::Deliver(channel, vec![shown], None));
    }

    /// The messages that a new subscriber gets first.
    fn first(&self, channel: usize) -> Vec<Value> {
        let (name, of) = (CHANNELS[channel], &self.channels[channel]);
        let mut data = json!({});
        if self.kind(channel).is_presence() {
            let ids: Vec<&str> = of.users.keys().copied().collect();
            data = json!({ "presence": { "count": ids.len(), "ids": ids } });
        }
        let event = "pusher_internal:subscription_succeeded";
        let mut first = vec![json!({ "event": event, "data": data, "channel": name })];
        if self.kind(channel).is_cache() {
            let miss = json!({ "event": "pusher:cache_miss", "channel": name });
            first.push(self.visible(channel).map_or(miss, |event| event.shown.clone()));
        }
        first
    }

    fn visible(&self, channel: usize) -> Option<&Event> {
        self.channels[channel].event.as_ref().filter(|event| event.expires > self.now)
    }

    fn state(&self, channel: usize) -> ChannelState {
        let of = &self.channels[channel];
        let cached = self.visible(channel).map(|event| CachedEvent {
            data: Arc::clone(&event.data),
            ttl_s: (event.expires - self.now).div_ceil(1000),
        });
        ChannelState {
            subscription_count: of.by_shard.values().sum(),
            user_count: u32::try_from(of.users.len()).unwrap(),
            cached,
        }
    }

    fn kind(&self, channel: usize) -> crate::protocol::names::ChannelKind {
        self.keys[channel].name().kind()
    }

    fn member(&self, channel: usize, user: usize) -> Option<Arc<Member>> {
        let (user_id, id_json) = USERS[user];
        let user_info = Some(format!(r#"{{"n":{user}}}"#).into());
        let member = Member { user_id: user_id.into(), id_json: id_json.into(), user_info };
        self.kind(channel).is_presence().then(|| Arc::new(member))
    }

    /// Asserts the invariants that hold between any two calls.
    fn check(&self) {
        let now = Millis(self.now);
        for (channel, key) in self.keys.iter().enumerate() {
            assert_eq!(self.homes.state(key, now), self.state(channel), "{}", key.name());
            let users: BTreeSet<_> = self.homes.users(key).into_iter().collect();
            let expected = self.channels[channel].users.keys().map(|&id| Box::from(id)).collect();
            assert_eq!(users, expected);
        }
        let apps = [0, 1].map(|app| occupied(&self.homes, AppIndex(app), now));
        let occupied: BTreeMap<_, _> = apps.into_iter().flatten().collect();
        let is_occupied = |channel: &usize| !self.channels[*channel].by_shard.is_empty();
        let channels = (0..CHANNELS.len()).filter(is_occupied);
        let name = |channel: usize| self.keys[channel].name().clone();
        let expected = channels.map(|channel| (name(channel), self.state(channel))).collect();
        assert_eq!(occupied, expected);
        let kept = |of: &&Channel| !of.by_shard.is_empty() || of.event.is_some();
        assert_eq!(self.homes.len(), self.channels.iter().filter(kept).count(), "a leak");
        let events = || self.channels.iter().filter_map(|of| of.event.as_ref());
        let bytes = events().map(|event| event.bytes).sum();
        assert_eq!(self.homes.cache.held(), (events().count(), bytes));
        assert_eq!(self.homes.refused.len(), self.refused.len());
    }
}

fn pick(of: &[Asked], which: &Index) -> Option<Asked> {
    (!of.is_empty()).then(|| of[which.index(of.len())])
}

/// The connection whose join has this ticket. The whole list, requested in parts of two channels.
fn occupied(homes: &Homes, app: AppIndex, now: Millis) -> Vec<(ChannelName, ChannelState)> {
    let (mut all, mut from) = (Vec::new(), Some(0));
    while let Some(begin) = from {
        let (part, next) = homes.occupied(app, "", begin, 2, now);
        assert!(part.len() <= 2);
        all.extend(part);
        from = next;
    }
    all
}

fn conn_of(ticket: u32) -> ConnKey {
    ConnKey { slot: 5, generation: ticket }
}

fn app_of(channel: usize) -> AppIndex {
    AppIndex(u16::from(channel >= OF_SECOND_APP))
}

fn told(keys: &[ChannelKey], message: Message) -> Told {
    let channel = |key: &ChannelKey| keys.iter().position(|of| of == key).unwrap();
    match message {
        Message::Deliver(Deliver { key, frame, except }) => {
            Told::Deliver(channel(&key), shown(&frame), except)
        }
        Message::Joined(joined) => {
            assert_eq!(joined.conn, conn_of(joined.ticket));
            let first = match joined.outcome {
                Outcome::Subscribed { answer, last, .. } => {
                    let frames = [Some(answer), last].into_iter().flatten();
                    let bytes: Vec<u8> = frames.flat_map(Frame::into_bytes).collect();
                    Some(shown(&Frame::from_encoded(bytes.into())))
                }
                Outcome::Full => None,
            };
            Told::Joined(channel(&joined.key), joined.ticket, joined.again, first)
        }
        Message::Published(answered) => {
            assert_eq!(answered.index, 3);
            Told::Published(answered.question, answered.state)
        }
        Message::NotMember(conn, _channel) => Told::NotMember(conn),
        other => panic!("a home does not say {other:?}"),
    }
}

fn frame(value: &Value) -> Frame {
    encode::text(0, |out| out.extend(value.to_string().bytes()))
}

/// The texts of whole frames; `data` is read too, and members are listed in order.
fn shown(frame: &Frame) -> Vec<Value> {
    let (mut rest, mut all) = (&frame.bytes()[..], Vec::new());
    while let [0x81, len, after @ ..] = rest {
        let (len, after) = match (len, after) {
            (126, [high, low, after @ ..]) => (u16::from_be_bytes([*high, *low]).into(), after),
            (len, after) => (usize::from(*len), after),
        };
        let mut value: Value = serde_json::from_slice(&after[..len]).unwrap();
        if let Some(data) = value.get("data").and_then(Value::as_str) {
            value["data"] = serde_json::from_str(data).unwrap();
        }
        if let Some(presence) = value.pointer_mut("/data/presence") {
            let members = presence["hash"].as_object().unwrap();
            let mut ids: Vec<&String> = members.keys().collect();
            assert_eq!(presence["ids"].as_array().map(Vec::len), Some(ids.len()));
            ids.sort();
            *presence = json!({ "count": presence["count"], "ids": ids });
        }
        all.push(value);
        rest = &after[len..];
    }
    assert!(rest.is_empty(), "not a whole text frame: {rest:?}");
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn homes_are_as_modelled(steps in prop::collection::vec(any_step(), 0..200)) {
        let mut model = Model::new(BOUNDS);
        for step in &steps {
            model.step(step);
        }
        while let Some(&last) = model.subscribed.last() {
            model.expected.clear();
            model.leave(last, true);
        }
        model.expected.clear();
        while let Some(&last) = model.refused.last() {
            model.leave_refused(last);
        }
        model.step(&Step::Pass { ms: 1000, tick: true });
        assert_eq!(model.homes.len(), 0);
        assert_eq!(model.homes.cache.held(), (0, 0));
    }
}

const ROOMY: CacheBounds = CacheBounds { events: 100, bytes: 1 << 20 };

fn cached(channel: usize, ttl_ms: u64) -> Step {
    Step::Publish { channel, padding: 0, ttl_ms: Some(ttl_ms), except: false, asks: false }
}

#[test]
fn past_the_bound_a_refreshed_event_stays_and_a_stale_one_goes() {
    let mut model = Model::new(CacheBounds { events: 2, ..ROOMY });
    for channel in [4, 5] {
        model.step(&cached(channel, 5000));
    }
    model.step(&Step::Pass { ms: 100, tick: true });
    model.step(&cached(4, 5000));
    model.step(&cached(6, 5000));
    let kept = |model: &Model, channel| {
        model.homes.state(&model.keys[channel], Millis(model.now)).cached.is_some()
    };
    assert_eq!([4, 5, 6].map(|channel| kept(&model, channel)), [true, false, true]);
}

#[test]
fn an_event_that_is_larger_than_all_the_cache_is_delivered_not_kept_and_costs_no_other() {
    let mut model = Model::new(CacheBounds { bytes: 100, ..ROOMY });
    model.join(5, 0, 0, None);
    model.step(&cached(4, 5000));
    model.step(&cached(6, 5000));
    let large = |channel| {
        let (padding, ttl_ms) = (200, Some(5000));
        Step::Publish { channel, padding, ttl_ms, except: false, asks: true }
    };
    model.step(&large(5));
    assert_eq!((model.homes.cache.held().0, model.homes.len()), (2, 3));
    // The earlier event of its own channel is its last no more.
    model.step(&large(6));
    assert_eq!((model.homes.cache.held().0, model.homes.len()), (1, 2));
}

#[test]
fn an_app_that_holds_less_than_its_part_loses_nothing_to_another() {
    let hash = KeyHash::default();
    let key = |app, n: usize| {
        hash.key(AppIndex(app), ChannelName::parse(&format!("cache-{n}"), 200, true).unwrap())
    };
    let publish = |homes: &mut Homes, app, n, padding| {
        let publish = Publish {
            key: key(app, n),
            frame: frame(&json!("x".repeat(padding))),
            cached: Some(("{}".into(), Duration::from_secs(60))),
            except: None,
            whisper: None,
            joining: None,
            by_client: false,
            answer_to: None,
        };
        homes.publish(publish, Millis(0), &mut |_, _| {});
    };
    let kept = |homes: &Homes, app| {
        (0..1000).filter(|&n| homes.state(&key(app, n), Millis(0)).cached.is_some()).count()
    };
    // By number: three apps, of which one stays below its third.
    let mut homes = Homes::new(CacheBounds { events: 90, ..ROOMY });
    (0..10).for_each(|n| publish(&mut homes, 0, n, 0));
    (0..200).for_each(|n| publish(&mut homes, 1, n, 0));
    assert_eq!([0, 1].map(|app| kept(&homes, app)), [10, 80], "one alone may have all the rest");
    (0..200).for_each(|n| publish(&mut homes, 2, n, 0));
    assert_eq!([0, 1, 2].map(|app| kept(&homes, app)), [10, 40, 40]);
    (10..30).for_each(|n| publish(&mut homes, 0, n, 0));
    assert_eq!([0, 1, 2].map(|app| kept(&homes, app)), [30, 30, 30]);
    // By bytes: few large events of one app against many small ones of another.
    let mut homes = Homes::new(CacheBounds { bytes: 100_000, events: 10_000 });
    (0..500).for_each(|n| publish(&mut homes, 0, n, 50));
    (0..100).for_each(|n| publish(&mut homes, 1, n, 10_000));
    let (small, large) = (kept(&homes, 0), kept(&homes, 1));
    assert_eq!((small, large), (500, 7), "{:?}", homes.cache.held());
}

#[test]
fn a_short_lived_event_is_dropped_in_time_behind_any_number_of_long_lived_ones() {
    let mut homes = Homes::new(ROOMY);
    let hash = KeyHash::default();
    for n in 0..50 {
        let name = ChannelName::parse(&format!("cache-{n}"), 200, true).unwrap();
        let ttl = Duration::from_millis(if n == 49 { 50 } else { 60_000 });
        let publish = Publish {
            key: hash.key(AppIndex(0), name),
            frame: frame(&json!({})),
            cached: Some(("{}".into(), ttl)),
            except: None,
            whisper: None,
            joining: None,
            by_client: false,
            answer_to: None,
        };
        homes.publish(publish, Millis(0), &mut |_, _| {});
    }
    homes.expire(Millis(100));
    assert_eq!(homes.len(), 49);
}

#[test]
fn cached_events_of_an_app_that_is_gone_go_a_part_at_a_time_and_no_others_do() {
    let hash = KeyHash::default();
    let mut homes = Homes::new(ROOMY);
    for (app, count) in [(0, 3), (1, 7), (2, 5), (3, 2)] {
        for number in 0..count {
            let name = ChannelName::parse(&format!("cache-{number}"), 200, true).unwrap();
            let publish = Publish {
                key: hash.key(AppIndex(app), name),
                frame: frame(&json!(number)),
                cached: Some(("1".into(), Duration::from_secs(60))),
                except: None,
                whisper: None,
                joining: None,
                by_client: false,
                answer_to: None,
            };
            homes.publish(publish, Millis(0), &mut |_, _| {});
        }
    }
    let gone = |app: AppIndex| app.0 % 2 == 1;
    let mut lengths = Vec::new();
    while homes.forget_apps(gone, 4) {
        lengths.push(homes.len());
    }
    assert_eq!((lengths, homes.len()), (vec![13, 9], 8));
    assert_eq!(homes.cache.apps().collect::<Vec<_>>(), [AppIndex(0), AppIndex(2)]);
    assert_eq!(homes.cache.held().0, 8);
}

#[test]
fn a_channel_that_admits_nobody_leaves_nothing() {
    let mut model = Model::new(ROOMY);
    model.join(1, 0, 0, Some(0));
    assert_eq!(model.homes.len(), 0);
}

#[test]
fn occupied_channels_are_those_of_the_app_that_asks() {
    let mut model = Model::new(ROOMY);
    model.join(0, 0, 0, None);
    assert!(occupied(&model.homes, AppIndex(1), Millis(model.now)).is_empty());
    assert_eq!(occupied(&model.homes, AppIndex(0), Millis(model.now)).len(), 1);
}

#[test]
fn rounds_of_coming_and_going_leave_no_more_behind_than_one() {
    let (hash, conn) = (KeyHash::default(), ConnKey { slot: 0, generation: 0 });
    let keys: Vec<_> = (0..3000)
        .map(|n| hash.key(AppIndex(0), ChannelName::parse(&format!("c{n}"), 200, true).unwrap()))
        .collect();
    let mut homes = Homes::new(ROOMY);
    let mut rooms = Vec::new();
    for _ in 0..4 {
        for key in &keys {
            homes.join(join_of(key.clone(), conn), Millis(0), &mut |_, _| {});
        }
        homes.trim();
        let full = homes.room();
        for key in &keys {
            let leave = Leave { key: key.clone(), shard: ShardId(0), member: None, ticket: None };
            homes.leave(&leave, &mut |_, _| {});
        }
        homes.trim();
        rooms.push((full, homes.room()));
    }
    assert!(rooms.iter().all(|room| *room == rooms[0]), "{rooms:?}");
    let (full, empty) = rooms[0];
    assert!(full > 3000 * size_of::<Home>() && empty < 100, "{empty} bytes of {full}");
}

#[test]
fn a_table_that_most_channels_left_shrinks_and_finds_the_rest() {
    let (hash, conn) = (KeyHash::default(), ConnKey { slot: 0, generation: 0 });
    let key = |n| hash.key(AppIndex(0), ChannelName::parse(&format!("c{n}"), 200, true).unwrap());
    let mut homes = Homes::new(ROOMY);
    for n in 0..3000 {
        homes.join(join_of(key(n), conn), Millis(0), &mut |_, _| {});
    }
    let full = homes.by_key.allocation_size();
    for n in 10..3000 {
        let leave = Leave { key: key(n), shard: ShardId(0), member: None, ticket: None };
        homes.leave(&leave, &mut |_, _| {});
    }
    homes.trim();
    assert!(homes.by_key.allocation_size() < full / 20);
    assert!((0..10).all(|n| homes.state(&key(n), Millis(0)).occupied()));
    assert!(!homes.state(&key(10), Millis(0)).occupied());
}

fn join_of(key: ChannelKey, conn: ConnKey) -> Join {
    let (shard, member) = (ShardId(0), None);
    Join { key, shard, conn, ticket: 0, member, again: false, max_members: None }
}

/// Calls, and returns which numbers of subscribers each shard was told.
fn counts_told(
    homes: &mut Homes,
    call: impl FnOnce(&mut Homes, &mut dyn FnMut(ShardId, Message)),
) -> Vec<(u16, u64)> {
    let mut told = Vec::new();
    call(homes, &mut |shard, message| {
        if let Message::Deliver(Deliver { frame, except: None, .. }) = message {
            let [value] = &shown(&frame)[..] else { panic!("one frame at a time") };
            assert_eq!(value["event"], "pusher_internal:subscription_count");
            told.push((shard.0, value["data"]["subscription_count"].as_u64().unwrap()));
        }
    });
    told
}

#[test]
fn numbers_of_subscribers_go_to_all_shards_that_have_some_and_pause_when_large() {
    let (hash, conn) = (KeyHash::default(), ConnKey { slot: 0, generation: 0 });
    let key = hash.key(AppIndex(0), ChannelName::parse("news", 200, true).unwrap());
    let mut homes = Homes::new(ROOMY);
    let tell = |homes: &mut Homes, now| {
        counts_told(homes, |homes, mut post| homes.tell_count(&key, Millis(now), &mut post))
    };
    let due = |homes: &mut Homes, now| {
        counts_told(homes, |homes, mut post| homes.tell_counts(Millis(now), &mut post))
    };
    let add = |homes: &mut Homes, shard| {
        let join = Join { shard: ShardId(shard), ..join_of(key.clone(), conn) };
        homes.join(join, Millis(0), &mut |_, _| {});
    };
    assert_eq!(tell(&mut homes, 0), [], "a channel without subscribers");
    for number in 1..=101 {
        add(&mut homes, 0);
        assert_eq!(tell(&mut homes, 0), [(0, number)]);
    }
    add(&mut homes, 2);
    assert_eq!(tell(&mut homes, 1), []);
    assert_eq!(due(&mut homes, 4999), []);
    assert_eq!(due(&mut homes, 5000), [(0, 102), (2, 102)]);
    add(&mut homes, 2);
    assert_eq!(tell(&mut homes, 5001), []);
    for shard in std::iter::repeat_n(0, 101).chain([2, 2]) {
        homes.leave(
            &Leave { key: key.clone(), shard: ShardId(shard), member: None, ticket: None },
            &mut |_, _| {},
        );
    }
    assert_eq!(due(&mut homes, 10_000), [], "all of them have left");
    homes.trim();
    assert_eq!(homes.len(), 0);
    assert!(homes.counts.next_due().is_some_and(|end| end.0 == 15_000));
    assert_eq!(due(&mut homes, 15_000), []);
    homes.trim();
    assert!(homes.room() < 10_000, "{} bytes", homes.room());
}

#[test]
fn presence_channels_are_told_no_numbers() {
    let mut model = Model::new(ROOMY);
    model.join(1, 0, 0, None);
    let key = model.keys[1].clone();
    let tell = |homes: &mut Homes, mut post: &mut dyn FnMut(ShardId, Message)| {
        homes.tell_count(&key, Millis(0), &mut post);
    };
    assert_eq!(counts_told(&mut model.homes, tell), []);
}

/// A presence channel that takes one member, which joins with ticket 1; the others are asked for by
/// further calls.
fn full() -> Model {
    let mut model = Model::new(ROOMY);
    for user in [0, 2] {
        model.calls += 1;
        model.expected.clear();
        model.join(1, 0, user, Some(1));
    }
    model.expected.clear();
    model
}

#[test]
fn a_client_event_behind_a_join_is_relayed_if_that_was_counted_and_refused_if_it_was_not() {
    let mut model = full();
    let (counted, refused) = (model.subscribed[0], model.refused[0]);
    model.whisper(counted);
    model.expected.clear();
    model.whisper(refused);
    // Not even when the same user is there by another connection meanwhile.
    model.calls += 1;
    model.expected.clear();
    model.join(1, 2, refused.user, None);
    model.expected.clear();
    model.whisper(refused);
}

#[test]
fn who_leaves_before_the_answer_makes_room_for_who_asks_next() {
    let mut model = full();
    let (counted, refused) = (model.subscribed[0], model.refused[0]);
    model.leave(counted, false);
    model.expected.clear();
    model.calls += 1;
    model.join(1, 0, 3, Some(1));
    assert_eq!(model.subscribed.len(), 1);
    // The leave of a join that was refused counts nobody down.
    model.expected.clear();
    model.leave_refused(refused);
    model.check();
}
