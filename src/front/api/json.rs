//! The parser of JSON bodies. simd-json builds its tape in a loop with a stack of its own, so that
//! no depth of nesting overflows ours.

use std::cell::RefCell;

use hyper::StatusCode;
use simd_json::{Buffers, Tape};

use super::super::response::Rejection;

/// The longest body for which the buffers are kept: some 100 KB are held for it at most.
const BODY_BYTES_KEPT: usize = 16 * 1024;

/// A parser, and its buffers for the next body: to make and zero them costs as much as to parse.
#[derive(Default)]
pub(in super::super) struct JsonParser(RefCell<Buffers>);

impl JsonParser {
    /// Parses a body, which it may change.
    pub(super) fn parse<'b>(&self, body: &'b mut [u8]) -> Result<Tape<'b>, Rejection> {
        let parsed = match body.len() <= BODY_BYTES_KEPT {
            true => simd_json::to_tape_with_buffers(body, &mut self.0.borrow_mut()),
            false => simd_json::to_tape(body),
        };
        parsed.map_err(|_| Rejection::text(StatusCode::BAD_REQUEST, "The body is not valid JSON."))
    }
}
