//! A directory and a loopback address for each process that a test starts, so that no two tests
//! fight for a port or a file.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory and an address that nothing else uses.
pub(crate) struct Place {
    pub(crate) address: Ipv4Addr,
    /// It exists and is empty. Its owner removes it.
    pub(crate) directory: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        let number = TAKEN.fetch_add(1, Ordering::Relaxed);
        let process = process::id();
        let name = format!("{process}-{number}");
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&directory).unwrap();
        let address = 127 << 24 | (process % 4094 + 1) << 12 | (number & 0xfff);
        Self { address: Ipv4Addr::from_bits(address), directory }
    }
}
