//! Floor 8. `ringwave storm`: puts a server under load and reports the outcome. Exit code 0 if
//! nothing was lost, 1 if anything was, 64 if the flags contradict each other, 69 if no server
//! answers, 78 if the host cannot run it.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::config::{DEVELOPMENT, WITHHELD};
use crate::server::limits;
use crate::server::preflight::{self, HostSurvey};
use crate::storm::{
    self, Kind, Outcome, Plan, Room, Sample, Scenario, Sources, StormError, Target,
};

use super::exit::{EXIT_CONFIG, EXIT_SOFTWARE, EXIT_UNAVAILABLE, EXIT_USAGE};

/// Messages were lost, doubled or out of order, or connections were cut or refused.
const EXIT_LOST: u8 = 1;

/// The arguments of `storm`: the plan, and the server to put under load.
#[derive(Args)]
pub(super) struct StormArgs {
    /// The kind of load
    #[arg(value_enum)]
    scenario: Scenario,
    /// The server, as ws://host:port[/prefix]; several take turns
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080")]
    url: Vec<String>,
    /// The app's id
    #[arg(long, default_value = DEVELOPMENT.id)]
    app_id: String,
    /// The app's key
    #[arg(long, default_value = DEVELOPMENT.key)]
    key: String,
    /// The app's secret
    #[arg(long, default_value = DEVELOPMENT.secret)]
    secret: String,
    /// Subscribers [default: 1000; publish: 0]
    #[arg(short = 'n', long, value_name = "N")]
    connections: Option<u32>,
    /// Channels that the subscribers are spread over
    #[arg(short, long, value_name = "C", default_value_t = 1)]
    channels: u32,
    /// Kind of the channels [default: public; whisper: private]
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// API connections that publish, or subscribers that whisper [default: 1; connect, churn,
    /// reconnect: 0]
    #[arg(short = 'p', long, value_name = "M")]
    publishers: Option<u32>,
    /// Messages per second of all publishers together; 0: closed loop
    #[arg(short, long, value_name = "PER_SECOND", default_value_t = 10.0)]
    rate: f64,
    /// Events per request, by the batch API
    #[arg(long, value_name = "EVENTS", default_value_t = 1)]
    batch: u32,
    /// Bytes of data per message
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    size: u32,
    /// Publish each request on a connection of its own
    #[arg(long)]
    fresh: bool,
    /// Bytes of the user_info of each presence member; 0: none
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    user_info: u32,
    /// Seconds that the scenario runs
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10.0)]
    duration: f64,
    /// New connections per second; 0: as fast as --in-flight lets them
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.0)]
    ramp: f64,
    /// Handshakes under way at a time [default: 1000; reconnect: all]
    #[arg(long, value_name = "N")]
    in_flight: Option<u32>,
    /// Threads with a ring each; more are used if the limit of open files requires them
    #[arg(long, value_name = "N", default_value_t = 0)]
    rings: u32,
    /// Source addresses of connections, as a.b.c.d[/bits] [default: many of 127.0.0.0/8 to a
    /// loopback server, else the host's]
    #[arg(long, value_name = "RANGE")]
    source: Option<String>,
    /// slow: share of subscribers that stop reading
    #[arg(long, value_name = "0..1", default_value_t = 0.1)]
    slow_share: f64,
    /// reconnect: how often all drop and return
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u32,
    /// churn: connections that leave per second; 0: each as soon as it is subscribed
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.0)]
    turnover: f64,
    /// Seconds of silence after which a connection pings; 0: as the server says
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    ping: f64,
    /// Seconds without progress after which connecting, or waiting for messages, is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    grace: f64,
    /// The server's process id: its CPU time and memory are reported
    #[arg(long)]
    pid: Option<u32>,
    /// Print progress as a line every ten seconds if stderr is not a terminal
    #[arg(long)]
    progress: bool,
    /// Print the outcome as JSON instead of the table
    #[arg(long)]
    json: bool,
    /// Write the outcome as an HTML page with plots
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Runs the storm and prints the outcome.
pub(super) fn run(arguments: StormArgs) -> ExitCode {
    limits::raise_nofile();
    let host = match preflight::check() {
        Ok(host) => host,
        Err(error) => return refused(EXIT_CONFIG, &format!("{error}\n{}", error.remedy())),
    };
    let (json, lines, report) = (arguments.json, arguments.progress, arguments.report.clone());
    let plan = match arguments.plan(&host) {
        Ok(plan) => plan,
        Err(error) => return refused(EXIT_USAGE, &error),
    };
    let mut progress = ProgressLine::new(lines);
    let outcome = storm::run(&plan, &mut |stage, sample| progress.show(stage, sample));
    progress.clear();
    match outcome {
        Ok(outcome) => report_outcome(&outcome, json, report.as_deref()),
        Err(error @ (StormError::Plan(_) | StormError::NoProcess(_))) => {
            refused(EXIT_USAGE, &error.to_string())
        }
        Err(error @ StormError::NoServer(..)) => refused(EXIT_UNAVAILABLE, &error.to_string()),
        Err(error) => refused(EXIT_CONFIG, &error.to_string()),
    }
}

/// The command line, to be run again, without the secret of the app.
fn command_line(arguments: impl Iterator<Item = String>) -> String {
    let mut words = vec!["ringwave".to_owned()];
    let mut secret_follows = false;
    for argument in arguments {
        words.push(match argument.split_once('=') {
            _ if secret_follows => WITHHELD.to_owned(),
            Some(("--secret", _)) => format!("--secret={WITHHELD}"),
            _ => quoted(&argument),
        });
        secret_follows = argument == "--secret";
    }
    words.join(" ")
}

