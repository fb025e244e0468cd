//! The load generator against the gateway: what it counts is what happened.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const RINGWAVE: &str = env!("CARGO_BIN_EXE_ringwave");

#[test]
fn every_message_is_accounted_for_at_every_subscriber() {
    let gateway = Gateway::start();
    let output = gateway.storm("fanout -n 60 -c 3 -p 2 -r 100 -d 1").output().unwrap();
    let outcome = outcome(&output);
    assert_eq!(output.status.code(), Some(0), "{outcome:#}");
    assert_eq!(outcome["connections"]["held"], 60);
    assert_eq!(outcome["messages"]["sent"], 100);
    assert_eq!(outcome["messages"]["delivered"], 100 * 20, "20 subscribers per channel");
    assert_eq!(outcome["latency_us"]["count"], 100 * 20);
    assert_eq!(outcome["messages"]["lost"], 0);
}

#[test]
fn every_scenario_passes_and_writes_its_report() {
    let gateway = Gateway::start();
    let report = std::env::temp_dir().join(format!("storm-{}.html", std::process::id()));
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
        let mut storm = gateway.storm(scenario);
        let output = storm.arg("--report").arg(&report).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{scenario}: {:#}", outcome(&output));
        let page = std::fs::read_to_string(&report).unwrap();
        assert!(page.contains("<svg") && page.contains("passed"), "{scenario}");
    }
    std::fs::remove_file(report).unwrap();
}

#[test]
fn a_server_that_dies_is_a_loss() {
    let mut gateway = Gateway::start();
    let mut storm = gateway.storm("fanout -n 20 -r 200 -d 3 --grace 1");
    let storm = storm.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    gateway.0.kill().unwrap();
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
    let port = free_port();
    assert_eq!(storm(&format!("connect -n 5 -d 0.1 --url ws://127.0.0.1:{port}")), Some(1));
    assert_eq!(storm("whisper --kind public"), Some(64));
    assert_eq!(storm("connect --url wss://127.0.0.1"), Some(64));
    assert_eq!(storm("connect --pid 4194305"), Some(64));
}

/// A gateway with the development app; killed when dropped.
struct Gateway(Child, u16);

impl Gateway {
    fn start() -> Self {
        let port = free_port();
        let arguments = format!("start --dev --host 127.0.0.1 --port {port} --shards 2");
        let mut command = Command::new(RINGWAVE);
        command.args(arguments.split(' ')).current_dir(std::env::temp_dir());
        let gateway = Self(command.stdout(Stdio::null()).spawn().unwrap(), port);
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the gateway does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        gateway
    }

    fn storm(&self, arguments: &str) -> Command {
        let mut storm = Command::new(RINGWAVE);
        storm.arg("storm").args(arguments.split(' ')).arg("--json");
        storm.arg("--url").arg(format!("ws://127.0.0.1:{}", self.1));
        storm.arg("--pid").arg(self.0.id().to_string());
        storm
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _dead_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn outcome(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
