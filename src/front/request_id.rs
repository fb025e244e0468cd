//! The id that a proxy or a publisher has given a request, by which its lines in several logs are
//! found. It is read where a line is written, and a request without one gets none.

use super::headers::{RequestHeaders, text};

/// Bytes of the longest id that is taken: UUIDs and the ids of proxies have 20 to 64.
const LENGTH_MAX: usize = 128;

/// The value of `X-Request-Id`, if there is one, and it is an id that the log can show as it is.
pub(super) fn request_id(headers: &(impl RequestHeaders + ?Sized)) -> Option<&str> {
    let mut values = headers.values("x-request-id");
    let id = text(values.next()?)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:+/=".contains(&byte);
    let is_id = (1..=LENGTH_MAX).contains(&id.len()) && id.bytes().all(is_plain);
    (is_id && values.next().is_none()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use httparse::Header;

    fn id_of<'v>(values: &[&'v str]) -> Option<&'v str> {
        let header = |&value: &&'v str| Header { name: "X-Request-ID", value: value.as_bytes() };
        let headers: Vec<_> = values.iter().map(header).collect();
        let id = request_id(&headers[..])?;
        values.iter().copied().find(|value| *value == id)
    }

    #[test]
    fn an_id_is_taken_as_it_is_if_it_is_the_only_one_plain_and_of_bounded_length() {
        let longest = "x".repeat(LENGTH_MAX);
        for id in ["f058ebd6-02f7-4d3f-942e-904344e8cde5", "1", "Root=1-67891233:a/b+c", &longest] {
            assert_eq!(id_of(&[id]), Some(id));
        }
        for wrong in ["", "a b", "a\"b", "a\u{1b}[2J", "größe", &format!("{longest}x")] {
            assert_eq!(id_of(&[wrong]), None, "{wrong:?}");
        }
        assert_eq!(id_of(&["a", "b"]), None);
        assert_eq!(id_of(&[]), None);
    }
}
