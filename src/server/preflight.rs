//! Floor 8. Checks that this host can run Ringwave, before anything else starts, so that a ring
//! that cannot be created ends in one line with the cause and one with the remedy.
//!
//! There is no fallback to epoll: it would be a second data plane to maintain, and benchmarks would
//! measure it without notice.
//!
//! Order of use: [`raise_nofile`](super::limits::raise_nofile), then [`check`] (or
//! [`HostSurvey::take`], which reports instead of refusing), then [`HostSurvey::holds`] with the
//! number of shards.

mod clues;
mod diagnosis;
mod error;
mod ring;
#[cfg(test)]
mod tests;

use super::limits::{self, ResourceLimit};
use super::tcp_memory::TcpMemory;

use clues::Clues;
pub(crate) use error::{HostError, KERNEL_FLOOR};
pub(crate) use ring::ProbeStep;

/// The properties of the host that Ringwave depends on. A value that the host does not reveal
/// is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostSurvey {
    /// The kernel's release, as `uname -r` prints it.
    pub(crate) kernel: String,
    /// The error if the kernel is older than [`KERNEL_FLOOR`].
    pub(crate) kernel_too_old: Option<HostError>,
    /// The number of cores that this process may use.
    pub(crate) cores: usize,
    /// The limit of open files.
    pub(crate) nofile: ResourceLimit,
    /// The limit of locked memory in bytes. Rings do not count against it since Linux 5.12.
    pub(crate) memlock: ResourceLimit,
    /// The memory limit of the control group in bytes; `None`: no limit.
    pub(crate) memory_limit: Option<u64>,
    /// `net.core.somaxconn`: the longest queue of connections that wait to be accepted.
    pub(crate) somaxconn: Option<i64>,
    /// `net.ipv4.tcp_max_syn_backlog`: the most connections in their TCP handshake.
    pub(crate) syn_backlog: Option<i64>,
    /// The memory that TCP holds in all queues of the host, and its limit.
    pub(crate) tcp_memory: Option<TcpMemory>,
    /// `net.core.wmem_max`: the largest send buffer that a program may set on a socket, in bytes.
    pub(crate) send_buffer_max: Option<i64>,
    /// The number of local ports that a proxy on this host can choose from.
    pub(crate) local_ports: Option<u64>,
    /// The mode of seccomp (`/proc/self/status`): 0 off, 1 strict, 2 filter.
    pub(crate) seccomp: Option<u8>,
    /// `kernel.io_uring_disabled`; `None` before Linux 6.6, where it is always enabled.
    pub(crate) io_uring_disabled: Option<i64>,
    /// The length of the fixed file table that was tried.
    pub(crate) slots: u32,
    /// Whether a ring with the flags, features, operations and table of a shard can be created; if
    /// not, the step that failed and why.
    pub(crate) uring: Result<(), (ProbeStep, HostError)>,
}

/// The first kernel whose file tables release a socket at once.
const DIRECT_DESCRIPTORS: (u32, u32) = (6, 13);

/// Surveys the host, and returns its properties if they are enough.
///
/// # Errors
/// Returns the first reason for which Ringwave cannot run here.
pub(crate) fn check() -> Result<HostSurvey, HostError> {
    let host = HostSurvey::take();
    host.verdict()?;
    Ok(host)
}

impl HostSurvey {
    /// Surveys the host and tries a ring, which is gone on return. Takes a few milliseconds.
    #[must_use]
    pub(crate) fn take() -> Self {
        let clues = Clues::read();
        let nofile = ResourceLimit::nofile();
        let places = limits::places_per_shard(nofile.soft, None);
        let slots = limits::table_len(nofile.soft, places);
        let uring = ring::probe(slots)
            .map_err(|failure| (failure.step(), diagnosis::explain(&failure, &clues)));
        Self {
            kernel_too_old: diagnosis::kernel_too_old(&clues),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            nofile,
            memlock: ResourceLimit::memlock(),
            memory_limit: clues.memory_limit,
            somaxconn: limits::sysctl("net/core/somaxconn"),
            syn_backlog: limits::sysctl("net/ipv4/tcp_max_syn_backlog"),
            tcp_memory: TcpMemory::read(),
            send_buffer_max: limits::sysctl("net/core/wmem_max"),
            local_ports: limits::local_ports(),
            seccomp: clues.status.seccomp,
            io_uring_disabled: clues.io_uring_disabled,
            slots,
            uring,
            kernel: clues.release,
        }
    }

    /// Whether sockets can live in a ring's own file table. Before Linux 6.13 one that leaves the
    /// table stays open while any older request of the ring is pending (axboe/liburing#1192).
    #[must_use]
    pub(crate) fn direct_descriptors(&self) -> bool {
        let clues = Clues { release: self.kernel.clone(), ..Clues::default() };
        clues.version().is_some_and(|version| version >= DIRECT_DESCRIPTORS)
    }

    /// Checks that Ringwave runs here.
    ///
    /// # Errors
    /// Returns the first reason against it. An old kernel comes first, because all other failures
    /// follow from it.
    pub(crate) fn verdict(&self) -> Result<(), HostError> {
        if let Some(old) = &self.kernel_too_old {
            return Err(old.clone());
        }
        self.uring.clone().map_err(|(_, error)| error)
    }

    /// Checks that the limit of open files is enough for this number of shards.
    ///
    /// # Errors
    /// The limit is too low for their rings and listeners.
    pub(crate) fn holds(&self, shards: usize) -> Result<(), HostError> {
        let needed = limits::descriptors_min(shards);
        if self.nofile.soft >= needed {
            return Ok(());
        }
        Err(HostError::TooFewDescriptors { nofile: self.nofile.soft, shards, needed })
    }
}