/// A word of a command line as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl StormArgs {
    fn plan(self, host: &HostSurvey) -> Result<Plan, String> {
        let scenario = self.scenario;
        let target = Target::new(&self.url, &self.app_id, &self.key, &self.secret);
        let target = target.map_err(|error| error.to_string())?;
        let run = run_id().ok_or("the kernel gave no random number")?;
        let connections =
            self.connections.unwrap_or(if scenario == Scenario::Publish { 0 } else { 1000 });
        let quiet = matches!(scenario, Scenario::Connect | Scenario::Churn | Scenario::Reconnect);
        let publishers = if quiet { 0 } else { 1 };
        let in_flight = if scenario == Scenario::Reconnect { connections.max(1) } else { 1000 };
        let default_kind = if scenario == Scenario::Whisper { Kind::Private } else { Kind::Public };
        let sources = match &self.source {
            Some(text) => Sources::parse(text)
                .ok_or_else(|| format!("--source {text} is no a.b.c.d[/bits]"))?,
            None if target.address(0).ip().is_loopback() && target.address(0).is_ipv4() => {
                Sources::loopback(connections, run)
            }
            None => Sources::Any,
        };
        Ok(Plan {
            command: command_line(
                std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()),
            ),
            scenario,
            target,
            run,
            connections,
            channels: self.channels,
            kind: self.kind.unwrap_or(default_kind),
            publishers: self.publishers.unwrap_or(publishers),
            rate: self.rate,
            batch: self.batch,
            size: self.size,
            fresh: self.fresh,
            user_info: self.user_info,
            duration: seconds("--duration", self.duration)?,
            ramp: self.ramp,
            in_flight: self.in_flight.unwrap_or(in_flight),
            rings: self.rings,
            sources,
            slow_share: self.slow_share,
            rounds: self.rounds,
            turnover: self.turnover,
            ping: seconds("--ping", self.ping)?,
            grace: seconds("--grace", self.grace)?,
            pid: self.pid,
            room: Room {
                slots_max: limits::slots_per_shard(host.nofile.soft, Some(limits::SLOTS_MAX)),
                direct_descriptors: host.direct_descriptors(),
                // Saturates: no host has more cores.
                cores: u32::try_from(host.cores).unwrap_or(u32::MAX),
            },
        })
    }
}

/// Prints the outcome and writes the report.
fn report_outcome(outcome: &Outcome, json: bool, report: Option<&Path>) -> ExitCode {
    let text = match json.then(|| serde_json::to_string(outcome)) {
        Some(Ok(text)) => text + "\n",
        Some(Err(error)) => return refused(EXIT_SOFTWARE, &format!("no JSON: {error}")),
        None => format!("\n  {}\n{}\n", outcome.scenario, outcome.table()),
    };
    // A reader that closes the pipe does not change the exit code.
    let _closed = io::stdout().write_all(text.as_bytes());
    if let Some(path) = report
        && let Err(error) = std::fs::write(path, storm::html(outcome))
    {
        return refused(EXIT_USAGE, &format!("{}: {error}", path.display()));
    }
    if outcome.passed { ExitCode::SUCCESS } else { ExitCode::from(EXIT_LOST) }
}

fn refused(code: u8, error: &str) -> ExitCode {
    eprintln!("ringwave: {error}");
    ExitCode::from(code)
}

fn seconds(flag: &str, value: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(value)
        .map_err(|_| format!("{flag} {value} is no number of seconds"))
}

fn run_id() -> Option<u32> {
    getrandom::u32().ok()
}

/// The progress of a storm: one line on a terminal, or a line every ten seconds.
struct ProgressLine {
    terminal: bool,
    lines: bool,
    /// The time at which the next line is due, in seconds of the storm.
    next_s: f64,
}

impl ProgressLine {
    fn new(lines: bool) -> Self {
        Self { terminal: io::stderr().is_terminal(), lines, next_s: 0.0 }
    }

    fn show(&mut self, stage: &str, sample: &Sample) {
        let (begin, end) = if self.terminal {
            ("\r\x1b[K", "")
        } else if self.lines && sample.at_s >= self.next_s {
            self.next_s = sample.at_s + LINE_EVERY_S;
            ("", "\n")
        } else {
            return;
        };
        eprint!(
            "{begin}  {:5.1} s  {stage:<10} {:>8} connections  {:>8.0} deliveries/s  server {:.2} \
             + {:.2} cores  storm {:.2}{end}",
            sample.at_s,
            sample.connections,
            sample.delivered_per_s,
            sample.server_user,
            sample.server_system,
            sample.storm,
        );
    }

    fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

/// Seconds between two lines.
const LINE_EVERY_S: f64 = 10.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn command(arguments: &[&str]) -> String {
        command_line(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    #[test]
    fn the_command_of_a_report_can_be_given_again_and_has_no_secret() {
        assert_eq!(
            command(&["storm", "fanout", "-n", "10", "--report", "it's here.html", ""]),
            r"ringwave storm fanout -n 10 --report 'it'\''s here.html' ''"
        );
        for arguments in [&["storm", "--secret", "s3cret", "-n", "1"][..], &["--secret=s3cret"]] {
            let command = command(arguments);
            assert!(!command.contains("s3cret") && command.contains(WITHHELD), "{command}");
        }
    }
}
