use std::fs;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;

use serde_json::json;

use super::traffic::Traffic;
use crate::client::Client;
use crate::gateway::{Gateway, Setup, eventually};
use crate::http::{Call, publish};
use crate::left_out::{left_out, runs};
use crate::nodes::scaled;
use crate::redis_server::{MASTER, Redis, RedisSetup, Sentinels, is_installed, three_masters};

/// A setup whose `.env` names this URL.
fn by_url(url: &str) -> Setup {
    Setup::new(2).env("REVERB_SCALING_ENABLED", "true").env("REDIS_URL", &format!("\"{url}\""))
}

/// Starts two nodes and checks that they are one server.
fn two(setup: impl Fn() -> Setup) -> [Gateway; 2] {
    let nodes = [(); 2].map(|()| setup().start());
    let [a, b] = &nodes;
    let mut clients = [Client::connect(a), Client::connect(b)];
    eventually("each node counts the connections of both", || {
        let both = [a, b].map(|node| Call::get("connections").send(node));
        let counted = json!({ "connections": 2 });
        both.iter().all(|answer| answer.status == 200 && answer.json() == counted).then_some(())
    });
    for (client, other) in clients.iter_mut().zip([b, a]) {
        client.subscribe("room");
        publish(other, "room", "e", "1");
    }
    clients[0].expect_event("room", "e", "1");
    nodes
}

#[test]
fn tls_takes_an_authority_and_a_certificate_of_the_configuration() {
    if !is_installed() || !runs("openssl", &["version"]) {
        return;
    }
    let redis = RedisSetup::new().tls().start();
    let url = format!("rediss://{}", redis.tls_address());
    let authority = format!("cluster.tls_ca = \"{}\"\n", redis.path("ca.pem"));
    let own = format!(
        "cluster.tls_certificate = \"{}\"\ncluster.tls_key = \"{}\"\n",
        redis.path("client.pem"),
        redis.path("client.key")
    );
    two(|| by_url(&url).toml(&authority).toml(&own));
    for part in [&authority, &own] {
        let output = by_url(&url).toml(part).output("check");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && stderr.contains("certificate"), "{part}{stderr}");
    }
}

/// The line of the manual that creates a user with the least rights.
fn acl_line() -> String {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual");
    let chapters = fs::read_dir(manual).unwrap();
    let lines = chapters.flat_map(|chapter| {
        let text = fs::read_to_string(chapter.unwrap().path()).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    });
    let mut lines = lines.filter(|line| line.starts_with("ACL SETUSER "));
    lines.next().expect("the manual has the line")
}

#[test]
fn a_user_with_the_rights_of_the_manual_is_enough() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let mut words: Vec<_> = acl_line().split_whitespace().map(str::to_owned).collect();
    let name = words[2].clone();
    let password = words.iter_mut().find(|word| word.starts_with('>')).unwrap();
    ">its-password".clone_into(password);
    let _done: String = redis.ask(&words.join(" "));
    let setup = || {
        let setup = scaled(Setup::new(2), redis.address()).env("REDIS_USERNAME", &name);
        setup.env("REDIS_PASSWORD", "its-password")
    };
    let checked = setup().output("check");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    two(setup);
    // It may nothing else.
    let mut other = redis::cmd("ACL");
    let told: String = redis.query(other.arg("DRYRUN").arg(&name).arg("SET").arg("key").arg("1"));
    assert!(told.contains("permission"), "{told}");
    let log: Vec<redis::Value> = redis.ask("ACL LOG");
    assert!(log.is_empty(), "refused commands: {log:?}");
}

#[test]
fn check_names_a_right_that_is_missing() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let _done: String = redis.ask("ACL SETUSER poor on >its-password ~* &* +@all -evalsha -eval");
    let setup = scaled(Setup::new(1), redis.address()).env("REDIS_USERNAME", "poor");
    let output = setup.env("REDIS_PASSWORD", "its-password").output("check");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && stderr.contains("eval"), "{stderr}");
    assert!(stderr.contains("ACL"), "it says what to do: {stderr}");
}

