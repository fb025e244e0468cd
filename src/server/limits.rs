//! Floor 8. The limits of the host, and how many connections they allow.
//!
//! Established connections are in a fixed file table per shard and take no file descriptor, but the
//! kernel allows no table longer than `RLIMIT_NOFILE` (io_uring_register(2),
//! `IORING_REGISTER_FILES2`). So that limit bounds the connections of a shard, not of the process.
//! Ordinary descriptors are used by HTTP connections, listeners and rings.

use std::fmt;
use std::fs;
use std::path::{Component, Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::MemoryLimit;

/// A resource limit of this process: a count, or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceLimit {
    /// The value in force.
    pub soft: u64,
    /// The value up to which the process may raise `soft` itself.
    pub(crate) hard: u64,
}

impl ResourceLimit {
    /// The value of a limit that is not set.
    pub(crate) const UNLIMITED: u64 = u64::MAX;

    /// Open files (`RLIMIT_NOFILE`): one more than the highest descriptor.
    #[must_use]
    pub fn nofile() -> Self {
        Self::of(Resource::Nofile)
    }

    /// Locked memory in bytes (`RLIMIT_MEMLOCK`).
    #[must_use]
    pub(crate) fn memlock() -> Self {
        Self::of(Resource::Memlock)
    }

    fn of(resource: Resource) -> Self {
        let Rlimit { current, maximum } = getrlimit(resource);
        Self { soft: current.unwrap_or(Self::UNLIMITED), hard: maximum.unwrap_or(Self::UNLIMITED) }
    }
}

/// The limit of open files before and after the start has raised it. `Display` is one line with
/// both numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaisedNofile {
    /// The limit as inherited.
    pub(crate) before: ResourceLimit,
    /// The limit as it is now.
    pub(crate) after: ResourceLimit,
}

impl fmt::Display for RaisedNofile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = (self.before.soft, self.after.soft);
        if after == before && after < self.after.hard {
            let hard = self.after.hard;
            return write!(f, "nofile {after} (raising it to {hard} was refused)");
        }
        match after == before {
            true => write!(f, "nofile {after}"),
            false => write!(f, "nofile {after} (raised from {before})"),
        }
    }
}

/// Switches huge pages off for this process, because memory that a burst of handshakes leaves in
/// small pieces could not be given back otherwise. With 15,000 idle connections they cost 9 MiB and
/// saved no CPU time. To be called before any shard starts.
pub(crate) fn forgo_huge_pages() {
    // A kernel without huge pages refuses, and has none to switch off.
    let _refused = rustix::thread::disable_transparent_huge_pages(true);
}

/// Raises the soft limit of open files to the hard one. To be called before any shard starts. If
/// the system refuses, the process goes on with the limit that it has.
pub fn raise_nofile() -> RaisedNofile {
    let before = ResourceLimit::nofile();
    if before.soft < before.hard {
        let hard = (before.hard != ResourceLimit::UNLIMITED).then_some(before.hard);
        // The limit in force is read back below, so the result is not needed.
        let _refused = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
    }
    RaisedNofile { before, after: ResourceLimit::nofile() }
}

/// The places for WebSockets of each shard. `nofile` is the soft limit after [`raise_nofile`]; it
/// bounds the fixed file table of each shard by itself, not their sum. A part of the table is left
/// for connections that are no WebSockets, so that a client which finds no place is told so.
#[must_use]
pub(crate) fn places_per_shard(nofile: u64, configured: Option<u32>) -> u32 {
    let wanted = configured.unwrap_or(PLACES_DEFAULT).clamp(1, PLACES_MAX);
    let table = u32::try_from(nofile).unwrap_or(u32::MAX);
    wanted.min(table.saturating_sub(stream_slots(table))).max(1)
}

