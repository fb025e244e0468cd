//! Sockets that are read as fast as the kernel gives, on a thread of their own, and counted.

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringwave::id::ConnKey;
use ringwave::ring::{Ring, Uring, UringSizes};

/// Readers of one server.
pub(crate) struct Subscribers {
    received: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    /// Keep the connections open.
    _sockets: Arc<Vec<TcpStream>>,
}

impl Subscribers {
    /// Starts reading; what the sockets received before is not counted.
    pub(crate) fn read(sockets: Vec<TcpStream>) -> Self {
        let (received, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let sockets = Arc::new(sockets);
        let reader = {
            let (received, stop) = (Arc::clone(&received), Arc::clone(&stop));
            let sockets = Arc::clone(&sockets);
            std::thread::spawn(move || read_until(&sockets, &received, &stop))
        };
        Self { received, stop, reader: Some(reader), _sockets: sockets }
    }

    /// Waits until this many bytes have come.
    pub(crate) fn wait_for(&self, bytes: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.received.load(Ordering::Relaxed) < bytes {
            assert!(Instant::now() < deadline, "bytes are missing");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Subscribers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader runs to its end");
        }
    }
}

fn read_until(sockets: &[TcpStream], received: &AtomicUsize, stop: &AtomicBool) {
    let mut ring = Uring::new(&sizes(sockets.len(), 1024)).expect("a ring for the subscribers");
    for (slot, socket) in (0..).zip(sockets) {
        ring.install(slot, socket.as_raw_fd()).expect("a free slot");
        let key = ConnKey { slot, generation: 0 };
        while ring.receive(key).is_err() {
            ring.submit();
        }
    }
    let mut completions = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        ring.submit();
        ring.reap(&mut completions);
        if completions.is_empty() {
            std::thread::sleep(Duration::from_micros(200));
        }
        for completion in completions.drain(..) {
            if let Some(buffer) = ring.take_buffer(&completion) {
                received.fetch_add(completion.result as usize, Ordering::Relaxed);
                ring.give_back(buffer);
            }
            if !completion.more && completion.result != 0 {
                while ring.receive(completion.key).is_err() {
                    ring.submit();
                }
            }
        }
    }
}

/// A ring for this many sockets.
pub(crate) fn sizes(sockets: usize, buffers: u16) -> UringSizes {
    UringSizes {
        slots: u32::try_from(sockets).expect("few sockets"),
        submissions: 4096,
        buffers,
        buffer_size: 16 * 1024,
        direct_descriptors: true,
    }
}