#[test]
fn passwords_may_have_the_special_characters_of_urls() {
    if !is_installed() {
        return;
    }
    let password = "p#a:s/s@w?o%r d&+";
    let redis = RedisSetup::new().password(password).start();
    let quoted = format!("\"{password}\"");
    two(|| scaled(Setup::new(2), redis.address()).env("REDIS_PASSWORD", &quoted));
    let encoded = "p%23a%3As%2Fs%40w%3Fo%25r%20d%26%2B";
    two(|| by_url(&format!("redis://:{encoded}@{}", redis.address())));
}

#[test]
fn a_unix_socket_and_ipv6_lead_to_redis_as_well() {
    if !is_installed() {
        return;
    }
    // The path of a socket has at most 107 bytes, which a target directory may exceed.
    let socket = std::env::temp_dir().join(format!("ringwave-redis-{}.sock", std::process::id()));
    let redis = RedisSetup::new().line(&format!("unixsocket {}", socket.display())).start();
    two(|| by_url(&format!("unix://{}", socket.display())));
    drop(redis);

    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        return left_out("there is no IPv6");
    };
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let setup = RedisSetup::new();
    let _redis = setup.beside(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).start();
    two(|| by_url(&format!("redis://[::1]:{port}")));
    two(|| scaled(Setup::new(2), (Ipv6Addr::LOCALHOST, port).into()));
}

#[test]
fn the_database_of_the_configuration_is_used() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let _nodes = two(|| scaled(Setup::new(2), redis.address()).env("REDIS_DB", "5"));
    let told: String = redis.ask("INFO keyspace");
    assert!(told.contains("db5:") && !told.contains("db0:"), "{told}");
}

#[test]
fn a_failover_by_sentinels_delays_events() {
    if !is_installed() {
        return;
    }
    let mut sentinels = Sentinels::start();
    let addresses = sentinels.sentinels.each_ref().map(|sentinel| sentinel.address().to_string());
    let toml = format!(
        "cluster.mode = \"sentinel\"\ncluster.sentinels = {addresses:?}\n\
         cluster.sentinel_master = \"{MASTER}\"\ncluster.patience = 20\n"
    );
    let nodes = two(|| Setup::new(2).env("REVERB_SCALING_ENABLED", "true").toml(&toml));
    let [a, b] = &nodes;
    let traffic = Traffic::start(&[a, b], &[a, b]);
    sentinels.fail_over();
    traffic.goes_on();
    traffic.complete();
}

#[test]
fn a_redis_cluster_of_three_masters_has_a_part_of_the_channels_on_each() {
    if !is_installed() {
        return;
    }
    let mut masters = three_masters();
    let addresses = masters.each_ref().map(|master| format!("redis://{}", master.address()));
    let setup = || {
        let setup = Setup::new(2).env("REVERB_SCALING_ENABLED", "true");
        setup.toml(&format!("cluster.mode = \"cluster\"\ncluster.redis = {:?}\n", addresses[0]))
    };
    let nodes = two(setup);
    let [a, b] = &nodes;
    let mut client = Client::connect(a);
    for number in 0..60 {
        client.subscribe(&format!("channel-{number}"));
    }
    for master in &masters {
        let keys: usize = master.ask("DBSIZE");
        assert!(keys > 10, "{keys} keys on {}", master.address());
    }
    let listed = Call::get("channels").param("filter_by_prefix", "channel-").ok(b);
    assert_eq!(listed["channels"].as_object().unwrap().len(), 60);
    for number in 0..60 {
        publish(b, &format!("channel-{number}"), "e", "1");
        client.expect_event(&format!("channel-{number}"), "e", "1");
    }
    // A master that comes back empty has forgotten its part.
    let traffic = Traffic::start(&[a, b], &[a, b]);
    for master in &mut masters {
        master.crash();
        master.go_on_empty();
        traffic.goes_on();
    }
    traffic.complete();
    for number in 0..60 {
        publish(b, &format!("channel-{number}"), "e", "2");
        client.expect_event(&format!("channel-{number}"), "e", "2");
    }
}
