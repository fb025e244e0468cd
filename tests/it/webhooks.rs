use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::json;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::client::Client;
use crate::gateway::{APP_ID, KEY, SECRET, SHARD_COUNTS, Setup, eventually};
use crate::http::publish;
use crate::left_out::runs;
use crate::receiver::Receiver;
use crate::reload::reload;
use crate::steps::webhooks::{EVERYTHING, app, member, occupied, vacated};

fn with_webhook(shards: usize, webhook: &str) -> Setup {
    Setup::new(shards).toml(&app(webhook))
}

#[test]
fn every_event_is_told_once_and_those_of_a_channel_in_order() {
    for shards in SHARD_COUNTS {
        let receiver = Receiver::start();
        let url = receiver.url();
        let gateway =
            with_webhook(shards, &format!("url = \"{url}\"\nevents = [{EVERYTHING}]")).start();
        let room = "presence-room";
        let (mut ann, mut ben) = (Client::connect(&gateway), Client::connect(&gateway));
        ann.join(room, &json!({ "user_id": 1, "user_info": {} }));
        ben.join(room, &json!({ "user_id": "2" }));
        ann.expect("pusher_internal:member_added");
        ben.whisper(room, "client-typing", &json!({ "at": [1, 2] }));
        ann.expect("client-typing");
        ann.subscribe("cache-news");
        ann.expect("pusher:cache_miss");
        publish(&gateway, "cache-news", "first", "1");
        ann.expect_event("cache-news", "first", "1");
        ben.subscribe("cache-news");
        let whisper = json!({
            "name": "client_event", "channel": room, "event": "client-typing",
            "data": "{\"at\":[1,2]}", "socket_id": ben.socket_id, "user_id": "2",
        });
        let left = Instant::now();
        drop(ben);
        let count = |n| {
            let name = "subscription_count";
            json!({ "name": name, "channel": "cache-news", "subscription_count": n })
        };
        let gone = member("member_removed", room, "2");
        receiver.expect_event(&gone);
        assert!(left.elapsed() > Duration::from_millis(2500), "{:?}", left.elapsed());
        let events = receiver.expect(10);
        let of = |channel: &str| {
            events.iter().filter(|event| event["channel"] == channel).cloned().collect::<Vec<_>>()
        };
        let added = |user| member("member_added", room, user);
        assert_eq!(of(room), [occupied(room), added("1"), added("2"), whisper, gone]);
        let miss = json!({ "name": "cache_miss", "channel": "cache-news" });
        // When a client leaves, the new count is told at once.
        let news = [occupied("cache-news"), count(1), miss, count(2), count(1)];
        assert_eq!(of("cache-news"), news);
        let heads = receiver.heads();
        assert!(heads.iter().all(|head| head.starts_with("POST /hook HTTP/1.1")), "{heads:?}");
    }
}

#[test]
fn a_client_that_returns_within_three_seconds_was_never_away() {
    for shards in SHARD_COUNTS {
        let receiver = Receiver::start();
        let gateway = with_webhook(shards, &format!("url = \"{}\"", receiver.url())).start();
        let room = "presence-room";
        let user = json!({ "user_id": "1" });
        let mut left = Instant::now();
        for _ in 0..3 {
            // This is like a page that is loaded again.
            let _client = Client::joined(&gateway, room, &user);
            left = Instant::now();
        }
        receiver.expect_event(&vacated(room));
        assert!(left.elapsed() > Duration::from_millis(2500));
        let expected = [
            occupied(room),
            member("member_added", room, "1"),
            member("member_removed", room, "1"),
            vacated(room),
        ];
        assert_eq!(receiver.events(), expected);
    }
}

#[test]
fn a_variable_is_enough_for_the_app_of_the_variables() {
    let receiver = Receiver::start();
    let setup = Setup::new(2).env("RINGWAVE_APP_WEBHOOK_URL", &receiver.url());
    let gateway = setup.env("RINGWAVE_APP_WEBHOOK_EVENTS", "cache_miss").start();
    let _client = Client::subscribed(&gateway, "cache-a");
    let events = receiver.expect(1);
    assert_eq!(events, [json!({ "name": "cache_miss", "channel": "cache-a" })]);
}

