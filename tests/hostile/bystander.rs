//! The bystanders: a publisher and a subscriber that do what apps do during an attack.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Client;
use crate::gateway::Gateway;
use crate::http::{Call, Http};

/// Time between two events of the publisher.
const PAUSE: Duration = Duration::from_millis(2);

/// The service that the bystanders got for a while.
#[derive(Clone, Debug, Default)]
pub struct Fared {
    /// The times from the request to the event, ascending.
    pub latencies: Vec<Duration>,
    /// The number of answers other than 200.
    pub refused: usize,
}

impl Fared {
    /// The latency that so many percent stay below.
    pub fn percentile(&self, part: usize) -> Duration {
        let at = (self.latencies.len() * part / 100).min(self.latencies.len() - 1);
        self.latencies[at]
    }
}

/// Publishes on a connection that is kept, and waits for each event, until `lasts` is over.
pub fn for_a_while(gateway: &Gateway, lasts: Duration) -> Fared {
    let mut subscriber = Client::connect(gateway);
    subscriber.subscribe("bystanders");
    let mut publisher = Http::over(gateway.tcp());
    let started = Instant::now();
    let mut fared = Fared::default();
    for number in 0.. {
        if started.elapsed() > lasts {
            break;
        }
        let data = number.to_string();
        let event = json!({ "name": "tick", "channel": "bystanders", "data": data });
        let request = Call::post("events", &event).bytes();
        let asked = Instant::now();
        publisher.send(&request);
        if publisher.response().status == 200 {
            subscriber.expect_event("bystanders", "tick", &data);
            fared.latencies.push(asked.elapsed());
        } else {
            fared.refused += 1;
        }
        thread::sleep(PAUSE);
    }
    fared.latencies.sort_unstable();
    fared
}

/// A client that sends the same bytes for ever, and reads whatever comes. It ends when dropped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    stream: TcpStream,
    threads: Vec<JoinHandle<u64>>,
}

impl Flood {
    /// Floods an open WebSocket.
    pub fn of(stream: TcpStream, bytes: Vec<u8>) -> Self {
        use std::io::{Read, Write};

        let stop = Arc::new(AtomicBool::new(false));
        let (mut out, mut back) = (stream.try_clone().unwrap(), stream.try_clone().unwrap());
        let ends = Arc::clone(&stop);
        let write = move || {
            let mut sent = 0;
            // The gateway may end the connection, which is no failure of the flood.
            while !ends.load(Ordering::Relaxed) && out.write_all(&bytes).is_ok() {
                sent += bytes.len() as u64;
            }
            sent
        };
        let read = move || {
            let (mut buffer, mut read) = (vec![0; 1 << 16], 0);
            while let Ok(count @ 1..) = back.read(&mut buffer) {
                read += count as u64;
            }
            read
        };
        Self { stop, stream, threads: vec![thread::spawn(write), thread::spawn(read)] }
    }

    /// Ends the flood. Returns the number of bytes that it has sent and read.
    pub fn end(mut self) -> (u64, u64) {
        let ends = self.stop_all();
        (ends[0], ends[1])
    }

    fn stop_all(&mut self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        // A connection that has ended already cannot be shut down.
        let _gone = self.stream.shutdown(std::net::Shutdown::Both);
        self.threads.drain(..).map(|thread| thread.join().unwrap()).collect()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.stop_all();
        }
    }
}
