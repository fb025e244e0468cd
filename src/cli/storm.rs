//! Floor 9. `ringwave storm`: puts a server under load and reports how it did. The exit code is 0
//! if nothing was lost, 1 if anything was, 64 if the flags contradict each other, 69 if no server
//! listens, and 78 if this host cannot run a storm.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ringwave_storm::{
    ChannelAccess, HostLimits, Sample, Scenario, SourceAddresses, StormError, StormOutcome,
    StormPlan, TargetServer,
};

use crate::config::{DEVELOPMENT, WITHHELD};
use crate::server::limits;
use crate::server::preflight::{self, HostSurvey};

use super::exit::{EXIT_CONFIG, EXIT_UNAVAILABLE, EXIT_USAGE};

/// A message was lost, duplicated, reordered, not accepted or not sent, or a connection failed or
/// was cut.
const EXIT_LOST: u8 = 1;

/// The arguments of `storm`: the plan of the storm, and its server.
#[derive(Args)]
pub(super) struct StormArgs {
    /// The part of the server to put under load
    #[arg(value_enum)]
    scenario: Scenario,
    /// Server, as ws://host:port[/prefix]; given several times, connections and publishers spread
    /// over the nodes, and every message is owed to the subscribers at all of them
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080")]
    url: Vec<String>,
    /// Id of the app
    #[arg(long, default_value = DEVELOPMENT.id)]
    app_id: String,
    /// Key of the app
    #[arg(long, default_value = DEVELOPMENT.key)]
    key: String,
    /// Secret of the app
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
    kind: Option<ChannelAccess>,
    /// API connections that publish, or subscribers that send client events [default: 1; connect,
    /// churn, reconnect: 0]
    #[arg(short = 'p', long, value_name = "M")]
    publishers: Option<u32>,
    /// Messages per second of all publishers together; 0: each sends the next request as soon as
    /// the last one is answered
    #[arg(short, long, value_name = "PER_SECOND", default_value_t = 10.0)]
    rate: f64,
    /// Events per request; with more than 1, the batch API is used
    #[arg(long, value_name = "EVENTS", default_value_t = 1)]
    batch: u32,
    /// Bytes of data per message
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    size: u32,
    /// Send each publish on a connection of its own
    #[arg(long)]
    fresh: bool,
    /// Repeat publishes that are answered 429 or 503 after their Retry-After, at the next --url
    #[arg(long)]
    retry: bool,
    /// Let connections that are cut return, to the next --url. Cuts and publishes without a
    /// response do not fail the storm then
    #[arg(long)]
    failover: bool,
    /// Bytes of the user_info of each presence member; 0: none
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    user_info: u32,
    /// Seconds for which the scenario runs
    #[arg(short, long, value_name = "SECONDS", default_value_t = 10.0)]
    duration: f64,
    /// New connections per second; 0: as fast as --in-flight allows
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.0)]
    ramp: f64,
    /// Handshakes that are under way at a time [default: 1000; reconnect: all]
    #[arg(long, value_name = "N")]
    in_flight: Option<u32>,
    /// Threads with a ring each; 0: half as many as cores. More are started if the limit of open
    /// files demands it
    #[arg(long, value_name = "N", default_value_t = 0)]
    rings: u32,
    /// Source addresses, as a.b.c.d[/bits] [default: many of 127.0.0.0/8 for a server on the
    /// loopback, otherwise the address that the kernel chooses]
    #[arg(long, value_name = "RANGE")]
    source: Option<String>,
    /// slow: share of the subscribers that stop reading
    #[arg(long, value_name = "0..1", default_value_t = 0.1)]
    slow_share: f64,
    /// reconnect: how often all connections drop and return
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u32,
    /// churn: connections that leave per second; 0: each leaves as soon as it is subscribed
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.0)]
    turnover: f64,
    /// Seconds of silence after which a connection pings; 0: the activity timeout of the server
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0)]
    ping: f64,
    /// Seconds without progress after which the storm stops waiting for handshakes, or for messages
    /// that are still owed
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    grace: f64,
    /// presence: seconds within which, at the end, every node has to list exactly the members that
    /// are connected; a connection that was cut returns as another user
    #[arg(long, value_name = "SECONDS")]
    ghosts: Option<f64>,
    /// Process of the server, to report its CPU time and memory; once for each --url
    #[arg(long)]
    pid: Vec<u32>,
    /// Print a line of progress every ten seconds if stderr is no terminal
    #[arg(long)]
    progress: bool,
    /// Print the outcome as JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Write the outcome to this file as an HTML page with plots
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// Runs the storm, prints its outcome, and returns the exit code.
pub(super) fn run(arguments: StormArgs) -> ExitCode {
    limits::raise_nofile();
    let host = match preflight::check() {
        Ok(host) => host,
        Err(error) => return refused(EXIT_CONFIG, &error.to_string()),
    };
    let (json, lines, report) = (arguments.json, arguments.progress, arguments.report.clone());
    let plan = match arguments.plan(&host) {
        Ok(plan) => plan,
        Err(error) => return refused(EXIT_USAGE, &error),
    };
    let mut progress = ProgressLine::new(lines);
    let outcome = ringwave_storm::run(&plan, &mut |stage, sample| progress.show(stage, sample));
    progress.clear();
    match outcome {
        Ok(outcome) => print_outcome(&outcome, json, report.as_deref()),
        Err(error @ (StormError::Plan(_) | StormError::NoProcess(_))) => {
            refused(EXIT_USAGE, &error.to_string())
        }
        Err(error @ StormError::NoServer(..)) => refused(EXIT_UNAVAILABLE, &error.to_string()),
        Err(error) => refused(EXIT_CONFIG, &error.to_string()),
    }
}

