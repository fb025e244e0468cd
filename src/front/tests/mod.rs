//! The front on real sockets: a plane on the kernel's ring in the test's thread, clients in
//! another, and a gateway that records instead of a shard.

mod api;
mod deadlines;
mod http;
mod in_place;
mod upgrade;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use super::gateway::{
    CachedEvent, ChannelKey, ChannelState, Gateway, GatewayCommand, InFlight, Newcomers,
    Publication, PublishedStates, Reservation, Unserved, Upgraded,
};
use super::stand::{Afterwards, serve};
use super::{CurrentSettings, Listeners, Settings};
use crate::apps::{App, Apps, test_app, test_app_named};
use crate::channels::KeyHash;
use crate::frame::Frame;
use crate::id::{AppIndex, ConnKey};
use crate::memory::Headroom;
use crate::protocol::close::ProtocolError;
use crate::protocol::names::ChannelName;
use crate::time::Millis;

/// The state that the client's thread may change and see while the front runs.
#[derive(Debug, Default)]
struct Switches {
    /// WebSockets handed over.
    adopted: AtomicUsize,
    overloaded: AtomicBool,
    draining: AtomicBool,
    full: AtomicBool,
    /// The Redis of the cluster does not say whether an app may have more connections.
    quota_unknown: AtomicBool,
    /// The node serves its clients alone.
    alone: AtomicBool,
    /// 0, 1 or 2, as [`Headroom`] has them.
    short_of_memory: AtomicUsize,
    /// Replies are dropped unanswered.
    gone: AtomicBool,
    /// Replies are kept unanswered.
    silent: AtomicBool,
}

/// The channels that begin with `many`.
const MANY: usize = 20_000;

/// A shard that answers the same to everyone, and echoes on the WebSockets that it adopts.
#[derive(Clone)]
struct FakeShard {
    apps: Arc<Apps>,
    switches: Arc<Switches>,
    /// Every publication and terminated user, as text.
    log: Rc<RefCell<Vec<String>>>,
    /// WebSockets that the plane has not made of their connections yet.
    upgraded: Rc<RefCell<Vec<Upgraded>>>,
    /// Commands that are never answered.
    unanswered: Rc<RefCell<Vec<GatewayCommand>>>,
    /// The token of the requests that are being answered.
    requests: InFlight,
}

impl FakeShard {
    fn new(apps: Vec<App>) -> Self {
        Self {
            apps: Arc::new(Apps::new(apps)),
            switches: Arc::default(),
            log: Rc::default(),
            upgraded: Rc::default(),
            unanswered: Rc::default(),
            requests: InFlight::default(),
        }
    }

    fn state(&self, channel: &ChannelName) -> ChannelState {
        let cached = CachedEvent { data: r#"{"a":1}"#.into(), ttl_s: 60 };
        match channel.as_str() {
            name if name.ends_with("empty") => ChannelState::default(),
            _ => ChannelState {
                subscription_count: 3,
                user_count: if channel.kind().is_presence() { 2 } else { 0 },
                cached: channel.kind().is_cache().then_some(cached),
            },
        }
    }

    /// The state that a publisher is told. Other nodes do not tell that of one channel.
    fn told_state(&self, channel: &ChannelName) -> Option<ChannelState> {
        (channel.as_str() != "untold").then(|| self.state(channel))
    }

    fn publish(&self, events: &[Publication]) -> Result<PublishedStates, Unserved> {
        for Publication { event, .. } in events {
            match event.key.name().as_str() {
                "overloaded" => return Err(Unserved::Overloaded),
                "away" => return Err(Unserved::RedisAway),
                _ => {}
            }
        }
        for Publication { event, .. } in events {
            let cached = event.retain.as_ref().map(|retain| &*retain.data);
            let (channel, name, except) = (event.key.name(), name_of(&event.frame), event.except);
            let line = format!("{name} on {channel} except {except:?} keeping {cached:?}");
            self.log.borrow_mut().push(line);
        }
        Ok(events.iter().map(|of| self.told_state(of.event.key.name())).collect())
    }
}

/// The name of an event that subscribers get.
fn name_of(frame: &Frame) -> String {
    let event: serde_json::Value = serde_json::from_slice(frame.payload()).unwrap();
    event["event"].as_str().unwrap().to_owned()
}

impl Gateway for FakeShard {
    fn apps(&self) -> Arc<Apps> {
        Arc::clone(&self.apps)
    }

    fn channel(&self, app: AppIndex, name: ChannelName) -> ChannelKey {
        KeyHash::seeded(0).channel(app, name)
    }

