//! Reloads while clients are connected: by SIGHUP, and by `ringwave reload`.

use std::fs;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::json;

use crate::client::Client;
use crate::gateway::{
    APP_ID, Gateway, KEY, SECRET, SHARD_COUNTS, Setup, eventually, served, served_with,
};
use crate::http::Call;
use crate::sign::channel_auth_by;

const DISABLED: (u16, &str) = (4003, "Application is disabled");
const UNKNOWN: (u16, &str) = (4001, "Application does not exist");

/// An entry of `[[apps]]`, with more of its settings.
pub fn app(id: &str, more: &str) -> String {
    format!("[[apps]]\napp_id = \"{id}\"\nkey = \"{id}-key\"\nsecret = \"{SECRET}\"\n{more}\n")
}

fn write(gateway: &Gateway, toml: &str) {
    fs::write(gateway.path("ringwave.toml"), toml).unwrap();
}

/// Runs `ringwave reload` in the gateway's directory.
pub fn reload(gateway: &Gateway) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringwave"));
    command.arg("reload").current_dir(gateway.path("")).stdin(Stdio::null());
    command.output().unwrap()
}

/// Reloads the gateway with this `ringwave.toml` and returns the output.
#[track_caller]
pub fn reloaded(gateway: &Gateway, toml: &str) -> String {
    write(gateway, toml);
    let output = reload(gateway);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn open(gateway: &Gateway, key: &str) -> Client {
    Client::open(gateway, &format!("/app/{key}?protocol=7"), &[])
}

#[track_caller]
fn connect(gateway: &Gateway, key: &str) -> Client {
    let mut client = open(gateway, key);
    client.established();
    client
}

fn call(app: &str, key: &str, channel: &str) -> Call {
    let event = json!({ "name": "e", "channel": channel, "data": "1" });
    let path = format!("/apps/{app}/events");
    Call { path, key: key.to_owned(), ..Call::post("", &event) }
}

#[test]
fn an_added_app_is_served_on_all_shards_and_nobody_else_notices() {
    served(|gateway| {
        let mut other = Client::subscribed(gateway, "room");
        open(gateway, "shop-key").expect_refusal(UNKNOWN.0, UNKNOWN.1);
        let told = reloaded(gateway, &app("shop", ""));
        assert_eq!(told, "Configuration reloaded: 2 apps; added: shop\n");
        for _ in 0..10 {
            let mut client = connect(gateway, "shop-key");
            client.subscribe("room");
            call("shop", "shop-key", "room").ok(gateway);
            client.expect_event("room", "e", "1");
        }
        other.expect_nothing();
        call(APP_ID, KEY, "room").ok(gateway);
        other.expect_event("room", "e", "1");
    });
}

#[test]
fn a_hangup_reloads_too() {
    served(|gateway| {
        let mut other = Client::connect(gateway);
        write(gateway, &app("shop", ""));
        gateway.signal(Signal::HUP);
        gateway.logged(&["INFO", "configuration reloaded: 2 apps; added: shop"]);
        let mut client = eventually("the app is there", || {
            let mut client = open(gateway, "shop-key");
            (client.next()["event"] == "pusher:connection_established").then_some(client)
        });
        client.expect_nothing();
        other.expect_nothing();
    });
}

#[test]
fn a_file_that_is_not_valid_changes_nothing_and_is_told_why() {
    served_with(
        |setup| setup.toml(&app("shop", "")),
        |gateway| {
            let mut clients = [Client::connect(gateway), connect(gateway, "shop-key")];
            for (toml, reason) in [
                ("[server]\nprot = 1", "ringwave.toml: there is no setting \"server.prot\""),
                ("[[apps]]\napp_id = \"a\"", "apps[1].key is missing in ringwave.toml"),
                ("apps = [", "ringwave.toml line 1 is not TOML"),
                ("[app]\nping_interval = 0", "apps[0].ping_interval cannot be 0"),
            ] {
                write(gateway, toml);
                let output = reload(gateway);
                let stderr = String::from_utf8(output.stderr).unwrap();
                assert_eq!(output.status.code(), Some(78), "{stderr}");
                assert!(stderr.contains(reason), "{reason:?} is not in: {stderr}");
                gateway.logged(&["ERROR", "the old one stays in force", reason]);
            }
            gateway.signal(Signal::HUP);
            eventually("SIGHUP is told the same", || {
                (gateway.log().matches("cannot be 0").count() == 2).then_some(())
            });
            clients.iter_mut().for_each(Client::expect_nothing);
            connect(gateway, "shop-key").expect_nothing();
            call("shop", "shop-key", "room").ok(gateway);
        },
    );
}

#[test]
fn connections_of_a_removed_app_close_with_4003_and_all_others_stay() {
    served_with(
        |setup| setup.toml(&app("shop", "")),
        |gateway| {
            let mut others: Vec<_> = (0..5).map(|_| Client::connect(gateway)).collect();
            let mut leaving: Vec<_> = (0..20).map(|_| connect(gateway, "shop-key")).collect();
            leaving.iter_mut().for_each(|client| client.subscribe("room"));
            assert!(reloaded(gateway, "").contains("1 app; removed: shop"));
            for client in &mut leaving {
                client.expect_refusal(DISABLED.0, DISABLED.1);
            }
            open(gateway, "shop-key").expect_refusal(UNKNOWN.0, UNKNOWN.1);
            let gone = call("shop", "shop-key", "room").send(gateway);
            assert_eq!(
                (gone.status, gone.text()),
                (404, "No matching application for ID [shop].".into())
            );
            others.iter_mut().for_each(Client::expect_nothing);

            // An app that is configured again is the same app, without its former connections.
            assert!(reloaded(gateway, &app("shop", "max_connections = 1")).contains("added: shop"));
            let mut back = connect(gateway, "shop-key");
            back.subscribe("room");
            call("shop", "shop-key", "room").ok(gateway);
            back.expect_event("room", "e", "1");
            others.iter_mut().for_each(Client::expect_nothing);
        },
    );
}

#[test]
fn a_disabled_app_is_refused_with_4003_and_403_until_it_is_enabled_again() {
    served_with(
        |setup| setup.toml(&app("shop", "")),
        |gateway| {
            let mut other = Client::connect(gateway);
            let mut client = connect(gateway, "shop-key");
            let told = reloaded(gateway, &app("shop", "enabled = false"));
            assert!(told.contains("2 apps; disabled: shop"), "{told}");
            // Messages of a client of a disabled app are not handled any more.
            client.send(&json!({ "event": "pusher:ping", "data": {} }));
            client.expect_refusal(DISABLED.0, DISABLED.1);
            open(gateway, "shop-key").expect_refusal(DISABLED.0, DISABLED.1);
            let refused = call("shop", "shop-key", "room").send(gateway);
            assert_eq!(
                (refused.status, refused.text()),
                (403, "The application is disabled.".into())
            );
            let forged = Call { secret: "other".to_owned(), ..call("shop", "shop-key", "room") };
            assert_eq!(forged.send(gateway).status, 401);
            assert!(reloaded(gateway, &app("shop", "")).contains("enabled: shop"));
            connect(gateway, "shop-key").expect_nothing();
            call("shop", "shop-key", "room").ok(gateway);
            other.expect_nothing();
        },
    );
}

#[test]
fn keys_change_without_anybody_being_cut_off() {
    served_with(
        |setup| setup.toml(&app("shop", "")),
        |gateway| {
            let subscribe = |client: &mut Client, key: &str, secret: &str| {
                let channel = format!("private-{key}");
                let auth = channel_auth_by(key, secret, &client.socket_id, &channel, None);
                let data = json!({ "auth": auth, "channel": channel });
                client.send(&json!({ "event": "pusher:subscribe", "data": data }));
                channel
            };
            let mut old = connect(gateway, "shop-key");
            let new_secret = format!("new-{SECRET}");
            let keys = |keys: &str| {
                format!(
                    "[[apps]]\napp_id = \"shop\"\nkey = \"new-key\"\nsecret = \"{new_secret}\"\n{keys}"
                )
            };
            let old_too = format!("keys = [{{ key = \"shop-key\", secret = \"{SECRET}\" }}]");
            reloaded(gateway, &keys(&old_too));
            let mut new = connect(gateway, "new-key");
            let mut also_old = connect(gateway, "shop-key");
            // Each of the two keys signs, on connections that came by either of them.
            for client in [&mut old, &mut new, &mut also_old] {
                for (key, secret) in [("shop-key", SECRET), ("new-key", &new_secret)] {
                    let channel = subscribe(client, key, secret);
                    client.succeeded(&channel);
                }
            }
            let by_new =
                Call { secret: new_secret.clone(), ..call("shop", "new-key", "private-new-key") };
            for publish in [&by_new, &call("shop", "shop-key", "private-new-key")] {
                publish.ok(gateway);
                for client in [&mut old, &mut new, &mut also_old] {
                    client.expect_event("private-new-key", "e", "1");
                }
            }
            let crossed = Call { secret: SECRET.to_owned(), ..by_new };
            assert_eq!(crossed.send(gateway).status, 401);

            reloaded(gateway, &keys(""));
            open(gateway, "shop-key").expect_refusal(UNKNOWN.0, UNKNOWN.1);
            assert_eq!(call("shop", "shop-key", "room").send(gateway).status, 401);
            for client in [&mut old, &mut new, &mut also_old] {
                client.expect_nothing();
                client.unsubscribe("private-shop-key");
                let _channel = subscribe(client, "shop-key", SECRET);
                client.expect_error(4009, "Connection is unauthorized");
            }
        },
    );
}

#[test]
fn changed_limits_hold_for_connections_that_are_open() {
    served_with(
        |setup| setup.toml(&app("shop", "client_events_on_public = true")),
        |gateway| {
            let mut clients = [connect(gateway, "shop-key"), connect(gateway, "shop-key")];
            clients.iter_mut().for_each(|client| client.subscribe("room"));
            let whisper = |client: &mut Client| client.whisper("room", "client-x", &json!("a"));
            whisper(&mut clients[0]);
            clients[1].expect("client-x");
            let more = "accept_client_events_from = \"none\"\nmax_connections = 2";
            reloaded(gateway, &app("shop", more));
            whisper(&mut clients[0]);
            clients[0].expect_error(4301, "The app does not have client messaging enabled.");
            clients[1].expect_nothing();
            // The connections from before are counted.
            let over = (4004, "Application is over connection quota");
            open(gateway, "shop-key").expect_refusal(over.0, over.1);
            reloaded(gateway, &app("shop", "max_connections = 3"));
            let _third = connect(gateway, "shop-key");
            open(gateway, "shop-key").expect_refusal(over.0, over.1);
        },
    );
}

#[test]
fn a_subscriber_can_leave_a_channel_whose_name_is_too_long_by_now() {
    served(|gateway| {
        let room = format!("presence-{}", "x".repeat(100));
        let mut clients =
            [1, 2].map(|user| Client::joined(gateway, &room, &json!({ "user_id": user })));
        clients[0].expect("pusher_internal:member_added");
        reloaded(gateway, "[app]\nmax_channel_name = 50\n");
        clients[1].unsubscribe(&room);
        clients[1].expect_nothing();
        clients[0].expect("pusher_internal:member_removed");
    });
}

#[test]
fn an_app_that_asks_for_sign_ins_no_more_lets_those_off_who_have_not() {
    let gateway = Setup::new(2).toml(&app("shop", "user_authentication_timeout = 10")).start();
    let mut stranger = connect(&gateway, "shop-key");
    let started = std::time::Instant::now();
    reloaded(&gateway, &app("shop", ""));
    eventually("its time would be over", || (started.elapsed().as_millis() > 11_500).then_some(()));
    stranger.expect_nothing();
    // A client that connects when the app asks for sign-ins again has to sign in.
    reloaded(&gateway, &app("shop", "user_authentication_timeout = 1"));
    let refusal = (4009, "Connection not authorized within timeout");
    connect(&gateway, "shop-key").expect_refusal(refusal.0, refusal.1);
    stranger.expect_nothing();
}

#[test]
fn the_app_of_the_env_file_changes_with_it_and_its_last_app_is_not_replaced_by_a_public_one() {
    served(|gateway| {
        let mut client = Client::connect(gateway);
        let dotenv = |key: &str| {
            format!("REVERB_APP_ID={APP_ID}\nREVERB_APP_KEY={key}\nREVERB_APP_SECRET={SECRET}\n")
        };
        fs::write(gateway.path(".env"), dotenv("other-key")).unwrap();
        reloaded(gateway, "");
        open(gateway, KEY).expect_refusal(UNKNOWN.0, UNKNOWN.1);
        connect(gateway, "other-key").expect_nothing();
        client.expect_nothing();

        fs::write(gateway.path(".env"), "").unwrap();
        let output = reload(gateway);
        assert_eq!(output.status.code(), Some(78));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("no app is configured any more"), "{stderr}");
        open(gateway, "app-key").expect_refusal(UNKNOWN.0, UNKNOWN.1);
        client.expect_nothing();
    });
}