/// The command line for the report, so that it can be given again. The app's secret is withheld.
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

/// A word of a command line, quoted for a shell if it needs that.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+[]".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl StormArgs {
    fn plan(self, host: &HostSurvey) -> Result<StormPlan, String> {
        let scenario = self.scenario;
        let target = TargetServer::new(&self.url, &self.app_id, &self.key, &self.secret);
        let target = target.map_err(|error| error.to_string())?;
        let run = getrandom::u32()
            .map_err(|error| format!("the system has no random numbers: {error}"))?;
        let connections =
            self.connections.unwrap_or(if scenario == Scenario::Publish { 0 } else { 1000 });
        let quiet = matches!(scenario, Scenario::Connect | Scenario::Churn | Scenario::Reconnect);
        let publishers = if quiet { 0 } else { 1 };
        let in_flight = if scenario == Scenario::Reconnect { connections.max(1) } else { 1000 };
        let default_kind = if scenario == Scenario::Whisper {
            ChannelAccess::Private
        } else {
            ChannelAccess::Public
        };
        let sources = match &self.source {
            Some(text) => {
                text.parse::<SourceAddresses>().map_err(|error| format!("--source: {error}"))?
            }
            None if target.address(0).ip().is_loopback() && target.address(0).is_ipv4() => {
                SourceAddresses::loopback(connections, run)
            }
            None => SourceAddresses::Any,
        };
        Ok(StormPlan {
            command: command_line(
                std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()),
            ),
            scenario,
            target,
            run,
            connections,
            channels: self.channels,
            access: self.kind.unwrap_or(default_kind),
            publishers: self.publishers.unwrap_or(publishers),
            rate: self.rate,
            batch: self.batch,
            size: self.size,
            fresh: self.fresh,
            retry: self.retry,
            failover: self.failover,
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
            ghosts: self.ghosts.map(|value| seconds("--ghosts", value)).transpose()?,
            pids: self.pid,
            host: HostLimits {
                slots_max: limits::slots_max(host.nofile.soft),
                direct_descriptors: host.direct_descriptors(),
                cores: u32::try_from(host.cores).unwrap_or(1),
            },
        })
    }
}

/// Prints the outcome, writes the report, and returns the exit code.
fn print_outcome(outcome: &StormOutcome, json: bool, report: Option<&Path>) -> ExitCode {
    let text = if json {
        serde_json::to_string(outcome).unwrap_or_default() + "\n"
    } else {
        format!("\n  {}\n{}\n", outcome.scenario, outcome.table())
    };
    // A reader of stdout that has left does not change the verdict.
    let _closed = io::stdout().write_all(text.as_bytes());
    if let Some(path) = report
        && let Err(error) = std::fs::write(path, ringwave_storm::html(outcome))
    {
        return refused(EXIT_USAGE, &format!("cannot write {}: {error}", path.display()));
    }
    if outcome.passed { ExitCode::SUCCESS } else { ExitCode::from(EXIT_LOST) }
}

fn refused(code: u8, error: &str) -> ExitCode {
    eprintln!("ringwave: {error}");
    ExitCode::from(code)
}

fn seconds(flag: &str, value: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(value)
        .map_err(|error| format!("{flag} {value} is not a number of seconds: {error}"))
}

/// The progress of a storm: one line on a terminal, or a line every ten seconds elsewhere.
struct ProgressLine {
    terminal: bool,
    lines: bool,
    /// The second of the storm at which the next line is due.
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
