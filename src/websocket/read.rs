//! Floor 1. Reads the frames of a client (RFC 6455 sections 5 to 8) from bytes that arrive in
//! pieces of any size.
//!
//! The contract:
//! - A message that is complete in one input is unmasked in place and lent to the sink. Nothing is
//!   allocated for it, and between messages a reader is one null pointer.
//! - A header is judged before its payload: a frame that is forbidden or too large is refused after
//!   at most 14 bytes. Memory grows with the payload that has come, never with the announced
//!   length.
//! - Each byte is looked at a bounded number of times, however the input is cut.
//! - After a close frame, a violation, or a sink that ends it, the reader is closed: it ignores
//!   further input, because nothing may follow (RFC 6455 section 7.1.1).
//! - A sink may pause the reading after any message; the caller then hands the rest of the input in
//!   again.

mod assembly;
mod header;
mod mask;
#[cfg(test)]
mod tests;
mod utf8;

use std::ops::ControlFlow;

use assembly::Assembly;
use header::{Control, Data, Head, HeaderBytes, Opcode};

/// The receiving half of one connection, with the part of a message that has come so far.
#[derive(Debug, Default)]
pub struct Reader {
    /// The unfinished message, or that the reader is closed. `None` between two messages.
    partial: Option<Box<Partial>>,
}

/// A message or control frame of a client. The payload is lent for the duration of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A whole text message, all of its fragments.
    Text(&'a str),
    /// A whole binary message, all of its fragments.
    Binary(&'a [u8]),
    /// A ping. It is answered by a pong with this payload, at most 125 bytes.
    Ping(&'a [u8]),
    /// The answer to a ping, or an unsolicited pong; at most 125 bytes.
    Pong(&'a [u8]),
    /// A close frame, which is the last message. It is answered by a close frame, unless one was
    /// sent.
    Close(Option<Close<'a>>),
}

/// The way in which a sink stops the reading after a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The reading pauses. The rest of the input has not been looked at.
    Pause,
    /// The reading ends for good, as if the client had closed.
    End,
}

/// The content of a close frame, if it is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// One of the codes that are allowed on the wire.
    pub code: u16,
    /// The reason as text, at most 123 bytes and often empty.
    pub reason: &'a str,
}

/// A breach of the protocol or of a limit by the client. The connection must be failed with a close
/// frame that says so (RFC 6455 section 7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// 1002 (protocol error), 1007 (not UTF-8) or 1009 (over a limit).
    pub code: u16,
    /// One sentence for the developer of that client.
    pub(crate) reason: &'static str,
}

/// The payload bytes that allow a message one more frame: the header is less than a tenth of such a
/// frame. Large messages may come in fragments of this size, however many they are.
pub(crate) const FRAGMENT_BYTES: usize = 64;

/// The limits on the cost of one message.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimits {
    /// The most payload bytes of a message, over all of its fragments. More are a violation (1009).
    pub max_message: usize,
    /// The most frames of a fragmented message, besides one per [`FRAGMENT_BYTES`] of payload that
    /// came. Each costs work even if it is empty. More are a violation (1009).
    pub max_fragments: u32,
}

impl ReadLimits {
    /// The most frames of a message of which `held` bytes of payload have come.
    const fn fragments(&self, held: usize) -> usize {
        (self.max_fragments as usize).saturating_add(held / FRAGMENT_BYTES)
    }
}

impl Violation {
    const UNKNOWN_OPCODE: Self = Self::protocol("Unknown opcode");
    const RESERVED_BITS: Self = Self::protocol("Reserved bits are set, but no extension is in use");
    const UNMASKED: Self = Self::protocol("Frames of a client must be masked");
    const BAD_LENGTH: Self = Self::protocol("The payload length is not in its shortest form");
    const FRAGMENTED_CONTROL: Self = Self::protocol("Control frames must not be fragmented");
    const CONTROL_TOO_BIG: Self = Self::protocol("Control frames carry at most 125 bytes");
    const ORPHAN_CONTINUATION: Self = Self::protocol("A continuation without a message");
    const INTERRUPTED_MESSAGE: Self = Self::protocol("A new message inside of a fragmented one");
    const BAD_CLOSE: Self = Self::protocol("A close frame of one byte");
    const BAD_CLOSE_CODE: Self = Self::protocol("This close code must not be sent");
    const NOT_UTF8: Self = Self { code: 1007, reason: "Text must be UTF-8" };
    const MESSAGE_TOO_BIG: Self = Self { code: 1009, reason: "Maximum message size exceeded" };
    const TOO_MANY_FRAGMENTS: Self = Self { code: 1009, reason: "Too many fragments" };

