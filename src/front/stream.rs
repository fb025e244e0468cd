//! The sockets of the front on tokio-uring, and the adapter that lets hyper drive them.
//!
//! hyper polls with borrowed buffers, `io_uring` owns a buffer from submission to completion: `Io`
//! stands between. It keeps at most one read and one write in flight, each a boxed future that owns
//! its buffer.
//!
//! A socket with an operation in flight is never just dropped: tokio-uring keeps the operation, and
//! with it the descriptor, until the kernel completes it, which for a read from a silent peer is
//! never. `Io` shuts such a socket down first, and the operations end.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio_uring::buf::{BoundedBuf, Slice};
use tokio_uring::net::{TcpStream, UnixStream};

use super::framing::Framing;
use super::pace::Pace;
use super::proxy_header::{self, ProxyHeader, Start};
use super::settings::HEAD_BYTES_MAX;
use crate::ring;

/// An accepted connection.
pub(crate) enum Stream {
    /// From a TCP listener.
    Tcp(TcpStream),
    /// From a unix-socket listener.
    Unix(UnixStream),
}

impl Stream {
    /// Ends one or both directions; operations in flight on them complete at once.
    ///
    /// # Errors
    /// Those of shutdown(2), such as `NotConnected` when the peer has already reset the connection.
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        }
    }

    /// Reads what there is into the free capacity of `buffer`; 0 bytes is the end of the stream.
    pub(super) async fn read(&self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        loop {
            let free = buffer.len()..;
            let (result, slice) = match self {
                Self::Tcp(stream) => stream.read(buffer.slice(free)).await,
                Self::Unix(stream) => stream.read(buffer.slice(free)).await,
            };
            buffer = slice.into_inner();
            match result {
                Err(error) if is_transient(&error) => {}
                result => return (result, buffer),
            }
            tokio::time::sleep(TRANSIENT_PAUSE).await;
        }
    }

    /// Writes what the socket takes at once, by a plain system call: an operation of the ring costs
    /// the front a completion, a wake and a task's poll, several times the price of the call. Zero
    /// when the socket is full, and when it has failed: the write that follows meets the error.
    fn write_now(&self, bytes: &[u8]) -> usize {
        ring::send_now(self, bytes).unwrap_or(0)
    }

    /// Writes all of `bytes`, however the kernel cuts it.
    pub(super) async fn write_all(&self, mut bytes: Vec<u8>) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            let rest = bytes.slice(written..);
            let (result, slice): (_, Slice<Vec<u8>>) = match self {
                Self::Tcp(stream) => stream.write(rest).submit().await,
                Self::Unix(stream) => stream.write(rest).submit().await,
            };
            bytes = slice.into_inner();
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if is_transient(&error) => tokio::time::sleep(TRANSIENT_PAUSE).await,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => ring::tcp_socket(stream),
            Self::Unix(stream) => ring::unix_socket(stream),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Tcp(_) => "Tcp",
            Self::Unix(_) => "Unix",
        };
        write!(f, "{kind}({})", self.as_fd().as_raw_fd())
    }
}

/// Whether a connection leaves HTTP. Shared by the service, which decides it, and [`Io`].
#[derive(Debug, Default)]
pub(super) struct Switching(Cell<bool>);

impl Switching {
    /// The response to come is a 101.
    pub(super) fn begin(&self) {
        self.0.set(true);
    }

    fn begun(&self) -> bool {
        self.0.get()
    }
}

/// What is left of an [`Io`].
pub(super) struct Parts {
    pub(super) stream: Stream,
    pub(super) received: Bytes,
    pub(super) unsent: Vec<u8>,
}

type ReadInFlight = Pin<Box<dyn Future<Output = (io::Result<usize>, Vec<u8>)>>>;
type WriteInFlight = Pin<Box<dyn Future<Output = io::Result<()>>>>;

/// The first bytes of a connection: they tell which protocol it speaks if that is not HTTP.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beginning {
    bytes: [u8; 16],
    len: u8,
}

impl Beginning {
    /// Those that have come.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Takes of what comes as much as is missing.
    fn see(&mut self, received: &[u8]) {
        let (seen, rest) = self.bytes.split_at_mut(usize::from(self.len));
        let more = rest.len().min(received.len());
        if let (Some(rest), Some(received)) = (rest.get_mut(..more), received.get(..more)) {
            rest.copy_from_slice(received);
            // At most 16 bytes: the length fits.
            self.len = (seen.len() + more) as u8;
        }
    }
}

