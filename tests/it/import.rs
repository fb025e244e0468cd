use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{SECRET, Setup};
use crate::http::Call;

/// What two apps in `config/reverb.php` come to.
fn config() -> Value {
    let app = |id: &str, origins: Value| {
        json!({
            "key": format!("{id}-key"), "secret": SECRET, "app_id": id,
            "options": { "host": "localhost", "port": 8080, "scheme": "http", "useTLS": false },
            "allowed_origins": origins, "ping_interval": 60, "activity_timeout": 25,
            "max_connections": null, "max_message_size": 10_000,
        })
    };
    json!({
        "default": "reverb",
        "servers": { "reverb": {
            "host": "0.0.0.0", "port": "8080", "path": "/ws", "hostname": null,
            "options": { "tls": [] }, "max_request_size": "20000",
            "scaling": { "enabled": false }, "pulse_ingest_interval": 15,
        } },
        "apps": {
            "provider": "config",
            "apps": [app("one", json!(["*"])), app("two", json!(["example.com"]))],
        },
    })
}

fn import(setup: &Setup, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringwave"));
    command.arg("import-reverb").args(arguments).current_dir(setup.path(""));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have ended without reading.
    let _ended = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn what_laravel_prints_becomes_a_file_that_is_served() {
    let setup = Setup::new(2).without_app();
    let json = config().to_string() + "\n";
    fs::write(setup.path("reverb.json"), &json).unwrap();
    let from_file = import(&setup, &["reverb.json"], "");
    for output in [import(&setup, &[], &json), import(&setup, &["-"], &json)] {
        assert_eq!((output.status.code(), &output.stdout), (Some(0), &from_file.stdout));
    }
    let setup = setup.toml(&String::from_utf8(from_file.stdout).unwrap());
    let checked = setup.output("check");
    let shown = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success() && shown.contains("The configuration is valid: 2 apps"));
    assert!(!shown.contains(SECRET));

    let gateway = setup.start();
    let mut client = Client::open(&gateway, "/ws/app/one-key?protocol=7", &[]);
    assert_eq!(client.established()["activity_timeout"], 25);
    Client::open(&gateway, "/ws/app/two-key", &[("Origin", "https://other.com")])
        .expect_refusal(4009, "Origin not allowed");
    Client::open(&gateway, "/ws/app/two-key", &[("Origin", "https://example.com")]).established();
    let path = "/apps/two/connections".to_owned();
    Call { path, key: "two-key".to_owned(), ..Call::get("") }.ok(&gateway);
}

#[test]
fn what_is_not_that_is_refused_with_65_and_prints_nothing() {
    let setup = Setup::new(1);
    let none = json!({ "apps": { "apps": [{ "app_id": "1", "key": null, "secret": SECRET }] } });
    for (arguments, input, reason) in [
        (&[][..], "", "the input is not JSON: line 1, column 0"),
        (&[], "<?php return [];", "the input is not JSON: line 1"),
        (&[], "{}", "the input is not Laravel's config('reverb')"),
        (&[], &none.to_string(), "apps.apps[0].key is missing in the input"),
        (&["absent.json"], "", "absent.json cannot be read"),
    ] {
        let output = import(&setup, arguments, input);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(65), 0), "{stderr}");
        assert!(stderr.contains(reason) && !stderr.contains(SECRET), "{stderr}");
    }
}
