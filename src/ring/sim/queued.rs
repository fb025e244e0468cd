//! The operations that wait in the queue of the simulated ring.

use bytes::Bytes;

use crate::ring::{ConnKey, ListenerId, Staged};

/// An operation in the submission queue.
#[derive(Debug)]
pub(super) enum Queued {
    AwaitReadable(ConnKey),
    WaitAndReceive(ConnKey),
    StopReceiving(ConnKey),
    Receive(ConnKey),
    SendNow(ConnKey, Staged),
    Send(ConnKey, Bytes),
    HalfClose(ConnKey),
    HangUp(ConnKey),
    AskUnsent(ConnKey),
    Reset(ConnKey),
    Accept(ListenerId, ConnKey),
    StopAccepting(ConnKey),
}

impl Queued {
    pub(super) const fn key(&self) -> ConnKey {
        match self {
            Self::AwaitReadable(key) | Self::WaitAndReceive(key) | Self::Receive(key) => *key,
            Self::SendNow(key, _) | Self::Send(key, _) | Self::HalfClose(key) => *key,
            Self::HangUp(key) | Self::AskUnsent(key) | Self::Reset(key) => *key,
            Self::StopReceiving(key) => *key,
            Self::Accept(_, key) | Self::StopAccepting(key) => *key,
        }
    }
}
