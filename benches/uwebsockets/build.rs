//! Builds uWebSockets from the sources in the package `libuwebsockets-sys`.
//!
//! That package can build them itself (feature `uws_vendored`), but with libuv as their event loop
//! and with OpenSSL. A server on Linux uses `epoll`, the default of uWebSockets, and this one
//! speaks no TLS.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

fn main() {
    let root = sources();
    // The first library uses the second one, and a linker looks for names in this order.
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .opt_level(3)
        .warnings(false)
        .define("LIBUS_NO_SSL", None)
        .define("UWS_NO_ZLIB", None)
        .includes([root.join("src"), root.join("uSockets/src")])
        .file(root.join("capi/libuwebsockets.cpp"))
        .compile("uwebsockets");
    let source = |name| root.join("uSockets/src").join(name);
    cc::Build::new()
        .std("c11")
        .opt_level(3)
        .warnings(false)
        .define("LIBUS_NO_SSL", None)
        .define("LIBUS_USE_EPOLL", None)
        .include(root.join("uSockets/src"))
        .files(["bsd.c", "context.c", "loop.c", "socket.c", "udp.c"].map(source))
        .file(source("eventing/epoll_kqueue.c"))
        .compile("usockets");
    println!("cargo:rerun-if-changed=build.rs");
}

/// The directory of the sources. Cargo tells a build script the directories of its own package
/// only, so that it has to ask for this one.
fn sources() -> PathBuf {
    let cargo = std::env::var_os("CARGO").expect("cargo runs this");
    // Packages of other platforms may not have been downloaded.
    let target = std::env::var("TARGET").expect("cargo names the target");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", &target])
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo starts");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("`cargo metadata` is JSON");
    let packages = metadata["packages"].as_array().expect("the metadata lists packages");
    let bindings = packages.iter().find(|package| package["name"] == "libuwebsockets-sys");
    let manifest = bindings.and_then(|package| package["manifest_path"].as_str());
    let manifest = Path::new(manifest.expect("a dependency has a manifest"));
    manifest.parent().expect("a manifest is in a directory").join("uWebSockets")
}
