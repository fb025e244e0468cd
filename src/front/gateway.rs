//! The requests of the front to its shard, and nothing else: the front defines them, the shard
//! answers them. The front never sees a mailbox, a ring or another shard.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

pub use crate::channels::Publication;
pub(crate) use crate::channels::{CachedEvent, ChannelState};
use crate::protocol::app::{Admission, App, Apps};
use crate::protocol::close::ProtocolError;
use crate::protocol::names::ChannelName;

pub(crate) use super::door::Place;
use super::stream::Stream;

/// The shard as the front sees it. Cloned into every connection's task of one thread.
pub trait Gateway: Clone + 'static {
    /// The apps of the configuration as it is now.
    fn apps(&self) -> Arc<Apps>;

    /// Takes a command. Never blocks and never fails: when the shard is gone, the command's
    /// [`Reply`] is dropped and the front answers 503.
    fn submit(&self, command: Command);

    /// True while the bus spills: publishes are answered 503 with `Retry-After: 1` unsubmitted.
    fn overloaded(&self) -> bool;

    /// How much memory there is left.
    fn headroom(&self) -> Headroom;

    /// Whether so many more bytes may be held for a client. If so, they are charged. More may be
    /// free again a little later.
    fn takes_on(&self, _bytes: usize) -> bool {
        true
    }

    /// The fate of new WebSockets while the process stops; `None`: it does not stop. Once it
    /// does, an HTTP connection closes after the request that it is in.
    fn stopping(&self) -> Option<Newcomers>;

    /// To be held while a request is answered: a stop waits for those that began before it.
    fn begin_request(&self) -> InFlight;

    /// A slot for one more WebSocket, if there is one. Asked before the 101: many handshakes can be
    /// under way at a time, and one that is promised its 101 must not find the table full.
    fn reserve(&self) -> Option<Reservation>;
}

/// How much memory the process may still take, in the steps by which it takes less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Headroom {
    /// Enough.
    #[default]
    Enough,
    /// No new WebSockets, subscriptions, members and sign-ins: they are refused with 4100. Fewer
    /// bytes are held for slow readers and of cached events.
    Short,
    /// Nothing that has a body either: publishes are answered 503 with `Retry-After: 1`. The
    /// connections that hold the most are closed with 4100.
    Spent,
}

/// The fate of a WebSocket that is opened while the process stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newcomers {
    /// It is opened, and says nothing until the process ends; then it is closed with 4102. A client
    /// that were refused now would come back while nobody listens.
    Held,
    /// It is refused with this error.
    Refused(ProtocolError),
}

/// A request that is being answered; dropped with its answer.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Rc<()>);

impl InFlight {
    /// How many requests hold it, besides whoever asks.
    #[must_use]
    pub(crate) fn others(&self) -> usize {
        Rc::strong_count(&self.0) - 1
    }
}

/// Where an answer goes. Dropped unanswered when the shard stops.
pub(crate) type Reply<T> = oneshot::Sender<T>;

/// The answer to a publish: one state per [`Publication`], in their order.
pub type Published = Result<Vec<ChannelState>, Overloaded>;

/// One request of the front to its shard. Everything in it is checked: the app exists, the request
/// was signed with its secret, the names are valid and the sizes within its limits.
#[derive(Debug)]
pub enum Command {
    /// Sends events to the subscribers of their channels, on all shards, in the given order.
    Publish {
        /// The app that the channels belong to.
        app: Arc<App>,
        /// At least one; each channel and event of the request once.
        events: Vec<Publication>,
        /// Answered once every home shard has taken its part.
        reply: Reply<Published>,
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
        /// The app that the channel belongs to.
        app: Arc<App>,
        /// The channel; it may never have existed.
        channel: ChannelName,
        /// An unoccupied channel has the state of all zeros, but may have a cached event.
        reply: Reply<ChannelState>,
    },
    /// Lists who is present.
    Users {
        /// The app that the channel belongs to.
        app: Arc<App>,
        /// A presence channel.
        channel: ChannelName,
        /// Every `user_id` once, as a string; none when the channel is unoccupied.
        reply: Reply<Vec<Box<str>>>,
    },
    /// Closes all connections of a user.
    Terminate {
        /// The app that the user belongs to.
        app: Arc<App>,
        /// As in `terminate_connections`, percent-decoded.
        user_id: String,
        /// Answered once every shard has been told.
        reply: Reply<()>,
    },
    /// Takes over a socket: the front neither reads from it nor writes to it any more.
    Adopt(Upgraded),
}

/// The shard cannot take more publishes now: answered 503, the publisher tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overloaded;

/// A slot that is kept for one handshake; free again when dropped.
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

/// A WebSocket that was just opened, on its way to the plane. From here on the socket belongs to
/// the shard alone: no operation of the front is in flight on it.
#[derive(Debug)]
pub struct Upgraded {
    /// The proof that the app let the connection in; dropping it gives the place back. `None`: it
    /// is only [held](Newcomers::Held).
    pub admission: Option<Admission>,
    /// The slot that it is to have: dropped when it has it.
    pub(crate) reservation: Reservation,
    /// The connection as its address' limit counts it. It is dropped when the connection has ended.
    pub(crate) place: Option<Place>,
    /// The client's address, if it is known.
    pub(crate) client: Option<IpAddr>,
    /// The socket, in blocking mode.
    pub(crate) stream: Stream,
    /// The bytes that it is sent first: the 101. One send takes them and the first frame.
    pub opening: Vec<u8>,
    /// The bytes that the client sent behind its handshake: the beginning of its first frames.
    pub leftover: Bytes,
}
