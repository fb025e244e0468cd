//! The units as systemd reads them, and the protocol that they rely on with real sockets.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Output};

use crate::container::{self, Filter};
use crate::gateway::{self, Client, PATIENCE, Process, carries, free_port, tcp, unix};
use crate::left_out::runs;
use crate::{Directory, nginx, replaced, setting, tuning};

const SERVICE: &str = "systemd/ringwave.service";

#[test]
fn systemd_accepts_the_units_and_finds_the_service_well_confined() {
    if !runs("systemd-analyze", &["--version"]) {
        return;
    }
    let directory = Directory::new();
    let installed = env!("CARGO_BIN_EXE_ringwave");
    let unit = replaced(&tuning(SERVICE), "/usr/local/bin/ringwave", installed);
    let service = directory.write("ringwave.service", &unit);
    let socket = directory.write("ringwave.socket", &tuning("systemd/ringwave.socket"));
    let verified = analyze(&["verify", &service, &socket]);
    assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
    assert_eq!(setting(&unit, "LimitCORE="), "0", "a dump would have the secrets");
    // The exposure may be 20 of 100 at most; a unit without any of these settings has 96.
    let judged = analyze(&["security", "--offline=true", "--threshold=20", &service]);
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stdout));
}

#[test]
fn the_gateway_serves_behind_the_filter_of_the_unit() {
    if !(runs("systemd-analyze", &["--version"]) && container::can_filter()) {
        return;
    }
    let unit = tuning(SERVICE);
    let mut allowed = BTreeSet::new();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let names = line.trim_start_matches('~').split_whitespace().flat_map(calls_of_set);
        match line.starts_with('~') {
            false => allowed.extend(names),
            true => allowed = &allowed - &names.collect(),
        }
    }
    assert!(allowed.len() > 100 && allowed.contains("io_uring_setup"));
    container::serves_behind(&Filter::of_names(allowed));
}

#[test]
fn the_managers_wait_longer_than_a_drain_takes() {
    assert_eq!(nginx::defaults().server.shutdown_window, None, "by the number of connections");
    let systemd = tuning(SERVICE);
    let supervisor = tuning("supervisor.conf");
    for patience in [
        setting(&systemd, "TimeoutStopSec="),
        setting(&supervisor, "stopwaitsecs="),
        setting(&tuning("Containerfile"), "#     --sysctl net.core.somaxconn=65535 --stop-timeout")
            .trim_end_matches(" ringwave"),
    ] {
        // The longest automatic window and its pause, 4 s for its last ones, 3 s for webhooks, 1 s
        // until clients are back, 1 s for the last requests and 2 s for threads.
        assert!(patience.parse::<u64>().unwrap() > 6 + 4 + 3 + 1 + 1 + 2, "{patience}");
    }
}

#[test]
fn the_manager_is_told_of_readiness_of_every_turn_of_all_shards_and_of_the_stop() {
    let directory = Directory::new();
    let path = directory.at("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut text = [0; 1024];
        let length = manager.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    };

    let port = free_port();
    let mut command = gateway::ringwave(&directory, &[format!("tcp://127.0.0.1:{port}")]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "6000000");
    let mut gateway = Process::start(&mut command);
    let ready = heard();
    assert!(ready.starts_with("READY=1\nSTATUS=Starting server on 127.0.0.1:"), "{ready}");
    // The gateway serves by now, so nothing has to be tried again.
    carries(tcp(port).unwrap(), tcp(port).unwrap());
    for _ in 0..3 {
        assert_eq!(heard(), "WATCHDOG=1");
    }
    let reloaded = Command::new(env!("CARGO_BIN_EXE_ringwave"))
        .arg("reload")
        .current_dir(&directory.0)
        .output()
        .unwrap();
    assert!(reloaded.status.success(), "{reloaded:?}");
    let mut told = std::iter::repeat_with(heard).filter(|text| text != "WATCHDOG=1");
    let reloading = told.next().unwrap();
    let since_boot = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(since_boot.parse::<u64>().unwrap() > 0);
    assert_eq!(told.next().unwrap(), ready);
    let status = gateway.terminate();
    let stopping = std::iter::repeat_with(heard).find(|text| text != "WATCHDOG=1").unwrap();
    let patience = stopping.split_once("\nEXTEND_TIMEOUT_USEC=").unwrap().1;
    assert!(stopping.starts_with("STOPPING=1\n") && patience.parse::<u64>().unwrap() > 4_000_000);
    assert!(status.success());
}

