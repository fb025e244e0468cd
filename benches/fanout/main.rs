//! The cost of the gateway's work beside the least possible cost. In one interleaved run, the
//! gateway, a **floor** (a bare `io_uring` program that does only what the kernel demands) and, if
//! asked for, a server on **uWebSockets** bear the same load from the same generator, `ringwave
//! storm`. Servers are pinned to core 0, the generator to all others. A round starts each server
//! anew; printed are minimum and median of the rounds, and their ratios between the gateway and
//! each of the others. CPU time counts the whole server process, kernel included.
//!
//! A round of its own counts the system calls of each server with `perf stat`, per handshake,
//! request or message (with all of its deliveries). Where perf cannot count, the column says so.
//!
//! Servers have no real-time priority, so neither has this: run it without `chrt`, on a host that
//! has nothing else to do. The cores that others used meanwhile are printed as OTHERS. Before the
//! results stands what they depend on: host, kernel, governor, priority, rounds and command.
//!
//! `--work shards` puts shards onto cores of their own, as far as the host has them, and prints the
//! share of linear: the speed of each core, against that of one shard on one core.
//!
//! `cargo bench --bench fanout -- --help` tells the kinds of work. A load that a server did not
//! bear without loss makes the exit code 1; speed never does.

#![allow(clippy::expect_used, reason = "a bench that cannot measure says why and ends")]

mod case;
mod floor;
mod host;
mod load;
mod server;
mod syscalls;
mod table;
mod uwebsockets;
mod works;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use serde_json::{Value, json};

use case::Case;
use host::Host;
use load::Load;
use server::Kind;
use table::Rows;
use works::Work;

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
    /// Add a server on uWebSockets, which takes a C++ compiler and libclang to build
    #[arg(long)]
    uwebsockets: bool,
    /// Leave out the round that counts system calls
    #[arg(long)]
    no_calls: bool,
    /// Write all values of all rounds to a file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write them to a new file of this name in benches/results, beside those of earlier runs
    #[arg(long, value_name = "NAME", conflicts_with = "json")]
    record: Option<String>,
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
    assert!(host::cores() >= 2, "one core for the server, and at least one for the load");
    let run = Run::new(&options);
    run.print();
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
        if run.counting.is_ok() {
            count(&case, &mut rows);
        }
        rows.print();
        done.push(rows.json());
        run.write(&done);
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Counts the system calls of each server of a case. A server that is watched may be too slow for
/// a load that it bears otherwise, so a failure here is none of the server's.
fn count(case: &Case, rows: &mut Rows<'_>) {
    for (index, kind) in case.servers.iter().enumerate() {
        match case.count(&kind.start()) {
            Ok(calls) => rows.set_calls(index, calls),
            Err(error) => eprintln!("{}, {}: not counted: {error}", case.work, kind.name()),
        }
    }
}

/// This run of the bench.
struct Run {
    host: Host,
    command: String,
    rounds: usize,
    /// Whether system calls are counted, or why they are not.
    counting: Result<(), String>,
    /// The file for the results.
    file: Option<PathBuf>,
}

impl Run {
    /// Prepares the files and the server that the options ask for, so that a run does not fail when
    /// it is over.
    fn new(options: &Options) -> Self {
        if options.uwebsockets {
            uwebsockets::build().expect("uWebSockets builds (benches/uwebsockets)");
        }
        let words = std::env::args().skip(1).filter(|word| word != "--bench");
        let command = ["cargo bench --bench fanout --".to_owned()].into_iter().chain(words);
        let not_wanted = || Err("--no-calls".to_owned());
        Self {
            host: Host::this(),
            command: command.collect::<Vec<_>>().join(" "),
            rounds: options.rounds,
            counting: if options.no_calls { not_wanted() } else { syscalls::can_count() },
            file: options.json.clone().or_else(|| options.record.as_deref().map(new_record)),
        }
    }

    fn print(&self) {
        let commit = host::commit().map_or(String::new(), |commit| format!(" ({commit})"));
        println!("ringwave {}{commit}: {}", env!("CARGO_PKG_VERSION"), self.command);
        self.host.print();
        let counting = match &self.counting {
            Ok(()) => "counted by perf stat, in one more round".to_owned(),
            Err(why) => format!("not counted ({why})"),
        };
        let s = if self.rounds == 1 { "" } else { "s" };
        println!("{} round{s}; system calls: {counting}", self.rounds);
    }

    /// Writes the results of the cases so far, so that a run that is interrupted keeps them.
    fn write(&self, cases: &[Value]) {
        let Some(path) = &self.file else { return };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let results = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "commit": host::commit(),
            "unix_time": since.as_secs(),
            "host": self.host.json(),
            "command": self.command,
            "rounds": self.rounds,
            "cases": cases,
        });
        let text = serde_json::to_string_pretty(&results).unwrap_or_default();
        fs::write(path, text + "\n").expect("the file for the results can be written");
    }
}

/// A new file among the results of this version. Results of an earlier run are never overwritten.
fn new_record(name: &str) -> PathBuf {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results");
    let path = results.join(env!("CARGO_PKG_VERSION")).join(name).with_extension("json");
    File::create_new(&path).expect("there are no results of this name yet");
    path
}

impl Options {
    fn cases(&self) -> Vec<Case> {
        let peers: &[Kind] = if self.uwebsockets { &[Kind::UWebSockets] } else { &[] };
        let of = |work: &Work| {
            let mut cases = work.cases(self.shards, peers);
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
