//! Requests that are answered where their bytes lie.
//!
//! Two kinds of requests size a host: after a deploy everybody returns with a handshake, and
//! workers publish. Each costs more in a library for HTTP than everything else that is done for it.
//! So a [handshake] or a [publish] that comes whole, and that is plain HTTP/1.1 without anything
//! that needs a judgement, is read here and passed on in the same turn.
//!
//! Contract: whatever is not exactly that (half a head, two lengths, an unusual header, another
//! endpoint) is left untouched for hyper, and nothing of it has been counted. Both read heads by
//! the same parser, and judge them by the same functions.

pub(super) mod handshake;
pub(super) mod publish;

use std::mem::MaybeUninit;

use httparse::{Header, Request, Status};

use super::headers::{RequestHead, RequestHeaders};
use super::settings::HEAD_BYTES_MAX;

/// The head of the request at the beginning of these bytes, and its length in bytes. `None` if it
/// is not there as a whole, has no place in `headers`, or is not plain HTTP/1.1 with one `Host`.
fn head<'h, 'b>(
    received: &'b [u8],
    headers: &'h mut [MaybeUninit<Header<'b>>],
) -> Option<(usize, RequestHead<'h, [Header<'b>]>)> {
    let mut request = Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(received, headers);
    let Ok(Status::Complete(len)) = parsed else { return None };
    let Request { method, path, version, headers } = request;
    let headers: &[Header<'_>] = headers;
    let (path, query) = target(path?)?;
    let plain = len <= HEAD_BYTES_MAX
        && version == Some(1)
        && headers.values("host").count() == 1
        && has_none(headers, &["transfer-encoding", "expect"]);
    plain.then_some((len, RequestHead { method: method?, path, query, headers }))
}

/// The length of the head at the beginning of these bytes, in bytes, if it is there as a whole and
/// its lines end as they should (RFC 9112 section 2.2).
fn head_len(received: &[u8]) -> Option<usize> {
    const END: &[u8] = b"\r\n\r\n";
    memchr::memmem::find(received, END).map(|at| at + END.len())
}

/// Whether the head has none of these headers.
fn has_none(headers: &[Header<'_>], names: &[&'static str]) -> bool {
    names.iter().all(|name| headers.values(name).next().is_none())
}

/// The path and the query of a request's target. `None` if it has characters that only a parser of
/// URIs can judge.
fn target(target: &str) -> Option<(&str, &str)> {
    // All bytes are looked up: without a branch for each, that takes half the time.
    let plain = target.bytes().fold(true, |plain, byte| plain & PLAIN[usize::from(byte)]);
    if !target.starts_with('/') || !plain {
        return None;
    }
    Some(target.split_once('?').unwrap_or((target, "")))
}

/// The characters of targets about which parsers agree: those of paths and queries (RFC 3986).
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        plain[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~/?=&%+:,;@!$'()*";
    let mut at = 0;
    while at < others.len() {
        plain[others[at] as usize] = true;
        at += 1;
    }
    plain
};
