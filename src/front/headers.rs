//! The headers of a request, whichever way it was read.

use httparse::Header;
use hyper::header::HeaderMap;

/// The headers of a request.
pub(super) trait RequestHeaders {
    /// The values of a header in the order of the request. The name is in lower case.
    fn values(&self, name: &'static str) -> impl DoubleEndedIterator<Item = &[u8]>;
}

impl RequestHeaders for HeaderMap {
    fn values(&self, name: &'static str) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.get_all(name).iter().map(hyper::header::HeaderValue::as_bytes)
    }
}

impl RequestHeaders for [Header<'_>] {
    fn values(&self, name: &'static str) -> impl DoubleEndedIterator<Item = &[u8]> {
        let named = self.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value)
    }
}

/// The values of a header. A value that is not ASCII counts as empty, which no caller accepts.
pub(super) fn header_texts<'h>(
    headers: &'h (impl RequestHeaders + ?Sized),
    name: &'static str,
) -> Vec<&'h str> {
    headers.values(name).map(|value| text(value).unwrap_or_default()).collect()
}

/// A value as text, if it is visible ASCII, as `HeaderValue::to_str` has it.
pub(super) fn text(value: &[u8]) -> Option<&str> {
    let visible = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    str::from_utf8(value).ok().filter(|_| value.iter().all(visible))
}
