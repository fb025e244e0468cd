//! Sockets that are in no ring's table: their owner asks the kernel by plain system calls. One of
//! the few files with unsafe code.

#![allow(unsafe_code, reason = "a system call without a safe wrapper, and descriptors on loan")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::net::SendFlags;
use tokio_uring::net::{TcpStream, UnixStream};

/// Sends what a socket takes at once, outside of any ring: `send(2)` with `MSG_DONTWAIT`, whatever
/// the mode of the socket.
///
/// # Errors
/// Those of send(2), such as `WouldBlock`; a peer that is gone raises no signal.
pub fn send_now(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(rustix::net::send(socket, bytes, flags)?)
}

/// Bytes that a TCP socket holds and that its peer has not acknowledged; of a unix socket, those
/// that the peer has not read. Zero when the kernel does not know.
pub fn unsent(socket: impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel writes one int. The
    // request is SIOCOUTQ of TCP (tcp(7)), which has the number of TIOCOUTQ.
    let asked = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if asked == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Turns the close of a TCP socket into a reset: the kernel drops the bytes that it holds for the
/// peer.
pub fn reset_when_closed(socket: impl AsFd) {
    // This fails only for a descriptor that is no socket, whose close drops everything anyway.
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
    fn a_descriptor_tells_and_drops_the_same() {
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