    const fn protocol(reason: &'static str) -> Self {
        Self { code: 1002, reason }
    }
}

impl Reader {
    /// A reader that ignores all input, as after a close frame.
    #[must_use]
    pub(crate) fn closed() -> Self {
        let closed = Partial { awaited: Awaited::Nothing { overrun: false }, message: None };
        Self { partial: Some(Box::new(closed)) }
    }

    /// Bytes of memory that the unfinished message takes.
    #[must_use]
    pub(crate) fn held(&self) -> usize {
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        message.map_or(0, Assembly::capacity)
    }

    /// Takes the next bytes of the client and hands each message that they complete to `sink`, in
    /// order. Returns how many bytes it took: all of them, unless the sink paused. Those are
    /// unmasked in place, so they are garbage afterwards.
    ///
    /// # Errors
    /// The first violation. The messages before it have been handed out.
    pub fn read<F>(
        &mut self,
        input: &mut [u8],
        limits: &ReadLimits,
        mut sink: F,
    ) -> Result<usize, Violation>
    where
        F: FnMut(Message<'_>) -> ControlFlow<Stop>,
    {
        let came = input.len();
        let mut boxed = self.partial.take();
        let mut unboxed = Partial::default();
        let partial = boxed.as_deref_mut().unwrap_or(&mut unboxed);
        let verdict = partial.read(input, limits, &mut sink);
        if let Err(_) | Ok(ControlFlow::Break(_)) = verdict {
            let overrun = matches!(verdict, Ok(ControlFlow::Break(true)));
            *partial = Partial { awaited: Awaited::Nothing { overrun }, message: None };
        }
        if !partial.is_between_messages() {
            self.partial = Some(boxed.unwrap_or_else(|| Box::new(unboxed)));
        }
        verdict.map(|flow| came - flow.continue_value().unwrap_or(0))
    }

    /// Whether the input went on after the message that ended the reading, as nothing may go on
    /// after a close frame.
    #[must_use]
    pub(crate) fn overrun(&self) -> bool {
        let awaited = self.partial.as_ref().map(|partial| &partial.awaited);
        matches!(awaited, Some(Awaited::Nothing { overrun: true }))
    }
}

/// The position in the stream of frames at which the input ended.
#[derive(Debug, Default)]
struct Partial {
    awaited: Awaited,
    /// The unfinished data message, if there is one. Control frames may come in between.
    message: Option<Assembly>,
}

/// The part of the input that the next byte belongs to.
#[derive(Debug)]
enum Awaited {
    /// A header, with the bytes of it that have come.
    Header(HeaderBytes),
    /// The payload of this frame. For a control frame, also the payload bytes that have come.
    Payload(Head, Vec<u8>),
    /// No part, because the client closed or was cut off.
    Nothing {
        /// Whether the input went on after the last message.
        overrun: bool,
    },
}

impl Default for Awaited {
    fn default() -> Self {
        Self::Header(HeaderBytes::default())
    }
}

impl Partial {
    const fn is_between_messages(&self) -> bool {
        self.message.is_none() && matches!(&self.awaited, Awaited::Header(h) if h.is_empty())
    }