/// The length of the fixed file table of a shard with this many places for WebSockets.
#[must_use]
pub(crate) fn table_len(nofile: u64, places: u32) -> u32 {
    let table = u32::try_from(nofile).unwrap_or(u32::MAX);
    places.saturating_add(STREAM_SLOTS_MAX).min(table).clamp(2, TABLE_MAX)
}

/// The length of the longest file table that this limit allows.
#[must_use]
pub fn slots_max(nofile: u64) -> u32 {
    u32::try_from(nofile).unwrap_or(u32::MAX).min(TABLE_MAX)
}

/// The slots of a table of this length that WebSockets do not take: some for accepts under way, and
/// enough for a burst of requests.
const fn stream_slots(table: u32) -> u32 {
    let part = table / 64;
    if part > STREAM_SLOTS_MAX { STREAM_SLOTS_MAX } else { part }
}

/// A note for the operator if a shard gets fewer slots than were asked for.
#[must_use]
pub(crate) fn slots_note(nofile: u64, configured: Option<u32>) -> Option<String> {
    let slots = places_per_shard(nofile, configured);
    match configured {
        Some(wanted) if wanted > PLACES_MAX && slots == PLACES_MAX => Some(format!(
            "You asked for {wanted} connections per shard; the kernel allows {PLACES_MAX} at most, \
             so each shard takes {slots}. More shards take more connections."
        )),
        Some(wanted) if slots < wanted => {
            let needed = wanted + (wanted / 63 + 1).min(STREAM_SLOTS_MAX);
            Some(format!(
                "You asked for {wanted} connections per shard, which needs a limit of open files \
             (nofile) of at least {needed}; it is {nofile}, so each shard takes {slots}. To have \
             more, raise it: ulimit -n, LimitNOFILE= (systemd) or --ulimit nofile= (Docker)."
            ))
        }
        None if nofile < NOFILE_ADVISED => Some(format!(
            "The limit of open files (nofile) is {nofile}, so each shard takes {slots} connections \
             at most. To have more, raise it: ulimit -n, LimitNOFILE= (systemd) or --ulimit \
             nofile= (Docker)."
        )),
        _ => None,
    }
}

/// The least number of descriptors that this number of shards can start with.
#[must_use]
pub(crate) const fn descriptors_min(shards: usize) -> u64 {
    PROCESS_DESCRIPTORS + SHARD_DESCRIPTORS * shards as u64
}

/// The number of descriptors that each of `shards` shards may have for its connections, if the soft
/// limit of open files is `nofile`. The rest is reserved for uses that must never run out: the
/// control socket and the files of a reload, webhooks to `endpoints`, logs, rings and listeners.
#[must_use]
pub(crate) fn descriptors_per_shard(nofile: u64, shards: usize, endpoints: usize) -> u64 {
    let kept = descriptors_min(shards) + CONTROL_DESCRIPTORS + endpoints as u64;
    nofile.saturating_sub(kept) / shards.max(1) as u64
}

/// The number of HTTP connections that a shard with this many `descriptors` for its connections
/// may have, if `wanted` are asked for. If connections live in the table instead (`direct`), this
/// leaves places in it to WebSockets; if WebSockets take descriptors as well, a quarter is for
/// HTTP.
#[must_use]
pub(crate) fn http_connections(descriptors: u64, direct: bool, wanted: usize) -> u32 {
    let share = if direct { descriptors } else { descriptors / HTTP_PART };
    // Both saturate: the smaller one counts.
    let share = u32::try_from(share).unwrap_or(u32::MAX).max(HTTP_CONNECTIONS_MIN);
    share.min(u32::try_from(wanted).unwrap_or(u32::MAX))
}

/// The number of `slots` that a shard with this many `descriptors` for its connections can fill if
/// each WebSocket takes one.
#[must_use]
pub(crate) fn plain_slots(descriptors: u64, slots: u32) -> u32 {
    let share = descriptors - descriptors / HTTP_PART;
    // Saturates: the smaller one counts.
    slots.min(u32::try_from(share).unwrap_or(u32::MAX)).max(1)
}

