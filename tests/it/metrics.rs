//! The listener for operators: metrics, health checks, and who may see them.

mod open_metrics;

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use rustix::process::Signal;
use serde_json::json;

use crate::client::{Client, target};
use crate::gateway::{APP_ID, DEADLINE, Gateway, Setup, eventually, served_with};
use crate::http::{Call, Http, Response, publish};
use crate::nodes::{Cluster, over_with};
use crate::receiver::Receiver;

use open_metrics::Metrics;

const ADMIN_PORT: u16 = 9090;
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A gateway with a listener for operators on its own address.
fn watched(setup: Setup) -> Setup {
    let address = admin(setup.address());
    setup.flag(&format!("--admin={address}"))
}

fn admin(gateway: SocketAddr) -> SocketAddr {
    (gateway.ip(), ADMIN_PORT).into()
}

/// Sends a request to the listener for operators.
#[track_caller]
fn ask(gateway: &Gateway, method: &str, path: &str, headers: &str) -> Response {
    let address = admin(gateway.address());
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut http = Http::over(stream);
    http.send(format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n").as_bytes());
    http.response()
}

#[track_caller]
fn get(gateway: &Gateway, path: &str) -> Response {
    ask(gateway, "GET", path, "")
}

/// Scrapes the metrics.
#[track_caller]
fn scrape(gateway: &Gateway) -> Metrics {
    let response = get(gateway, "/metrics");
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some(OPEN_METRICS));
    Metrics::read(&response.text())
}

