//! The load generator against the gateway: what it counts is what happened.

use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::client::Client;
use crate::gateway::{APP_ID, Gateway, KEY, SECRET, Setup, eventually};
use crate::http::Call;

const RINGWAVE: &str = env!("CARGO_BIN_EXE_ringwave");

fn storm(gateway: &Gateway, arguments: &str) -> Command {
    let mut storm = Command::new(RINGWAVE);
    storm.arg("storm").args(arguments.split(' ')).arg("--json");
    storm.args(["--app-id", APP_ID, "--key", KEY, "--secret", SECRET]);
    storm.arg("--url").arg(format!("ws://{}", gateway.address()));
    storm.arg("--pid").arg(gateway.id().to_string());
    storm
}

fn outcome(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn every_message_is_accounted_for_at_every_subscriber() {
    let gateway = Setup::new(2).start();
    let output = storm(&gateway, "fanout -n 60 -c 3 -p 2 -r 100 -d 1").output().unwrap();
    let outcome = outcome(&output);
    assert_eq!(output.status.code(), Some(0), "{outcome:#}");
    assert_eq!(outcome["connections"]["held"], 60);
    let sent = outcome["messages"]["sent"].as_u64().unwrap();
    // What is still due when its time is over is not sent any more.
    assert!((1..=100).contains(&sent), "{outcome:#}");
    assert_eq!(outcome["messages"]["delivered"], sent * 20, "20 subscribers per channel");
    assert_eq!(outcome["latency_us"]["count"], sent * 20);
    assert_eq!(outcome["messages"]["lost"], 0);
}

#[test]
fn every_scenario_passes_and_writes_its_report() {
    let gateway = Setup::new(2).start();
    let report = gateway.path("storm.html");
    for scenario in [
        "connect -n 30 -d 0.2 --ramp 300",
        "publish -n 2 -c 4 -p 2 -r 0 -d 0.3 --batch 5",
        "publish -p 2 -r 0 -d 0.3 --fresh",
        "connect -n 8 -c 2 -d 0.2 --kind presence --user-info 100",
        "whisper -n 20 -c 2 -p 4 -r 40 -d 0.5 --kind presence",
        "churn -n 10 -d 0.5 -p 1 -r 50",
        "slow -n 20 -d 0.5 --slow-share 0.2",
        "reconnect -n 50 -d 0.2 --rounds 2 --rings 2",
    ] {
        let mut storm = storm(&gateway, scenario);
        let output = storm.arg("--report").arg(&report).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{scenario}: {:#}", outcome(&output));
        let page = std::fs::read_to_string(&report).unwrap();
        assert!(page.contains("<svg") && page.contains("passed"), "{scenario}");
    }
}

#[test]
fn a_server_that_dies_is_a_loss() {
    let mut gateway = Setup::new(2).start();
    let mut storm = storm(&gateway, "fanout -n 20 -r 200 -d 8 --grace 5");
    let storm = storm.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let channel = eventually("its channel", || {
        Call::get("channels").ok(&gateway)["channels"].as_object()?.keys().next().cloned()
    });
    // It publishes when all of its own are subscribed.
    let mut client = Client::connect(&gateway);
    client.subscribe(&channel);
    client.next();
    gateway.signal(Signal::KILL);
    gateway.ended();
    let output = storm.wait_with_output().unwrap();
    let outcome = outcome(&output);
    assert_eq!(output.status.code(), Some(1), "{outcome:#}");
    assert_eq!(outcome["connections"]["cut"], 20);
    assert_eq!(outcome["passed"], false);
}

#[test]
fn nobody_there_and_flags_that_do_not_fit_have_their_exit_codes() {
    let storm = |arguments: &str| {
        let storm = Command::new(RINGWAVE).arg("storm").args(arguments.split(' ')).output();
        storm.unwrap().status.code()
    };
    // Nobody has this address of the loopback network.
    let nobody = Setup::new(1).address();
    assert_eq!(storm(&format!("connect -n 5 -d 0.1 --url ws://{nobody}")), Some(1));
    assert_eq!(storm("whisper --kind public"), Some(64));
    assert_eq!(storm("connect --url wss://127.0.0.1"), Some(64));
    assert_eq!(storm("connect --pid 4194305"), Some(64));
}
