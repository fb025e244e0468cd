//! Directories of a target, removed at its end.

use std::fs;
use std::path::{Path, PathBuf};

/// A directory of this process, in memory where the host has such a file system.
#[derive(Debug)]
pub struct Place(PathBuf);

impl Place {
    /// Makes an empty directory. `name` distinguishes the directories of a process.
    pub fn new(name: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = base.join(format!("ringwave-fuzz-{}-{name}", std::process::id()));
        let _there = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory for this target");
        Self(path)
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}
