//! The part of the contract of [`Ring`](crate::Ring) that its user keeps, as a state machine per
//! slot. `SimRing` checks it always, [`Uring`](crate::Uring) in debug
//! builds, so that every test on real sockets checks it too.
//!
//! A broken rule is a defect of the code above the ring. It ends the test with a panic that names
//! the rule. In release builds the rings stay sound without these checks.

#![allow(clippy::panic, reason = "a check of the contract ends the test that broke it")]

use crate::ring::{Completion, ConnKey, Op};

/// The state of all slots of a ring.
#[derive(Debug)]
pub(super) struct Contract {
    slots: Vec<SlotState>,
}

/// The state of one slot.
#[derive(Clone, Copy, Debug, Default)]
struct SlotState {
    /// Whether a socket is in the slot.
    installed: bool,
    /// The user of the slot. `None` until its first operation.
    owner: Option<ConnKey>,
    /// Whether an accept into the slot is pending.
    accepting: bool,
    /// Whether a wait until the socket is readable is pending.
    waiting: bool,
    /// Whether a receive is pending.
    receiving: bool,
    /// Whether a send that waits is pending.
    sending: bool,
    /// Whether a half-close is pending.
    half_closing: bool,
    /// Whether the sending direction was ended.
    half_closed: bool,
    /// Whether a question for the unsent bytes is pending.
    asking: bool,
}

impl Contract {
    /// The contract of a ring whose table is empty.
    pub(super) fn new(slots: u32) -> Self {
        Self { slots: vec![SlotState::default(); slots as usize] }
    }

    /// Records that a socket was put into a slot.
    pub(super) fn installed(&mut self, slot: u32) {
        let of = self.slot(slot);
        assert!(!of.installed, "slot {slot} is taken");
        assert!(!of.accepting, "slot {slot} is taken while an accept into it is pending");
        *of = SlotState { installed: true, ..SlotState::default() };
    }

    /// Records that an accept into a slot was queued.
    pub(super) fn accept(&mut self, key: ConnKey) {
        let of = self.slot(key.slot);
        assert!(!of.installed, "an accept into slot {}, which is taken", key.slot);
        assert!(!of.accepting, "two accepts into slot {}", key.slot);
        *of = SlotState { accepting: true, owner: Some(key), ..SlotState::default() };
    }

    /// Records that the end of an accept was asked for.
    pub(super) fn stop_accepting(&mut self, key: ConnKey) {
        let of = self.slot(key.slot);
        assert_eq!(of.owner, Some(key), "the end of an accept of another user of the slot");
    }

    /// Records that a wait until the socket is readable was queued.
    pub(super) fn await_readable(&mut self, key: ConnKey) {
        let of = self.owned(key);
        assert!(!of.waiting, "two waits on slot {}", key.slot);
        of.waiting = true;
    }

    /// Records that a receive was queued.
    pub(super) fn receive(&mut self, key: ConnKey) {
        let of = self.owned(key);
        assert!(!of.receiving, "two receives on slot {}", key.slot);
        of.receiving = true;
    }

    /// Records that a send that does not wait was queued.
    pub(super) fn send_now(&mut self, key: ConnKey) {
        let of = self.owned(key);
        assert!(!of.sending, "two sends on slot {}", key.slot);
        assert!(!of.half_closed, "a send behind the half-close of slot {}", key.slot);
    }

    /// Records that a send that waits for room was queued.
    pub(super) fn send(&mut self, key: ConnKey) {
        let of = self.owned(key);
        assert!(!of.sending, "two sends on slot {}", key.slot);
        assert!(!of.half_closed, "a send behind the half-close of slot {}", key.slot);
        of.sending = true;
    }

    /// Records that a half-close was queued.
    pub(super) fn half_close(&mut self, key: ConnKey) {
        let of = self.owned(key);
        assert!(!of.sending, "a half-close of slot {} before its send has ended", key.slot);
        assert!(!of.half_closed, "two half-closes of slot {}", key.slot);
        (of.half_closing, of.half_closed) = (true, true);
    }

    /// Records that a question for the unsent bytes was queued.
    pub(super) fn ask_unsent(&mut self, key: ConnKey) {
        let of = self.owned(key);
        assert!(!of.asking, "two questions on slot {}", key.slot);
        of.asking = true;
    }

    /// Records that a reset was queued.
    pub(super) fn reset(&mut self, key: ConnKey) {
        self.owned(key);
    }

    /// Records that a hang-up was queued.
    pub(super) fn hang_up(&mut self, key: ConnKey) {
        self.owned(key);
    }

    /// Records that a completion was reaped. Completions of earlier users of a slot change nothing.
    pub(super) fn completed(&mut self, completion: &Completion) {
        let of = self.slot(completion.key.slot);
        if of.owner == Some(completion.key) && !completion.more {
            match completion.op {
                Op::Readable => of.waiting = false,
                Op::Receive => of.receiving = false,
                Op::Send => of.sending = false,
                Op::HalfClose => of.half_closing = false,
                Op::AskUnsent => of.asking = false,
                Op::Accept => (of.accepting, of.installed) = (false, completion.result >= 0),
                Op::SendNow | Op::HangUp | Op::Reset | Op::AcceptAll => {}
            }
        }
    }

    /// Records that the socket leaves its slot. Returns the user of the slot, if an operation has
    /// named it.
    pub(super) fn released(&mut self, slot: u32) -> Option<ConnKey> {
        let of = self.slot(slot);
        assert!(of.installed, "slot {slot} is released twice");
        assert!(!of.waiting, "slot {slot} is released with a pending wait");
        assert!(!of.receiving, "slot {slot} is released with a pending receive");
        assert!(!of.sending, "slot {slot} is released with a pending send");
        assert!(!of.half_closing, "slot {slot} is released with a pending half-close");
        assert!(!of.asking, "slot {slot} is released with a pending question");
        std::mem::take(of).owner
    }

    fn owned(&mut self, key: ConnKey) -> &mut SlotState {
        let of = self.slot(key.slot);
        assert!(of.installed, "an operation on the empty slot {}", key.slot);
        let owner = *of.owner.get_or_insert(key);
        assert_eq!(owner, key, "an operation of another user of the slot");
        of
    }

    fn slot(&mut self, slot: u32) -> &mut SlotState {
        let len = self.slots.len();
        let of = self.slots.get_mut(slot as usize);
        of.unwrap_or_else(|| panic!("slot {slot} is past the table of {len}"))
    }
}
