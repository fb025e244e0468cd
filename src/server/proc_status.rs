//! The lines of `/proc/self/status` that matter at the start (proc_pid_status(5)).
//!
//! A missing line (another kernel, a sandbox, no `/proc`) reads as the value that changes nothing.

use std::fs;

/// The facts about this process that `/proc/self/status` has. Read at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProcStatus {
    /// `Seccomp`: 0 off, 1 strict, 2 filter.
    pub(super) seccomp: Option<u8>,
    /// `CapEff`: one bit per effective capability.
    pub(super) capabilities: u64,
    /// The groups that permission checks go by: the file system gid and `Groups`.
    pub(super) groups: Vec<u32>,
    /// `SigIgn`: bit `n - 1` is set when signal `n` is ignored.
    ignored_signals: u64,
}

impl ProcStatus {
    /// The status of this process now.
    pub(super) fn read() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    /// Reads the text of `/proc/self/status`.
    pub(super) fn parse(text: &str) -> Self {
        let line = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
        };
        let mask = |name| line(name).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
        let numbers = |name| line(name).unwrap_or_default().split_whitespace();
        // `Gid` lists real, effective, saved and file system gid.
        let own = numbers("Gid").nth(3).into_iter();
        Self {
            seccomp: line("Seccomp").and_then(|mode| mode.parse().ok()),
            capabilities: mask("CapEff"),
            groups: own.chain(numbers("Groups")).filter_map(|gid| gid.parse().ok()).collect(),
            ignored_signals: mask("SigIgn"),
        }
    }

    /// Whether the process may do what root may: `CAP_SYS_ADMIN` (capabilities(7)).
    pub(super) const fn is_admin(&self) -> bool {
        const CAP_SYS_ADMIN: u32 = 21;
        self.capabilities >> CAP_SYS_ADMIN & 1 == 1
    }

    /// Whether the process ignores this signal, inherited or by its own choice.
    pub(super) fn ignores(&self, signal: i32) -> bool {
        u32::try_from(signal - 1)
            .ok()
            .and_then(|bit| self.ignored_signals.checked_shr(bit))
            .is_some_and(|mask| mask & 1 == 1)
    }
}

/// Whether the process has a terminal now, which its user could close (`tty_nr` of
/// proc_pid_stat(5), which the kernel sets to 0 before it reports that the terminal has closed).
pub(super) fn has_terminal() -> bool {
    terminal_of(&fs::read_to_string("/proc/self/stat").unwrap_or_default())
}

fn terminal_of(stat: &str) -> bool {
    // The name of the program, which stands in brackets, may hold any character.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().nth(4).is_some_and(|tty| tty != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOHUP: &str = "Name:\tringwave\nGid:\t1000\t1001\t1002\t1003\nGroups:\t4 27 \n\
        SigIgn:\t0000000000001001\nCapEff:\t0000000000200000\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn the_lines_that_matter_are_read() {
        let status = ProcStatus::parse(NOHUP);
        assert_eq!(status.seccomp, Some(2));
        assert_eq!(status.groups, [1003, 4, 27]);
        assert!(status.is_admin());
    }

    #[test]
    fn an_ignored_signal_is_the_bit_of_its_number() {
        let status = ProcStatus::parse(NOHUP);
        let ignored: Vec<i32> = (-1..=70).filter(|&signal| status.ignores(signal)).collect();
        assert_eq!(ignored, [libc::SIGHUP, libc::SIGPIPE]);
    }

    #[test]
    fn without_a_proc_file_system_nothing_is_special() {
        assert_eq!(ProcStatus::parse(""), ProcStatus::default());
        assert!(!ProcStatus::default().is_admin());
    }

    #[test]
    fn a_terminal_is_told_from_none_whatever_the_program_is_called() {
        assert!(terminal_of("7 (ring) wave) S 1 7 7 34816 7 4194560"));
        assert!(!terminal_of("7 (ringwave 1 2 3 4) S 1 7 7 0 -1 4194560"));
        assert!(!terminal_of(""));
    }
}