#[test]
fn settings_that_need_a_restart_are_named_and_the_others_take_effect() {
    for shards in SHARD_COUNTS {
        let mut gateway = Setup::new(shards).start();
        let toml = "[server]\nport = 9999\nlog_format = \"json\"\nmax_request_size = 100\n\
            shutdown_window = 7";
        let told = reloaded(&gateway, toml);
        let named = "server.port (8080 in force, 9999 configured), server.log_format (text in \
            force, json configured) change with a restart only.";
        assert_eq!(
            told,
            format!(
                "Configuration reloaded: 1 app\nserver.max_request_size: 100000 -> 100\n\
                 server.shutdown_window: auto -> 7\nNote: {named}\n"
            )
        );
        gateway.logged(&["WARN", named]);
        gateway.logged(&["INFO", "server.shutdown_window: auto -> 7"]);
        // The note comes for as long as the values differ, and not after they are the same again.
        assert!(
            reloaded(&gateway, toml).contains("1 app; nothing changed\nNote: server.port (8080")
        );
        let back = toml.replace("port = 9999\nlog_format = \"json\"\n", "");
        let told = reloaded(&gateway, &back);
        assert_eq!(told, "Configuration reloaded: 1 app; nothing changed\n");
        let long = json!({ "name": "e", "channel": "room", "data": "x".repeat(100) });
        assert_eq!(Call::post("events", &long).send(&gateway).status, 413);
        gateway.signal(Signal::TERM);
        gateway.logged(&["Gracefully terminating connections.", "window=7s"]);
        assert!(gateway.ended().success());
    }
}

