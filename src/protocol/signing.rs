//! Floor 1. Signatures of the HTTP API (Pusher HTTP API reference, "Authentication").
//!
//! Contract: one canonical form decides. A request passes if the app's secret signed its method,
//! path, whole query and (by its MD5) body, not long ago. A request whose canonical form would be
//! ambiguous, such as one with a repeated parameter, is refused.
//!
//! The signature covers the head alone, which includes the digest of the body. So a server calls
//! [`verify_head`] before it reads a body, and [`SignedBody::verify`] when it has read one. An
//! unsigned body is never kept.

use std::borrow::Cow;
use std::fmt;

use md5::{Digest, Md5};
use memchr::{memchr, memchr2};
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use super::rules::AppRules;
use super::secret::decode_hex;

/// The signed parts of the head of an HTTP request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignedHead<'a> {
    /// The method, in upper case.
    pub(crate) method: &'a str,
    /// The path as received: percent-encoded, without the query.
    pub(crate) path: &'a str,
    /// The path prefix that the server is configured with, such as `/ws`; may be empty.
    pub(crate) prefix: &'a str,
    /// The query as received, without the question mark.
    pub(crate) query: &'a str,
    /// Whether the head announces a body of at least one byte.
    pub(crate) has_body: bool,
}

/// The digest of the body that the app has signed, if any. Made by [`verify_head`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SignedBody(Option<[u8; 16]>);

impl SignedBody {
    /// Whether the app has signed a body, even an empty one. Otherwise the request must have none.
    #[must_use]
    pub(crate) const fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Checks that this is the body that the app has signed.
    ///
    /// # Errors
    /// The body is another one, or the app has signed none.
    pub(crate) fn verify(&self, body: &[u8]) -> Result<(), SignatureError> {
        match &self.0 {
            Some(digest) if Md5::digest(body).as_slice() == digest => Ok(()),
            Some(_) => Err(SignatureError::BodyMd5),
            None if body.is_empty() => Ok(()),
            None => Err(SignatureError::Missing(BODY_MD5)),
        }
    }
}

/// The parts of an HTTP request that are signed.
#[cfg(feature = "testing")]
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// The method, in upper case.
    pub method: &'a str,
    /// The path as received: percent-encoded, without the query.
    pub path: &'a str,
    /// The path prefix that the server is configured with, as `/ws`, or nothing.
    pub prefix: &'a str,
    /// The query as received, without the question mark.
    pub query: &'a str,
    /// The body as received.
    pub body: &'a [u8],
}

/// Checks that the app signed the request: the head, then the body.
///
/// # Errors
/// The first check that failed, see [`verify_head`] and [`SignedBody::verify`].
#[cfg(feature = "testing")]
pub fn verify(
    rules: &AppRules,
    request: &SignedRequest<'_>,
    now_unix_s: u64,
) -> Result<(), SignatureError> {
    let &SignedRequest { method, path, prefix, query, body } = request;
    let head = SignedHead { method, path, prefix, query, has_body: !body.is_empty() };
    verify_head(rules, &head, now_unix_s)?.verify(body)
}

/// Checks that the app signed the head of a request, with any of its keys, within the app's
/// tolerance of `now_unix_s`. Returns the digest that the body has to have.
///
/// Libraries differ in the path that they sign: with and without the configured prefix, encoded
/// and decoded, with several leading slashes or one. Each of these names the same resource, so each
/// is accepted.
///
/// # Errors
/// The first check that failed. Its text may be shown to the caller.
pub(crate) fn verify_head(
    rules: &AppRules,
    head: &SignedHead<'_>,
    now_unix_s: u64,
) -> Result<SignedBody, SignatureError> {
    let mut query = CanonicalQuery::parse(head.query)?;
    let secret = match rules.secret_of(query.scalar("auth_key")?) {
        Some(secret) => secret,
        None => {
            // The libraries of Node and Python sign and send a `+` of a base64 key unescaped.
            query.keep_plus("auth_key", head.query);
            rules.secret_of(query.scalar("auth_key")?).ok_or(SignatureError::WrongKey)?
        }
    };
    if query.scalar("auth_version")? != "1.0" {
        return Err(SignatureError::BadVersion);
    }
    verify_timestamp(rules, query.scalar("auth_timestamp")?, now_unix_s)?;
    let body = body_digest(&query, head.has_body)?;
    let signature = query.scalar("auth_signature")?;
    let text = query.text_to_sign(head.query.len());
    let fits = |prefix: &str, path: &[u8]| {
        let (method, prefix) = (head.method.as_bytes(), prefix.as_bytes());
        secret.verify(&[method, b"\n", prefix, path, b"\n", text.as_bytes()], signature)
    };
    let decoded = |prefix, path| match percent_decode_str(path).into() {
        // Nothing in the path is encoded, so it is the one that was tried.
        Cow::Borrowed(_) => false,
        Cow::Owned(decoded) => fits(prefix, &decoded),
    };
    let signed = signed_paths(head)
        .any(|(prefix, path)| fits(prefix, path.as_bytes()) || decoded(prefix, path));
    if signed { Ok(body) } else { Err(SignatureError::Signature) }
}