    /// Reads until the input is used up or the sink pauses, and returns how many bytes of it are
    /// left. Returns `Break` once nothing more has to be read, with whether input is left.
    fn read<F>(
        &mut self,
        mut input: &mut [u8],
        limits: &ReadLimits,
        sink: &mut F,
    ) -> Result<ControlFlow<bool, usize>, Violation>
    where
        F: FnMut(Message<'_>) -> ControlFlow<Stop>,
    {
        loop {
            match &mut self.awaited {
                Awaited::Header(bytes) => {
                    let Some((head, used)) = bytes.complete(input)? else {
                        return Ok(ControlFlow::Continue(0));
                    };
                    self.admit(&head, limits)?;
                    self.awaited = Awaited::Payload(head, Vec::new());
                    input = &mut input[used..];
                }
                Awaited::Payload(head, _) if input.is_empty() && head.left > 0 => {
                    return Ok(ControlFlow::Continue(0));
                }
                Awaited::Payload(head, control) => {
                    let (piece, rest) = input.split_at_mut(head.left.min(input.len()));
                    head.unmask(piece);
                    let message = match head.op {
                        Opcode::Control(kind) => gather_control(kind, head, control, piece)?,
                        Opcode::Data(kind) => {
                            gather_data(kind, head, &mut self.message, piece, limits)?
                        }
                    };
                    let closes = matches!(message, Some(Message::Close(_)));
                    let flow = message.map_or(ControlFlow::Continue(()), &mut *sink);
                    if closes || flow == ControlFlow::Break(Stop::End) {
                        return Ok(ControlFlow::Break(!rest.is_empty()));
                    }
                    if head.left == 0 {
                        if head.fin && matches!(head.op, Opcode::Data(_)) {
                            self.message = None;
                        }
                        self.awaited = Awaited::default();
                    }
                    input = rest;
                    if flow.is_break() {
                        return Ok(ControlFlow::Continue(input.len()));
                    }
                }
                Awaited::Nothing { overrun } => {
                    return Ok(ControlFlow::Break(*overrun || !input.is_empty()));
                }
            }
        }
    }

    /// Checks the rules that depend on what came before the frame (RFC 6455 section 5.4), and the
    /// limits.
    fn admit(&self, head: &Head, limits: &ReadLimits) -> Result<(), Violation> {
        let Opcode::Data(kind) = head.op else { return Ok(()) };
        let (held, frames) = match (&self.message, kind) {
            (Some(message), Data::Continuation) => (message.len(), message.frames),
            (None, Data::Text | Data::Binary) => (0, 0),
            (None, Data::Continuation) => return Err(Violation::ORPHAN_CONTINUATION),
            (Some(_), Data::Text | Data::Binary) => return Err(Violation::INTERRUPTED_MESSAGE),
        };
        let fragmented = !head.fin || kind == Data::Continuation;
        if head.left > limits.max_message.saturating_sub(held) {
            Err(Violation::MESSAGE_TOO_BIG)
        } else if fragmented && frames as usize >= limits.fragments(held) {
            Err(Violation::TOO_MANY_FRAGMENTS)
        } else {
            Ok(())
        }
    }
}

/// Takes the next unmasked piece of a control frame. The first piece is nearly always the whole,
/// and is then not copied.
fn gather_control<'a>(
    kind: Control,
    head: &Head,
    held: &'a mut Vec<u8>,
    piece: &'a [u8],
) -> Result<Option<Message<'a>>, Violation> {
    if head.left == 0 && held.is_empty() {
        return kind.message(piece).map(Some);
    }
    held.extend_from_slice(piece);
    (head.left == 0).then(|| kind.message(held)).transpose()
}

/// Takes the next unmasked piece of a data frame. The first piece is nearly always the whole
/// message, and is then not copied.
fn gather_data<'a>(
    kind: Data,
    head: &Head,
    held: &'a mut Option<Assembly>,
    piece: &'a [u8],
    limits: &ReadLimits,
) -> Result<Option<Message<'a>>, Violation> {
    if head.left == 0 && head.fin && held.is_none() {
        return kind.message(piece).map(Some);
    }
    let assembly = held.get_or_insert_with(|| Assembly::new(kind));
    assembly.push(piece, limits.max_message)?;
    if head.left > 0 {
        return Ok(None);
    }
    assembly.frames += 1;
    head.fin.then(|| assembly.message()).transpose()
}