/// A note for the operator if WebSockets take descriptors, and a shard has fewer of these than
/// slots.
#[must_use]
pub(crate) fn plain_note(nofile: u64, filled: u32, slots: u32) -> Option<String> {
    (filled < slots).then(|| {
        format!(
            "Each WebSocket takes a descriptor, because the kernel is older than Linux 6.13 or \
             server.direct_descriptors is off. The limit of open files (nofile) is {nofile}, so \
             each shard takes {filled} connections. To have more, raise it: ulimit -n, \
             LimitNOFILE= (systemd) or --ulimit nofile= (Docker)."
        )
    })
}

/// A note for the operator if a shard may have fewer HTTP connections than were asked for.
#[must_use]
pub(crate) fn http_note(nofile: u64, granted: u32, wanted: usize) -> Option<String> {
    let most = wanted.min(HTTP_CONNECTIONS_ADVISED as usize);
    ((granted as usize) < most).then(|| {
        format!(
            "The limit of open files (nofile) is {nofile}, so each shard serves {granted} HTTP \
             connections at a time, and closes idle ones to make room for more. To have more, \
             raise it: ulimit -n, LimitNOFILE= (systemd) or --ulimit nofile= (Docker)."
        )
    })
}

/// The memory limit of the control group in bytes, the lowest of v1 and v2 and of all parents;
/// `None` if there is no limit.
#[must_use]
pub(crate) fn memory_limit() -> Option<u64> {
    memory_group().map(|group| group.limit)
}

/// The bytes that this process may use under this setting; `None` if there is no limit.
pub(super) fn memory_in_force(limit: MemoryLimit) -> Option<u64> {
    match limit {
        MemoryLimit::None => None,
        MemoryLimit::Bytes(bytes) => Some(bytes),
        MemoryLimit::OfHost => memory_limit().into_iter().chain(memory_of_host()).min(),
    }
}

/// The memory of the host, in bytes.
fn memory_of_host() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The control group with the lowest limit, of v1 and v2 and of all parents.
pub(super) fn memory_group() -> Option<MemoryGroup> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    memory_group_of(&membership, &|path| fs::read_to_string(path).ok())
}

/// A control group that limits memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemoryGroup {
    /// The limit in bytes.
    pub(super) limit: u64,
    directory: PathBuf,
    names: MemoryNames,
}

/// The names of the files of a version of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MemoryNames {
    root: &'static str,
    limit: &'static str,
    used: &'static str,
    /// The line of `memory.stat` about caches of files that the kernel drops first.
    droppable: &'static str,
}

const V1: MemoryNames = MemoryNames {
    root: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    droppable: "total_inactive_file",
};

const V2: MemoryNames = MemoryNames {
    root: "/sys/fs/cgroup",
    limit: "memory.max",
    used: "memory.current",
    droppable: "inactive_file",
};

impl MemoryGroup {
    /// The bytes that all processes of the group use, including the kernel's memory for their
    /// sockets, without the caches that the kernel would drop before it killed a process.
    pub(super) fn used(&self) -> Option<u64> {
        self.used_by(&|path| fs::read_to_string(path).ok())
    }

    fn used_by(&self, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
        let used = read(&self.directory.join(self.names.used))?.trim().parse::<u64>().ok()?;
        let stat = read(&self.directory.join("memory.stat")).unwrap_or_default();
        let droppable = stat.lines().find_map(|line| {
            let (name, bytes) = line.split_once(' ')?;
            (name == self.names.droppable).then(|| bytes.trim().parse::<u64>().ok())?
        });
        Some(used.saturating_sub(droppable.unwrap_or(0)))
    }
}

/// The number in a file under `/proc/sys`.
#[must_use]
pub(crate) fn sysctl(path: &str) -> Option<i64> {
    fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?.trim().parse().ok()
}

