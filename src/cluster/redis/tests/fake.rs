//! Servers that are no Redis.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// Listens, and answers what arrives by what the function makes of it; nothing where it is empty.
/// Returns the port. The threads end with their connections.
pub(super) fn serve(answer: impl Fn(&str) -> String + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || serve_one(stream, answer));
        }
    });
    port
}

fn serve_one(mut stream: TcpStream, answer: impl Fn(&str) -> String) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        let answer = answer(&String::from_utf8_lossy(&buffer[..read]));
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A server that answers `INFO` with these lines, and everything else with `OK`.
pub(super) fn that_tells(lines: &'static str) -> u16 {
    serve(move |request| if request.contains("INFO") { bulk(lines) } else { "+OK\r\n".into() })
}

pub(super) fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}
