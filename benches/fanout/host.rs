//! The host, and how the bench was run on it: figures that are kept mean nothing without both.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

/// The facts about the host that the results depend on.
pub(crate) struct Host {
    name: String,
    kernel: String,
    cpu: String,
    cores: usize,
    governor: String,
    priority: String,
}

impl Host {
    pub(crate) fn this() -> Self {
        let uname = rustix::system::uname();
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            cpus.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        Self {
            name: uname.nodename().to_string_lossy().into_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            cpu: model.unwrap_or("unknown").to_owned(),
            cores: cores(),
            governor: governor(),
            priority: priority(),
        }
    }

    pub(crate) fn print(&self) {
        let Self { name, kernel, cpu, cores, governor, priority } = self;
        println!("{name}: {cpu}, {cores} cores, Linux {kernel}");
        println!("governor: {governor}; priority: {priority}");
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name, "kernel": self.kernel, "cpu": self.cpu, "cores": self.cores,
            "governor": self.governor, "priority": self.priority,
        })
    }
}

/// The number of cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The governor of the frequency of the server's core.
fn governor() -> String {
    let governor = fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    governor.map_or_else(|_| "none to be seen".to_owned(), |text| text.trim().to_owned())
}

/// The scheduling of this process (proc_pid_stat(5)), which the servers and the load inherit.
fn priority() -> String {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may have blanks. The third field follows it.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or("unknown");
    match field(41) {
        "0" => format!("normal, nice {}", field(19)),
        policy => format!("POLICY {policy}, which no server has: run it without chrt"),
    }
}

/// The commit of the sources, if they are in a repository and git is there.
pub(crate) fn commit() -> Option<String> {
    let mut git = Command::new("git");
    let output = git.args(["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short", "HEAD"]);
    let output = output.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
