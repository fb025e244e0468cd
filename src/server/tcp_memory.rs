//! The memory that TCP holds for all sockets of the host together. It is not part of the size of
//! any process.

use std::fs;

/// The memory of TCP, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpMemory {
    /// Bytes in the queues of all sockets, to be sent and to be read.
    pub(crate) used: u64,
    /// The limit past which the kernel refuses more to every socket (`net.ipv4.tcp_mem`, the last
    /// number).
    pub(crate) limit: u64,
}

impl TcpMemory {
    /// Reads the current values. Returns `None` if `/proc` does not have them. Takes some 20 us.
    ///
    /// The available memory of the host (`/proc/meminfo`) and the usage of a control group
    /// (`memory.current`) already include it.
    #[must_use]
    pub(crate) fn read() -> Option<Self> {
        let sockets = fs::read_to_string("/proc/self/net/sockstat").ok()?;
        let limits = fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").ok()?;
        Self::of(&sockets, &limits, rustix::param::page_size() as u64)
    }

    /// Parses the two files, which count pages.
    fn of(sockstat: &str, tcp_mem: &str, page: u64) -> Option<Self> {
        let tcp = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
        let mut words = tcp.split_whitespace().skip_while(|word| *word != "mem").skip(1);
        let used = words.next()?.parse::<u64>().ok()?;
        let limit = tcp_mem.split_whitespace().nth(2)?.parse::<u64>().ok()?;
        Some(Self { used: used.saturating_mul(page), limit: limit.saturating_mul(page) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_files_count_pages() {
        let sockstat = "sockets: used 14\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 84\nUDP: mem 3\n";
        let read = TcpMemory::of(sockstat, "287901\t383869\t575802\n", 4096);
        assert_eq!(read, Some(TcpMemory { used: 84 * 4096, limit: 575_802 * 4096 }));
        assert_eq!(TcpMemory::of("UDP: mem 3\n", "1 2 3", 4096), None);
        assert_eq!(TcpMemory::of(sockstat, "1 2", 4096), None);
    }

    #[test]
    fn this_host_tells() {
        assert!(TcpMemory::read().unwrap().limit > 0);
    }
}
