//! The names of operations, by which the kernel says what has completed.

use io_uring::cqueue;

use crate::ring::{Completion, ConnKey, Op};

/// The name of the poll that wakes a sleeping thread. It belongs to no connection, and its
/// completions are not shown to the user of the ring.
pub(super) const WAKE_UP: u64 = 10 << 56;

/// The name of an operation: its kind (8 bits), slot (24) and generation (32).
pub(super) const fn user_data(op: Op, key: ConnKey) -> u64 {
    let op = match op {
        Op::Receive => 0,
        Op::SendNow => 1,
        Op::Send => 2,
        Op::HangUp => 3,
        Op::Accept => 4,
        Op::HalfClose => 5,
        Op::AskUnsent => 6,
        Op::Reset => 7,
        Op::AcceptAll => 8,
        Op::Readable => 9,
    };
    (op << 56) | ((key.slot as u64) << 32) | key.generation as u64
}

/// The completion of an operation of a connection. `None` if the operation is [`WAKE_UP`].
#[allow(clippy::cast_possible_truncation, reason = "the fields of user_data")]
pub(super) fn completion(entry: &cqueue::Entry) -> Option<Completion> {
    let data = entry.user_data();
    let op = match data >> 56 {
        0 => Op::Receive,
        1 => Op::SendNow,
        2 => Op::Send,
        3 => Op::HangUp,
        4 => Op::Accept,
        5 => Op::HalfClose,
        6 => Op::AskUnsent,
        7 => Op::Reset,
        8 => Op::AcceptAll,
        9 => Op::Readable,
        _ => return None,
    };
    let slot = ((data >> 32) & 0x00ff_ffff) as u32;
    Some(Completion {
        op,
        key: ConnKey { slot, generation: data as u32 },
        result: entry.result(),
        more: cqueue::more(entry.flags()),
        left: cqueue::sock_nonempty(entry.flags()),
        buffer: cqueue::buffer_select(entry.flags()),
    })
}
