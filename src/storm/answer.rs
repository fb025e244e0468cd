//! Answers of an HTTP API, as far as a publisher needs them: their end, their status, and what they
//! say of the connection and of trying again.

use std::time::{Duration, SystemTime};

/// An answer of HTTP/1.1 (RFC 9112), whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Its length in bytes, head and body.
    pub(super) len: usize,
    /// The server closes the connection behind it: nothing may be sent on it any more.
    pub(super) closes: bool,
    /// How long the server asks to wait before the request is sent again.
    pub(super) retry_after: Option<Duration>,
}

impl Answer {
    /// The answer at the start of `bytes`, if all of it is there. `now` is for a `Retry-After` that
    /// names a date.
    pub(super) fn parse(bytes: &[u8], now: SystemTime) -> Option<Self> {
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
            // The end of the connection is the end of the body, of which nothing is needed.
            bytes.len()
        } else {
            head
        };
        let retry_after = field("retry-after").and_then(|value| wait(value, now));
        Some(Self { status, len, closes, retry_after })
    }
}

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The value of `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date.
fn wait(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Option<Answer> {
        // 1994-11-06 08:49:37
        Answer::parse(bytes, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777))
    }

    #[test]
    fn an_answer_is_whole_or_none() {
        let sized = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}rest";
        let chunked = b"HTTP/1.1 503 x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        for (bytes, whole, status) in
            [(&sized[..], sized.len() - 4, 200), (&chunked[..], chunked.len(), 503)]
        {
            let answer = parsed(bytes).unwrap();
            assert_eq!((answer.status, answer.len, answer.closes), (status, whole, false));
            for cut in 0..whole {
                assert_eq!(parsed(&bytes[..cut]), None);
            }
        }
        assert_eq!(parsed(b"HTTP/1.1 200 x\r\ncontent-length: 18446744073709551615\r\n\r\n"), None);
    }

    #[test]
    fn an_answer_says_whether_its_connection_can_be_used_again() {
        for (head, closes) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", false),
            ("HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n", true),
            ("HTTP/1.1 200 OK\r\nConnection: x, close\r\n", true),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n", true),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n", false),
        ] {
            let bytes = format!("{head}\r\n");
            assert_eq!(
                parsed(bytes.as_bytes()).map(|answer| answer.closes),
                Some(closes),
                "{head}"
            );
        }
    }

    #[test]
    fn the_wait_that_an_answer_asks_for_is_in_seconds_or_until_a_date() {
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
