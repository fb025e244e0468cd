//! The frames that every subscriber sends in the same form.

use bytes::Bytes;

use crate::frames;

/// Frames that are encoded once.
pub(super) struct FixedFrames {
    pub(super) ping: Bytes,
    pub(super) pong: Bytes,
    pub(super) close: Bytes,
}

impl FixedFrames {
    pub(super) fn new() -> Self {
        Self {
            ping: frames::text(br#"{"event":"pusher:ping","data":{}}"#),
            pong: frames::text(br#"{"event":"pusher:pong","data":{}}"#),
            close: frames::close(),
        }
    }
}
