//! Floor 9. `ringwave doctor`: checks whether this host can run Ringwave, and how well. Prints one
//! row per check, with advice and the command that fixes it, then the memory budget. Exit code 0,
//! or 78 if Ringwave cannot run.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::budget;
use super::environment::environment;
use crate::config::{ConfigInputs, Environment, Flags, SEND_BUFFER};
use crate::server::ledger::Ledger;
use crate::server::limits::{self, ResourceLimit};
use crate::server::preflight::{HostError, HostSurvey, KERNEL_FLOOR, ProbeStep};

/// Surveys the host and prints the report.
#[must_use]
pub(super) fn run() -> ExitCode {
    // As `start` does, so that the report is about the limits that it will have.
    let raised = limits::raise_nofile();
    let report = HostReport::of(&HostSurvey::take(), raised.before);
    // A reader that closes the pipe (`doctor | head`) does not change the exit code.
    let memory = budget::text(&budget::holders());
    let text = format!("{}\n{memory}\n{}", report.to_text(), ledger());
    let _closed = io::stdout().write_all(text.as_bytes());
    match report.failures() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(HostError::EXIT_CODE),
    }
}

/// The ledger of the configuration in this directory, or of the defaults if that configuration
/// cannot be served, which `ringwave check` reports.
fn ledger() -> Ledger {
    let directory = PathBuf::from(".");
    let ours = ConfigInputs { flags: Flags::default(), environment: environment(), directory };
    let flags = Flags { dev: true, ..Flags::default() };
    let none = PathBuf::from("/nonexistent");
    let defaults = ConfigInputs { flags, environment: Environment::default(), directory: none };
    let config = ours.load().or_else(|_| defaults.load());
    config.map_or_else(|_| Ledger::default(), |config| Ledger::of(&config.server, &config.apps))
}

/// All checks, in the order in which they are printed.
struct HostReport(Vec<Check>);

struct Check {
    check: &'static str,
    found: String,
    needed: String,
    verdict: CheckResult,
    /// Lines about the fault and its remedy.
    advice: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CheckResult {
    Ok,
    /// Ringwave runs, with a limit that the row names.
    Warn,
    /// Ringwave does not run.
    Fail,
    /// Not reached, because an earlier check failed.
    Unknown,
}

impl HostReport {
    fn of(host: &HostSurvey, nofile_before: ResourceLimit) -> Self {
        let mut rows = vec![kernel(host)];
        rows.extend(io_uring(host));
        rows.extend([nofile(host, nofile_before), memlock(host), memory(host), cores(host)]);
        rows.extend(network(host));
        rows.extend(send_queues(host));
        Self(rows)
    }

    fn failures(&self) -> usize {
        self.0.iter().filter(|row| row.verdict == CheckResult::Fail).count()
    }

    fn to_text(&self) -> String {
        let rows = self.0.iter();
        let cells = rows.map(|row| [row.check, &row.found, &row.needed, row.verdict.word()]);
        let lines: Vec<_> = std::iter::once(HEAD).chain(cells).collect();
        let width = |column: usize| lines.iter().map(|cells| cells[column].len()).max();
        let [check, found, needed] = [0, 1, 2].map(|column| width(column).unwrap_or_default());
        let mut text = String::new();
        let advice = std::iter::once(&[][..]).chain(self.0.iter().map(|row| &row.advice[..]));
        for (cells, advice) in lines.iter().zip(advice) {
            let [a, b, c, verdict] = cells;
            text += &format!("{a:check$}  {b:found$}  {c:needed$}  {verdict}\n");
            for line in advice {
                text += &format!("    {line}\n");
            }
        }
        text + &self.summary()
    }

    fn summary(&self) -> String {
        let warnings = self.0.iter().filter(|row| row.verdict == CheckResult::Warn).count();
        let count = |number, word| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
        match (self.failures(), warnings) {
            (0, 0) => "\nThis host can run Ringwave.\n".to_owned(),
            (0, _) => {
                format!("\nThis host can run Ringwave, with {}.\n", count(warnings, "warning"))
            }
            (failures, _) => {
                format!("\nThis host cannot run Ringwave: {}.\n", count(failures, "failure"))
            }
        }
    }
}

impl CheckResult {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Unknown => "-",
        }
    }
}

impl Check {
    fn new(check: &'static str, found: impl Into<String>, needed: impl Into<String>) -> Self {
        Self {
            check,
            found: found.into(),
            needed: needed.into(),
            verdict: CheckResult::Ok,
            advice: Vec::new(),
        }
    }

    fn failed(self, error: &HostError) -> Self {
        let advice = vec![error.to_string(), error.remedy()];
        Self { verdict: CheckResult::Fail, advice, ..self }
    }

