//! The container, without a container runtime: the steps of its recipe in a directory, and its
//! seccomp profile as a runtime applies it, by libseccomp.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::gateway::{self, Process, carries, free_port, tcp, unix, until};
use crate::left_out::runs;
use crate::receiver::Receiver;
use crate::{Directory, root, tuning};

#[test]
fn the_gateway_serves_and_drains_behind_the_profile() {
    if can_filter() {
        serves_behind(&Filter(tuning("seccomp.json")));
    }
}

#[test]
fn the_profile_allows_what_the_gateway_needs_and_nothing_that_escapes() {
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
    for call in NEEDED.iter().flat_map(|(_, calls)| *calls) {
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

/// Calls that a profile forgets easily, because only some hosts and settings lead to them. Those of
/// ARM, which has no `mkdir`, `rename` and the like, are among them.
const NEEDED: [(&str, &[&str]); 4] = [
    ("io_uring", &["io_uring_setup", "io_uring_enter", "io_uring_register"]),
    // glibc asks for both families of addresses in one call.
    ("names of hosts", &["sendmmsg", "recvfrom", "recvmsg", "poll", "ppoll", "connect"]),
    (
        "the spool",
        &["mkdir", "mkdirat", "rename", "renameat", "renameat2", "flock", "fsync", "unlink"],
    ),
    ("permissions of unix sockets", &["fchmod", "chmod", "fchmodat", "fchown", "fchownat"]),
];

#[test]
fn the_recipe_builds_from_what_it_copies() {
    let recipe = tuning("Containerfile");
    let copied: Vec<_> = recipe.lines().filter_map(|line| line.strip_prefix("COPY ")).collect();
    assert_eq!(copied[0], ". .", "the whole context, of which .dockerignore is the list");
    let context = context();
    let build = recipe.lines().find_map(|line| line.strip_prefix("RUN cargo build "));
    let build = build.expect("a step that builds");
    // Checking the types instead of building also shows whether a file is missing.
    let mut check = Command::new(env!("CARGO"));
    check.arg("check").args(build.split(' ').filter(|argument| *argument != "--release"));
    check.args(["--offline", "--target-dir", concat!(env!("CARGO_TARGET_TMPDIR"), "/..")]);
    // With the variables that cargo sets for a test, build scripts of other crates would run again,
    // now and afterwards.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"CARGO") && name != "CARGO_HOME" {
            check.env_remove(name);
        }
    }
    let output = check.current_dir(&context.0).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let built = copied.iter().find_map(|line| line.strip_prefix("--from=build "));
    assert!(built.unwrap().starts_with("/ringwave/target/release/ringwave "), "{built:?}");
}

#[test]
fn the_context_of_the_build_has_no_secrets_and_nothing_that_was_built() {
    let allowed: BTreeSet<_> = allowed_in_context().into_iter().collect();
    for name in [".env", ".git", "target", "ringwave.toml", "tests", "scripts"] {
        assert!(!allowed.contains(name), "{name}");
    }
}

/// A directory with the files that `.dockerignore` lets into a build.
fn context() -> Directory {
    let directory = Directory::new();
    for name in allowed_in_context() {
        let mut copy = Command::new("cp");
        copy.args(["-r", "--parents", &name]).arg(&directory.0).current_dir(root());
        assert!(copy.status().unwrap().success(), "{name}");
    }
    directory
}

/// The names that the file allows, after it has forbidden everything.
fn allowed_in_context() -> Vec<String> {
    let text = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let mut patterns = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    assert_eq!(patterns.next(), Some("*"));
    let names = patterns.map(|line| line.strip_prefix('!').expect("only names are allowed"));
    names.map(str::to_owned).collect()
}

#[test]
fn the_image_has_certificates_and_a_user_without_rights() {
    let recipe = tuning("Containerfile");
    let (_, image) = recipe.rsplit_once("\nFROM ").unwrap();
    assert!(image.contains("ca-certificates"), "webhooks to https are checked against them");
    assert!(image.contains("\nUSER 65532:65532\n"));
    assert!(recipe.contains("--ulimit core=0"), "a core dump would have the secrets");
}

