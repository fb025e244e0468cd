//! The headers of a request.

use hyper::header::{HeaderMap, HeaderName};

/// The values of a header. A value that is not ASCII counts as empty, which no caller accepts.
pub(super) fn header_texts(headers: &HeaderMap, name: HeaderName) -> Vec<&str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect()
}