    fn warned_if(self, condition: bool, advice: &str) -> Self {
        if !condition || self.verdict != CheckResult::Ok {
            return self;
        }
        Self { verdict: CheckResult::Warn, advice: vec![advice.to_owned()], ..self }
    }
}

fn kernel(host: &HostSurvey) -> Check {
    let (major, minor) = KERNEL_FLOOR;
    let row = Check::new("kernel", &host.kernel, format!("{major}.{minor} or newer"));
    match &host.kernel_too_old {
        Some(error) => row.failed(error),
        None => row,
    }
}

/// The settings that decide whether this process may create a ring, then the steps of creating one.
fn io_uring(host: &HostSurvey) -> Vec<Check> {
    let failed = host.uring.as_ref().err();
    let ring_refused = failed.is_some_and(|(stage, _)| *stage == ProbeStep::Ring);
    let seccomp = match host.seccomp {
        Some(0) => "off".to_owned(),
        Some(1) => "strict".to_owned(),
        Some(2) => "filter".to_owned(),
        _ => "unknown".to_owned(),
    };
    let disabled = host.io_uring_disabled.map_or_else(|| "not known".to_owned(), |n| n.to_string());
    let mut rows = vec![
        Check::new("seccomp", seccomp, "off, or allowing io_uring_*")
            .warned_if(ring_refused && host.seccomp == Some(2), "See the row io_uring."),
        Check::new("kernel.io_uring_disabled", disabled, "0").warned_if(
            host.io_uring_disabled.is_some_and(|value| value != 0),
            "Only privileged processes, or none, may create a ring: sysctl -w \
             kernel.io_uring_disabled=0",
        ),
    ];
    let table = format!("{} connections per shard", host.slots);
    let steps = [
        (ProbeStep::Ring, "io_uring", "created", "SINGLE_ISSUER, DEFER_TASKRUN"),
        (ProbeStep::Features, "io_uring features", "all", "NODROP, FAST_POLL, CQE_SKIP"),
        (ProbeStep::Opcodes, "io_uring operations", "all", "RECV, SEND, SENDMSG, ..."),
        (ProbeStep::Table, "fixed file table", table.as_str(), "as nofile allows"),
    ];
    rows.extend(steps.into_iter().map(|(stage, check, found, needed)| match failed {
        Some((at, error)) if *at == stage => Check::new(check, "refused", needed).failed(error),
        Some((at, _)) if *at < stage => {
            Check { verdict: CheckResult::Unknown, ..Check::new(check, "not tried", needed) }
        }
        _ => Check::new(check, found, needed),
    }));
    rows
}

fn nofile(host: &HostSurvey, before: ResourceLimit) -> Check {
    let found = format!("soft {}, hard {}", count(before.soft), count(before.hard));
    let row = Check::new("nofile", found, format!("hard {} or more", limits::NOFILE_ADVISED));
    if let Err(error) = host.holds(host.cores) {
        return row.failed(&error);
    }
    match limits::slots_note(host.nofile.soft, None) {
        Some(note) => row.warned_if(true, &note),
        None => row,
    }
}

fn memlock(host: &HostSurvey) -> Check {
    Check::new("memlock", limits::size(Some(host.memlock.soft)), "any (no ring counts)")
}

fn memory(host: &HostSurvey) -> Check {
    let needed = format!("{} or more", limits::size(Some(MEMORY_ADVISED)));
    Check::new("control group memory", limits::size(host.memory_limit), needed).warned_if(
        host.memory_limit.is_some_and(|limit| limit < MEMORY_ADVISED),
        "An idle connection takes about 4 KiB of kernel memory: raise MemoryMax= (systemd) or \
         --memory (Docker).",
    )
}

fn cores(host: &HostSurvey) -> Check {
    Check::new("cores", host.cores.to_string(), "1 or more (a shard each)")
}

fn network(host: &HostSurvey) -> [Check; 3] {
    let found = |value: Option<i64>| value.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let below = |value: Option<i64>, least| value.is_some_and(|value| value < least);
    let queue = format!("{QUEUE_ADVISED} or more");
    let ports = host.local_ports.map_or_else(|| "unknown".to_owned(), |n| format!("{n} ports"));
    [
        Check::new("net.core.somaxconn", found(host.somaxconn), &queue).warned_if(
            below(host.somaxconn, QUEUE_ADVISED),
            &format!(
                "When all clients reconnect at once, connections over it are dropped and retried \
                 after a second: sysctl -w net.core.somaxconn={QUEUE_ADVISED}"
            ),
        ),
        Check::new("net.ipv4.tcp_max_syn_backlog", found(host.syn_backlog), &queue).warned_if(
            below(host.syn_backlog, QUEUE_ADVISED),
            &format!(
                "When all clients reconnect at once, handshakes over it fall back to SYN cookies: \
                 sysctl -w net.ipv4.tcp_max_syn_backlog={QUEUE_ADVISED}"
            ),
        ),
        Check::new("net.ipv4.ip_local_port_range", ports, format!("{PORTS_DEFAULT} or more"))
            .warned_if(
                host.local_ports.is_some_and(|ports| ports < PORTS_DEFAULT),
                "A proxy on this host has one connection per port and upstream address: sysctl -w \
             net.ipv4.ip_local_port_range=\"1024 65535\", or use a unix socket as upstream.",
            ),
    ]
}

