//! A front without a shard: a plane on the kernel's ring and the reception before it, for tests and
//! for the targets of `tests/fuzz`.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use tokio::sync::watch;

use super::gateway::{Gateway, Upgraded};
use super::{CurrentSettings, Listeners, Reception};
use crate::frame::Frame;
use crate::id::ConnKey;
use crate::plane::{BacklogLimits, Host, Intake, Plane};
use crate::ring::{Ring, Uring, UringSizes};
use crate::time::Clock;
use crate::websocket::{Message, ReadLimits};

/// A host that sends back whatever text comes.
pub(super) struct Echo;

impl<R: Ring> Host<R> for Echo {
    fn message(&mut self, plane: &mut Plane<R>, key: ConnKey, message: Message<'_>) {
        if let Message::Text(text) = message {
            plane.owe(
                key,
                &Frame::text(text.len(), |payload| payload.extend_from_slice(text.as_bytes())),
            );
        }
    }

    fn read_limits(&self, _key: ConnKey) -> ReadLimits {
        ReadLimits { max_message: 10_000, max_fragments: 16 }
    }

    fn unfinished(&mut self, _plane: &mut Plane<R>, _key: ConnKey) {}
}

/// The life of the WebSockets that a front has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// They echo texts.
    Echo,
    /// They end at once, without a byte.
    End,
}

/// Serves until `stop` holds true or has lost its sender, and all connections have ended.
/// `upgraded` returns the WebSockets that the gateway has been given since.
///
/// # Errors
/// The ring cannot be set up, or a listener cannot be prepared.
pub fn serve<G: Gateway>(
    listeners: Listeners,
    gateway: G,
    settings: CurrentSettings,
    stop: watch::Receiver<bool>,
    mut upgraded: impl FnMut() -> Vec<Upgraded>,
    afterwards: Afterwards,
) -> io::Result<()> {
    let ring = Uring::new(&RING)?;
    let limits = BacklogLimits { connection: 1 << 20, shard: 1 << 24 };
    let mut plane = Plane::new(ring, limits, Frame::close(4100, ""));
    let mut reception = Reception::new(gateway, settings);
    reception.listen(&mut plane, listeners)?;
    let (clock, mut open) = (Clock::start(), HashMap::new());
    while !reception.is_finished() {
        plane.begin_turn(clock.now());
        plane.poll(Intake::All, &mut Echo);
        if *stop.borrow() || stop.has_changed().is_err() {
            reception.stop();
        }
        reception.turn(&mut plane, clock.now());
        for upgraded in upgraded() {
            let key = upgraded.key;
            if afterwards == Afterwards::End {
                plane.abort(key);
            } else if plane.upgrade(key) {
                plane.owe(key, &Frame::from_encoded(upgraded.opening.clone().into()));
                plane.feed(key, &mut upgraded.leftover.to_vec(), &mut Echo);
                open.insert(key, upgraded);
            }
        }
        while let Some((key, _why)) = plane.next_closed() {
            open.remove(&key);
        }
        plane.flush();
        if !reception.has_work() && !plane.has_work() {
            plane.sleep(DEADLINES);
        }
    }
    Ok(())
}

/// The longest sleep: deadlines of some milliseconds are kept.
const DEADLINES: Duration = Duration::from_millis(2);

/// A ring for the few connections of a test.
const RING: UringSizes = UringSizes {
    slots: 512,
    submissions: 256,
    buffers: 64,
    buffer_size: 4096,
    direct_descriptors: true,
};
