//! The results of the rounds: minimum and median of each server, and ratios.

use serde_json::{Value, json};

use crate::case::{Case, Cores, Read, Taken};
use crate::host;
use crate::load::Load;
use crate::server::Kind;

/// The share of its cores from which on the generator may be the bottleneck.
const FULL: f64 = 0.9;

/// The number of cores in use by others from which on the figures are doubtful.
const BUSY: f64 = 0.2;

/// The measurements of each server of a case, round by round.
pub(crate) struct Rows<'a> {
    case: &'a Case,
    /// The measurements, by server.
    taken: Vec<Vec<Taken>>,
    /// System calls per unit of work, by server; `None` if they were not counted.
    calls: Vec<Option<f64>>,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(case: &'a Case) -> Self {
        let taken = case.servers.iter().map(|_| Vec::new()).collect();
        Self { case, taken, calls: vec![None; case.servers.len()] }
    }

    pub(crate) fn add(&mut self, server: usize, taken: Taken) {
        self.taken[server].push(taken);
    }

    pub(crate) fn set_calls(&mut self, server: usize, calls: f64) {
        self.calls[server] = Some(calls);
    }

    pub(crate) fn print(&self) {
        let title = format!("{}: {}", self.case.work, told(self.case));
        let ratios = if self.is_scaling() { "share of linear" } else { "against it" };
        let calls = format!("calls per {}", self.case.counted());
        for (index, name) in self.names().into_iter().enumerate() {
            println!(
                "\n{title}\n  {name:<24} {:>10} {:>10}   {ratios:<15}  {calls}",
                "min", "median"
            );
            for (server, kind) in self.case.servers.iter().enumerate() {
                let (min, median) = self.statistics(server, index);
                let ratio = self.ratio(server, index);
                let ratios = format!("{:6.2}x {:6.2}x", ratio.0, ratio.1);
                let ratios = if server == 0 { String::new() } else { ratios };
                let count = self.calls[server];
                let count =
                    count.map_or_else(|| "not counted".to_owned(), |calls| format!("{calls:.2}"));
                let width = calls.len();
                println!(
                    "  {:<24} {min:>10.2} {median:>10.2}   {ratios:<15}  {count:<width$}  {}",
                    kind.name(),
                    self.cores(server)
                );
            }
        }
        if let Some(note) = &self.case.note {
            println!("  {note}");
        }
    }

    /// All values of all rounds.
    pub(crate) fn json(&self) -> Value {
        let figures = |server: usize| {
            let names = self.names().into_iter().enumerate();
            let figure = |(index, name): (usize, &str)| {
                let (min, median) = self.statistics(server, index);
                let values = self.values(server, index);
                let (ratio_min, ratio_median) = self.ratio(server, index);
                let ratio = json!({ "min": ratio_min, "median": ratio_median });
                let key = if self.is_scaling() { "share_of_linear" } else { "first_against_this" };
                json!({ "figure": name, "values": values, "min": min, "median": median,
                        key: ratio })
            };
            names.map(figure).collect::<Vec<_>>()
        };
        let server = |(index, kind): (usize, &Kind)| {
            let cores = self.taken[index].iter().map(|taken| {
                let Cores { server, generator, others } = taken.cores;
                json!({ "server": server, "generator": generator, "others": others })
            });
            json!({ "server": kind.name(), "figures": figures(index),
                    "system_calls": self.calls[index], "cores": cores.collect::<Vec<_>>() })
        };
        let load = &self.case.load;
        json!({
            "work": self.case.work,
            "load": {
                "scenario": load.scenario, "connections": load.connections,
                "connections_per_shard": self.case.connections_per_shard,
                "channels": load.channels, "kind": load.kind, "publishers": load.publishers,
                "rate": load.rate, "size": load.size, "batch": load.batch,
                "seconds": load.seconds, "more": load.more,
            },
            "system_calls_per": self.case.counted(),
            "servers": self.case.servers.iter().enumerate().map(server).collect::<Vec<_>>(),
            "note": self.case.note,
        })
    }

    /// Whether the servers differ by their cores, so that they are compared by the speed of each.
    fn is_scaling(&self) -> bool {
        matches!(self.case.read, Read::Throughput(_))
    }

    /// The ratio of the first server to this one, by minimum and median. For a speed it is that of
    /// this one to the first, core by core.
    fn ratio(&self, server: usize, figure: usize) -> (f64, f64) {
        let (first, this) = (self.statistics(0, figure), self.statistics(server, figure));
        let is_speed = self.taken[0].first().is_some_and(|taken| taken.figures[figure].is_speed);
        if !is_speed {
            return (first.0 / this.0, first.1 / this.1);
        }
        let cores = |server: usize| self.case.servers[server].cores() as f64;
        let times = cores(server) / cores(0);
        (this.0 / first.0 / times, this.1 / first.1 / times)
    }

    fn names(&self) -> Vec<&'static str> {
        let first = self.taken.first().and_then(|rounds| rounds.first());
        first.map_or_else(Vec::new, |taken| taken.figures.iter().map(|f| f.name).collect())
    }

    fn values(&self, server: usize, figure: usize) -> Vec<f64> {
        self.taken[server].iter().map(|taken| taken.figures[figure].value).collect()
    }

    /// Minimum and median.
    fn statistics(&self, server: usize, figure: usize) -> (f64, f64) {
        let mut values = self.values(server, figure);
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => f64::NAN,
            len if len % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        (values.first().copied().unwrap_or(f64::NAN), median)
    }

    fn cores(&self, server: usize) -> String {
        let rounds = &self.taken[server];
        let mean =
            |of: fn(&Taken) -> f64| rounds.iter().map(of).sum::<f64>() / rounds.len().max(1) as f64;
        let generator = mean(|taken| taken.cores.generator);
        let others = mean(|taken| taken.cores.others);
        let mut text =
            format!("cores: server {:.2}, generator {generator:.2}", mean(|t| t.cores.server));
        let generator_cores = host::cores() - self.case.servers[server].cores();
        if generator >= FULL * generator_cores as f64 {
            text.push_str(" (full)");
        }
        if others >= BUSY {
            text.push_str(&format!(", OTHERS {others:.2}"));
        }
        text
    }
}

fn told(case: &Case) -> String {
    let Load { connections, channels, kind, size, batch, more, .. } = case.load;
    let mut parts = Vec::new();
    if connections > 0 {
        let s = if channels == 1 { "" } else { "s" };
        let each = if case.connections_per_shard { " per shard" } else { "" };
        parts.push(format!("{connections} connections{each}, {channels} {kind} channel{s}"));
    }
    match case.load.rate {
        _ if case.load.scenario == "connect" => {}
        0 => parts.push(format!("closed loop, {size} B")),
        rate => parts.push(format!("{rate}/s, {size} B")),
    }
    if batch > 1 {
        parts.push(format!("{batch} events per request"));
    }
    if let ["--in-flight", number] = *more {
        parts.push(format!("{number} under way"));
    }
    parts.join(", ")
}
