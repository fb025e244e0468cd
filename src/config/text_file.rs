//! Floor 7. Reads the files of the configuration, whatever kind of file each is.
//!
//! A file may be a pipe (process substitution, a secret store that serves `.env` through a fifo), a
//! directory (Docker makes one where the file of a mount is missing) or a device. Reading is
//! bounded in time and in bytes, and never opens a file in a way that waits.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

/// The time that a pipe has to be written in: a secret store decrypts within it, and a supervisor
/// does not take the start for one that hangs.
const PIPE_TIMEOUT: Duration = Duration::from_secs(5);

/// Larger than any configuration, small against the memory of any host.
const BYTES_MAX: usize = 16 << 20;

/// The reason why a file was not read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// Nothing is there.
    Absent,
    /// A symbolic link is there, and what it names is not.
    Dangling(PathBuf),
    /// A directory is there.
    Directory,
    /// Another process has to write it, and did not.
    Silent,
    /// It goes on past the bound.
    TooLarge,
    /// The kernel refused.
    Refused(io::Error),
}

impl fmt::Display for Unreadable {
    /// Continues a sentence that begins with the path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("does not exist"),
            Self::Dangling(target) => {
                write!(f, "is a link to {}, which does not exist", target.display())
            }
            Self::Directory => f.write_str(
                "is a directory, not a file (Docker makes one when the file of a mount is missing)",
            ),
            Self::Silent => write!(
                f,
                "is a pipe that no process wrote to the end within {} seconds",
                PIPE_TIMEOUT.as_secs()
            ),
            Self::TooLarge => {
                write!(f, "is larger than {} MiB, so it is no configuration", BYTES_MAX >> 20)
            }
            Self::Refused(error) if error.kind() == io::ErrorKind::PermissionDenied => write!(
                f,
                "cannot be read by {}: permission denied; let that user read it (chgrp, chmod \
                 g+r), or start the server as another one",
                user()
            ),
            Self::Refused(error) => write!(f, "cannot be read by {}: {error}", user()),
        }
    }
}

impl Error for Unreadable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Refused(error) => Some(error),
            Self::Absent | Self::Dangling(_) | Self::Directory | Self::Silent | Self::TooLarge => {
                None
            }
        }
    }
}

/// Reads a file as bytes.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Unreadable> {
    read_within(path, PIPE_TIMEOUT)
}

fn read_within(path: &Path, timeout: Duration) -> Result<Vec<u8>, Unreadable> {
    // Without O_NONBLOCK, to open a fifo waits for its writer.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = flags.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| explain(path, error))?;
    let kind = file.metadata().map_err(Unreadable::Refused)?;
    if kind.is_dir() {
        return Err(Unreadable::Directory);
    }
    let deadline = Instant::now() + timeout;
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        if !kind.is_file() {
            wait(&file, deadline)?;
        }
        match (&file).read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(len) => bytes.extend_from_slice(chunk.get(..len).unwrap_or_default()),
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(Unreadable::Refused(error)),
        }
        if bytes.len() > BYTES_MAX {
            return Err(Unreadable::TooLarge);
        }
    }
}

fn explain(path: &Path, error: io::Error) -> Unreadable {
    match (error.kind(), path.read_link()) {
        (io::ErrorKind::NotFound, Ok(target)) => Unreadable::Dangling(target),
        (io::ErrorKind::NotFound, Err(_)) => Unreadable::Absent,
        _ => Unreadable::Refused(error),
    }
}

/// Waits until something can be read, or the end is there.
fn wait(file: &File, deadline: Instant) -> Result<(), Unreadable> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Unreadable::Silent);
    }
    let left = Timespec::try_from(left).ok();
    match poll(&mut [PollFd::new(file, PollFlags::IN)], left.as_ref()) {
        Ok(0) => Err(Unreadable::Silent),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(Unreadable::Refused(error.into())),
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The user that this process reads files as: `user www-data (uid 33)`.
fn user() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    match name_of(&accounts, uid) {
        Some(name) => format!("user {name} (uid {uid})"),
        None => format!("the user with uid {uid}"),
    }
}

