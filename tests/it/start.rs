use std::fs;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{APP_ID, Gateway, KEY, SECRET, Setup, served, served_with};
use crate::http::{Call, publish};
use crate::sign::channel_auth;
use crate::steps::output::{self, texts};

#[track_caller]
fn refused(output: &Output, sentence: &[&str]) {
    output::refused(output, sentence);
    assert_eq!(output.status.code(), Some(78));
}

/// A gateway without an app in its configuration.
fn without_app() -> Setup {
    Setup::new(1).without_app()
}

#[test]
fn the_start_line_is_that_of_reverb() {
    served_with(
        |setup| setup.env("REVERB_HOST", "\"localhost\"").env("REVERB_SERVER_PATH", "/ws"),
        |gateway| {
            let line = format!("Starting server on {}/ws (localhost).", gateway.address());
            gateway.logged(&["INFO", &line]);
            let log = gateway.log();
            let shards = format!("shards  {}", gateway.shards());
            for text in [shards.as_str(), "apps    4711", "nofile", "memlock", "somaxconn"] {
                assert!(log.contains(text), "{text:?} is not in:\n{log}");
            }
        },
    );
}

#[test]
fn an_address_in_use_is_named_with_what_to_do() {
    for reusing in [false, true] {
        let setup = Setup::new(2);
        let address = setup.address();
        let domain = socket2::Domain::IPV4;
        let other = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
        other.set_reuse_port(reusing).unwrap();
        other.bind(&address.into()).unwrap();
        other.listen(1).unwrap();
        let output = setup.output("start");
        let text = format!("cannot bind {address}: address already in use");
        refused(&output, &[&text, "--port"]);
    }
}

#[test]
fn a_gateway_does_not_share_its_port_with_a_second_one() {
    served(|gateway| {
        let output = gateway.twin().output("start");
        refused(&output, &["address already in use"]);
        Client::connect(gateway).expect_nothing();
    });
}

#[test]
fn an_address_of_no_interface_is_named() {
    let output = Setup::new(1).flag("--listen=tcp://192.0.2.1:8080").output("start");
    refused(&output, &["cannot bind 192.0.2.1:8080: cannot assign requested address"]);
}

#[test]
fn without_an_app_the_development_app_is_served_and_shown() {
    let gateway = without_app().start();
    for text in ["100001", "app-key", "app-secret", "wsPort: 8080", "new Echo"] {
        gateway.logged(&[text]);
    }
    let mut client = Client::open(&gateway, "/app/app-key?protocol=7", &[]);
    client.established();
    let call = Call {
        path: "/apps/100001/channels".to_owned(),
        key: "app-key".to_owned(),
        secret: "app-secret".to_owned(),
        ..Call::get("")
    };
    assert_eq!(call.ok(&gateway), json!({ "channels": {} }));
}

#[test]
fn the_development_app_is_not_served_to_the_network_unless_asked() {
    let setup = without_app().flag("--listen=tcp://0.0.0.0:48080");
    for command in ["start", "check"] {
        refused(&setup.output(command), &["--dev"]);
    }
    let setup = without_app();
    let address = format!("--listen=tcp://{}", setup.address());
    let any = "--listen=tcp://0.0.0.0:48080";
    let setup = setup.flag(&address).flag(any).flag("--dev");
    let output = setup.output("check");
    let (stdout, stderr) = texts(&output);
    assert!(output.status.success(), "{stderr}");
    assert!(stdout.contains("its secret is public"), "{stdout}");
}