/// A [`Stream`] that hyper can drive. What a write cannot do at once it does in the background;
/// `poll_flush` waits for it, so flushed means that the kernel has taken every byte. A 101 is not
/// written at all: what hyper says once the connection has [`Switching::begun`] is kept for the
/// next owner, who sends it together with the first frame. Each send that a handshake saves is a
/// tenth of what it costs.
pub(super) struct Io {
    stream: Rc<Stream>,
    /// Told when bytes arrive: the deadline of a request's head counts from its first byte.
    pace: Rc<Pace>,
    reading: Option<ReadInFlight>,
    /// The bytes received and not yet taken by a `poll_read`. A read in flight owns the buffer.
    received: Vec<u8>,
    /// The number of bytes of `received` that were taken.
    taken: usize,
    writing: Option<WriteInFlight>,
    /// The bound on how much of `received` hyper may have at a time.
    framing: Rc<Framing>,
    /// The size of the next read.
    room: ReadRoom,
    switching: Rc<Switching>,
    /// What hyper wrote since.
    unsent: Vec<u8>,
    /// The peer has ended its direction.
    ended: bool,
    beginning: Beginning,
    /// The next owner closes the socket.
    given_away: bool,
}

impl Io {
    pub(super) fn new(stream: Stream, pace: Rc<Pace>, switching: Rc<Switching>) -> Self {
        Self {
            stream: Rc::new(stream),
            pace,
            reading: None,
            received: Vec::new(),
            taken: 0,
            writing: None,
            framing: Rc::default(),
            room: ReadRoom::default(),
            switching,
            unsent: Vec::new(),
            ended: false,
            beginning: Beginning::default(),
            given_away: false,
        }
    }

    /// The state that cuts the bytes that hyper reads. The service tells it of each request.
    pub(super) fn framing(&self) -> Rc<Framing> {
        Rc::clone(&self.framing)
    }

    /// The first bytes that hyper reads, behind a header of the PROXY protocol.
    pub(super) const fn beginning(&self) -> Beginning {
        self.beginning
    }

    /// Takes the header of the PROXY protocol that a connection begins with; what came behind it
    /// is the first of what hyper reads. None when it is none, and when the stream ends before.
    pub(super) async fn proxy_header(&mut self) -> Option<ProxyHeader> {
        loop {
            poll_fn(|cx| self.poll_more(cx)).await.ok()?;
            if self.ended {
                return None;
            }
            match proxy_header::parse(&self.received) {
                Start::Whole(header) => {
                    self.take(header.len);
                    return Some(header);
                }
                Start::Partial => {}
                Start::Wrong => return None,
            }
        }
    }

    /// Writes what is unsent, then all of `bytes`.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        poll_fn(|cx| self.poll_written(cx)).await?;
        let mut unsent = std::mem::take(&mut self.unsent);
        unsent.extend_from_slice(bytes);
        self.start_write(unsent);
        poll_fn(|cx| self.poll_written(cx)).await
    }

    /// Gives the socket away, with what was received beyond the bytes that hyper took and what is
    /// still to be sent. Waits for operations in flight: a read that completed later would eat what
    /// the next owner is owed. hyper starts no read while a response is due (`half_close`), so
    /// there is none after a 101.
    pub(super) async fn into_parts(mut self) -> io::Result<Parts> {
        poll_fn(|cx| self.poll_written(cx)).await?;
        if self.reading.is_some() {
            poll_fn(|cx| self.poll_received(cx)).await?;
        }
        let mut received = Bytes::from(std::mem::take(&mut self.received));
        received.advance(self.taken);
        let unsent = std::mem::take(&mut self.unsent);
        let stream = Rc::clone(&self.stream);
        self.given_away = true;
        drop(self);
        let stream = Rc::try_unwrap(stream)
            .map_err(|_| io::Error::other("an operation still holds the socket"))?;
        Ok(Parts { stream, received, unsent })
    }

    /// Closes so that the peer can still read the last answer: ends our direction, then reads and
    /// drops until the peer ends its own, at most `bytes_max` bytes and `time_max`. Closing at once
    /// with unread input would reset the connection, and the answer would be lost with it.
    pub(super) async fn linger(mut self, bytes_max: usize, time_max: Duration) {
        let ended = async {
            poll_fn(|cx| self.poll_written(cx)).await?;
            self.stream.shutdown(Shutdown::Write)?;
            let mut dropped = 0;
            while !self.ended && dropped <= bytes_max {
                poll_fn(|cx| self.poll_received(cx)).await?;
                dropped += self.unread().len();
                self.take(usize::MAX);
            }
            io::Result::Ok(())
        };
        // Neither the error nor the deadline matters any more: the drop that follows closes.
        let _ = tokio::time::timeout(time_max, ended).await;
    }

    fn start_write(&mut self, bytes: Vec<u8>) {
        let stream = Rc::clone(&self.stream);
        self.writing = Some(Box::pin(async move { stream.write_all(bytes).await }));
    }

    /// Ready once no write is in flight.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(writing) = &mut self.writing else { return Poll::Ready(Ok(())) };
        let result = ready!(writing.as_mut().poll(cx));
        self.writing = None;
        Poll::Ready(result)
    }

    /// The bytes received and not yet taken.
    fn unread(&self) -> &[u8] {
        self.received.get(self.taken..).unwrap_or_default()
    }

    /// Takes so many of the unread bytes, or all of them.
    fn take(&mut self, count: usize) {
        self.taken = self.taken.saturating_add(count).min(self.received.len());
        if self.taken == self.received.len() {
            // An empty buffer would keep its memory for as long as the peer sends nothing.
            (self.received, self.taken) = (Vec::new(), 0);
        }
    }

    /// Ready once there are unread bytes or the peer has ended.
    fn poll_received(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.ended || !self.unread().is_empty() {
            true => Poll::Ready(Ok(())),
            false => self.poll_more(cx),
        }
    }

    /// Ready once there are more unread bytes or the peer has ended. Starts a read if there is
    /// none, into the free part of the buffer if a part is unread.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, reading, received, taken, room, .. } = self;
        let reading = reading.get_or_insert_with(|| {
            let mut buffer = std::mem::take(received);
            buffer.drain(..std::mem::take(taken));
            match buffer.capacity() {
                0 => buffer.reserve_exact(room.bytes()),
                full if full == buffer.len() => buffer.reserve_exact(full),
                _ => {}
            }
            let stream = Rc::clone(stream);
            Box::pin(async move { stream.read(buffer).await })
        });
        let (result, buffer) = ready!(reading.as_mut().poll(cx));
        self.reading = None;
        self.received = buffer;
        let count = result?;
        self.ended = count == 0;
        self.room.follow(count);
        self.pace.received();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // A peer that has more than the last answers unread will not read them, and the kernel
        // would keep them for minutes.
        if !self.given_away && ring::unsent(&*self.stream) > UNREAD_BYTES {
            ring::reset_when_closed(&*self.stream);
        }
        if self.reading.is_some() || self.writing.is_some() {
            // Fails only when the peer is gone already, and then the operations end as well.
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_received(cx))?;
        let io = &mut *self;
        loop {
            let unread = io.received.get(io.taken..).unwrap_or_default();
            let all = io.ended || unread.len() >= HEAD_BYTES_MAX;
            let count = io.framing.give(unread, buffer.remaining(), all);
            if count > 0 || io.ended {
                let given = unread.get(..count).unwrap_or_default();
                buffer.put_slice(given);
                io.beginning.see(given);
                io.take(count);
                return Poll::Ready(Ok(()));
            }
            ready!(io.poll_more(cx))?;
        }
    }
}

