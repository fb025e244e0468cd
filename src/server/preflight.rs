//! Floor 7. Can this host run Ringwave? Asked before anything else starts, because a ring that
//! cannot be created must end in one line of cause and one of remedy, never in a backtrace.
//!
//! There is no fallback to epoll: it would be a second data plane to be proven, and benchmarks
//! would measure the wrong one without notice.
//!
//! Order of use: [`raise_nofile`](super::limits::raise_nofile), then [`check`] (or
//! [`Host::survey`], which reports instead of refusing), then [`Host::holds`] with the number of
//! shards.

mod diagnosis;
mod ring;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;

use super::limits::{self, Limit};
use super::status::Status;
use super::tcp_memory::TcpMemory;

/// The properties of the host that Ringwave depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// The kernel's release, as `uname -r` prints it.
    pub(crate) kernel: String,
    /// The kernel is older than [`KERNEL_FLOOR`].
    pub(crate) kernel_too_old: Option<HostError>,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Open files.
    pub(crate) nofile: Limit,
    /// Locked memory in bytes. Rings do not count against it since Linux 5.12.
    pub(crate) memlock: Limit,
    /// Memory limit of the control group in bytes; `None`: no limit.
    pub(crate) memory_limit: Option<u64>,
    /// `net.core.somaxconn`: the longest queue of connections that wait to be accepted.
    pub(crate) somaxconn: Option<i64>,
    /// `net.ipv4.tcp_max_syn_backlog`: connections in their TCP handshake.
    pub(crate) syn_backlog: Option<i64>,
    /// The memory that TCP holds in all queues of the host, and its limit.
    pub(crate) tcp_memory: Option<TcpMemory>,
    /// `net.core.wmem_max`: the largest send buffer that a program may set on a socket, in bytes.
    pub(crate) send_buffer_max: Option<i64>,
    /// Local ports that a proxy on this host can choose from.
    pub(crate) local_ports: Option<u64>,
    /// Mode in `/proc/self/status`: 0 off, 1 strict, 2 filter.
    pub(crate) seccomp: Option<u8>,
    /// `kernel.io_uring_disabled`; `None` before Linux 6.6, where it is always enabled.
    pub(crate) io_uring_disabled: Option<i64>,
    /// Length of the fixed file table that was tried.
    pub(crate) slots: u32,
    /// Whether a ring with the flags, features, operations and table of a shard can be created, and
    /// the step that failed.
    pub(crate) uring: Result<(), (Stage, HostError)>,
}

/// The steps of trying a ring, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Creating and entering it.
    Ring,
    /// Features of the kernel's `io_uring`.
    Features,
    /// Operations.
    Opcodes,
    /// The fixed file table.
    Table,
}

/// Why this host cannot run Ringwave. `Display` is two lines, the cause and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostError {
    /// The fault, in one sentence.
    pub(crate) cause: String,
    /// The remedy, in one sentence.
    pub(crate) remedy: String,
}

impl HostError {
    /// `EX_CONFIG` of sysexits(3): the process ends with it, so that a supervisor need not retry.
    pub(crate) const EXIT_CODE: u8 = 78;
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.cause, self.remedy)
    }
}

impl std::error::Error for HostError {}

/// The oldest kernel: 6.1 brought `IORING_SETUP_DEFER_TASKRUN`, 6.0 the multishot receive.
pub(crate) const KERNEL_FLOOR: (u32, u32) = (6, 1);

/// The first kernel whose file tables let go of a socket at once.
const DIRECT_DESCRIPTORS: (u32, u32) = (6, 13);

/// Surveys the host, and returns its properties if they are enough.
///
/// # Errors
/// The first cause that keeps Ringwave from running here.
pub(crate) fn check() -> Result<Host, HostError> {
    let host = Host::survey();
    host.verdict()?;
    Ok(host)
}

impl Host {
    /// Looks at the host and tries a ring. Takes a few milliseconds; leaves nothing behind.
    #[must_use]
    pub(crate) fn survey() -> Self {
        let clues = Clues::read();
        let nofile = Limit::nofile();
        let slots = limits::slots_per_shard(nofile.soft, None);
        let uring = ring::probe(slots)
            .map_err(|refusal| (diagnosis::stage(&refusal), diagnosis::explain(&refusal, &clues)));
        Self {
            kernel_too_old: diagnosis::kernel_too_old(&clues),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            nofile,
            memlock: Limit::memlock(),
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

    /// Whether Ringwave runs here. An old kernel comes first: whatever else fails follows from it.
    ///
    /// # Errors
    /// The first cause against it.
    pub(crate) fn verdict(&self) -> Result<(), HostError> {
        if let Some(old) = &self.kernel_too_old {
            return Err(old.clone());
        }
        self.uring.clone().map_err(|(_, error)| error)
    }

    /// Whether the limit of open files has room for `shards` shards.
    ///
    /// # Errors
    /// The limit has no such room: shards could not open their rings and listeners.
    pub(crate) fn holds(&self, shards: usize) -> Result<(), HostError> {
        let needed = limits::descriptors_min(shards);
        if self.nofile.soft >= needed {
            return Ok(());
        }
        Err(HostError {
            cause: format!(
                "The limit of open files (nofile) is {}; {shards} shards need at least {needed}.",
                self.nofile.soft
            ),
            remedy: diagnosis::RAISE_NOFILE.to_owned(),
        })
    }
}

/// Facts about the host that tell the causes of a refusal apart.
#[derive(Clone, Debug, Default)]
struct Clues {
    /// `uname -r`.
    release: String,
    /// `uname -v`.
    build: String,
    status: Status,
    /// `kernel.io_uring_disabled`.
    io_uring_disabled: Option<i64>,
    /// `kernel.io_uring_group`; -1 is no group.
    io_uring_group: Option<i64>,
    /// Open files, soft.
    nofile: u64,
    /// Locked memory in bytes, soft.
    memlock: u64,
    /// `MemAvailable` in bytes.
    memory_available: Option<u64>,
    /// Limit of the control group in bytes.
    memory_limit: Option<u64>,
}

impl Clues {
    fn read() -> Self {
        let uname = rustix::system::uname();
        Self {
            release: uname.release().to_string_lossy().into_owned(),
            build: uname.version().to_string_lossy().into_owned(),
            status: Status::read(),
            io_uring_disabled: limits::sysctl("kernel/io_uring_disabled"),
            io_uring_group: limits::sysctl("kernel/io_uring_group"),
            nofile: Limit::nofile().soft,
            memlock: Limit::memlock().soft,
            memory_available: fs::read_to_string("/proc/meminfo")
                .ok()
                .as_deref()
                .and_then(available),
            memory_limit: limits::memory_limit(),
        }
    }

    /// Major and minor number of the release; `None` when it does not start with them.
    fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    fn linux(&self) -> String {
        format!("Linux {}", self.release)
    }

    fn is_filtered(&self) -> bool {
        self.status.seccomp == Some(2)
    }

    fn in_io_uring_group(&self) -> bool {
        let group = self.io_uring_group.and_then(|gid| u32::try_from(gid).ok());
        group.is_some_and(|gid| self.status.groups.contains(&gid))
    }

    /// gVisor's releases (4.4.0, 4.19.0-gvisor) all carry the date at which it forked the interface
    /// of Linux 4.4 (`pkg/sentry/syscalls/linux` of gVisor).
    fn is_gvisor(&self) -> bool {
        self.release.contains("gvisor") || self.build.contains("Sun Jan 10 15:06:54 PST 2016")
    }
}

/// `MemAvailable` of `/proc/meminfo` in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}