/// From the text of `/etc/passwd` (passwd(5)).
fn name_of(accounts: &str, uid: u32) -> Option<&str> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// The encoding that a file is in when it is UTF-16 or UTF-32, in which no reader of `.env` or of
/// TOML takes it. Told by its byte order mark, or by text of ASCII that has zeros in between.
pub(super) fn wide_encoding(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => return Some("UTF-32"),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => return Some("UTF-16"),
        _ => {}
    }
    let (pairs, _) = bytes.as_chunks::<2>();
    let pairs = pairs.get(..pairs.len().min(SAMPLE))?;
    let one_is_zero = |zero: usize| pairs.iter().all(|pair| pair[zero] == 0 && pair[1 - zero] != 0);
    (pairs.len() > 1 && (one_is_zero(0) || one_is_zero(1))).then_some("UTF-16")
}

/// Pairs of bytes that are looked at: the first names of a file are ASCII in any language.
const SAMPLE: usize = 16;

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A path that nothing stands at, removed at the end.
    struct TestPath(PathBuf);

    impl TestPath {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            Self(std::env::temp_dir().join(format!("ringwave-file-{}-{n}", std::process::id())))
        }

        fn fifo() -> Self {
            let place = Self::new();
            let made = Command::new("mkfifo").arg(&place.0).status().unwrap();
            assert!(made.success());
            place
        }
    }

    impl Drop for TestPath {
        fn drop(&mut self) {
            let _gone = std::fs::remove_file(&self.0).or_else(|_| std::fs::remove_dir(&self.0));
        }
    }

    fn unreadable(path: &Path) -> String {
        read_within(path, Duration::from_millis(100)).unwrap_err().to_string()
    }

    #[test]
    fn what_stands_at_a_path_is_named() {
        let place = TestPath::new();
        assert_eq!(unreadable(&place.0), "does not exist");
        std::os::unix::fs::symlink("/nonexistent/shared.env", &place.0).unwrap();
        assert_eq!(
            unreadable(&place.0),
            "is a link to /nonexistent/shared.env, which does not exist"
        );
        let place = TestPath::new();
        std::fs::create_dir(&place.0).unwrap();
        assert!(unreadable(&place.0).starts_with("is a directory, not a file"));
        let denied = Unreadable::Refused(io::ErrorKind::PermissionDenied.into()).to_string();
        let uid = rustix::process::geteuid().as_raw();
        assert!(denied.contains(&format!("uid {uid}")) && denied.contains("chmod"), "{denied}");
    }

    #[test]
    fn a_fifo_without_a_writer_is_given_up_and_one_with_a_writer_is_read() {
        let place = TestPath::fifo();
        assert!(unreadable(&place.0).starts_with("is a pipe that no process wrote"));
        let mut writer = Command::new("sh");
        writer.arg("-c").arg("printf 'A=1\\n' > \"$0\"").arg(&place.0);
        let mut writer = writer.stdin(Stdio::null()).spawn().unwrap();
        let read = read_within(&place.0, Duration::from_secs(30)).unwrap();
        assert_eq!(read, b"A=1\n");
        assert!(writer.wait().unwrap().success());
    }

    #[test]
    fn devices_end_or_are_bounded() {
        assert_eq!(read(Path::new("/dev/null")).unwrap(), b"");
        let endless = read_within(Path::new("/dev/zero"), Duration::from_secs(300));
        assert!(endless.unwrap_err().to_string().contains("larger than 16 MiB"));
    }

    #[test]
    fn wide_text_is_told_from_bytes_that_are_merely_not_utf8() {
        let wide = |text: &str, bytes: fn(u16) -> [u8; 2]| {
            text.encode_utf16().flat_map(bytes).collect::<Vec<_>>()
        };
        for text in ["\u{feff}A=1\n", "A=1\n", "REVERB_APP_ID=1\r\n"] {
            assert_eq!(wide_encoding(&wide(text, u16::to_le_bytes)), Some("UTF-16"), "{text}");
            assert_eq!(wide_encoding(&wide(text, u16::to_be_bytes)), Some("UTF-16"), "{text}");
        }
        assert_eq!(wide_encoding(b"\xFF\xFE\0\0A\0\0\0"), Some("UTF-32"));
        for bytes in [&b""[..], b"A", b"A=1\n", b"\0A=1\n", b"A=\xFF\xFE", b"\xEF\xBB\xBFA=1"] {
            assert_eq!(wide_encoding(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn users_are_named_as_in_the_accounts_of_the_host() {
        let accounts = "root:x:0:0:::/bin/sh\nbroken\nwww-data:x:33:33::/var/www:\n";
        assert_eq!(name_of(accounts, 33), Some("www-data"));
        assert_eq!(name_of(accounts, 7), None);
    }
}
