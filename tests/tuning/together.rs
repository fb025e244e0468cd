//! nginx finds the gateway with every combination of an upstream and a service manager. The files
//! that the script writes run here, with other paths and ports.

use std::fs;
use std::process::{Command, Stdio};

use crate::gateway::{self, Process, carries, free_port, free_ports, tcp, until};
use crate::left_out::runs;
use crate::nginx::{SOCKET, Tls, start_nginx};
use crate::supervisor::start_supervisor;
use crate::{Directory, apply};

/// The ports that the files name.
const PORTS: [u16; 4] = [8080, 8081, 8082, 8083];

#[test]
fn supervisor_serves_nginx_over_a_unix_socket() {
    together("supervisor", "nginx-unix");
}

#[test]
fn supervisor_serves_nginx_over_several_ports() {
    together("supervisor", "nginx-ports");
}

#[test]
fn systemd_serves_nginx_over_a_unix_socket() {
    together("systemd", "nginx-unix");
}

#[test]
fn systemd_serves_nginx_over_several_ports() {
    together("systemd", "nginx-ports");
}

/// The files are the same if nginx is put in place first, the manager first, or both at once.
#[test]
fn the_order_in_which_parts_are_put_in_place_does_not_matter() {
    const MANAGERS: [(&str, &[&str]); 2] = [
        ("supervisor", &["etc/supervisor/conf.d/ringwave.conf", "etc/tmpfiles.d/ringwave.conf"]),
        ("systemd", &["etc/systemd/system/ringwave.socket", "etc/systemd/system/ringwave.service"]),
    ];
    for (manager, files) in MANAGERS {
        for upstream in ["nginx-unix", "nginx-ports"] {
            let host = apply::host();
            apply::apply_tuning(&host, &["--apply", upstream, manager, "--host", NAME]);
            let at_once = apply::tree(&host);
            for order in [[upstream, manager], [manager, upstream]] {
                let host = apply::host();
                for part in order {
                    apply::apply_tuning(&host, &["--apply", part, "--host", NAME]);
                }
                let apart = apply::tree(&host);
                for file in files {
                    assert_eq!(apart.get(*file), at_once.get(*file), "{file}: {order:?}");
                }
                let before = apply::tree(&apply::host());
                apply::apply_tuning(&host, &["--undo"]);
                assert_eq!(apply::tree(&host), before, "{order:?}");
            }
        }
    }
}

#[test]
fn parts_that_exclude_each_other_are_refused() {
    for parts in [["nginx-unix", "nginx-ports"], ["systemd", "supervisor"]] {
        let host = apply::host();
        let output = apply::script(&host, &[&["--apply", "--host", NAME], &parts[..]].concat());
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        assert_eq!(apply::tree(&host), apply::tree(&apply::host()), "nothing was changed");
    }
    let host = apply::host();
    apply::apply_tuning(&host, &["--apply", "systemd"]);
    let output = apply::script(&host, &["--apply", "supervisor"]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("systemd is in place") && told.contains("--undo"), "{told}");
}

const NAME: &str = "ws.example.com";

/// Puts both in place, starts both, and publishes an event through nginx to a client behind it.
fn together(manager: &str, upstream: &str) {
    let needed = if manager == "systemd" { "systemd-socket-activate" } else { "supervisord" };
    let installed = ["nginx", "openssl", needed].map(|program| {
        let flag = if program == "nginx" { "-v" } else { "--version" };
        runs(program, &[if program == "openssl" { "version" } else { flag }])
    });
    if installed.contains(&false) {
        return;
    }
    let host = apply::host();
    apply::apply_tuning(&host, &["--apply", upstream, manager, "--host", NAME]);
    let directory = Directory::new();
    let own_ports = free_ports::<4>();
    let written = |path: &str| {
        let mut text = fs::read_to_string(host.at(path)).unwrap();
        text = text.replace(SOCKET, &directory.at("ringwave.sock"));
        for (shipped, own) in PORTS.iter().zip(own_ports) {
            text = text.replace(&format!("127.0.0.1:{shipped}"), &format!("127.0.0.1:{own}"));
        }
        text
    };
    let mut served = match manager {
        "supervisor" => {
            start_supervisor(&directory, &written("etc/supervisor/conf.d/ringwave.conf"))
        }
        _ => start_by_sockets(&directory, &written("etc/systemd/system/ringwave.socket")),
    };
    let named = written("etc/nginx/conf.d/ringwave-upstream.conf");
    until("the gateway listens for nginx and for publishers of the host", || {
        let listens = |port: u16| tcp(port).is_ok();
        let port_is_named = |port: &&u16| named.contains(&format!("server 127.0.0.1:{port} "));
        let needed = own_ports.iter().filter(port_is_named);
        needed.chain(&own_ports[..1]).all(|&port| listens(port))
            && (upstream != "nginx-unix" || gateway::unix(&directory.at("ringwave.sock")).is_ok())
    });
    let port = free_port();
    let site = written("etc/nginx/conf.d/ringwave.conf");
    let mut nginx = start_nginx(&directory, port, &site, &named);
    for _ in PORTS {
        carries(Tls::connect(port), Tls::connect(port));
    }
    assert!(nginx.terminate().success());
    assert!(served.terminate().success());
}

/// Opens the sockets of a socket unit, as systemd does, and starts the gateway with them at the
/// first connection.
fn start_by_sockets(directory: &Directory, unit: &str) -> Process {
    let places = unit.lines().filter_map(|line| line.strip_prefix("ListenStream="));
    let mut command = gateway::command("systemd-socket-activate");
    command.args(places.flat_map(|place| ["-l", place]));
    for name in ["REVERB_APP_ID", "REVERB_APP_KEY", "REVERB_APP_SECRET", "RINGWAVE_SHUTDOWN_WINDOW"]
    {
        command.args(["-E", name]);
    }
    command.arg(env!("CARGO_BIN_EXE_ringwave")).args(["start", "--shards=2"]);
    command.current_dir(&directory.0).stdin(Stdio::null());
    Process::start(silent(&mut command))
}

fn silent(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::null()).stderr(Stdio::null())
}
