//! Notifies the service manager by the protocol of sd_notify(3): that the process serves, reads its
//! configuration again, or stops, and, for a watchdog, that all shards still run.
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is sent.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::bus::Outside;
use crate::shard::ShardMessage;

/// The pause before a shard is asked again whose mailbox was full.
const RETRY: Duration = Duration::from_millis(100);

/// The service manager, if there is one that wants notifications.
#[derive(Debug, Default)]
pub(super) struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// The interval at which the watchdog is fed; `None`: there is none.
    interval: Option<Duration>,
}

impl ServiceManager {
    /// The one that `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` name. If it cannot be
    /// reached, a warning is logged and the server goes on, because serving comes first.
    pub(super) fn from_environment() -> Self {
        let Some(address) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let socket = connect(&address).inspect_err(|error| {
            let address = address.display();
            tracing::warn!(
                %error,
                %address,
                "the service manager cannot be notified: NOTIFY_SOCKET cannot be connected to"
            );
        });
        let variable = |name| env::var(name).ok();
        let interval = watchdog_interval(
            variable("WATCHDOG_USEC"),
            variable("WATCHDOG_PID"),
            std::process::id(),
        );
        Self { socket: socket.ok(), interval }
    }

    /// Reports that the process serves, so that units that wait for it may start.
    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// Reports that the process reads its configuration again, until it is [`ready`](Self::ready).
    pub(super) fn reloading(&self) {
        // The manager compares this with its own clock, so it is the host's and not the process's.
        let now = clock_gettime(ClockId::Monotonic);
        let since_boot = Duration::try_from(now).unwrap_or_default().as_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={since_boot}"));
    }

    /// Reports that the process stops, and how long that takes at most, because a manager with a
    /// shorter timeout would cut the drain.
    pub(super) fn stopping(&self, within: Duration) {
        let patience = (within + STOP_MARGIN).as_micros();
        let status = "Gracefully terminating connections.";
        self.send(&format!("STOPPING=1\nSTATUS={status}\nEXTEND_TIMEOUT_USEC={patience}"));
    }

    /// Feeds the watchdog, each time after all shards have answered a roll call. If a shard does
    /// not answer, the watchdog is not fed, and the manager restarts the process.
    pub(super) async fn watch(self: Arc<Self>, bus: Outside<ShardMessage>) {
        let Some(interval) = self.interval else { return };
        loop {
            roll_call(&bus, interval).await;
            self.send("WATCHDOG=1");
            sleep(interval).await;
        }
    }

    fn send(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(state.as_bytes()) {
            tracing::warn!(%error, "the service manager could not be notified");
        }
    }
}

/// Returns once every shard has taken a message from its mailbox and has handled all messages
/// before it. Logs which shard does not within `patience`.
pub(super) async fn roll_call(bus: &Outside<ShardMessage>, patience: Duration) {
    loop {
        let mut answers = Vec::new();
        // If a mailbox is full, the answer is dropped at once, and all shards are asked again
        // below.
        bus.offer(|| {
            let (present, answer) = oneshot::channel();
            answers.push(answer);
            ShardMessage::RollCall(present)
        });
        let mut complete = true;
        for (shard, mut answer) in answers.into_iter().enumerate() {
            let answered = match timeout(patience, &mut answer).await {
                Ok(answered) => answered,
                Err(_elapsed) => {
                    let patience_s = patience.as_secs_f64();
                    tracing::warn!(
                        shard,
                        patience_s,
                        "a shard does not answer: its thread hangs or has no CPU time"
                    );
                    answer.await
                }
            };
            complete &= answered.is_ok();
        }
        if complete {
            return;
        }
        sleep(RETRY).await;
    }
}

/// A path, or a name in the abstract namespace behind an `@`.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor @name")),
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not block the control thread.
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// A third of the watchdog's timeout, so that one late answer does no harm. `pid` is the process
/// that is watched; `None`: any.
fn watchdog_interval(usec: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let usec: u64 = usec?.parse().ok()?;
    (usec > 0).then(|| Duration::from_micros(usec.div_ceil(3)))
}

/// The time that a stop takes beyond its drain: for the last requests of the front and the ends of
/// threads.
const STOP_MARGIN: Duration = Duration::from_secs(6);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{self, Port};

    #[test]
    fn the_watchdog_is_fed_three_times_within_its_patience_and_only_for_the_watched_process() {
        let interval = |usec: &str, pid: Option<&str>| {
            watchdog_interval(Some(usec.to_owned()), pid.map(str::to_owned), 7)
        };
        assert_eq!(interval("30000000", None), Some(Duration::from_secs(10)));
        assert_eq!(interval("30000000", Some("7")), Some(Duration::from_secs(10)));
        assert_eq!(interval("30000000", Some("8")), None);
        assert_eq!(interval("0", None), None);
        assert_eq!(interval("soon", None), None);
        assert_eq!(watchdog_interval(None, None, 7), None);
    }

    #[test]
    fn a_name_in_the_abstract_namespace_is_reached() {
        let name = format!("ringwave-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let heard = UnixDatagram::bind_addr(&address).unwrap();
        let socket = connect(OsStr::new(&format!("@{name}"))).unwrap();
        ServiceManager { socket: Some(socket), interval: None }.ready("Serving");
        let mut text = [0; 64];
        let length = heard.recv(&mut text).unwrap();
        assert_eq!(&text[..length], b"READY=1\nSTATUS=Serving");
        assert!(connect(OsStr::new("vsock:2:1")).is_err());
    }

    // Paused time: a minute passes as soon as nothing else can happen.
    #[tokio::test(start_paused = true)]
    async fn a_single_shard_that_does_not_turn_keeps_the_watchdog_unfed() {
        let (own, heard) = UnixDatagram::pair().unwrap();
        heard.set_nonblocking(true).unwrap();
        let fed = || heard.recv(&mut [0; 64]).is_ok();
        let mut ports = bus::connect::<ShardMessage>(2, 1).unwrap();
        let interval = Some(Duration::from_secs(10));
        let manager = Arc::new(ServiceManager { socket: Some(own), interval });
        tokio::spawn(manager.watch(ports[0].outside()));

        sleep(Duration::from_secs(1)).await;
        assert!(answer(&mut ports[0]));
        sleep(Duration::from_secs(60)).await;
        assert!(!fed(), "one of two has answered");
        assert!(answer(&mut ports[1]));
        sleep(Duration::from_secs(1)).await;
        assert!(fed(), "both have");
        assert!(!fed(), "once");

        sleep(Duration::from_secs(10)).await;
        assert!(answer(&mut ports[0]) && answer(&mut ports[1]), "asked again");
        sleep(Duration::from_secs(1)).await;
        assert!(fed());
    }

    fn answer(port: &mut Port<ShardMessage>) -> bool {
        match port.receive() {
            Some(ShardMessage::RollCall(present)) => present.send(()).is_ok(),
            _ => false,
        }
    }
}