#[test]
fn inherited_sockets_are_served_and_outlive_the_process() {
    let directory = Directory::new();
    let path = directory.at("inherited.sock");
    let by_path = UnixListener::bind(&path).unwrap();
    let by_port = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = by_port.local_addr().unwrap().port();
    // The gateway does not listen on the address of the configuration.
    let configured = free_port();
    let start = || {
        let sockets = [by_path.try_clone().unwrap().into(), by_port.try_clone().unwrap().into()];
        inheriting(&directory, sockets, &[format!("tcp://127.0.0.1:{configured}")])
    };

    let mut first = start();
    carries(unix(&path).unwrap(), tcp(port).unwrap());
    carries(tcp(port).unwrap(), unix(&path).unwrap());
    assert!(tcp(configured).is_err());
    assert!(first.terminate().success());

    // While no gateway serves, connections wait.
    let (waiting, publishing) = (unix(&path).unwrap(), tcp(port).unwrap());
    let mut second = start();
    carries(waiting, publishing);
    let _open = Client::connect(tcp(port).unwrap());
    assert!(second.terminate().success());
    assert!(unix(&path).is_ok(), "the file is not ours to remove");
}

#[test]
fn inherited_sockets_that_are_none_or_would_show_the_development_app_are_refused() {
    let directory = Directory::new();
    let (one, other) = UnixDatagram::pair().unwrap();
    let mut refused = inheriting(&directory, [one.into(), other.into()], &[]);
    assert_eq!(refused.ended().code(), Some(78));

    let public = || OwnedFd::from(TcpListener::bind("0.0.0.0:0").unwrap());
    let mut command = inheriting_command(&directory, [public(), public()], &["--dev".to_owned()]);
    for name in ["REVERB_APP_ID", "REVERB_APP_KEY", "REVERB_APP_SECRET"] {
        command.env_remove(name);
    }
    let told = directory.write("stderr", "");
    command.stderr(File::create(&told).unwrap());
    assert_eq!(Process::start(&mut command).ended().code(), Some(78));
    let told = fs::read_to_string(&told).unwrap();
    assert!(
        told.contains("development app") && told.contains("is not served on 0.0.0.0:"),
        "{told}"
    );
}

/// Starts a gateway that inherits these sockets as sd_listen_fds(3) says.
fn inheriting(directory: &Directory, sockets: [OwnedFd; 2], listen: &[String]) -> Process {
    let listen: Vec<_> = listen.iter().map(|address| format!("--listen={address}")).collect();
    Process::start(&mut inheriting_command(directory, sockets, &listen))
}

/// The standard streams carry the sockets to a shell, which moves them to their numbers. The shell
/// becomes the gateway and keeps its process id, which the gateway checks.
fn inheriting_command(directory: &Directory, sockets: [OwnedFd; 2], flags: &[String]) -> Command {
    const SHELL: &str = "exec 3<&0 4<&1 0</dev/null 1>/dev/null
        LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" start --shards=2 \"$@\"";
    let [first, second] = sockets;
    let mut command = gateway::command("sh");
    command.args(["-c", SHELL, env!("CARGO_BIN_EXE_ringwave")]).args(flags);
    command.current_dir(&directory.0).stdin(first).stdout(second);
    command
}

/// The system calls of a set such as `@aio`, which may hold others; a call is a set of itself.
fn calls_of_set(set: &str) -> Vec<String> {
    if !set.starts_with('@') {
        return vec![set.to_owned()];
    }
    let listed = analyze(&["syscall-filter", set]);
    let text = String::from_utf8(listed.stdout).unwrap();
    let names = text.lines().filter(|line| line.starts_with(' ')).map(str::trim);
    names.filter(|name| !name.starts_with('#')).flat_map(calls_of_set).collect()
}

fn analyze(arguments: &[&str]) -> Output {
    Command::new("systemd-analyze").args(arguments).output().unwrap()
}