/// The number of local ports that outgoing connections choose from (`ip_local_port_range`, both
/// ends included).
#[must_use]
pub(crate) fn local_ports() -> Option<u64> {
    ports_between(&fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?)
}

/// A size in bytes as text for people; `None` is no limit.
#[must_use]
pub(crate) fn size(bytes: Option<u64>) -> String {
    match bytes {
        None | Some(ResourceLimit::UNLIMITED) => "unlimited".to_owned(),
        Some(bytes) if bytes < 1 << 20 => format!("{} KiB", bytes >> 10),
        Some(bytes) => format!("{} MiB", bytes >> 20),
    }
}

/// Finds the group with the lowest limit, of those in `/proc/self/cgroup` (cgroups(7)) and their
/// parents.
fn memory_group_of(
    membership: &str,
    read: &dyn Fn(&Path) -> Option<String>,
) -> Option<MemoryGroup> {
    let groups = membership.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next().unwrap_or_default();
        let group = fields.next().unwrap_or_default();
        let names = match controllers {
            "" => V2,
            list if list.split(',').any(|name| name == "memory") => V1,
            _ => return Vec::new(),
        };
        let normal = |part: &Component<'_>| matches!(part, Component::Normal(_));
        let group: PathBuf = Path::new(group).components().filter(normal).collect();
        let limited = |level: &Path| {
            let directory = Path::new(names.root).join(level);
            let limit = read(&directory.join(names.limit))?.trim().parse::<u64>().ok()?;
            Some(MemoryGroup { limit, directory, names })
        };
        group.ancestors().filter_map(limited).collect()
    });
    groups.filter(|group| group.limit < CGROUP_V1_UNLIMITED).min_by_key(|group| group.limit)
}

fn ports_between(text: &str) -> Option<u64> {
    let mut bounds = text.split_whitespace().map(str::parse::<u64>);
    let (low, high) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
    Some(high.checked_sub(low)? + 1)
}

/// Places of a shard if the configuration does not say: 4 MiB of kernel memory for the table (a
/// pointer and a tag each), which is allocated at once.
pub(crate) const PLACES_DEFAULT: u32 = 262_144;

/// The longest fixed file table of the kernel (`IORING_MAX_FIXED_FILES`, `io_uring/rsrc.c`).
const TABLE_MAX: u32 = 1 << 20;

/// The most places that a table leaves for WebSockets.
pub(crate) const PLACES_MAX: u32 = TABLE_MAX - STREAM_SLOTS_MAX;

/// The slots of a large table that WebSockets do not take. A connection that is no WebSocket yet
/// takes one for some milliseconds.
const STREAM_SLOTS_MAX: u32 = 1_024;

/// The limit of open files below which the operator gets a note. Laravel's documentation of Reverb
/// raises it to the same number (`minfds` of supervisor).
pub(crate) const NOFILE_ADVISED: u64 = 10_000;

/// Descriptors of the process: standard streams, the runtimes of the control thread and of the
/// webhook thread with its ring, a log pipe, and a reserve for API connections, as Redis keeps one
/// (32).
const PROCESS_DESCRIPTORS: u64 = 32;

/// Descriptors of a shard: its ring, the mailbox's eventfd, the ring's copy of it, and listeners.
const SHARD_DESCRIPTORS: u64 = 16;

/// Descriptors that a running process opens for a moment: peers of the control socket (16) and of
/// the listener for operators (8), the files that a reload reads, those of a round of the webhook
/// spool (16) and of the log, and name resolution.
const CONTROL_DESCRIPTORS: u64 = 48;

/// The least number of HTTP connections of a shard, however low the limit of open files is: enough
/// for a publisher, a health check, and two handshakes.
const HTTP_CONNECTIONS_MIN: u32 = 4;

/// The part of a shard's descriptors that is for HTTP if WebSockets take the others, as a divisor.
/// A handshake takes one for a moment only.
const HTTP_PART: u64 = 4;

