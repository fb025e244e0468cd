//! Tells the program which commit it is built from, for `ringwave --version` and
//! `ringwave status`: by the variable `RINGWAVE_COMMIT`, which a packager may also set.
//!
//! Without a repository or git the build goes on, and the program does not know its commit.

use std::env;
use std::path::Path;
use std::process::Command;

/// The commit, which `git archive` puts here (see `.gitattributes`), because an archive has no
/// repository to ask.
const ARCHIVED: &str = "$Format:%H$";

/// The digits of a commit that are shown: enough to be unique in any repository.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=scripts/build.rs");
    println!("cargo::rerun-if-env-changed=RINGWAVE_COMMIT");
    let commit = env::var("RINGWAVE_COMMIT").ok().or_else(archived).or_else(checked_out);
    if let Some(commit) = commit.filter(|commit| commit.len() >= DIGITS) {
        let digits = commit.get(..DIGITS).unwrap_or(&commit);
        println!("cargo::rustc-env=RINGWAVE_COMMIT={digits}");
        println!("cargo::rustc-env=RINGWAVE_VERSION={} ({digits})", env!("CARGO_PKG_VERSION"));
    }
}

fn archived() -> Option<String> {
    (!ARCHIVED.starts_with('$')).then(|| ARCHIVED.to_owned())
}

/// The commit of the repository that these sources are in. Makes cargo run this again when another
/// one is checked out, and only then.
fn checked_out() -> Option<String> {
    // For a vendored copy in another repository, it would be the commit of that repository.
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let own =
        Path::new(&top).canonicalize().ok()? == env::current_dir().ok()?.canonicalize().ok()?;
    let commit = git(&["rev-parse", "HEAD"]).filter(|_| own)?;
    // Every commit and checkout adds a line there. A path that is missing would have the build run
    // each time.
    for watched in ["logs/HEAD", "HEAD"] {
        let path = git(&["rev-parse", "--git-path", watched])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    Some(commit)
}

/// The output of git, without the line feed at its end. `None` when it fails, or is not installed.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
