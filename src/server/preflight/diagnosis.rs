//! Finds the reason for a failed probe in the facts about the host. Pure: the same facts give the same
//! reason, so that the table of reasons is a table of tests.

use super::clues::Clues;
use super::error::{HostError, KERNEL_FLOOR, Requirement};
use super::ring::ProbeFailure;

/// The reason for which the kernel refused a ring.
pub(super) fn explain(failure: &ProbeFailure, clues: &Clues) -> HostError {
    let linux = clues.linux();
    if clues.is_gvisor() {
        return HostError::Gvisor { linux };
    }
    match *failure {
        ProbeFailure::Setup { errno: libc::EPERM, .. } => not_permitted(clues),
        ProbeFailure::Setup { errno: libc::EINVAL, unknown: Some(missing) }
        | ProbeFailure::Feature(missing)
        | ProbeFailure::Opcode(missing) => HostError::Lacks { linux, missing },
        ProbeFailure::Setup { errno: libc::EINVAL, unknown: None } => {
            HostError::Incomplete { linux }
        }
        ProbeFailure::Setup { errno, .. } => call_failed("io_uring_setup", errno, clues),
        ProbeFailure::Call { call, errno } => call_failed(call, errno, clues),
        ProbeFailure::Table { slots, errno: libc::EMFILE } => {
            HostError::NoTable { slots, nofile: clues.nofile }
        }
        ProbeFailure::Table { errno: libc::EINVAL, .. } => {
            let missing = Requirement { name: "IORING_RSRC_REGISTER_SPARSE", since: "5.19" };
            HostError::Lacks { linux, missing }
        }
        ProbeFailure::Table { errno, .. } => call_failed("io_uring_register", errno, clues),
    }
}

/// The error if the kernel is older than [`KERNEL_FLOOR`]. `None` if it is not, or if its release is
/// no number, in which case the probe decides. The release of gVisor says nothing about its age.
pub(super) fn kernel_too_old(clues: &Clues) -> Option<HostError> {
    if clues.is_gvisor() || clues.version()? >= KERNEL_FLOOR {
        return None;
    }
    Some(HostError::KernelTooOld { linux: clues.linux() })
}

/// EPERM of `io_uring_setup` comes from the sysctl, a seccomp filter or a security module. They are
/// tried in the order in which they can be distinguished (`io_uring_allowed()` of the kernel).
fn not_permitted(clues: &Clues) -> HostError {
    let exempt = clues.status.is_admin() || clues.in_io_uring_group();
    match clues.io_uring_disabled {
        Some(2) => HostError::Disabled,
        Some(1) if !exempt => reserved(clues),
        _ if clues.is_filtered() => {
            HostError::Seccomp { call: "io_uring_setup", errno: libc::EPERM }
        }
        // CAP_SYS_ADMIN in a user namespace shows here, but the sysctl does not accept it.
        Some(1) => reserved(clues),
        _ => HostError::SecurityModule { errno: libc::EPERM },
    }
}

fn reserved(clues: &Clues) -> HostError {
    HostError::Reserved {
        allowed_group: clues.io_uring_group.unwrap_or(-1),
        own_group: clues.status.groups.first().copied().unwrap_or_default(),
    }
}

fn call_failed(call: &'static str, errno: i32, clues: &Clues) -> HostError {
    let linux = clues.linux();
    match errno {
        libc::EPERM | libc::EACCES | libc::ENOSYS if clues.is_filtered() => {
            HostError::Seccomp { call, errno }
        }
        libc::EPERM | libc::EACCES => HostError::SecurityModule { errno },
        libc::ENOSYS => kernel_too_old(clues).unwrap_or(HostError::NotBuiltIn { linux, call }),
        libc::ENOMEM => HostError::NoMemory {
            call,
            memlock: clues.memlock,
            available: clues.memory_available,
            memory_limit: clues.memory_limit,
            // io_uring_setup(2): until 5.12 rings are charged against RLIMIT_MEMLOCK.
            charged: clues.version().is_some_and(|version| version < (5, 12)),
        },
        libc::EMFILE | libc::ENFILE => {
            HostError::NoDescriptor { call, errno, nofile: clues.nofile }
        }
        _ => HostError::Failed { linux, call, errno },
    }
}
