//! Ringwave: an `io_uring` WebSocket gateway that replaces Laravel Reverb. Real, unmodified Pusher
//! clients and publishers connect to it. It serves Pusher protocol 7 and its HTTP API.
//!
//! The [`manual`] explains how to run, configure and measure it. This page is for developers.
//!
//! # Guarantees
//! - **Order and completeness.** Within a channel every subscriber gets every message that is
//!   published after its `subscription_succeeded`, once, and all subscribers get them in one order,
//!   whichever shards publishers and subscribers are on. If that cannot be kept, the connection
//!   closes with a code.
//! - **A connection's messages take effect in the order in which they were sent**, whether or not
//!   the answers to earlier ones have come: a client event in one packet with its subscribe is
//!   relayed, and one after an unsubscribe is refused.
//! - **Slow readers cost only themselves.** The backlog of a connection is bounded in bytes, per
//!   connection and per shard; over a bound the slowest connection is closed with 4101.
//! - **A stop loses no client silently.** Requests in flight are answered, every client gets a
//!   Close after which its library returns when a server listens again, and the listeners close
//!   last.
//! - **Everything is bounded.** Nothing that comes from the network can panic, block a shard, or
//!   grow past a limit that has a name.
//!
//! # Picture
//! One thread per core, and nothing shared between them but mailboxes:
//! ```text
//!                      nginx :443 (TLS)  ->  tcp or unix sockets
//!                               |
//!   +---------------------------v----------+     +--------------------------+     +----------
//!   | shard 0 (pinned to a core)           |     | shard 1                  |     | shard N
//!   |  front     accept, HTTP, API, upgrade|     |                          |     |
//!   |  plane     established WebSockets    |     |   the same               |     |
//!   |  channels  subscribers here; home of |     |                          |     |
//!   |            its slice of channels     |     |                          |     |
//!   |  mailbox <-------------- bus ---------------> mailbox                 | <-->|
//!   +--------------------------------------+     +--------------------------+     +----------
//!                               |
//!   control thread: signals, reloads, start and stop; webhooks: requests to apps' servers
//! ```
//! A shard has one ring, and sleeps in it: one system call submits the operations of a turn and
//! waits for the next one ([`shard::run`]). The *plane* drives the ring, with a table of sockets,
//! idle ones that wait by poll and sends without completions, because that is where the connections
//! are. The *front* has the same sockets before their upgrade, as streams of bytes. Its
//! asynchronous tasks, one for each connection that speaks HTTP, are polled within the turns of the
//! shard.
//!
//! The webhook thread runs on tokio-uring, because it flushes its spool to the disk: its ring hands
//! the files to the kernel, and requests go on meanwhile.
//!
//! # Floors
//! Imports run downwards only: a module uses lower floors and its own children. `tests/tidy`
//! enforces this.
//!
//! | floor | modules | content |
//! |---|---|---|
//! | 9 | [`cli`], [`manual`], `testing` | one file per command; the chapters; access for tests |
//! | 8 | [`server`] | the process: preflight, listeners, threads, signals, drain, logs |
//! | 7 | [`config`] | every setting declared once, and the sources of values |
//! | 6 | [`cluster`] | several nodes: the node's side of the truth that Redis keeps |
//! | 5 | [`shard`] | the conductor of one thread: turns, intake, delivery, timers |
//! | 4 | [`front`], [`webhooks`] | HTTP, the API, the upgrade; requests to apps |
//! | 3 | [`channels`], [`plane`], [`refusals`] | subscribers and homes; sockets; refusal log |
//! | 2 | [`apps`], [`bus`], [`counters`] | apps; mailboxes between shards; counters of a shard |
//! | 1 | [`memory`], [`protocol`], [`rate`], [`ring`], [`websocket`] | tables; Pusher; RFC 6455 |
//! | 0 | [`frame`], [`id`], [`invariant`], [`text`], [`time`], [`version`] | values of all floors |
//!
//! [`ring`] is a package of its own, because it holds the unsafe code of the data plane, and the
//! load generator drives it as well: `src/storm`, which runs `ringwave storm`. That package stands
//! beside the floors. It uses the ring and nothing of the gateway, and only its command in [`cli`]
//! uses it.
//!
//! `websocket`, `protocol` and `channels` know no socket, no clock and no randomness: bytes and
//! `now` go in, values come out. [`Plane`](plane::Plane) and [`Shard`](shard::Shard) are generic
//! over [`Ring`](ring::Ring), so that a seeded simulation runs the code that serves.
//!
//! # Life of a message
//! 1. A publisher's request reaches any shard. The [`front`] finds its app by the path, checks the
//!    signature of the head ([`protocol::signing`]), reads the body, whose digest is part of it,
//!    and encodes the event **once** for each channel that it names: a WebSocket header and JSON, a
//!    [`Frame`](frame::Frame). A client event is encoded by its sender's shard, after the checks of
//!    its session, and takes the same way from there.
//! 2. The shard hashes app and channel to the channel's **home shard** and sends the frame there
//!    over the [`bus`]. The publisher's 200 waits for that, so that everything published after the
//!    answer is ordered after it.
//! 3. The home ([`channels::Homes`]) gives the channel's messages their one order, keeps the last
//!    one of a cache channel, and hands the frame to the shards that have subscribers.
//! 4. Each of them collects the channel's messages of this turn ([`channels::Local`]), and owes the
//!    run of them to each subscriber, as shared memory. It leaves out the socket that a publisher
//!    excepts.
//! 5. At the end of the turn the [`plane`] queues **one send per connection**. The send runs inside
//!    the submission, and completes only if it is short. Bytes that did not fit become the
//!    connection's backlog, which a send that waits for room works off. Over its bound the
//!    connection is closed.
//!
//! A message on an idle shard leaves at once; under load turns take more, and batches grow by
//! themselves. There is no timer in this path.
//!
//! # Life of a connection
//! 1. **Front.** The kernel picks the shard that accepts the connection. At the shard's bound, the
//!    HTTP connection that has been idle longest makes room. hyper reads the head against a
//!    deadline; [`websocket::handshake`] judges it; the limits of the client's address
//!    ([`front::AddressLimits`]), app, protocol version, origin, memory, room and quota are
//!    checked. A refusal is a completed upgrade, an error and a Close, so that client libraries see
//!    its code, and a line of the log ([`refusals`]), so that the operator sees the cause.
//! 2. **Intake.** When no operation of the front is in flight, the socket moves into the table of
//!    the plane's ring, and its descriptor is closed. The 101 response travels along for the first
//!    send, and so do bytes that followed the handshake. The socket belongs to exactly one ring at
//!    any moment.
//! 3. **Open.** A [`Session`](protocol::session::Session) is made, and `connection_established`
//!    goes out. From now on it has a record and a pending receive, but no buffer. A subscribe
//!    travels to the home, which counts it and orders it among the channel's messages; its answer
//!    makes the subscriber. A client event or an unsubscribe behind it does not wait for that
//!    answer: it follows in the same mailbox, and the home decides by the outcome of the subscribe.
//!    A sign-in takes effect on the shard at once; the user's home ([`channels::UserHomes`]) is
//!    told, and tells the watchers.
//! 4. **Silence.** The shard looks at each connection once a second. It pings one that has been
//!    silent for its app's `ping_interval`, by `pusher:ping` and a WebSocket ping in one send, and
//!    closes it with 4201 if it answers neither.
//! 5. **Closing.** Whichever side begins, a Close frame is sent and awaited for three seconds.
//!    Without an answer the socket is reset, because the kernel would keep its queue for minutes
//!    otherwise. Subscriptions end at once, their homes are told, presence members leave, and the
//!    connection is signed out. The slot is free once the last operation on it has completed, and
//!    its next connection has another generation.

#![cfg_attr(
    not(feature = "testing"),
    allow(
        unreachable_pub,
        reason = "what is `pub` for tests is reached through the feature's door"
    )
)]

// The modules by floor, lowest first.
mod frame;
mod id;
mod invariant;
mod text;
mod time;
mod version;

mod memory;
mod protocol;
mod rate;
pub(crate) use ringwave_ring as ring;
mod websocket;

mod apps;
mod bus;
mod counters;

mod channels;
mod plane;
mod refusals;

mod front;
mod webhooks;

mod shard;

mod cluster;

mod config;

mod server;

pub mod cli;
pub mod manual;

#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
