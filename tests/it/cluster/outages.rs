use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, data, target};
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
        assert_eq!(response.text(), "The Redis of the cluster is away, try again.");
        assert!(asked.elapsed() >= PATIENCE.mul_f32(0.9), "{:?}", asked.elapsed());
        let seconds = response.header("retry-after").expect("Retry-After").parse::<u32>();
        assert!(seconds.is_ok_and(|seconds| (1..60).contains(&seconds)));
        cluster.nodes[a].logged(&["WARN", "refused with 503", "the Redis of the cluster is away"]);
        let asked = Call::get("channels").send(&cluster.nodes[a]);
        assert_eq!((asked.status, asked.header("retry-after")), (503, Some("5")));
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

#[test]
fn a_client_whose_place_only_redis_knows_is_asked_to_return_a_little_later() {
    let limited = |setup: Setup| setup.env("REVERB_APP_MAX_CONNECTIONS", "10");
    over_with(limited, |mut cluster: Cluster<1>| {
        let first = Client::connect(&cluster.nodes[0]);
        cluster.redis.crash();
        let node = &cluster.nodes[0];
        let mut admitted = vec![first];
        let refused = loop {
            let mut client = Client::open(node, &target(), &[]);
            match client.next()["event"].as_str().unwrap() {
                "pusher:connection_established" => admitted.push(client),
                _ => break client.expect_close(),
            }
            assert!(admitted.len() < 10, "Redis lends half of what is free");
        };
        assert_eq!(refused, (4100, "Server is over capacity. Please reconnect later.".to_owned()));
        node.logged(&["WARN", "refused with 4100", "Redis does not say"]);
        cluster.redis.go_on();
        cluster.until_joined(1);
        admitted.push(Client::connect(&cluster.nodes[0]));
    });
}

#[test]
fn a_node_that_is_alone_answers_the_api_from_what_it_knows_and_says_so() {
    over_with(local, |mut cluster: Cluster<2>| {
        let [a, b] = &cluster.nodes;
        let mut ann = Client::connect(a);
        ann.join("presence-room", &json!({ "user_id": "ann" }));
        let mut news = Client::connect(b);
        news.subscribe("news");
        cluster.redis.crash();
        cluster.nodes.iter().for_each(|node| drop(node.logged(&["WARN", "alone"])));
        let [a, b] = &cluster.nodes;
        let info = "user_count,subscription_count";
        let answer = |node: &Gateway, path: &str| {
            let response = Call::get(path).param("info", info).send(node);
            assert_eq!(response.status, 200, "{path}: {}", response.text());
            assert_eq!(response.header("ringwave-scope"), Some("node"), "{path}");
            serde_json::from_slice::<Value>(&response.body).unwrap()
        };
        let room = json!({ "presence-room": { "user_count": 1, "subscription_count": 1 } });
        assert_eq!(answer(a, "channels")["channels"], room);
        assert_eq!(answer(a, "channels/presence-room")["user_count"], 1);
        assert_eq!(answer(a, "channels/news")["occupied"], false, "it is another node's");
        assert_eq!(answer(b, "channels/news")["occupied"], true);
        let users = json!([{ "id": "ann" }]);
        assert_eq!(answer(a, "channels/presence-room/users")["users"], users);
        assert_eq!(answer(a, "connections")["connections"], 1);
        let asking = json!({ "name": "e", "channel": "news", "data": "1",
                             "info": "subscription_count" });
        let published = Call::post("events", &asking).send(b);
        assert_eq!(published.header("ringwave-scope"), Some("node"));
        let told: Value = serde_json::from_slice(&published.body).unwrap();
        assert_eq!(told["channels"]["news"]["subscription_count"], 1, "{told}");
        news.expect_event("news", "e", "1");

        cluster.redis.go_on();
        eventually("all are one again", || {
            let response = Call::get("channels").send(&cluster.nodes[0]);
            let listed: Value = serde_json::from_slice(&response.body).ok()?;
            let whole = response.header("ringwave-scope").is_none();
            (whole && listed["channels"]["news"].is_object()).then_some(())
        });
    });
}

#[test]
fn a_node_that_is_alone_tells_watchers_of_its_own_users_and_terminates_those() {
    over_with(local, |mut cluster: Cluster<2>| {
        let user = |node: &Gateway, data: &Value| {
            let mut client = Client::connect(node);
            client.sign_in(data);
            client
        };
        let expect = |watcher: &mut Client, name: &str, id: &str| {
            let news = data(&watcher.expect("pusher_internal:watchlist_events"));
            assert_eq!(news, json!({ "events": [{ "name": name, "user_ids": [id] }] }));
        };
        let watching = json!({ "id": "w", "watchlist": ["ann", "ben"] });
        let _ben = user(&cluster.nodes[1], &json!({ "id": "ben" }));
        let mut watcher = user(&cluster.nodes[0], &watching);
        expect(&mut watcher, "online", "ben");
        cluster.redis.crash();
        cluster.nodes.iter().for_each(|node| drop(node.logged(&["WARN", "alone"])));
        let ann = user(&cluster.nodes[0], &json!({ "id": "ann" }));
        expect(&mut watcher, "online", "ann");
        let mut late = user(&cluster.nodes[0], &json!({ "id": "v", "watchlist": ["ann"] }));
        expect(&mut late, "online", "ann");
        drop(ann);
        expect(&mut watcher, "offline", "ann");
        expect(&mut late, "offline", "ann");
        let mut ann = user(&cluster.nodes[0], &json!({ "id": "ann" }));
        expect(&mut watcher, "online", "ann");
        let terminate = Call::post("users/ann/terminate_connections", &json!({}));
        let response = terminate.send(&cluster.nodes[0]);
        assert_eq!((response.status, response.header("ringwave-scope")), (200, Some("node")));
        ann.expect_refusal(4009, "Connection terminated by the application");
        expect(&mut watcher, "offline", "ann");
        cluster.redis.go_on();
        let _ann = user(&cluster.nodes[1], &json!({ "id": "ann" }));
        expect(&mut watcher, "online", "ann");
        watcher.expect_nothing();
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