#[test]
fn endpoints_choose_by_kind_and_by_channel_and_get_their_headers() {
    let (first, second) = (Receiver::start(), Receiver::start());
    let gateway = with_webhook(
        2,
        &format!(
            "url = \"{}?token=t0ken\"\nchannel_prefix = \"private-\"\nchannel_suffix = \"-eu\"\n\
             headers = [\"Authorization: Bearer t0ken\"]\n\
             [[apps.webhooks]]\nurl = \"{}\"\nevents = [\"client_event\"]",
            first.url(),
            second.url()
        ),
    );
    let gateway = gateway.start();
    let mut client = Client::connect(&gateway);
    for channel in ["private-a", "news-eu", "private-a-eu"] {
        client.subscribe(channel);
    }
    client.whisper("private-a-eu", "client-x", &json!("text"));
    client.expect_nothing();
    assert_eq!(second.expect(1)[0]["data"], "text");
    let names: Vec<_> =
        first.expect(2).iter().map(|event| event["name"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["channel_occupied", "client_event"]);
    let head = first.heads().remove(0);
    assert!(head.contains("authorization: Bearer t0ken"), "{head}");
    assert!(head.starts_with("POST /hook?token=t0ken HTTP/1.1"), "{head}");
    assert!(!gateway.log().contains("t0ken"));
}

#[test]
fn a_receiver_that_fails_gets_everything_later_and_in_order() {
    for shards in SHARD_COUNTS {
        let receiver = Receiver::start();
        receiver.answer(503);
        let webhook = format!("url = \"{}\"\nbatch_max = 2", receiver.url());
        let gateway = with_webhook(shards, &webhook).start();
        let mut client = Client::connect(&gateway);
        let mut expected = Vec::new();
        for number in 0..5 {
            let channel = format!("presence-{number}");
            client.join(&channel, &json!({ "user_id": "1" }));
            expected.push([occupied(&channel), member("member_added", &channel, "1")]);
        }
        gateway.logged(&["a webhook failed", "503 Service Unavailable"]);
        eventually("a repetition", || (receiver.heads().len() > 2).then_some(()));
        assert!(receiver.events().is_empty());
        receiver.answer(200);
        let events = receiver.expect(10);
        gateway.logged(&["the webhook is answered again"]);
        for [first, second] in &expected {
            let place = |event| events.iter().position(|seen| seen == event).unwrap();
            assert!(place(first) < place(second), "{events:?}");
        }
        // Events that one home has seen keep their order across channels, too.
        if shards == 1 {
            assert_eq!(events, expected.concat());
        }
    }
}

#[test]
fn a_receiver_that_never_answers_costs_nobody_else_anything() {
    for shards in SHARD_COUNTS {
        let (silent, other) = (Receiver::start(), Receiver::start());
        silent.answer(0);
        let webhooks = format!(
            "url = \"{}\"\n[[apps.webhooks]]\nurl = \"{}\"\nchannel_prefix = \"other-\"\n",
            silent.url(),
            other.url()
        );
        let setup = with_webhook(shards, &webhooks).env("RINGWAVE_WEBHOOK_QUEUE", "65536");
        let gateway = setup.start();
        let (mut sender, mut reader) = (Client::connect(&gateway), Client::connect(&gateway));
        sender.subscribe("private-a");
        reader.subscribe("private-a");
        eventually("a request", || (!silent.heads().is_empty()).then_some(()));
        let text = "x".repeat(1000);
        for _ in 0..200 {
            sender.whisper("private-a", "client-x", &json!(text));
            reader.expect("client-x");
        }
        sender.subscribe("other-a");
        assert_eq!(other.expect(1), [occupied("other-a")]);
        // 200 KB do not fit into its 64 KiB.
        gateway.logged(&["webhook events are lost", "overflowed="]);
    }
}

#[test]
fn a_stop_delivers_what_is_there() {
    for shards in SHARD_COUNTS {
        let receiver = Receiver::start();
        let setup = with_webhook(shards, &format!("url = \"{}\"", receiver.url()));
        let mut gateway = setup.env("RINGWAVE_SHUTDOWN_WINDOW", "1").start();
        let mut client = Client::joined(&gateway, "presence-a", &json!({ "user_id": "1" }));
        gateway.signal(Signal::TERM);
        client.expect_refusal(4102, "Server is restarting. Please reconnect in a second.");
        drop(client);
        assert!(gateway.ended().success());
        let expected = [
            occupied("presence-a"),
            member("member_added", "presence-a", "1"),
            member("member_removed", "presence-a", "1"),
            vacated("presence-a"),
        ];
        assert_eq!(receiver.expect(4), expected, "{}", gateway.log());
    }
}

#[test]
fn a_stop_does_not_wait_for_a_dead_receiver() {
    let receiver = Receiver::start();
    receiver.answer(0);
    let setup = with_webhook(2, &format!("url = \"{}\"", receiver.url()));
    let mut gateway = setup.env("RINGWAVE_SHUTDOWN_WINDOW", "0").start();
    let client = Client::subscribed(&gateway, "a");
    eventually("a request", || (!receiver.heads().is_empty()).then_some(()));
    drop(client);
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    gateway.logged(&["undelivered webhook events are lost by the stop"]);
}

#[test]
fn a_spool_keeps_what_was_not_delivered_over_a_stop_and_over_a_crash() {
    for (signal, shards) in [(Signal::TERM, 1), (Signal::KILL, 5)] {
        let receiver = Receiver::start();
        receiver.answer(500);
        let setup = with_webhook(shards, &format!("url = \"{}\"", receiver.url()))
            .env("RINGWAVE_WEBHOOK_SPOOL", "spool")
            .env("RINGWAVE_SHUTDOWN_WINDOW", "0");
        let gateway = setup.start();
        let _client = Client::subscribed(&gateway, "a");
        gateway.logged(&["a webhook failed"]);
        // A batch is on its way to its receiver and to the disk at once. From its file on, a crash
        // does not lose it.
        let spool = gateway.path("spool");
        let names = || std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().file_name());
        let kept = || names().filter(|name| name.to_string_lossy().ends_with(".webhook")).count();
        eventually("the file of the batch", || (kept() > 0).then_some(()));
        let gateway = gateway.restart_after(signal);
        assert!(kept() > 0);
        receiver.answer(200);
        receiver.expect_event(&occupied("a"));
        eventually("the lock alone", || (names().count() == 1).then_some(()));
        assert_eq!(receiver.events()[0], occupied("a"));

        let refused = gateway.twin().flag("--port=8081").output("start");
        assert_eq!(refused.status.code(), Some(78));
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(text.contains("another process uses it"), "{text}");
    }
}

