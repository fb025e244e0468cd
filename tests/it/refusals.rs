//! The lines of the log about everything that is refused.

/// Strangers and pages: connections, handshakes, requests.
mod front;
/// Clients on their open WebSockets.
mod messages;

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Client, target};
use crate::gateway::{Gateway, SECRET, Setup, eventually};

/// Runs a test against gateways that log as text and as JSON.
fn in_both_forms(settings: impl Fn(Setup) -> Setup, test: impl Fn(&Gateway)) {
    for (form, shards) in [("text", 1), ("json", 2)] {
        test(&settings(Setup::new(shards)).flag(&format!("--log-format={form}")).start());
    }
}

/// A line of the log at WARN about a refusal, or about how often it came.
#[derive(Debug)]
struct Warning {
    line: String,
    message: String,
    cause: String,
    app: Option<String>,
    /// The number of refusals that the line stands for.
    count: u64,
}

impl Warning {
    fn of(line: &str) -> Option<Self> {
        let warning = match serde_json::from_str::<Value>(line) {
            Ok(json) => {
                let text = |name: &str| json[name].as_str().map(str::to_owned);
                (json["level"] == "WARN").then_some(())?;
                let cause = text("cause")?;
                let count = json["count"].as_u64().unwrap_or(1);
                Self {
                    line: line.into(),
                    message: text("message")?,
                    cause,
                    app: text("app"),
                    count,
                }
            }
            Err(_) => {
                let (_, message) = line.split_once(" WARN ")?;
                let (_, cause) = message.rsplit_once(" cause=")?;
                let plain = cause.split(' ').next();
                let quoted = cause.strip_prefix('"').and_then(|cause| cause.split('"').next());
                let field = |name: &str| message.rsplit_once(name)?.1.split(' ').next();
                let count = field(" count=").map_or(1, |count| count.parse().unwrap());
                let cause = quoted.or(plain)?.to_owned();
                let app = field(" app=").map(str::to_owned);
                Self { line: line.into(), message: message.into(), cause, app, count }
            }
        };
        Some(warning)
    }
}

fn warnings(gateway: &Gateway) -> Vec<Warning> {
    gateway.log().lines().filter_map(Warning::of).collect()
}

/// Waits for the line of a refusal that has these facts; there is one, and no line besides it tells
/// the cause.
#[track_caller]
fn told(gateway: &Gateway, app: Option<&str>, cause: &str, facts: &[&str]) -> Warning {
    let what = format!("{cause} of {app:?} with {facts:?}");
    let told = eventually(&what, || {
        let of_cause = |warning: &Warning| warning.cause == cause && warning.app.as_deref() == app;
        let mut told: Vec<_> = warnings(gateway).into_iter().filter(of_cause).collect();
        (told.len() == 1).then(|| told.remove(0))
    });
    for fact in facts {
        assert!(told.message.contains(fact), "{fact:?} is not in:\n{}", told.line);
    }
    assert!(!told.line.contains(SECRET), "{}", told.line);
    told
}

#[test]
fn refused_handshakes_by_the_thousand_make_a_few_lines_with_the_right_count() {
    const HANDSHAKES: u64 = 16_000;
    const THREADS: u64 = 8;
    // One line, its count, and another count if the handshakes take longer than a minute.
    const LINES_MAX: u64 = 3;
    let gateway = Setup::new(2).toml("[app]\nallowed_origins = [\"a.example\"]\n").start();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..HANDSHAKES / THREADS {
                    let origin = ("Origin", "https://evil.example");
                    let mut client = Client::open(&gateway, &target(), &[origin]);
                    client.expect_error(4009, "Origin not allowed");
                }
            });
        }
    });
    let took = started.elapsed();
    let counted = || {
        let lines: Vec<_> = warnings(&gateway);
        assert!(lines.iter().all(|line| line.cause == "origin not allowed"), "{lines:?}");
        (lines.len() as u64, lines.iter().map(|line| line.count).sum::<u64>())
    };
    assert!(counted().1 <= HANDSHAKES);
    let (lines, count) = loop {
        let (lines, count) = counted();
        let patience = 2 * Duration::from_secs(60) + crate::gateway::DEADLINE;
        if count == HANDSHAKES || started.elapsed() > took + patience {
            break (lines, count);
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(count, HANDSHAKES);
    let minutes = took.as_secs() / 60;
    assert!((2..=LINES_MAX + minutes).contains(&lines), "{lines} lines in {took:?}");
}

#[test]
fn refused_connections_have_a_line_each_and_ten_a_second_in_a_flood() {
    const REFUSED: usize = 300;
    in_both_forms(
        |setup| setup,
        |gateway| {
            let refuse = |agent: &str| {
                let mut client = Client::open(gateway, "/app/nobodys", &[("User-Agent", agent)]);
                client.expect_refusal(4001, "Application does not exist");
            };
            let lines = |level: &str| {
                let log = gateway.log();
                let of_level = log.lines().filter(|line| line.contains(level));
                of_level.filter(|line| line.contains("unknown key")).count()
            };
            let started = Instant::now();
            (0..3).for_each(|_| refuse("seldom"));
            eventually("a line each", || {
                let [warnings, others] = ["WARN", "INFO"].map(lines);
                (warnings == 1 && others == 2).then_some(())
            });
            (3..REFUSED).for_each(|_| refuse("often"));
            // Each second in which a refusal fell has ten at most.
            let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 2;
            assert!((10..=10 * seconds).contains(&lines("INFO")), "{} lines", lines("INFO"));
        },
    );
}

#[test]
fn counted_refusals_are_told_when_the_process_ends() {
    for form in ["text", "json"] {
        let mut gateway = Setup::new(2).flag(&format!("--log-format={form}")).start();
        for _ in 0..20 {
            let mut client = Client::open(&gateway, "/app/nobodys", &[]);
            client.expect_refusal(4001, "Application does not exist");
        }
        told(&gateway, None, "unknown key", &["4001"]);
        gateway.signal(rustix::process::Signal::TERM);
        assert!(gateway.ended().success());
        let counts: Vec<_> = warnings(&gateway).iter().map(|warning| warning.count).collect();
        assert_eq!(counts, [1, 19]);
    }
}