#[test]
fn the_env_file_of_a_laravel_app_is_read_as_laravel_reads_it() {
    let setup = without_app();
    let dotenv = r#"
APP_NAME="Laravel App" # a comment
BROADCAST_CONNECTION=reverb

REVERB_APP_ID=123456
export REVERB_APP_KEY='abcdefghij0123456789'
REVERB_APP_SECRET="sec#ret with \"quotes\" and \\"
REVERB_HOST="localhost"
REVERB_PORT=8081
REVERB_SCHEME=http
REVERB_APP_ACTIVITY_TIMEOUT=(null)
REVERB_SERVER_PATH="${APP_PATH_THAT_IS_NOT_SET}"
REVERB_APP_RATE_LIMITING_ENABLED=(false)

VITE_REVERB_APP_KEY="${REVERB_APP_KEY}"
VITE_REVERB_HOST="${REVERB_HOST}"
VITE_REVERB_PORT="${REVERB_PORT}"
VITE_REVERB_SCHEME="${REVERB_SCHEME}"
"#
    .replace("REVERB_SERVER_PATH=\"${APP_PATH_THAT_IS_NOT_SET}\"\n", "");
    let gateway = setup.dotenv(&dotenv).start();
    let mut client = Client::open(&gateway, "/app/abcdefghij0123456789?protocol=7", &[]);
    assert_eq!(client.established()["activity_timeout"], 30);
    let call = Call {
        path: "/apps/123456/connections".to_owned(),
        key: "abcdefghij0123456789".to_owned(),
        secret: r#"sec#ret with "quotes" and \"#.to_owned(),
        ..Call::get("")
    };
    assert_eq!(call.ok(&gateway), json!({ "connections": 1 }));
    // The app publishes to REVERB_PORT, and the start says so.
    gateway.logged(&["REVERB_PORT=8081", "8080"]);
    gateway.logged(&["Starting server on", "(localhost)"]);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_files() {
    let setup = Setup::new(1).env("REVERB_APP_PING_INTERVAL", "11").toml(
        "[app]\nping_interval = 9\npong_timeout = 8\nactivity_timeout = 7\n[server]\nshards = 3\n",
    );
    let mut command = setup.command("check");
    command.env("REVERB_APP_ACTIVITY_TIMEOUT", "13").env("RINGWAVE_SHARDS", "4");
    let (stdout, stderr) = texts(&command.output().unwrap());
    assert!(stderr.is_empty(), "{stderr}");
    let line = |key: &str| {
        let line = stdout.lines().find(|line| line.split_whitespace().next() == Some(key));
        line.unwrap_or_else(|| panic!("{key} is not in:\n{stdout}")).to_owned()
    };
    assert!(line("server.shards").contains(" 1 ") && line("server.shards").contains("--shards"));
    assert!(line("apps[0].activity_timeout").contains("13"));
    assert!(line("apps[0].ping_interval").contains("11"));
    assert!(line("apps[0].pong_timeout").contains("8"));
}

#[test]
fn check_shows_every_value_but_no_secret() {
    let second = "[[apps]]\napp_id = \"b\"\nkey = \"b-key\"\nsecret = \"toml-secret-77\"\n";
    let output = Setup::new(2).toml(second).output("check");
    let (stdout, stderr) = texts(&output);
    assert!(output.status.success(), "{stderr}");
    assert!(!stdout.contains(SECRET) && !stdout.contains("toml-secret-77"), "{stdout}");
    assert_eq!(stdout.matches("[withheld]").count(), 2);
    for text in ["server.port", "apps[0].key", KEY, "b-key", "The configuration is valid: 2 apps"] {
        assert!(stdout.contains(text), "{text:?} is not in:\n{stdout}");
    }
}

#[test]
fn a_bad_value_is_named_with_its_source_and_what_is_accepted() {
    let bad = |setup: Setup, texts: &[&str]| {
        for command in ["start", "check"] {
            refused(&setup.output(command), texts);
        }
    };
    bad(
        Setup::new(1).env("REVERB_APP_MAX_MESSAGE_SIZE", "lots"),
        &["REVERB_APP_MAX_MESSAGE_SIZE", ".env", "lots"],
    );
    bad(Setup::new(1).env("REVERB_SERVER_PORT", "70000"), &["REVERB_SERVER_PORT", "65535"]);
    bad(Setup::new(1).flag("--log-format=xml"), &["--log-format", "text", "json"]);
    bad(Setup::new(1).toml("[server]\nprot = 1\n"), &["server.prot", "server.port"]);
    bad(Setup::new(1).toml("[server\n"), &["ringwave.toml"]);
    bad(Setup::new(1).env("BROKEN", "'never closed"), &[".env"]);
    bad(Setup::new(1).flag("--env=nowhere.env"), &["nowhere.env"]);
    bad(without_app().env("REVERB_APP_KEY", "k"), &["REVERB_APP_SECRET"]);
    bad(
        Setup::new(1).env("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "everybody"),
        &["REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "members"],
    );
}

#[test]
fn an_invalid_command_line_exits_with_64() {
    let output = Setup::new(1).flag("--no-such-flag").output("start");
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(Setup::new(1).output("no-such-command").status.code(), Some(64));
}

/// Makes the gateway log whatever it may log of a secret or a signature.
fn signed_traffic(gateway: &Gateway) -> Vec<String> {
    let mut signatures = Vec::new();
    let mut client = Client::connect(gateway);
    for channel in ["private-a", "private-b\u{7f}", "private-c"] {
        let auth = channel_auth(&client.socket_id, channel, None);
        signatures.push(auth.rsplit_once(':').unwrap().1.to_owned());
        for auth in [auth.clone(), auth.to_uppercase(), format!("{auth}00")] {
            let data = json!({ "auth": auth, "channel": channel });
            client.send(&json!({ "event": "pusher:subscribe", "data": data }));
            client.next();
            let text = json!({ "padding": "x".repeat(100), "data": data.to_string() });
            client.send(&json!({ "event": "pusher:subscribe", "data": text }));
            client.next();
        }
    }
    let member = json!({ "user_id": 1 }).to_string();
    let auth = channel_auth(&client.socket_id, "presence-a", Some(&member));
    signatures.push(auth.rsplit_once(':').unwrap().1.to_owned());
    // The long name puts the signature across the end of what is shown.
    let data = json!({ "channel": "presence-a", "channel_data": member, "auth": auth });
    client.send(&json!({ "event": "pusher:subscribe", "data": data }));
    client.next();
    for call in [Call::get("channels"), Call::get("nothing"), Call::post("events", &json!({}))] {
        let target = call.target();
        signatures.push(target.rsplit_once('=').unwrap().1.to_owned());
        call.send(gateway);
        Call { secret: "wrong".to_owned(), ..call }.send(gateway);
    }
    client.whisper("private-a", "client-seen", &json!({ "text": "hello" }));
    publish(gateway, "private-a", "App\\Events\\Seen", "1");
    client.expect_event("private-a", "App\\Events\\Seen", "1");
    signatures
}

#[track_caller]
fn free_of(log: &str, signatures: &[String]) {
    for signature in signatures {
        // A part of a signature may not be there either.
        let (start, end) = (&signature[..16], &signature[48..]);
        for part in [start, end, &start.to_uppercase(), &end.to_uppercase()] {
            assert!(!log.contains(part), "a signature is in the log:\n{log}");
        }
    }
}

#[test]
fn debug_shows_messages_and_never_a_signature() {
    served_with(
        |setup| setup.flag("--debug"),
        |gateway| {
            let signatures = signed_traffic(gateway);
            gateway.logged(&["DEBUG", "connection established"]);
            gateway.logged(&["DEBUG", "received", "client-seen", "hello"]);
            gateway.logged(&["DEBUG", "subscribed", "private-a"]);
            gateway.logged(&["DEBUG", "broadcasting to", "Seen"]);
            gateway.logged(&["DEBUG", "connection closed"]);
            free_of(&gateway.log(), &signatures);
        },
    );
}

#[test]
fn without_debug_nothing_is_said_of_single_messages() {
    served(|gateway| {
        signed_traffic(gateway);
        assert!(!gateway.log().contains("client-seen") && !gateway.log().contains("DEBUG"));
    });
}

#[test]
fn the_json_log_is_json_line_by_line_and_as_discreet() {
    served_with(
        |setup| setup.flag("--debug").flag("--log-format=json"),
        |gateway| {
            let signatures = signed_traffic(gateway);
            gateway.logged(&["connection closed"]);
            let log = gateway.log();
            free_of(&log, &signatures);
            // The last line may not be complete yet.
            for line in log[..=log.rfind('\n').unwrap()].lines() {
                let line: Value =
                    serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
                assert!(line["level"].is_string() && line["timestamp"].is_string(), "{line}");
            }
        },
    );
}

#[test]
fn names_with_control_characters_break_no_line_of_the_log() {
    served_with(
        |setup| setup.flag("--debug"),
        |gateway| {
            let mut client = Client::connect(gateway);
            let name = "x\r\n2026-01-01T00:00:00Z ERROR forged \u{1b}[31m";
            client.send(&json!({ "event": name, "channel": name, "data": {} }));
            client.ask(name);
            client.expect("pusher:error");
            publish(gateway, "c", "forged\u{2028}name", "1");
            gateway.logged(&["broadcasting to c", "forged"]);
            let log = gateway.log();
            assert!(!log.lines().any(|line| line.starts_with("2026-01-01")), "{log}");
            assert!(!log.contains('\u{1b}') && !log.contains('\r'), "{log}");
        },
    );
}

#[test]
fn it_serves_on_when_nobody_reads_its_output() {
    let setup = Setup::new(2).flag("--debug");
    let mut command = setup.command("start");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let address = setup.address();
    crate::gateway::eventually("it listens", || std::net::TcpStream::connect(address).ok());
    drop((child.stdout.take(), child.stderr.take()));
    let mut http = crate::http::Http::over(std::net::TcpStream::connect(address).unwrap());
    for _ in 0..200 {
        http.send(&Call::get("connections").bytes());
        assert_eq!(http.response().status, 200);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_dir_all(setup.path("")).unwrap();
}

#[test]
fn a_stopped_reader_of_its_output_stops_nobody() {
    let setup = Setup::new(2).flag("--debug");
    let mut command = setup.command("start");
    // The pipe is held and never read: 64 KiB fill it.
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let address = setup.address();
    crate::gateway::eventually("it listens", || std::net::TcpStream::connect(address).ok());
    let mut http = crate::http::Http::over(std::net::TcpStream::connect(address).unwrap());
    let event = json!({ "name": "e".repeat(150), "channel": "c".repeat(150), "data": "1" });
    for _ in 0..2000 {
        http.send(&Call::post("events", &event).bytes());
        assert_eq!(http.response().status, 200);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_dir_all(setup.path("")).unwrap();
}

#[test]
fn the_app_is_named_by_its_id_in_the_log_and_never_by_its_secret() {
    let gateway = Setup::new(1).flag("--debug").start();
    Client::connect(&gateway).expect_nothing();
    gateway.logged(&["connection established", APP_ID]);
    assert!(!gateway.log().contains(SECRET));
}