#[test]
fn a_disk_that_stands_still_delays_neither_webhooks_nor_a_stop() {
    let receiver = Receiver::start();
    let setup = with_webhook(2, &format!("url = \"{}\"", receiver.url()))
        .env("RINGWAVE_WEBHOOK_SPOOL", "spool")
        .env("RINGWAVE_SHUTDOWN_WINDOW", "0");
    let mut gateway = setup.start();
    // To open a pipe for writing takes until somebody reads from it.
    let first = gateway.path("spool").join("0000000000000000.unfinished");
    mknodat(CWD, &first, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let _a = Client::subscribed(&gateway, "a");
    receiver.expect_event(&occupied("a"));
    let _b = Client::subscribed(&gateway, "b");
    receiver.expect_event(&occupied("b"));
    receiver.answer(500);
    let _c = Client::subscribed(&gateway, "c");
    gateway.logged(&["a webhook failed"]);
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    gateway.logged(&["undelivered webhook events are lost by the stop", "disk of the spool"]);
}

#[test]
fn the_connection_to_an_endpoint_that_is_no_more_ends() {
    for spool in ["", "RINGWAVE_WEBHOOK_SPOOL=spool\n"] {
        let receiver = Receiver::start();
        let dotenv =
            format!("REVERB_APP_ID={APP_ID}\nREVERB_APP_KEY={KEY}\nREVERB_APP_SECRET={SECRET}\n");
        let setup = with_webhook(2, &format!("url = \"{}\"", receiver.url()));
        let gateway = setup.dotenv(&format!("{dotenv}{spool}")).start();
        let mut client = Client::subscribed(&gateway, "a");
        receiver.expect_event(&occupied("a"));
        assert_eq!(receiver.connections(), 1);
        std::fs::write(gateway.path("ringwave.toml"), "").unwrap();
        assert!(reload(&gateway).status.success());
        eventually("its connection ends", || (receiver.connections() == 0).then_some(()));
        client.expect_nothing();
    }
}

#[test]
fn tls_takes_the_certificates_of_the_host_and_no_others() {
    if !runs("openssl", &["version"]) {
        return;
    }
    let setup = Setup::new(1);
    let at = |name: &str| setup.path(name).to_str().unwrap().to_owned();
    for name in ["trusted", "stranger"] {
        let (key, certificate) = (at(&format!("{name}.key")), at(&format!("{name}.pem")));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "30", "-subj", "/CN=webhooks", "-keyout", &key])
            .args(["-addext", "subjectAltName=DNS:localhost", "-out", &certificate])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let [trusted, stranger] = ["trusted", "stranger"].map(|name| {
        let config = Arc::new(tls(&at(&format!("{name}.pem")), &at(&format!("{name}.key"))));
        Receiver::start_with(move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            Some(StreamOwned::new(connection, stream))
        })
    });
    let url = |receiver: &Receiver| format!("url = \"https://localhost:{}/\"", receiver.port());
    let webhooks = format!("{}\n[[apps.webhooks]]\n{}", url(&trusted), url(&stranger));
    let app = format!("[[apps]]\napp_id = \"{APP_ID}\"\n[[apps.webhooks]]\n{webhooks}\n");
    let setup = setup.clone().toml(&app);
    let mut command = setup.command("start");
    command.env("SSL_CERT_FILE", setup.path("trusted.pem"));
    let gateway = setup.start_as(&mut command);
    let _client = Client::subscribed(&gateway, "a");
    assert_eq!(trusted.expect(1), [occupied("a")]);
    let line = gateway.logged(&["a webhook failed", "no TLS"]);
    assert!(line.contains(&stranger.port().to_string()), "{line}");
    assert!(stranger.heads().is_empty(), "nothing is said to a stranger");
}

