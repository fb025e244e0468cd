//! The kernel is made to refuse by strace(1), by a seccomp filter and by limits; the process must
//! end with 78, name the cause and never panic.

use std::fs;
use std::process::{Command, Output, Stdio};

use crate::left_out::{left_out, runs};

const RINGWAVE: &str = env!("CARGO_BIN_EXE_ringwave");

/// Both commands that ask for a ring. The port is never bound: the host is checked first.
const DOCTOR: &[&str] = &["doctor"];
const START: &[&str] = &["start", "--host=127.0.0.1", "--port=18080"];

#[test]
fn a_doctor_tells_where_memory_goes() {
    let output = output(RINGWAVE, DOCTOR);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("\nrecord of the socket"), "{text}");
    assert!(text.contains("\nAn idle connection takes "), "{text}");
    assert!(text.contains("\nheld for clients at most"), "{text}");
    assert!(text.contains("\nThe bounds add up to "), "{text}");
}

#[test]
fn a_refused_permission_is_explained() {
    if decided_by_the_host() {
        return;
    }
    explained("error=EPERM", "io_uring_setup is refused (EPERM), by neither");
    explained("error=EACCES", "io_uring_setup is refused (EACCES), by neither");
}

#[test]
fn a_kernel_without_the_call_is_explained() {
    if decided_by_the_host() {
        return;
    }
    explained("error=ENOSYS", "was built without io_uring (io_uring_setup: ENOSYS).");
}

#[test]
fn a_lack_of_memory_is_explained_with_the_figures() {
    explained("error=ENOMEM", "no memory for a ring (io_uring_setup: ENOMEM): memlock ");
}

#[test]
fn a_rejected_ring_is_explained_by_the_flag_that_is_unknown() {
    explained("error=EINVAL", "rejects even a plain ring (EINVAL)");
    // The calls for the whole ring and for the one to which SINGLE_ISSUER was added fail.
    explained(
        "error=EINVAL:when=1+5",
        "lacks IORING_SETUP_SINGLE_ISSUER, which came with Linux 6.0",
    );
}

#[test]
fn an_exhausted_descriptor_table_is_explained() {
    explained(
        "error=EMFILE",
        "No file descriptor is left for a ring (io_uring_setup: EMFILE, nofile",
    );
}

#[test]
fn a_seccomp_filter_is_told_apart_from_the_sysctl() {
    if !runs("python3", &["-c", "import ctypes, struct"]) {
        return;
    }
    for arguments in [DOCTOR, START] {
        let launcher = ["-c", SECCOMP_LAUNCHER, "timeout", "10", RINGWAVE];
        let output = output("python3", &[&launcher, arguments].concat());
        refused(&output, "io_uring_setup is blocked by the container's seccomp profile (EPERM");
    }
}

#[test]
fn a_limit_of_open_files_below_need_is_explained_with_both_numbers() {
    for arguments in [DOCTOR, START] {
        let script = ["-c", "ulimit -n 20; exec timeout 10 \"$0\" \"$@\"", RINGWAVE];
        let output = output("sh", &[&script, arguments].concat());
        refused(&output, "The limit of open files (nofile) is 20; ");
    }
}

/// Runs both commands with this result injected into `io_uring_setup`.
#[track_caller]
fn explained(injection: &str, cause: &str) {
    if !runs("strace", &["-o", "/dev/null", "true"]) {
        return;
    }
    let injection = format!("inject=io_uring_setup:{injection}");
    for arguments in [DOCTOR, START] {
        let options =
            ["-f", "-qq", "-o", "/dev/null", "-e", "trace=io_uring_setup", "-e", &injection];
        // The deadline runs inside of strace: a strace that is killed leaves its child behind.
        let traced = ["timeout", "10", RINGWAVE];
        refused(&output("strace", &[&options[..], &traced, arguments].concat()), cause);
    }
}

#[track_caller]
fn refused(output: &Output, cause: &str) {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    let text = [stdout, stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat();
    assert_eq!(output.status.code(), Some(78), "{text}");
    let mut lines = text.lines().skip_while(|line| !line.contains(cause));
    assert!(lines.next().is_some(), "{cause:?} is not in:\n{text}");
    assert!(lines.next().is_some_and(|remedy| !remedy.is_empty()), "no remedy:\n{text}");
    assert!(!text.contains("panicked"), "{text}");
}

/// If the host itself forbids or filters `io_uring`, its own reason is named before ours.
fn decided_by_the_host() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let decided = status.contains("Seccomp:\t2") || !matches!(disabled.trim(), "" | "0");
    if decided {
        left_out("this host restricts io_uring itself");
    }
    decided
}

/// Runs a program in an empty directory, so that no `.env` is found.
#[track_caller]
fn output(program: &str, arguments: &[&str]) -> Output {
    let directory = concat!(env!("CARGO_TARGET_TMPDIR"), "/host");
    fs::create_dir_all(directory).unwrap();
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("REVERB_")) {
        command.env_remove(name);
    }
    command.output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Answers the three calls of `io_uring` (425 to 427 on every architecture) with EPERM, as Docker's
/// default profile does, then becomes the program in its arguments.
const SECCOMP_LAUNCHER: &str = r#"
import ctypes, os, struct, sys
LOAD_NR, GREATER_EQUAL, RETURN = 0x20, 0x35, 0x06
ALLOW, EPERM = 0x7fff0000, 0x00050001
program = b"".join(struct.pack("HBBI", *line) for line in [
    (LOAD_NR, 0, 0, 0),
    (GREATER_EQUAL, 0, 2, 425),
    (GREATER_EQUAL, 1, 0, 428),
    (RETURN, 0, 0, EPERM),
    (RETURN, 0, 0, ALLOW),
])
lines = ctypes.create_string_buffer(program, len(program))
filter = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 5, ctypes.addressof(lines)))
libc = ctypes.CDLL(None, use_errno=True)
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, FILTER, filter):
    sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[1], sys.argv[1:])
"#;
