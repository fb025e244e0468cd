//! The load generator against the gateway: its counts are right.

mod failover;
mod outcomes;
mod relay;

use std::process::{Child, Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{APP_ID, Gateway, KEY, SECRET, Setup, eventually};
use crate::http::Call;

const RINGWAVE: &str = env!("CARGO_BIN_EXE_ringwave");

fn storm(gateway: &Gateway, arguments: &str) -> Command {
    storm_over(&[gateway], arguments)
}

/// A storm over several gateways, as if they were the nodes of one cluster.
fn storm_over(gateways: &[&Gateway], arguments: &str) -> Command {
    let mut storm = Command::new(RINGWAVE);
    storm.arg("storm").args(arguments.split(' ')).arg("--json");
    storm.args(["--app-id", APP_ID, "--key", KEY, "--secret", SECRET]);
    for gateway in gateways {
        storm.arg("--url").arg(format!("ws://{}", gateway.address()));
        storm.arg("--pid").arg(gateway.id().to_string());
    }
    storm
}

fn outcome(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let outcome = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    nothing_is_negative(&outcome, "");
    outcome
}

fn started(storm: &mut Command) -> Child {
    storm.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// The channel of a storm, once a subscriber of it is there.
fn channel_of_storm(gateway: &Gateway) -> String {
    eventually("its channel", || {
        Call::get("channels").ok(gateway)["channels"].as_object()?.keys().next().cloned()
    })
}

/// The messages that were due: whatever became of one, it is counted once.
fn due(outcome: &Value) -> u64 {
    let fates = ["sent", "unpublished", "unknown", "unsent"];
    fates.iter().map(|fate| outcome["messages"][fate].as_u64().unwrap()).sum()
}

#[track_caller]
fn nothing_is_negative(value: &Value, path: &str) {
    match value {
        Value::Number(number) => assert!(number.as_f64().unwrap() >= 0.0, "{path}: {number}"),
        Value::Array(items) => items.iter().for_each(|item| nothing_is_negative(item, path)),
        Value::Object(fields) => {
            for (name, value) in fields {
                nothing_is_negative(value, &format!("{path}.{name}"));
            }
        }
        _ => {}
    }
}

#[test]
fn every_message_is_accounted_for_at_every_subscriber() {
    let gateway = Setup::new(2).start();
    let output = storm(&gateway, "fanout -n 60 -c 3 -p 2 -r 100 -d 1").output().unwrap();
    let outcome = outcome(&output);
    assert_eq!(output.status.code(), Some(0), "{outcome:#}");
    assert_eq!(outcome["connections"]["held"], 60);
    assert_eq!(outcome["messages"]["sent"], 100, "all that were due, however late");
    assert_eq!(outcome["messages"]["delivered"], 100 * 20, "20 subscribers per channel");
    assert_eq!(outcome["latency_us"]["count"], 100 * 20);
    assert_eq!(outcome["messages"]["lost"], 0);
}

#[test]
fn what_one_of_two_servers_accepts_is_owed_to_the_subscribers_of_both() {
    let gateways = [Setup::new(1).start(), Setup::new(1).start()];
    let [first, second] = &gateways;
    for channels in ["1", "2", "4"] {
        let arguments = format!("fanout -n 24 -c {channels} -p 4 -r 240 -d 0.5 --grace 0.5");
        let output = storm_over(&[first, second], &arguments).output().unwrap();
        let outcome = outcome(&output);
        assert_eq!(output.status.code(), Some(1), "{outcome:#}");
        assert_eq!(outcome["messages"]["sent"], 120);
        // Nothing joins the two, so half of the subscribers of each message are out of its reach.
        let per_channel = 24 / channels.parse::<u64>().unwrap();
        assert_eq!(outcome["messages"]["lost"], 120 * per_channel / 2, "{channels} channels");
        assert_eq!(outcome["messages"]["delivered"], 120 * per_channel / 2);
        assert_eq!(outcome["messages"]["reordered"], 0);
        for (server, gateway) in outcome["servers"].as_array().unwrap().iter().zip(&gateways) {
            assert_eq!(server["pid"], gateway.id());
            assert_eq!(server["url"], format!("ws://{}", gateway.address()));
            assert!(server["memory_end"].as_u64().unwrap() > 0);
        }
    }
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
        let (version, command) = (env!("CARGO_PKG_VERSION"), format!("storm {scenario} --json"));
        for told in [" GMT</td>", &command, "[withheld]", ", Linux ", version] {
            assert!(page.contains(told), "{scenario}: {told}: {page}");
        }
        assert!(!page.contains(SECRET));
    }
}

#[test]
fn a_server_that_dies_is_a_loss_and_no_message_is_forgotten() {
    let mut gateway = Setup::new(2).start();
    let mut storm = storm(&gateway, "fanout -n 20 -r 200 -d 4 --grace 1");
    let storm = started(&mut storm);
    let channel = channel_of_storm(&gateway);
    // The load generator publishes when all of its own connections are subscribed.
    let mut client = Client::subscribed(&gateway, &channel);
    client.next();
    gateway.signal(Signal::KILL);
    gateway.ended();
    let output = storm.wait_with_output().unwrap();
    let outcome = outcome(&output);
    assert_eq!(output.status.code(), Some(1), "{outcome:#}");
    assert_eq!(outcome["connections"]["cut"], 20);
    assert_eq!(outcome["passed"], false);
    assert_eq!(due(&outcome), 800);
    assert!(outcome["messages"]["unsent"].as_u64().unwrap() > 0);
}

#[test]
fn a_member_that_is_no_connection_of_the_storm_is_a_ghost() {
    let gateway = Setup::new(1).start();
    let mut storm = storm(&gateway, "connect -n 4 -d 1 --kind presence --ghosts 0");
    let storm = started(&mut storm);
    let _member =
        Client::joined(&gateway, &channel_of_storm(&gateway), &json!({ "user_id": "nobody" }));
    let output = storm.wait_with_output().unwrap();
    let outcome = outcome(&output);
    assert_eq!(output.status.code(), Some(1), "{outcome:#}");
    assert_eq!(
        (&outcome["members"]["ghosts"], &outcome["members"]["absent"]),
        (&json!(1), &json!(0))
    );
}

#[test]
fn a_missing_server_and_flags_that_do_not_fit_have_their_exit_codes() {
    let output = |arguments: &str| {
        Command::new(RINGWAVE).arg("storm").args(arguments.split(' ')).output().unwrap()
    };
    let storm = |arguments: &str| output(arguments).status.code();
    // No process listens on this address of the loopback network.
    let nobody = Setup::new(1).address();
    for scenario in ["connect -n 5", "publish"] {
        let output = output(&format!("{scenario} -d 0.1 --url ws://{nobody}"));
        assert_eq!(output.status.code(), Some(69));
        let told = String::from_utf8(output.stderr).unwrap();
        let refused = format!("cannot connect to {nobody}: connection refused");
        assert!(told.contains(&refused), "{told}");
    }
    assert_eq!(storm("whisper --kind public"), Some(64));
    assert_eq!(storm("connect --url wss://127.0.0.1"), Some(64));
    assert_eq!(storm("connect --pid 4194305"), Some(64));
    assert_eq!(storm("connect --ghosts 1"), Some(64));
}