/// The path with its leading slashes reduced to one, as Reverb does before it finds a route: nginx
/// makes two of one if `proxy_pass` ends with a slash and its `location` does not.
#[must_use]
pub(crate) fn collapsed(path: &str) -> &str {
    let slashes = path.len() - path.trim_start_matches('/').len();
    path.get(slashes.saturating_sub(1)..).unwrap_or(path)
}

/// The reason why a request was refused. The text is for the caller, and gives no help to a forger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// A parameter is missing, or has not the form of its value.
    Missing(&'static str),
    /// A parameter is given twice.
    Repeated,
    /// The `auth_key` is none of the app's.
    WrongKey,
    /// The `auth_version` is not 1.0.
    BadVersion,
    /// The `auth_timestamp` is too far from our clock.
    Timestamp {
        /// The largest allowed difference, in seconds.
        tolerance_s: u64,
    },
    /// The `body_md5` is not that of the body.
    BodyMd5,
    /// The `auth_signature` does not fit.
    Signature,
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "The {name} parameter is missing or malformed."),
            Self::Repeated => f.write_str("A query parameter is given more than once."),
            Self::WrongKey => f.write_str("The auth_key is not the key of this app."),
            Self::BadVersion => f.write_str("The auth_version must be 1.0."),
            Self::Timestamp { tolerance_s } => {
                write!(f, "The auth_timestamp is not within {tolerance_s} s of the server's time.")
            }
            Self::BodyMd5 => f.write_str("The body_md5 does not match the body."),
            Self::Signature => f.write_str("Authentication signature invalid."),
        }
    }
}

impl std::error::Error for SignatureError {}

/// The parameters of a query in their order, decoded: `+` is a space, percent escapes are bytes of
/// UTF-8 (others become U+FFFD). Empty parameters are left out; a name alone has an empty value.
pub fn query_pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let mut rest = query;
    let pairs = std::iter::from_fn(move || {
        let pair;
        (pair, rest) = cut((!rest.is_empty()).then_some(rest)?, b'&');
        Some(pair)
    });
    pairs.filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = cut(pair, b'=');
        (decoded(name), decoded(value))
    })
}

/// The text before the first of these ASCII characters, and the text behind it.
fn cut(text: &str, at: u8) -> (&str, &str) {
    let before = memchr(at, text.as_bytes()).unwrap_or(text.len());
    (text.get(..before).unwrap_or_default(), text.get(before + 1..).unwrap_or_default())
}

fn decoded(text: &str) -> Cow<'_, str> {
    // This is the usual case: libraries send digits, letters and underscores.
    if memchr2(b'+', b'%', text.as_bytes()).is_none() {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// A query's parameters, sorted by name in lower case.
struct CanonicalQuery<'a>(Params<'a>);

/// The parameters of most requests fit without an allocation: five belong to the signature, and few
/// requests have more than three of their own.
type Params<'a> = SmallVec<[Param<'a>; 8]>;

struct Param<'a> {
    name: Cow<'a, str>,
    /// One value, or the joined values of a list, which was sent as `name[]=..&name[]=..` or
    /// `name[0]=..`.
    value: Cow<'a, str>,
    is_list: bool,
}

impl<'a> CanonicalQuery<'a> {
    fn parse(query: &'a str) -> Result<Self, SignatureError> {
        let mut sent: Params<'_> = query_pairs(query)
            .map(|(name, value)| {
                let (name, is_list) = list_name(name);
                Param { name: in_lower_case(name), value, is_list }
            })
            .collect();
        // The sort is stable, so the values of a list keep their order.
        sent.sort_by(|a, b| a.name.cmp(&b.name));
        if sent.windows(2).any(|pair| pair[0].name == pair[1].name) {
            sent = joined(sent)?;
        }
        Ok(Self(sent))
    }

