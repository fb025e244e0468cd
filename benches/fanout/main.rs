//! The cost of the gateway's work beside the least possible cost. In one interleaved run, the
//! gateway and a **floor** (a bare `io_uring` program that does only what the kernel demands) bear
//! the same load from the same generator, `ringwave storm`. Servers are pinned to core 0, the
//! generator to all others. A round starts each server anew; printed are minimum and median of the
//! rounds, and their ratios between the gateway and each floor. CPU time counts the whole server
//! process, kernel included.
//!
//! On a host that has other things to do, run the executable under `chrt -r 1`: a low priority of
//! the others is not enough, because Linux lets them finish their slice before it runs a process
//! that a packet woke. The cores that they used meanwhile are printed as OTHERS.
//!
//! `cargo bench --bench fanout -- --help` tells the kinds of work. A load that a server did not
//! bear without loss makes the exit code 1; speed never does.

#![allow(clippy::expect_used, reason = "a bench that cannot measure says why and ends")]

mod floor;
mod load;
mod server;
mod table;
mod works;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use serde_json::{Value, json};

use load::Load;
use table::Rows;
use works::{Case, Work};

/// The cost of the gateway's work beside the least possible cost
#[derive(Parser)]
#[command(name = "cargo bench --bench fanout --")]
struct Options {
    /// Kinds of work, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "fanout")]
    work: Vec<Work>,
    /// Shards of the gateway, all on core 0
    #[arg(long, value_name = "N", default_value_t = 1)]
    shards: usize,
    /// Connections, instead of those of each load; for fan-out and latency, this and the next
    /// three make one load instead of the list
    #[arg(long, value_name = "N")]
    subscribers: Option<u32>,
    /// Bytes of data per message
    #[arg(long, value_name = "BYTES")]
    size: Option<u32>,
    /// Messages per second; 0: closed loop
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Channels
    #[arg(long, value_name = "N")]
    channels: Option<u32>,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Seconds of each load, instead of its own
    #[arg(long, value_name = "N")]
    seconds: Option<f64>,
    /// Write all values of all rounds to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Be a floor that sends per message or per turn
    #[arg(long, value_name = "WHEN", hide = true)]
    floor: Option<String>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(per) = &options.floor {
        server::serve_floor(per);
    }
    let (mut done, mut failed) = (Vec::new(), false);
    for case in options.cases() {
        let mut rows = Rows::new(&case);
        for _ in 0..options.rounds {
            for (index, kind) in case.servers.iter().enumerate() {
                match case.take(&kind.start()) {
                    Ok(taken) => rows.add(index, taken),
                    Err(error) => {
                        failed = true;
                        eprintln!("{}, {}: {error}", case.work, kind.name());
                    }
                }
            }
        }
        rows.print();
        done.push(rows.json());
        // The file is written after each case, so that a run that is interrupted keeps its results.
        if let Some(path) = &options.json {
            let text = serde_json::to_string_pretty(&results(&options, &done)).unwrap_or_default();
            fs::write(path, text + "\n").expect("the file of --json can be written");
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

impl Options {
    fn cases(&self) -> Vec<Case> {
        let of = |work: &Work| {
            let mut cases = work.cases(self.shards);
            let one = [self.subscribers, self.size, self.rate, self.channels];
            if work.is_fan_out() && one.iter().any(Option::is_some) {
                cases.truncate(1);
                cases.iter_mut().for_each(|case| case.load = Load::default());
            }
            cases.iter_mut().for_each(|case| self.adapt(&mut case.load));
            cases
        };
        self.work.iter().flat_map(of).collect()
    }

    fn adapt(&self, load: &mut Load) {
        let own = load.channels == load.connections;
        let set = |value: &mut u32, wanted: Option<u32>| *value = wanted.unwrap_or(*value);
        set(&mut load.connections, self.subscribers);
        set(&mut load.size, self.size);
        set(&mut load.rate, self.rate);
        // A load with a channel for each connection keeps one for each.
        let channels = if own && load.connections > 1 { load.connections } else { load.channels };
        load.channels = self.channels.unwrap_or(channels);
        load.seconds = self.seconds.unwrap_or(load.seconds);
    }
}

/// All results, with the host that they were measured on.
fn results(options: &Options, cases: &[Value]) -> Value {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| word != "--bench").collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "unix_time": since.as_secs(),
        "kernel": kernel.trim(),
        "cpu": model,
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "arguments": arguments,
        "rounds": options.rounds,
        "cases": cases,
    })
}
