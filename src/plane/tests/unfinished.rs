//! Tests of unfinished messages, and of the bound on all of them together.

use super::*;

/// The first part of a message.
const PART: usize = 100;

impl World {
    /// Sends the first part of a message as the client.
    fn begin(&mut self, fd: RawFd) {
        self.send(fd, FRAGMENT, &[b'x'; PART]);
        self.settle();
    }

    fn held(&self) -> usize {
        self.plane.conns.iter().map(|conn| conn.reader.held()).sum()
    }
}

/// A text frame that is not the last one of its message.
const FRAGMENT: u8 = 0x01;
const LAST: u8 = 0x80;

#[test]
fn whoever_makes_unfinished_messages_longer_than_they_may_be_together_is_closed() {
    let mut world = World::new();
    let clients: Vec<_> = (0..4).map(|_| world.connect()).collect();
    clients[..3].iter().for_each(|&(_, fd)| world.begin(fd));
    let most = world.held();
    assert!(most >= 3 * PART);
    world.plane.limit_unfinished(most);
    world.begin(clients[3].1);
    assert_eq!(world.closed, [(clients[3].0, Ended::Ours)]);
    assert!(world.read(clients[3].1).ends_with(b"too much"));
    assert_eq!((world.held(), world.plane.unfinished_bytes), (most, most));
    // Nothing more is read from the connection, whatever the client sends.
    world.send(clients[3].1, FRAGMENT, &[b'x'; PART]);
    world.settle();
    assert_eq!(world.plane.unfinished_bytes, most);
}

#[test]
fn what_unfinished_messages_took_is_free_when_they_are_whole_or_their_connection_is_gone() {
    let mut world = World::new();
    let (whole, gone) = (world.connect(), world.connect());
    world.begin(whole.1);
    world.begin(gone.1);
    world.plane.limit_unfinished(world.held());
    world.send(whole.1, LAST, b"end");
    world.settle();
    assert_eq!(world.host.heard.len(), 1);
    world.net.close(gone.1);
    world.settle();
    assert_eq!((world.held(), world.plane.unfinished_bytes), (0, 0));
    let (key, fd) = world.connect();
    world.begin(fd);
    assert!(world.plane.is_open(key));
}
