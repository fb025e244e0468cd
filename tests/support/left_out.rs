//! A test that this host cannot run says so by [`left_out`], and in no other way, so that
//! `scripts/test` can count it. The harness of Rust knows only tests that pass and tests that fail.

use std::env;
use std::fs::File;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::thread;

/// The file that collects the tests that were left out, a line each; `scripts/test` names it.
const COLLECTED_IN: &str = "RINGWAVE_LEFT_OUT";

/// Says that the test that calls this cannot run here, and why. It has to return then.
pub(crate) fn left_out(why: &str) {
    // A test runs on a thread of its name.
    let thread = thread::current();
    let line = format!("{}: {why}\n", thread.name().unwrap_or("a test"));
    // The harness swallows what a test that passes prints, but not what it writes to the stream.
    let _closed = io::stderr().write_all(format!("left out: {line}").as_bytes());
    if let Some(path) = env::var_os(COLLECTED_IN) {
        let file = File::options().append(true).create(true).open(&path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap_or_else(|error| {
            panic!("cannot write to {COLLECTED_IN}={}: {error}", path.display())
        });
    }
}

/// Whether a program succeeds here. If not, the test that needs it is left out.
pub(crate) fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    let silent = command.args(arguments).stdin(Stdio::null());
    let silent = silent.stdout(Stdio::null()).stderr(Stdio::null());
    let runs = silent.status().is_ok_and(|status| status.success());
    if !runs {
        // The first line of a script in the arguments is enough.
        let command = [&[program], arguments].concat().join(" ");
        let command = command.lines().next().unwrap_or_default();
        left_out(&format!("`{command}` does not succeed here"));
    }
    runs
}
