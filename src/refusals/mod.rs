//! Floor 3. What the log says of everything that is refused: each cause once a minute and app, with
//! what came, what was expected and the remedy, and how often it came.
//!
//! Contract:
//! - [`Refusals::note`] is called for each refusal, on the thread that refuses. The first of its
//!   cause and app is one line at WARN. Those that follow are counted, which costs one relaxed load
//!   and one relaxed addition: nothing is locked and nothing is formatted. (With `--debug` each is
//!   a line, at DEBUG.)
//! - [`Refusals::tell`] is called by the control thread about once a second. When a minute is over
//!   it tells the count and begins another one; when nothing was counted, the next refusal is
//!   told at once again. So there is no clock on the side of those who refuse.
//! - Memory is bounded whatever strangers send: there is one counter per cause and *configured*
//!   app, and one per cause for what belongs to no app. No text of a stranger is kept.
//! - A sentence never holds a secret or a signature. Keys, which strangers mistake for secrets, are
//!   [shortened](crate::text::Shortened).
//!
//! One table for all shards, as the limits per address have, since the bound of a line a minute
//! is one of the process: a table per shard would give as many lines as there are cores.

mod bytes;
mod cause;
mod handshake;
mod message;
mod request;

use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::id::{AppIndex, SocketId};
use crate::protocol::app::{App, Apps};
use crate::text::{Quoted, Shortened};

pub(crate) use bytes::Bytes;
pub(crate) use cause::Cause;
pub(crate) use handshake::Handshake;
pub(crate) use message::{About, Ending, Message};
pub(crate) use request::{Request, Signed, Words};

/// Something that was refused, with everything that its sentence needs. Borrowed, so that making
/// one costs nothing when it is only counted.
#[derive(Debug)]
pub(crate) enum Refusal<'a> {
    /// The first bytes of a connection.
    Bytes(Bytes<'a>),
    /// A WebSocket, at its handshake.
    Handshake(Handshake<'a>),
    /// A request of HTTP.
    Request(Request<'a>),
    /// A message of an open WebSocket.
    Message(Message<'a>),
    /// An open WebSocket as a whole.
    Ending(Ending),
}

impl Refusal<'_> {
    /// The cause that it is counted as.
    #[must_use]
    pub(crate) fn cause(&self) -> Cause {
        match self {
            Self::Bytes(refused) => refused.cause(),
            Self::Handshake(refused) => refused.cause(),
            Self::Request(refused) => refused.cause(),
            Self::Message(refused) => refused.cause(),
            Self::Ending(refused) => refused.cause(),
        }
    }
}

/// One sentence: what came, what was expected, what to do.
impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(refused) => refused.fmt(f),
            Self::Handshake(refused) => refused.fmt(f),
            Self::Request(refused) => refused.fmt(f),
            Self::Message(refused) => refused.fmt(f),
            Self::Ending(refused) => refused.fmt(f),
        }
    }
}

/// The peer that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The client at this address, or one that came over a unix socket and has none.
    Address(Option<IpAddr>),
    /// An open WebSocket.
    Socket(SocketId),
    /// It is not known, or the host is to blame.
    Unknown,
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(Some(address)) => address.fmt(f),
            Self::Address(None) => f.write_str("a peer of the unix socket"),
            Self::Socket(id) => id.fmt(f),
            Self::Unknown => f.write_str("an unknown client"),
        }
    }
}

/// The counts of all refusals of the process. See the module.
#[derive(Debug)]
pub struct Refusals {
    /// By the upper byte of an app's index, then by the lower one: made when an app first needs it.
    apps: Box<[OnceLock<Page>]>,
    /// The counters of refusals that belong to no app.
    strangers: Row,
}

type Page = Box<[OnceLock<Box<Row>>]>;

impl Default for Refusals {
    fn default() -> Self {
        Self { apps: page(), strangers: Row::of("") }
    }
}

fn page<T>() -> Box<[OnceLock<T>]> {
    (0..=u8::MAX).map(|_| OnceLock::new()).collect()
}

impl Refusals {
    /// Tells a refusal or counts it. `app` is the app that it belongs to, if there is one.
    pub(crate) fn note(&self, app: Option<&App>, from: Sender, refusal: &Refusal<'_>) {
        let row = match app {
            Some(app) => self.row(app.index, &app.id),
            None => &self.strangers,
        };
        let cause = refusal.cause();
        let Some(counter) = row.counters.get(cause as usize) else { return };
        let (app, client, socket_id) = (row.app(), from.client(), from.socket_id());
        if counter.is_first() {
            let cause = cause.words();
            tracing::warn!(app, client, socket_id, cause, "{refusal}");
        } else {
            tracing::debug!(app, client, socket_id, "{refusal}");
        }
    }

