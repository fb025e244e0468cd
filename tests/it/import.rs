use std::fs;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{SECRET, Setup};
use crate::http::Call;

/// The value of a `config/reverb.php` with two apps.
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

fn run(setup: &Setup, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringwave"));
    command.args(arguments).current_dir(setup.path(""));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have ended without reading.
    let _ended = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn import(setup: &Setup, arguments: &[&str], input: &str) -> Output {
    run(setup, &[&["import"], arguments].concat(), input.as_bytes())
}

/// Configurations of all servers that serve the app `one` for pages of `example.com` alone, except
/// for soketi, which knows no origins.
fn sources() -> [(&'static str, String); 5] {
    let app = json!({
        "id": "one", "key": "one-key", "secret": SECRET, "enabled": true,
        "allowed_origins": ["example.com"],
    });
    let of_soketi = json!({ "id": "one", "key": "one-key", "secret": SECRET });
    let mut of_reverb = config();
    of_reverb["apps"]["apps"][0]["allowed_origins"] = json!({ "0": "example.com", "2": null });
    let of_sockudo = json!({ "app_manager": { "array": { "apps": [app] } } });
    let toml = format!(
        "port = 6001\n[[app_manager.array.apps]]\nid = \"one\"\nkey = \"one-key\"\n\
         secret = \"{SECRET}\"\nenabled = true\nallowed_origins = [\"https://example.com\"]\n"
    );
    [
        ("reverb", of_reverb.to_string()),
        ("soketi", json!({ "appManager.array.apps": [of_soketi] }).to_string()),
        ("sockudo", of_sockudo.to_string()),
        ("sockudo", toml),
        ("websockets", json!({ "apps": [app], "dashboard": { "port": 6001 } }).to_string()),
    ]
}

#[test]
fn each_source_becomes_a_file_that_is_checked_and_served_without_a_wider_restriction() {
    for (source, input) in sources() {
        let setup = Setup::new(1).without_app();
        let output = import(&setup, &[source, "--output", "ringwave.toml"], &input);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0), "{stderr}");
        assert!(stderr.contains("ringwave.toml is written"), "{stderr}");
        let file = setup.path("ringwave.toml");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
        let text = fs::read_to_string(&file).unwrap();
        // The port of the file is not the test's.
        let setup = setup.toml(&text).flag("--port=8080");
        let checked = setup.output("check");
        let shown = String::from_utf8(checked.stdout).unwrap();
        assert!(checked.status.success(), "{source}: {shown}");
        assert!(shown.contains("The configuration is valid") && !shown.contains(SECRET), "{shown}");

        let gateway = setup.start();
        let prefix = if source == "reverb" { "/ws" } else { "" };
        let path = format!("{prefix}/app/one-key");
        let mut client = Client::open(&gateway, &path, &[("Origin", "https://example.com")]);
        client.established();
        if source != "soketi" {
            Client::open(&gateway, &path, &[("Origin", "https://evil.test")])
                .expect_refusal(4009, "Origin not allowed");
        }
    }
}

#[test]
fn what_laravel_prints_becomes_a_file_that_is_served() {
    let setup = Setup::new(2).without_app();
    let json = config().to_string() + "\n";
    fs::write(setup.path("reverb.json"), &json).unwrap();
    let from_file = import(&setup, &["reverb", "reverb.json"], "");
    for output in [
        import(&setup, &["reverb"], &json),
        import(&setup, &["reverb", "-"], &json),
        import(&setup, &["reverb", "--output", "-"], &json),
        run(&setup, &["import-reverb"], json.as_bytes()),
        run(&setup, &["import-reverb", "reverb.json"], b""),
    ] {
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
    let warned = format!("PHP Warning:  Undefined array key \"x\" in a.php\n{}", config());
    for (arguments, input, reason) in [
        (&["reverb"][..], "", "the input is empty"),
        (&["reverb"], "<?php return [];", "the input is not JSON"),
        (&["reverb"], &warned, "it begins with \"PHP Warning:  Undefined array key"),
        (&["reverb"], "{}", "the input is not Laravel's config('reverb')"),
        (&["reverb"], &none.to_string(), "apps.apps[0].key is missing in the input"),
        (&["reverb", "absent.json"], "", "cannot read absent.json"),
        (&["soketi"], "{\"port\": 1}", "the input is not a configuration of soketi"),
        (&["sockudo"], "port = ${A_PORT_OF_NOBODY}", "needs A_PORT_OF_NOBODY"),
        (&["websockets"], "null", "the input is null"),
    ] {
        let output = import(&setup, arguments, input);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(65), 0), "{stderr}");
        assert!(stderr.contains(reason) && !stderr.contains(SECRET), "{stderr}");
    }
    for arguments in [&[][..], &["pusher"]] {
        assert_eq!(import(&setup, arguments, "{}").status.code(), Some(64));
    }
}

#[test]
fn a_file_that_is_there_is_replaced_on_success_only_and_without_traces() {
    let setup = Setup::new(1);
    let file = setup.path("out.toml");
    fs::write(&file, "# old\n").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let failed = import(&setup, &["reverb", "--output", "out.toml"], "{}");
    assert_eq!(failed.status.code(), Some(65));
    assert_eq!(fs::read_to_string(&file).unwrap(), "# old\n");
    let before = fs::metadata(&file).unwrap();

    let json = config().to_string();
    let written = import(&setup, &["reverb", "-o", "out.toml"], &json);
    let stderr = String::from_utf8(written.stderr).unwrap();
    assert_eq!(written.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("is replaced; its mode was 644 and is 600 now"), "{stderr}");
    let after = fs::metadata(&file).unwrap();
    assert_eq!(after.mode() & 0o7777, 0o600);
    assert_ne!(before.ino(), after.ino(), "a reader has the old file or the new one");
    assert!(fs::read_to_string(&file).unwrap().contains("one-key"));
    let names = fs::read_dir(setup.path("")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("unfinished")), "{names:?}");
}

#[test]
fn what_cannot_be_replaced_safely_stays_as_it_is_with_73() {
    let setup = Setup::new(1);
    let json = config().to_string();
    fs::write(setup.path("in.json"), &json).unwrap();
    fs::write(setup.path("real.toml"), "# old\n").unwrap();
    symlink("real.toml", setup.path("link.toml")).unwrap();
    symlink("nowhere.toml", setup.path("dangling.toml")).unwrap();
    fs::write(setup.path("one.toml"), "# old\n").unwrap();
    fs::hard_link(setup.path("one.toml"), setup.path("two.toml")).unwrap();
    fs::create_dir(setup.path("directory")).unwrap();
    for (name, reason) in [
        ("link.toml", "it is a symbolic link"),
        ("dangling.toml", "it is a symbolic link"),
        ("two.toml", "hard links"),
        ("directory", "it is no regular file"),
        ("/dev/null", "it is no regular file"),
        ("in.json", "it is the input"),
        ("absent/out.toml", "cannot write"),
    ] {
        let output = import(&setup, &["reverb", "in.json", "--output", name], "");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(73), 0), "{stderr}");
        assert!(stderr.contains(reason) && stderr.contains(name), "{stderr}");
    }
    for name in ["real.toml", "one.toml", "two.toml"] {
        assert_eq!(fs::read_to_string(setup.path(name)).unwrap(), "# old\n", "{name}");
    }
    assert!(fs::symlink_metadata(setup.path("nowhere.toml")).is_err());
    assert_eq!(fs::read_to_string(setup.path("in.json")).unwrap(), json);
}
