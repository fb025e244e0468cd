//! The file of a batch: its name, and its content. The first line names the endpoint, and the body
//! of the request follows.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::body;

/// The extension of the file of a batch.
pub(super) const EXTENSION: &str = "webhook";

/// The extension of a file that is being written.
const UNFINISHED: &str = "unfinished";

/// The numbers of files are lower: a process that wrote a million files a second would need 290,000
/// years to get there.
const NUMBER_MAX: u64 = 1 << 63;

/// The first line of a file.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct BatchHeader {
    pub(super) app_id: String,
    pub(super) url: String,
    pub(super) events: usize,
}

impl BatchHeader {
    /// The line, with its end.
    ///
    /// # Errors
    /// Never with these fields, as far as JSON is concerned.
    pub(super) fn line(&self) -> io::Result<Bytes> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line.into())
    }
}

/// The path of the file with this number.
pub(super) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}.{EXTENSION}"))
}

/// The path of the file with this number while it is being written.
pub(super) fn unfinished_path(directory: &Path, number: u64) -> PathBuf {
    path(directory, number).with_extension(UNFINISHED)
}

/// The numbers of the files of batches, ascending. A crash leaves unfinished files: those that are
/// whole are finished here, and the others are removed.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let found = entry?.path();
        let Some(number) = number(&found) else { continue };
        match found.extension().and_then(|extension| extension.to_str()) {
            Some(EXTENSION) => {}
            Some(UNFINISHED) if read(&found).is_some() => {
                if fs::rename(&found, path(directory, number)).is_err() {
                    continue;
                }
            }
            Some(UNFINISHED) => {
                // If it stays, the next start tries again.
                let _stays = fs::remove_file(&found);
                continue;
            }
            _ => continue,
        }
        numbers.push(number);
    }
    numbers.sort_unstable();
    // A file that was there under both names is there once now.
    numbers.dedup();
    Ok(numbers)
}

/// The number in the name of a file.
fn number(path: &Path) -> Option<u64> {
    let number = u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()?;
    (number < NUMBER_MAX).then_some(number)
}

/// Reads a file. `None`: it is not one that this gateway wrote.
pub(super) fn read(path: &Path) -> Option<(BatchHeader, Bytes)> {
    let text = Bytes::from(fs::read(path).ok()?);
    let end = text.iter().position(|&byte| byte == b'\n')?;
    let header: BatchHeader = serde_json::from_slice(&text[..end]).ok()?;
    let body = text.slice(end + 1..);
    // The body is signed and sent as it is, except for its time, so it has to be one of ours.
    let events = body::count(&body).filter(|&events| events > 0)?;
    (events == header.events).then_some((header, body))
}
