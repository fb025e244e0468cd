//! Tests of [`Homes`] against a model of it: the messages and notices of each call, their order,
//! and the state that is left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::super::listing::LOOKS_PER_TURN;
use super::super::{
    Answer, CachedEvent, ChannelKey, ChannelState, ClientEventNotice, Joining, KeyHash, Notice,
    ReplyTo, Retain, Whisper,
};
use super::*;
use crate::apps::webhook::EventKind;
use crate::frame::Frame;
use crate::id::{AppIndex, ConnKey, SocketId};
use crate::protocol::auth::Authorised;
use crate::protocol::names::ChannelName;

const CHANNELS: [&str; 7] =
    ["news", "presence-a", "presence-cache-b", "cache-c", "cache-d", "private-cache-e", "cache-f"];
/// Channels from here on are those of a second app.
const OF_SECOND_APP: usize = 4;
const SHARDS: u16 = 3;
const USERS: [(&str, &str); 4] = [("7", "7"), ("7", "\"7\""), ("ann", "\"ann\""), ("b", "\"b\"")];
/// Bounds so tight that random publishes exceed both.
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
    Repeat {
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
    RepeatRefused {
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
        1 => any::<Index>().prop_map(|which| Step::Repeat { which }),
        3 => (any::<Index>(), any::<bool>()).prop_map(|(which, told)| Step::Leave { which, told }),
        3 => any::<Index>().prop_map(|which| Step::Whisper { which }),
        1 => any::<Index>().prop_map(|which| Step::RepeatRefused { which }),
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
    Event(usize, Vec<Value>, Option<SocketId>),
    Joined(usize, u32, Option<Vec<Value>>),
    Repeated(usize, Option<Vec<Value>>),
    State(u32, ChannelState),
    Users(BTreeSet<Box<str>>),
    NotMember(ConnKey),
}

/// Messages by shard, in order.
type Sent = BTreeMap<u16, Vec<Told>>;

/// Notices: the channel, and the kind with its content as text.
type Noticed = Vec<(usize, String)>;

/// A channel as the model knows it.
#[derive(Debug, Default)]
struct Channel {
    by_shard: BTreeMap<u16, u32>,
    /// Users by id: the spelling of the first subscription, and the number of subscriptions.
    users: BTreeMap<&'static str, (&'static str, u32)>,
    event: Option<LastEvent>,
}

#[derive(Clone, Debug)]
struct LastEvent {
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
    outbox: Outbox,
    expected: Sent,
    expected_notices: Noticed,
}

