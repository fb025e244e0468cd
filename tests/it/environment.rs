//! The sources of the configuration, with the real binary: paths that are no files, variables of
//! other servers, limits that no process could keep.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use serde_json::json;

use crate::client::Client;
use crate::gateway::{SECRET, Setup};
use crate::http::Call;

#[track_caller]
fn refused(output: &Output, texts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    for text in texts {
        assert!(stderr.contains(text), "{text:?} is not in: {stderr}");
    }
    assert!(!stderr.contains("panicked") && !stderr.contains(SECRET), "{stderr}");
}

fn fifo(setup: &Setup, name: &str) {
    let _absent = fs::remove_file(setup.path(name));
    assert!(Command::new("mkfifo").arg(setup.path(name)).status().unwrap().success());
}

#[test]
fn a_fifo_that_nobody_writes_ends_the_start_and_one_that_is_written_is_read() {
    let setup = Setup::new(1);
    let mut command = setup.command("check");
    fifo(&setup, ".env");
    refused(&command.output().unwrap(), &["/.env is a pipe that no process wrote"]);

    let credentials = "REVERB_APP_ID=9\nREVERB_APP_KEY=k\nREVERB_APP_SECRET=s\n";
    let mut writer = Command::new("sh");
    writer.arg("-c").arg("printf '%s' \"$0\" > .env").arg(credentials);
    let mut writer = writer.current_dir(setup.path("")).spawn().unwrap();
    let output = command.output().unwrap();
    assert!(writer.wait().unwrap().success());
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains("REVERB_APP_ID in .env line 1"), "{stdout}");
}

#[test]
fn an_unreadable_file_is_named_with_its_path_and_the_user() {
    let setup = Setup::new(1);
    let mut command = setup.command("check");
    fs::set_permissions(setup.path(".env"), fs::Permissions::from_mode(0o0)).unwrap();
    let mut uid = rustix::process::geteuid().as_raw();
    if uid == 0 {
        // Root reads everything; the binary has to be where another user reaches it.
        uid = 65_534;
        let binary = std::env::temp_dir().join(format!("ringwave-{}", std::process::id()));
        fs::copy(env!("CARGO_BIN_EXE_ringwave"), &binary).unwrap();
        let directory = std::env::temp_dir().join(format!("ringwave-{}.d", std::process::id()));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(".env"), "A=1\n").unwrap();
        fs::set_permissions(directory.join(".env"), fs::Permissions::from_mode(0o0)).unwrap();
        let mut other = Command::new(&binary);
        other.arg("check").current_dir(&directory).uid(uid).gid(uid).env_clear();
        let output = other.output().unwrap();
        fs::remove_file(binary).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        let path = directory.join(".env").display().to_string();
        return refused(&output, &[&path, "permission denied", &format!("uid {uid}")]);
    }
    let path = setup.path(".env").display().to_string();
    refused(&command.output().unwrap(), &[&path, "permission denied", &format!("uid {uid}")]);
}

#[test]
fn a_project_of_hosted_pusher_is_served_as_it_is() {
    let env = format!(
        "BROADCAST_CONNECTION=pusher\nPUSHER_APP_ID=1234\nPUSHER_APP_KEY=pusher-key\n\
         PUSHER_APP_SECRET={SECRET}\nPUSHER_APP_CLUSTER=mt1\n"
    );
    let gateway = Setup::new(1).dotenv(&env).start();
    let mut client = Client::open(&gateway, "/app/pusher-key?protocol=7", &[]);
    client.established();
    let path = "/apps/1234/connections".to_owned();
    let call = Call { path, key: "pusher-key".to_owned(), ..Call::get("") };
    assert_eq!(call.ok(&gateway), json!({ "connections": 1 }));
    gateway.logged(&["the app 1234 of PUSHER_APP_ID", "in .env line 2", "hosted Pusher until"]);
    client.expect_nothing();
}

#[test]
fn the_variables_of_soketi_serve_its_app_where_its_clients_look_for_it() {
    let env = format!(
        "SOKETI_DEFAULT_APP_ID=77\nSOKETI_DEFAULT_APP_KEY=soketi-key\n\
         SOKETI_DEFAULT_APP_SECRET={SECRET}\nSOKETI_DEFAULT_APP_MAX_CONNS=1\n\
         SOKETI_PATH_PREFIX=/ws\nSOKETI_METRICS_ENABLED=true\n"
    );
    let setup = Setup::new(1).dotenv(&env);
    let output = setup.command("check").env("SOKETI_PORT", "6001").output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.contains(":6001.\n"), "{stdout}");
    assert!(stdout.contains("SOKETI_METRICS_ENABLED has no effect"), "{stdout}");

    let setup = Setup::new(1).dotenv(&env.replace("SOKETI_PATH_PREFIX=/ws\n", ""));
    let gateway = setup.start();
    let mut client = Client::open(&gateway, "/app/soketi-key?protocol=7", &[]);
    client.established();
    Client::open(&gateway, "/app/soketi-key?protocol=7", &[])
        .expect_refusal(4004, "Application is over connection quota");
    gateway.logged(&["the app 77 of soketi's variables is served", "in .env line 1"]);
    client.expect_nothing();
}

#[test]
fn a_limit_of_memory_that_no_process_could_keep_ends_the_start_with_the_figure() {
    let setup = Setup::new(2).env("RINGWAVE_MEMORY_LIMIT", "1M");
    for command in ["start", "check"] {
        refused(&setup.output(command), &["server.memory_limit is 1M", "set it to 15M or more"]);
    }
}