    fn submit(&self, command: GatewayCommand) {
        if self.switches.gone.load(Ordering::SeqCst) {
            return;
        }
        if self.switches.silent.load(Ordering::SeqCst) {
            return self.unanswered.borrow_mut().push(command);
        }
        let channel = |name: &str| ChannelName::parse(name, 200, true).unwrap();
        match command {
            GatewayCommand::Channels { prefix, reply, .. } if &*prefix == "many" => {
                let list = (0..MANY).map(|at| channel(&format!("many-{at}")));
                let list = list.map(|name| (name.clone(), self.state(&name))).collect();
                let _ = reply.send(Ok(list));
            }
            GatewayCommand::Publish { events, reply, .. } => {
                let _ = reply.send(self.publish(&events));
            }
            GatewayCommand::Channels { prefix, reply, .. } => {
                let names = ["presence-a", "presence-b", "news"].map(channel).into_iter();
                let named = names.filter(|name| name.as_str().starts_with(&*prefix));
                let list = named.map(|name| (name.clone(), self.state(&name))).collect();
                let _ = reply.send(Ok(list));
            }
            GatewayCommand::Channel { channel, reply, .. } => {
                let _ = reply.send(Ok(self.state(channel.name())));
            }
            GatewayCommand::Users { channel, reply, .. } => {
                let users = ["1", "\"2\""].map(Box::from);
                let empty = channel.name().as_str().ends_with("empty");
                let _ = reply.send(Ok(if empty { Vec::new() } else { users.into() }));
            }
            GatewayCommand::Connections { app, reply } => {
                let _ = reply.send(Ok(app.counters.connections()));
            }
            GatewayCommand::MorePlaces { reply, .. } => {
                let unknown = self.switches.quota_unknown.load(Ordering::SeqCst);
                let _ = reply.send(if unknown { Err(Unserved::RedisAway) } else { Ok(false) });
            }
            GatewayCommand::Terminate { user_id, reply, .. } => {
                self.log.borrow_mut().push(format!("terminate {user_id}"));
                let _ = reply.send(Ok(()));
            }
            GatewayCommand::Adopt(upgraded) => {
                self.switches.adopted.fetch_add(1, Ordering::SeqCst);
                self.upgraded.borrow_mut().push(upgraded);
            }
        }
    }

    fn overloaded(&self) -> bool {
        self.switches.overloaded.load(Ordering::SeqCst)
    }

    fn stands_alone(&self) -> bool {
        self.switches.alone.load(Ordering::SeqCst)
    }

    fn headroom(&self) -> Headroom {
        match self.switches.short_of_memory.load(Ordering::SeqCst) {
            0 => Headroom::Enough,
            1 => Headroom::Short,
            _ => Headroom::Spent,
        }
    }

    fn stopping(&self) -> Option<Newcomers> {
        let stopping = self.switches.draining.load(Ordering::SeqCst);
        stopping.then_some(Newcomers::Refused(ProtocolError::ShuttingDown))
    }

    fn begin_request(&self) -> InFlight {
        self.requests.clone()
    }

    fn reserve(&self) -> Option<Reservation> {
        let full = self.switches.full.load(Ordering::SeqCst);
        (!full).then(|| Reservation::of(&Rc::default()))
    }
}

/// A masked text frame, as a client sends it.
fn masked(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).unwrap();
    assert!(len < 126);
    [&[0x81, 0x80 | len, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// The same text as the server sends it.
fn echoed(text: &str) -> Vec<u8> {
    text_frame(text).bytes().to_vec()
}

fn text_frame(text: &str) -> Frame {
    Frame::text(text.len(), |payload| payload.extend_from_slice(text.as_bytes()))
}

/// Two apps: the usual one, and one whose key must open nothing of the first.
fn two_apps() -> Vec<App> {
    vec![test_app(), test_app_named(1, "other-id", "other-key")]
}

/// Runs `client` against a front, then stops the front and waits until it has ended.
fn with_front(
    shard: FakeShard,
    settings: Settings,
    client: impl FnOnce(SocketAddr) + Send + 'static,
) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let listeners = Listeners { tcp: vec![tcp.into()], ..Listeners::default() };
    run(shard, settings, listeners, move |_| client(address));
}

/// As [`with_front`], for any listeners; `client` may also stop the front itself.
fn run(
    shard: FakeShard,
    settings: Settings,
    listeners: Listeners,
    client: impl FnOnce(&watch::Sender<bool>) + Send + 'static,
) {
    let (stop, stopped) = watch::channel(false);
    // The front stops when the sender is dropped, by a panic of the client too.
    let client = thread::spawn(move || client(&stop));
    let settings = CurrentSettings::new(settings);
    let upgraded = Rc::clone(&shard.upgraded);
    let upgraded = move || upgraded.take();
    serve(listeners, shard, settings, stopped, upgraded, Afterwards::Echo).unwrap();
    client.join().unwrap();
}

/// A client's connection. No test waits for ever.
fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends bytes on a connection of their own and reads everything until the end.
fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(bytes).unwrap();
    read_to_end(stream)
}

fn read_to_end(mut stream: TcpStream) -> String {
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    String::from_utf8_lossy(&received).into_owned()
}

/// Reads one response: head and body by its Content-Length.
fn read_response(stream: &mut impl Read) -> Reply {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head[9..12].parse().unwrap();
    let mut reply = Reply { status, head, body: String::new() };
    let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    reply.body = String::from_utf8(body).unwrap();
    reply
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// The bytes that an idle connection holds beside the buffers of its pipe and of hyper.
#[test]
fn a_connection_waits_in_little_memory() {
    let settings = CurrentSettings::new(Settings::default());
    let front = Rc::new(super::state::Front {
        gateway: FakeShard::new(two_apps()),
        settings,
        bodies: super::body::BodyBudget::new(0),
        permits: super::permits::Permits::new(1),
        date: super::clock::Date::default(),
        json: super::api::JsonParser::default(),
    });
    let arrival = super::accepted::Arrival {
        peer: super::address::Peer::Unix,
        opening: super::accepted::Opening::Http,
        clients: None,
        at: Millis(0),
    };
    let key = ConnKey { slot: 0, generation: 0 };
    let pipe = super::pipe::Pipe::new(key, &Rc::default(), &[]);
    let pace = super::pace::Pace::new(key, &Rc::default(), Duration::ZERO, Millis(0));
    let bytes = size_of_val(&super::connection::serve(pipe, Rc::new(pace), arrival, front));
    assert!(bytes <= 1_900, "{bytes} bytes");
}
