//! A load, the servers that bear it in turns, and the figures that are read from it.

use serde_json::Value;

use crate::load::Load;
use crate::server::{Kind, Server};
use crate::syscalls::Calls;

/// One load, and the servers that bear it in turns. The first one is compared with the others.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) work: &'static str,
    pub(crate) load: Load,
    /// Whether the load has its connections once for each core of the server.
    pub(crate) connections_per_shard: bool,
    pub(crate) servers: Vec<Kind>,
    pub(crate) read: Read,
    /// A remark for the reader of its rows.
    pub(crate) note: Option<String>,
}

/// The kind of figures that a case yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// The CPU time of the server per unit of its work.
    Cpu(Unit),
    /// The same, and the units per second.
    Throughput(Unit),
    Memory,
    Slow,
    Latency,
}

/// A unit of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A message that one subscriber gets.
    Delivery,
    /// A request of the API, or a client event.
    Request,
    /// A connection, from its first byte to its subscription.
    Handshake,
}

/// One measured value.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    /// Whether it is a speed, which grows with the cores. Otherwise it is a cost, which does not.
    pub(crate) is_speed: bool,
}

/// The number of cores that each side used.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cores {
    /// The server and the generator, in the half second that kept each busiest.
    pub(crate) server: f64,
    pub(crate) generator: f64,
    /// All other processes of the host, on average: they make figures worse, and messages gather.
    pub(crate) others: f64,
}

/// The measurements of one server in one round.
pub(crate) struct Taken {
    pub(crate) figures: Vec<Figure>,
    pub(crate) cores: Cores,
}

impl Case {
    pub(crate) fn new(work: &'static str, read: Read, servers: &[Kind], load: Load) -> Self {
        let servers = servers.to_vec();
        Self { work, load, connections_per_shard: false, servers, read, note: None }
    }

    /// A case for each load.
    pub(crate) fn each(
        work: &'static str,
        read: Read,
        servers: &[Kind],
        loads: Vec<Load>,
    ) -> Vec<Self> {
        loads.into_iter().map(|load| Self::new(work, read, servers, load)).collect()
    }

    /// Puts a server under the load and returns the figures of the case.
    ///
    /// # Errors
    /// The server did not bear the load.
    pub(crate) fn take(&self, server: &Server) -> Result<Taken, String> {
        let load = self.load_of(server);
        if self.read == Read::Memory {
            warm(server)?;
        }
        let all_read = || Load { scenario: "fanout", more: &[], seconds: 3.0, ..load.clone() };
        let without = (self.read == Read::Slow).then(|| all_read().run(server)).transpose()?;
        let outcome = load.run(server)?;
        let p = |outcome: &Value, name: &str| number(&outcome["latency_us"][name]);
        let figures = match self.read {
            Read::Cpu(unit) => vec![self.cpu(unit, &outcome)],
            Read::Throughput(unit) => vec![speed(unit, &outcome), self.cpu(unit, &outcome)],
            Read::Memory => {
                let bytes = number(&outcome["server"]["bytes_per_connection"]);
                vec![cost("bytes per connection", bytes)]
            }
            Read::Slow => {
                let without = p(&without.unwrap_or_default(), "p99");
                vec![
                    cost("closed for their backlog", slow_closed(&outcome)),
                    cost("growth, MB", growth(&outcome) / 1e6),
                    cost("p99 against without", p(&outcome, "p99") / without),
                ]
            }
            Read::Latency => vec![
                cost("p50, us", p(&outcome, "p50")),
                cost("p99, us", p(&outcome, "p99")),
                cost("p99.9, us", p(&outcome, "p999")),
            ],
        };
        Ok(Taken { figures, cores: Cores::of(&outcome) })
    }

