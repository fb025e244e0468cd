//! The seccomp profile as a container runtime applies it: by libseccomp, without a container.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::gateway::{self, Process, carries, free_port, tcp, unix, until};
use crate::{Directory, root, runs, tuning};

#[test]
fn the_gateway_serves_and_drains_behind_the_profile() {
    if can_filter() {
        serves_behind(&Filter(tuning("seccomp.json")));
    }
}

#[test]
fn the_profile_allows_the_three_calls_of_io_uring_and_nothing_that_escapes() {
    let profile: Value = serde_json::from_str(&tuning("seccomp.json")).unwrap();
    assert_eq!(
        (&profile["defaultAction"], &profile["defaultErrnoRet"]),
        (&ERRNO.into(), &1.into())
    );
    let rules = profile["syscalls"].as_array().unwrap();
    let allows = |call: &str| {
        let names = |rule: &Value| rule["names"].as_array().unwrap().contains(&call.into());
        rules
            .iter()
            .any(|rule| rule["action"] == ALLOW && rule.get("args").is_none() && names(rule))
    };
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(allows(call), "{call}");
    }
    // clone and socket are allowed for some of their arguments only.
    for call in [
        "bpf",
        "clone",
        "clone3",
        "init_module",
        "keyctl",
        "mount",
        "open_by_handle_at",
        "perf_event_open",
        "pivot_root",
        "process_vm_writev",
        "ptrace",
        "reboot",
        "setns",
        "socket",
        "unshare",
        "userfaultfd",
    ] {
        assert!(!allows(call), "{call}");
    }
}

#[test]
fn the_container_is_built_of_files_that_exist_and_make_a_package() {
    let directory = Directory::new();
    let recipe = tuning("Containerfile");
    let copied = recipe.lines().filter_map(|line| line.strip_prefix("COPY "));
    for line in copied.filter(|line| !line.starts_with("--from")) {
        let mut names: Vec<_> = line.split_whitespace().collect();
        names.pop();
        for name in names {
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(root().join(name)).arg(&directory.0);
            assert!(copy.status().unwrap().success(), "{name}");
        }
    }
    let package = ["metadata", "--offline", "--locked", "--no-deps", "--format-version=1"];
    let output = Command::new(env!("CARGO")).args(package).current_dir(&directory.0).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::exists(directory.at("src/main.rs")).unwrap());
}

/// A profile in Docker's form.
pub(crate) struct Filter(String);

impl Filter {
    /// Allows these calls, and refuses all others with EPERM.
    pub(crate) fn of_names(names: impl IntoIterator<Item = String>) -> Self {
        let names: Vec<_> = names.into_iter().collect();
        let rules = [json!({ "names": names, "action": ALLOW })];
        let profile = json!({ "defaultAction": ERRNO, "defaultErrnoRet": 1, "syscalls": rules });
        Self(profile.to_string())
    }
}

/// A gateway that starts behind the filter does all that it has to do.
pub(crate) fn serves_behind(filter: &Filter) {
    let directory = Directory::new();
    let profile = directory.write("profile.json", &filter.0);
    let (socket, port) = (directory.at("ringwave.sock"), free_port());
    let mut command = gateway::command("python3");
    command.args(["-c", LAUNCHER, &profile, env!("CARGO_BIN_EXE_ringwave")]);
    let listen = [format!("tcp://127.0.0.1:{port}"), format!("unix://{socket}")];
    gateway::with_flags(&mut command, &listen);
    command.current_dir(&directory.0).stdout(Stdio::null());
    let mut gateway = Process::start(&mut command);
    until("the gateway listens", || unix(&socket).is_ok() && tcp(port).is_ok());
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    assert!(status.contains("\nSeccomp:\t2\n"), "a filter is in force");
    carries(tcp(port).unwrap(), unix(&socket).unwrap());
    carries(unix(&socket).unwrap(), tcp(port).unwrap());
    assert!(gateway.terminate().success());
}

pub(crate) fn can_filter() -> bool {
    runs("python3", &["-c", "import ctypes; ctypes.CDLL('libseccomp.so.2')"])
}

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";

/// Applies a profile in Docker's form by seccomp_rule_add_array(3), as container runtimes do, and
/// becomes the program in the other arguments.
const LAUNCHER: &str = r#"
import ctypes, json, os, sys

class Argument(ctypes.Structure):
    _fields_ = [("index", ctypes.c_uint), ("op", ctypes.c_int),
                ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]

EQUAL, MASKED_EQUAL = 4, 7
OPERATORS = {"SCMP_CMP_EQ": EQUAL, "SCMP_CMP_MASKED_EQ": MASKED_EQUAL}

def action(name, errno):
    return 0x7fff0000 if name == "SCMP_ACT_ALLOW" else 0x00050000 | errno

library = ctypes.CDLL("libseccomp.so.2")
library.seccomp_init.restype = ctypes.c_void_p
profile = json.load(open(sys.argv[1]))
default = action(profile["defaultAction"], profile["defaultErrnoRet"])
filter = ctypes.c_void_p(library.seccomp_init(default))
for rule in profile["syscalls"]:
    does = action(rule["action"], rule.get("errnoRet", 1))
    arguments = [Argument(argument["index"], OPERATORS[argument["op"]], argument["value"],
                          argument.get("valueTwo", 0)) for argument in rule.get("args", [])]
    array = (Argument * max(1, len(arguments)))(*arguments)
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        # Calls of other architectures have no number here.
        if number >= 0 and does != default:
            if library.seccomp_rule_add_array(filter, does, number, len(arguments), array):
                sys.exit(f"no rule for {name}")
if library.seccomp_load(filter):
    sys.exit("the filter was refused")
os.execv(sys.argv[2], sys.argv[2:])
"#;
