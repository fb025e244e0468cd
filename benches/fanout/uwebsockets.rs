//! The server on uWebSockets (`benches/uwebsockets`), which is built when it is asked for: it needs
//! a C++ compiler and libclang, and so is no part of the gateway's own build.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the server.
///
/// # Errors
/// It does not build here. The compiler has said why.
pub(crate) fn build() -> Result<(), String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/uwebsockets/Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--manifest-path"]).arg(manifest);
    let built = command.arg("--target-dir").arg(target()).status();
    match built {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// The path of the executable.
pub(crate) fn executable() -> PathBuf {
    target().join("release/ringwave-uwebsockets")
}

/// Its build directory, inside that of this bench.
fn target() -> PathBuf {
    let own = std::env::current_exe().expect("the path of this bench");
    // It is target/release/deps/fanout-0123456789abcdef.
    own.ancestors().nth(3).expect("a bench is in a build directory").join("uwebsockets")
}
