use std::fs;

use serde_json::json;

use crate::client::Client;
use crate::gateway::{APP_ID, Gateway, KEY, SECRET, Setup, eventually};
use crate::http::{Call, Http, publish};
use crate::nodes::{Cluster, Node, over, scaled, until_joined};
use crate::redis_server::{Redis, RedisSetup, is_installed};
use crate::reload::reloaded;
use crate::steps::output::{refused, texts};

/// Checks that what is published on one node arrives on the other.
#[track_caller]
fn are_one(a: &Gateway, b: &Gateway) {
    for (here, there) in [(a, b), (b, a)] {
        let mut client = Client::subscribed(here, "room");
        publish(there, "room", "e", "1");
        client.expect_event("room", "e", "1");
    }
}

#[test]
fn the_env_file_of_a_laravel_app_is_all_that_two_nodes_need() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let dotenv = format!(
        "APP_NAME=Laravel\n\nQUEUE_CONNECTION=database\nCACHE_STORE=redis\n\n\
         REDIS_CLIENT=phpredis\nREDIS_HOST={}\nREDIS_PASSWORD=null\nREDIS_PORT={}\n\n\
         BROADCAST_CONNECTION=reverb\nREVERB_APP_ID={APP_ID}\nREVERB_APP_KEY={KEY}\n\
         REVERB_APP_SECRET={SECRET}\nREVERB_HOST=\"localhost\"\nREVERB_PORT=8080\n\
         REVERB_SCHEME=http\nREVERB_SCALING_ENABLED=true\n",
        redis.address().ip(),
        redis.address().port(),
    );
    let [a, b] = [(); 2].map(|()| Setup::new(2).dotenv(&dotenv).start());
    until_joined(&redis, 2);
    a.logged(&["INFO", "joined the cluster \"reverb\"", &a.address().to_string()]);
    are_one(&a, &b);
}

#[test]
fn nodes_that_name_no_scaling_do_not_speak_to_redis() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let connections = || -> usize {
        let told: String = redis.ask("INFO stats");
        let (_, rest) = told.split_once("total_connections_received:").unwrap();
        rest.lines().next().unwrap().parse().unwrap()
    };
    let before = connections();
    let setup = Setup::new(1).env("REDIS_HOST", &redis.address().ip().to_string());
    let gateway = setup.env("REVERB_SCALING_ENABLED", "false").start();
    publish(&gateway, "room", "e", "1");
    assert_eq!(connections(), before + 1, "the test's own");
}

#[test]
fn clusters_of_different_names_share_a_redis_without_a_trace_of_each_other() {
    over(|cluster: Cluster<2>| {
        let [a, b] = &cluster.nodes;
        let renamed = |setup: Setup| setup.env("REVERB_SCALING_CHANNEL", "staging");
        let other = Node::on(&cluster.redis, renamed);
        other.logged(&["cluster", "staging"]);
        let mut client = Client::subscribed(&other, "room");
        are_one(a, b);
        client.expect_nothing();
        cluster.until_joined(2);
    });
}

#[test]
fn messages_of_reverb_on_the_same_redis_change_nothing() {
    over(|cluster: Cluster<2>| {
        let [a, b] = &cluster.nodes;
        let mut client = Client::subscribed(a, "room");
        let message = json!({
            "type": "message", "app": "x",
            "payload": { "event": "e", "channel": "room", "data": "1" },
        });
        let mut publish = redis::cmd("PUBLISH");
        let heard: usize = cluster.redis.query(publish.arg("reverb").arg(message.to_string()));
        assert_eq!(heard, 0);
        client.expect_nothing();
        are_one(a, b);
    });
}

#[test]
fn a_start_without_redis_warns_and_waits_for_it() {
    if !is_installed() {
        return;
    }
    let mut redis = Redis::start();
    redis.crash();
    let nodes = [(); 2].map(|()| Node::on(&redis, |setup| setup));
    for node in &nodes {
        node.logged(&["WARN", "Redis"]);
        assert_eq!(up(node), 200);
    }
    redis.go_on();
    until_joined(&redis, 2);
    are_one(&nodes[0], &nodes[1]);
}

#[test]
fn check_proves_the_connection_and_changes_nothing() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let output = scaled(Setup::new(1), redis.address()).output("check");
    let (stdout, stderr) = texts(&output);
    assert!(output.status.success(), "{stdout}{stderr}");
    assert!(stdout.contains(&redis.address().to_string()), "{stdout}");
    assert!(stdout.contains("7."), "the version: {stdout}");
    let keys: usize = redis.ask("DBSIZE");
    assert_eq!(keys, 0);
}

