//! The program in a supervisord of its own.

use std::fs;
use std::process::Stdio;

use crate::gateway::{self, Process, carries, free_port, tcp, until};
use crate::left_out::runs;
use crate::{Directory, replaced, tuning};

#[test]
fn supervisor_starts_the_gateway_and_stops_it_by_a_drain() {
    if !runs("supervisord", &["--version"]) {
        return;
    }
    let directory = Directory::new();
    let (port, log) = (free_port(), directory.at(GATEWAY_LOG));
    directory.write(".env", &format!("REVERB_SERVER_PORT={port}\nREVERB_SERVER_HOST=127.0.0.1\n"));
    let mut supervisor = start_supervisor(&directory, &tuning("supervisor.conf"));
    until("the gateway listens", || tcp(port).is_ok());
    carries(tcp(port).unwrap(), tcp(port).unwrap());
    let own_log = directory.at(OWN_LOG);
    until("supervisor takes it as running", || {
        fs::read_to_string(&own_log).unwrap().contains("success: ringwave entered RUNNING state")
    });
    assert!(supervisor.terminate().success());
    let text = fs::read_to_string(&own_log).unwrap();
    assert!(text.contains("stopped: ringwave (exit status 0)"), "{text}");
    assert!(fs::read_to_string(&log).unwrap().contains("Gracefully terminating"));
}

const OWN_LOG: &str = "supervisord.log";
const GATEWAY_LOG: &str = "ringwave.log";

/// Starts a supervisord with this program and the paths of the test.
pub(crate) fn start_supervisor(directory: &Directory, program: &str) -> Process {
    let mut program = program.to_owned();
    for (shipped, own) in [
        ("/usr/local/bin/ringwave", env!("CARGO_BIN_EXE_ringwave")),
        ("/var/www/app", &directory.at("")),
        ("/var/log/supervisor/ringwave.log", &directory.at(GATEWAY_LOG)),
        // Only root may become another user, and would have to give this directory away.
        ("user=www-data\n", ""),
    ] {
        program = replaced(&program, shipped, own);
    }
    directory.write("supervisor/ringwave.conf", &program);
    let main = directory.write(
        "supervisord.conf",
        &format!(
            "[supervisord]\nnodaemon=true\nlogfile={}\npidfile={}\nchildlogdir={}\n\
             [include]\nfiles = {}\n",
            directory.at(OWN_LOG),
            directory.at("supervisord.pid"),
            directory.at(""),
            directory.at("supervisor/*.conf"),
        ),
    );
    let mut command = gateway::command("supervisord");
    command.args(["-c", &main]).stdout(Stdio::null()).stderr(Stdio::null());
    Process::start(&mut command)
}
