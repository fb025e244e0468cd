//! From a refusal and what the host says of itself to the cause and its remedy. Pure: the same
//! answers give the same two lines, so that the whole table of causes is a table of tests.

use super::ring::{Refusal, Requirement};
use super::{Clues, HostError, KERNEL_FLOOR, Stage};
use crate::server::limits;

/// The step of the probe that a refusal belongs to.
pub(super) const fn stage(refusal: &Refusal) -> Stage {
    match refusal {
        Refusal::Setup { .. } | Refusal::Call { .. } => Stage::Ring,
        Refusal::Feature(_) => Stage::Features,
        Refusal::Opcode(_) => Stage::Opcodes,
        Refusal::Table { .. } => Stage::Table,
    }
}

/// Why the kernel refused, in one line, and what mends it, in another.
pub(super) fn explain(refusal: &Refusal, clues: &Clues) -> HostError {
    if clues.is_gvisor() {
        return gvisor(clues);
    }
    match *refusal {
        Refusal::Setup { errno: libc::EPERM, .. } => not_permitted(clues),
        Refusal::Setup { errno: libc::EINVAL, unknown } => rejected(unknown, clues),
        Refusal::Setup { errno, .. } => call_failed("io_uring_setup", errno, clues),
        Refusal::Call { call, errno } => call_failed(call, errno, clues),
        Refusal::Feature(missing) | Refusal::Opcode(missing) => lacks(missing, clues),
        Refusal::Table { slots, errno } => no_table(slots, errno, clues),
    }
}

/// The kernel is older than [`KERNEL_FLOOR`]; none when it is not, or when its release is no
/// number (then the ring itself decides). gVisor's release says nothing about its age.
pub(super) fn kernel_too_old(clues: &Clues) -> Option<HostError> {
    if clues.is_gvisor() || clues.version()? >= KERNEL_FLOOR {
        return None;
    }
    let (major, minor) = KERNEL_FLOOR;
    Some(HostError {
        cause: format!("{} is too old: Ringwave needs {major}.{minor}.", clues.linux()),
        remedy: NEWER_KERNEL.to_owned(),
    })
}

/// EPERM of `io_uring_setup`: the sysctl, a seccomp filter or a security module, in the order in
/// which they can be told apart (`io_uring_allowed()` of the kernel).
fn not_permitted(clues: &Clues) -> HostError {
    let exempt = clues.status.is_admin() || clues.in_io_uring_group();
    match clues.io_uring_disabled {
        Some(2) => HostError {
            cause: "io_uring is disabled on this host by kernel.io_uring_disabled=2.".to_owned(),
            remedy: format!("As root on the host: sysctl -w kernel.io_uring_disabled=0; {KEEP}"),
        },
        Some(1) if !exempt => reserved(clues),
        _ if clues.is_filtered() => filtered("io_uring_setup", "EPERM"),
        // CAP_SYS_ADMIN in a user namespace shows here but does not count there.
        Some(1) => reserved(clues),
        _ => refused_by_module("EPERM"),
    }
}

fn reserved(clues: &Clues) -> HostError {
    let group = clues.io_uring_group.unwrap_or(-1);
    let own = clues.status.groups.first().copied().unwrap_or_default();
    HostError {
        cause: format!(
            "io_uring is reserved on this host by kernel.io_uring_disabled=1: this process has no \
             CAP_SYS_ADMIN and is not in the group of kernel.io_uring_group={group}."
        ),
        remedy: format!(
            "As root on the host: sysctl -w kernel.io_uring_group={own} (the group of this \
             process), or sysctl -w kernel.io_uring_disabled=0; {KEEP}"
        ),
    }
}

fn filtered(call: &str, errno: &str) -> HostError {
    HostError {
        cause: format!(
            "{call} is blocked by the container's seccomp profile ({errno}, and Seccomp: 2 in \
             /proc/self/status)."
        ),
        remedy: "Start the container with --security-opt seccomp=seccomp.json (in tuning/ of \
                 Ringwave's source), or with another profile that allows io_uring_setup, \
                 io_uring_enter and io_uring_register; under systemd, add @aio to SystemCallFilter=."
            .to_owned(),
    }
}

fn refused_by_module(errno: &str) -> HostError {
    HostError {
        cause: format!(
            "io_uring_setup is refused ({errno}), by neither kernel.io_uring_disabled nor seccomp: \
             a security module or a sandbox forbids it."
        ),
        remedy: "Find the denial (dmesg, ausearch -m avc) and allow io_uring to this process in \
                 that policy (SELinux: class io_uring, permission allowed)."
            .to_owned(),
    }
}

