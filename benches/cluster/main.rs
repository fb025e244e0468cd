//! The cost of a cluster. The bench starts a Redis of its own and, where the work is that of nodes,
//! three gateways on it. Next to them, in turns, it measures a **floor**: the same messages through
//! plain `PUBLISH` and `SUBSCRIBE`, with the same client library.
//!
//! Costs are CPU time, because other processes of the host change that least. Printed are minimum
//! and median of the rounds, and the median beside its goal. The exit code is 1 if something cannot
//! be measured; a goal that is missed is only printed.
//!
//! `cargo bench --bench cluster -- --help` tells the kinds of work. It needs `redis-server`.

#![allow(clippy::expect_used, reason = "a bench that cannot measure says why and ends")]

mod burial;
mod client;
mod events;
mod figures;
mod latency;
mod nodes;
mod redis_server;
mod registration;
mod script_node;

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Parser, ValueEnum};
use serde_json::{Value, json};

use figures::Figures;
use redis_server::Redis;

/// The cost of a cluster beside plain pub/sub
#[derive(Parser)]
#[command(name = "cargo bench --bench cluster --")]
struct Options {
    /// Kinds of work, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Work::ALL)]
    work: Vec<Work>,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Events: the sizes of batches, separated by commas
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 100, 1000])]
    batch: Vec<usize>,
    /// Events: the channels that they are published to in turns
    #[arg(long, value_name = "N", default_value_t = 100)]
    channels: usize,
    /// Events and latency: bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    size: usize,
    /// Latency: seconds of each run, at 100 events per second
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u32,
    /// Registration and burial: connections of the node
    #[arg(long, value_name = "N", default_value_t = 1000)]
    connections: usize,
    /// Write all values of all rounds to a new file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// CPU time of Redis per event
    Events,
    /// From publish to receive on another node
    Latency,
    /// Channels with a subscriber each: their memory, and how soon an empty Redis knows them
    Registration,
    /// A node with presence members dies
    Burial,
}

impl Work {
    const ALL: [Self; 4] = [Self::Events, Self::Latency, Self::Registration, Self::Burial];

    fn measure(self, options: &Options) -> Figures {
        match self {
            Self::Events => events::measure(options),
            Self::Latency => latency::measure(options),
            Self::Registration => registration::measure(options),
            Self::Burial => burial::measure(options),
        }
    }
}

fn main() {
    let options = Options::parse();
    let conditions = conditions();
    println!("{}, {conditions}", Redis::version());
    if let Some(path) = &options.json {
        File::create_new(path).expect("the file of --json is a new one");
    }
    let mut done = Vec::new();
    for work in &options.work {
        let figures = work.measure(&options);
        figures.print();
        done.push(figures.json());
        // The file is written after each work, so that a run that is interrupted keeps its results.
        if let Some(path) = &options.json {
            let text = serde_json::to_string_pretty(&results(&options, &conditions, &done));
            let text = text.unwrap_or_default();
            fs::write(path, text + "\n").expect("the file of --json can be written");
        }
    }
}

/// How the processes of the bench are scheduled, and what else the host has to do: both change what
/// is measured (proc_pid_stat(5), fields 19, 40 and 41).
fn conditions() -> String {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the executable, in parentheses, may have spaces.
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let field = |number: usize| behind_name.split_whitespace().nth(number - 3).unwrap_or("?");
    let priority = match field(41) {
        "0" => format!("normal priority, nice {}", field(19)),
        policy => format!("NOT normal priority: policy {policy}, priority {}", field(40)),
    };
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("{priority}, load {} before", load.split(' ').next().unwrap_or("?"))
}

/// All results, with the host that they were measured on.
fn results(options: &Options, conditions: &str, works: &[Value]) -> Value {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "redis": Redis::version(),
        "unix_time": since.as_secs(),
        "kernel": kernel.trim(),
        "cpu": model,
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "conditions": conditions,
        "arguments": arguments,
        "rounds": options.rounds,
        "works": works,
    })
}
