//! The file of `--output`: written as a whole or not at all, readable by its owner alone.
//!
//! Contract: the file is made under another name in the same directory and then renamed, so that a
//! reader sees the old file or the new one. A regular file of this user is replaced, which the
//! returned sentence says. Anything else that has the name stays as it is: a link or a device would
//! lose what it is, and the server of another user could not read the new file.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Secrets of apps are in the file.
const MODE: u32 = 0o600;

/// Permissions of the group and of all other users.
const MODE_OF_OTHERS: u32 = 0o077;

/// Writes the file and says so. `input` is the file that the text was made of.
pub(super) fn write(path: &Path, input: &Path, text: &str) -> Result<String, String> {
    let shown = path.display();
    let existing = match fs::symlink_metadata(path) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(format!("{shown} cannot be written: {error}")),
    };
    if let Some(reason) = existing.as_ref().and_then(|old| irreplaceable(old, input)) {
        return Err(format!("{shown} is not replaced: it {reason}"));
    }
    replace(path, text, existing.is_some()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{shown} is not replaced: another process has just made it")
        }
        _ => format!("{shown} cannot be written: {error}"),
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

/// Why a file that exists must not be replaced.
fn irreplaceable(old: &Metadata, input: &Path) -> Option<String> {
    let is_input =
        fs::metadata(input).is_ok_and(|input| (input.dev(), input.ino()) == (old.dev(), old.ino()));
    if old.is_symlink() {
        Some("is a symbolic link; name the file that it leads to".into())
    } else if !old.is_file() {
        Some("is no regular file".into())
    } else if is_input {
        Some("is the input".into())
    } else if old.nlink() > 1 {
        Some("has further names (hard links), which would keep the old text".into())
    } else if old.uid() != geteuid().as_raw() {
        Some(format!(
            "belongs to user {}, who could not read a file of this user; run the command as that \
             user, or remove the file",
            old.uid()
        ))
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
        // The first error says more than that of a clean-up could.
        let _ = fs::remove_file(&unfinished);
    }
    finished?;
    // The rename outlives a power failure once the directory is on disk. Not every file system can
    // do that, and the file is there.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let _ =
        File::open(directory.unwrap_or_else(|| Path::new("."))).and_then(|file| file.sync_all());
    Ok(())
}

/// A new file in the same directory, which is on the same file system.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let Some(name) = path.file_name() else { return Err(io::ErrorKind::InvalidFilename.into()) };
    // In containers every process has the same number.
    let random = getrandom::u64().map_err(io::Error::other)?;
    let mut beside = OsString::from(".");
    beside.push(name);
    beside.push(format!(".{random:016x}.unfinished"));
    let beside = path.with_file_name(beside);
    let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
    Ok((beside, file))
}

/// Where nothing was, nothing that came meanwhile is replaced, if the file system can tell.
fn rename(from: &Path, to: &Path, exists: bool) -> io::Result<()> {
    if exists {
        return fs::rename(from, to);
    }
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}
