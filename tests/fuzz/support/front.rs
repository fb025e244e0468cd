//! The front of one shard on a thread of its own, behind a unix socket, with a shard that records
//! its commands and holds them to the front's contract.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use ringwave::testing::apps::Apps;
use ringwave::testing::channels::{CachedEvent, ChannelKey, ChannelState, KeyHash, Publication};
use ringwave::testing::frame::Frame;
use ringwave::testing::front::gateway::{InFlight, Newcomers, Reservation, Upgraded};
use ringwave::testing::front::{
    Afterwards, CurrentSettings, Gateway, GatewayCommand, Listeners, Settings, serve,
};
use ringwave::testing::id::{AppIndex, SocketId};
use ringwave::testing::memory::Headroom;
use ringwave::testing::protocol::names::ChannelName;
use tokio::sync::watch;

use crate::{Place, app};

/// The longest time that any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command that the shard got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An event for a channel: its frame, and the connection that is excepted.
    Published { channel: String, frame: Vec<u8>, except: Option<SocketId> },
    /// All connections of this user are to be closed.
    Terminated(String),
    /// A WebSocket was opened, with these bytes behind its handshake.
    Adopted(Vec<u8>),
}

/// A front that runs until the process ends.
#[derive(Debug)]
pub struct FrontEnd {
    place: Place,
    heard: Receiver<Heard>,
    _stop: watch::Sender<bool>,
}

impl FrontEnd {
    /// Starts the front, with this prefix of paths.
    pub fn start(prefix: &str) -> Self {
        let place = Place::new("front");
        let listener = UnixListener::bind(place.path().join("socket")).expect("a unix socket");
        let (teller, heard) = channel();
        let (stop, stopped) = watch::channel(false);
        let mut settings = Settings::default();
        prefix.clone_into(&mut settings.path_prefix);
        thread::spawn(move || {
            let listeners = Listeners { unix: vec![listener.into()], ..Listeners::default() };
            let apps = Arc::new(Apps::new(vec![app()]));
            let shard = Shard { apps, teller, upgraded: Rc::default() };
            let settings = CurrentSettings::new(settings);
            let upgraded = Rc::clone(&shard.upgraded);
            let upgraded = move || upgraded.take();
            let served = serve(listeners, shard, settings, stopped, upgraded, Afterwards::End);
            served.expect("the front starts");
        });
        Self { place, heard, _stop: stop }
    }

    /// Sends these pieces on a connection, ends it, and returns the answers and the commands that
    /// the shard got meanwhile.
    pub fn exchange<'p>(
        &self,
        pieces: impl IntoIterator<Item = &'p [u8]>,
    ) -> (Vec<u8>, Vec<Heard>) {
        let mut stream =
            UnixStream::connect(self.place.path().join("socket")).expect("the front listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
            // The front may have refused already, and reads no more.
            if stream.write_all(piece).is_err() {
                break;
            }
        }
        let _ended = stream.shutdown(Shutdown::Write);
        let mut answers = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => answers.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("no answer and no end within {PATIENCE:?}");
                }
                Err(_) => break,
            }
        }
        (answers, self.heard.try_iter().collect())
    }
}

#[derive(Clone)]
struct Shard {
    apps: Arc<Apps>,
    teller: Sender<Heard>,
    upgraded: Rc<RefCell<Vec<Upgraded>>>,
}

impl Shard {
    fn publish(&self, events: Vec<Publication>) -> Vec<Option<ChannelState>> {
        assert!(!events.is_empty(), "a publish without events");
        let mut states = Vec::new();
        for Publication { event, .. } in events {
            let app = self.apps.get(event.key.app()).expect("an app of the configuration");
            let (limits, channel) = (&app.rules.limits, event.key.name());
            let name = name_of(&event.frame);
            assert!(channel.len() <= limits.max_channel_name);
            assert!(name.len() <= limits.max_event_name.unwrap_or(usize::MAX));
            assert!(!channel.contains(char::is_control));
            assert_eq!(event.retain.is_some(), channel.kind().is_cache());
            states.push(Some(state(channel)));
            let told = Heard::Published {
                channel: channel.as_str().to_owned(),
                frame: event.frame.bytes().to_vec(),
                except: event.except,
            };
            let _heard = self.teller.send(told);
        }
        states
    }
}

fn state(channel: &ChannelName) -> ChannelState {
    let cached = CachedEvent { data: r#"{"a":1}"#.into(), ttl_s: 60 };
    ChannelState {
        subscription_count: 3,
        user_count: if channel.kind().is_presence() { 2 } else { 0 },
        cached: channel.kind().is_cache().then_some(cached),
    }
}

/// The name of an event that subscribers get.
fn name_of(frame: &Frame) -> String {
    let event: serde_json::Value = serde_json::from_slice(frame.payload()).expect("JSON");
    event["event"].as_str().expect("a name").to_owned()
}

impl Gateway for Shard {
    fn apps(&self) -> Arc<Apps> {
        Arc::clone(&self.apps)
    }

    fn channel(&self, app: AppIndex, name: ChannelName) -> ChannelKey {
        KeyHash::seeded(0).channel(app, name)
    }

    fn submit(&self, command: GatewayCommand) {
        match command {
            GatewayCommand::Publish { events, reply } => {
                let _ = reply.send(Ok(self.publish(events)));
            }
            GatewayCommand::Channels { reply, .. } => {
                let name = |text| ChannelName::parse(text, 40, true).expect("a name");
                let names = ["presence-a", "news"].map(name);
                let _ = reply.send(Ok(names.map(|name| (name.clone(), state(&name))).into()));
            }
            GatewayCommand::Channel { channel, reply, .. } => {
                let _ = reply.send(Ok(state(channel.name())));
            }
            GatewayCommand::Users { channel, reply, .. } => {
                assert!(channel.name().kind().is_presence());
                let _ = reply.send(Ok(["1", "\"2\""].map(Box::from).into()));
            }
            GatewayCommand::Connections { app, reply } => {
                let _ = reply.send(Ok(app.counters.connections()));
            }
            GatewayCommand::MorePlaces { reply, .. } => {
                let _ = reply.send(Ok(false));
            }
            GatewayCommand::Terminate { user_id, reply, .. } => {
                let _heard = self.teller.send(Heard::Terminated(user_id));
                let _ = reply.send(Ok(()));
            }
            GatewayCommand::Adopt(upgraded) => {
                assert!(upgraded.opening.starts_with(b"HTTP/1.1 101 "), "{:?}", upgraded.opening);
                assert!(upgraded.admission.is_some());
                let _heard = self.teller.send(Heard::Adopted(upgraded.leftover.to_vec()));
                self.upgraded.borrow_mut().push(upgraded);
            }
        }
    }

    fn overloaded(&self) -> bool {
        false
    }

    fn headroom(&self) -> Headroom {
        Headroom::Enough
    }

    fn stopping(&self) -> Option<Newcomers> {
        None
    }

    fn begin_request(&self) -> InFlight {
        InFlight::default()
    }

    fn reserve(&self) -> Option<Reservation> {
        Some(Reservation::of(&Rc::default()))
    }
}
