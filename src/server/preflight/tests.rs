use super::clues::available;
use super::error::Requirement;
use super::ring::ProbeFailure;
use super::*;
use crate::server::proc_status::ProcStatus;

const NEWER: &str = "Boot Linux 6.1 or newer: Debian 12, Ubuntu 24.04, Amazon Linux 2023, RHEL 10 \
                     and all later ones have it.";
const PROFILE: &str = "Start the container with --security-opt seccomp=seccomp.json (in tuning/ of \
                       Ringwave's source), or with another profile that allows io_uring_setup, \
                       io_uring_enter and io_uring_register; under systemd, add @aio to \
                       SystemCallFilter=.";
const POLICY: &str = "Find the denial (dmesg, ausearch -m avc) and allow io_uring to this process \
                      in that policy (SELinux: class io_uring, permission allowed).";
const FILES: &str =
    "Raise it: ulimit -n 65536, LimitNOFILE=65536 (systemd) or --ulimit nofile=65536 (Docker).";

#[test]
fn a_refused_permission_names_who_refuses() {
    let status = "Seccomp:\t2\nGid:\t7\t7\t7\t7\nGroups:\t9\n";
    let filtered = || clues("6.8.0-45-generic", status);
    let plain = || clues("6.8.0-45-generic", "Seccomp:\t0\nGid:\t7\t7\t7\t7\n");
    let admin = || clues("6.8.0-45-generic", "Seccomp:\t0\nCapEff:\t000001ffffffffff\n");
    let reserved = "io_uring is reserved on this host by kernel.io_uring_disabled=1: this process \
                    has no CAP_SYS_ADMIN and is not in the group of kernel.io_uring_group=-1.";
    let group = |gid| {
        format!(
            "As root on the host: sysctl -w kernel.io_uring_group={gid} (the group of this \
             process), or sysctl -w kernel.io_uring_disabled=0; a line in /etc/sysctl.d/ keeps it."
        )
    };
    let module = "io_uring_setup is refused (EPERM), by neither kernel.io_uring_disabled nor \
                  seccomp: a security module or a sandbox forbids it.";
    let blocked = "io_uring_setup is blocked by the container's seccomp profile (EPERM, and \
                   Seccomp: 2 in /proc/self/status).";
    let in_group = Clues { io_uring_group: Some(9), ..filtered() };
    expect(&[
        (
            setup(libc::EPERM),
            Clues { io_uring_disabled: Some(2), ..admin() },
            "io_uring is disabled on this host by kernel.io_uring_disabled=2.",
            "As root on the host: sysctl -w kernel.io_uring_disabled=0; a line in /etc/sysctl.d/ \
             keeps it.",
        ),
        (setup(libc::EPERM), disabled_1(plain()), reserved, &group(7)),
        (setup(libc::EPERM), disabled_1(filtered()), reserved, &group(7)),
        (setup(libc::EPERM), disabled_1(admin()), reserved, &group(0)),
        (setup(libc::EPERM), disabled_1(in_group), blocked, PROFILE),
        (setup(libc::EPERM), Clues { io_uring_disabled: Some(0), ..filtered() }, blocked, PROFILE),
        (setup(libc::EPERM), Clues { io_uring_disabled: Some(0), ..plain() }, module, POLICY),
        (setup(libc::EPERM), admin(), module, POLICY),
        (setup(libc::EACCES), plain(), &module.replace("EPERM", "EACCES"), POLICY),
    ]);
}

