//! The sentences for the operator.

use super::server::{Server, free_port};
use super::*;

#[tokio::test]
async fn a_port_at_which_nobody_listens_is_told_with_the_settings() {
    let port = free_port();
    let expected = format!(
        "cannot reach Redis at 127.0.0.1:{port} (connection refused): start Redis there, or \
         correct cluster.redis (REDIS_URL, or REDIS_HOST and REDIS_PORT)"
    );
    assert_eq!(refusal(&standalone(port)).await, expected);
}

#[tokio::test]
async fn a_missing_unix_socket_is_told() {
    let told = refusal(&unix(Path::new("/nonexistent/redis.sock"))).await;
    let begin = "cannot reach Redis at /nonexistent/redis.sock (no such file or directory): start";
    assert!(told.starts_with(begin), "{told}");
}

#[tokio::test]
async fn a_name_without_an_address_is_told() {
    let place = RedisPlace::Standalone(tcp("redis.invalid", 6379));
    let told = refusal(&settings(place)).await;
    assert!(told.starts_with("cannot find the address of Redis at redis.invalid:6379 ("), "{told}");
}

#[tokio::test]
async fn an_old_version_is_refused_and_valkey_is_not() {
    let port = fake::that_tells("redis_version:6.0.16\r\nrole:master\r\nrun_id:x");
    let told = refusal(&standalone(port)).await;
    assert!(told.ends_with("is Redis 6.0.16: upgrade it to Redis 6.2 or later, or to Valkey"));
    let port = fake::that_tells("redis_version:7.2.4\r\nvalkey_version:8.0.1\r\nrole:master");
    connect(&standalone(port)).await;
}

#[tokio::test]
async fn a_start_ends_only_for_what_no_waiting_heals() {
    let crowded = || fake::serve(|_| "-ERR max number of clients reached\r\n".into());
    for (port, permanent) in [
        (fake::that_tells("redis_version:6.0.16\r\nrole:master"), true),
        (fake::that_tells("redis_version:7.0.15\r\nredis_mode:sentinel"), true),
        (fake::that_tells("redis_version:7.0.15\r\nloading:1\r\nrole:master"), false),
        (fake::that_tells("redis_version:7.0.15\r\nrole:slave"), false),
        (crowded(), false),
        (free_port(), false),
    ] {
        let error = error(&standalone(port)).await;
        assert_eq!(error.is_permanent(), permanent, "{error}");
    }
    let mut settings = standalone(crowded());
    settings.login = login(None, "x");
    let error = error(&settings).await;
    assert!(!error.is_permanent() && error.to_string().contains("maxclients"), "{error}");
}

#[tokio::test]
async fn what_is_no_redis_is_told() {
    let port = fake::serve(|_| "HTTP/1.1 400 Bad Request\r\n\r\n".into());
    let told = refusal(&standalone(port)).await;
    assert!(told.contains("what listens there is no Redis: correct the port"), "{told}");
}

#[tokio::test]
async fn a_server_that_loads_its_data_is_told() {
    let port = fake::that_tells("redis_version:7.0.15\r\nloading:1\r\nrole:master");
    let told = refusal(&standalone(port)).await;
    assert!(told.contains("Redis is loading its data"), "{told}");
}

#[tokio::test]
async fn a_sentinel_in_the_place_of_a_server_is_told() {
    let port = fake::that_tells("redis_version:7.0.15\r\nredis_mode:sentinel");
    let told = refusal(&standalone(port)).await;
    assert!(told.contains("is a sentinel: set cluster.mode to `sentinel`"), "{told}");
}

#[tokio::test]
async fn a_name_that_stands_for_several_servers_is_told() {
    use std::sync::atomic::{AtomicU32, Ordering};
    static PROCESS: AtomicU32 = AtomicU32::new(0);
    let port = fake::serve(|request| {
        if !request.contains("INFO") {
            return "+OK\r\n".into();
        }
        let process = PROCESS.fetch_add(1, Ordering::Relaxed);
        fake::bulk(&format!("redis_version:7.0.0\r\nrun_id:{process}"))
    });
    let told = refusal(&standalone(port)).await;
    assert!(told.contains("stands for several servers"), "{told}");
}

#[tokio::test]
async fn another_number_of_partitions_is_told() {
    let Some(server) = Server::start(&[]) else { return };
    let mut connection = connect(&standalone(server.port)).await;
    connection.enter(1).await;
    let told = connection.writer.enter(NODE, &entrance(16)).await.unwrap_err().to_string();
    let text = "and cluster.partitions of this node is 16: set it to 1, or choose another";
    assert!(told.contains(text), "{told}");
}

#[tokio::test]
async fn answers_of_another_form_are_errors_and_no_panic() {
    let port = fake::serve(|request| {
        if request.contains("INFO") {
            return fake::bulk("redis_version:7.0.15\r\nrole:master");
        }
        ":5\r\n".into()
    });
    let mut connection = connect(&standalone(port)).await;
    let entered = connection.writer.enter(NODE, &entrance(1)).await.unwrap_err();
    assert_eq!(cause(entered), CallError::Unreadable("the entrance"));
    assert_eq!(connection.ask(2).await, Err(CallError::Unreadable("a call")));
    assert_eq!(connection.read("0").await, Err(CallError::Unreadable("XREAD")));
}

#[tokio::test]
async fn a_key_of_a_stranger_in_the_place_of_an_inbox_is_told() {
    let Some(server) = Server::start(&[]) else { return };
    let mut connection = connect(&standalone(server.port)).await;
    server.command(&format!("SET {{ringwave:reverb:0}}:in:{NODE} text"));
    let told = connection.read("0").await.unwrap_err().to_string();
    assert!(told.starts_with("Redis refuses the request (\"WRONGTYPE "), "{told}");
}
