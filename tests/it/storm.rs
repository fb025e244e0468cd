//! The load generator against the gateway: its counts are right.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

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
    let outcome = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    nothing_is_negative(&outcome, "");
    outcome
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
    let sent = outcome["messages"]["sent"].as_u64().unwrap();
    // Messages that are still due when the time is over are not sent any more.
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
        let (version, command) = (env!("CARGO_PKG_VERSION"), format!("storm {scenario} --json"));
        for told in [" GMT</td>", &command, "[withheld]", ", Linux ", version] {
            assert!(page.contains(told), "{scenario}: {told}: {page}");
        }
        assert!(!page.contains(SECRET));
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
    // The load generator publishes when all of its own connections are subscribed.
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
}

/// A server with an API of another make. `answer` gives the answer to a request from the number of
/// requests before it.
struct Api {
    address: SocketAddr,
    /// For each request: the time, the body, and the status of the answer.
    requests: Arc<Mutex<Vec<(Instant, String, u16)>>>,
}

impl Api {
    fn start(answer: fn(usize) -> (u16, &'static str)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::default();
        let served = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let served = Arc::clone(&served);
                let stream = BufReader::new(stream.unwrap());
                thread::spawn(move || Self::serve(stream, answer, &served));
            }
        });
        Self { address, requests }
    }

    /// Serves until the end of the stream. It leaves it to the client to obey a `connection:
    /// close`.
    fn serve(
        mut stream: BufReader<TcpStream>,
        answer: fn(usize) -> (u16, &'static str),
        requests: &Mutex<Vec<(Instant, String, u16)>>,
    ) -> Option<()> {
        loop {
            let mut length = 0;
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if stream.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                if let Some(value) = line.strip_prefix("Content-Length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).ok()?;
            let mut requests = requests.lock().unwrap();
            let (status, headers) = answer(requests.len());
            requests.push((Instant::now(), String::from_utf8(body).unwrap(), status));
            let text = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: 2\r\n\r\n{{}}");
            stream.get_mut().write_all(text.as_bytes()).ok()?;
        }
    }

    /// Makes the load generator publish to it for half a second, ten times a second.
    fn stormed(&self) -> Value {
        let mut storm = Command::new(RINGWAVE);
        storm.args(["storm", "publish", "--json", "-r", "10", "-d", "0.5", "--grace", "30"]);
        let output = storm.arg("--url").arg(format!("ws://{}", self.address)).output().unwrap();
        let outcome = outcome(&output);
        assert_eq!(output.status.code(), Some(0), "{outcome:#}");
        assert_eq!(outcome["problems"], serde_json::json!({}));
        outcome
    }

    /// For each message, by its body: the times of its requests and the status of each answer.
    fn by_message(&self) -> HashMap<String, Vec<(Instant, u16)>> {
        let mut messages: HashMap<_, Vec<_>> = HashMap::new();
        for (at, body, status) in self.requests.lock().unwrap().iter() {
            messages.entry(body.clone()).or_default().push((*at, *status));
        }
        messages
    }
}

#[test]
fn a_refusal_that_closes_the_connection_is_no_loss_and_its_retry_after_is_kept() {
    let api = Api::start(|number| match number {
        0 | 1 => (503, "Connection: close\r\nRetry-After: 1\r\n"),
        _ => (200, ""),
    });
    let outcome = api.stormed();
    assert_eq!(outcome["messages"]["refused"], 2);
    assert_eq!(outcome["messages"]["unpublished"], 0);
    let messages = api.by_message();
    assert_eq!(messages.len() as u64, outcome["messages"]["sent"].as_u64().unwrap());
    for tries in messages.values() {
        match tries[..] {
            [(_, 200)] => {}
            [(first, 503), (second, 503), (third, 200)] => {
                let waits = [second - first, third - second];
                assert!(waits.iter().all(|wait| *wait >= Duration::from_secs(1)), "{waits:?}");
            }
            _ => panic!("a message was taken twice or never: {tries:?}"),
        }
    }
}

#[test]
fn an_answer_that_closes_the_connection_is_the_last_one_on_it() {
    let api = Api::start(|_| (200, "Connection: close\r\n"));
    let outcome = api.stormed();
    assert_eq!(outcome["messages"]["refused"], 0);
    assert!(api.by_message().values().all(|tries| tries.len() == 1));
}
