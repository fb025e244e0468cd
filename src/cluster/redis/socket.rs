//! Sockets to servers: TCP, TLS over it, unix sockets.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use super::error::RedisError;
use super::peer::Peer;
use super::tls::{TlsClient, TlsFailure};
use crate::cluster::RedisAddress;

/// A connected socket.
pub(super) type Socket = Box<dyn Duplex>;

/// Bytes in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The time in which an address has to accept. Longer than a lost packet and its repetition (1 s).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The time in which both sides have to agree on TLS: that for an answer, because a Redis that
/// stands still does not shake hands either.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The time in which the peer has to acknowledge bytes (`TCP_USER_TIMEOUT`). The kernel answers for
/// a Redis that stands still, so this ends only connections to hosts that are gone.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The silence after which the kernel asks whether the peer is there, and the time between such
/// questions. Both halves speak more often; this is for a process that itself stood still.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Connects to a server.
///
/// # Errors
/// Its name is unknown, it does not accept, or TLS fails.
pub(super) async fn open(peer: &Peer, tls: Option<&TlsClient>) -> Result<Socket, RedisError> {
    match &peer.address {
        RedisAddress::Unix(path) => Ok(Box::new(open_unix(peer, path).await?)),
        RedisAddress::Tcp { host, port, tls: false } => {
            Ok(Box::new(open_tcp(peer, host, *port).await?))
        }
        RedisAddress::Tcp { host, port, tls: true } => {
            let stream = open_tcp(peer, host, *port).await?;
            let failed = |cause| RedisError::Tls { peer: peer.clone(), cause };
            // The connector has the material whenever an address asks for TLS.
            let client = tls.ok_or_else(|| failed(TlsFailure::Other("not set up".into())))?;
            let handshake = timeout(HANDSHAKE_TIMEOUT, client.connect(host, stream)).await;
            let stream = handshake.unwrap_or(Err(TlsFailure::Silent)).map_err(failed)?;
            Ok(Box::new(stream))
        }
    }
}

async fn open_unix(peer: &Peer, path: &Path) -> Result<UnixStream, RedisError> {
    let stream = within(CONNECT_TIMEOUT, UnixStream::connect(path)).await;
    stream.map_err(|cause| RedisError::Unreachable { peer: peer.clone(), cause })
}

async fn open_tcp(peer: &Peer, host: &str, port: u16) -> Result<TcpStream, RedisError> {
    let addresses = within(CONNECT_TIMEOUT, lookup_host((host, port))).await;
    let addresses =
        addresses.map_err(|cause| RedisError::Unresolved { peer: peer.clone(), cause })?;
    let stream = first_to_accept(addresses).await;
    stream.map_err(|cause| RedisError::Unreachable { peer: peer.clone(), cause })
}

async fn first_to_accept(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in addresses {
        match within(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(stream) => return tuned(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn tuned(stream: TcpStream) -> io::Result<TcpStream> {
    // A call is one write that nothing follows until its answer: there is nothing to wait for.
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(ACKNOWLEDGE_TIMEOUT))?;
    Ok(stream)
}

async fn within<T>(limit: Duration, io: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"));
    timeout(limit, io).await.unwrap_or_else(|_elapsed| Err(late()))
}