#[test]
fn a_start_that_could_trust_no_receiver_of_webhooks_warns() {
    let setup = Setup::new(1);
    let app = |url: &str| {
        format!("[[apps]]\napp_id = \"{APP_ID}\"\n[[apps.webhooks]]\nurl = \"{url}\"\n")
    };
    let empty = setup.path("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let setup = setup.toml(&app("http://127.0.0.1:9/"));
    let mut command = setup.command("start");
    command.env("SSL_CERT_FILE", &empty);
    let gateway = setup.start_as(&mut command);
    let warning = ["WARN", "webhooks to https cannot be delivered", "ca-certificates"];
    assert!(!gateway.log().contains(warning[1]), "plain HTTP needs no certificates");
    // A reload gives the same warning as a start.
    std::fs::write(gateway.path("ringwave.toml"), app("https://127.0.0.1:9/")).unwrap();
    assert!(reload(&gateway).status.success());
    gateway.logged(&warning);

    let setup = Setup::new(1).toml(&app("https://127.0.0.1:9/"));
    let mut command = setup.command("start");
    command.env("SSL_CERT_FILE", &empty);
    setup.start_as(&mut command).logged(&warning);
}

fn tls(certificate: &str, key: &str) -> ServerConfig {
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap()
}

#[test]
fn an_app_without_webhooks_says_nothing_of_another_apps() {
    let receiver = Receiver::start();
    let toml = format!(
        "[[apps]]\napp_id = \"other\"\nkey = \"{KEY}\"\nsecret = \"{SECRET}\"\n\
         [[apps]]\napp_id = \"mute\"\nkey = \"mute-key\"\nsecret = \"mute-secret\"\n\
         [[apps]]\napp_id = \"told\"\nkey = \"told-key\"\nsecret = \"{SECRET}\"\n\
         [[apps.webhooks]]\nurl = \"{}\"\n",
        receiver.url()
    );
    let gateway = Setup::new(2).dotenv("").toml(&toml).start();
    drop(Client::subscribed(&gateway, "a"));
    // No event is still on its way, because a stop delivers everything.
    let mut gateway = gateway;
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    assert!(receiver.heads().is_empty());
}
