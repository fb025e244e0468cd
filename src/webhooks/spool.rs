//! Batches on disk, so that a restart loses none: a file for each from when it is sealed until it
//! is delivered or given up. Bounded by the bound of the queues, whose copy it is.
//!
//! Written without `fsync`: it outlives the process, a crash of it included, not a loss of power.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::time::Millis;

use super::body;
use super::dispatch::{Dispatch, LaneId};
use super::lane::Change;

const EXTENSION: &str = "webhook";

/// The directory with the files.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    /// The files of the batches that wait.
    files: HashMap<(LaneId, u64), u64>,
    /// Names the next file: they are read in this order.
    next: u64,
    /// The last file could not be written, which was logged.
    failing: bool,
    /// Held locked: a directory is for one process.
    _lock: File,
}

/// The first line of a file; the body follows.
#[derive(Debug, Deserialize, Serialize)]
struct Label {
    app_id: String,
    url: String,
    events: usize,
}

impl Spool {
    /// Opens a directory, which is made if need be.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let explain = |error: io::Error| {
            let place = directory.display();
            io::Error::new(error.kind(), format!("the spool of webhooks in {place}: {error}"))
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(explain)?;
        let mut writable = OpenOptions::new();
        writable.write(true).create(true).truncate(false).mode(0o600);
        let lock = writable.open(directory.join("lock")).map_err(explain)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| explain(io::Error::other("another process uses it")))?;
        let directory = directory.to_owned();
        Ok(Self { directory, files: HashMap::new(), next: 0, failing: false, _lock: lock })
    }

    /// Hands over what an earlier process left behind.
    pub(super) fn restore(&mut self, dispatch: &mut Dispatch) {
        let numbers = match self.numbers() {
            Ok(numbers) => numbers,
            Err(error) => {
                tracing::warn!(%error, "the spool of webhooks cannot be read");
                return;
            }
        };
        let mut restored = 0;
        for number in numbers {
            self.next = number + 1;
            let wanted = read(&self.path(number)).and_then(|(label, body)| {
                let Label { app_id, url, events } = label;
                dispatch.restore(&app_id, &url, (&body, events), Millis(0))
            });
            if let Some(batch) = wanted {
                self.files.insert(batch, number);
                restored += 1;
            } else {
                tracing::warn!(number, "a batch of the spool of webhooks is nobody's any more");
                self.remove(number);
            }
        }
        if restored > 0 {
            tracing::info!(batches = restored, "webhooks of the process before are delivered");
        }
    }

    /// Follows what happened to batches.
    pub(super) fn follow(&mut self, changes: Vec<(LaneId, Change)>, dispatch: &Dispatch) {
        for (lane, change) in changes {
            match change {
                Change::Sealed(batch, body, events) => {
                    let Some((app, webhook)) = dispatch.lane(lane) else { continue };
                    let url = webhook.url.whole();
                    let label = Label { app_id: app.id.clone(), url, events };
                    let number = self.next;
                    self.next += 1;
                    let written = write(&self.path(number), &label, &body);
                    if written.is_ok() {
                        self.files.insert((lane, batch), number);
                    }
                    self.judge(written);
                }
                Change::Gone(batch) => {
                    if let Some(number) = self.files.remove(&(lane, batch)) {
                        self.remove(number);
                    }
                }
            }
        }
    }

    fn judge(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) => self.failing = false,
            Err(_) if self.failing => {}
            Err(error) => {
                self.failing = true;
                tracing::warn!(%error, "webhooks cannot be written to the spool: kept in memory");
            }
        }
    }

    /// The numbers of the files that are there, ascending. What a write left unfinished is removed.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(EXTENSION) => {}
                Some("unfinished") => {
                    let _there: io::Result<()> = fs::remove_file(&path);
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
            tracing::warn!(%error, number, "a delivered webhook stays in the spool");
        }
    }
}

/// Under another name first, so that a file is whole or not there.
fn write(path: &Path, label: &Label, body: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    let mut text = serde_json::to_vec(label)?;
    text.push(b'\n');
    text.extend_from_slice(body);
    let mut writable = OpenOptions::new();
    writable.write(true).create(true).truncate(true).mode(0o600);
    let written = writable.open(&unfinished).and_then(|mut file| file.write_all(&text));
    let renamed = written.and_then(|()| fs::rename(&unfinished, path));
    renamed.inspect_err(|_| drop(fs::remove_file(&unfinished)))
}

fn read(path: &Path) -> Option<(Label, Bytes)> {
    let text = Bytes::from(fs::read(path).ok()?);
    let end = text.iter().position(|&byte| byte == b'\n')?;
    let label: Label = serde_json::from_slice(&text[..end]).ok()?;
    let body = text.slice(end + 1..);
    // All of it except its time is signed and sent, so it has to be what was written.
    let events = body::count(&body).filter(|&events| events > 0)?;
    (events == label.events).then_some((label, body))
}

#[cfg(test)]
mod tests;
