//! The file of `--output`: written as a whole or not at all, readable by its owner alone.
//!
//! Contract: the file is written under another name in the same directory and then renamed, so that a
//! reader sees the old file or the new one. A regular file of this user is replaced, which the
//! returned sentence says. Anything else stays as it is: a link or a device would be destroyed, and
//! another user's server could not read the new file.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;

/// The permissions of the file, which holds the secrets of apps.
const MODE: u32 = 0o600;

/// Permissions of the group and of all other users.
const MODE_OF_OTHERS: u32 = 0o077;

/// Writes the file. Returns a sentence that says what was done. `input` is the file that the text was
/// made of.
///
/// # Errors
/// The file exists and must not be replaced, or it cannot be written.
pub(super) fn write(path: &Path, input: &Path, text: &str) -> Result<String, OutputError> {
    let shown = path.display();
    let existing = match fs::symlink_metadata(path) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(OutputError::Write { path: path.to_owned(), source }),
    };
    if let Some(obstacle) = existing.as_ref().and_then(|old| obstacle(old, input)) {
        return Err(OutputError::NotReplaced { path: path.to_owned(), source: obstacle });
    }
    replace(path, text, existing.is_some()).map_err(|source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::AlreadyExists => {
                OutputError::NotReplaced { path, source: Obstacle::JustMade }
            }
            _ => OutputError::Write { path, source },
        }
    })?;
    let open = existing.as_ref().map_or(0, |old| old.mode() & MODE_OF_OTHERS);
    Ok(match existing {
        None => format!("{shown} is written"),
        Some(_) if open == 0 => format!("{shown} is replaced"),
        Some(old) => format!(
            "{shown} is replaced; its mode was {:o} and is {MODE:o} now, since it has secrets",
            old.mode() & 0o7777
        ),
    })
}

/// The reason for which the file is not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    #[error("{} is not replaced", path.display())]
    NotReplaced { path: PathBuf, source: Obstacle },
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// The reason for which an existing file must not be replaced.
#[derive(Debug, thiserror::Error)]
pub(super) enum Obstacle {
    #[error("it is a symbolic link; name the file that it leads to")]
    Link,
    #[error("it is no regular file")]
    NotRegular,
    #[error("it is the input")]
    Input,
    #[error("it has further names (hard links), which would keep the old text")]
    HardLinks,
    #[error(
        "it belongs to user {0}, who could not read a file of this user; run the command as that \
         user, or remove the file"
    )]
    OfOtherUser(u32),
    #[error("another process has just made it")]
    JustMade,
}

/// The reason for which an existing file must not be replaced, if there is one.
fn obstacle(old: &Metadata, input: &Path) -> Option<Obstacle> {
    let is_input =
        fs::metadata(input).is_ok_and(|input| (input.dev(), input.ino()) == (old.dev(), old.ino()));
    if old.is_symlink() {
        Some(Obstacle::Link)
    } else if !old.is_file() {
        Some(Obstacle::NotRegular)
    } else if is_input {
        Some(Obstacle::Input)
    } else if old.nlink() > 1 {
        Some(Obstacle::HardLinks)
    } else if old.uid() != geteuid().as_raw() {
        Some(Obstacle::OfOtherUser(old.uid()))
    } else {
        None
    }
}

fn replace(path: &Path, text: &str, exists: bool) -> io::Result<()> {
    let (unfinished, mut file) = create_beside(path)?;
    let finished = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| rename(&unfinished, path, exists));
    if finished.is_err() {
        // The first error says more than an error of this clean-up.
        let _stays = fs::remove_file(&unfinished);
    }
    finished?;
    // The rename survives a power failure once the directory is on disk. Not every file system can
    // sync one, and the file is written all the same.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let _not_synced =
        File::open(directory.unwrap_or_else(|| Path::new("."))).and_then(|file| file.sync_all());
    Ok(())
}

/// Creates a file in the same directory, because only a rename within a file system is atomic.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let Some(name) = path.file_name() else { return Err(io::ErrorKind::InvalidFilename.into()) };
    // A process id would not do: in containers, many processes have the same one.
    let random = getrandom::u64().map_err(io::Error::other)?;
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(format!(".{random:016x}.unfinished"));
    let beside = path.with_file_name(beside);
    let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
    Ok((beside, file))
}

/// Renames the file. If there was none at the start, one that was made meanwhile is not replaced, as
/// far as the file system supports that.
fn rename(from: &Path, to: &Path, exists: bool) -> io::Result<()> {
    if exists {
        return fs::rename(from, to);
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}
