//! The file of a unix socket: replaces the one that a dead server left, and never lets a user
//! connect whom the configuration does not name.
//!
//! A process that connects over a unix socket is believed about the address of its client, so only
//! the permissions of the file keep other users of the host from forging one. Therefore the file is
//! created without any permission, and the socket listens only after its owner, group and
//! permissions are set.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fstat, open};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::SocketAccess;

/// Listens at `path`, with a queue of so many connections.
///
/// # Errors
/// The path is in use or cannot be used. No new file is left there.
pub(super) fn listen(
    path: &Path,
    access: SocketAccess,
    queue: i32,
) -> Result<UnixListener, SocketFileError> {
    remove_left_over(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // bind(2) gives the file the permissions of the socket, less the umask.
    fchmod(&socket, Mode::empty()).map_err(io::Error::from)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let listening = restrict(path, access).and_then(|()| Ok(socket.listen(queue)?));
    listening.inspect_err(|_| drop(fs::remove_file(path)))?;
    Ok(socket.into())
}

/// Whether every user of the host may connect to the socket at `path`. Connecting takes the right
/// to write to the file and the right to search each of its directories.
pub(super) fn admits_everyone(path: &Path) -> bool {
    let Ok(path) = fs::canonicalize(path) else { return false };
    let grants = |path: &Path, right| {
        fs::metadata(path).is_ok_and(|found| found.permissions().mode() & right != 0)
    };
    grants(&path, WRITE_OF_OTHERS)
        && path.ancestors().skip(1).all(|directory| grants(directory, SEARCH_OF_OTHERS))
}

/// Permission bits of users that are neither the owner nor in the group (inode(7)).
const WRITE_OF_OTHERS: u32 = 0o002;
const SEARCH_OF_OTHERS: u32 = 0o001;

/// Sets owner, group and permissions of the file that is a socket. Links are not followed: a user
/// who may write to the directory could put one there, to a file of another user.
fn restrict(path: &Path, access: SocketAccess) -> Result<(), SocketFileError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty()).map_err(io::Error::from)?;
    let mode = fstat(&file).map_err(io::Error::from)?.st_mode;
    if FileType::from_raw_mode(mode) != FileType::Socket {
        return Err(SocketFileError::NotASocket);
    }
    let (owner, group) = (access.owner.map(Uid::from_raw), access.group.map(Gid::from_raw));
    if owner.is_some() || group.is_some() {
        let changed = chownat(&file, "", owner, group, AtFlags::EMPTY_PATH);
        changed.map_err(|error| SocketFileError::Owner(error.into()))?;
    }
    // The kernel refuses fchmod(2) for an O_PATH descriptor, but allows chmod(2) on the link to it.
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(fs::set_permissions(link, fs::Permissions::from_mode(access.mode))?)
}

/// Removes the socket file of a server that is gone. A server that still listens keeps it.
fn remove_left_over(path: &Path) -> Result<(), SocketFileError> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(SocketFileError::NotASocket);
    }
    match UnixStream::connect(path) {
        Ok(_live) => Err(SocketFileError::InUse),
        // Only a connect shows whether a server listens, and this user is not allowed to connect.
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            Err(SocketFileError::OfOtherUser { uid: found.uid(), source })
        }
        Err(_gone) => Ok(fs::remove_file(path)?),
    }
}

