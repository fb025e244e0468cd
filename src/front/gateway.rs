//! The interface between the front and its shard: the front defines the requests, and the shard
//! answers them. The front never sees a mailbox, a ring or another shard.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::oneshot;

use crate::apps::{Admission, App, Apps};
pub use crate::channels::Publication;
pub(crate) use crate::channels::{CachedEvent, ChannelKey, ChannelState, Event, Retain};
use crate::counters::ApiRoute;
use crate::id::{AppIndex, ConnKey};
use crate::memory::Headroom;
use crate::protocol::close::ProtocolError;
use crate::protocol::names::ChannelName;

pub(crate) use super::address_limits::ConnectionPermit;

/// The shard as the front sees it. Cloned into every connection's task of one thread.
pub trait Gateway: Clone + 'static {
    /// The apps of the configuration as it is now.
    fn apps(&self) -> Arc<Apps>;

    /// The key of a channel, which events and questions about it have.
    fn channel(&self, app: AppIndex, name: ChannelName) -> ChannelKey;

    /// Takes a command. Never blocks and never fails: when the shard is gone, the command's
    /// [`Reply`] is dropped and the front answers 503.
    fn submit(&self, command: GatewayCommand);

    /// Whether the bus spills. Meanwhile publishes are answered 503 with `Retry-After: 1`, and are
    /// not submitted.
    fn overloaded(&self) -> bool;

    /// Whether the node answers by itself, because the Redis of its cluster is away
    /// (`cluster.when_away`).
    fn stands_alone(&self) -> bool {
        false
    }

    /// The memory that is left.
    fn headroom(&self) -> Headroom;

    /// Charges so many bytes that are to be held for a client. Returns `false` if they are not
    /// free; they may be a little later.
    fn takes_on(&self, _bytes: usize) -> bool {
        true
    }

    /// The fate of new WebSockets while the process stops; `None` if it does not stop. During a
    /// stop, an HTTP connection closes after its current request.
    fn stopping(&self) -> Option<Newcomers>;

    /// Counts an answer of the API.
    fn count_answer(&self, _app: AppIndex, _route: ApiRoute, _status: StatusCode) {}

    /// Counts a handshake with this key of an app that was refused with this code.
    fn count_refused(&self, _key: &str, _code: u16) {}

    /// Counts events that a request has published.
    fn count_events(&self, _app: AppIndex, _route: ApiRoute, _events: usize) {}

    /// Returns a guard that is held while a request is answered: a stop waits for the requests that
    /// began before it.
    fn begin_request(&self) -> InFlight;

    /// Reserves a slot for one more WebSocket, if there is one. Called before the 101 is sent: many
    /// handshakes can be under way at a time, and a client that gets a 101 must not find the table
    /// full.
    fn reserve(&self) -> Option<Reservation>;
}

/// The fate of a WebSocket that is opened while the process stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newcomers {
    /// The WebSocket is opened, and its client hears nothing until the process ends; then it is
    /// closed with 4102. A client that was refused now would reconnect while no server listens.
    Held,
    /// The WebSocket is refused with this error.
    Refused(ProtocolError),
}

/// The guard of a request that is being answered, dropped with the answer.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Rc<()>);

impl InFlight {
    /// The number of other holders: of requests that are being answered, if the shard asks.
    #[must_use]
    pub(crate) fn others(&self) -> usize {
        Rc::strong_count(&self.0) - 1
    }
}

/// The sender of an answer. It is dropped unanswered when the shard stops.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Unserved>>;

/// The states of the channels of a publish: one per [`Publication`], in their order. `None` if the
/// event was published, but other nodes of the cluster cannot tell the state of its channel now.
pub type PublishedStates = Vec<Option<ChannelState>>;

/// One request of the front to its shard. Everything in it is checked: the app exists, the request
/// was signed with its secret, the names are valid and the sizes within its limits.
#[derive(Debug)]
pub enum GatewayCommand {
    /// Sends events to the subscribers of their channels, on all shards, in the given order.
    Publish {
        /// At least one; each channel and event of the request once.
        events: Vec<Publication>,
        /// Answered once every home shard has taken its part.
        reply: Reply<PublishedStates>,
    },
    /// Lists the channels that have subscribers, of all shards, in any order.
    Channels {
        /// The app that the channels belong to.
        app: Arc<App>,
        /// The prefix of their names.
        prefix: Arc<str>,
        /// Every occupied channel; one that is vacated and occupied again meanwhile may be there
        /// twice.
        reply: Reply<Vec<(ChannelName, ChannelState)>>,
    },
    /// Asks for one channel, occupied or not.
    Channel {
        /// The channel; it may never have existed.
        channel: ChannelKey,
        /// An unoccupied channel has the state of all zeros, but may have a cached event.
        reply: Reply<ChannelState>,
    },
    /// Lists the users who are present in a channel.
    Users {
        /// A presence channel.
        channel: ChannelKey,
        /// Every `user_id` once, as a string; none when the channel is unoccupied.
        reply: Reply<Vec<Box<str>>>,
    },
    /// Counts the open connections of an app, on all nodes.
    Connections {
        /// The app.
        app: Arc<App>,
        /// The number.
        reply: Reply<u32>,
    },
    /// Asks the other nodes of a cluster for places, because this one has none left for a
    /// connection of the app.
    MorePlaces {
        /// The app.
        app: Arc<App>,
        /// Whether there are places.
        reply: Reply<bool>,
    },
    /// Closes all connections of a user.
    Terminate {
        /// The app that the user belongs to.
        app: Arc<App>,
        /// The id of the user, percent-decoded, as in the path of `terminate_connections`.
        user_id: String,
        /// Answered once every shard has the order.
        reply: Reply<()>,
    },
    /// Makes a connection a WebSocket.
    Adopt(Upgraded),
}

/// The reason for which the shard cannot do now what it is asked. The answer is 503, and the caller
/// tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// The bus spills.
    Overloaded,
    /// The Redis of the cluster is away, or slower than what waits for it may wait.
    RedisAway,
    /// A node of the cluster does not answer, or has not registered everything yet, so that an
    /// answer would be partial.
    NodesSilent,
}

/// A slot that is kept for one handshake, until it is dropped.
#[derive(Debug)]
pub struct Reservation(Rc<Cell<usize>>);

impl Reservation {
    /// Counts one more slot as reserved.
    #[must_use]
    pub fn of(reserved: &Rc<Cell<usize>>) -> Self {
        reserved.set(reserved.get() + 1);
        Self(Rc::clone(reserved))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A WebSocket that was just opened. From here on the front has nothing more to do with its
/// connection.
#[derive(Debug)]
pub struct Upgraded {
    /// The proof that the app admitted the connection; dropping it frees the app's place. `None` if
    /// the connection is only [held](Newcomers::Held).
    pub admission: Option<Admission>,
    /// The slot that is kept for the connection; dropped once the connection has one.
    pub(crate) reservation: Reservation,
    /// The permit by the limit of the client's address; dropped when the connection has ended.
    pub(crate) permit: Option<ConnectionPermit>,
    /// The client's address, if it is known.
    pub(crate) client: Option<IpAddr>,
    /// Its connection, which is still a stream of the plane.
    pub(crate) key: ConnKey,
    /// The first bytes for the client: the 101. One send takes them and the first frame.
    pub opening: Vec<u8>,
    /// The bytes that the client sent behind its handshake: the beginning of its first frames.
    pub leftover: Bytes,
}
