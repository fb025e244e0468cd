//! Sockets that are in no ring's table: their owner asks the kernel by plain system calls. One of
//! the few files with unsafe code.

#![allow(unsafe_code, reason = "a system call without a safe wrapper, and descriptors on loan")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::net::SendFlags;
use tokio_uring::net::{TcpStream, UnixStream};

/// Sends the bytes that a socket takes at once: `send(2)` with `MSG_DONTWAIT`, whatever the mode of
/// the socket. Returns the number of bytes sent.
///
/// # Errors
/// Those of send(2), such as `WouldBlock`. A peer that is gone raises no signal.
pub fn send_now(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(rustix::net::send(socket, bytes, flags)?)
}

/// The number of bytes that a TCP socket holds and its peer has not acknowledged, or that a unix
/// socket holds and its peer has not read. Zero if the kernel cannot tell.
pub fn unsent(socket: impl AsFd) -> usize {
    // The number is not negative.
    usize::try_from(queued_bytes(socket)).unwrap_or(0)
}

/// The same number as the kernel returns it.
pub(crate) fn queued_bytes(socket: impl AsFd) -> i32 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel writes one int. The
    // request is SIOCOUTQ of TCP (tcp(7)), which has the number of TIOCOUTQ.
    let asked = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if asked == 0 { bytes } else { 0 }
}

/// Turns the close of a TCP socket into a reset. The kernel then drops the bytes that it holds for
/// the peer.
pub fn reset_when_closed(socket: impl AsFd) {
    // This fails only for a descriptor that is not a socket, and its close drops everything anyway.
    let _no_socket = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// The descriptor of a TCP stream of tokio-uring, which has no safe way to lend it.
#[must_use]
pub fn tcp_socket(stream: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the stream owns its descriptor, and closes it only when it is dropped or closed by
    // value: neither can happen while it is borrowed.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

/// The descriptor of a unix stream of tokio-uring, which has no safe way to lend it.
#[must_use]
pub fn unix_socket(stream: &UnixStream) -> BorrowedFd<'_> {
    // SAFETY: as in `tcp_socket`.
    unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::{reset_when_closed, send_now, unsent};

    #[test]
    fn a_socket_tells_its_unsent_bytes_and_a_reset_drops_them() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        assert_eq!(unsent(&socket), 0);
        while send_now(&socket, &[0; 65_536]).is_ok() {}
        assert!(unsent(&socket) > 0);
        reset_when_closed(&socket);
        drop(socket);
        let end = peer.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    }
}
