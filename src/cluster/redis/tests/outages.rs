//! Servers and networks that fail.

use std::thread;
use std::time::Instant;

use super::server::{Server, wait_until};
use super::*;

/// A server that answers until it has been asked this many times over all sockets, and then takes
/// bytes and answers nothing.
fn black_hole_after(questions: usize) -> u16 {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let asked = Arc::new(AtomicUsize::new(0));
    fake::serve(move |request| {
        if asked.fetch_add(1, Ordering::Relaxed) >= questions {
            String::new()
        } else if request.contains("INFO") {
            fake::bulk("redis_version:7.0.0\r\nrun_id:x\r\nrole:master")
        } else {
            "+OK\r\n".into()
        }
    })
}

#[tokio::test]
async fn a_black_hole_is_noticed_by_both_halves_within_the_deadline() {
    // Name, INFO and the owner of the partition; name and INFO of the reader.
    let settings = standalone(black_hole_after(5));
    let Connection { mut writer, mut reader, .. } = connect(&settings).await;
    let begin = Instant::now();
    let (written, read) =
        tokio::join!(async { (writer.call(&head(1), &[]).await, begin.elapsed()) }, async {
            (reader.read(NODE, "0").await, begin.elapsed())
        },);
    for error in [written.0.unwrap_err(), read.0.unwrap_err()] {
        assert_eq!(cause(error), CallError::Silent);
    }
    let latest = written.1.max(read.1);
    assert!(latest < link::SILENCE_MAX + Duration::from_millis(500), "{latest:?}");
}

#[tokio::test]
async fn a_black_hole_is_noticed_while_connecting() {
    let told = refusal(&standalone(black_hole_after(0))).await;
    assert!(told.contains("gives no answer within 5 s"), "{told}");
}

#[tokio::test]
async fn a_server_that_stands_still_for_four_seconds_loses_no_connection() {
    let Some(server) = Server::start(&[]) else { return };
    let settings = standalone(server.port);
    let mut connection = connect(&settings).await;
    connection.prove().await;
    let Connection { mut writer, mut reader, .. } = connection;
    let port = server.port;
    let sleeping = thread::spawn(move || {
        let mut client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        std::io::Write::write_all(&mut client, b"DEBUG SLEEP 4\r\n").unwrap();
        std::io::Read::read_exact(&mut client, &mut [0; 5]).unwrap();
    });
    let (begin, head) = (Instant::now(), head(2));
    // One read is under way when the server stops, and reads go on behind it.
    while begin.elapsed() < Duration::from_secs(4) {
        let (written, read) = tokio::join!(writer.call(&head, &[]), reader.read(NODE, "$"));
        assert_eq!((written.unwrap(), read.unwrap()), (Executed::Done, Vec::new()));
    }
    sleeping.join().unwrap();
}

#[tokio::test]
async fn a_connection_that_is_cut_is_noticed_at_once() {
    let Some(server) = Server::start(&[]) else { return };
    let mut connection = connect(&standalone(server.port)).await;
    connection.prove().await;
    server.command("CLIENT KILL TYPE normal SKIPME yes");
    let begin = Instant::now();
    let written = connection.ask(2).await;
    let read = connection.read("0").await;
    assert!(matches!(written, Err(CallError::Lost(_))), "{written:?}");
    assert!(matches!(read, Err(CallError::Lost(_))), "{read:?}");
    assert!(begin.elapsed() < Duration::from_secs(1));
    let text = written.unwrap_err().to_string();
    assert!(text.starts_with("the connection to Redis broke (") && !text.contains("os error"));
}

#[tokio::test]
async fn a_master_that_becomes_a_replica_is_left_and_refused() {
    let (Some(master), Some(server)) = (Server::start(&[]), Server::start(&[])) else { return };
    let settings = standalone(server.port);
    let mut connection = connect(&settings).await;
    connection.prove().await;
    server.command(&format!("REPLICAOF 127.0.0.1 {}", master.port));
    assert_eq!(connection.ask(2).await, Err(CallError::Demoted));
    let mut told = String::new();
    for _ in 0..200 {
        told = refusal(&settings).await;
        if told.contains("is a replica: name its master") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{told}");
}

#[tokio::test]
async fn a_server_that_is_full_or_refuses_writes_is_told() {
    let Some(server) = Server::start(&[]) else { return };
    let mut connection = connect(&standalone(server.port)).await;
    connection.prove().await;
    server.command("CONFIG SET maxmemory 1");
    let told = connection.ask(2).await.unwrap_err().to_string();
    assert!(told.starts_with("Redis is full (\"OOM "), "{told}");
    server.command("CONFIG SET maxmemory 0");
    server.command("CONFIG SET min-replicas-to-write 1");
    let told = connection.ask(2).await.unwrap_err().to_string();
    assert!(told.starts_with("Redis refuses writes (\"NOREPLICAS "), "{told}");
}

#[tokio::test]
async fn a_server_that_restarts_can_be_connected_to_again() {
    let Some(mut server) = Server::start(&[]) else { return };
    let settings = standalone(server.port);
    let connector = connector(&settings);
    let mut connection = connector.connect(0).await.unwrap();
    connection.prove().await;
    server.kill();
    assert!(matches!(connection.ask(2).await, Err(CallError::Lost(_))));
    let told = connector.connect(0).await.unwrap_err().to_string();
    assert!(told.contains("(connection refused): start Redis there, or correct"), "{told}");
    let port = server.port.to_string();
    let Some(_again) = Server::start_elsewhere(server::Folder::new(), &["--port".into(), port])
    else {
        return;
    };
    wait_until("the server is back", || {
        std::net::TcpStream::connect(("127.0.0.1", server.port)).is_ok()
    });
    let mut again = connector.connect(0).await.unwrap();
    assert_ne!(again.run_id, connection.run_id);
    again.prove().await;
}
