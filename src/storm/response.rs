//! Responses of an HTTP API, as far as a publisher needs them: where they end, their status,
//! whether the connection goes on, and when to try again.

use std::time::{Duration, SystemTime};

/// A complete HTTP/1.1 response (RFC 9112).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiResponse {
    pub(crate) status: u16,
    /// The length of head and body in bytes.
    pub(crate) len: usize,
    /// The server closes the connection behind it, so nothing more may be sent.
    pub(crate) closes: bool,
    /// The wait that the server asks for before the client sends the request again.
    pub(crate) retry_after: Option<Duration>,
}

impl ApiResponse {
    /// The response at the start of `bytes`, if it is complete. `now` is needed for a `Retry-After`
    /// that names a date.
    pub(crate) fn parse(bytes: &[u8], now: SystemTime) -> Option<Self> {
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let text = str::from_utf8(bytes.get(..head)?).ok()?;
        let status = text.split(' ').nth(1)?.parse().ok()?;
        let field = |name: &str| {
            text.lines().skip(1).find_map(|line| {
                let (field, value) = line.split_once(':')?;
                field.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let says = |token: &str| {
            let mut tokens = field("connection").unwrap_or_default().split(',');
            tokens.any(|said| said.trim().eq_ignore_ascii_case(token))
        };
        let closes = says("close") || (text.starts_with("HTTP/1.0") && !says("keep-alive"));
        let len = if let Some(len) = field("content-length") {
            head.checked_add(len.parse().ok()?).filter(|end| bytes.len() >= *end)?
        } else if field("transfer-encoding").is_some() {
            let rest = bytes.get(head..)?;
            head + rest.windows(LAST_CHUNK.len()).position(|window| window == LAST_CHUNK)?
                + LAST_CHUNK.len()
        } else if closes {
            // The body ends with the connection, and nothing in it is needed.
            bytes.len()
        } else {
            head
        };
        let retry_after = field("retry-after").and_then(|value| retry_after(value, now));
        Some(Self { status, len, closes, retry_after })
    }
}

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The value of `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Option<ApiResponse> {
        // 1994-11-06 08:49:37
        ApiResponse::parse(bytes, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777))
    }

    #[test]
    fn a_response_is_complete_or_none() {
        let sized = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}rest";
        let chunked = b"HTTP/1.1 503 x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        for (bytes, whole, status) in
            [(&sized[..], sized.len() - 4, 200), (&chunked[..], chunked.len(), 503)]
        {
            let response = parsed(bytes).unwrap();
            assert_eq!((response.status, response.len, response.closes), (status, whole, false));
            for cut in 0..whole {
                assert_eq!(parsed(&bytes[..cut]), None);
            }
        }
        assert_eq!(parsed(b"HTTP/1.1 200 x\r\ncontent-length: 18446744073709551615\r\n\r\n"), None);
    }

    #[test]
    fn a_response_says_whether_its_connection_can_be_used_again() {
        for (head, closes) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", false),
            ("HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: x, close\r\n", true),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n", true),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n", false),
        ] {
            let bytes = format!("{head}\r\n");
            assert_eq!(
                parsed(bytes.as_bytes()).map(|response| response.closes),
                Some(closes),
                "{head}"
            );
        }
    }

    #[test]
    fn retry_after_is_in_seconds_or_a_date() {
        for (value, seconds) in [
            ("2", Some(2)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let bytes = format!("HTTP/1.1 503 x\r\nRetry-After: {value}\r\n\r\n");
            let wait = parsed(bytes.as_bytes()).unwrap().retry_after;
            assert_eq!(wait, seconds.map(Duration::from_secs), "{value}");
        }
    }
}
