use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::gateway::{Gateway, Setup, eventually};
use crate::http::{Call, Http, Response, publish};
use crate::nodes::{Cluster, over_with};

/// The time for which requests wait for Redis.
const PATIENCE: Duration = Duration::from_secs(2);

fn impatient(setup: Setup) -> Setup {
    setup.toml("cluster.patience = 2\n")
}

fn local(setup: Setup) -> Setup {
    impatient(setup).toml("cluster.when_away = \"local\"\n")
}

fn event(channel: &str, data: &str) -> Call {
    Call::post("events", &json!({ "name": "e", "channel": channel, "data": data }))
}

fn up(node: &Gateway) -> Response {
    let mut http = Http::over(node.tcp());
    http.send(b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n");
    http.response()
}

#[test]
fn publishes_wait_for_redis_and_are_refused_when_patience_ends() {
    over_with(impatient, |mut cluster: Cluster<2>| {
        let [a, b] = [0, 1];
        let mut client = Client::subscribed(&cluster.nodes[b], "room");
        cluster.redis.crash();
        let asked = Instant::now();
        let response = event("room", "refused").send(&cluster.nodes[a]);
        assert_eq!(response.status, 503, "{}", response.text());
        assert!(asked.elapsed() >= PATIENCE.mul_f32(0.9), "{:?}", asked.elapsed());
        let seconds = response.header("retry-after").expect("Retry-After").parse::<u32>();
        assert!(seconds.is_ok_and(|seconds| (1..60).contains(&seconds)));
        cluster.nodes[a].logged(&["WARN", "Redis"]);
        assert_eq!(up(&cluster.nodes[a]).status, 200);
        client.expect_nothing();

        cluster.redis.go_on();
        cluster.until_joined(2);
        publish(&cluster.nodes[a], "room", "e", "1");
        // Its publisher repeats what was refused, so it must not come by itself, too.
        client.expect_event("room", "e", "1");
    });
}

#[test]
fn publishes_and_first_subscriptions_that_wait_are_served_when_redis_is_back() {
    over_with(
        |setup| setup,
        |mut cluster: Cluster<2>| {
            let mut client = Client::subscribed(&cluster.nodes[0], "room");
            cluster.redis.crash();
            let [a, b] = &cluster.nodes;
            let mut waiting = Client::connect(a);
            waiting.ask("other");
            waiting.expect_nothing();
            let redis = &mut cluster.redis;
            std::thread::scope(|scope| {
                let publishing = scope.spawn(|| publish(b, "room", "e", "1"));
                waiting.expect_nothing();
                redis.go_on();
                publishing.join().unwrap();
            });
            client.expect_event("room", "e", "1");
            waiting.succeeded("other");
            publish(b, "other", "e", "1");
            waiting.expect_event("other", "e", "1");
        },
    );
}

#[test]
fn publishes_that_do_not_fit_into_the_backlog_are_refused_at_once() {
    let settings = |setup: Setup| setup.toml("cluster.backlog = \"1M\"\n");
    over_with(settings, |mut cluster: Cluster<1>| {
        let mut client = Client::subscribed(&cluster.nodes[0], "room");
        cluster.redis.crash();
        let node = &cluster.nodes[0];
        let large = "x".repeat(9000);
        let mut waiting: Vec<_> = (0..200)
            .map(|_| {
                let mut http = Http::over(node.tcp());
                http.send(&event("room", &large).bytes());
                http
            })
            .collect();
        let refused = waiting.last_mut().unwrap().response();
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.header("retry-after").is_some());
        cluster.redis.go_on();
        waiting.pop();
        let answers: Vec<_> = waiting.iter_mut().map(|http| http.response().status).collect();
        assert!(answers.iter().all(|status| [200, 503].contains(status)), "{answers:?}");
        let taken = answers.iter().filter(|&&status| status == 200).count();
        assert!((80..=120).contains(&taken), "{taken} events of 9 kB in 1 MB");
        (0..taken).for_each(|_| client.expect_event("room", "e", &large));
        client.expect_nothing();
    });
}

#[test]
fn a_node_may_serve_its_own_clients_alone_until_redis_is_back() {
    over_with(local, |mut cluster: Cluster<2>| {
        let member = |node: &Gateway, id: &str| {
            Client::joined(node, "presence-room", &json!({ "user_id": id }))
        };
        let (mut ann, mut ben) =
            (member(&cluster.nodes[0], "ann"), member(&cluster.nodes[1], "ben"));
        ann.expect("pusher_internal:member_added");
        cluster.redis.crash();
        cluster.nodes.iter().for_each(|node| drop(node.logged(&["WARN", "alone"])));
        let [a, b] = &cluster.nodes;
        publish(a, "presence-room", "e", "1");
        until_event(&mut ann, "e");
        let mut cleo = member(a, "cleo");
        until_event(&mut ann, "pusher_internal:member_added");
        cleo.whisper("presence-room", "client-hi", &json!({}));
        until_event(&mut ann, "client-hi");

        cluster.redis.go_on();
        eventually("all are one again", || {
            let users = Call::get("channels/presence-room/users").send(b);
            let users: Value = serde_json::from_slice(&users.body).ok()?;
            (users["users"].as_array()?.len() == 3).then_some(())
        });
        publish(b, "presence-room", "again", "1");
        // Ben has missed what happened on the other node alone, which is not made up for.
        for client in [&mut ann, &mut ben, &mut cleo] {
            until_event(client, "again");
        }
    });
}

/// Takes everything up to this event. Members of the other node may leave and return meanwhile.
#[track_caller]
fn until_event(client: &mut Client, event: &str) {
    loop {
        let message = client.next();
        if message["event"] == event {
            return;
        }
        let of_members = message["event"].as_str().unwrap().starts_with("pusher_internal:member_");
        assert!(of_members, "{message}");
    }
}
