//! The figures that the kernel has of the process.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// The figures that the kernel has of the process. `None`: the kernel does not say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ProcessFigures {
    /// Bytes of memory that the process has in use.
    pub(super) resident_bytes: Option<u64>,
    /// Open files.
    pub(super) open_files: Option<u64>,
    /// The limit of open files.
    pub(super) open_files_max: Option<u64>,
}

impl ProcessFigures {
    /// The figures now.
    pub(super) fn read() -> Self {
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
        Self {
            resident_bytes: pages
                .and_then(|pages| pages.checked_mul(rustix::param::page_size() as u64)),
            // Since Linux 6.2 its size is the number of its entries, which need not be listed.
            open_files: fs::metadata("/proc/self/fd").ok().map(|of| of.len()).filter(|&of| of > 0),
            open_files_max: getrlimit(Resource::Nofile).current,
        }
    }
}
