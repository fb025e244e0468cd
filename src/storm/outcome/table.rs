//! An outcome as a table of text.

use std::fmt::Write;

use super::{Latency, ServerProcess, StormOutcome};
use crate::duration_text::duration_text;

impl StormOutcome {
    /// The summary, a line per figure.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = SummaryTable::default();
        let c = &self.connections;
        table.row("connections", &format!("{} held, {} failed, {} cut", c.held, c.failed, c.cut));
        if c.away + c.retried > 0 {
            let text = format!("{} begun again elsewhere, {} never came back", c.retried, c.away);
            table.row("failover", &text);
        }
        table.row("ramp", &format!("{:.2} s, {:.0} handshakes/s", c.ramp_s, c.ramp_per_s));
        if c.churn_per_s >= 0.5 {
            table.row("churn", &format!("{} handshakes, {:.0}/s", c.handshakes, c.churn_per_s));
        }
        if c.slow > 0 {
            let text = format!("{} stopped reading, {} of them closed", c.slow, c.slow_closed);
            table.row("slow", &text);
        }
        for (round, seconds) in self.rounds_s.iter().enumerate() {
            table.row(&format!("round {}", round + 1), &format!("all back after {seconds:.2} s"));
        }
        table.latency("handshake", self.handshake_us.as_ref());
        self.message_rows(&mut table);
        if let Some(m) = &self.members {
            let unanswered = m.unanswered;
            let text = format!(
                "{} ghosts, {} absent, {unanswered} lists missing, at {} nodes after {:.1} s",
                m.ghosts, m.absent, m.nodes, m.settled_s,
            );
            table.row("members", &text);
        }
        self.cost_rows(&mut table);
        for (problem, times) in &self.problems {
            table.row("problem", &format!("{times} x {}", problem.trim()));
        }
        table.row("verdict", if self.passed { "passed" } else { "FAILED" });
        table.0
    }

    fn message_rows(&self, table: &mut SummaryTable) {
        let m = &self.messages;
        if m.sent + m.unpublished + m.unknown + m.unsent == 0 {
            return;
        }
        table.row("sent", &format!("{} messages, {:.0}/s", m.sent, m.sent_per_s));
        table.row("delivered", &format!("{}, {:.0}/s", m.delivered, m.delivered_per_s));
        let bad = format!("{}, {} duplicated, {} reordered", m.lost, m.duplicated, m.reordered);
        table.row("lost", &bad);
        if m.missed_away > 0 {
            table.row("missed away", &format!("{}, which were not owed", m.missed_away));
        }
        if m.refused > 0 {
            let by_status = m.refusals.iter().map(|(status, count)| format!("{count} x {status}"));
            let text = format!("for the time being: {}", by_status.collect::<Vec<_>>().join(", "));
            table.row("refused", &text);
        }
        let undone = m.unpublished + m.unknown + m.unsent;
        if undone > 0 {
            let [refused, unknown] = [m.unpublished, m.unknown];
            let text = format!(
                "{undone}: {refused} refused, {unknown} without a response, {} unsent",
                m.unsent
            );
            table.row("not accepted", &text);
        }
        table.latency("delivery", self.latency_us.as_ref());
        table.latency("publish", self.publish_us.as_ref());
    }

    fn cost_rows(&self, table: &mut SummaryTable) {
        if let Some(server) = &self.server {
            table.row("server CPU", &format!("{:.2} cores while the scenario ran", server.cores));
            for (name, cost) in [
                ("  per handshake", server.cpu_us_per_handshake),
                ("  per turnover", server.cpu_us_per_churn),
                ("  per message", server.cpu_us_per_message),
                ("  per delivery", server.cpu_us_per_delivery),
            ] {
                if let Some((user, system)) = cost {
                    let sum = user + system;
                    let text = format!("{sum:.2} us (user {user:.2}, system {system:.2})");
                    table.row(name, &text);
                }
            }
            let per = server.bytes_per_connection;
            let per =
                per.map_or_else(String::new, |bytes| format!("{bytes:.0} B per connection: "));
            let (before, held, end) = (server.memory_before, server.memory_held, server.memory_end);
            table.row(
                "server memory",
                &format!(
                    "{per}{:.1} MiB before, {:.1} with all connections, {:.1} at the end",
                    mib(before),
                    mib(held),
                    mib(end),
                ),
            );
        }
        if self.servers.len() > 1 {
            for process in &self.servers {
                table.row("  of a process", &process.text());
            }
        }
        if let Some(host) = self.storm.host_bytes_per_connection {
            table.row(
                "host memory",
                &format!(
                    "{host:.0} B per connection, both ends (kernel objects {}, storm {})",
                    known(self.storm.slab_bytes_per_connection),
                    known(self.storm.bytes_per_connection),
                ),
            );
        }
        let per = self.storm.cpu_us_per_delivery;
        let per = per.map_or_else(String::new, |us| format!(", {us:.2} us per delivery"));
        table.row(
            "storm CPU",
            &format!("{:.2} cores while the scenario ran{per}", self.storm.cores),
        );
    }
}

impl ServerProcess {
    fn text(&self) -> String {
        format!(
            "{}{:.2} cores, {:.1} MiB before, {:.1} with all connections, {:.1} at the end",
            self.url
                .as_ref()
                .map_or_else(|| format!("{}: ", self.pid), |url| format!("{} ({url}): ", self.pid)),
            self.cores,
            mib(self.memory_before),
            mib(self.memory_held),
            mib(self.memory_end),
        )
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A figure as text. A figure that could not be measured is not shown as zero.
fn known(bytes: Option<f64>) -> String {
    bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("{bytes:.0}"))
}

/// The lines of the summary, each a name and a text.
#[derive(Default)]
struct SummaryTable(String);

impl SummaryTable {
    fn row(&mut self, name: &str, text: &str) {
        // Writing to memory cannot fail.
        let _written = writeln!(self.0, "  {name:<16} {text}");
    }

    fn latency(&mut self, name: &str, latency: Option<&Latency>) {
        if let Some(l) = latency {
            let [p50, p90, p99, p999, max] =
                [l.p50, l.p90, l.p99, l.p999, l.max].map(duration_text);
            let text = format!("p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, max {max}");
            self.row(name, &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_leaves_out_what_did_not_happen_and_names_what_went_wrong() {
        let quiet = StormOutcome { passed: true, ..StormOutcome::default() }.table();
        for absent in ["sent", "slow", "round", "server", "problem", "churn"] {
            assert!(!quiet.contains(absent), "{absent}: {quiet}");
        }
        assert!(quiet.contains("passed"));
        let mut failed = StormOutcome::default();
        failed.messages.sent = 10;
        failed.messages.lost = 3;
        failed.problems.insert("cut: reset".to_owned(), 2);
        let failed = failed.table();
        assert!(failed.contains("lost             3,") && failed.contains("2 x cut: reset"));
        assert!(failed.contains("FAILED"));
    }
}