impl Model {
    fn new(bounds: CacheBounds) -> Self {
        let hash = KeyHash::random();
        let parse = |name: &&str| ChannelName::parse(name, 200, true).unwrap();
        let mut homes = Homes::new(bounds);
        // The second app wants no notices.
        homes
            .channels
            .adopt(vec![Wanted { notices: EventKind::ALL.into_iter().collect(), counts: false }]);
        Self {
            homes,
            keys: CHANNELS
                .iter()
                .enumerate()
                .map(|(channel, name)| hash.channel(app_of(channel), parse(name)))
                .collect(),
            channels: CHANNELS.iter().map(|_| Channel::default()).collect(),
            subscribed: Vec::new(),
            refused: Vec::new(),
            now: 1000,
            calls: 0,
            outbox: Outbox::default(),
            expected: Sent::new(),
            expected_notices: Noticed::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        self.begin();
        match *step {
            Step::Join { channel, shard, user, limited } => {
                self.join(channel, shard, user, limited.then_some(MAX_MEMBERS));
            }
            Step::Repeat { ref which } => {
                if let Some(of) = pick(&self.subscribed, which) {
                    self.repeat(of);
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
            Step::RepeatRefused { ref which } => {
                if let Some(of) = pick(&self.refused, which) {
                    self.expect(of.shard, Told::Repeated(of.channel, None));
                    self.call_repeat(of, Some(of.ticket));
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

    /// Begins another call, without any expectation so far.
    fn begin(&mut self) {
        self.calls += 1;
        self.expected.clear();
        self.expected_notices.clear();
    }

    fn join(&mut self, channel: usize, shard: u16, user: usize, most: Option<usize>) {
        let presence = self.kind(channel).is_presence();
        let (user_id, id_json) = USERS[user];
        let users = &self.channels[channel].users;
        let known = users.contains_key(user_id);
        let full = presence && !known && most.is_some_and(|most| users.len() >= most);
        let asked = Asked { channel, shard, user, ticket: self.calls };
        if full {
            self.expect(shard, Told::Joined(channel, self.calls, None));
            self.refused.push(asked);
        } else {
            if presence && !known {
                self.expect_membership(channel, "member_added", id_json, Some(user));
            }
            let occupied = self.channels[channel].by_shard.is_empty();
            self.count(asked);
            let first = self.first(channel);
            self.expect(shard, Told::Joined(channel, self.calls, Some(first)));
            self.notice(channel, occupied.then(|| "Occupied".to_owned()));
            let added = presence && !known;
            self.notice(channel, added.then(|| format!("MemberAdded({user_id:?})")));
            self.notice_count(channel);
            let missed = self.kind(channel).is_cache() && self.visible(channel).is_none();
            self.notice(channel, missed.then(|| "CacheMiss".to_owned()));
        }
        self.call_join(asked, most);
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

    fn repeat(&mut self, of: Asked) {
        let first = self.first(of.channel);
        self.expect(of.shard, Told::Repeated(of.channel, Some(first)));
        self.call_repeat(of, of.ticket.is_multiple_of(2).then_some(of.ticket));
    }

    fn call_join(&mut self, asked: Asked, max_members: Option<usize>) {
        let Asked { channel, shard, ticket, .. } = asked;
        let (key, authorised) = (self.keys[channel].clone(), self.authorised(asked));
        let conn = conn_of(ticket);
        let join = Join { key, authorised, conn, ticket, max_members };
        self.call(shard, ToHome::Join(Box::new(join)));
    }

    fn call_repeat(&mut self, asked: Asked, ticket: Option<u32>) {
        let (key, authorised) = (self.keys[asked.channel].clone(), self.authorised(asked));
        let repeat = Repeat { key, authorised, conn: conn_of(asked.ticket), ticket };
        self.call(asked.shard, ToHome::Repeat(Box::new(repeat)));
    }

    fn authorised(&self, of: Asked) -> Authorised {
        let name = self.keys[of.channel].name().clone();
        Authorised::assumed(name, self.member(of.channel, of.user))
    }

    fn leave(&mut self, asked: Asked, told: bool) {
        let Asked { channel, shard, user, ticket } = asked;
        let place = self.subscribed.iter().position(|of| *of == asked).unwrap();
        self.subscribed.swap_remove(place);
        let of = &mut self.channels[channel];
        *of.by_shard.get_mut(&shard).unwrap() -= 1;
        of.by_shard.retain(|_, count| *count > 0);
        let vacated = of.by_shard.is_empty();
        if let Some((id_json, count)) = of.users.get_mut(USERS[user].0) {
            let id_json = *id_json;
            *count -= 1;
            if *count == 0 {
                of.users.remove(USERS[user].0);
                self.expect_membership(channel, "member_removed", id_json, None);
                self.notice(channel, Some(format!("MemberRemoved({:?})", USERS[user].0)));
            }
        }
        self.notice_count(channel);
        self.notice(channel, vacated.then(|| "Vacated".to_owned()));
        self.call_leave(asked, (!told).then_some(ticket));
    }

    fn leave_refused(&mut self, of: Asked) {
        self.refused.retain(|other| *other != of);
        self.call_leave(of, Some(of.ticket));
    }

    fn call_leave(&mut self, asked: Asked, ticket: Option<u32>) {
        let Asked { channel, shard, user, .. } = asked;
        let (key, member) = (self.keys[channel].clone(), self.member(channel, user));
        self.call(shard, ToHome::Leave(Leave { key, member, ticket }));
    }

    /// Expects a client event to be relayed to all if the sender's join was counted, and otherwise
    /// its shard to be told.
    fn whisper(&mut self, of: Asked) {
        let shown = json!({ "event": "client-e", "by": of.ticket });
        let (frame, except) = (frame(&shown), Some(SocketId { high: 9, low: 9 }));
        let counted = self.subscribed.contains(&of);
        if counted {
            self.expect_all(of.channel, &Told::Event(of.channel, vec![shown], except));
        } else {
            self.expect(of.shard, Told::NotMember(conn_of(of.ticket)));
        }
        if counted {
            self.notice(of.channel, Some("ClientEvent".to_owned()));
        }
        let key = self.keys[of.channel].clone();
        let joining = Joining { conn: conn_of(of.ticket), ticket: of.ticket };
        let notice = ClientEventNotice {
            event: "client-e".into(),
            data: None,
            socket_id: SocketId { high: 9, low: 9 },
            user_id: None,
        };
        let whisper = Whisper {
            event: Event { key, frame, except, retain: None },
            joining: Some(joining),
            // The shard of the sender knows what the app's webhooks want.
            notice: (app_of(of.channel) == AppIndex(0)).then(|| Box::new(notice)),
        };
        self.call(of.shard, ToHome::Whisper(Box::new(whisper)));
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
            let event = LastEvent { number, expires, data, bytes, shown };
            let fits = bytes <= self.homes.channels.cache.bounds().bytes;
            self.channels[channel].event = fits.then_some(event);
            self.evict();
        }
        let except = except.then_some(SocketId { high: 9, low: 9 });
        self.expect_all(channel, &Told::Event(channel, vec![shown], except));
        let key = self.keys[channel].clone();
        let retain =
            ttl_ms.map(|ttl_ms| Box::new(Retain { data, ttl: Duration::from_millis(ttl_ms) }));
        let event = Event { key, frame, except, retain };
        if asks {
            self.expect(1, Told::State(self.calls, self.state(channel)));
            let reply_to = ReplyTo { shard: ShardId(1), request: self.calls, index: 3 };
            self.call(0, ToHome::PublishAndReport(Box::new(event), reply_to));
        } else {
            self.call(0, ToHome::Publish(event));
        }
    }

    /// Asks as shard 1 does, although another one brings the question.
    fn ask(&mut self, question: Question) {
        let reply_to = ReplyTo { shard: ShardId(1), request: self.calls, index: 3 };
        self.call(2, ToHome::Ask(reply_to, question));
    }

    /// Evicts events of the app with the most, the first to expire first, until both bounds hold.
    fn evict(&mut self) {
        let bounds = self.homes.channels.cache.bounds();
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
            let most: &Vec<LastEvent> = &of_apps[usize::from(second >= first)];
            let out = most.iter().min_by_key(|event| (event.expires, event.number)).unwrap().number;
            for of in &mut self.channels {
                of.event.take_if(|event| event.number == out);
            }
        }
    }

    fn events(&self, app: AppIndex) -> Vec<LastEvent> {
        let of_app = self.channels.iter().enumerate().filter(|(at, _)| app_of(*at) == app);
        of_app.filter_map(|(_, of)| of.event.clone()).collect()
    }

    fn tick(&mut self) {
        for of in &mut self.channels {
            of.event.take_if(|event| event.expires <= self.now);
        }
        self.homes.channels.tick(Millis(self.now), &mut self.outbox);
        self.compare();
    }

    /// Hands a message of a shard over, and compares the effects with what is expected.
    fn call(&mut self, from: u16, message: ToHome) {
        self.homes.handle(ShardId(from), message, Millis(self.now), &mut self.outbox);
        self.compare();
    }

    fn compare(&mut self) {
        let (mut sent, keys) = (Sent::new(), &self.keys);
        for (shard, message) in self.outbox.messages() {
            sent.entry(shard.0).or_default().push(told(keys, message));
        }
        assert_eq!(sent, self.expected);
        let at = |of: &Notice| {
            keys.iter().position(|key| key.app() == of.app && *key.name() == of.channel).unwrap()
        };
        let noticed: Noticed =
            self.outbox.notices().map(|notice| (at(&notice), text_of(&notice.event))).collect();
        assert_eq!(noticed, self.expected_notices);
    }

    /// Expects a notice, if there is one and its app wants it.
    fn notice(&mut self, channel: usize, notice: Option<String>) {
        if app_of(channel) == AppIndex(0) {
            self.expected_notices.extend(notice.map(|notice| (channel, notice)));
        }
    }

    fn notice_count(&mut self, channel: usize) {
        let count = self.state(channel).subscription_count;
        let told = !self.kind(channel).is_presence();
        self.notice(channel, told.then(|| format!("SubscriptionCount({count})")));
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
        self.expect_all(channel, &Told::Event(channel, vec![shown], None));
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

    fn visible(&self, channel: usize) -> Option<&LastEvent> {
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
    fn check(&mut self) {
        let now = Millis(self.now);
        for channel in 0..self.keys.len() {
            let key = self.keys[channel].clone();
            assert_eq!(self.homes.channels.state(&key, now), self.state(channel), "{}", key.name());
            self.expected.clear();
            self.expected_notices.clear();
            let users = self.channels[channel].users.keys().map(|&id| Box::from(id)).collect();
            self.expect(1, Told::Users(users));
            self.ask(Question::Users(key));
        }
        let apps = [0, 1].map(|app| occupied(&mut self.homes, AppIndex(app), now));
        let occupied: BTreeMap<_, _> = apps.into_iter().flatten().collect();
        let is_occupied = |channel: &usize| !self.channels[*channel].by_shard.is_empty();
        let channels = (0..CHANNELS.len()).filter(is_occupied);
        let name = |channel: usize| self.keys[channel].name().clone();
        let expected = channels.map(|channel| (name(channel), self.state(channel))).collect();
        assert_eq!(occupied, expected);
        let kept =
            |of: &Channel| usize::from(!of.by_shard.is_empty()) + usize::from(of.event.is_some());
        assert_eq!(
            self.homes.channels.len(),
            self.channels.iter().map(kept).sum::<usize>(),
            "a leak"
        );
        let events = || self.channels.iter().filter_map(|of| of.event.as_ref());
        let bytes = events().map(|event| event.bytes).sum();
        assert_eq!(self.homes.channels.cache.held(), (events().count(), bytes));
        assert_eq!(self.homes.channels.refused.len(), self.refused.len());
        self.homes.channels.assert_counted();
    }
}

fn pick(of: &[Asked], which: &Index) -> Option<Asked> {
    (!of.is_empty()).then(|| of[which.index(of.len())])
}

/// The occupied channels of an app, as the home lists them.
fn occupied(homes: &mut Homes, app: AppIndex, now: Millis) -> Vec<(ChannelName, ChannelState)> {
    list(homes, app, now).into_iter().flatten().collect()
}

/// The parts of the list of the occupied channels of an app, in their order.
fn list(homes: &mut Homes, app: AppIndex, now: Millis) -> Vec<Vec<(ChannelName, ChannelState)>> {
    let (mut parts, mut out) = (Vec::new(), Outbox::default());
    let reply_to = ReplyTo { shard: ShardId(2), request: 7, index: 0 };
    let ask = ToHome::Ask(reply_to, Question::Occupied(app, "".into()));
    homes.handle(ShardId(2), ask, now, &mut out);
    loop {
        let sent: Vec<_> = out.messages().collect();
        let [(ShardId(2), FromHome::Answer(to, answer))] = &sent[..] else { panic!("{sent:?}") };
        let Answer::Occupied { channels, last } = &**answer else { panic!("{answer:?}") };
        assert_eq!(*to, reply_to);
        parts.push(channels.clone());
        assert_eq!(homes.channels.has_work(), !last);
        if *last {
            return parts;
        }
        homes.channels.work(now, &mut out);
    }
}

fn text_of(notice: &ChannelEvent) -> String {
    match notice {
        ChannelEvent::ClientEvent(_) => "ClientEvent".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The connection whose join has this ticket.
fn conn_of(ticket: u32) -> ConnKey {
    ConnKey { slot: 5, generation: ticket }
}

fn app_of(channel: usize) -> AppIndex {
    AppIndex(u16::from(channel >= OF_SECOND_APP))
}

fn told(keys: &[ChannelKey], message: FromHome) -> Told {
    let channel = |key: &ChannelKey| keys.iter().position(|of| of == key).unwrap();
    match message {
        FromHome::Event(Event { key, frame, except, retain: None }) => {
            Told::Event(channel(&key), shown(&frame), except)
        }
        FromHome::Joined(joined) => {
            assert_eq!(joined.conn, conn_of(joined.ticket));
            Told::Joined(channel(&joined.key), joined.ticket, first_of(joined.outcome))
        }
        FromHome::Repeated(repeated) => {
            Told::Repeated(channel(&repeated.key), first_of(repeated.outcome))
        }
        FromHome::Answer(to, answer) => {
            assert_eq!((to.shard, to.index), (ShardId(1), 3));
            match *answer {
                Answer::State(state) => Told::State(to.request, state),
                Answer::Users(users) => Told::Users(users.into_iter().collect()),
                other => panic!("nothing was asked for {other:?}"),
            }
        }
        FromHome::NotMember(conn, _channel) => Told::NotMember(conn),
        other => panic!("a home of channels does not say {other:?}"),
    }
}

fn first_of(outcome: Outcome) -> Option<Vec<Value>> {
    match outcome {
        Outcome::Subscribed { answer, last } => {
            let frames = [Some(answer), last].into_iter().flatten();
            let bytes: Vec<u8> = frames.flat_map(Frame::into_bytes).collect();
            Some(shown(&Frame::from_encoded(bytes.into())))
        }
        Outcome::Full => None,
    }
}

fn frame(value: &Value) -> Frame {
    Frame::text(0, |out| out.extend(value.to_string().bytes()))
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
            model.begin();
            model.leave(last, true);
        }
        model.begin();
        while let Some(&last) = model.refused.last() {
            model.leave_refused(last);
        }
        model.step(&Step::Pass { ms: 1000, tick: true });
        assert!(model.homes.channels.len() == 0);
        assert_eq!(model.homes.channels.cache.held(), (0, 0));
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
        model.homes.channels.state(&model.keys[channel], Millis(model.now)).cached.is_some()
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
    assert_eq!((model.homes.channels.cache.held().0, model.homes.channels.len()), (2, 3));
    // The channel's earlier event is no longer its last one.
    model.step(&large(6));
    assert_eq!((model.homes.channels.cache.held().0, model.homes.channels.len()), (1, 2));
}

#[test]
fn an_app_that_holds_less_than_its_part_loses_nothing_to_another() {
    let hash = KeyHash::random();
    let key = |app, n: usize| {
        hash.channel(AppIndex(app), ChannelName::parse(&format!("cache-{n}"), 200, true).unwrap())
    };
    let publish = |homes: &mut Homes, app, n, padding| {
        let event =
            cached_event(key(app, n), frame(&json!("x".repeat(padding))), Duration::from_secs(60));
        homes.handle(ShardId(0), ToHome::Publish(event), Millis(0), &mut Outbox::default());
    };
    let kept = |homes: &Homes, app| {
        (0..1000)
            .filter(|&n| homes.channels.state(&key(app, n), Millis(0)).cached.is_some())
            .count()
    };
    // The bound on events: three apps, of which one stays below its third.
    let mut homes = Homes::new(CacheBounds { events: 90, ..ROOMY });
    (0..10).for_each(|n| publish(&mut homes, 0, n, 0));
    (0..200).for_each(|n| publish(&mut homes, 1, n, 0));
    assert_eq!([0, 1].map(|app| kept(&homes, app)), [10, 80], "one alone may have all the rest");
    (0..200).for_each(|n| publish(&mut homes, 2, n, 0));
    assert_eq!([0, 1, 2].map(|app| kept(&homes, app)), [10, 40, 40]);
    (10..30).for_each(|n| publish(&mut homes, 0, n, 0));
    assert_eq!([0, 1, 2].map(|app| kept(&homes, app)), [30, 30, 30]);
    // The bound on bytes: few large events of one app against many small ones of another.
    let mut homes = Homes::new(CacheBounds { bytes: 100_000, events: 10_000 });
    (0..500).for_each(|n| publish(&mut homes, 0, n, 50));
    (0..100).for_each(|n| publish(&mut homes, 1, n, 10_000));
    let (small, large) = (kept(&homes, 0), kept(&homes, 1));
    assert_eq!((small, large), (500, 7), "{:?}", homes.channels.cache.held());
}

#[test]
fn a_short_lived_event_is_dropped_in_time_behind_any_number_of_long_lived_ones() {
    let mut homes = Homes::new(ROOMY);
    let hash = KeyHash::random();
    for n in 0..50 {
        let name = ChannelName::parse(&format!("cache-{n}"), 200, true).unwrap();
        let ttl = Duration::from_millis(if n == 49 { 50 } else { 60_000 });
        let event = cached_event(hash.channel(AppIndex(0), name), frame(&json!({})), ttl);
        homes.handle(ShardId(0), ToHome::Publish(event), Millis(0), &mut Outbox::default());
    }
    homes.channels.tick(Millis(100), &mut Outbox::default());
    assert_eq!(homes.channels.len(), 49);
}

#[test]
fn cached_events_of_an_app_that_is_gone_go_a_part_at_a_time_and_no_others_do() {
    let hash = KeyHash::random();
    let mut homes = Homes::new(ROOMY);
    for (app, count) in [(0, 3), (1, 7), (2, 5), (3, 2)] {
        for number in 0..count {
            let name = ChannelName::parse(&format!("cache-{number}"), 200, true).unwrap();
            let event = cached_event(
                hash.channel(AppIndex(app), name),
                frame(&json!(number)),
                Duration::from_secs(60),
            );
            homes.handle(ShardId(0), ToHome::Publish(event), Millis(0), &mut Outbox::default());
        }
    }
    let gone = |app: AppIndex| app.0 % 2 == 1;
    let mut lengths = Vec::new();
    while homes.channels.cache.forget_apps(gone, 4) {
        lengths.push(homes.channels.len());
    }
    assert_eq!((lengths, homes.channels.len()), (vec![13, 9], 8));
    assert_eq!(homes.channels.cache.apps().collect::<Vec<_>>(), [AppIndex(0), AppIndex(2)]);
    assert_eq!(homes.channels.cache.held().0, 8);
}

#[test]
fn a_channel_that_admits_nobody_leaves_nothing() {
    let mut model = Model::new(ROOMY);
    model.join(1, 0, 0, Some(0));
    assert!(model.homes.channels.len() == 0);
}

#[test]
fn occupied_channels_are_those_of_the_app_that_asks() {
    let mut model = Model::new(ROOMY);
    model.join(0, 0, 0, None);
    let now = Millis(model.now);
    assert!(occupied(&mut model.homes, AppIndex(1), now).is_empty());
    assert_eq!(occupied(&mut model.homes, AppIndex(0), now).len(), 1);
}

#[test]
fn rounds_of_coming_and_going_leave_no_more_behind_than_one() {
    let hash = KeyHash::random();
    let keys: Vec<_> = (0..3000)
        .map(|n| {
            hash.channel(AppIndex(0), ChannelName::parse(&format!("c{n}"), 200, true).unwrap())
        })
        .collect();
    let mut homes = Homes::new(ROOMY);
    let mut rooms = Vec::new();
    for _ in 0..4 {
        for key in &keys {
            join(&mut homes, 0, key);
        }
        homes.channels.trim();
        let full = homes.channels.room();
        for key in &keys {
            leave(&mut homes, 0, key);
        }
        homes.channels.trim();
        rooms.push((full, homes.channels.room()));
    }
    assert!(rooms.iter().all(|room| *room == rooms[0]), "{rooms:?}");
    let (full, empty) = rooms[0];
    assert!(full > 3000 * size_of::<channel::Channel>() && empty < 100, "{empty} bytes of {full}");
}

#[test]
fn a_table_that_most_channels_left_shrinks_and_finds_the_rest() {
    let hash = KeyHash::random();
    let key =
        |n| hash.channel(AppIndex(0), ChannelName::parse(&format!("c{n}"), 200, true).unwrap());
    let mut homes = Homes::new(ROOMY);
    for n in 0..3000 {
        join(&mut homes, 0, &key(n));
    }
    let full = homes.channels.room();
    for n in 10..3000 {
        leave(&mut homes, 0, &key(n));
    }
    homes.channels.trim();
    assert!(homes.channels.room() < full / 4);
    assert!((0..10).all(|n| homes.channels.state(&key(n), Millis(0)).occupied()));
    assert!(!homes.channels.state(&key(10), Millis(0)).occupied());
}

fn cached_event(key: ChannelKey, frame: Frame, ttl: Duration) -> Event {
    let retain = Some(Box::new(Retain { data: "{}".into(), ttl }));
    Event { key, frame, except: None, retain }
}

/// Joins a subscriber of a shard to a channel without members.
fn join(homes: &mut Homes, shard: u16, key: &ChannelKey) -> Outbox {
    let authorised = Authorised::assumed(key.name().clone(), None);
    let conn = ConnKey { slot: 0, generation: 0 };
    let join = Join { key: key.clone(), authorised, conn, ticket: 0, max_members: None };
    let mut out = Outbox::default();
    homes.handle(ShardId(shard), ToHome::Join(Box::new(join)), Millis(0), &mut out);
    out
}

fn leave(homes: &mut Homes, shard: u16, key: &ChannelKey) -> Outbox {
    let leave = Leave { key: key.clone(), member: None, ticket: None };
    let mut out = Outbox::default();
    homes.handle(ShardId(shard), ToHome::Leave(leave), Millis(0), &mut out);
    out
}

/// The numbers of subscribers that each shard is told.
fn counts_told(mut out: Outbox) -> Vec<(u16, u64)> {
    let mut told = Vec::new();
    for (shard, message) in out.messages() {
        if let FromHome::Event(Event { frame, except: None, .. }) = message {
            let [value] = &shown(&frame)[..] else { panic!("one frame at a time") };
            assert_eq!(value["event"], "pusher_internal:subscription_count");
            told.push((shard.0, value["data"]["subscription_count"].as_u64().unwrap()));
        }
    }
    told
}

fn counts() -> Wanted {
    Wanted { counts: true, ..Wanted::default() }
}

#[test]
fn numbers_of_subscribers_go_to_all_shards_that_have_some_and_pause_when_large() {
    let hash = KeyHash::random();
    let key = hash.channel(AppIndex(0), ChannelName::parse("news", 200, true).unwrap());
    let mut homes = Homes::new(ROOMY);
    homes.channels.adopt(vec![counts()]);
    let due = |homes: &mut Homes, now| {
        let mut out = Outbox::default();
        homes.channels.tick(Millis(now), &mut out);
        counts_told(out)
    };
    for number in 1..=101 {
        assert_eq!(counts_told(join(&mut homes, 0, &key)), [(0, number)]);
    }
    assert_eq!(counts_told(join(&mut homes, 2, &key)), []);
    assert_eq!(due(&mut homes, 4999), []);
    assert_eq!(due(&mut homes, 5000), [(0, 102), (2, 102)]);
    assert_eq!(counts_told(join(&mut homes, 2, &key)), []);
    for shard in std::iter::repeat_n(0, 101).chain([2, 2]) {
        let _told = leave(&mut homes, shard, &key);
    }
    assert_eq!(due(&mut homes, 10_000), [], "all of them have left");
    homes.channels.trim();
    assert!(
        homes.channels.len() == 0
            && homes.channels.counts.next_due().is_none_or(|end| end.0 == 15_000)
    );
    assert_eq!(due(&mut homes, 15_000), []);
    homes.channels.trim();
    assert!(homes.channels.room() < 10_000, "{} bytes", homes.channels.room());
}

#[test]
fn presence_channels_are_told_no_numbers_and_neither_is_an_app_that_does_not_want_them() {
    let hash = KeyHash::random();
    let channel = |name| hash.channel(AppIndex(0), ChannelName::parse(name, 200, true).unwrap());
    let mut homes = Homes::new(ROOMY);
    homes.channels.adopt(vec![counts()]);
    assert_eq!(counts_told(join(&mut homes, 0, &channel("presence-a"))), []);
    homes.channels.adopt(vec![Wanted::default()]);
    assert_eq!(counts_told(join(&mut homes, 0, &channel("news"))), []);
}

#[test]
fn a_long_list_comes_in_parts_that_continue_where_the_last_one_ended() {
    let hash = KeyHash::random();
    let channel =
        |n| hash.channel(AppIndex(0), ChannelName::parse(&format!("c{n}"), 200, true).unwrap());
    let mut homes = Homes::new(ROOMY);
    let count = 2 * LOOKS_PER_TURN as usize + 1;
    for n in 0..count {
        let _told = join(&mut homes, 0, &channel(n));
    }
    let parts = list(&mut homes, AppIndex(0), Millis(0));
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [1024, 1024, 1]);
    let names: BTreeSet<_> = parts.iter().flatten().map(|(name, _)| name.clone()).collect();
    assert_eq!(names.len(), count);
}

/// A presence channel that takes one member, which has joined with ticket 1. The caller asks for
/// the others.
fn full() -> Model {
    let mut model = Model::new(ROOMY);
    for user in [0, 2] {
        model.begin();
        model.join(1, 0, user, Some(1));
    }
    model.begin();
    model
}

#[test]
fn a_client_event_behind_a_join_is_relayed_if_that_was_counted_and_refused_if_it_was_not() {
    let mut model = full();
    let (counted, refused) = (model.subscribed[0], model.refused[0]);
    model.whisper(counted);
    model.begin();
    model.whisper(refused);
    // This holds even if the same user is there by another connection meanwhile.
    model.begin();
    model.join(1, 2, refused.user, None);
    model.begin();
    model.whisper(refused);
}

#[test]
fn who_leaves_before_the_answer_makes_room_for_who_asks_next() {
    let mut model = full();
    let (counted, refused) = (model.subscribed[0], model.refused[0]);
    model.leave(counted, false);
    model.begin();
    model.join(1, 0, 3, Some(1));
    assert_eq!(model.subscribed.len(), 1);
    // The leave of a refused join is not counted.
    model.begin();
    model.leave_refused(refused);
    model.check();
}

#[test]
fn a_leave_of_a_shard_without_subscribers_changes_nothing() {
    let mut model = Model::new(ROOMY);
    model.begin();
    model.join(1, 0, 0, None);
    model.begin();
    let (key, member) = (model.keys[1].clone(), model.member(1, 0));
    model.call(2, ToHome::Leave(Leave { key, member, ticket: None }));
    model.check();
}