fn rejected(unknown: Option<Requirement>, clues: &Clues) -> HostError {
    unknown.map_or_else(
        || HostError {
            cause: format!(
                "io_uring_setup rejects even a plain ring (EINVAL): the io_uring of {} is \
                 incomplete.",
                clues.linux()
            ),
            remedy: NEWER_KERNEL.to_owned(),
        },
        |missing| lacks(missing, clues),
    )
}

fn lacks(missing: Requirement, clues: &Clues) -> HostError {
    let Requirement { name, since } = missing;
    HostError {
        cause: format!("{} lacks {name}, which came with Linux {since}.", clues.linux()),
        remedy: NEWER_KERNEL.to_owned(),
    }
}

fn call_failed(call: &'static str, errno: i32, clues: &Clues) -> HostError {
    match errno {
        libc::EPERM | libc::EACCES | libc::ENOSYS if clues.is_filtered() => {
            filtered(call, &errno_name(errno))
        }
        libc::EPERM | libc::EACCES => refused_by_module(&errno_name(errno)),
        libc::ENOSYS => kernel_too_old(clues).unwrap_or_else(|| HostError {
            cause: format!("{} was built without io_uring ({call}: ENOSYS).", clues.linux()),
            remedy: format!("{NEWER_KERNEL} They are built with CONFIG_IO_URING=y."),
        }),
        libc::ENOMEM => no_memory(call, clues),
        libc::EMFILE | libc::ENFILE => HostError {
            cause: format!(
                "No file descriptor is left for a ring ({call}: {}, nofile {}).",
                errno_name(errno),
                clues.nofile
            ),
            remedy: RAISE_NOFILE.to_owned(),
        },
        _ => HostError {
            cause: format!("{call} failed on {} ({}).", clues.linux(), errno_name(errno)),
            remedy: "Update the kernel to the newest release of its series; if it stays, report \
                     this line."
                .to_owned(),
        },
    }
}

fn no_memory(call: &str, clues: &Clues) -> HostError {
    let cause = format!(
        "The kernel has no memory for a ring ({call}: ENOMEM): memlock {}, available {}, control \
         group {}.",
        limits::size(Some(clues.memlock)),
        clues
            .memory_available
            .map_or_else(|| "unknown".to_owned(), |bytes| limits::size(Some(bytes))),
        limits::size(clues.memory_limit),
    );
    // io_uring_setup(2): until 5.12 rings are charged against RLIMIT_MEMLOCK.
    let charged = clues.version().is_some_and(|version| version < (5, 12));
    let remedy = match charged {
        true => {
            "Raise memlock: ulimit -l unlimited, LimitMEMLOCK=infinity (systemd) or --ulimit \
                 memlock=-1 (Docker); Linux 5.12 and newer do not count rings against it."
        }
        false => {
            "Free memory, or raise the limit of the control group: MemoryMax= (systemd) or \
                  --memory (Docker); memlock does not matter on this kernel."
        }
    };
    HostError { cause, remedy: remedy.to_owned() }
}

fn no_table(slots: u32, errno: i32, clues: &Clues) -> HostError {
    match errno {
        libc::EMFILE => HostError {
            cause: format!(
                "No table for {slots} connections per shard (io_uring_register: EMFILE): the limit \
                 of open files is {}.",
                clues.nofile
            ),
            remedy: RAISE_NOFILE.to_owned(),
        },
        libc::EINVAL => {
            lacks(Requirement { name: "IORING_RSRC_REGISTER_SPARSE", since: "5.19" }, clues)
        }
        _ => call_failed("io_uring_register", errno, clues),
    }
}

fn gvisor(clues: &Clues) -> HostError {
    HostError {
        cause: format!("This is a gVisor sandbox ({}), which lacks io_uring.", clues.linux()),
        remedy: "Run Ringwave where the kernel is Linux itself: a virtual machine, or a container \
                 of runc or crun."
            .to_owned(),
    }
}

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

const KEEP: &str = "a line in /etc/sysctl.d/ keeps it.";

pub(super) const RAISE_NOFILE: &str =
    "Raise it: ulimit -n 65536, LimitNOFILE=65536 (systemd) or --ulimit nofile=65536 (Docker).";
