//! The entry points of the webhooks for the targets of `tests/fuzz`, which reach them through
//! `testing`.

use std::path::Path;

use bytes::Bytes;

use crate::apps::Apps;
use crate::time::Millis;

use super::dispatch::Dispatch;
use super::endpoint_queue::QueueBounds;
use super::spool::{Spool, SpoolError};
use crate::channels::Notice;

/// A process with a spool, up to where requests would be sent.
pub struct Process {
    spool: Spool,
    dispatch: Dispatch,
    now: Millis,
    /// The runtime whose ring writes the files.
    runtime: tokio_uring::Runtime,
}

impl Process {
    /// Starts with what an earlier process left in this directory.
    ///
    /// # Errors
    /// Fails if the directory cannot be used.
    pub fn start(directory: &Path, apps: &Apps, queue_bytes: usize) -> Result<Self, SpoolError> {
        let runtime = tokio_uring::Runtime::new(&tokio_uring::builder())
            .map_err(|source| SpoolError::Write { directory: directory.to_owned(), source })?;
        let mut spool = Spool::open(directory)?;
        let mut dispatch =
            Dispatch::new(apps, QueueBounds { queue_bytes, spooled: true }, UNIX_MS, true);
        spool.restore(&mut dispatch, Millis(0));
        Ok(Self { spool, dispatch, now: Millis(0), runtime })
    }

    /// Takes notices, and lets their window pass.
    pub fn take(&mut self, notices: impl IntoIterator<Item = Notice>) {
        notices.into_iter().for_each(|notice| self.dispatch.take(notice, self.now));
        self.now = Millis(self.now.0 + 1000);
        self.dispatch.tick(self.now);
        self.now = Millis(self.now.0 + 1000);
        // This seals the batches whose window has ended. The first of them stays in flight for
        // ever.
        let _first = self.dispatch.next(self.now);
        self.follow();
    }

    /// Delivers the next request. Returns its body.
    pub fn deliver(&mut self) -> Option<Bytes> {
        let delivery = self.dispatch.next(self.now)?;
        self.dispatch.delivered(delivery.queue);
        self.follow();
        Some(delivery.body)
    }

    /// Writes and removes the files of the batches that were sealed and have ended.
    fn follow(&mut self) {
        let changes = self.dispatch.changes();
        self.runtime.block_on(self.spool.follow_to_disk(changes, &self.dispatch));
    }

    /// The number of events that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.dispatch.waiting()
    }
}

/// Unix time at the start.
const UNIX_MS: u64 = 1_700_000_000_000;