#[test]
fn a_reload_names_each_setting_of_each_app_that_changed_and_no_secret() {
    let hook = |query: &str, timeout: u8| {
        format!("[[apps.webhooks]]\nurl = \"http://127.0.0.1:9/x?{query}\"\ntimeout = {timeout}\n")
    };
    served_with(
        |setup| setup.toml(&format!("{}{}", app("shop", &hook("a", 5)), app("blog", ""))),
        |gateway| {
            let more = format!("max_connections = 5\n{}", hook("a", 7));
            let shop = app("shop", &more).replace(SECRET, "another-secret-9b");
            // The order of the file has no meaning.
            let told = reloaded(gateway, &format!("{}{shop}", app("blog", "")));
            assert_eq!(
                told,
                "Configuration reloaded: 3 apps\napp shop: secret changed\n\
                 app shop: max_connections none -> 5\n\
                 app shop, webhook http://127.0.0.1:9/x?[withheld]: timeout 5 -> 7\n"
            );
            gateway.logged(&["INFO", "app shop: max_connections none -> 5"]);
            let told = reloaded(gateway, &format!("{}{shop}", app("blog", "enabled = false")));
            assert!(
                told.contains("3 apps; disabled: blog\napp blog: enabled true -> false"),
                "{told}"
            );
            assert!(!gateway.log().contains("another-secret"));
        },
    );
}

