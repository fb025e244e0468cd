//! The notices and counts that apps want about their channels.

use crate::apps::webhook::EventKinds;
use crate::id::AppIndex;

use super::{ChannelEvent, ChannelKey, Notice, Outbox};

/// The notices and counts that an app wants about its channels. An app that wants none costs a look
/// at two bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The kinds of events that its webhooks need.
    pub(crate) notices: EventKinds,
    /// Whether subscribers are sent the subscriber count.
    pub(crate) counts: bool,
}

/// The wishes of all apps, by the index of the app. An app past the end wants nothing.
#[derive(Debug, Default)]
pub(super) struct WantedByApp(Vec<Wanted>);

impl WantedByApp {
    pub(super) const fn new(by_app: Vec<Wanted>) -> Self {
        Self(by_app)
    }

    pub(super) fn of(&self, app: AppIndex) -> Wanted {
        self.0.get(usize::from(app.0)).copied().unwrap_or_default()
    }

    /// Notifies webhooks of an event on a channel, if one of them wants it.
    pub(super) fn notify(&self, key: &ChannelKey, event: ChannelEvent, out: &mut Outbox) {
        if self.of(key.app()).notices.contains(event.kind()) {
            out.notify(Notice { app: key.app(), channel: key.name().clone(), event });
        }
    }
}