#[test]
fn a_missing_call_names_the_filter_the_sandbox_or_the_kernel() {
    let gvisor = Clues {
        build: "#1 SMP Sun Jan 10 15:06:54 PST 2016".to_owned(),
        ..clues("4.4.0", "Seccomp:\t2\n")
    };
    expect(&[
        (
            setup(libc::ENOSYS),
            clues("6.1.0-18-amd64", "Seccomp:\t2\n"),
            "io_uring_setup is blocked by the container's seccomp profile (ENOSYS, and Seccomp: 2 \
             in /proc/self/status).",
            PROFILE,
        ),
        (
            setup(libc::ENOSYS),
            clues("6.6.12", "Seccomp:\t0\n"),
            "Linux 6.6.12 was built without io_uring (io_uring_setup: ENOSYS).",
            &format!("{NEWER} They are built with CONFIG_IO_URING=y."),
        ),
        (
            setup(libc::ENOSYS),
            clues("4.18.0-553.el8", "Seccomp:\t0\n"),
            "Linux 4.18.0-553.el8 is too old: Ringwave needs 6.1.",
            NEWER,
        ),
        (
            setup(libc::ENOSYS),
            gvisor,
            "This is a gVisor sandbox (Linux 4.4.0), which lacks io_uring.",
            "Run Ringwave where the kernel is Linux itself: a virtual machine, or a container of \
             runc or crun.",
        ),
    ]);
}

#[test]
fn a_kernel_without_something_names_it_and_its_release() {
    let kernel = || clues("5.15.0-91-generic", "Seccomp:\t0\n");
    let single_issuer = Requirement { name: "IORING_SETUP_SINGLE_ISSUER", since: "6.0" };
    let shutdown = Requirement { name: "IORING_OP_SHUTDOWN", since: "5.11" };
    let skip = Requirement { name: "IORING_FEAT_CQE_SKIP", since: "5.17" };
    let lacks = "Linux 5.15.0-91-generic lacks ";
    expect(&[
        (
            ProbeFailure::Setup { errno: libc::EINVAL, unknown: Some(single_issuer) },
            kernel(),
            &format!("{lacks}IORING_SETUP_SINGLE_ISSUER, which came with Linux 6.0."),
            NEWER,
        ),
        (
            setup(libc::EINVAL),
            kernel(),
            "io_uring_setup rejects even a plain ring (EINVAL): the io_uring of Linux \
             5.15.0-91-generic is incomplete.",
            NEWER,
        ),
        (
            ProbeFailure::Opcode(shutdown),
            kernel(),
            &format!("{lacks}IORING_OP_SHUTDOWN, which came with Linux 5.11."),
            NEWER,
        ),
        (
            ProbeFailure::Feature(skip),
            kernel(),
            &format!("{lacks}IORING_FEAT_CQE_SKIP, which came with Linux 5.17."),
            NEWER,
        ),
        (
            ProbeFailure::Table { slots: 1024, errno: libc::EINVAL },
            kernel(),
            &format!("{lacks}IORING_RSRC_REGISTER_SPARSE, which came with Linux 5.19."),
            NEWER,
        ),
    ]);
}

#[test]
fn a_limit_that_is_too_low_is_named_with_its_figure() {
    let memory = |release| Clues {
        memlock: 65_536,
        memory_available: Some(12 << 20),
        memory_limit: Some(64 << 20),
        ..clues(release, "Seccomp:\t0\n")
    };
    let none_left = "The kernel has no memory for a ring (io_uring_setup: ENOMEM): memlock 64 KiB, \
                     available 12 MiB, control group 64 MiB.";
    expect(&[
        (
            setup(libc::ENOMEM),
            memory("5.10.0"),
            none_left,
            "Raise memlock: ulimit -l unlimited, LimitMEMLOCK=infinity (systemd) or --ulimit \
             memlock=-1 (Docker); Linux 5.12 and newer do not count rings against it.",
        ),
        (
            setup(libc::ENOMEM),
            memory("6.1.0"),
            none_left,
            "Free memory, or raise the limit of the control group: MemoryMax= (systemd) or \
             --memory (Docker); memlock does not matter on this kernel.",
        ),
        (
            setup(libc::EMFILE),
            Clues { nofile: 8, ..clues("6.1.0", "") },
            "No file descriptor is left for a ring (io_uring_setup: EMFILE, nofile 8).",
            FILES,
        ),
        (
            ProbeFailure::Table { slots: 30_000, errno: libc::EMFILE },
            Clues { nofile: 20_000, ..clues("6.1.0", "") },
            "No table for 30000 connections per shard (io_uring_register: EMFILE): the limit of \
             open files is 20000.",
            FILES,
        ),
    ]);
}

