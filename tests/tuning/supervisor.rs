//! The program in a supervisord of its own.

use std::fs;
use std::process::Stdio;

use crate::gateway::{self, Process, carries, free_port, tcp, until};
use crate::{Directory, replaced, runs, tuning};

#[test]
fn supervisor_starts_the_gateway_and_stops_it_by_a_drain() {
    if !runs("supervisord", &["--version"]) {
        return;
    }
    let directory = Directory::new();
    let (port, log) = (free_port(), directory.at("ringwave.log"));
    let mut program = tuning("supervisor.conf");
    for (shipped, own) in [
        ("/usr/local/bin/ringwave", env!("CARGO_BIN_EXE_ringwave")),
        ("/var/www/app", &directory.at("")),
        ("/var/log/supervisor/ringwave.log", &log),
        // Only root may become somebody else, and would have to give this directory away.
        ("user=www-data\n", ""),
    ] {
        program = replaced(&program, shipped, own);
    }
    directory.write("conf.d/ringwave.conf", &program);
    directory.write(".env", &format!("REVERB_SERVER_PORT={port}\nREVERB_SERVER_HOST=127.0.0.1\n"));
    let own_log = directory.at("supervisord.log");
    let main = directory.write(
        "supervisord.conf",
        &format!(
            "[supervisord]\nnodaemon=true\nlogfile={own_log}\npidfile={}\nchildlogdir={}\n\
             [include]\nfiles = {}\n",
            directory.at("pid"),
            directory.at(""),
            directory.at("conf.d/*.conf"),
        ),
    );
    let mut command = gateway::command("supervisord");
    command.args(["-c", &main]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut supervisor = Process::start(&mut command);
    until("the gateway listens", || tcp(port).is_ok());
    carries(tcp(port).unwrap(), tcp(port).unwrap());
    until("supervisor takes it as running", || {
        fs::read_to_string(&own_log).unwrap().contains("success: ringwave entered RUNNING state")
    });
    assert!(supervisor.terminate().success());
    let text = fs::read_to_string(&own_log).unwrap();
    assert!(text.contains("stopped: ringwave (exit status 0)"), "{text}");
    assert!(fs::read_to_string(&log).unwrap().contains("Gracefully terminating"));
}