/// The sum of a metric of the app.
fn of_app(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> f64 {
    metrics.sum(name, &[&[("app", APP_ID)], labels].concat())
}

/// Waits until a metric of the app has this value.
#[track_caller]
fn until(gateway: &Gateway, name: &str, labels: &[(&str, &str)], value: f64) {
    eventually(&format!("{name} {labels:?} is {value}"), || {
        (of_app(&scrape(gateway), name, labels) == value).then_some(())
    });
}

#[test]
fn connections_are_counted_from_their_opening_to_their_end() {
    served_with(watched, |gateway| {
        let mut clients: Vec<_> = (0..5).map(|_| Client::connect(gateway)).collect();
        let metrics = scrape(gateway);
        assert_eq!(of_app(&metrics, "ringwave_connections", &[]), 5.0);
        assert_eq!(of_app(&metrics, "ringwave_connections_opened_total", &[]), 5.0);
        assert_eq!(of_app(&metrics, "ringwave_connections_closed_total", &[]), 0.0);
        assert_eq!(metrics.sum("ringwave_shard_connections", &[]), 5.0);
        assert_eq!(metrics.sum("ringwave_shards", &[]), gateway.shards() as f64);
        assert_eq!(metrics.sum("ringwave_shards_unanswered", &[]), 0.0);

        let user = json!({ "id": "u" });
        clients[0].sign_in(&user);
        Call::post("users/u/terminate_connections", &json!({})).ok(gateway);
        clients[1].socket.close(None).unwrap();
        drop(clients.pop());
        let closed = "ringwave_connections_closed_total";
        until(gateway, closed, &[("cause", "terminated"), ("code", "4009")], 1.0);
        until(gateway, closed, &[("cause", "client")], 1.0);
        until(gateway, closed, &[("cause", "left")], 1.0);
        until(gateway, closed, &[], 3.0);
        until(gateway, "ringwave_connections", &[], 2.0);
    });
}

#[test]
fn subscriptions_channels_and_members_are_as_many_as_there_are() {
    served_with(watched, |gateway| {
        let mut clients: Vec<_> = (0..3).map(|_| Client::connect(gateway)).collect();
        clients.iter_mut().for_each(|client| client.subscribe("room"));
        clients[0].subscribe("private-a");
        clients[0].join("presence-p", &json!({ "user_id": "1" }));
        clients[1].join("presence-p", &json!({ "user_id": "1" }));
        clients[2].join("presence-p", &json!({ "user_id": "2" }));
        let metrics = scrape(gateway);
        let subscriptions = |kind| of_app(&metrics, "ringwave_subscriptions", &[("kind", kind)]);
        assert_eq!(["public", "private", "presence"].map(subscriptions), [3.0, 1.0, 3.0]);
        let channels = |kind| of_app(&metrics, "ringwave_channels", &[("kind", kind)]);
        assert_eq!(["public", "private", "presence"].map(channels), [1.0, 1.0, 1.0]);
        assert_eq!(of_app(&metrics, "ringwave_presence_members", &[]), 2.0);

        clients[0].unsubscribe("room");
        drop(clients.pop());
        until(gateway, "ringwave_subscriptions", &[("kind", "public")], 1.0);
        until(gateway, "ringwave_subscriptions", &[], 4.0);
        until(gateway, "ringwave_presence_members", &[], 1.0);
        drop(clients);
        until(gateway, "ringwave_subscriptions", &[], 0.0);
        until(gateway, "ringwave_channels", &[], 0.0);
        until(gateway, "ringwave_presence_members", &[], 0.0);
    });
}

#[test]
fn events_are_counted_by_the_way_in_which_they_come_and_for_each_subscriber() {
    served_with(watched, |gateway| {
        let mut clients: Vec<_> =
            (0..3).map(|_| Client::subscribed(gateway, "private-a")).collect();
        let received = of_app(&scrape(gateway), "ringwave_messages_received_total", &[]);
        assert_eq!(received, 3.0, "a subscribe of each");
        publish(gateway, "private-a", "one", "1");
        let both = json!({ "name": "two", "channels": ["private-a", "empty"], "data": "2" });
        Call::post("events", &both).ok(gateway);
        let event = json!({ "name": "three", "channel": "private-a", "data": "3" });
        Call::post("batch_events", &json!({ "batch": [event, event] })).ok(gateway);
        clients[0].whisper("private-a", "client-e", &json!({}));
        for client in &mut clients[1..] {
            for (event, data) in [("one", "1"), ("two", "2"), ("three", "3"), ("three", "3")] {
                client.expect_event("private-a", event, data);
            }
            client.expect("client-e");
        }
        let metrics = scrape(gateway);
        let published = |way| of_app(&metrics, "ringwave_events_published_total", &[("way", way)]);
        assert_eq!(["api", "batch", "client"].map(published), [3.0, 2.0, 1.0]);
        assert_eq!(of_app(&metrics, "ringwave_deliveries_total", &[]), 3.0 * 4.0 + 2.0);
        assert!(of_app(&metrics, "ringwave_deliveries_bytes_total", &[]) > 14.0 * 40.0);
        let requests = |route, status| {
            let labels = [("route", route), ("status", status)];
            of_app(&metrics, "ringwave_api_requests_total", &labels)
        };
        assert_eq!([requests("events", "200"), requests("batch_events", "200")], [2.0, 1.0]);
        assert_eq!(of_app(&metrics, "ringwave_messages_received_total", &[]), 4.0);
        assert!(of_app(&metrics, "ringwave_messages_received_bytes_total", &[]) > 4.0 * 40.0);
        assert!(metrics.sum("ringwave_shard_sent_bytes_total", &[]) > 14.0 * 40.0);
        assert!(metrics.sum("ringwave_shard_turn_seconds_count", &[]) > 0.0);
        assert!(metrics.sum("ringwave_shard_busy_seconds_total", &[]) > 0.0);
    });
}

#[test]
fn refusals_are_counted_by_code_and_by_the_cause_that_the_log_names() {
    served_with(watched, |gateway| {
        for _ in 0..3 {
            Client::open(gateway, "/app/nobody?protocol=7", &[]).expect("pusher:error");
        }
        let old = target().replace("protocol=7", "protocol=3");
        Client::open(gateway, &old, &[]).expect("pusher:error");
        let wrong = Call { secret: "guessed".to_owned(), ..Call::get("channels") };
        (0..2).for_each(|_| assert_eq!(wrong.send(gateway).status, 401));
        let mut client = Client::connect(gateway);
        client.send_text("no JSON");
        client.expect("pusher:error");
        let metrics = scrape(gateway);
        let refused = "ringwave_connections_refused_total";
        assert_eq!(metrics.sum(refused, &[("app", ""), ("code", "4001")]), 3.0);
        assert_eq!(of_app(&metrics, refused, &[("code", "4007")]), 1.0);
        let causes = "ringwave_refusals_total";
        assert_eq!(metrics.sum(causes, &[("app", ""), ("cause", "unknown key")]), 3.0);
        let of_cause = |cause| of_app(&metrics, causes, &[("cause", cause)]);
        assert_eq!(of_cause("wrong request signature"), 2.0);
        assert_eq!(of_cause("message not of the protocol"), 1.0);
        let unauthorised = [("route", "channels"), ("status", "401")];
        assert_eq!(of_app(&metrics, "ringwave_api_requests_total", &unauthorised), 2.0);
    });
}

#[test]
fn webhooks_are_counted_when_they_are_delivered_and_when_they_fail() {
    let receiver = Receiver::start();
    let url = receiver.url();
    let settings = |setup| watched(setup).env("RINGWAVE_APP_WEBHOOK_URL", &url);
    served_with(settings, |gateway| {
        receiver.answer(500);
        let _client = Client::subscribed(gateway, "room");
        let result = |metrics: &Metrics, result| {
            metrics.sum("ringwave_webhook_requests_total", &[("result", result)])
        };
        eventually("a failure", || (result(&scrape(gateway), "failure") > 0.0).then_some(()));
        assert!(scrape(gateway).sum("ringwave_webhook_events_waiting", &[]) > 0.0);
        receiver.answer(200);
        let metrics = eventually("all are delivered", || {
            let metrics = scrape(gateway);
            (metrics.sum("ringwave_webhook_events_waiting", &[]) == 0.0).then_some(metrics)
        });
        assert!(result(&metrics, "success") > 0.0);
        assert!(metrics.sum("ringwave_webhook_events_delivered_total", &[]) > 0.0);
        assert!(metrics.sum("ringwave_webhook_delay_seconds_count", &[]) > 0.0);
        assert_eq!(metrics.sum("ringwave_webhook_events_lost_total", &[]), 0.0);
    });
}

#[test]
fn a_node_that_drains_is_up_and_not_ready() {
    let setup = watched(Setup::new(2)).env("RINGWAVE_SHUTDOWN_WINDOW", "60");
    let mut gateway = setup.start();
    let _client = Client::connect(&gateway);
    assert_eq!((get(&gateway, "/ready").status, get(&gateway, "/up").status), (200, 200));
    assert_eq!(scrape(&gateway).sum("ringwave_ready", &[]), 1.0);
    gateway.signal(Signal::TERM);
    let draining = eventually("it drains", || {
        let response = get(&gateway, "/ready");
        (response.status != 200).then_some(response)
    });
    assert_eq!((draining.status, draining.text().as_str()), (503, "draining\n"));
    assert_eq!(get(&gateway, "/up").status, 200);
    let metrics = scrape(&gateway);
    assert_eq!(metrics.sum("ringwave_ready", &[]), 0.0);
    assert_eq!(metrics.sum("ringwave_shards_unanswered", &[]), 0.0);
    // A second signal ends it at once.
    gateway.signal(Signal::TERM);
    gateway.ended();
}

#[test]
fn a_node_without_its_redis_is_not_ready_unless_it_serves_alone() {
    for (when_away, answer) in [("hold", (503, "away from Redis\n")), ("local", (200, "ready\n"))] {
        let away = format!("cluster.patience = 1\ncluster.when_away = \"{when_away}\"\n");
        let settings = |setup| watched(setup).toml(&away);
        over_with(settings, |mut cluster: Cluster<1>| {
            let _member = {
                let node = &cluster.nodes[0];
                eventually("it is ready", || (get(node, "/ready").status == 200).then_some(()));
                let metrics = scrape(node);
                assert_eq!(metrics.sum("ringwave_cluster_redis_up", &[]), 1.0);
                assert_eq!(metrics.sum("ringwave_cluster_nodes", &[]), 1.0);
                let member = json!({ "user_id": "1" });
                let client = Client::joined(node, "presence-p", &member);
                until(node, "ringwave_presence_members", &[], 1.0);
                client
            };
            cluster.redis.crash();
            let node = &cluster.nodes[0];
            eventually(&format!("/ready is {answer:?}"), || {
                let ready = get(node, "/ready");
                let is_away = scrape(node).sum("ringwave_cluster_redis_up", &[]) == 0.0;
                (is_away && (ready.status, ready.text().as_str()) == answer).then_some(())
            });
            cluster.redis.go_on();
            let node = &cluster.nodes[0];
            eventually("Redis is back", || {
                let is_up = scrape(node).sum("ringwave_cluster_redis_up", &[]) == 1.0;
                (is_up && get(node, "/ready").status == 200).then_some(())
            });
        });
    }
}

#[test]
fn a_token_keeps_strangers_out_of_everything() {
    let gateway = watched(Setup::new(1)).env("RINGWAVE_ADMIN_TOKEN", "correct-horse").start();
    for path in ["/up", "/ready", "/metrics", "/nothing"] {
        for wrong in ["", "Authorization: Bearer correct-hors\r\n", "Authorization: Basic x\r\n"] {
            let response = ask(&gateway, "GET", path, wrong);
            assert_eq!(response.status, 401, "{path} {wrong}");
            assert_eq!(response.header("www-authenticate"), Some("Bearer"));
            assert!(!response.text().contains("correct"), "{}", response.text());
        }
        let right = ask(&gateway, "GET", path, "Authorization: Bearer correct-horse\r\n");
        assert_eq!(right.status, if path == "/nothing" { 404 } else { 200 }, "{path}");
    }
    gateway.logged(&["admin", &format!("http://{}/metrics", admin(gateway.address()))]);
    assert!(!gateway.log().contains("correct-horse"));
}

#[test]
fn only_questions_by_address_are_answered_without_a_token() {
    let gateway = watched(Setup::new(1)).start();
    assert_eq!(ask(&gateway, "POST", "/metrics", "Content-Length: 0\r\n").status, 405);
    let stream = TcpStream::connect(admin(gateway.address())).unwrap();
    let mut http = Http::over(stream);
    http.send(b"GET /metrics HTTP/1.1\r\nHost: page.test:9090\r\n\r\n");
    assert_eq!(http.response().status, 403, "a page whose name resolves to this host");
    // The public port has nothing of it.
    let mut public = Http::over(gateway.tcp());
    public.send(b"GET /metrics HTTP/1.1\r\nHost: it\r\n\r\n");
    assert_eq!(public.response().status, 404);
}

#[test]
fn connections_without_a_request_keep_nobody_out_for_long() {
    let gateway = watched(Setup::new(1)).start();
    let admin = admin(gateway.address());
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(admin).unwrap()).collect();
    assert_eq!(get(&gateway, "/up").status, 200);
    let mut long = Http::over(TcpStream::connect(admin).unwrap());
    let head = format!("GET /up HTTP/1.1\r\nHost: {admin}\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    long.send(head.as_bytes());
    assert!([0, 431].contains(&long.response().status));
    drop(silent);
}

#[test]
fn an_address_that_others_reach_needs_a_token() {
    for address in ["0.0.0.0:9090", "[::]:9090", "192.0.2.1:9090"] {
        let setup = Setup::new(1).flag(&format!("--admin={address}"));
        for command in ["start", "check"] {
            let output = setup.output(command);
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(78), "{text}");
            assert_eq!(text.trim().lines().count(), 1, "{text}");
            for part in [address, "admin.listen", "admin.token", "RINGWAVE_ADMIN_TOKEN"] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }
}

#[test]
fn an_address_that_is_taken_keeps_the_server_from_starting() {
    let gateway = watched(Setup::new(1)).start();
    let address = admin(gateway.address());
    let output = Setup::new(1).flag(&format!("--admin={address}")).output("start");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{text}");
    assert!(text.contains(&format!("cannot listen on {address}")), "{text}");
    assert!(text.contains("address already in use"), "{text}");
}

#[test]
fn clients_cannot_make_a_label() {
    let gateway = watched(Setup::new(2)).start();
    let mut client = Client::subscribed(&gateway, "a-name-of-a-client");
    client.send(&json!({ "event": "event-of-a-client", "data": {} }));
    let odd = Call { path: format!("/apps/{APP_ID}/channels/path-of-a-client"), ..Call::get("") };
    odd.send(&gateway);
    let stranger = Call { path: "/apps/id-of-a-client/channels".to_owned(), ..Call::get("") };
    stranger.send(&gateway);
    Client::open(&gateway, "/app/key-of-a-client?protocol=7", &[]).expect("pusher:error");
    let metrics = scrape(&gateway);
    let told = metrics.labels().filter(|(_, value)| value.contains("of-a-client"));
    assert_eq!(told.count(), 0);
}

#[test]
fn apps_beyond_the_first_hundred_are_summed() {
    let app = |number: usize| {
        format!("[[apps]]\napp_id = \"a{number}\"\nkey = \"k{number}\"\nsecret = \"s\"\n")
    };
    let apps: String = (0..120).map(app).collect();
    let gateway = watched(Setup::new(2).dotenv("").toml(&apps)).start();
    let connect = |number| {
        let mut client = Client::open(&gateway, &format!("/app/k{number}?protocol=7"), &[]);
        client.established();
        client
    };
    let _clients = [3, 99, 100, 119].map(connect);
    let metrics = scrape(&gateway);
    let of = |app| {
        let names = ["ringwave_connections", "ringwave_connections_opened_total"];
        names.map(|name| metrics.sum(name, &[("app", app)]))
    };
    assert_eq!([of("a3"), of("a99"), of("a98")], [[1.0; 2], [1.0; 2], [0.0; 2]]);
    assert_eq!(of("other"), [2.0; 2]);
    assert_eq!(of("a100"), [0.0; 2], "it has no label of its own");
}

#[test]
fn every_metric_is_in_the_manual_and_the_manual_lists_no_other() {
    let gateway = watched(Setup::new(1)).start();
    let metrics = scrape(&gateway);
    let row = |family: &open_metrics::Family| {
        let suffix = match family.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        format!("| `{}{suffix}` | {} | {} |\n", family.name, family.kind, family.help)
    };
    let table: String = metrics.families.iter().map(row).collect();
    let chapter = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual/watch.md");
    let chapter = fs::read_to_string(chapter).unwrap();
    let (_, rest) = chapter.split_once("|---|---|---|\n").unwrap();
    let rows: String = rest
        .lines()
        .take_while(|line| line.starts_with('|'))
        .fold(String::new(), |rows, line| rows + line + "\n");
    assert!(rows == table, "the table has to be:\n{table}");
}
