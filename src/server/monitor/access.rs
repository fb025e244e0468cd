//! The requests that may see anything.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HOST, HeaderMap};

use crate::config::AdminToken;

/// The reason for which a request may not see anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It does not show the token.
    Token,
    /// It asks for a host by a name. No token keeps the pages of a browser on this host out, and a
    /// page may have its own name resolved to this address (DNS rebinding).
    HostName,
}

/// Decides whether a request may see anything: by the token, or without one by the host that it
/// asks for, which has to be an address or `localhost`.
pub(super) fn check(headers: &HeaderMap, token: Option<&AdminToken>) -> Result<(), Denied> {
    match token {
        Some(token) if shown(headers).is_some_and(|shown| token.is(shown)) => Ok(()),
        Some(_) => Err(Denied::Token),
        None if host(headers).is_none_or(is_address) => Ok(()),
        None => Err(Denied::HostName),
    }
}

/// The token that a request shows (RFC 6750 section 2.1). The scheme may have either case.
fn shown(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// The host that a request asks for, without a port. `Some("")` if it is not text.
fn host(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(HOST)?.to_str().unwrap_or_default();
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    };
    Some(bare)
}

fn is_address(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok() || bare.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn with(name: hyper::header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_token_is_shown_as_a_bearer_and_whole() {
        let token = AdminToken::new("correct-horse");
        let shown = |value| check(&with(AUTHORIZATION, value), Some(&token));
        assert_eq!(shown("Bearer correct-horse"), Ok(()));
        assert_eq!(shown("bearer correct-horse"), Ok(()));
        for wrong in ["correct-horse", "Basic correct-horse", "Bearer correct-hors", "Bearer", ""] {
            assert_eq!(shown(wrong), Err(Denied::Token), "{wrong:?}");
        }
        let host = with(HOST, "127.0.0.1:9090");
        assert_eq!(check(&host, Some(&token)), Err(Denied::Token));
    }

    #[test]
    fn without_a_token_no_page_reads_anything_by_a_name_of_its_own() {
        let asks_for = |value| check(&with(HOST, value), None);
        for own in ["127.0.0.1", "127.0.0.1:9090", "[::1]:9090", "[::1]", "localhost:9090"] {
            assert_eq!(asks_for(own), Ok(()), "{own}");
        }
        for other in ["evil.test", "evil.test:9090", "127.0.0.1.evil.test", "localhost.evil", ""] {
            assert_eq!(asks_for(other), Err(Denied::HostName), "{other}");
        }
        assert_eq!(check(&HeaderMap::new(), None), Ok(()), "HTTP/1.0, which no browser speaks");
    }
}