/// Replaces the apps by one of this number, which then has a client and a cached event.
fn app_comes_and_is_used(gateway: &Gateway, number: usize, origins: &str) {
    let name = format!("app-{number}");
    reloaded(gateway, &app(&name, origins));
    let key = format!("{name}-key");
    let target = format!("/app/{key}?protocol=7");
    let mut client = Client::open(gateway, &target, &[("Origin", "https://host-0.example.com")]);
    client.established();
    client.subscribe("room");
    call(&name, &key, "cache-room").ok(gateway);
}

#[test]
fn apps_that_come_and_go_leave_nothing_behind() {
    // Some 140 kB each, so that what a hundred of them left would be seen beside buffers that fill.
    let origins: Vec<_> = (0..1500).map(|n| format!("\"host-{n}.example.com\"")).collect();
    let origins = format!("allowed_origins = [{}]", origins.join(", "));
    let gateway = Setup::new(2).start();
    (0..20).for_each(|number| app_comes_and_is_used(&gateway, number, &origins));
    let before = gateway.rss();
    (20..120).for_each(|number| app_comes_and_is_used(&gateway, number, &origins));
    reloaded(&gateway, "");
    eventually("what they took is given back", || {
        (gateway.rss() < before + (6 << 20)).then_some(())
    });
}

#[test]
fn a_server_is_found_by_its_directory_and_its_files_only() {
    let setup = Setup::new(2).flag("--config=other.toml");
    fs::write(setup.path("other.toml"), app("shop", "")).unwrap();
    let gateway = setup.start();
    let mut client = connect(&gateway, "shop-key");
    let run = |arguments: &[&str], directory| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringwave"));
        let output = command.arg("reload").args(arguments).current_dir(directory).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), stderr.contains("no server was started from this directory"))
    };
    let directory = gateway.path("");
    assert_eq!(run(&[], directory.clone()), (Some(69), true));
    assert_eq!(run(&["--config=other.toml"], directory.join("..")), (Some(69), true));
    assert_eq!(run(&["--config=./other.toml"], directory), (Some(0), false));
    client.expect_nothing();
}

#[test]
fn a_second_server_of_one_directory_serves_and_says_that_it_is_not_found() {
    let first = Setup::new(1).start();
    let second = first.twin().flag("--port=8090");
    let log = second.path("second.log");
    let out = fs::File::create(&log).unwrap();
    let mut child = second.command("start").stdout(out).spawn().unwrap();
    eventually("it is told", || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.contains("`ringwave reload` will not find this server").then_some(())
    });
    assert!(reloaded(&first, &app("shop", "")).contains("added: shop"));
    connect(&first, "shop-key").expect_nothing();
    child.kill().unwrap();
    child.wait().unwrap();
}
