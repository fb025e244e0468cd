//! What fan-out costs beside the least that it can cost. In one interleaved run, the gateway and a
//! **floor** send the same bytes to the same number of sockets; the floor is a bare `io_uring`
//! program that does nothing else. Prints CPU time of the whole server process per delivery, the
//! median of the rounds, and the ratio. Both are pinned to core 0, subscribers and publisher to the
//! other cores.
//!
//! `cargo bench --bench fanout [-- [--rounds N] [--seconds N] [--shards N]]`

#![allow(clippy::expect_used, reason = "a bench that cannot measure says why and ends")]

mod floor;
mod gateway;
mod subscribers;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use subscribers::Subscribers;

/// One line of the table.
struct Case {
    subscribers: usize,
    /// Messages per second; `None`: the next as soon as the server has taken the last.
    rate: Option<u32>,
    /// Bytes of the event's `data`.
    data_bytes: usize,
}

const CASES: [Case; 6] = [
    Case { subscribers: 1000, rate: Some(20), data_bytes: 70 },
    Case { subscribers: 100, rate: Some(1000), data_bytes: 70 },
    Case { subscribers: 1000, rate: Some(1000), data_bytes: 70 },
    Case { subscribers: 1000, rate: None, data_bytes: 70 },
    Case { subscribers: 1000, rate: Some(20), data_bytes: 1000 },
    Case { subscribers: 1000, rate: Some(20), data_bytes: 9000 },
];

/// A server that fans out, in a process of its own.
trait Server {
    /// Its process.
    fn pid(&self) -> u32;
    /// Connects and subscribes.
    fn subscribe(&self, count: usize) -> Subscribers;
    /// Sends one message to all subscribers; returns when the server has taken it.
    fn publish(&mut self);
    /// Bytes that each subscriber gets per message.
    fn frame_bytes(&self) -> usize;
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(bytes) = value(&arguments, "--floor") {
        floor::serve(bytes);
        return ExitCode::SUCCESS;
    }
    let rounds = value(&arguments, "--rounds").unwrap_or(3);
    let seconds = value(&arguments, "--seconds").unwrap_or(2);
    let shards = value(&arguments, "--shards").unwrap_or(1);
    let length = Duration::from_secs(seconds as u64);
    pin_to_the_other_cores();
    println!(
        "CPU ns per delivery, median of {rounds} interleaved rounds of {seconds} s; \
              {shards} shard(s)\n"
    );
    println!(
        "{:>6} {:>9} {:>6} {:>9} {:>9} {:>7}",
        "subs", "msgs/s", "bytes", "gateway", "floor", "ratio"
    );
    for case in &CASES {
        let mut costs = [Vec::new(), Vec::new()];
        let mut bytes = 0;
        for _ in 0..rounds {
            let mut gateway = gateway::Gateway::start(shards, case.data_bytes);
            bytes = gateway.frame_bytes();
            costs[0].push(measure(&mut gateway, case, length));
            drop(gateway);
            let mut floor = floor::Floor::start(bytes);
            costs[1].push(measure(&mut floor, case, length));
        }
        let [gateway, floor] = costs.map(median);
        let rate = case.rate.map_or_else(|| "closed".to_owned(), |rate| rate.to_string());
        println!(
            "{:>6} {rate:>9} {bytes:>6} {gateway:>9.0} {floor:>9.0} {:>6.2}x",
            case.subscribers,
            gateway / floor
        );
    }
    ExitCode::SUCCESS
}

/// CPU nanoseconds of the server per delivery.
fn measure(server: &mut impl Server, case: &Case, length: Duration) -> f64 {
    let subscribers = server.subscribe(case.subscribers);
    let before = cpu_ns(server.pid());
    let started = Instant::now();
    let mut published = 0_u32;
    while started.elapsed() < length {
        server.publish();
        published += 1;
        if let Some(rate) = case.rate {
            let due = started + Duration::from_secs(1) * published / rate;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    let deliveries = published as usize * case.subscribers;
    subscribers.wait_for(deliveries * server.frame_bytes());
    (cpu_ns(server.pid()) - before) as f64 / deliveries as f64
}

/// CPU time of all threads of a process, to the nanosecond (proc(5), `schedstat`).
fn cpu_ns(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the server runs");
    let of_task = |task: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.filter_map(of_task).sum()
}

fn median(mut costs: Vec<f64>) -> f64 {
    costs.sort_by(f64::total_cmp);
    costs[costs.len() / 2]
}

fn value(arguments: &[String], flag: &str) -> Option<usize> {
    let at = arguments.iter().position(|argument| argument == flag)?;
    arguments.get(at + 1)?.parse().ok()
}

fn pin_to_the_other_cores() {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(&core) = cores.get(1) {
        core_affinity::set_for_current(core);
    }
}
