//! The facts about a host by which the causes of a failed probe are distinguished.

use std::fs;

use crate::server::limits::{self, ResourceLimit};
use crate::server::proc_status::ProcStatus;

/// The facts about a host. A fact that the host does not reveal is `None`, empty or 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Clues {
    /// `uname -r`.
    pub(super) release: String,
    /// `uname -v`.
    pub(super) build: String,
    /// The facts about this process.
    pub(super) status: ProcStatus,
    /// `kernel.io_uring_disabled`.
    pub(super) io_uring_disabled: Option<i64>,
    /// `kernel.io_uring_group`; -1 is no group.
    pub(super) io_uring_group: Option<i64>,
    /// Open files, soft.
    pub(super) nofile: u64,
    /// Locked memory in bytes, soft.
    pub(super) memlock: u64,
    /// `MemAvailable` in bytes.
    pub(super) memory_available: Option<u64>,
    /// The limit of the control group in bytes.
    pub(super) memory_limit: Option<u64>,
}

impl Clues {
    /// Reads them from this host.
    pub(super) fn read() -> Self {
        let uname = rustix::system::uname();
        Self {
            release: uname.release().to_string_lossy().into_owned(),
            build: uname.version().to_string_lossy().into_owned(),
            status: ProcStatus::read(),
            io_uring_disabled: limits::sysctl("kernel/io_uring_disabled"),
            io_uring_group: limits::sysctl("kernel/io_uring_group"),
            nofile: ResourceLimit::nofile().soft,
            memlock: ResourceLimit::memlock().soft,
            memory_available: fs::read_to_string("/proc/meminfo")
                .ok()
                .as_deref()
                .and_then(available),
            memory_limit: limits::memory_limit(),
        }
    }

    /// Major and minor number of the release; `None` when it does not start with them.
    pub(super) fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit());
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    /// The kernel, as sentences name it.
    pub(super) fn linux(&self) -> String {
        format!("Linux {}", self.release)
    }

    /// Whether a seccomp filter applies to this process.
    pub(super) fn is_filtered(&self) -> bool {
        self.status.seccomp == Some(2)
    }

    /// Whether this process is in the group of `kernel.io_uring_group`.
    pub(super) fn in_io_uring_group(&self) -> bool {
        let group = self.io_uring_group.and_then(|gid| u32::try_from(gid).ok());
        group.is_some_and(|gid| self.status.groups.contains(&gid))
    }

    /// Whether the kernel is gVisor's. Its releases (4.4.0, 4.19.0-gvisor) all have the build
    /// date of the Linux 4.4 whose interface it copied (`pkg/sentry/syscalls/linux` of gVisor).
    pub(super) fn is_gvisor(&self) -> bool {
        self.release.contains("gvisor") || self.build.contains("Sun Jan 10 15:06:54 PST 2016")
    }
}

/// `MemAvailable` of `/proc/meminfo` in bytes.
pub(super) fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}
