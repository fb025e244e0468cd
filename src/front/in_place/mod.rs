//! Requests that are answered where their bytes lie.
//!
//! Two kinds of requests size a host: after a deploy everybody returns with a handshake, and workers
//! publish. Each costs more in a library for HTTP than everything else that is done for it. So a
//! [handshake] or a [publish] that comes whole, and that is plain HTTP/1.1 without anything that
//! needs a judgement, is read here and passed on in the same turn.
//!
//! Contract: whatever is not exactly that (half a head, a body that follows, two lengths, an unusual
//! header, another endpoint) is left untouched for hyper, and nothing of it has been counted. Both
//! read heads by the same parser, and judge them by the same functions.

pub(super) mod handshake;
pub(super) mod publish;

/// The headers of a request that is read in place: browsers send fewer than 20, and proxies add a
/// few. A request with more takes the other way.
const HEADERS_IN_PLACE: usize = 48;

/// The path and the query of a request's target. `None` if it has characters that only a parser of
/// URIs can judge.
fn target(target: &str) -> Option<(&str, &str)> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/?=&%+:,;@!$'()*".contains(byte);
    if !target.starts_with('/') || !target.as_bytes().iter().all(plain) {
        return None;
    }
    Some(target.split_once('?').unwrap_or((target, "")))
}
