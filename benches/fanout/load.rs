//! The load: `ringwave storm` on the cores that the server does not have. It counts every message
//! at every subscriber, so that a figure stands for work that was done.

use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;

use crate::host;
use crate::server::{Server, pinned};
use crate::syscalls::{Calls, CountsFile};

/// The parameters of one run of `ringwave storm`.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) scenario: &'static str,
    pub(crate) connections: u32,
    pub(crate) channels: u32,
    pub(crate) kind: &'static str,
    pub(crate) publishers: u32,
    /// Messages per second; 0: closed loop.
    pub(crate) rate: u32,
    /// Bytes of `data`.
    pub(crate) size: u32,
    pub(crate) batch: u32,
    pub(crate) seconds: f64,
    pub(crate) more: &'static [&'static str],
}

impl Default for Load {
    fn default() -> Self {
        Self {
            scenario: "fanout",
            connections: 1000,
            channels: 1,
            kind: "public",
            // These are so many that the server always has another request to take up.
            publishers: 16,
            rate: 20,
            size: 100,
            batch: 1,
            seconds: 2.0,
            more: &[],
        }
    }
}

impl Load {
    /// Puts a server under this load. Returns the JSON that storm prints. Its `others` is the
    /// number of cores that the host used for anything else meanwhile.
    ///
    /// # Errors
    /// Messages were lost, doubled, overtaken, cut or refused, so that the figures mean nothing.
    pub(crate) fn run(&self, server: &Server) -> Result<Value, String> {
        self.storm(server, &[])
    }

    /// Does the same, and counts the server's system calls. The figures of such a run are those of
    /// a server that is being watched.
    ///
    /// # Errors
    /// As with [`run`](Self::run), or nothing was counted.
    pub(crate) fn count(&self, server: &Server) -> Result<(Value, Calls), String> {
        let file = CountsFile::new();
        let outcome = self.storm(server, &file.arguments(server.pid()))?;
        let calls = file.calls(&outcome).ok_or("perf counted nothing")?;
        Ok((outcome, calls))
    }

    /// Runs storm by a command that begins with these words.
    fn storm(&self, server: &Server, words: &[String]) -> Result<Value, String> {
        let cores = format!("{}-{}", server.cores, host::cores() - 1);
        let mut words = words.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_ringwave")]);
        let mut command = pinned(&cores, words.next().unwrap_or_default());
        command.args(words);
        // A server in a closed loop may ask its publishers to wait.
        command.args(["storm", self.scenario, "--json", "--retry", "--url"]);
        command.arg(format!("ws://{}", server.address));
        for (flag, value) in [
            ("--pid", server.pid().to_string()),
            ("--connections", self.connections.to_string()),
            ("--channels", self.channels.to_string()),
            ("--kind", self.kind.to_owned()),
            ("--publishers", self.publishers.to_string()),
            ("--rate", self.rate.to_string()),
            ("--size", self.size.to_string()),
            ("--batch", self.batch.to_string()),
            ("--duration", self.seconds.to_string()),
        ] {
            command.args([flag, &value]);
        }
        command.args(self.more).stderr(Stdio::inherit());
        let (began, host_s) = (Instant::now(), busy_s());
        let output = command.output().expect("taskset (util-linux) starts storm");
        let (took_s, host_s) = (began.elapsed().as_secs_f64(), busy_s() - host_s);
        let mut outcome: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("storm printed no JSON ({error}): {command:?}"))?;
        outcome["others"] = ((host_s - own_s(&outcome)) / took_s).max(0.0).into();
        if outcome["passed"] == true {
            return Ok(outcome);
        }
        let keys = ["messages", "connections", "problems"];
        Err(keys.map(|key| format!("{key} {}", outcome[key])).join("; "))
    }
}

/// CPU seconds of the server and the generator by the samples of storm.
fn own_s(outcome: &Value) -> f64 {
    let samples = outcome["samples"].as_array().map_or(&[][..], Vec::as_slice);
    let number = |sample: &Value, name: &str| sample[name].as_f64().unwrap_or_default();
    let mut before_s = 0.0;
    let spent_s = |sample: &Value| {
        let at_s = number(sample, "at_s");
        let cores = ["server_user", "server_system", "storm"].map(|name| number(sample, name));
        cores.iter().sum::<f64>() * (at_s - std::mem::replace(&mut before_s, at_s))
    };
    samples.iter().map(spent_s).sum()
}

/// CPU seconds that the host has spent on anything (proc_stat(5)): user, nice, system, interrupts.
fn busy_s() -> f64 {
    const TICKS_PER_S: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> =
        text.lines().next().unwrap_or_default().split_whitespace().flat_map(str::parse).collect();
    [0, 1, 2, 5, 6].iter().filter_map(|field| fields.get(*field)).sum::<f64>() / TICKS_PER_S
}
