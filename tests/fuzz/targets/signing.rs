//! Signatures of the API: a request that the secret signed passes in every form in which libraries
//! send it, and no other request does.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ringwave::testing::protocol::secret::Secret;
use ringwave::testing::protocol::signing::{SignatureError, SignedRequest, query_pairs, verify};
use ringwave_fuzz::{KEY, SECRET, app};

const NOW: u64 = 1_700_000_000;
/// Characters that are escaped by some servers and libraries, and not by others, are not escaped
/// here.
const SPARSE: AsciiSet = NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.');

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    method: bool,
    path: &'a str,
    params: Vec<(&'a str, &'a str)>,
    body: &'a [u8],
    sent: Sent,
    change: Change,
    raw: &'a str,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Sent {
    prefixed: bool,
    /// Whether the path is signed with the prefix.
    prefix_signed: bool,
    slashes: u8,
    upper_case: bool,
    /// Whether the signature is the first parameter.
    first: bool,
    dense: bool,
}

/// A change to the request on the way.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Signature(u8),
    Body,
    Method,
    Path,
    NewParameter,
    Timestamp,
    Secret,
}

fn escaped(text: &str, dense: bool) -> String {
    let set = if dense { NON_ALPHANUMERIC } else { &SPARSE };
    utf8_percent_encode(text, set).to_string()
}

/// A parameter that is not one of the signature's and stays one parameter.
fn usable(params: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut seen = std::collections::HashSet::new();
    let own = |name: &str| name.starts_with("auth_") || name == "body_md5";
    params
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned()))
        .filter(|(name, _)| !name.is_empty() && !own(name) && !name.contains(['[', ']']))
        .filter(|(name, _)| seen.insert(name.clone()))
        .take(6)
        .collect()
}

fn signed(input: &Input<'_>) {
    let (app, sent) = (app(), input.sent);
    let method = if input.method { "POST" } else { "GET" };
    let own = usable(&input.params);
    let md5 = hex::encode(Md5::digest(input.body));
    let timestamp = NOW.to_string();
    let mut all = own.clone();
    for (name, value) in
        [("auth_key", KEY), ("auth_timestamp", &timestamp), ("auth_version", "1.0")]
    {
        all.push((name.to_owned(), value.to_owned()));
    }
    if !input.body.is_empty() {
        all.push(("body_md5".to_owned(), md5));
    }
    all.sort();
    let text: Vec<_> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();

    let base = format!("/apps/app-id/{}", escaped(input.path, sent.dense));
    let with_prefix = format!("/ws{base}");
    let to_sign = if sent.prefix_signed { &with_prefix } else { &base };
    let path = if sent.prefixed { &with_prefix } else { &base };
    let path = format!("{}{path}", "/".repeat(usize::from(sent.slashes % 3)));
    let signature =
        Secret::new(SECRET).sign(&[format!("{method}\n{to_sign}\n{}", text.join("&")).as_bytes()]);
    let signature = if sent.upper_case { signature.to_uppercase() } else { signature };

    let mut query: Vec<_> = all
        .iter()
        .map(|(name, value)| format!("{}={}", escaped(name, true), escaped(value, true)))
        .collect();
    let at = if sent.first { 0 } else { query.len() };
    query.insert(at, format!("auth_signature={signature}"));
    let query = query.join("&");

    let request =
        SignedRequest { method, path: &path, prefix: "/ws", query: &query, body: input.body };
    assert_eq!(verify(&app.rules, &request, NOW), Ok(()), "{request:?}\n{}", text.join("&"));
    let read: Vec<_> = query_pairs(&query).collect();
    for (name, value) in &own {
        let found = read.iter().filter(|(it, _)| it == name).map(|(_, value)| value);
        assert_eq!(found.collect::<Vec<_>>(), [value], "{name}");
    }
    if input.change != Change::None {
        let verdict = changed(input.change, &request, &query, &signature);
        assert!(verdict.is_err(), "{:?} of {request:?}", input.change);
    }
}

fn changed(
    change: Change,
    request: &SignedRequest<'_>,
    query: &str,
    signature: &str,
) -> Result<(), SignatureError> {
    let mut app = app();
    let mut digits = signature.as_bytes().to_vec();
    let other_method = if request.method == "GET" { "POST" } else { "GET" };
    let body = [request.body, b"x"].concat();
    let path = format!("{}x", request.path);
    let longer = format!("{query}&a%01new=1");
    let later = query.replace(&format!("={NOW}"), &format!("={}", NOW + 1));
    let forged;
    let request = match change {
        Change::None => *request,
        Change::Signature(at) => {
            let at = usize::from(at) % digits.len();
            digits[at] = if digits[at] == b'0' { b'1' } else { b'0' };
            forged = query.replace(signature, std::str::from_utf8(&digits).expect("digits"));
            SignedRequest { query: &forged, ..*request }
        }
        Change::Body => SignedRequest { body: &body, ..*request },
        Change::Method => SignedRequest { method: other_method, ..*request },
        Change::Path => SignedRequest { path: &path, ..*request },
        Change::NewParameter => SignedRequest { query: &longer, ..*request },
        Change::Timestamp => SignedRequest { query: &later, ..*request },
        Change::Secret => {
            app.rules.secret = Secret::new("another");
            *request
        }
    };
    verify(&app.rules, &request, NOW)
}

fuzz_target!(|input: Input<'_>| {
    signed(&input);
    // No client finds a query that passes without the secret.
    let request = SignedRequest {
        method: "POST",
        path: input.path,
        prefix: "/ws",
        query: input.raw,
        body: input.body,
    };
    assert!(verify(&app().rules, &request, NOW).is_err());
    let shown: usize = query_pairs(input.raw).map(|(name, value)| name.len() + value.len()).sum();
    // Three bytes of a replacement character for each that is not UTF-8, which took three as well.
    assert!(shown <= input.raw.len());
});
