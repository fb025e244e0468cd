use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::gateway::{DEADLINE, Gateway, Setup, eventually};
use crate::http::{Call, Http, connections, until_connected};
use crate::raw::{self, CLOSE, Raw};

/// The bytes of an event: under a request's limit, and so many that few events fill any socket.
const EVENT_BYTES: usize = 90_000;

/// The kernel memory that `server.send_buffer` allows for a connection by default.
const QUEUE_BYTES: usize = 256 << 10;

/// The largest queue, in bytes, that is left to the kernel when its connection ends.
const ORDERLY_BYTES: usize = 16 << 10;

/// Bytes that the kernel holds for the clients of a gateway, over all states of TCP, the sockets
/// that no process owns any more included: bytes that were sent and not acknowledged, and those
/// that wait behind.
fn queued(gateway: &Gateway) -> usize {
    gateway.tcp_ends().iter().map(|end| end.unsent_bytes).sum()
}

/// A subscriber of a public channel that has taken the answer and reads no more.
fn stopped_reader(gateway: &Gateway) -> Raw {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // The receiver's part of a queue on loopback is the client's, not the server's: keep it small.
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&gateway.address().into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    let mut raw = Raw::over(stream, raw::handshake().as_bytes());
    raw.established();
    raw.send(&raw::text(r#"{"event":"pusher:subscribe","data":{"channel":"room"}}"#));
    assert!(raw.message().contains("subscription_succeeded"));
    raw
}

fn publish(http: &mut Http<TcpStream>) {
    let data = " ".repeat(EVENT_BYTES);
    let body = json!({ "name": "e", "channel": "room", "data": data });
    http.send(&Call::post("events", &body).bytes());
    assert_eq!(http.response().status, 200);
}

#[test]
fn kernel_queues_of_clients_that_never_read_are_bounded_and_gone_after_their_close() {
    const CLIENTS: usize = 500;
    let _alone = crate::alone();
    let gateway = Setup::new(2).start();
    let clients: Vec<_> = (0..CLIENTS).map(|_| stopped_reader(&gateway)).collect();
    let mut http = Http::over(gateway.tcp());
    let mut most = 0;
    for published in 0.. {
        if connections(&gateway) == 0 {
            break;
        }
        assert!(published < 200, "they are never closed");
        publish(&mut http);
        most = most.max(queued(&gateway));
        // One segment may begin below the bound and end above it.
        assert!(most <= CLIENTS * (QUEUE_BYTES + (64 << 10)), "{} B each", most / CLIENTS);
    }
    let closed = Instant::now();
    // Each was sent events until its socket was full.
    assert!(most >= CLIENTS * EVENT_BYTES, "{most}");
    eventually("the kernel has dropped what nobody will read", || {
        (queued(&gateway) <= CLIENTS * 1024).then_some(())
    });
    println!("at most {most} B, gone {:?} after the last close", closed.elapsed());
    drop(clients);
}

/// Fills the queues of these clients in the kernel, and no more than begins to wait behind them.
fn fill(gateway: &Gateway, http: &mut Http<TcpStream>, clients: usize) {
    while queued(gateway) < clients * QUEUE_BYTES / 3 {
        publish(http);
    }
    assert_eq!(connections(gateway), clients as u64);
}

#[test]
fn a_client_that_ends_its_connection_without_reading_leaves_no_queue_behind() {
    const CLIENTS: usize = 20;
    let _alone = crate::alone();
    let gateway = Setup::new(2).start();
    let mut http = Http::over(gateway.tcp());
    for by_close in [true, false] {
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| stopped_reader(&gateway)).collect();
        fill(&gateway, &mut http, CLIENTS);
        for raw in &mut clients {
            match by_close {
                true => raw.send(&raw::frame(0x80 | CLOSE, &1000_u16.to_be_bytes())),
                false => raw.stream.shutdown(Shutdown::Write).unwrap(),
            }
        }
        until_connected(&gateway, 0);
        let end = if by_close { "Close frame" } else { "FIN" };
        eventually(&format!("little is queued after a {end}"), || {
            (queued(&gateway) <= CLIENTS * ORDERLY_BYTES).then_some(())
        });
        // They have not read or closed anything all along.
        drop(clients);
    }
}

#[test]
fn a_stop_leaves_no_queue_behind() {
    const CLIENTS: usize = 20;
    let _alone = crate::alone();
    let mut gateway = Setup::new(2).start();
    let clients: Vec<_> = (0..CLIENTS).map(|_| stopped_reader(&gateway)).collect();
    fill(&gateway, &mut Http::over(gateway.tcp()), CLIENTS);
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().success());
    eventually("nothing is queued after the end of the process", || {
        (queued(&gateway) <= CLIENTS * ORDERLY_BYTES).then_some(())
    });
    drop(clients);
}

#[test]
fn a_slow_reader_that_catches_up_within_the_deadline_gets_its_close_frame() {
    let _alone = crate::alone();
    let gateway = Setup::new(1).start();
    let mut late = stopped_reader(&gateway);
    let mut http = Http::over(gateway.tcp());
    while connections(&gateway) > 0 {
        publish(&mut http);
    }
    let error = loop {
        let message = late.message();
        if message.contains("pusher:error") {
            break message;
        }
    };
    assert!(error.contains("4101"), "{error}");
    late.expect_close(4101);
}
