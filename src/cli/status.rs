//! Floor 9. `ringwave status`: the status of the server of this directory, for people or as JSON.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;

use crate::cluster::{ClusterState, ClusterStatus};
use crate::server::admin::{AdminCommand, ask};
use crate::server::status::{ServerState, ServerStatus};

use super::exit::{EXIT_UNAVAILABLE, unanswered};
use super::settings::ServerArgs;

/// The exit code if the server serves, but a shard does not answer.
const EXIT_SILENT: u8 = 1;

/// The server to ask, and the form of the output.
#[derive(Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: StatusArgs) -> ExitCode {
    let answer = match ask(&arguments.server.inputs(), AdminCommand::Status) {
        Ok(answer) => answer,
        Err(error) => return unanswered(&error),
    };
    let status: ServerStatus = match serde_json::from_str(&answer) {
        Ok(status) => status,
        Err(error) => {
            eprintln!(
                "ringwave: the server's answer cannot be understood ({error}): is this ringwave of \
                 the same version?"
            );
            return ExitCode::from(EXIT_UNAVAILABLE);
        }
    };
    let text = if arguments.json { format!("{answer}\n") } else { text(&status) };
    let mut out = io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        return ExitCode::FAILURE;
    }
    let silent = status.silent();
    if silent.is_empty() {
        return ExitCode::SUCCESS;
    }
    let silent: Vec<_> = silent.iter().map(usize::to_string).collect();
    eprintln!(
        "ringwave: shard {} does not answer, so its channels are not counted. If it does not \
         answer later either, its thread hangs: restart the server.",
        silent.join(", ")
    );
    ExitCode::from(EXIT_SILENT)
}

fn text(status: &ServerStatus) -> String {
    let ServerStatus { version, pid, .. } = status;
    let commit = status.commit.as_ref().map(|commit| format!(" ({commit})")).unwrap_or_default();
    let state = match status.state {
        ServerState::Serving => "serving",
        ServerState::Stopping => "stopping",
    };
    let cores: Vec<_> = status.shards.iter().map(|shard| shard.core).collect();
    let mut text = format!("ringwave {version}{commit}, process {pid}, {state}\n\n");
    let mut facts = vec![
        ("up", format!("{}, since {}", duration(status.uptime_s), status.started_at)),
        ("listening on", status.listeners.join(", ")),
        ("connections", status.connections.to_string()),
        ("channels", status.channels.to_string()),
        ("shards", format!("{} {}", cores.len(), crate::server::placement(&cores))),
    ];
    facts.extend(status.cluster.iter().flat_map(cluster_facts));
    for (what, value) in facts {
        // Writing to a string does not fail.
        let _never = writeln!(text, "  {what:<14}{value}");
    }
    let width = status.apps.iter().map(|app| app.id.chars().count()).max().unwrap_or(0).max(3);
    let _never = writeln!(text, "\n  {:<width$}  connections  channels", "app");
    for app in &status.apps {
        let off = if app.enabled { "" } else { "  disabled" };
        let (connections, channels) = (app.connections, app.channels);
        let _never = writeln!(text, "  {:<width$}  {connections:>11}  {channels:>8}{off}", app.id);
    }
    text
}

/// The lines about the cluster.
fn cluster_facts(status: &ClusterStatus) -> Vec<(&'static str, String)> {
    let away = duration(status.away_s.unwrap_or(0));
    let state = match status.state {
        ClusterState::Serving => "serving".to_owned(),
        ClusterState::Away => format!("Redis away for {away}"),
        ClusterState::Alone => format!("Redis away for {away}, serving alone"),
    };
    let ClusterStatus { name, redis, nodes, repeated_calls, backlog_bytes, .. } = status;
    let mut facts = vec![
        ("cluster", format!("{name} at {redis}, {state}")),
        ("nodes", format!("{}: {}", nodes.len(), nodes.join(", "))),
        ("backlog", format!("{backlog_bytes} B, {repeated_calls} calls repeated so far")),
    ];
    let (unreadable, others) = (status.unreadable, status.other_versions);
    if unreadable + others > 0 {
        facts.push(("junk", format!("{unreadable} unreadable, {others} of other versions")));
    }
    facts
}

/// A duration in its two largest units: `3 d 4 h`.
fn duration(seconds: u64) -> String {
    let units = [("d", seconds / 86_400), ("h", seconds / 3600 % 24), ("min", seconds / 60 % 60)];
    let units = units.into_iter().chain([("s", seconds % 60)]);
    let shown = units.skip_while(|&(unit, count)| count == 0 && unit != "s").take(2);
    let shown: Vec<_> = shown.map(|(unit, count)| format!("{count} {unit}")).collect();
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::status::{AppStatus, ShardStatus};

    #[test]
    fn durations_are_told_by_their_two_largest_units() {
        let shown = [0, 59, 61, 3600, 90_000, 86_400 * 30 + 1].map(duration);
        assert_eq!(shown, ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h", "30 d 0 h"]);
    }

    #[test]
    fn the_status_is_a_table_for_people() {
        let app = |id: &str, enabled, connections, channels| AppStatus {
            id: id.to_owned(),
            enabled,
            connections,
            channels,
        };
        let status = ServerStatus {
            version: "0.1.0".to_owned(),
            commit: Some("a006f7575d1b".to_owned()),
            pid: 4711,
            started_at: "2026-01-01T00:00:00Z".to_owned(),
            uptime_s: 61,
            listeners: vec!["0.0.0.0:8080".to_owned()],
            connections: 1234,
            channels: 57,
            apps: vec![app("shop", true, 1234, 57), app("blog-eu", false, 0, 0)],
            shards: vec![ShardStatus { core: Some(0), answered: true, ..ShardStatus::default() }],
            ..ServerStatus::default()
        };
        let expected = "\
ringwave 0.1.0 (a006f7575d1b), process 4711, serving

  up            1 min 1 s, since 2026-01-01T00:00:00Z
  listening on  0.0.0.0:8080
  connections   1234
  channels      57
  shards        1 on cores 0

  app      connections  channels
  shop            1234        57
  blog-eu            0         0  disabled
";
        assert_eq!(text(&status), expected);
    }
}
