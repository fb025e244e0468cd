use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A home with a `cargo` that does what `script` says, where `scripts/test` looks for it first.
fn home(name: &str, script: &str) -> PathBuf {
    let home =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let cargo = home.join(".cargo/bin/cargo");
    fs::create_dir_all(cargo.parent().unwrap()).unwrap();
    fs::write(&cargo, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    home
}

/// Runs the step `test` with a limit of so many seconds.
fn tested(home: &Path, limit_s: &str) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/test");
    let mut command = Command::new(script);
    command.args(["--only", "test"]).env("HOME", home).env("STEP_LIMIT_S", limit_s);
    let output = command.output().unwrap();
    fs::remove_dir_all(home).unwrap();
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn compiling_may_take_longer_than_a_step_and_running_may_not() {
    let compiles = home("compiles", "case \"$*\" in *--no-run*) sleep 3 ;; esac");
    let output = tested(&compiles, "2");
    assert!(output.status.success(), "{output:?}");
    let runs = home("runs", "case \"$*\" in *--no-run*) ;; *) exec sleep 600 ;; esac");
    let output = tested(&runs, "2");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("gave up after 2 s: cargo test --locked"), "{told}");
}

#[test]
fn the_last_line_counts_the_tests_that_were_left_out() {
    let none = tested(&home("none", ""), "60");
    assert!(text(&none).ends_with("\n1 passed, 0 failed; 0 tests left out\n"), "{none:?}");
    // One test says so once for each of its gateways.
    let lines = "b::two: no nginx\\na::one: no strace\\nb::two: no nginx\\n";
    let some = tested(&home("some", &format!("printf '{lines}' >>\"$RINGWAVE_LEFT_OUT\"")), "60");
    let told = text(&some);
    assert!(told.contains("left out:\na::one: no strace\nb::two: no nginx\n"), "{told}");
    assert!(told.ends_with("\n1 passed, 0 failed; 2 tests left out\n"), "{told}");
}
