//! Works off a round of files on the ring of the thread. The kernel tries none of these operations
//! within the submission if it has to wait for the disk: its workers do, so the thread never does.
//!
//! Each file is written under another name, flushed, and renamed, so that it is whole or not there.
//! A flush of the directory after the renames makes the names as lasting as the files. Removals
//! are not flushed, because a file that returns after a loss of power only repeats its events.

use std::future::Future;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio_uring::fs::{File, OpenOptions, remove_file, rename};

use super::file::{path, unfinished_path};

/// The directory of the spool.
pub(super) struct Directory {
    path: PathBuf,
    /// Open, so that its names can be flushed.
    file: File,
}

/// The content of a file: its first line, and the body.
pub(super) type Content = (Bytes, Bytes);

/// The results of a round, by the numbers of the files.
pub(super) struct RoundResults {
    pub(super) written: Vec<(u64, io::Result<()>)>,
    pub(super) removed: Vec<(u64, io::Result<()>)>,
    /// The result of the flush of the directory.
    pub(super) flushed: io::Result<()>,
}

impl Directory {
    /// Opens a directory.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::from_std(std::fs::File::open(&path)?);
        Ok(Self { path, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes and removes files. Ends when all of them are done.
    pub(super) async fn work_off(
        self: Rc<Self>,
        writes: Vec<(u64, Content)>,
        removals: Vec<u64>,
    ) -> RoundResults {
        let removals: Vec<_> =
            removals.into_iter().map(|number| (number, self.begin_removal(number))).collect();
        let writes: Vec<_> = writes
            .into_iter()
            .map(|(number, content)| (number, self.begin_write(number, content)))
            .collect();
        let mut written = Vec::with_capacity(writes.len());
        // Files appear in the order of their numbers: a crash keeps the older ones.
        for (number, write) in writes {
            written.push((number, self.finish_write(number, write).await));
        }
        let appeared = written.iter().any(|(_, result)| result.is_ok());
        let flushed = if appeared { self.file.sync_all().await } else { Ok(()) };
        let mut removed = Vec::with_capacity(removals.len());
        for (number, removal) in removals {
            removed.push((number, result(removal).await));
        }
        RoundResults { written, removed, flushed }
    }

    fn begin_removal(&self, number: u64) -> JoinHandle<io::Result<()>> {
        let file = path(&self.path, number);
        tokio_uring::spawn(remove_file(file))
    }

    fn begin_write(&self, number: u64, content: Content) -> JoinHandle<io::Result<()>> {
        let unfinished = unfinished_path(&self.path, number);
        tokio_uring::spawn(async move { write(&unfinished, content).await })
    }

    async fn finish_write(&self, number: u64, write: JoinHandle<io::Result<()>>) -> io::Result<()> {
        let unfinished = unfinished_path(&self.path, number);
        let mut finished = result(write).await;
        if finished.is_ok() {
            finished = rename(&unfinished, path(&self.path, number)).await;
        }
        if finished.is_err() {
            // If it stays, the next start removes it.
            let _stays = remove_file(&unfinished).await;
        }
        finished
    }
}

/// Makes a file of this content, on the disk.
async fn write(path: &Path, content: Content) -> io::Result<()> {
    let mut writable = OpenOptions::new();
    writable.write(true).create(true).truncate(true).mode(0o600);
    let file = writable.open(path).await?;
    let filled = fill(&file, content).await;
    // If it were dropped, the thread would close it, which may wait on a file system of a network.
    let closed = file.close().await;
    filled.and(closed)
}

async fn fill(file: &File, (header, body): Content) -> io::Result<()> {
    let body_at = header.len() as u64;
    file.write_all_at(header, 0).await.0?;
    // A vectored write would be one operation less, but `File::writev_at_all` of tokio-uring 0.5
    // panics if the kernel writes only a part.
    file.write_all_at(body, body_at).await.0?;
    file.sync_data().await
}

/// The result of a task. A task that panics has failed.
async fn result(task: impl Future<Output = TaskResult>) -> io::Result<()> {
    task.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

type TaskResult = Result<io::Result<()>, tokio::task::JoinError>;
