//! A simulated client: speaks the protocol in real frames, and knows at every frame it gets whether
//! the server may send it.
//!
//! Every request is followed by a `pusher:ping`. The server answers in order, so the pongs tell how
//! many requests it had handled when it owed the frames around them: at `k` pongs that is `k` or
//! `k + 1`.

mod hear;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::RawFd;
use std::time::Duration;

use ringwave::testing::apps::App;
use ringwave::testing::id::ConnKey;
use ringwave::testing::time::Millis;
use ringwave_ring::sim::{Dice, SimNet};
use serde_json::{Value, json};

use crate::ledger::{Fate, Ledger, Source};
use crate::stream::{Stream, masked};

/// The plane waits three seconds for a client to read what it is owed at the end. It counts from
/// the last time that it looked at its clock, which is a while ago when its ring was busy.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A channel as clients know it.
#[derive(Debug)]
pub(crate) struct Channel {
    pub name: String,
    pub app: usize,
    pub signed: bool,
    pub presence: bool,
    /// Its subscribers are told how many they are.
    pub counted: bool,
    pub cache: bool,
}

/// The phase of a client's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// It has sent its Close frame.
    Leaving,
    /// It has got the server's Close frame, with this code.
    Closed(u16),
    Gone,
}

/// The way in which a client reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Reads,
    /// Reads nothing for a while.
    Stalls,
    /// Neither reads nor writes ever again, without a word.
    Mute,
}

/// The parts of the world that every client sees.
pub(crate) struct Surroundings<'a> {
    pub net: &'a SimNet,
    pub dice: &'a mut Dice,
    pub ledger: &'a mut Ledger,
    pub channels: &'a [Channel],
    pub users: &'a [String],
    pub now: Millis,
    /// Whether all clients answer at once.
    pub quiet: bool,
    /// Whether a drain is on.
    pub draining: bool,
    /// Whether [`SWITCHED`](crate::world::SWITCHED) was off lately.
    pub switched_off: bool,
    /// Most members of a presence channel.
    pub members_max: usize,
    /// Users whose connections the app has terminated.
    pub terminated: &'a [(usize, String)],
}

#[derive(Debug)]
enum Request {
    /// A subscribe to this channel, and the step in which it was sent.
    Subscribe(usize, u64),
    Unsubscribe(usize),
    Other,
}

impl Request {
    const fn concerns(&self, channel: usize) -> bool {
        match self {
            Self::Subscribe(of, _) | Self::Unsubscribe(of) => *of == channel,
            Self::Other => false,
        }
    }
}

/// A client's view of a channel.
#[derive(Debug, Default)]
struct Seat {
    /// Whether the client wants the channel, by the requests that are known to be handled.
    wanted: bool,
    /// The same, by all requests.
    wanted_last: bool,
    /// The step in which the client began to want the channel.
    asked: u64,
    subscribes: usize,
    successes: usize,
    episode: Option<usize>,
    /// The last answer was that the channel is full.
    full: bool,
    members: BTreeSet<String>,
    /// The number of subscribers, as the client was last told.
    count: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub id: usize,
    pub fd: RawFd,
    pub shard: usize,
    pub app: usize,
    pub user: String,
    pub phase: Phase,
    pub mood: Mood,
    /// It does not answer a Close frame.
    pub rude: bool,
    /// It has answered the server's Close frame.
    pub answered_close: bool,
    /// The server has answered its Close frame, so everything before that was handled.
    pub heard_out: bool,
    pub socket_id: Option<String>,
    key: String,
    pong_timeout: Duration,
    stream: Stream,
    out: VecDeque<u8>,
    seats: BTreeMap<usize, Seat>,
    /// Requests that are not known to be handled.
    requests: VecDeque<Request>,
    /// Payloads of pings that wait for their pong.
    pings: VecDeque<Vec<u8>>,
    /// The last frame was the success of this cache channel, so the next one is its event.
    cache_due: Option<(usize, bool)>,
    /// Errors of code 4009 that must come.
    errors_due: usize,
    /// Client events that are either relayed or answered with such an error, because they were sent
    /// behind a subscribe that may be refused.
    doubtful: Vec<usize>,
    /// Errors of code 4009 that came.
    errors: usize,
    /// Watchlists of sign-ins that were not answered yet.
    sign_ins: VecDeque<BTreeSet<String>>,
    /// The users that it watches. `None` until it is signed in.
    watching: Option<BTreeSet<String>>,
    /// The watched users that are online, as far as the client knows.
    online: BTreeSet<String>,
    /// It broke the protocol on purpose.
    violated: bool,
    wrote: Millis,
    /// The longest time between two writes.
    silence: Duration,
    /// The server's record of it.
    pub conn: Option<ConnKey>,
    /// The time at which the server began to close.
    pub closing: Option<Millis>,
    /// The time at which the server had closed.
    pub released: Option<Millis>,
}

