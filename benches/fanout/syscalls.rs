//! The number of system calls of a server, counted by `perf stat` (the kernel's tracepoint
//! `raw_syscalls:sys_enter`) in a round of its own, because counting makes each call dearer.
//!
//! A storm opens its connections, lets the host rest for half a second, and runs its scenario. The
//! counts come for each twentieth of a second, and are split within the rest: the calls before it
//! belong to the handshakes, those behind it to the messages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

const EVENT: &str = "raw_syscalls:sys_enter";

/// The interval of the counts in milliseconds, a tenth of the rest.
const INTERVAL_MS: &str = "50";

/// The time from the end of the ramp to the split in seconds: about the middle of the rest, which
/// leaves a fifth of a second for a storm that starts late.
const SPLIT_S: f64 = 0.3;

/// The system calls of a server under a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Calls {
    /// The calls while connections were opened.
    pub(crate) opening: u64,
    /// The calls from the first message on.
    pub(crate) running: u64,
}

/// Finds out whether system calls can be counted here.
///
/// # Errors
/// The reason why they cannot.
pub(crate) fn can_count() -> Result<(), String> {
    let mut command = Command::new("perf");
    let output = command.args(["stat", "-e", EVENT, "--", "true"]).stdin(Stdio::null()).output();
    match output {
        Err(error) => Err(format!("perf does not start: {error}")),
        Ok(output) if output.status.success() => Ok(()),
        Ok(_refused) => Err(format!("`perf stat -e {EVENT}` may not count here")),
    }
}

/// A file for the counts, which is removed in the end.
pub(crate) struct CountsFile(PathBuf);

impl CountsFile {
    pub(crate) fn new() -> Self {
        let name = format!("ringwave-fanout-{}.counts", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    /// The beginning of a command that counts the calls of this process until the command behind
    /// it has ended.
    pub(crate) fn arguments(&self, pid: u32) -> Vec<String> {
        let pid = pid.to_string();
        let output = self.path().display().to_string();
        let words = ["perf", "stat", "-e", EVENT, "-I", INTERVAL_MS, "-x", ",", "-p", &pid];
        words.into_iter().chain(["-o", &output, "--"]).map(str::to_owned).collect()
    }

    /// Splits the counts of a storm, whose outcome tells how long its ramp was. `None` if there are
    /// no counts.
    pub(crate) fn calls(&self, outcome: &Value) -> Option<Calls> {
        let ramp_s = outcome["connections"]["ramp_s"].as_f64()?;
        split(&fs::read_to_string(self.path()).ok()?, ramp_s + SPLIT_S)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for CountsFile {
    fn drop(&mut self) {
        // It does not exist if perf has not started.
        let _none = fs::remove_file(&self.0);
    }
}

/// The counts before and behind this second. An interval in which the server did not run has none.
fn split(csv: &str, at_s: f64) -> Option<Calls> {
    let mut calls = Calls { opening: 0, running: 0 };
    for line in csv.lines() {
        let mut fields = line.trim().split(',');
        let Some(end_s) = fields.next().and_then(|field| field.parse::<f64>().ok()) else {
            continue;
        };
        let count = fields.next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        *if end_s <= at_s { &mut calls.opening } else { &mut calls.running } += count;
    }
    (calls.opening + calls.running > 0).then_some(calls)
}
