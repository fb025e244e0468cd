//! Suppresses the pair of events that a reload of a page causes. A departure is held back for three
//! seconds. If the same user (or the channel's first subscriber) comes back meanwhile, neither event
//! is sent, as at Pusher.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::id::AppIndex;
use crate::protocol::names::ChannelName;
use crate::time::Millis;

use crate::channels::{ChannelEvent, Notice};

/// The time for which a departure is held back, as at Pusher.
const HOLD: Duration = Duration::from_secs(3);

/// The most departures that are held back. Over it the oldest is sent early, so that a mass departure
/// takes bounded memory.
const WAITING_MAX: usize = 100_000;

/// Departures that are held back and may be undone.
#[derive(Debug, Default)]
pub(super) struct Debounce {
    /// The number of the departure of each one who is away.
    away: HashMap<Departed, u64>,
    /// All departures, in the order in which they are due. Those that were undone are among them.
    order: VecDeque<Departure>,
    /// The number of the last departure.
    departures: u64,
}

#[derive(Debug)]
struct Departure {
    due: Millis,
    number: u64,
    notice: Notice,
}

/// A channel, or a member of it.
type Departed = (AppIndex, ChannelName, Option<Arc<str>>);

impl Debounce {
    /// Takes a notice. Returns the notice that is to be sent now: this one, or a departure that found
    /// no room.
    pub(super) fn take(&mut self, notice: Notice, now: Millis) -> Option<Notice> {
        let user = match &notice.event {
            ChannelEvent::Occupied | ChannelEvent::Vacated => None,
            ChannelEvent::MemberAdded(user) | ChannelEvent::MemberRemoved(user) => {
                Some(Arc::clone(user))
            }
            ChannelEvent::ClientEvent(_)
            | ChannelEvent::CacheMiss
            | ChannelEvent::SubscriptionCount(_) => {
                return Some(notice);
            }
        };
        let departed = (notice.app, notice.channel.clone(), user);
        if matches!(notice.event, ChannelEvent::Occupied | ChannelEvent::MemberAdded(_)) {
            let undone = self.away.remove(&departed).is_some();
            return (!undone).then_some(notice);
        }
        self.departures += 1;
        self.away.insert(departed, self.departures);
        let departure = Departure { due: now + HOLD, number: self.departures, notice };
        self.order.push_back(departure);
        if self.order.len() > WAITING_MAX { self.first() } else { None }
    }

    /// The next departure that is no longer held back.
    pub(super) fn due(&mut self, now: Millis) -> Option<Notice> {
        while self.order.front().is_some_and(|first| first.due <= now) {
            if let Some(notice) = self.first() {
                return Some(notice);
            }
        }
        None
    }

    /// The next departure, due or not. For the end of the process.
    pub(super) fn rest(&mut self) -> Option<Notice> {
        while !self.order.is_empty() {
            if let Some(notice) = self.first() {
                return Some(notice);
            }
        }
        None
    }

    /// The time at which [`due`](Self::due) has to be called again.
    pub(super) fn next_due(&self) -> Option<Millis> {
        self.order.front().map(|first| first.due)
    }

    /// The oldest departure, unless it was undone.
    fn first(&mut self) -> Option<Notice> {
        let Departure { number, notice, .. } = self.order.pop_front()?;
        let user = match &notice.event {
            ChannelEvent::MemberRemoved(user) => Some(Arc::clone(user)),
            _ => None,
        };
        let departed = (notice.app, notice.channel.clone(), user);
        if self.away.get(&departed) != Some(&number) {
            return None;
        }
        self.away.remove(&departed);
        Some(notice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: Millis = Millis(3000);

    fn left(user: &str) -> Notice {
        Notice::of("presence-a", ChannelEvent::MemberRemoved(user.into()))
    }

    fn came(user: &str) -> Notice {
        Notice::of("presence-a", ChannelEvent::MemberAdded(user.into()))
    }

    #[test]
    fn a_departure_is_sent_after_three_seconds_and_an_arrival_at_once() {
        let mut debounce = Debounce::default();
        assert!(debounce.take(Notice::of("a", ChannelEvent::Occupied), Millis(0)).is_some());
        assert!(debounce.take(Notice::of("a", ChannelEvent::Vacated), Millis(0)).is_none());
        assert!(debounce.due(Millis(2999)).is_none());
        assert_eq!(debounce.next_due(), Some(END));
        assert!(matches!(debounce.due(END).unwrap().event, ChannelEvent::Vacated));
        assert!(debounce.due(END).is_none() && debounce.next_due().is_none());
        assert!(debounce.take(Notice::of("a", ChannelEvent::Occupied), Millis(3001)).is_some());
    }

    #[test]
    fn a_user_who_returns_in_time_was_never_away() {
        let mut debounce = Debounce::default();
        for round in 0..5 {
            let now = Millis(round * 500);
            assert!(debounce.take(left("1"), now).is_none());
            assert!(debounce.take(Notice::of("presence-a", ChannelEvent::Vacated), now).is_none());
            assert!(debounce.take(Notice::of("presence-a", ChannelEvent::Occupied), now).is_none());
            assert!(debounce.take(came("1"), now).is_none());
        }
        assert!(debounce.due(Millis(60_000)).is_none());
        assert!(debounce.away.is_empty() && debounce.order.is_empty());
    }

    #[test]
    fn the_time_counts_from_the_last_departure() {
        let mut debounce = Debounce::default();
        assert!(debounce.take(left("1"), Millis(0)).is_none());
        assert!(debounce.take(came("1"), Millis(2000)).is_none());
        assert!(debounce.take(left("1"), Millis(2500)).is_none());
        assert!(debounce.due(Millis(5499)).is_none());
        assert!(debounce.due(Millis(5500)).is_some());
    }

    #[test]
    fn one_user_does_not_undo_another_nor_one_channel() {
        let mut debounce = Debounce::default();
        assert!(debounce.take(left("1"), Millis(0)).is_none());
        assert!(debounce.take(came("2"), Millis(0)).is_some());
        assert!(
            debounce.take(Notice::of("presence-b", ChannelEvent::Occupied), Millis(0)).is_some()
        );
        let other_app = Notice { app: AppIndex(1), ..came("1") };
        assert!(debounce.take(other_app, Millis(0)).is_some());
        assert!(debounce.due(END).is_some());
    }

    #[test]
    fn over_the_bound_the_oldest_is_sent_early() {
        let mut debounce = Debounce::default();
        for user in 0..WAITING_MAX {
            assert!(debounce.take(left(&user.to_string()), Millis(0)).is_none());
        }
        let early = debounce.take(left("last"), Millis(1)).unwrap();
        assert!(matches!(early.event, ChannelEvent::MemberRemoved(user) if &*user == "0"));
        assert_eq!(std::iter::from_fn(|| debounce.rest()).count(), WAITING_MAX);
    }
}
