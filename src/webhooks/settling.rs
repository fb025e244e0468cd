//! Suppresses the pair of events that a reload of a page would cause, when a channel is left and
//! entered again. Leaving waits for three seconds, and when the same subject comes back meanwhile,
//! neither is told (Pusher's behaviour).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::id::AppIndex;
use crate::protocol::names::ChannelName;
use crate::time::Millis;

use super::{Notice, NoticeKind};

/// How long leaving may still be undone.
const SETTLE: Duration = Duration::from_secs(3);

/// Most that wait; past it the oldest is told early.
const WAITING_MAX: usize = 100_000;

/// Departures that may still be undone.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// Those that count, and their numbers.
    gone: HashMap<Subject, u64>,
    /// In the order in which they are due, those that were undone among them.
    order: VecDeque<Departure>,
    departures: u64,
}

#[derive(Debug)]
struct Departure {
    due: Millis,
    number: u64,
    notice: Notice,
}

/// A channel, or a user on it.
type Subject = (AppIndex, ChannelName, Option<Arc<str>>);

impl Settling {
    /// Takes what happened; returns what is to be told now.
    pub(super) fn take(&mut self, notice: Notice, now: Millis) -> Option<Notice> {
        let user = match &notice.what {
            NoticeKind::Occupied | NoticeKind::Vacated => None,
            NoticeKind::MemberAdded(user) | NoticeKind::MemberRemoved(user) => {
                Some(Arc::clone(user))
            }
            NoticeKind::ClientEvent(_)
            | NoticeKind::CacheMiss
            | NoticeKind::SubscriptionCount(_) => {
                return Some(notice);
            }
        };
        let subject = (notice.app, notice.channel.clone(), user);
        if matches!(notice.what, NoticeKind::Occupied | NoticeKind::MemberAdded(_)) {
            let undone = self.gone.remove(&subject).is_some();
            return (!undone).then_some(notice);
        }
        self.departures += 1;
        self.gone.insert(subject, self.departures);
        let departure = Departure { due: now + SETTLE, number: self.departures, notice };
        self.order.push_back(departure);
        if self.order.len() > WAITING_MAX { self.first() } else { None }
    }

    /// The next departure that cannot be undone any more.
    pub(super) fn due(&mut self, now: Millis) -> Option<Notice> {
        while self.order.front().is_some_and(|first| first.due <= now) {
            if let Some(notice) = self.first() {
                return Some(notice);
            }
        }
        None
    }

    /// The next departure, due or not, at the end.
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
        let user = match &notice.what {
            NoticeKind::MemberRemoved(user) => Some(Arc::clone(user)),
            _ => None,
        };
        let subject = (notice.app, notice.channel.clone(), user);
        if self.gone.get(&subject) != Some(&number) {
            return None;
        }
        self.gone.remove(&subject);
        Some(notice)
    }
}

#[cfg(test)]
mod tests {
    use super::super::notice;
    use super::*;

    const END: Millis = Millis(3000);

    fn left(user: &str) -> Notice {
        notice("presence-a", NoticeKind::MemberRemoved(user.into()))
    }

    fn came(user: &str) -> Notice {
        notice("presence-a", NoticeKind::MemberAdded(user.into()))
    }

    #[test]
    fn leaving_is_told_after_three_seconds_and_coming_at_once() {
        let mut settling = Settling::default();
        assert!(settling.take(notice("a", NoticeKind::Occupied), Millis(0)).is_some());
        assert!(settling.take(notice("a", NoticeKind::Vacated), Millis(0)).is_none());
        assert!(settling.due(Millis(2999)).is_none());
        assert_eq!(settling.next_due(), Some(END));
        assert!(matches!(settling.due(END).unwrap().what, NoticeKind::Vacated));
        assert!(settling.due(END).is_none() && settling.next_due().is_none());
        assert!(settling.take(notice("a", NoticeKind::Occupied), Millis(3001)).is_some());
    }

    #[test]
    fn who_returns_in_time_was_never_away() {
        let mut settling = Settling::default();
        for round in 0..5 {
            let now = Millis(round * 500);
            assert!(settling.take(left("1"), now).is_none());
            assert!(settling.take(notice("presence-a", NoticeKind::Vacated), now).is_none());
            assert!(settling.take(notice("presence-a", NoticeKind::Occupied), now).is_none());
            assert!(settling.take(came("1"), now).is_none());
        }
        assert!(settling.due(Millis(60_000)).is_none());
        assert!(settling.gone.is_empty() && settling.order.is_empty());
    }

    #[test]
    fn the_time_counts_from_the_last_departure() {
        let mut settling = Settling::default();
        assert!(settling.take(left("1"), Millis(0)).is_none());
        assert!(settling.take(came("1"), Millis(2000)).is_none());
        assert!(settling.take(left("1"), Millis(2500)).is_none());
        assert!(settling.due(Millis(5499)).is_none());
        assert!(settling.due(Millis(5500)).is_some());
    }

    #[test]
    fn one_user_does_not_undo_another_nor_one_channel() {
        let mut settling = Settling::default();
        assert!(settling.take(left("1"), Millis(0)).is_none());
        assert!(settling.take(came("2"), Millis(0)).is_some());
        assert!(settling.take(notice("presence-b", NoticeKind::Occupied), Millis(0)).is_some());
        let other_app = Notice { app: AppIndex(1), ..came("1") };
        assert!(settling.take(other_app, Millis(0)).is_some());
        assert!(settling.due(END).is_some());
    }

    #[test]
    fn past_the_bound_the_oldest_is_told_early() {
        let mut settling = Settling::default();
        for user in 0..WAITING_MAX {
            assert!(settling.take(left(&user.to_string()), Millis(0)).is_none());
        }
        let early = settling.take(left("last"), Millis(1)).unwrap();
        assert!(matches!(early.what, NoticeKind::MemberRemoved(user) if &*user == "0"));
        assert_eq!(std::iter::from_fn(|| settling.rest()).count(), WAITING_MAX);
    }
}