    /// Reads the value of this parameter once more, without taking a `+` in it for a space.
    fn keep_plus(&mut self, name: &str, query: &'a str) {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let sent = pairs.find(|(of, _)| in_lower_case(decoded(of)) == name);
        let param = self.0.iter_mut().find(|param| param.name == name);
        if let (Some((_, value)), Some(param)) = (sent, param) {
            param.value = percent_decode_str(value).decode_utf8_lossy();
        }
    }

    fn find(&self, name: &str) -> Option<&Param<'a>> {
        self.0.iter().find(|param| param.name == name)
    }

    fn scalar(&self, name: &'static str) -> Result<&str, SignatureError> {
        match self.find(name) {
            Some(Param { value, is_list: false, .. }) => Ok(value),
            _ => Err(SignatureError::Missing(name)),
        }
    }

    /// Joins all parameters but the signature, unescaped. `len` is the expected length.
    fn text_to_sign(&self, len: usize) -> String {
        let mut text = String::with_capacity(len);
        for param in self.0.iter().filter(|param| param.name != "auth_signature") {
            if !text.is_empty() {
                text.push('&');
            }
            text.push_str(&param.name);
            text.push('=');
            text.push_str(&param.value);
        }
        text
    }
}

/// Joins the values of each list into one parameter. Any other repeated parameter is refused.
fn joined(sorted: Params<'_>) -> Result<Params<'_>, SignatureError> {
    let mut params = Params::new();
    for param in sorted {
        match params.last_mut() {
            Some(last) if last.name == param.name => {
                if !(last.is_list && param.is_list) {
                    return Err(SignatureError::Repeated);
                }
                let list = last.value.to_mut();
                list.push(',');
                list.push_str(&param.value);
            }
            _ => params.push(param),
        }
    }
    Ok(params)
}

/// Strips the brackets off the name of a list, as PHP reads it and pusher-http-php signs it.
fn list_name(name: Cow<'_, str>) -> (Cow<'_, str>, bool) {
    match name.strip_suffix(']').and_then(|open| open.find('[')) {
        Some(end) if end > 0 => (part(name, end), true),
        _ => (name, false),
    }
}

/// Returns the first `end` bytes.
fn part(name: Cow<'_, str>, end: usize) -> Cow<'_, str> {
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(&name[..end]),
        Cow::Owned(mut name) => {
            name.truncate(end);
            Cow::Owned(name)
        }
    }
}

fn in_lower_case(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    name
}

fn verify_timestamp(rules: &AppRules, text: &str, now_unix_s: u64) -> Result<(), SignatureError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let signed_at: u64 =
        text.parse().ok().filter(|_| digits).ok_or(SignatureError::Missing("auth_timestamp"))?;
    let tolerance_s = rules.auth_timestamp_tolerance.as_secs();
    if rules.auth_timestamp_tolerance.is_zero() || signed_at.abs_diff(now_unix_s) <= tolerance_s {
        Ok(())
    } else {
        Err(SignatureError::Timestamp { tolerance_s })
    }
}

/// Reads the digest of the body from the query, which the signature covers. A body must have one.
fn body_digest(query: &CanonicalQuery<'_>, has_body: bool) -> Result<SignedBody, SignatureError> {
    if !has_body && query.find(BODY_MD5).is_none() {
        return Ok(SignedBody(None));
    }
    let mut digest = [0; 16];
    match decode_hex(query.scalar(BODY_MD5)?, &mut digest) {
        true => Ok(SignedBody(Some(digest))),
        false => Err(SignatureError::BodyMd5),
    }
}

/// The paths that the sender may have signed for the one that it sent, each once and in two parts,
/// the most frequent ones first.
fn signed_paths<'a>(head: &SignedHead<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let &SignedHead { path: sent, prefix, .. } = head;
    let below = |path: &'a str| {
        let below = path.strip_prefix(prefix).filter(|below| below.starts_with('/'));
        below.unwrap_or(path)
    };
    let base = collapsed(below(collapsed(sent)));
    let forms = [("", base), (prefix, base), ("", sent), ("", collapsed(sent)), ("", below(sent))];
    let whole = |(prefix, path): (&'a str, &'a str)| prefix.bytes().chain(path.bytes());
    let is_first = move |&(at, form): &(usize, (&'a str, &'a str))| {
        !forms.iter().take(at).any(|&earlier| whole(earlier).eq(whole(form)))
    };
    forms.into_iter().enumerate().filter(is_first).map(|(_, form)| form)
}

/// The parameter that holds the MD5 of the body in hexadecimal digits.
const BODY_MD5: &str = "body_md5";

#[cfg(test)]
mod tests;