    /// Tells the counts of minutes that are over. `now_s`: seconds since any one moment.
    pub(crate) fn tell(&self, now_s: u32) {
        self.tell_counts(|counter| counter.due(now_s));
    }

    /// Tells all counts: the process ends.
    pub(crate) fn tell_rest(&self) {
        self.tell_counts(Counter::rest);
    }

    fn tell_counts(&self, count: impl Fn(&Counter) -> Option<u32>) {
        let rows = self.apps.iter().filter_map(OnceLock::get).flatten().filter_map(OnceLock::get);
        for row in rows.map(|row| &**row).chain([&self.strangers]) {
            for (counter, cause) in row.counters.iter().zip(Cause::ALL) {
                if let Some(count) = count(counter) {
                    let (app, cause) = (row.app(), cause.words());
                    tracing::warn!(app, cause, count, "{cause}: refused {count} times more");
                }
            }
        }
    }

    fn row(&self, index: AppIndex, id: &str) -> &Row {
        let [upper, lower] = index.0.to_be_bytes().map(usize::from);
        let page = self.apps.get(upper).map(|page| page.get_or_init(page_of_rows));
        let row = page.and_then(|page| page.get(lower));
        row.map_or(&self.strangers, |row| row.get_or_init(|| Box::new(Row::of(id))))
    }
}

fn page_of_rows() -> Page {
    page()
}

impl Sender {
    fn client(self) -> Option<tracing::field::DisplayValue<Self>> {
        matches!(self, Self::Address(_)).then(|| tracing::field::display(self))
    }

    fn socket_id(self) -> Option<tracing::field::DisplayValue<Self>> {
        matches!(self, Self::Socket(_)).then(|| tracing::field::display(self))
    }
}

/// The counts of one app.
#[derive(Debug)]
struct Row {
    /// Its id, which stays the same for as long as the process lives. Empty: of no app.
    app: Box<str>,
    /// The counters, by cause.
    counters: Box<[Counter]>,
}

impl Row {
    fn of(app: &str) -> Self {
        Self { app: app.into(), counters: Cause::ALL.iter().map(|_| Counter::default()).collect() }
    }

    fn app(&self) -> Option<&str> {
        Some(&*self.app).filter(|app| !app.is_empty())
    }
}

/// The refusals of one cause.
#[derive(Debug, Default)]
struct Counter {
    /// One was told, and its minute is not over.
    told: AtomicBool,
    /// How many were not told since.
    withheld: AtomicU32,
    /// The time at which the control thread first saw it told, in its seconds; 0: it has not yet.
    /// Written by that thread alone.
    since_s: AtomicU32,
}

impl Counter {
    /// Whether this one is to be told; if not, it is counted.
    fn is_first(&self) -> bool {
        if self.told.load(Ordering::Relaxed) || self.told.swap(true, Ordering::Relaxed) {
            self.withheld.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// The count, if a minute is over in which there was any.
    fn due(&self, now_s: u32) -> Option<u32> {
        if !self.told.load(Ordering::Relaxed) && self.withheld.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let now_s = now_s.max(1);
        let since_s = self.since_s.load(Ordering::Relaxed);
        if since_s == 0 {
            self.since_s.store(now_s, Ordering::Relaxed);
            return None;
        }
        if now_s.saturating_sub(since_s) < MINUTE_S {
            return None;
        }
        let count = self.rest();
        // Told just now, so that the next minute begins; or quiet, so that the next one is told.
        self.since_s.store(if count.is_some() { now_s } else { 0 }, Ordering::Relaxed);
        self.told.store(count.is_some(), Ordering::Relaxed);
        count
    }

    fn rest(&self) -> Option<u32> {
        Some(self.withheld.swap(0, Ordering::Relaxed)).filter(|&count| count > 0)
    }
}

/// Seconds in which a cause has one line per app.
const MINUTE_S: u32 = 60;

/// The apps of this server, for those who look for theirs: `the app 780619 with key zhcn…`.
struct Served<'a>(&'a Apps);

impl fmt::Display for Served<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.iter().count();
        match count {
            0 => return f.write_str("this server has no app"),
            1 => f.write_str("this server has the app ")?,
            _ => write!(f, "this server has {count} apps: ")?,
        }
        for (number, app) in self.0.iter().take(APPS_SHOWN).enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{} with key {}", app.id, Shortened(&app.key))?;
        }
        match count.checked_sub(APPS_SHOWN) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

/// Apps that a sentence names.
const APPS_SHOWN: usize = 3;

/// A text of a stranger in quotes, without signatures.
fn shown(text: &str) -> String {
    Quoted(&crate::text::without_signatures(text)).to_string()
}

#[cfg(test)]
mod tests;
