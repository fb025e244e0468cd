//! A master behind sentinels.

use super::server::{Server, free_port, wait_until};
use super::*;

fn settings_of(ports: &[u16], master: &str) -> ClusterSettings {
    let sentinels = ports.iter().map(|&port| tcp("127.0.0.1", port)).collect();
    let login = RedisLogin::default();
    settings(RedisPlace::Sentinel { sentinels, master: master.into(), login })
}

/// Whether a sentinel knows the other two and the replica.
fn knows_all(sentinel: &Server) -> bool {
    let lines: String = sentinel.run_command(::redis::cmd("INFO").arg("sentinel"));
    lines.contains("status=ok") && lines.contains("slaves=1,sentinels=3")
}

#[tokio::test]
async fn the_master_is_found_before_and_behind_a_failover() {
    let Some(mut master) = Server::start(&[]) else { return };
    let port = master.port.to_string();
    let Some(replica) = Server::start(&["--replicaof", &format!("127.0.0.1 {port}")]) else {
        return;
    };
    let sentinels: Vec<Server> =
        (0..3).map(|_| Server::start_sentinel(master.port).unwrap()).collect();
    wait_until("the sentinels know each other", || sentinels.iter().all(knows_all));
    // The first of the settings is down.
    let ports: Vec<u16> =
        [free_port()].into_iter().chain(sentinels.iter().map(|sentinel| sentinel.port)).collect();
    let settings = settings_of(&ports, "main");
    let connector = connector(&settings);
    let mut connection = connector.connect(0).await.unwrap();
    assert_eq!(connection.writer.server(), format!("127.0.0.1:{}", master.port));
    connection.prove().await;
    let told = refusal(&settings_of(&ports[1..], "other")).await;
    assert!(told.contains("does not know the master \"other\": correct cluster.sentinel_master"));

    master.kill();
    assert!(matches!(connection.ask(2).await, Err(CallError::Lost(_))));
    let begin = std::time::Instant::now();
    let mut connection = loop {
        match connector.connect(0).await {
            Ok(connection) => break connection,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(20), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(connection.writer.server(), format!("127.0.0.1:{}", replica.port));
    connection.prove().await;
}

#[tokio::test]
async fn a_master_that_a_sentinel_names_wrongly_is_told() {
    // A sentinel that has not noticed a failover names a replica, or a server that is gone.
    let replica = fake::that_tells("redis_version:7.0.15\r\nrole:slave");
    let told = refusal(&settings_of(&[sentinel_of(replica)], "main")).await;
    assert!(told.contains("is a replica"), "{told}");
    let sentinel = sentinel_of(free_port());
    let told = refusal(&settings_of(&[sentinel], "main")).await;
    let by = format!("the sentinel at 127.0.0.1:{sentinel} names this master");
    assert!(told.contains("(connection refused)") && told.contains(&by), "{told}");
    // The next one knows better.
    let master = fake::that_tells("redis_version:7.0.15\r\nrole:master");
    let ports = [sentinel_of(replica), sentinel_of(master)];
    let connection = connect(&settings_of(&ports, "main")).await;
    assert_eq!(connection.writer.server(), format!("127.0.0.1:{master}"));
}

/// A sentinel that names this port.
fn sentinel_of(port: u16) -> u16 {
    let port = fake::bulk(&port.to_string());
    let answer = format!("*2\r\n{}{port}", fake::bulk("127.0.0.1"));
    fake::serve(
        move |request| {
            if request.contains("SENTINEL") { answer.clone() } else { "+OK\r\n".into() }
        },
    )
}

#[tokio::test]
async fn what_is_no_sentinel_and_a_wrong_password_are_told() {
    let Some(server) = Server::start(&[]) else { return };
    let told = refusal(&settings_of(&[server.port], "main")).await;
    assert!(told.contains("is no sentinel (\"ERR unknown command"), "{told}");
    let mut settings = settings_of(&[server.port], "main");
    if let RedisPlace::Sentinel { login: own, .. } = &mut settings.place {
        *own = login(Some("someone"), "wrong");
    }
    let told = refusal(&settings).await;
    assert!(told.starts_with("the sentinel at 127.0.0.1:"), "{told}");
    assert!(told.contains("correct cluster.sentinel_username and"), "{told}");
}