impl Client {
    pub(crate) fn new(
        id: usize,
        fd: RawFd,
        shard: usize,
        app: &App,
        user: String,
        now: Millis,
    ) -> Self {
        Self {
            id,
            fd,
            shard,
            app: usize::from(app.index.0),
            user,
            phase: Phase::Open,
            mood: Mood::Reads,
            rude: false,
            answered_close: false,
            heard_out: false,
            socket_id: None,
            key: app.rules.key.clone(),
            pong_timeout: app.pong_timeout,
            stream: Stream::default(),
            out: VecDeque::new(),
            seats: BTreeMap::new(),
            requests: VecDeque::new(),
            pings: VecDeque::new(),
            cache_due: None,
            errors_due: 0,
            doubtful: Vec::new(),
            errors: 0,
            sign_ins: VecDeque::new(),
            watching: None,
            online: BTreeSet::new(),
            violated: false,
            wrote: now,
            silence: Duration::ZERO,
            conn: None,
            closing: None,
            released: None,
        }
    }

    /// Whether it takes part.
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.out.len() > 3000 || self.requests.len() > 50
    }

    /// Whether it is subscribed, as far as it knows.
    pub(crate) fn is_subscribed(&self, channel: usize) -> bool {
        self.is_open() && self.seats.get(&channel).is_some_and(|seat| seat.episode.is_some())
    }

    // ---- the client's messages ----

    pub(crate) fn subscribe(&mut self, channel: usize, app: &App, with: &mut Surroundings<'_>) {
        let of = &with.channels[channel];
        let Some(socket_id) = self.socket_id.clone().or_else(|| (!of.signed).then(String::new))
        else {
            return;
        };
        let known = self.watching.is_some() && with.dice.chance(300);
        let channel_data = (of.presence && !known)
            .then(|| json!({"user_id": self.user, "user_info": {"n": 1}}).to_string());
        let wrong = of.signed && with.dice.chance(50);
        let mut data = json!({"channel": of.name});
        if of.signed {
            let mut text = format!("{socket_id}:{}", of.name);
            if let Some(channel_data) = &channel_data {
                text = format!("{text}:{channel_data}");
                data["channel_data"] = json!(channel_data);
            }
            let signed = if wrong { "something else" } else { &text };
            data["auth"] =
                json!(format!("{}:{}", self.key, app.rules.secret.sign(&[signed.as_bytes()])));
        }
        if wrong {
            self.errors_due += 1;
            return self.request("pusher:subscribe", data, Request::Other, with);
        }
        let seat = self.seats.entry(channel).or_default();
        seat.subscribes += 1;
        seat.wanted_last = true;
        let request = Request::Subscribe(channel, with.ledger.step);
        self.request("pusher:subscribe", data, request, with);
    }

    pub(crate) fn unsubscribe(&mut self, channel: usize, with: &mut Surroundings<'_>) {
        let Some(seat) = self.seats.get_mut(&channel) else { return };
        seat.wanted_last = false;
        if let Some(episode) = seat.episode {
            with.ledger.end(episode);
        }
        let data = json!({"channel": with.channels[channel].name});
        self.request("pusher:unsubscribe", data, Request::Unsubscribe(channel), with);
    }

    /// Signs in, at times once more, with a watchlist of its own.
    pub(crate) fn sign_in(&mut self, app: &App, with: &mut Surroundings<'_>) {
        let Some(socket_id) = self.socket_id.clone() else { return };
        let watchlist: BTreeSet<String> =
            with.users.iter().filter(|_| with.dice.chance(400)).cloned().collect();
        let user_data = json!({"id": self.user, "watchlist": watchlist}).to_string();
        let wrong = with.dice.chance(50);
        let signed = format!("{socket_id}::user::{}", if wrong { "{}" } else { &user_data });
        let auth = format!("{}:{}", self.key, app.rules.secret.sign(&[signed.as_bytes()]));
        if wrong {
            self.errors_due += 1;
        } else {
            self.sign_ins.push_back(watchlist);
        }
        let data = json!({"auth": auth, "user_data": user_data});
        self.request("pusher:signin", data, Request::Other, with);
    }

    /// Sends a client event. Whether the client is subscribed depends on its last request about the
    /// channel, whatever the server has answered by now.
    pub(crate) fn whisper(&mut self, channel: usize, filler: usize, with: &mut Surroundings<'_>) {
        let of = &with.channels[channel];
        if !of.signed || self.socket_id.is_none() {
            return;
        }
        let unsettled = |request: &Request| request.concerns(channel);
        let seat = self.seats.entry(channel).or_default();
        let certain = seat.episode.is_some() && !self.requests.iter().any(unsettled);
        let may_be_full = of.presence && with.members_max < with.users.len();
        let source = Source::Client(self.id);
        let id = with.ledger.publish(channel, source, Some(self.id), false, filler);
        if !seat.wanted_last {
            with.ledger.set_fate(id, Fate::Refused);
            self.errors_due += 1;
        } else if may_be_full && !certain {
            with.ledger.set_fate(id, Fate::Possible);
            self.doubtful.push(id);
        }
        with.ledger.early += u64::from(seat.wanted_last && !certain);
        let data = with.ledger.message(id).data.clone();
        let name = &with.channels[channel].name;
        let text = json!({"event": "client-word", "channel": name, "data": data}).to_string();
        self.say(&text, with.dice);
        self.fence(Request::Other, with.dice);
    }

    /// Sends a WebSocket ping.
    pub(crate) fn ping(&mut self, dice: &mut Dice) {
        if !self.is_open() {
            return;
        }
        let payload = vec![b'p'; dice.below(126)];
        self.put(9, true, &payload, dice);
        self.pings.push_back(payload);
    }

    /// Closes as the protocol asks.
    pub(crate) fn leave(&mut self, with: &mut Surroundings<'_>) {
        self.put(8, true, &1000_u16.to_be_bytes(), with.dice);
        self.end(Phase::Leaving, with.ledger);
    }

    /// Closes without a word, if need be in the middle of a frame.
    pub(crate) fn vanish(&mut self, with: &mut Surroundings<'_>) {
        with.net.close(self.fd);
        self.end(Phase::Gone, with.ledger);
    }

    /// Sends a frame that no client may send.
    pub(crate) fn violate(&mut self, with: &mut Surroundings<'_>) {
        // The frames are not masked, have reserved bits, or have an unknown opcode.
        let first = with.dice.one_of(&[[0x81, 2], [0xf1, 0x80], [0x83, 0x80]]);
        self.out.extend(first.iter().chain(&[0; 4]));
        self.violated = true;
        self.end(Phase::Leaving, with.ledger);
    }

    fn request(&mut self, event: &str, data: Value, request: Request, with: &mut Surroundings<'_>) {
        // Clients send `data` as an object or as a string that holds one.
        let data = if with.dice.chance(500) { json!(data.to_string()) } else { data };
        self.say(&json!({"event": event, "data": data}).to_string(), with.dice);
        self.fence(request, with.dice);
    }

    fn fence(&mut self, request: Request, dice: &mut Dice) {
        if !self.is_open() {
            return;
        }
        self.requests.push_back(request);
        self.say(r#"{"event":"pusher:ping","data":{}}"#, dice);
    }

    /// A text message in one to three fragments, with a ping in between at times.
    fn say(&mut self, text: &str, dice: &mut Dice) {
        let mut rest = text.as_bytes();
        let cuts = if dice.chance(300) { 1 + dice.below(2) } else { 0 };
        for cut in 0..cuts {
            let (part, behind) = rest.split_at(dice.below(rest.len() + 1));
            self.put(u8::from(cut == 0), false, part, dice);
            rest = behind;
            if dice.chance(100) {
                self.ping(dice);
            }
        }
        self.put(u8::from(cuts == 0), true, rest, dice);
    }

    fn put(&mut self, opcode: u8, last: bool, payload: &[u8], dice: &mut Dice) {
        if !self.is_open() {
            return;
        }
        let key = (dice.roll() as u32).to_be_bytes();
        self.out.extend(masked(opcode, last, payload, key));
    }

    /// Bytes for the server that travel with the handshake.
    pub(crate) fn leftover(&mut self, most: usize) -> Vec<u8> {
        let len = self.out.len().min(most);
        self.out.drain(..len).collect()
    }

    /// Writes up to `most` bytes. Returns whether there were any.
    pub(crate) fn write(&mut self, most: usize, net: &SimNet, now: Millis) -> bool {
        if self.phase == Phase::Gone || self.mood == Mood::Mute || self.out.is_empty() {
            return false;
        }
        let bytes = self.leftover(most);
        net.write(self.fd, &bytes);
        self.silence = self.silence.max(now.since(self.wrote));
        self.wrote = now;
        true
    }

    // ---- the server's messages ----

    /// Reads up to `most` bytes. Returns whether anything happened.
    pub(crate) fn read(&mut self, most: usize, with: &mut Surroundings<'_>) -> bool {
        if self.phase == Phase::Gone || self.mood != Mood::Reads {
            return false;
        }
        if with.net.was_reset(self.fd) {
            self.end(Phase::Gone, with.ledger);
            return true;
        }
        let bytes = with.net.read(self.fd, most);
        let heard = self.stream.feed(&bytes, &format!("client {}", self.id));
        for frame in heard {
            self.hear(frame, with);
        }
        if with.net.ended(self.fd) {
            self.ended(with);
            return true;
        }
        if with.net.finished(self.fd) && self.violated && !self.rude {
            // The server's side of the stream has ended, but the client's has not.
            let told = matches!(self.phase, Phase::Closed(_)) && !self.stream.is_torn();
            assert!(told, "client {}: the stream ends without a code, {self:?}", self.id);
            with.net.close(self.fd);
            self.end(Phase::Gone, with.ledger);
            return true;
        }
        !bytes.is_empty()
    }

    /// Handles the end of the connection, which the server has closed and from which everything is
    /// read.
    fn ended(&mut self, with: &mut Surroundings<'_>) {
        let (id, phase) = (self.id, self.phase);
        let timed_out = match (self.closing, self.released) {
            (Some(closing), Some(released)) => released.since(closing) >= CLOSE_TIMEOUT,
            _ => panic!("client {id}: nobody has closed the connection, {phase:?}"),
        };
        // A client that took too long to read loses the end.
        if !timed_out {
            assert!(!self.stream.is_torn(), "client {id}: the stream ends in a frame, {self:?}");
            let told = matches!(phase, Phase::Closed(_));
            assert!(told, "client {id}: the stream ends without a code, {phase:?}");
        }
        with.net.close(self.fd);
        self.end(Phase::Gone, with.ledger);
    }

    /// Ends the client's part in the run.
    fn end(&mut self, phase: Phase, ledger: &mut Ledger) {
        self.phase = phase;
        for seat in self.seats.values() {
            if let Some(episode) = seat.episode {
                ledger.end(episode);
            }
        }
    }

    // ---- the client when all has come to rest ----

    /// Panics if a message that the client waits for has not come.
    pub(crate) fn assert_at_rest(&self, members_max: usize, ledger: &Ledger) {
        let id = self.id;
        if !self.is_open() {
            assert_ne!(self.phase, Phase::Leaving, "client {id}'s close is not answered");
            let over = !self.answered_close || self.phase == Phase::Gone;
            assert!(over, "client {id}: both sides have closed, and the connection lives");
            return;
        }
        assert!(self.socket_id.is_some(), "client {id} was never welcomed");
        assert!(!self.stream.is_torn(), "client {id} waits for the rest of a frame");
        assert!(self.requests.is_empty(), "client {id}: {:?} unanswered", self.requests);
        assert!(self.pings.is_empty(), "client {id} waits for pongs");
        let unseen = self.doubtful.iter().filter(|&&event| !ledger.message(event).seen).count();
        let possible = self.errors_due..=self.errors_due + unseen;
        assert!(
            possible.contains(&self.errors),
            "client {id}: {} errors, {possible:?}",
            self.errors
        );
        assert!(self.sign_ins.is_empty(), "client {id} waits to be signed in");
        for (channel, seat) in &self.seats {
            let settled = !seat.wanted || seat.episode.is_some() || seat.full;
            assert!(settled, "client {id} was not answered about channel {channel}: {seat:?}");
            assert!(seat.members.len() <= members_max, "channel {channel} is over-full");
        }
    }

    /// The users that it watches, and those of them that are online, as far as it knows. `None`
    /// unless it is open and signed in.
    pub(crate) fn watches(&self) -> Option<(&BTreeSet<String>, &BTreeSet<String>)> {
        self.watching.as_ref().filter(|_| self.is_open()).map(|watching| (watching, &self.online))
    }

    /// The number of subscribers of a channel, as the client was last told.
    pub(crate) fn count(&self, channel: usize) -> Option<u64> {
        self.seats.get(&channel).and_then(|seat| seat.count)
    }

    /// The members of a presence channel, as far as it knows. `None` unless it is subscribed.
    pub(crate) fn members(&self, channel: usize) -> Option<&BTreeSet<String>> {
        self.seats.get(&channel).filter(|seat| seat.episode.is_some()).map(|seat| &seat.members)
    }
}
