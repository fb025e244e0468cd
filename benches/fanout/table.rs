//! The results of the rounds: minimum and median of each server, and ratios.

use serde_json::{Value, json};

use crate::load::{Load, generator_cores};
use crate::server::Kind;
use crate::works::{Case, Cores, Taken};

/// The share of its cores from which on the generator may be the bottleneck.
const FULL: f64 = 0.9;

/// The number of cores in use by others from which on the figures are doubtful.
const BUSY: f64 = 0.2;

/// The measurements of each server of a case, round by round.
pub(crate) struct Rows<'a> {
    case: &'a Case,
    /// The measurements, by server.
    taken: Vec<Vec<Taken>>,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(case: &'a Case) -> Self {
        Self { case, taken: case.servers.iter().map(|_| Vec::new()).collect() }
    }

    pub(crate) fn add(&mut self, server: usize, taken: Taken) {
        self.taken[server].push(taken);
    }

    pub(crate) fn print(&self) {
        let title = format!("{}: {}", self.case.work, told(&self.case.load));
        for (index, name) in self.names().into_iter().enumerate() {
            println!("\n{title}\n  {name:<24} {:>9} {:>9}   against it", "min", "median");
            let first = self.statistics(0, index);
            for (server, kind) in self.case.servers.iter().enumerate() {
                let (min, median) = self.statistics(server, index);
                let ratios = format!("{:6.2}x {:6.2}x", first.0 / min, first.1 / median);
                let ratios = if server == 0 { String::new() } else { ratios };
                println!(
                    "  {:<24} {min:>9.2} {median:>9.2}   {ratios:<15}  {}",
                    kind.name(),
                    self.cores(server)
                );
            }
        }
    }

    /// All values of all rounds.
    pub(crate) fn json(&self) -> Value {
        let figures = |server: usize| {
            let names = self.names().into_iter().enumerate();
            let figure = |(index, name): (usize, &str)| {
                let (min, median) = self.statistics(server, index);
                let values = self.values(server, index);
                let first = self.statistics(0, index);
                let ratio = json!({ "min": first.0 / min, "median": first.1 / median });
                json!({ "figure": name, "values": values, "min": min, "median": median,
                        "first_against_this": ratio })
            };
            names.map(figure).collect::<Vec<_>>()
        };
        let server = |(index, kind): (usize, &Kind)| {
            let cores = self.taken[index].iter().map(|taken| {
                let Cores { server, generator, others } = taken.cores;
                json!({ "server": server, "generator": generator, "others": others })
            });
            json!({ "server": kind.name(), "figures": figures(index),
                    "cores": cores.collect::<Vec<_>>() })
        };
        let load = &self.case.load;
        json!({
            "work": self.case.work,
            "load": {
                "scenario": load.scenario, "connections": load.connections,
                "channels": load.channels, "kind": load.kind, "publishers": load.publishers,
                "rate": load.rate, "size": load.size, "batch": load.batch,
                "seconds": load.seconds, "more": load.more,
            },
            "servers": self.case.servers.iter().enumerate().map(server).collect::<Vec<_>>(),
        })
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
        if generator >= FULL * generator_cores() as f64 {
            text.push_str(" (full)");
        }
        if others >= BUSY {
            text.push_str(&format!(", OTHERS {others:.2}"));
        }
        text
    }
}

fn told(load: &Load) -> String {
    let Load { connections, channels, kind, size, batch, .. } = *load;
    let mut parts = Vec::new();
    if connections > 0 {
        let s = if channels == 1 { "" } else { "s" };
        parts.push(format!("{connections} connections, {channels} {kind} channel{s}"));
    }
    match load.rate {
        _ if load.scenario == "connect" => {}
        0 => parts.push(format!("closed loop, {size} B")),
        rate => parts.push(format!("{rate}/s, {size} B")),
    }
    if batch > 1 {
        parts.push(format!("{batch} events per request"));
    }
    parts.join(", ")
}
