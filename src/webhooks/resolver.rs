//! Looks up the addresses of receivers, on a few threads because the system's resolver blocks.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task;

/// Threads that look up names. They end when idle, and few are enough because answers are short.
const THREADS_MAX: usize = 4;

/// The threads that look up names. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    /// A permit for each thread.
    threads: Arc<Semaphore>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { threads: Arc::new(Semaphore::new(THREADS_MAX)) }
    }
}

impl Resolver {
    /// Returns the addresses of a host with this port.
    ///
    /// # Errors
    /// The host was not found.
    pub(super) async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let permit = Arc::clone(&self.threads).acquire_owned().await.map_err(io::Error::other)?;
        let host = host.to_owned();
        let looked_up = task::spawn_blocking(move || {
            // The thread goes on if nobody waits for it any more, so the permit is the thread's.
            let _permit = permit;
            Ok((host.as_str(), port).to_socket_addrs()?.collect())
        });
        looked_up.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_and_addresses_are_looked_up() {
        let resolver = Resolver::default();
        let addresses = resolver.look_up("localhost", 80).await.unwrap();
        assert!(
            !addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback())
        );
        // An address needs no thread, even if all of them are taken.
        let _taken = resolver.threads.acquire_many(THREADS_MAX as u32).await.unwrap();
        let address = resolver.look_up("::1", 443).await.unwrap();
        assert_eq!(address, [SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 443))]);
    }
}