/// The number of HTTP connections per shard below which the operator gets a note: publishers keep a
/// few each, and a handshake takes one for a moment.
const HTTP_CONNECTIONS_ADVISED: u32 = 256;

/// Limits from here on are none: cgroup v1 writes "no limit" as the largest multiple of its page
/// size, and no host has that much memory (2^62 bytes).
const CGROUP_V1_UNLIMITED: u64 = 1 << 62;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_capped_by_nofile_by_the_kernel_and_by_the_configuration() {
        assert_eq!(places_per_shard(20_000, None), 19_688);
        assert_eq!(places_per_shard(1_048_576, None), PLACES_DEFAULT);
        assert_eq!(places_per_shard(ResourceLimit::UNLIMITED, Some(u32::MAX)), PLACES_MAX);
        assert_eq!(places_per_shard(20_000, Some(500)), 500);
        assert_eq!(places_per_shard(20_000, Some(0)), 1);
        assert_eq!([table_len(20_000, 19_688), table_len(1_048_576, 500)], [20_000, 1_524]);
        assert_eq!(table_len(u64::MAX, PLACES_MAX), TABLE_MAX);
    }

    #[test]
    fn a_cut_of_the_slots_is_said_with_both_numbers() {
        let note = slots_note(20_000, Some(50_000)).unwrap();
        assert!(note.starts_with(
            "You asked for 50000 connections per shard, which needs a limit of open files (nofile) \
             of at least 50794; it is 20000, so each shard takes 19688. To have more, raise it:"
        ));
        let note = slots_note(1024, None).unwrap();
        assert!(note.starts_with(
            "The limit of open files (nofile) is 1024, so each shard takes 1008 connections"
        ));
        let note = slots_note(ResourceLimit::UNLIMITED, Some(2_000_000)).unwrap();
        assert!(note.contains("the kernel allows 1047552 at most"), "{note}");
    }

    #[test]
    fn a_number_that_fits_and_a_usual_limit_have_no_note() {
        assert_eq!(slots_note(204, Some(200)), None);
        assert_eq!(slots_note(20_000, None), None);
        assert_eq!(slots_note(1_048_576, None), None);
    }

    #[test]
    fn http_connections_leave_descriptors_for_everything_else() {
        let of = |nofile, shards| {
            http_connections(descriptors_per_shard(nofile, shards, 10), true, 16_384)
        };
        assert_eq!(of(1_024, 2), 451);
        assert_eq!(of(1_048_576, 2), 16_384);
        assert_eq!(of(ResourceLimit::UNLIMITED, 64), 16_384);
        assert_eq!([of(20, 1), of(1_024, 64)], [HTTP_CONNECTIONS_MIN; 2]);
        assert_eq!(http_connections(900, true, 2), 2, "as was asked for");
        for shards in [1, 2, 5, 16] {
            let all = u64::from(of(1_024, shards)) * shards as u64;
            assert!(all + descriptors_min(shards) + CONTROL_DESCRIPTORS <= 1_024, "{shards}");
        }
    }

    #[test]
    fn websockets_that_take_descriptors_leave_some_as_well() {
        let descriptors = descriptors_per_shard(20_000, 2, 0);
        let (http, slots) =
            (http_connections(descriptors, false, 16_384), plain_slots(descriptors, 20_000));
        assert_eq!((http, slots), (2_486, 7_458));
        assert!(u64::from(http + slots) <= descriptors);
        assert_eq!(plain_slots(descriptors, 100), 100);
        let note = plain_note(20_000, slots, 20_000).unwrap();
        assert!(note.contains("is 20000, so each shard takes 7458 connections."), "{note}");
        assert_eq!(plain_note(20_000, 100, 100), None);
        assert_eq!(plain_slots(0, 100), 1, "a table of zero is refused by the kernel");
    }

    #[test]
    fn few_http_connections_are_said_where_the_limit_is_the_cause() {
        assert_eq!(http_note(20_000, 9_000, 16_384), None);
        assert_eq!(http_note(1_024, 100, 100), None);
        let note = http_note(512, 195, 16_384).unwrap();
        assert!(note.starts_with(
            "The limit of open files (nofile) is 512, so each shard serves 195 HTTP connections"
        ));
    }

    #[test]
    fn raising_takes_soft_to_hard_and_reports_both() {
        let raised = raise_nofile();
        assert_eq!(raised.after.soft, raised.after.hard);
        assert_eq!(raised.after, ResourceLimit::nofile());
        let limit = |soft| ResourceLimit { soft, hard: 4096 };
        let report = |from, to| RaisedNofile { before: limit(from), after: limit(to) }.to_string();
        assert_eq!(report(1024, 4096), "nofile 4096 (raised from 1024)");
        assert_eq!(report(4096, 4096), "nofile 4096");
        assert_eq!(report(1024, 1024), "nofile 1024 (raising it to 4096 was refused)");
    }

    #[test]
    fn the_tightest_group_limits_the_memory() {
        let files = |path: &Path| {
            let text = match path.to_str()? {
                "/sys/fs/cgroup/memory.max" => "max\n",
                "/sys/fs/cgroup/web.slice/memory.max" => "536870912\n",
                "/sys/fs/cgroup/web.slice/ringwave.service/memory.max" => "1073741824\n",
                "/sys/fs/cgroup/memory/job/memory.limit_in_bytes" => "9223372036854771712\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes" => "2147483648\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        let limit = |membership| memory_group_of(membership, &files).map(|group| group.limit);
        assert_eq!(limit("0::/web.slice/ringwave.service\n"), Some(536_870_912));
        assert_eq!(limit("0::/\n"), None);
        assert_eq!(limit("4:cpu,memory:/job\n1:name=systemd:/\n0::/\n"), Some(2_147_483_648));
        assert_eq!(limit("0::/../../web.slice\n"), Some(536_870_912), "outside of a namespace");
        assert_eq!(limit("nonsense"), None);
    }

    #[test]
    fn what_a_group_uses_is_told_by_its_own_files_and_without_what_can_go() {
        let files = |path: &Path| {
            let text = match path.to_str()? {
                "/sys/fs/cgroup/web/memory.max" => "1000\n",
                "/sys/fs/cgroup/web/memory.current" => "900\n",
                "/sys/fs/cgroup/web/memory.stat" => "anon 500\ninactive_file 300\nfile 350\n",
                "/sys/fs/cgroup/memory/job/memory.limit_in_bytes" => "2000\n",
                "/sys/fs/cgroup/memory/job/memory.usage_in_bytes" => "1900\n",
                "/sys/fs/cgroup/memory/job/memory.stat" => {
                    "inactive_file 1\ntotal_inactive_file 100\n"
                }
                "/sys/fs/cgroup/bare/memory.max" => "50",
                "/sys/fs/cgroup/bare/memory.current" => "20",
                _ => return None,
            };
            Some(text.to_owned())
        };
        for (membership, limit, used) in [
            ("0::/web\n", 1000, 600),
            ("3:memory:/job\n0::/\n", 2000, 1800),
            ("0::/bare\n", 50, 20),
        ] {
            let group = memory_group_of(membership, &files).unwrap();
            assert_eq!((group.limit, group.used_by(&files)), (limit, Some(used)));
        }
    }

    #[test]
    fn sizes_are_whole_units() {
        assert_eq!(size(Some(65_536)), "64 KiB");
        assert_eq!(size(Some((8 << 20) + 1)), "8 MiB");
        assert_eq!([size(None), size(Some(ResourceLimit::UNLIMITED))], ["unlimited", "unlimited"]);
    }

    #[test]
    fn both_ends_of_the_port_range_are_ports() {
        assert_eq!(ports_between("32768\t60999\n"), Some(28_232));
        assert_eq!(ports_between("5 4"), None);
        assert_eq!(ports_between(""), None);
    }
}