#[test]
fn the_health_check_of_the_recipe_tells_a_server_from_none_behind_the_profile() {
    if !(can_filter() && runs("bash", &["--version"])) {
        return;
    }
    let directory = Directory::new();
    let filter = Filter(tuning("seccomp.json"));
    let port = free_port();
    for path in ["", "/ws"] {
        let healthy = || {
            let command = health_check();
            let mut check = filter.launch(&directory, &command[0], &command[1..]);
            check.env("REVERB_SERVER_PORT", port.to_string()).env("REVERB_SERVER_PATH", path);
            check.stderr(Stdio::null()).status().unwrap().success()
        };
        assert!(!healthy(), "nobody is there");
        let listen = [format!("tcp://127.0.0.1:{port}")];
        let mut command = gateway::ringwave(&directory, &listen);
        let mut gateway = Process::start(command.env("REVERB_SERVER_PATH", path));
        until("the server is healthy", healthy);
        assert!(gateway.terminate().success());
    }
}

/// The command of `HEALTHCHECK`, which is in the form of JSON.
fn health_check() -> Vec<String> {
    let recipe = tuning("Containerfile");
    let recipe = recipe.replace("\\\n", " ");
    let line = recipe.lines().find(|line| line.starts_with("HEALTHCHECK ")).unwrap();
    let (_, command) = line.split_once(" CMD ").unwrap();
    serde_json::from_str(command).unwrap()
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

    /// A command that becomes the program behind the filter.
    fn launch(&self, directory: &Directory, program: &str, arguments: &[String]) -> Command {
        let profile = directory.write("profile.json", &self.0);
        let launcher = root().join("tests/tuning/seccomp.py");
        let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).output().unwrap();
        let path = String::from_utf8(found.stdout).unwrap();
        let mut command = gateway::command("python3");
        command.arg(launcher).args([&profile, path.trim()]).args(arguments);
        command.current_dir(&directory.0).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

/// Checks that a gateway that starts behind the filter works, and so do its commands.
pub(crate) fn serves_behind(filter: &Filter) {
    const RINGWAVE: &str = env!("CARGO_BIN_EXE_ringwave");
    let directory = Directory::new();
    let receiver = Receiver::start();
    receiver.answer(500);
    // The URL has a name, so that the resolver runs behind the filter, too.
    let url = format!("http://localhost:{}/", receiver.port());
    let webhook = format!("[[apps]]\napp_id = \"app-id\"\n[[apps.webhooks]]\nurl = \"{url}\"\n");
    directory.write("ringwave.toml", &webhook);
    let (socket, port) = (directory.at("ringwave.sock"), free_port());
    let mut command = filter.launch(&directory, RINGWAVE, &[]);
    gateway::with_flags(&mut command, &[format!("tcp://127.0.0.1:{port}"), gateway::url(&socket)]);
    let group = rustix::process::getegid().as_raw().to_string();
    command.env("RINGWAVE_SOCKET_GROUP", group).env("RINGWAVE_WEBHOOK_SPOOL", "spool");
    let mut gateway = Process::start(&mut command);
    until("the gateway listens", || unix(&socket).is_ok() && tcp(port).is_ok());
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    assert!(status.contains("\nSeccomp:\t2\n"), "a filter is in force");
    carries(tcp(port).unwrap(), unix(&socket).unwrap());
    carries(unix(&socket).unwrap(), tcp(port).unwrap());

    let spooled = || fs::read_dir(Path::new(&directory.at("spool"))).unwrap().count();
    until("a webhook is kept", || receiver.requests() > 0 && spooled() > 1);
    receiver.answer(200);
    until("nothing is kept any more", || spooled() == 1);

    for command in ["reload", "check", "doctor"] {
        let mut command = filter.launch(&directory, RINGWAVE, &[command.to_owned()]);
        let output: Output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert!(gateway.terminate().success());
}

pub(crate) fn can_filter() -> bool {
    runs("python3", &["-c", "import ctypes; ctypes.CDLL('libseccomp.so.2')"])
}

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";