    /// Puts a server under the load and returns its system calls per unit of
    /// [`counted`](Self::counted).
    ///
    /// # Errors
    /// The server did not bear the load, or nothing was counted.
    pub(crate) fn count(&self, server: &Server) -> Result<f64, String> {
        let (outcome, Calls { opening, running }) = self.load_of(server).count(server)?;
        let sent = number(&outcome["messages"]["sent"]);
        let (calls, units) = match self.counted() {
            "handshake" => (opening, number(&outcome["connections"]["handshakes"])),
            "request" => (running, sent / f64::from(self.load.batch)),
            _ => (running, sent),
        };
        Ok(calls as f64 / units)
    }

    /// The unit of work that system calls are counted for: a message with all of its deliveries,
    /// because one call serves many of them.
    pub(crate) const fn counted(&self) -> &'static str {
        match self.read {
            Read::Cpu(Unit::Handshake) | Read::Throughput(Unit::Handshake) | Read::Memory => {
                "handshake"
            }
            Read::Cpu(Unit::Request) | Read::Throughput(Unit::Request) => "request",
            Read::Cpu(Unit::Delivery) | Read::Throughput(Unit::Delivery) => "message",
            Read::Slow | Read::Latency => "message",
        }
    }

    fn load_of(&self, server: &Server) -> Load {
        let times = if self.connections_per_shard { server.cores as u32 } else { 1 };
        Load { connections: self.load.connections * times, ..self.load.clone() }
    }

    fn cpu(&self, unit: Unit, outcome: &Value) -> Figure {
        let us = |name: &str| {
            let pair = &outcome["server"][name];
            number(&pair[0]) + number(&pair[1])
        };
        match unit {
            Unit::Delivery => cost("CPU us per delivery", us("cpu_us_per_delivery")),
            Unit::Request => {
                let events = f64::from(self.load.batch);
                cost("CPU us per request", us("cpu_us_per_message") * events)
            }
            Unit::Handshake => cost("CPU us per handshake", us("cpu_us_per_handshake")),
        }
    }
}

fn speed(unit: Unit, outcome: &Value) -> Figure {
    let (name, value) = match unit {
        Unit::Delivery => ("deliveries per second", &outcome["messages"]["delivered_per_s"]),
        Unit::Request => ("requests per second", &outcome["messages"]["sent_per_s"]),
        Unit::Handshake => ("handshakes per second", &outcome["connections"]["ramp_per_s"]),
    };
    Figure { name, value: number(value), is_speed: true }
}

const fn cost(name: &'static str, value: f64) -> Figure {
    Figure { name, value, is_speed: false }
}

/// Lets a server touch what it touches once: code and receive buffers. It is done by few
/// connections, which leave nothing behind that later ones could use. With more of them, the
/// records of all slots would have been touched, because the kernel hands out the slots of a file
/// table in turns.
fn warm(server: &Server) -> Result<(), String> {
    let few = Load { scenario: "churn", connections: 50, publishers: 0, ..Load::default() };
    Load { seconds: 1.0, more: &["--turnover", "1500"], ..few }.run(server).map(drop)
}

fn slow_closed(outcome: &Value) -> f64 {
    number(&outcome["connections"]["slow_closed"])
}

impl Cores {
    fn of(outcome: &Value) -> Self {
        let samples = outcome["samples"].as_array().map_or(&[][..], Vec::as_slice);
        let of_server =
            |sample: &Value| number(&sample["server_user"]) + number(&sample["server_system"]);
        let of_generator = |sample: &Value| number(&sample["storm"]);
        Self {
            server: samples.iter().map(of_server).fold(0.0, f64::max),
            generator: samples.iter().map(of_generator).fold(0.0, f64::max),
            others: number(&outcome["others"]),
        }
    }
}

/// The bytes by which a server's resident memory grew at most after the first message.
fn growth(outcome: &Value) -> f64 {
    let samples = outcome["samples"].as_array().map_or(&[][..], Vec::as_slice);
    let resident = |sample: &Value| number(&sample["server_resident"]);
    let quiet = samples.iter().take_while(|sample| number(&sample["sent_per_s"]) == 0.0);
    let before = quiet.last().or_else(|| samples.first()).map_or(0.0, resident);
    samples.iter().map(resident).fold(before, f64::max) - before
}

/// The number in a value, or NaN if there is none.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}
