//! The reason for which the server cannot start or go on, as the operator reads it.

use std::io;

use crate::cluster::ClusterError;
use crate::text::WithCauses;
use crate::webhooks::WorkerError;

use super::listen::{InheritedError, ListenError};
use super::monitor::MonitorError;
use super::preflight::HostError;
use super::shards::{RAISE_LIMITS, RUN_DOCTOR, ShardError};

/// The reason for which the server cannot start or go on. `Display` says what failed, the sources
/// say why, and [`advice`](Self::advice) says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    #[error(transparent)]
    Inherited(#[from] InheritedError),
    #[error("cannot start the thread of the log")]
    Log(#[source] io::Error),
    /// The runtime of the control thread, or its signals.
    #[error("cannot start the control thread")]
    Control(#[source] io::Error),
    #[error("cannot make the mailboxes of the shards")]
    Mailboxes(#[source] io::Error),
    #[error(transparent)]
    Webhooks(#[from] WorkerError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Shard(#[from] ShardError),
}

impl StartError {
    /// The exit code of the process.
    pub(super) const fn exit_code(&self) -> u8 {
        match self {
            Self::Shard(error) if error.is_bug() => EXIT_SOFTWARE,
            _ => EXIT_HOST,
        }
    }

    /// The text for the operator: a line that says what failed and why, and a line that says what
    /// to do, unless the first one does.
    pub(super) fn text(&self) -> String {
        match self.advice() {
            Some(advice) => format!("{}\n{advice}", WithCauses(self)),
            None => format!("{}.", WithCauses(self)),
        }
    }

    fn advice(&self) -> Option<String> {
        let text = match self {
            Self::Host(error) => return Some(error.remedy()),
            Self::Listen(error) => return Some(error.advice()),
            Self::Inherited(error) => error.advice(),
            Self::Monitor(_) => {
                "Another process may use the port: `ss -ltnp` shows which. Or choose another \
                 address for admin.listen (--admin)."
            }
            Self::Log(_) | Self::Control(_) | Self::Mailboxes(_) => RAISE_LIMITS,
            Self::Webhooks(WorkerError::Thread(_)) => RAISE_LIMITS,
            Self::Webhooks(WorkerError::Ring(_)) => RUN_DOCTOR,
            Self::Webhooks(WorkerError::Spool(_)) => {
                "server.webhook_spool has to be a directory that this user may write to and that \
                 no other process uses."
            }
            Self::Cluster(ClusterError::Redis(_)) => return None,
            Self::Cluster(ClusterError::Thread(_) | ClusterError::Random(_)) => RAISE_LIMITS,
            Self::Shard(error) => error.advice(),
        };
        Some(text.to_owned())
    }
}

/// The host or its configuration does not allow to serve (`EX_CONFIG` of sysexits(3)).
const EXIT_HOST: u8 = HostError::EXIT_CODE;

/// A bug in Ringwave (`EX_SOFTWARE`).
const EXIT_SOFTWARE: u8 = 70;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ShardId;

    #[test]
    fn a_failure_is_told_with_its_cause_and_with_what_to_do() {
        let cause = || io::Error::from_raw_os_error(libc::EAGAIN);
        let error = StartError::from(ShardError::Thread(ShardId(3), cause()));
        let expected = format!(
            "cannot start the thread of shard 3: resource temporarily unavailable\n{RAISE_LIMITS}"
        );
        assert_eq!((error.text(), error.exit_code()), (expected, EXIT_HOST));
        let error = StartError::from(ShardError::Panicked(ShardId(0)));
        assert!(error.text().contains("please report it"));
        assert_eq!(error.exit_code(), EXIT_SOFTWARE);
    }
}
