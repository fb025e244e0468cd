//! The parameters of a run, by its seed: sizes down to the least that works, and rates of faults.

use std::time::Duration;

use ringwave::testing::plane::BacklogLimits;
use ringwave_ring::sim::{Dice, Faults};

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub shards: usize,
    pub slots: u32,
    /// Entries of the submission queue.
    pub queue: usize,
    /// Receive buffers and their size.
    pub buffers: u16,
    pub buffer: usize,
    /// Messages that fit into a mailbox.
    pub mailbox: usize,
    /// Bytes that fit into a socket on their way to a client.
    pub socket: usize,
    pub backlog: BacklogLimits,
    pub faults: Faults,
    /// Channels of each app.
    pub channels: usize,
    /// The most clients at a time.
    pub clients: usize,
    pub epochs: usize,
    /// The steps of an epoch.
    pub steps: usize,
    /// The longest filler of a message, in bytes.
    pub filler: usize,
    /// The most bytes that a client reads or writes at a time.
    pub bite: usize,
    pub members_max: usize,
    pub ping_interval: Duration,
    pub pong_timeout: Duration,
}

impl Plan {
    pub(crate) fn new(shards: usize, seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x5eed);
        let connection = dice.one_of(&[600, 4_000, 30_000, 1 << 20]);
        let few = shards > 8;
        let buffers = dice.one_of(&[1, 2, 4, 16]);
        let sizes = if buffers > 2 { [8, 64, 256, 4096] } else { [64, 256, 1024, 4096] };
        Self {
            shards,
            slots: 2 + dice.below(if few { 3 } else { 10 }) as u32,
            queue: dice.one_of(&[1, 2, 3, 8, 64]),
            buffers,
            buffer: dice.one_of(&sizes),
            mailbox: dice.one_of(&[1, 2, 3, 8, 64]),
            socket: dice.one_of(&[100, 500, 4096, 1 << 16]),
            backlog: BacklogLimits {
                connection,
                shard: dice.one_of(&[connection, 3 * connection, 64 << 20]),
            },
            faults: Faults {
                short_send: dice.one_of(&[0, 20, 200, 800]),
                spurious: dice.one_of(&[0, 20, 300]),
                unknown_left: dice.one_of(&[0, 20, 1000]),
                stray_again: dice.one_of(&[0, 10, 200]),
                no_buffers: dice.one_of(&[0, 20, 300]),
                reset: dice.one_of(&[0, 0, 1, 3]),
                stale: dice.one_of(&[0, 20, 300]),
                busy: dice.one_of(&[0, 50, 500, 900]),
                delay: dice.one_of(&[0, 100, 700]),
                accept: 0,
            },
            channels: 1 + dice.below(8),
            clients: if few { 100 } else { 4 + dice.below(10 * shards) },
            epochs: 3,
            steps: if few { 6000 } else { 1500 },
            filler: dice.one_of(&[10, 200, 200, 200, 2000, 2000, 70_000, 200_000]),
            bite: dice.one_of(&[1, 20, 300, 10_000]) * 2,
            members_max: dice.one_of(&[1, 3, 100]),
            ping_interval: Duration::from_millis(dice.one_of(&[1000, 3000, 60_000])),
            pong_timeout: Duration::from_millis(if few {
                10_000
            } else {
                dice.one_of(&[2000, 4000])
            }),
        }
    }
}
