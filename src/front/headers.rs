//! The head of a request, whichever way it was read.

use httparse::Header;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;

/// The head of a request, for all that does not depend on the reader.
#[derive(Debug)]
pub(super) struct RequestHead<'r, H: ?Sized> {
    /// The method, in upper case.
    pub(super) method: &'r str,
    /// The path as received.
    pub(super) path: &'r str,
    /// The query as received, without the question mark.
    pub(super) query: &'r str,
    /// The headers.
    pub(super) headers: &'r H,
}

impl<'r> RequestHead<'r, HeaderMap> {
    /// The head of a request that hyper has read.
    pub(super) fn of(parts: &'r Parts) -> Self {
        let query = parts.uri.query().unwrap_or_default();
        Self {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query,
            headers: &parts.headers,
        }
    }
}

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
