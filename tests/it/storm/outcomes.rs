//! The fate of each publish: accepted, refused, without a response, or not sent.

use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::relay::{Relay, Treatment, message};
use super::{RINGWAVE, due, outcome};
use crate::gateway::{APP_ID, Gateway, KEY, SECRET, Setup};

/// Cuts the connection instead of an answer.
const CUT: (u16, &str) = (0, "");

/// A server with an API of another make. `answer` gives the status and headers of the answer to a
/// request from the number of requests before it.
struct Api {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

struct Request {
    at: Instant,
    body: String,
    status: u16,
}

impl Request {
    /// The time in the message's stamp, which tells messages apart: a message that is repeated
    /// keeps it.
    fn intended(&self) -> &str {
        let stamp = self.body.find("~rw").unwrap();
        &self.body[stamp + 31..stamp + 47]
    }
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
        requests: &Mutex<Vec<Request>>,
    ) -> Option<()> {
        loop {
            let request = String::from_utf8(message(&mut stream).ok()?).unwrap();
            let body = request.split_once("\r\n\r\n").unwrap().1.to_owned();
            let mut requests = requests.lock().unwrap();
            let (status, headers) = answer(requests.len());
            requests.push(Request { at: Instant::now(), body, status });
            if (status, headers) == CUT {
                return None;
            }
            let text = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: 2\r\n\r\n{{}}");
            stream.get_mut().write_all(text.as_bytes()).ok()?;
        }
    }

    /// Makes the load generator publish to it. Returns the exit code and the outcome.
    fn stormed(&self, arguments: &str) -> (Option<i32>, Value) {
        let mut storm = Command::new(RINGWAVE);
        storm.args(["storm", "publish", "--json"]).args(arguments.split(' '));
        let output = storm.arg("--url").arg(format!("ws://{}", self.address)).output().unwrap();
        (output.status.code(), outcome(&output))
    }

    /// The tries of each message: their times and the status of each answer.
    fn tries(&self) -> Vec<Vec<(Instant, u16)>> {
        let mut messages: HashMap<_, Vec<_>> = HashMap::new();
        let requests = self.requests.lock().unwrap();
        for request in requests.iter() {
            let tries = messages.entry(request.intended().to_owned()).or_default();
            tries.push((request.at, request.status));
        }
        messages.into_values().collect()
    }

    /// The bodies of all requests.
    fn bodies(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|request| request.body.clone()).collect()
    }
}

fn refused_twice(number: usize) -> (u16, &'static str) {
    match number {
        0 | 1 => (503, "Connection: close\r\nRetry-After: 1\r\n"),
        _ => (200, ""),
    }
}

#[test]
fn a_refused_message_is_repeated_with_a_new_number_after_its_retry_after() {
    let api = Api::start(refused_twice);
    let (code, outcome) = api.stormed("-r 10 -d 0.5 --retry");
    assert_eq!(code, Some(0), "{outcome:#}");
    assert_eq!(outcome["problems"], json!({}));
    assert_eq!(outcome["messages"]["refused"], 2);
    assert_eq!(outcome["messages"]["refusals"], json!({"503": 2}));
    assert_eq!((due(&outcome), &outcome["messages"]["sent"]), (5, &json!(5)));
    let messages = api.tries();
    assert_eq!(messages.len(), 5);
    for tries in messages {
        match tries[..] {
            [(_, 200)] => {}
            [(first, 503), (second, 503), (third, 200)] => {
                let waits = [second - first, third - second];
                assert!(waits.iter().all(|wait| *wait >= Duration::from_secs(1)), "{waits:?}");
            }
            _ => panic!("a message was taken twice or never: {tries:?}"),
        }
    }
    let mut bodies = api.bodies();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 7, "each try has a number of its own");
}

#[test]
fn a_refused_message_is_not_repeated_unasked_and_fails_the_storm() {
    let api = Api::start(refused_twice);
    let (code, outcome) = api.stormed("-r 10 -d 0.5");
    assert_eq!(code, Some(1), "{outcome:#}");
    assert_eq!(outcome["messages"]["unpublished"], 2);
    assert_eq!(outcome["messages"]["sent"], 3);
    assert!(api.tries().iter().all(|tries| tries.len() == 1));
}

#[test]
fn a_message_without_a_response_is_sent_once_and_fails_the_storm_unless_outages_are_expected() {
    for (arguments, expected) in [("-r 10 -d 0.5", 1), ("-r 10 -d 0.5 --failover", 0)] {
        let api = Api::start(|number| if number == 1 { CUT } else { (200, "") });
        let (code, outcome) = api.stormed(arguments);
        assert_eq!(code, Some(expected), "{outcome:#}");
        assert_eq!(outcome["messages"]["unknown"], 1);
        assert_eq!(outcome["messages"]["sent"], 4);
        assert!(api.tries().iter().all(|tries| tries.len() == 1));
    }
}

#[test]
fn what_was_due_is_sent_after_the_time_is_over() {
    let api = Api::start(|_| {
        thread::sleep(Duration::from_millis(50));
        (200, "")
    });
    let (code, outcome) = api.stormed("-r 100 -d 0.2 --grace 5");
    assert_eq!(code, Some(0), "{outcome:#}");
    assert_eq!(outcome["messages"]["sent"], 20);
    assert!(outcome["messages"]["sent_per_s"].as_f64().unwrap() < 21.0, "{outcome:#}");
}

#[test]
fn an_answer_that_closes_the_connection_is_the_last_one_on_it() {
    let api = Api::start(|_| (200, "Connection: close\r\n"));
    let (code, outcome) = api.stormed("-r 10 -d 0.5");
    assert_eq!(code, Some(0), "{outcome:#}");
    assert_eq!(outcome["problems"], json!({}));
    assert!(api.tries().iter().all(|tries| tries.len() == 1));
}

/// A storm of 40 messages to 10 subscribers, two publishes of which are treated so.
fn relayed(gateway: &Gateway, treatment: fn(usize) -> Treatment) -> Value {
    let relay = Relay::with(gateway, treatment);
    let mut storm = Command::new(RINGWAVE);
    storm.args(["storm", "fanout", "--json", "--failover"]);
    storm.args("-n 10 -r 40 -d 1 --grace 2".split(' '));
    storm.args(["--app-id", APP_ID, "--key", KEY, "--secret", SECRET, "--url", &relay.url()]);
    let output = storm.output().unwrap();
    let outcome = outcome(&output);
    assert_eq!(output.status.code(), Some(0), "{outcome:#}");
    assert_eq!(outcome["messages"]["sent"], 38);
    assert_eq!(outcome["messages"]["unknown"], 2);
    outcome
}

#[test]
fn a_message_without_a_response_is_owed_to_nobody_and_may_arrive_once() {
    let gateway = Setup::new(2).start();
    let outcome = relayed(&gateway, |number| match number {
        7 | 39 => Treatment::SwallowRequest,
        _ => Treatment::Pass,
    });
    assert_eq!(outcome["messages"]["delivered"], 38 * 10);
    let outcome = relayed(&gateway, |number| match number {
        7 | 39 => Treatment::SwallowResponse,
        _ => Treatment::Pass,
    });
    assert_eq!(outcome["messages"]["delivered"], 40 * 10);
}