#[test]
fn check_names_what_is_wrong_with_redis_and_what_to_do() {
    if !is_installed() {
        return;
    }
    let redis = RedisSetup::new().password("right one").start();
    let setup = || scaled(Setup::new(1), redis.address());
    let none = setup().output("check");
    refused(&none, &[&redis.address().to_string(), "REDIS_PASSWORD"]);
    let wrong = setup().env("REDIS_PASSWORD", "wr0ng").output("check");
    refused(&wrong, &[&redis.address().to_string(), "REDIS_PASSWORD"]);
    let (stdout, stderr) = texts(&wrong);
    assert!(!stdout.contains("wr0ng") && !stderr.contains("wr0ng"), "{stdout}{stderr}");
    let right = setup().env("REDIS_PASSWORD", "\"right one\"").output("check");
    assert!(right.status.success(), "{}", texts(&right).1);

    let nobody = Setup::new(1).address();
    let unreachable = scaled(Setup::new(1), nobody).output("check");
    refused(&unreachable, &[&nobody.to_string(), "connection refused"]);
    let unknown = setup().env("REDIS_HOST", "no-such-host.invalid").output("check");
    refused(&unknown, &["no-such-host.invalid", "REDIS_HOST"]);
}

#[test]
fn a_node_with_another_number_of_partitions_does_not_start() {
    over(|cluster: Cluster<1>| {
        let odd = scaled(Setup::new(1), cluster.redis.address()).toml("cluster.partitions = 4\n");
        let sentence = ["the cluster has 1 partition at", "of this node is 4: set it to 1"];
        refused(&odd.output("check"), &sentence);
        not_started(&odd, &sentence);
        cluster.until_joined(1);
        let keys: Vec<String> = cluster.redis.ask("KEYS {ringwave:reverb:1}:*");
        assert!(keys.is_empty(), "it left no trace: {keys:?}");
    });
}

#[test]
fn a_node_that_redis_would_never_let_in_does_not_start() {
    if !is_installed() {
        return;
    }
    let redis = RedisSetup::new().password("right one").start();
    let setup = || scaled(Setup::new(1), redis.address());
    let wrong = setup().env("REDIS_PASSWORD", "wr0ng");
    let stderr = not_started(&wrong, &[&redis.address().to_string(), "REDIS_PASSWORD"]);
    assert!(!stderr.contains("wr0ng"), "{stderr}");
    let _done: String = redis.ask("ACL SETUSER ringwave on >s3cret ~* +@all -xadd -evalsha");
    let denied = setup().env("REDIS_USERNAME", "ringwave").env("REDIS_PASSWORD", "s3cret");
    not_started(&denied, &["may not run", "xadd", "ACL SETUSER"]);
}

#[test]
fn a_node_that_serves_only_logs_that_redis_does_not_let_it_in_any_more() {
    over(|cluster: Cluster<1>| {
        let node = &cluster.nodes[0];
        let _done: String = cluster.redis.ask("CONFIG SET requirepass s3cret");
        node.proxy.cut();
        node.logged(&["WARN", "Redis is away", "REDIS_PASSWORD"]);
        assert_eq!(up(node), 200);
    });
}

/// Checks that `start` ends as a wrong configuration does, with one sentence that has these texts.
/// Returns everything that it prints as errors.
#[track_caller]
fn not_started(setup: &Setup, sentence: &[&str]) -> String {
    let output = setup.output("start");
    refused(&output, sentence);
    let (_, stderr) = texts(&output);
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(78), 1), "{stderr}");
    stderr
}

fn up(node: &Gateway) -> u16 {
    let mut http = Http::over(node.tcp());
    http.send(b"GET /up HTTP/1.1\r\nHost: it\r\n\r\n");
    http.response().status
}

#[test]
fn a_node_that_reloads_warns_of_nodes_with_other_apps() {
    let app = |more: &str| format!("[[apps]]\napp_id = \"{APP_ID}\"\n{more}");
    over_plain(&app(""), |cluster| {
        let [a, b] = &cluster.nodes;
        reloaded(a, &app("cache_ttl = 60\n"));
        a.logged(&["WARN", "other apps", &b.address().to_string()]);
        // Each goes on with its own.
        are_one(a, b);
    });
}

/// Runs a test on two nodes with this `ringwave.toml`.
fn over_plain(toml: &str, test: impl FnOnce(Cluster<2>)) {
    crate::nodes::over_with(|setup| setup.toml(toml), test);
}

#[test]
fn a_reload_takes_effect_on_the_node_that_reloads() {
    over_plain("", |cluster| {
        let [a, b] = &cluster.nodes;
        let shop = "[[apps]]\napp_id = \"shop\"\nkey = \"shop-key\"\nsecret = \"shop-secret\"\n";
        reloaded(a, shop);
        let channels = || Call {
            path: "/apps/shop/channels".to_owned(),
            key: "shop-key".to_owned(),
            secret: "shop-secret".to_owned(),
            ..Call::get("")
        };
        // A node that tells the others of its new apps answers with 503 for a moment.
        let served = |node| {
            let status = eventually("the app is served or refused", || {
                Some(channels().send(node).status).filter(|&status| status != 503)
            });
            assert_eq!(status, 200);
        };
        served(a);
        assert_eq!(channels().send(b).status, 404);
        fs::write(b.path("ringwave.toml"), shop).unwrap();
        reloaded(b, shop);
        served(b);
    });
}
