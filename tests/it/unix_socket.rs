use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::gateway::{Gateway, SHARD_COUNTS, Setup};
use crate::http::Http;

/// Has the gateway listen on its port and on a unix socket.
fn listening(setup: Setup) -> (Setup, PathBuf) {
    let path = setup.path("gateway.sock");
    let tcp = format!("--listen=tcp://{}", setup.address());
    let unix = format!("--listen=unix://{}", path.display());
    (setup.flag(&tcp).flag(&unix), path)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn serves(path: &Path) {
    let mut http = Http::over(UnixStream::connect(path).unwrap());
    http.send(b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n");
    assert_eq!(http.response().status, 200);
}

/// The number of warnings in the log that every user of this host may connect.
fn warned(gateway: &Gateway) -> usize {
    gateway.log().matches("Every user of this host may connect").count()
}

#[test]
fn a_unix_socket_is_for_its_user_and_its_group_only() {
    for shards in SHARD_COUNTS {
        let (setup, path) = listening(Setup::new(shards));
        let gateway = setup.start();
        assert_eq!(mode(&path), 0o660);
        serves(&path);
        assert_eq!(warned(&gateway), 0);
    }
}

#[test]
fn a_unix_socket_has_the_mode_the_owner_and_the_group_of_the_settings() {
    let own = rustix::process::getegid().as_raw();
    let (setup, path) = listening(Setup::new(2));
    let setup = setup.env("RINGWAVE_SOCKET_MODE", "0600");
    let setup = setup.toml(&format!("[server]\nsocket_group = \"{own}\"\n"));
    let _gateway = setup.start();
    assert_eq!((mode(&path), fs::metadata(&path).unwrap().gid()), (0o600, own));
    serves(&path);
}

#[test]
fn a_group_that_does_not_exist_ends_the_start_with_the_setting() {
    let setup = Setup::new(1).env("RINGWAVE_SOCKET_GROUP", "no-such-group");
    for command in ["start", "check"] {
        let output = setup.output(command);
        assert_eq!(output.status.code(), Some(78));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("server.socket_group cannot be \"no-such-group\""), "{text}");
        assert!(text.contains("the name or number of a group of this host"), "{text}");
    }
}

#[test]
fn the_start_warns_if_everybody_is_believed_about_addresses() {
    for (trusted, warnings) in [("unix", 1), ("none", 0)] {
        let (setup, _path) = listening(Setup::new(1));
        let setup = setup.env("RINGWAVE_SOCKET_MODE", "0666");
        let gateway = setup.env("RINGWAVE_TRUSTED_PROXIES", trusted).start();
        // The directories of the tests may be closed to others: then no other user can connect.
        let open =
            |directory: &Path| fs::metadata(directory).unwrap().permissions().mode() & 0o001 != 0;
        let reachable = gateway.path("").ancestors().all(open);
        if reachable && warnings > 0 {
            gateway.logged(&["WARN", "Every user of this host may connect", "server.socket_mode"]);
        } else {
            assert_eq!(warned(&gateway), 0);
        }
    }
}

#[test]
fn the_socket_of_a_server_that_was_killed_is_replaced() {
    let (setup, path) = listening(Setup::new(2));
    let gateway = setup.env("RINGWAVE_SOCKET_MODE", "0600").start();
    let gateway = gateway.restart_after(Signal::KILL);
    assert_eq!(mode(&path), 0o600);
    serves(&path);
    drop(gateway);
}