#[test]
fn a_filter_that_allows_only_some_of_the_calls_is_named_with_the_call() {
    let blocked = |call| {
        format!(
            "{call} is blocked by the container's seccomp profile (EPERM, and Seccomp: 2 in \
             /proc/self/status)."
        )
    };
    let filtered = || clues("6.1.0", "Seccomp:\t2\n");
    for call in ["io_uring_enter", "io_uring_register"] {
        let failure = ProbeFailure::Call { call, errno: libc::EPERM };
        expect(&[(failure, filtered(), &blocked(call), PROFILE)]);
    }
}

#[test]
fn an_unexpected_errno_is_given_as_a_number() {
    expect(&[(
        setup(999),
        clues("6.1.0", ""),
        "io_uring_setup failed on Linux 6.1.0 (errno 999).",
        "Update the kernel to the newest release of its series; if it stays, report this line.",
    )]);
}

#[test]
fn kernels_before_the_floor_are_refused_and_unreadable_releases_are_not() {
    let old = |release| diagnosis::kernel_too_old(&clues(release, "")).is_some();
    for release in ["6.0.19", "5.15.0-91-generic", "4.4.0", "2.6.32-754.el6"] {
        assert!(old(release), "{release}");
    }
    for release in ["6.1.0", "6.10.3", "6.18.44-fc-v669", "7.0-rc1", "10.0", "4.19.0-gvisor", ""] {
        assert!(!old(release), "{release}");
    }
}

#[test]
fn an_old_kernel_is_the_verdict_before_what_follows_from_it() {
    let old = HostError::KernelTooOld { linux: "Linux 5.4".to_owned() };
    let no_ring = HostError::Disabled;
    let host = HostSurvey {
        kernel_too_old: Some(old.clone()),
        uring: Err((ProbeStep::Ring, no_ring.clone())),
        ..HostSurvey::take()
    };
    assert_eq!(host.verdict(), Err(old));
    let host = HostSurvey { kernel_too_old: None, ..host };
    assert_eq!(host.verdict(), Err(no_ring.clone()));
    assert_eq!(HostSurvey { uring: Ok(()), ..host }.verdict(), Ok(()));
}

#[test]
fn descriptors_for_every_shard_are_asked_for_with_both_numbers() {
    let host = HostSurvey { nofile: ResourceLimit { soft: 64, hard: 64 }, ..HostSurvey::take() };
    assert_eq!(host.holds(2), Ok(()));
    let error = host.holds(3).unwrap_err();
    let fault = "The limit of open files (nofile) is 64; 3 shards need at least 80.";
    assert_eq!((&*error.to_string(), &*error.remedy()), (fault, FILES));
}

#[test]
fn available_memory_is_read_in_bytes() {
    assert_eq!(available("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
    assert_eq!(available("MemTotal: 9 kB\n"), None);
}

#[track_caller]
fn expect(cases: &[(ProbeFailure, Clues, &str, &str)]) {
    for (failure, clues, cause, remedy) in cases {
        let error = diagnosis::explain(failure, clues);
        assert_eq!((&*error.to_string(), &*error.remedy()), (*cause, *remedy));
    }
}

fn setup(errno: i32) -> ProbeFailure {
    ProbeFailure::Setup { errno, unknown: None }
}

fn clues(release: &str, status: &str) -> Clues {
    Clues { release: release.to_owned(), status: ProcStatus::parse(status), ..Clues::default() }
}

fn disabled_1(clues: Clues) -> Clues {
    Clues { io_uring_disabled: Some(1), ..clues }
}
