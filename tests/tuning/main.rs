//! Every file of `tuning/` at work: the shipped files run here, with other paths. Tests of a
//! program that is not installed are left out, and counted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the lint table excepts test functions, this excepts what they call"
)]

#[path = "../support/digest.rs"]
mod digest;
mod gateway;
#[path = "../support/left_out.rs"]
mod left_out;
mod receiver;

/// `scripts/apply-tuning`, the kernel's settings and limits.
mod apply;
/// The container: its recipe and its seccomp profile.
mod container;
/// The rules and the dashboard for the metrics.
mod monitoring;
/// nginx with the site and both upstreams.
mod nginx;
/// The units, and the binary under a service manager.
mod service;
/// The program of supervisor.
mod supervisor;
/// Several parts of `scripts/apply-tuning` that serve together.
mod together;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of `tuning/`.
fn tuning(file: &str) -> String {
    fs::read_to_string(root().join("tuning").join(file)).unwrap()
}

/// Replaces a text that has to be there.
#[track_caller]
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from} is not in:\n{text}");
    text.replace(from, to)
}

/// The text that follows `key` on its line, in a file of such lines.
#[track_caller]
fn setting<'a>(text: &'a str, key: &str) -> &'a str {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(key));
    value.unwrap_or_else(|| panic!("no line {key}")).trim_end_matches(';').trim()
}

/// A directory of one test, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringwave-tuning-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A path below it, as text.
    fn at(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file below it and returns its path.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.at(name);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}
