//! CPU time and memory of processes and of the host, from `/proc` (proc_pid_stat(5),
//! proc_pid_smaps(5), proc_meminfo(5)).

use std::fs;

/// This host in words: its name, its cores, and its kernel.
pub(crate) fn host_description(cores: u32) -> String {
    let uname = rustix::system::uname();
    let [name, kernel] = [uname.nodename(), uname.release()].map(|text| text.to_string_lossy());
    format!("{name}, {cores} core{}, Linux {kernel}", if cores == 1 { "" } else { "s" })
}

/// The resources that a process and its descendants have used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ProcessUsage {
    /// CPU seconds in user mode.
    pub(crate) user_s: f64,
    /// CPU seconds in the kernel on their behalf.
    pub(crate) system_s: f64,
    /// Resident memory in bytes.
    pub(crate) resident: u64,
}

impl ProcessUsage {
    /// The usage of a process and its descendants until now; `None` when the process is gone.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let mut usage = Self::default();
        read_stat(pid)?;
        for process in family(pid) {
            if let Some(stat) = read_stat(process) {
                let (user_s, system_s) = stat.cpu_s(threads_cpu_s(process));
                usage.user_s += user_s;
                usage.system_s += system_s;
                usage.resident += stat.resident_pages * PAGE;
            }
        }
        Some(usage)
    }

    /// CPU seconds.
    pub(crate) fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }
}

/// The memory that belongs to a process and its descendants alone, in bytes (`smaps_rollup`). This
/// is slower than [`ProcessUsage::of`].
pub(crate) fn private_memory(pid: u32) -> Option<u64> {
    let of = |process: u32| {
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
        Some(field(&text, "Private_Clean:")? + field(&text, "Private_Dirty:")?)
    };
    let own = of(pid)?;
    Some(own + family(pid).into_iter().filter(|child| *child != pid).filter_map(of).sum::<u64>())
}

/// The memory of the whole host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct HostMemory {
    /// Available memory in bytes (`MemAvailable`).
    pub(crate) available: u64,
    /// Memory of kernel objects in bytes (`Slab`), sockets among them.
    pub(crate) slab: u64,
}

impl HostMemory {
    /// Reads the memory of the host. A field that cannot be read is zero.
    pub(crate) fn now() -> Self {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let of = |name| field(&text, name).unwrap_or_default();
        Self { available: of("MemAvailable:"), slab: of("Slab:") }
    }
}

/// `USER_HZ`, which is 100 on every architecture that Linux supports.
const TICKS_PER_S: f64 = 100.0;
/// The page size, in which `/proc` counts resident memory, on x86-64 and on AArch64 as usual.
const PAGE: u64 = 4096;

/// A process and its descendants.
fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        next += 1;
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children = children.split_whitespace().filter_map(|child| child.parse().ok());
            let new: Vec<u32> = children.filter(|child| !family.contains(child)).collect();
            family.extend(new);
        }
    }
    family
}

#[derive(Debug, PartialEq)]
struct Stat {
    user_ticks: u64,
    system_ticks: u64,
    resident_pages: u64,
}

impl Stat {
    /// CPU seconds in user mode and in the kernel, given the exact time of the live threads. Both
    /// sources fall short: ticks are rounded down, and the exact time of a thread ends with it.
    fn cpu_s(&self, threads_s: f64) -> (f64, f64) {
        let ticks = [self.user_ticks, self.system_ticks].map(|ticks| ticks as f64 / TICKS_PER_S);
        let ticks_s = ticks[0] + ticks[1];
        let exact_s = ticks_s.max(threads_s);
        let user_s = if ticks_s > 0.0 { exact_s * ticks[0] / ticks_s } else { 0.0 };
        (user_s, exact_s - user_s)
    }
}

/// CPU seconds of the live threads of a process, exact to the nanosecond (`schedstat`).
fn threads_cpu_s(pid: u32) -> f64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0.0 };
    let of_thread = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    threads.flatten().filter_map(of_thread).sum::<u64>() as f64 / 1e9
}

fn read_stat(pid: u32) -> Option<Stat> {
    stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a line of `/proc/PID/stat`. The name in parentheses may contain anything, so the fields
/// are counted from its end.
fn stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse().ok();
    Some(Stat { user_ticks: number(14)?, system_ticks: number(15)?, resident_pages: number(24)? })
}

/// The value in bytes of a field that is in kB.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kb| kb * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let text = "7 (a) b ( c) S 1 7 7 0 -1 4194560 1 0 0 0 250 75 0 0 20 0 3 0 99 1000 42 1 1";
        let expected = Stat { user_ticks: 250, system_ticks: 75, resident_pages: 42 };
        assert_eq!(stat(text), Some(expected));
        assert_eq!(stat("7 (a) S 1"), None);
    }

    #[test]
    fn cpu_time_is_the_more_exact_of_ticks_and_threads() {
        let stat = Stat { user_ticks: 30, system_ticks: 10, resident_pages: 0 };
        let in_ms = |(user, system): (f64, f64)| [user, system].map(|s| (s * 1000.0).round());
        assert_eq!(in_ms(stat.cpu_s(0.1)), [300.0, 100.0], "threads have ended");
        assert_eq!(in_ms(stat.cpu_s(0.408)), [306.0, 102.0]);
        let young = Stat { user_ticks: 0, system_ticks: 0, resident_pages: 0 };
        assert_eq!(in_ms(young.cpu_s(0.008)), [0.0, 8.0]);
    }

    #[test]
    fn this_process_has_used_something_and_there_is_no_process_zero() {
        let usage = ProcessUsage::of(std::process::id()).unwrap();
        assert!(usage.resident > 0);
        assert!(private_memory(std::process::id()).unwrap() > 0);
        assert_eq!(ProcessUsage::of(0), None);
        assert!(HostMemory::now().available > 0);
    }

    #[test]
    fn sizes_are_read_in_bytes() {
        let text = "Rss:  10 kB\nPrivate_Dirty:      3 kB\n";
        assert_eq!(field(text, "Private_Dirty:"), Some(3072));
        assert_eq!(field(text, "Pss:"), None);
    }
}
