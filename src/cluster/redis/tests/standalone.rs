//! One server, by every way to reach it.

use std::time::Instant;

use super::server::{Folder, Server, wait_until};
use super::*;

#[tokio::test]
async fn a_call_appends_to_the_inbox_and_the_reader_goes_on_where_it_stopped() {
    let Some(server) = Server::start(&[]) else { return };
    let mut connection = connect(&standalone(server.port)).await;
    assert_eq!(connection.run_id.len(), 40);
    assert_eq!(connection.writer.server(), format!("127.0.0.1:{}", server.port));
    connection.enter(1).await;
    for number in [1, 2] {
        assert_eq!(connection.ask(number).await, Ok(Executed::Done));
    }
    let entries = connection.read("0").await.unwrap();
    let number = |(_, field): &(Box<str>, Bytes)| Entry::decode(field.clone()).unwrap().number;
    assert_eq!(entries.iter().map(number).collect::<Vec<_>>(), [1, 2]);
    let last = &entries[1].0;
    let begin = Instant::now();
    assert_eq!(connection.read(last).await, Ok(Vec::new()));
    assert!(begin.elapsed() >= Duration::from_millis(400), "the read did not wait");
    assert_eq!(connection.ask(3).await, Ok(Executed::Done));
    assert_eq!(connection.read(last).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_node_that_has_not_entered_is_told_to() {
    let Some(server) = Server::start(&[]) else { return };
    let mut connection = connect(&standalone(server.port)).await;
    assert_eq!(connection.ask(1).await, Ok(Executed::Enter));
}

#[tokio::test]
async fn a_forgotten_script_is_taught_again() {
    let Some(server) = Server::start(&[]) else { return };
    let mut connection = connect(&standalone(server.port)).await;
    connection.prove().await;
    server.command("SCRIPT FLUSH");
    connection.prove().await;
}

#[tokio::test]
async fn dropped_halves_close_their_sockets_even_while_a_read_waits() {
    let Some(server) = Server::start(&[]) else { return };
    let Connection { writer, mut reader, .. } = connect(&standalone(server.port)).await;
    assert_eq!(server.connected(), 2);
    let reading = tokio::time::timeout(Duration::from_millis(50), reader.read(NODE, "0")).await;
    reading.unwrap_err();
    drop((writer, reader));
    // The tasks behind the sockets end when the runtime comes to them.
    tokio::time::sleep(Duration::from_millis(10)).await;
    wait_until("the sockets are closed", || server.connected() == 0);
}

#[tokio::test]
async fn a_password_may_have_any_characters() {
    let password = "p@ss:w/o?r#d%20[]{} ü\"'\\";
    let Some(server) = Server::start(&["--requirepass", password]) else { return };
    let mut settings = standalone(server.port);
    settings.login = login(None, password);
    connect(&settings).await.prove().await;
    settings.login = login(Some("default"), password);
    connect(&settings).await.prove().await;
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_one_are_told_without_showing_it() {
    let Some(server) = Server::start(&["--requirepass", "right"]) else { return };
    let mut settings = standalone(server.port);
    let told = refusal(&settings).await;
    assert!(told.contains("does not accept the user or the password (\"NOAUTH "), "{told}");
    settings.login = login(None, "mistaken-secret");
    let told = refusal(&settings).await;
    assert!(told.contains("(\"WRONGPASS "), "{told}");
    assert!(told.contains("correct REDIS_USERNAME and REDIS_PASSWORD"), "{told}");
    assert!(!told.contains("mistaken-secret"), "{told}");
    assert!(!format!("{:?}", connector(&settings)).contains("mistaken-secret"));
}

#[tokio::test]
async fn a_password_where_none_is_needed_is_told() {
    let Some(server) = Server::start(&[]) else { return };
    let mut settings = standalone(server.port);
    settings.login = login(None, "needless");
    let told = refusal(&settings).await;
    assert!(told.contains("without any password configured"), "{told}");
}

#[tokio::test]
async fn a_unix_socket_is_reached() {
    let folder = Folder::new();
    let path = folder.path().join("redis.sock");
    let arguments = ["--port", "0", "--unixsocket", path.to_str().unwrap()].map(Into::into);
    let Some(_server) = Server::start_elsewhere(folder, &arguments) else { return };
    wait_until("there is a socket", || path.exists());
    let mut connection = connect(&unix(&path)).await;
    connection.prove().await;
    assert_eq!(connection.writer.server(), path.to_str().unwrap());
}

#[tokio::test]
async fn ipv6_is_spoken() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return left_out::left_out("this host has no ::1");
    }
    let Some(server) = Server::start(&[]) else { return };
    let settings = settings(RedisPlace::Standalone(tcp("::1", server.port)));
    connect(&settings).await.prove().await;
}

#[tokio::test]
async fn databases_are_separate_and_one_that_is_missing_is_told() {
    let Some(server) = Server::start(&[]) else { return };
    let mut settings = standalone(server.port);
    settings.database = 3;
    connect(&settings).await.prove().await;
    let keyspace: String = server.run_command(::redis::cmd("INFO").arg("keyspace"));
    assert!(keyspace.contains("db3:") && !keyspace.contains("db0:"), "{keyspace}");
    settings.database = 16;
    let told = refusal(&settings).await;
    assert!(
        told.contains("does not have database 16 (\"ERR DB index is out of range\")"),
        "{told}"
    );
}