impl Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_written(cx))?;
        if self.switching.begun() {
            self.unsent.extend_from_slice(bytes);
        } else {
            let written = self.stream.write_now(bytes);
            if written < bytes.len() {
                self.start_write(bytes[written..].to_vec());
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_written(cx)
    }

    /// Flushes only: how the socket closes is decided by [`Io::linger`], after hyper.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_written(cx)
    }
}

/// Blocking sockets can still answer EAGAIN, under memory pressure or when the kernel's retries run
/// out (liburing pull request 1601): the operation is tried again, the connection lives.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The room of the next read. A read holds its buffer while the peer sends nothing, so the buffer
/// is small unless the peer tends to send more.
#[derive(Clone, Copy, Debug, Default)]
struct ReadRoom {
    large: bool,
    /// The last read would have fitted into the small buffer.
    fitted: bool,
}

impl ReadRoom {
    const fn bytes(self) -> usize {
        if self.large { READ_BYTES } else { WAITING_READ_BYTES }
    }

    /// A read has brought so many bytes. Two reads in a row that fit make the buffer small again,
    /// because the last part of a request that takes several reads is mostly short.
    const fn follow(&mut self, count: usize) {
        let fits = count < WAITING_READ_BYTES;
        self.large = !fits || self.large && !self.fitted;
        self.fitted = fits;
    }
}

/// The large read buffer. It holds a usual request whole.
const READ_BYTES: usize = 8 * 1024;

/// The bytes that the kernel may still deliver after a close: more than an answer that refuses a
/// request, or the frames that refuse a WebSocket.
const UNREAD_BYTES: usize = 16 * 1024;

/// The small read buffer. It holds the handshake of a browser with usual cookies, or a short
/// publish, whole.
const WAITING_READ_BYTES: usize = 1_280;

/// Long enough not to burn CPU while the kernel is short of memory.
const TRANSIENT_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_waits_with_little_memory_unless_the_peer_sends_much() {
        let mut room = ReadRoom::default();
        let sizes = [450, 1280, 8192, 100, 8192, 100, 450, 450].map(|count| {
            room.follow(count);
            room.bytes()
        });
        let (small, large) = (WAITING_READ_BYTES, READ_BYTES);
        assert_eq!(sizes, [small, large, large, large, large, large, small, small]);
    }
}