/// The limits of the kernel's memory for connections.
fn send_queues(host: &HostSurvey) -> [Check; 2] {
    let buffer = SEND_BUFFER;
    let ask = buffer / 2;
    let max = host.send_buffer_max;
    let found = max.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let wmem = Check::new("net.core.wmem_max", found, format!("{ask} or more")).warned_if(
        max.is_some_and(|max| u64::try_from(max).is_ok_and(|max| max < ask)),
        &format!(
            "The kernel allows a smaller send buffer than server.send_buffer, which slows large \
             messages over long distances down: sysctl -w net.core.wmem_max={ask}"
        ),
    );
    let needed = TCP_READERS_ADVISED * buffer;
    let found = host.tcp_memory.map_or_else(
        || "unknown".to_owned(),
        |tcp| format!("{} of {}", limits::size(Some(tcp.used)), limits::size(Some(tcp.limit))),
    );
    let limit = host.tcp_memory.map_or(u64::MAX, |tcp| tcp.limit);
    let needed_text = format!("{} or more", limits::size(Some(needed)));
    let tcp = Check::new("net.ipv4.tcp_mem", found, needed_text).warned_if(
        limit < needed,
        &format!(
            "{} clients that do not read fill it, and then no socket of the host sends or receives: \
             lower server.send_buffer, limit connections (server.max_connections_per_address), or \
             raise net.ipv4.tcp_mem on a host with more memory.",
            limit / buffer
        ),
    );
    [wmem, tcp]
}

fn count(value: u64) -> String {
    match value {
        ResourceLimit::UNLIMITED => "unlimited".to_owned(),
        value => value.to_string(),
    }
}

/// The number of clients that may stop reading at the same time without harm to other programs.
const TCP_READERS_ADVISED: u64 = 1000;

const HEAD: [&str; 4] = ["check", "found", "needed", "verdict"];

/// The kernel's own default of somaxconn since Linux 5.4.
const QUEUE_ADVISED: i64 = 4096;

/// Ports of the kernel's default range, 32768 to 60999.
const PORTS_DEFAULT: u64 = 28_232;

