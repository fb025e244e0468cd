//! Sockets that have descriptors, as those of a ring have before Linux 6.13: plain system calls do
//! what cannot be an operation of the ring there. One of the few files with unsafe code.

#![allow(unsafe_code, reason = "a system call without a safe wrapper")]

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// The number of bytes that a TCP socket holds and its peer has not acknowledged, or that a unix
/// socket holds and its peer has not read. Zero if the kernel cannot tell.
pub(crate) fn queued_bytes(socket: impl AsFd) -> i32 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open while it is borrowed, and the kernel writes one int. The
    // request is SIOCOUTQ of TCP (tcp(7)), which has the number of TIOCOUTQ.
    let asked = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if asked == 0 { bytes } else { 0 }
}

/// Turns the close of a TCP socket into a reset. The kernel then drops the bytes that it holds for
/// the peer.
pub(crate) fn reset_when_closed(socket: impl AsFd) {
    // This fails only for a descriptor that is not a socket, and its close drops everything anyway.
    let _no_socket = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::{queued_bytes, reset_when_closed};

    #[test]
    fn a_socket_tells_its_unsent_bytes_and_a_reset_drops_them() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        assert_eq!(queued_bytes(&socket), 0);
        socket.set_nonblocking(true).unwrap();
        while socket.write(&[0; 65_536]).is_ok() {}
        assert!(queued_bytes(&socket) > 0);
        reset_when_closed(&socket);
        drop(socket);
        let end = peer.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    }
}
