//! The reasons for which a host cannot run Ringwave, each with its remedy.

use crate::server::limits::size;

/// A feature that Ringwave needs, and the kernel that first had it (man pages of io_uring).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Requirement {
    /// The name of the feature in the man pages.
    pub(crate) name: &'static str,
    /// The Linux release.
    pub(crate) since: &'static str,
}

/// The oldest kernel that is supported: 6.1 brought `IORING_SETUP_DEFER_TASKRUN`.
pub(crate) const KERNEL_FLOOR: (u32, u32) = (6, 1);

/// The reason for which this host cannot run Ringwave. `Display` is one sentence about the fault;
/// [`remedy`](Self::remedy) is one about what to do. `linux` is the kernel as sentences name it,
/// `call` the system call that failed, and `errno` its error number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostError {
    #[error("{linux} is too old: Ringwave needs {}.{}.", KERNEL_FLOOR.0, KERNEL_FLOOR.1)]
    KernelTooOld { linux: String },
    #[error("io_uring is disabled on this host by kernel.io_uring_disabled=2.")]
    Disabled,
    #[error(
        "io_uring is reserved on this host by kernel.io_uring_disabled=1: this process has no \
         CAP_SYS_ADMIN and is not in the group of kernel.io_uring_group={allowed_group}."
    )]
    Reserved { allowed_group: i64, own_group: u32 },
    #[error(
        "{call} is blocked by the container's seccomp profile ({}, and Seccomp: 2 in \
         /proc/self/status).",
        errno_name(*errno)
    )]
    Seccomp { call: &'static str, errno: i32 },
    #[error(
        "io_uring_setup is refused ({}), by neither kernel.io_uring_disabled nor seccomp: a \
         security module or a sandbox forbids it.",
        errno_name(*errno)
    )]
    SecurityModule { errno: i32 },
    #[error(
        "io_uring_setup rejects even a plain ring (EINVAL): the io_uring of {linux} is incomplete."
    )]
    Incomplete { linux: String },
    #[error("{linux} lacks {}, which came with Linux {}.", missing.name, missing.since)]
    Lacks { linux: String, missing: Requirement },
    #[error("{linux} was built without io_uring ({call}: ENOSYS).")]
    NotBuiltIn { linux: String, call: &'static str },
    #[error(
        "No file descriptor is left for a ring ({call}: {}, nofile {nofile}).",
        errno_name(*errno)
    )]
    NoDescriptor { call: &'static str, errno: i32, nofile: u64 },
    /// The sizes are in bytes, and `None` if they are unknown or unlimited.
    /// `charged`: this kernel counts rings against `memlock`.
    #[error(
        "The kernel has no memory for a ring ({call}: ENOMEM): memlock {}, available {}, control \
         group {}.",
        size(Some(*memlock)),
        available.map_or_else(|| "unknown".to_owned(), |bytes| size(Some(bytes))),
        size(*memory_limit)
    )]
    NoMemory {
        call: &'static str,
        memlock: u64,
        available: Option<u64>,
        memory_limit: Option<u64>,
        charged: bool,
    },
    #[error(
        "No table for {slots} connections per shard (io_uring_register: EMFILE): the limit of open \
         files is {nofile}."
    )]
    NoTable { slots: u32, nofile: u64 },
    #[error(
        "The limit of open files (nofile) is {nofile}; {shards} shards need at least {needed}."
    )]
    TooFewDescriptors { nofile: u64, shards: usize, needed: u64 },
    #[error("This is a gVisor sandbox ({linux}), which lacks io_uring.")]
    Gvisor { linux: String },
    #[error("{call} failed on {linux} ({}).", errno_name(*errno))]
    Failed { linux: String, call: &'static str, errno: i32 },
}

impl HostError {
    /// The exit code, `EX_CONFIG` of sysexits(3), by which a supervisor knows that a restart does
    /// not help.
    pub(crate) const EXIT_CODE: u8 = 78;

    /// The remedy, in one sentence.
    #[must_use]
    pub(crate) fn remedy(&self) -> String {
        let text = match self {
            Self::KernelTooOld { .. } | Self::Incomplete { .. } | Self::Lacks { .. } => {
                NEWER_KERNEL
            }
            Self::NotBuiltIn { .. } => {
                return format!("{NEWER_KERNEL} They are built with CONFIG_IO_URING=y.");
            }
            Self::Disabled => return format!("{ENABLE}; {KEEP}"),
            Self::Reserved { own_group, .. } => {
                return format!(
                    "As root on the host: sysctl -w kernel.io_uring_group={own_group} (the group \
                     of this process), or sysctl -w kernel.io_uring_disabled=0; {KEEP}"
                );
            }
            Self::Seccomp { .. } => OTHER_PROFILE,
            Self::SecurityModule { .. } => OTHER_POLICY,
            Self::NoDescriptor { .. } | Self::NoTable { .. } | Self::TooFewDescriptors { .. } => {
                RAISE_NOFILE
            }
            Self::NoMemory { charged: true, .. } => RAISE_MEMLOCK,
            Self::NoMemory { charged: false, .. } => FREE_MEMORY,
            Self::Gvisor { .. } => OTHER_SANDBOX,
            Self::Failed { .. } => UPDATE_KERNEL,
        };
        text.to_owned()
    }
}

/// The name of an error number, which is what an operator searches for.
fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::EPERM => "EPERM",
        libc::EACCES => "EACCES",
        libc::ENOSYS => "ENOSYS",
        libc::EINVAL => "EINVAL",
        libc::ENOMEM => "ENOMEM",
        libc::EMFILE => "EMFILE",
        libc::ENFILE => "ENFILE",
        libc::EFAULT => "EFAULT",
        libc::EAGAIN => "EAGAIN",
        libc::EBUSY => "EBUSY",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        _ => return format!("errno {errno}"),
    };
    name.to_owned()
}

const NEWER_KERNEL: &str = "Boot Linux 6.1 or newer: Debian 12, Ubuntu 24.04, Amazon Linux 2023, \
                            RHEL 10 and all later ones have it.";

const ENABLE: &str = "As root on the host: sysctl -w kernel.io_uring_disabled=0";

const KEEP: &str = "a line in /etc/sysctl.d/ keeps it.";

const OTHER_PROFILE: &str = "Start the container with --security-opt seccomp=seccomp.json (in \
                             tuning/ of Ringwave's source), or with another profile that allows \
                             io_uring_setup, io_uring_enter and io_uring_register; under systemd, \
                             add @aio to SystemCallFilter=.";

const OTHER_POLICY: &str = "Find the denial (dmesg, ausearch -m avc) and allow io_uring to this \
                            process in that policy (SELinux: class io_uring, permission allowed).";

const OTHER_SANDBOX: &str = "Run Ringwave where the kernel is Linux itself: a virtual machine, or \
                             a container of runc or crun.";

const RAISE_MEMLOCK: &str = "Raise memlock: ulimit -l unlimited, LimitMEMLOCK=infinity (systemd) \
                             or --ulimit memlock=-1 (Docker); Linux 5.12 and newer do not count \
                             rings against it.";

const FREE_MEMORY: &str = "Free memory, or raise the limit of the control group: MemoryMax= \
                           (systemd) or --memory (Docker); memlock does not matter on this kernel.";

const UPDATE_KERNEL: &str = "Update the kernel to the newest release of its series; if it stays, \
                             report this line.";

const RAISE_NOFILE: &str =
    "Raise it: ulimit -n 65536, LimitNOFILE=65536 (systemd) or --ulimit nofile=65536 (Docker).";
