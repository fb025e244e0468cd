//! Batches on disk, so that a restart loses none. Each batch has a file from the time at which it is
//! sealed until it is delivered or given up. The files copy the queues, whose bound is theirs.
//!
//! Files are written without `fsync`: they survive a crash of the process, but not a loss of power.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::text::WithCauses;
use crate::time::Millis;

use super::body;
use super::dispatch::{Dispatch, QueueId};
use super::endpoint_queue::BatchChange;

/// The extension of the file of a batch.
const EXTENSION: &str = "webhook";

/// The extension of a file that is being written.
const UNFINISHED: &str = "unfinished";

/// The directory with the files of batches.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    /// The number of the file of each batch that waits.
    files: HashMap<(QueueId, u64), u64>,
    /// The number of the next file. Files are read back in the order of their numbers.
    next: u64,
    /// The last file could not be written, and the log says so.
    failing: bool,
    /// Locked for as long as this process uses the directory.
    _lock: File,
}

/// The first line of a file. The body of the request follows.
#[derive(Debug, Deserialize, Serialize)]
struct BatchHeader {
    app_id: String,
    url: String,
    events: usize,
}

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
        Ok(Self { directory, files: HashMap::new(), next: 0, failing: false, _lock: lock })
    }

    /// Queues the batches that an earlier process left. `now` is the time that they are from, as far
    /// as the queues are concerned.
    pub(super) fn restore(&mut self, dispatch: &mut Dispatch, now: Millis) {
        let numbers = match self.numbers() {
            Ok(numbers) => numbers,
            Err(error) => {
                let (directory, error) = (self.directory.display(), WithCauses(&error));
                tracing::warn!(%directory, %error, "the webhook spool cannot be read");
                return;
            }
        };
        let mut restored = 0;
        for number in numbers {
            self.next = number + 1;
            let wanted = read(&self.path(number)).and_then(|(header, body)| {
                let BatchHeader { app_id, url, events } = header;
                dispatch.restore(&app_id, &url, (&body, events), now)
            });
            if let Some(batch) = wanted {
                self.files.insert(batch, number);
                restored += 1;
            } else {
                let file = self.path(number);
                tracing::warn!(
                    file = %file.display(),
                    "a batch of the webhook spool is dropped: its webhook is no longer configured, \
                     its queue is full, or its file is damaged"
                );
                self.remove(number);
            }
        }
        if restored > 0 {
            tracing::info!(batches = restored, "undelivered webhooks of the last run are sent now");
        }
    }

    /// Writes and removes files as batches are sealed and end.
    pub(super) fn follow(&mut self, changes: Vec<(QueueId, BatchChange)>, dispatch: &Dispatch) {
        for (queue, change) in changes {
            match change {
                BatchChange::Sealed(batch, body, events) => {
                    let Some((app, webhook)) = dispatch.queue(queue) else { continue };
                    let url = webhook.url.whole();
                    let header = BatchHeader { app_id: app.id.clone(), url, events };
                    let number = self.next;
                    self.next += 1;
                    let written = write(&self.path(number), &header, &body);
                    if written.is_ok() {
                        self.files.insert((queue, batch), number);
                    }
                    self.note_written(written);
                }
                BatchChange::Ended(batch) => {
                    if let Some(number) = self.files.remove(&(queue, batch)) {
                        self.remove(number);
                    }
                }
            }
        }
    }

    /// Logs the first failure of a row.
    fn note_written(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) => self.failing = false,
            Err(_) if self.failing => {}
            Err(error) => {
                self.failing = true;
                let (directory, error) = (self.directory.display(), WithCauses(&error));
                tracing::warn!(
                    %directory,
                    %error,
                    "webhooks cannot be written to the spool: until that succeeds again, a restart \
                     loses those that wait"
                );
            }
        }
    }

    /// The numbers of the files of batches, ascending. Removes files that were never finished.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(EXTENSION) => {}
                Some(UNFINISHED) => {
                    // If it stays, the next start tries again.
                    let _stays = fs::remove_file(&path);
                    continue;
                }
                _ => continue,
            }
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            numbers.extend(stem.and_then(|stem| u64::from_str_radix(stem, 16).ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:016x}.{EXTENSION}"))
    }

    fn remove(&self, number: u64) {
        if let Err(error) = fs::remove_file(self.path(number)) {
            let (file, error) = (self.path(number), WithCauses(&error));
            tracing::warn!(
                file = %file.display(),
                %error,
                "a file of the webhook spool cannot be removed: the next start sends its events again"
            );
        }
    }
}

/// Writes a file under another name and renames it, so that it is whole or not there.
fn write(path: &Path, header: &BatchHeader, body: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension(UNFINISHED);
    let mut text = serde_json::to_vec(header)?;
    text.push(b'\n');
    text.extend_from_slice(body);
    let mut writable = OpenOptions::new();
    writable.write(true).create(true).truncate(true).mode(0o600);
    let written = writable.open(&unfinished).and_then(|mut file| file.write_all(&text));
    let renamed = written.and_then(|()| fs::rename(&unfinished, path));
    renamed.inspect_err(|_| drop(fs::remove_file(&unfinished)))
}

/// Reads a file. `None`: it is not one that this gateway wrote.
fn read(path: &Path) -> Option<(BatchHeader, Bytes)> {
    let text = Bytes::from(fs::read(path).ok()?);
    let end = text.iter().position(|&byte| byte == b'\n')?;
    let header: BatchHeader = serde_json::from_slice(&text[..end]).ok()?;
    let body = text.slice(end + 1..);
    // The body is signed and sent as it is, except for its time, so it has to be one of ours.
    let events = body::count(&body).filter(|&events| events > 0)?;
    (events == header.events).then_some((header, body))
}

#[cfg(test)]
mod tests;
