//! Batches on disk, so that neither a restart nor a loss of power loses one. Each batch has a file
//! from soon after it is sealed until it is delivered or given up. The files copy the queues, whose
//! bound is theirs.
//!
//! A batch is sent while its file is being written, rather than after. That loses nothing: until
//! the file is there, a crash loses the batch either way, unless it has been delivered by then. It
//! gains much: a slow disk delays no request, and a batch that is delivered before its turn at the
//! disk is never written. Over a crash a batch may be delivered twice, as after a lost answer.
//!
//! Files are written and removed in rounds on the ring of the thread (`disk`), one round at a time.
//! Those that become due meanwhile wait in the queues, without a copy (`batch_files`), and share
//! the flushes of the next round. On ext4 of a virtual machine, a file without a flush took 56 µs,
//! one with its flushes 3.5 ms, and a round of 16 files 7.3 ms (medians).
//!
//! Only the start reads, and blocks its thread, because nothing may be sent before the batches of
//! the last run are queued.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::future::{self, Future};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::text::WithCauses;
use crate::time::Millis;

use super::dispatch::{Dispatch, QueueId};
use super::endpoint_queue::BatchChange;
use batch_files::{BatchFiles, FileWrite, Round};
use disk::{Content, Directory, RoundResults};
use file::BatchHeader;

mod batch_files;
mod disk;
mod file;

/// The directory with the files of batches.
///
/// Order of calls: [`restore`](Self::restore) first; [`follow`](Self::follow) with each change and
/// after each [`settled`](Self::settled), which has to be polled in the runtime of the thread.
pub(super) struct Spool {
    directory: Rc<Directory>,
    files: BatchFiles,
    /// The files that are being written and removed.
    round: Option<RoundUnderWay>,
    /// The last file could not be written, and the log says so.
    failing: bool,
    /// Locked for as long as this process uses the directory.
    _lock: File,
}

/// A round of files on its way to the disk.
type RoundUnderWay = Pin<Box<dyn Future<Output = RoundResults>>>;

