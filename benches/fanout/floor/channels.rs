//! The channels of the floor: lists of slots, and the frames to be sent to them in this turn.

use std::collections::HashMap;

use bytes::BytesMut;
use ringwave_ring::Staged;

/// All channels, by number and by name. They are never removed, because a floor does not live long.
#[derive(Default)]
pub(super) struct Channels {
    numbers: HashMap<Box<[u8]>, u32>,
    list: Vec<Channel>,
}

/// One channel.
#[derive(Default)]
pub(super) struct Channel {
    pub(super) subscribers: Vec<u32>,
    /// Frames that are to be sent. The memory is used again when they were.
    pub(super) pending: BytesMut,
    /// The slot of the client that sent the pending frames, and so does not get them.
    pub(super) speaker: Option<u32>,
    /// The frames that were sent last, as long as the ring holds them: a subscriber whose socket
    /// was full still has to get the rest of them.
    pub(super) sent: Option<Staged>,
}

impl Channels {
    /// The number of a channel that has, or had, subscribers.
    pub(super) fn number(&self, name: &[u8]) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    pub(super) fn add(&mut self, name: &[u8]) -> u32 {
        self.number(name).unwrap_or_else(|| {
            let number = u32::try_from(self.list.len()).expect("few channels");
            self.numbers.insert(name.into(), number);
            self.list.push(Channel::default());
            number
        })
    }

    pub(super) fn of(&mut self, number: u32) -> &mut Channel {
        &mut self.list[number as usize]
    }
}
