//! The admission of a connection to its app, which holds a place among the app's connections.

use std::sync::Arc;

use crate::id::AppIndex;

use super::app::App;
use super::counters::AppCounters;

/// A place among an app's connections, given back when dropped. Holding one is the proof that the
/// connection was counted against `max_connections`.
#[derive(Debug)]
pub struct Admission(Arc<AppCounters>);

impl Admission {
    /// Takes a place. Returns `None` if the app is at its quota, which is exact over all shards, or
    /// has used all permits that this node of a cluster holds.
    #[must_use]
    pub fn take(app: &App) -> Option<Self> {
        let quota = app.max_connections.unwrap_or(u32::MAX);
        app.counters.enter(quota).then(|| Self(Arc::clone(&app.counters)))
    }

    /// The app that admitted the connection.
    #[must_use]
    pub(crate) fn app(&self) -> AppIndex {
        self.0.app
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.leave();
    }
}