/// The reason for which a directory cannot be the spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The directory cannot be made.
    #[error("cannot make the webhook spool {}", .directory.display())]
    Create {
        /// The directory of `server.webhook_spool`.
        directory: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The lock file cannot be written or locked.
    #[error("cannot write to the webhook spool {}", .directory.display())]
    Write {
        /// The directory of `server.webhook_spool`.
        directory: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Another process has locked it.
    #[error("cannot use the webhook spool {}: another process uses it", .directory.display())]
    InUse {
        /// The directory of `server.webhook_spool`.
        directory: PathBuf,
    },
}

impl Spool {
    /// Opens a directory, and makes it if necessary.
    ///
    /// # Errors
    /// The directory cannot be made or written to, or another process uses it.
    pub(super) fn open(directory: &Path) -> Result<Self, SpoolError> {
        let directory = directory.to_owned();
        if let Err(source) = DirBuilder::new().recursive(true).mode(0o700).create(&directory) {
            return Err(SpoolError::Create { directory, source });
        }
        let mut writable = OpenOptions::new();
        writable.write(true).create(true).truncate(false).mode(0o600);
        let lock = match writable.open(directory.join("lock")) {
            Ok(lock) => lock,
            Err(source) => return Err(SpoolError::Write { directory, source }),
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(SpoolError::InUse { directory }),
            Err(error) => return Err(SpoolError::Write { directory, source: error.into() }),
        }
        match Directory::open(directory.clone()) {
            Ok(directory) => Ok(Self {
                directory: Rc::new(directory),
                files: BatchFiles::default(),
                round: None,
                failing: false,
                _lock: lock,
            }),
            Err(source) => Err(SpoolError::Write { directory, source }),
        }
    }

    /// Queues the batches that an earlier process left. `now` is the time that they are from, as
    /// far as the queues are concerned. Blocks until all of them are read.
    pub(super) fn restore(&mut self, dispatch: &mut Dispatch, now: Millis) {
        let numbers = match file::numbers(self.directory.path()) {
            Ok(numbers) => numbers,
            Err(error) => {
                let (directory, error) = (self.directory.path().display(), WithCauses(&error));
                tracing::warn!(%directory, %error, "the webhook spool cannot be read");
                return;
            }
        };
        let mut restored = 0;
        for number in numbers {
            let path = file::path(self.directory.path(), number);
            let wanted = file::read(&path).and_then(|(header, body)| {
                let BatchHeader { app_id, url, events } = header;
                let batch = dispatch.restore(&app_id, &url, (&body, events), now)?;
                Some((batch, events))
            });
            self.files.restored(number, wanted);
            if wanted.is_some() {
                restored += 1;
            } else {
                tracing::warn!(
                    file = %path.display(),
                    "a batch of the webhook spool is dropped: its webhook is no longer configured, \
                     its queue is full, or its file is damaged"
                );
                self.note_removed(number, fs::remove_file(&path));
            }
        }
        if restored > 0 {
            tracing::info!(batches = restored, "undelivered webhooks of the last run are sent now");
        }
    }

    /// Takes the batches that were sealed and have ended, and begins a round if none is under way.
    pub(super) fn follow(&mut self, changes: Vec<(QueueId, BatchChange)>, dispatch: &Dispatch) {
        for (queue, change) in changes {
            match change {
                BatchChange::Sealed(batch, body, events) => {
                    self.files.sealed((queue, batch), body, events);
                }
                BatchChange::Ended(batch) => self.files.ended((queue, batch)),
            }
        }
        if self.round.is_none() {
            self.begin_round(dispatch);
        }
    }

    /// Waits until the round under way is done. Waits for ever if there is none. If the future is
    /// dropped, the round goes on with the next one.
    pub(super) async fn settled(&mut self) {
        let Some(round) = &mut self.round else { return future::pending().await };
        let results = round.as_mut().await;
        self.round = None;
        self.take(results);
    }

    /// [`follow`](Self::follow), to the end of the last round.
    #[cfg(any(test, feature = "testing"))]
    pub(super) async fn follow_to_disk(
        &mut self,
        changes: Vec<(QueueId, BatchChange)>,
        dispatch: &Dispatch,
    ) {
        self.follow(changes, dispatch);
        while !self.is_settled() {
            self.settled().await;
            self.follow(Vec::new(), dispatch);
        }
    }

    /// Whether a round is under way.
    pub(super) const fn is_working(&self) -> bool {
        self.round.is_some()
    }

    /// Whether the files are those of the batches that wait, as far as the disk does not fail.
    pub(super) fn is_settled(&self) -> bool {
        self.round.is_none() && self.files.is_done()
    }

    /// Events of batches that wait and have their files.
    pub(super) fn events_on_disk(&self) -> usize {
        self.files.events_on_disk()
    }

    fn begin_round(&mut self, dispatch: &Dispatch) {
        let Some(Round { writes, removals }) = self.files.next_round() else { return };
        let mut contents = Vec::with_capacity(writes.len());
        for write in writes {
            let number = write.number;
            match content(write, dispatch) {
                Ok(content) => contents.push((number, content)),
                Err(error) => {
                    self.files.written(number, false);
                    self.note_failure(&error);
                }
            }
        }
        let round = Rc::clone(&self.directory).work_off(contents, removals);
        self.round = Some(Box::pin(round));
    }

    fn take(&mut self, RoundResults { written, removed, flushed }: RoundResults) {
        let some_written = !written.is_empty();
        // Without the flush, the files are there all the same: they survive a crash of the process.
        let mut failure = flushed.err();
        for (number, result) in written {
            self.files.written(number, result.is_ok());
            failure = failure.or_else(|| result.err());
        }
        for (number, result) in removed {
            self.note_removed(number, result);
        }
        match failure {
            Some(failure) => self.note_failure(&failure),
            None if some_written => self.failing = false,
            None => {}
        }
    }

    /// Logs the first failure of a row.
    fn note_failure(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            let (directory, error) = (self.directory.path().display(), WithCauses(error));
            tracing::warn!(
                %directory,
                %error,
                "webhooks cannot be written to the spool: until that succeeds again, a restart \
                 loses those that wait"
            );
        }
    }

    fn note_removed(&self, number: u64, removed: io::Result<()>) {
        if let Err(error) = removed {
            let file = file::path(self.directory.path(), number);
            let error = WithCauses(&error);
            tracing::warn!(
                file = %file.display(),
                %error,
                "a file of the webhook spool cannot be removed: the next start sends its events again"
            );
        }
    }
}

/// The content of the file of a batch.
///
/// # Errors
/// Its endpoint is gone, which a batch that waits does not allow.
fn content(write: FileWrite, dispatch: &Dispatch) -> io::Result<Content> {
    let FileWrite { queue, events, body, .. } = write;
    let (app, webhook) = dispatch.queue(queue).ok_or(io::ErrorKind::NotFound)?;
    let header = BatchHeader { app_id: app.id.clone(), url: webhook.url.whole(), events };
    Ok((header.line()?, body))
}

#[cfg(test)]
mod tests;
