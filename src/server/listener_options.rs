//! Options of listeners that bound the memory that the kernel holds for their connections.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;

use super::limits;

/// The time for which TCP waits for a client to acknowledge bytes, or to open its window. After it,
/// the kernel ends the connection and drops its queue. So a client that vanished while bytes were
/// queued is noticed sooner, and the queues of closed connections are freed. It is as long as an app
/// waits for a silent client by default (`app.ping_interval` and `app.pong_timeout`), so that no client
/// is cut off that its app still waits for. The settings of apps do not change the timers of TCP.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(90);

/// Sets the options that the connections of a TCP listener inherit. `send_buffer` is in bytes of
/// the kernel's memory; `None` leaves the size to the kernel.
///
/// # Errors
/// Returns those of setsockopt(2).
pub(super) fn bound_tcp(listener: impl AsFd, send_buffer: Option<usize>) -> io::Result<()> {
    SockRef::from(&listener).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    bound_buffer(listener, send_buffer)
}

/// Sets the send buffer of a listener. Connections of a unix socket do not inherit it: the front
/// reads it from the listener when it accepts.
///
/// # Errors
/// Returns those of setsockopt(2).
pub(super) fn bound_buffer(listener: impl AsFd, send_buffer: Option<usize>) -> io::Result<()> {
    let Some(bytes) = send_buffer else { return Ok(()) };
    // The kernel doubles the value, to have room for its own records, and counts these records too
    // (socket(7)). So half of it bounds all memory of the queue.
    SockRef::from(&listener).set_send_buffer_size(bytes / 2)
}

/// A note for the operator if the kernel does not allow send buffers of this size, in bytes of its
/// memory.
pub(super) fn note(send_buffer: Option<usize>) -> Option<String> {
    let most = u64::try_from(limits::sysctl("net/core/wmem_max")?).ok()?;
    let bytes = send_buffer?;
    (bytes as u64 / 2 > most).then(|| {
        format!(
            "server.send_buffer is {bytes}, but the kernel allows {} at most: set \
             net.core.wmem_max to {} or more.",
            most.saturating_mul(2),
            bytes / 2
        )
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_inherit_a_bound_on_the_memory_of_their_queue() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        bound_tcp(&listener, Some(100_000)).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert_eq!(accepted.send_buffer_size().unwrap(), 100_000);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
    }

    #[test]
    fn a_bound_that_the_kernel_does_not_allow_is_told() {
        let most = limits::sysctl("net/core/wmem_max").unwrap();
        let bytes = usize::try_from(most).unwrap() * 2;
        assert_eq!([None, Some(bytes)].map(note), [None, None]);
        let note = note(Some(bytes + 2)).unwrap();
        assert!(note.contains(&format!("the kernel allows {bytes} at most")), "{note}");
    }

    #[test]
    fn without_a_bound_the_kernel_sizes_the_queue_as_before() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let before = SockRef::from(&listener).send_buffer_size().unwrap();
        bound_tcp(&listener, None).unwrap();
        assert_eq!(SockRef::from(&listener).send_buffer_size().unwrap(), before);
    }
}