/// The reason for which no server can listen at a path.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketFileError {
    #[error("address already in use")]
    InUse,
    #[error("a file is there that is not a socket")]
    NotASocket,
    /// Only that user can find out whether a server listens there.
    #[error("a socket of user {uid} is there, which this user may not use")]
    OfOtherUser { uid: u32, source: io::Error },
    #[error("its owner and group cannot be set")]
    Owner(#[source] io::Error),
    #[error("the socket cannot be made")]
    System(#[from] io::Error),
}

impl SocketFileError {
    /// Whether a server listens at the path.
    pub(super) fn is_in_use(&self) -> bool {
        match self {
            Self::InUse => true,
            Self::System(error) => error.kind() == io::ErrorKind::AddrInUse,
            Self::NotASocket | Self::OfOtherUser { .. } | Self::Owner(_) => false,
        }
    }

    /// The advice to the operator.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::InUse => "Another process listens there. Stop it, or choose another path.",
            Self::NotASocket => "Remove the file, or choose another path.",
            Self::OfOtherUser { .. } => {
                "Stop the server that listens there. If none does, remove the file."
            }
            Self::Owner(_) => {
                "Only root may give a socket to another user (server.socket_owner), and only root \
                 and members of a group to that group (server.socket_group). Add the user that \
                 runs ringwave to the group (usermod --append --groups), or leave the settings out."
            }
            Self::System(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "The directory must be writable for the user that runs ringwave."
            }
            Self::System(_) => "Check the path in --listen.",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    const QUEUE: i32 = 8;

    const PRIVATE: SocketAccess = SocketAccess { mode: 0o660, owner: None, group: None };

    fn directory(name: &str) -> PathBuf {
        let directory =
            std::env::temp_dir().join(format!("ringwave-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_file_has_the_configured_permissions_whatever_the_umask_is() {
        let directory = directory("mode");
        let path = directory.join("gateway.sock");
        // A umask takes away the right of others to write: 0666 shows that it is ignored.
        for wanted in [0o660, 0o600, 0o666, 0o777, 0o640] {
            let access = SocketAccess { mode: wanted, ..PRIVATE };
            let listener = listen(&path, access, QUEUE).unwrap();
            assert_eq!(mode(&path), wanted);
            drop(listener);
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn at_no_moment_has_the_file_other_permissions_than_none_or_the_configured_ones() {
        let directory = directory("moment");
        let path = directory.join("gateway.sock");
        let over = AtomicBool::new(false);
        let seen = thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut seen = BTreeSet::new();
                while !over.load(Ordering::Relaxed) {
                    seen.extend(fs::metadata(&path).map(|file| file.permissions().mode() & 0o7777));
                }
                seen
            });
            for _ in 0..200 {
                drop(listen(&path, PRIVATE, QUEUE).unwrap());
            }
            over.store(true, Ordering::Relaxed);
            watch.join().unwrap()
        });
        assert!(seen.is_subset(&BTreeSet::from([0, 0o660])), "{seen:?}");
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn every_user_is_admitted_only_if_file_and_directories_say_so() {
        let directory = directory("everyone");
        let path = directory.join("gateway.sock");
        for (file, above, everyone) in
            [(0o660, 0o755, false), (0o666, 0o755, true), (0o666, 0o750, false)]
        {
            fs::set_permissions(&directory, fs::Permissions::from_mode(above)).unwrap();
            let access = SocketAccess { mode: file, ..PRIVATE };
            let _listener = listen(&path, access, QUEUE).unwrap();
            assert_eq!(admits_everyone(&path), everyone, "{file:o} in {above:o}");
            fs::remove_file(&path).unwrap();
        }
        assert!(!admits_everyone(&path), "nothing is there");
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn owner_and_group_are_set_where_the_user_may() {
        let directory = directory("owner");
        let path = directory.join("gateway.sock");
        let own = rustix::process::getegid().as_raw();
        let access = SocketAccess { group: Some(own), ..PRIVATE };
        drop(listen(&path, access, QUEUE).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().gid(), own);
        let other = SocketAccess { owner: Some(54_321), group: Some(54_322), ..PRIVATE };
        if rustix::process::geteuid().is_root() {
            drop(listen(&path, other, QUEUE).unwrap());
            let file = fs::metadata(&path).unwrap();
            assert_eq!((file.uid(), file.gid(), mode(&path)), (54_321, 54_322, 0o660));
        } else {
            let error = listen(&path, other, QUEUE).unwrap_err();
            assert!(matches!(error, SocketFileError::Owner(_)), "{error}");
            assert!(!path.exists(), "nothing is left of the attempt");
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_left_over_file_is_replaced_whatever_its_permissions_and_gets_the_configured_ones() {
        let directory = directory("left-over");
        let path = directory.join("gateway.sock");
        for left in [0o666, 0o600, 0o660] {
            drop(UnixListener::bind(&path).unwrap());
            fs::set_permissions(&path, fs::Permissions::from_mode(left)).unwrap();
            let listener = listen(&path, PRIVATE, QUEUE).unwrap();
            assert_eq!(mode(&path), 0o660);
            let used = listen(&path, PRIVATE, QUEUE).unwrap_err();
            assert!(used.is_in_use(), "{used}");
            drop(listener);
            fs::remove_file(&path).unwrap();
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_link_in_the_place_of_the_socket_is_not_followed() {
        let directory = directory("link");
        let (path, file) = (directory.join("gateway.sock"), directory.join("secret"));
        fs::write(&file, "a secret").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&file, &path).unwrap();
        assert!(restrict(&path, PRIVATE).is_err());
        assert_eq!(mode(&file), 0o600);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn an_error_of_the_system_is_shown_once_and_without_its_number() {
        let error = SocketFileError::from(io::Error::from_raw_os_error(13));
        let text = crate::text::WithCauses(&error).to_string();
        assert_eq!(text, "the socket cannot be made: permission denied");
    }
}