/// Room for the process and some 20,000 idle connections.
const MEMORY_ADVISED: u64 = 128 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tcp_memory::TcpMemory;

    #[test]
    fn a_good_host_is_all_ok() {
        let expected = "\
check                         found                         needed                        verdict
kernel                        6.8.0-45-generic              6.1 or newer                  ok
seccomp                       off                           off, or allowing io_uring_*   ok
kernel.io_uring_disabled      0                             0                             ok
io_uring                      created                       SINGLE_ISSUER, DEFER_TASKRUN  ok
io_uring features             all                           NODROP, FAST_POLL, CQE_SKIP   ok
io_uring operations           all                           RECV, SEND, SENDMSG, ...      ok
fixed file table              262144 connections per shard  as nofile allows              ok
nofile                        soft 1024, hard 1048576       hard 10000 or more            ok
memlock                       8 MiB                         any (no ring counts)          ok
control group memory          unlimited                     128 MiB or more               ok
cores                         8                             1 or more (a shard each)      ok
net.core.somaxconn            4096                          4096 or more                  ok
net.ipv4.tcp_max_syn_backlog  4096                          4096 or more                  ok
net.ipv4.ip_local_port_range  28232 ports                   28232 or more                 ok
net.core.wmem_max             212992                        131072 or more                ok
net.ipv4.tcp_mem              1 MiB of 2048 MiB             250 MiB or more               ok

This host can run Ringwave.
";
        assert_eq!(report(good()).to_text(), expected);
        assert_eq!(report(good()).failures(), 0);
    }

    #[test]
    fn a_refused_ring_is_one_failure_with_cause_and_remedy_and_the_rest_is_not_reached() {
        let refused = HostError::Seccomp { call: "io_uring_setup", errno: libc::EPERM };
        let host =
            HostSurvey { seccomp: Some(2), uring: Err((ProbeStep::Ring, refused)), ..good() };
        let report = report(host);
        assert_eq!(report.failures(), 1);
        assert_eq!(verdict(&report, "io_uring"), CheckResult::Fail);
        assert_eq!(verdict(&report, "seccomp"), CheckResult::Warn);
        assert_eq!(verdict(&report, "fixed file table"), CheckResult::Unknown);
        let text = report.to_text();
        let advice = "\n    io_uring_setup is blocked by the container's seccomp profile";
        assert!(text.contains(advice) && text.contains("\n    Start the container with"), "{text}");
        assert!(text.ends_with("\nThis host cannot run Ringwave: 1 failure.\n"), "{text}");
    }

    #[test]
    fn every_step_that_fails_leaves_those_before_it_ok() {
        for (stage, check) in [
            (ProbeStep::Features, "io_uring features"),
            (ProbeStep::Opcodes, "io_uring operations"),
            (ProbeStep::Table, "fixed file table"),
        ] {
            let report = report(HostSurvey { uring: Err((stage, HostError::Disabled)), ..good() });
            assert_eq!(verdict(&report, "io_uring"), CheckResult::Ok);
            assert_eq!(verdict(&report, check), CheckResult::Fail);
        }
    }

    #[test]
    fn low_limits_are_warnings_that_name_the_command() {
        let low = ResourceLimit { soft: 1024, hard: 1024 };
        let host = HostSurvey {
            nofile: low,
            memory_limit: Some(64 << 20),
            somaxconn: Some(128),
            syn_backlog: Some(128),
            local_ports: Some(1000),
            send_buffer_max: Some(65_536),
            tcp_memory: Some(TcpMemory { used: 0, limit: 100 << 20 }),
            io_uring_disabled: Some(1),
            ..good()
        };
        let report = HostReport::of(&host, low);
        for (check, command) in [
            ("nofile", "ulimit -n"),
            ("control group memory", "MemoryMax="),
            ("net.core.somaxconn", "sysctl -w net.core.somaxconn=4096"),
            ("net.ipv4.tcp_max_syn_backlog", "sysctl -w net.ipv4.tcp_max_syn_backlog=4096"),
            ("net.ipv4.ip_local_port_range", "sysctl -w net.ipv4.ip_local_port_range="),
            ("kernel.io_uring_disabled", "sysctl -w kernel.io_uring_disabled=0"),
            ("net.core.wmem_max", "sysctl -w net.core.wmem_max=131072"),
            ("net.ipv4.tcp_mem", "400 clients that do not read fill it"),
        ] {
            assert_eq!(verdict(&report, check), CheckResult::Warn, "{check}");
            let advice = row(&report, check).advice.join("\n");
            assert!(advice.contains(command), "{check}: {advice}");
        }
        assert_eq!(report.failures(), 0);
        assert!(report.to_text().ends_with("can run Ringwave, with 8 warnings.\n"));
    }

    #[test]
    fn too_few_descriptors_for_the_shards_or_an_old_kernel_fail() {
        let none = ResourceLimit { soft: 40, hard: 40 };
        let report = HostReport::of(&HostSurvey { nofile: none, ..good() }, none);
        assert_eq!(verdict(&report, "nofile"), CheckResult::Fail);
        let old = Some(HostError::KernelTooOld { linux: "Linux 5.4".to_owned() });
        let report = self::report(HostSurvey { kernel_too_old: old, ..good() });
        assert_eq!(verdict(&report, "kernel"), CheckResult::Fail);
    }

    fn good() -> HostSurvey {
        HostSurvey {
            kernel: "6.8.0-45-generic".to_owned(),
            kernel_too_old: None,
            cores: 8,
            nofile: ResourceLimit { soft: 1_048_576, hard: 1_048_576 },
            memlock: ResourceLimit { soft: 8 << 20, hard: 8 << 20 },
            memory_limit: None,
            somaxconn: Some(4096),
            syn_backlog: Some(4096),
            local_ports: Some(28_232),
            send_buffer_max: Some(212_992),
            tcp_memory: Some(TcpMemory { used: 1 << 20, limit: 2 << 30 }),
            seccomp: Some(0),
            io_uring_disabled: Some(0),
            slots: 262_144,
            uring: Ok(()),
        }
    }

    fn report(host: HostSurvey) -> HostReport {
        HostReport::of(&host, ResourceLimit { soft: 1024, ..host.nofile })
    }

    fn row<'a>(report: &'a HostReport, check: &str) -> &'a Check {
        report.0.iter().find(|row| row.check == check).unwrap()
    }

    fn verdict(report: &HostReport, check: &str) -> CheckResult {
        row(report, check).verdict
    }
}
