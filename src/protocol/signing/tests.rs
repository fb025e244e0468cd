use std::time::Duration;

use proptest::prelude::*;

use super::super::rules::{KeyPair, test_rules};
use super::super::secret::Secret;
use super::*;

const NOW: u64 = 1_353_088_179;
const BODY: &[u8] = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
const QUERY: &str = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0&\
    body_md5=ec365a775a4cd0599faeb73354201b6f&\
    auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
const REQUEST: SignedRequest<'_> =
    SignedRequest { method: "POST", path: "/apps/3/events", prefix: "", query: QUERY, body: BODY };

/// The rules of the example in Pusher's HTTP API reference.
fn documented_rules() -> AppRules {
    AppRules {
        key: "278d425bdf160c739803".into(),
        secret: Secret::new("7ad3773142a6692b25b8"),
        ..test_rules()
    }
}

/// The query of a request, with the auth parameters and the signature of `secret`. `signed` are
/// the parameters as the library signs them, `sent` as it sends them.
fn sign(request: &SignedRequest<'_>, signed: &[(&str, &str)], sent: &str) -> String {
    let md5 = hex::encode(Md5::digest(request.body));
    let timestamp = NOW.to_string();
    let mut params = vec![
        ("auth_key", "app-key"),
        ("auth_timestamp", timestamp.as_str()),
        ("auth_version", "1.0"),
    ];
    if !request.body.is_empty() {
        params.push(("body_md5", &md5));
    }
    let auth: Vec<_> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    params.extend(signed);
    params.sort_unstable();
    let text: Vec<_> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let text = format!("{}\n{}\n{}", request.method, request.path, text.join("&"));
    let signature = test_rules().secret.sign(&[text.as_bytes()]);
    format!("{sent}&auth_signature={signature}&{}", auth.join("&"))
}

const GET: SignedRequest<'_> =
    SignedRequest { method: "GET", path: "/apps/1/channels", prefix: "", query: "", body: b"" };

fn check(request: &SignedRequest<'_>) -> Result<(), SignatureError> {
    verify(&test_rules(), request, NOW)
}

#[test]
fn a_request_is_signed_by_any_key_of_its_app() {
    let other =
        AppRules { key: "new".into(), secret: Secret::new("new-secret"), ..documented_rules() };
    assert_eq!(verify(&other, &REQUEST, NOW), Err(SignatureError::WrongKey));
    let AppRules { key, secret, .. } = documented_rules();
    let both = AppRules { more_keys: vec![KeyPair { key, secret }], ..other };
    assert_eq!(verify(&both, &REQUEST, NOW), Ok(()));
}

#[test]
fn the_documented_request_passes() {
    assert_eq!(verify(&documented_rules(), &REQUEST, NOW), Ok(()));
    let digest = "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
    let query = QUERY.replace(digest, &digest.to_uppercase());
    assert_eq!(
        verify(&documented_rules(), &SignedRequest { query: &query, ..REQUEST }, NOW),
        Ok(())
    );
}

#[test]
fn every_part_of_a_request_is_signed() {
    let rules = documented_rules();
    for request in [
        SignedRequest { method: "GET", ..REQUEST },
        SignedRequest { path: "/apps/4/events", ..REQUEST },
        SignedRequest { path: "/ws/apps/3/events", ..REQUEST },
        SignedRequest { query: &format!("{QUERY}&info=x"), ..REQUEST },
        SignedRequest { query: &format!("{QUERY}0"), ..REQUEST },
    ] {
        assert_eq!(verify(&rules, &request, NOW), Err(SignatureError::Signature), "{request:?}");
    }
    let other = AppRules { secret: Secret::new("other"), ..documented_rules() };
    assert_eq!(verify(&other, &REQUEST, NOW), Err(SignatureError::Signature));
}

#[test]
fn each_auth_parameter_must_be_there() {
    for name in ["auth_key", "auth_timestamp", "auth_version", "auth_signature", "body_md5"] {
        let renamed = QUERY.replace(name, "x");
        for query in [renamed, QUERY.replace(name, &format!("{name}[]"))] {
            let refused =
                verify(&documented_rules(), &SignedRequest { query: &query, ..REQUEST }, NOW);
            assert_eq!(refused, Err(SignatureError::Missing(name)));
        }
    }
    let empty = SignedRequest { query: "", ..REQUEST };
    assert_eq!(verify(&documented_rules(), &empty, NOW), Err(SignatureError::Missing("auth_key")));
}

#[test]
fn a_parameter_given_twice_is_refused() {
    for more in [
        "auth_key=278d425bdf160c739803",
        "auth_signature=x",
        "auth_signature[]=x",
        "AUTH_VERSION=1.0",
        "body%5Fmd5=x",
        "info=a&info=a",
        "info=a&info[]=b",
        "info[]=a&info=b",
    ] {
        let query = format!("{QUERY}&{more}");
        let refused = verify(&documented_rules(), &SignedRequest { query: &query, ..REQUEST }, NOW);
        assert_eq!(refused, Err(SignatureError::Repeated), "{more}");
    }
}

#[test]
fn the_key_must_be_the_apps() {
    assert_eq!(verify(&test_rules(), &REQUEST, NOW), Err(SignatureError::WrongKey));
}

#[test]
fn the_version_must_be_the_one_there_is() {
    let query = QUERY.replace("=1.0", "=1.1");
    let refused = verify(&documented_rules(), &SignedRequest { query: &query, ..REQUEST }, NOW);
    assert_eq!(refused, Err(SignatureError::BadVersion));
}

#[test]
fn the_timestamp_may_be_off_by_the_tolerance_and_no_more() {
    let rules = documented_rules();
    let late = Err(SignatureError::Timestamp { tolerance_s: 600 });
    for (now, expected) in [
        (NOW - 601, late),
        (NOW - 600, Ok(())),
        (NOW + 600, Ok(())),
        (NOW + 601, late),
        (0, late),
        (u64::MAX, late),
    ] {
        assert_eq!(verify(&rules, &REQUEST, now), expected, "{now}");
    }
    let unchecked = AppRules { auth_timestamp_tolerance: Duration::ZERO, ..documented_rules() };
    assert_eq!(verify(&unchecked, &REQUEST, 0), Ok(()));
}

#[test]
fn a_timestamp_is_digits() {
    for text in ["", "-1", "+1353088179", "1353088179.0", "now", "99999999999999999999999"] {
        let query = QUERY.replace("1353088179", text);
        let refused = verify(&documented_rules(), &SignedRequest { query: &query, ..REQUEST }, NOW);
        assert_eq!(refused, Err(SignatureError::Missing("auth_timestamp")), "{text:?}");
    }
}

#[test]
fn the_digest_must_be_that_of_the_body() {
    for body in [b"".as_slice(), b"{}", &BODY[1..]] {
        let refused = verify(&documented_rules(), &SignedRequest { body, ..REQUEST }, NOW);
        assert_eq!(refused, Err(SignatureError::BodyMd5));
    }
    for digest in ["", "ec365a77", "zz365a775a4cd0599faeb73354201b6f"] {
        let query = QUERY.replace("ec365a775a4cd0599faeb73354201b6f", digest);
        let refused = verify(&documented_rules(), &SignedRequest { query: &query, ..REQUEST }, NOW);
        assert_eq!(refused, Err(SignatureError::BodyMd5), "{digest:?}");
    }
}

#[test]
fn a_head_is_judged_without_its_body_and_a_body_by_the_digest_that_was_signed() {
    let SignedRequest { method, path, prefix, query, .. } = REQUEST;
    let head = SignedHead { method, path, prefix, query, has_body: true };
    let signed = verify_head(&documented_rules(), &head, NOW).unwrap();
    assert!(signed.is_some());
    assert_eq!(signed.verify(BODY), Ok(()));
    assert_eq!(signed.verify(b""), Err(SignatureError::BodyMd5));
    // A length that the head does not give, as with chunks, may turn out to be zero.
    let query = sign(&GET, &[], "");
    let head = SignedHead { method: "GET", path: GET.path, prefix, query: &query, has_body: false };
    let signed = verify_head(&test_rules(), &head, NOW).unwrap();
    assert!(!signed.is_some());
    assert_eq!(signed.verify(b""), Ok(()));
    assert_eq!(signed.verify(b"x"), Err(SignatureError::Missing("body_md5")));
    let head = SignedHead { has_body: true, ..head };
    let refused = verify_head(&test_rules(), &head, NOW);
    assert_eq!(refused, Err(SignatureError::Missing("body_md5")));
}

#[test]
fn either_case_of_the_body_digest_fits() {
    let md5 = hex::encode_upper(Md5::digest("x"));
    let query = sign(&GET, &[("body_md5", &md5)], &format!("body_md5={md5}"));
    assert_eq!(check(&SignedRequest { query: &query, body: b"x", ..GET }), Ok(()));
}

#[test]
fn without_a_body_no_digest_is_needed_but_one_must_fit() {
    assert_eq!(check(&SignedRequest { query: &sign(&GET, &[], ""), ..GET }), Ok(()));
    let empty = "d41d8cd98f00b204e9800998ecf8427e";
    let query = sign(&GET, &[("body_md5", empty)], &format!("body_md5={empty}"));
    assert_eq!(check(&SignedRequest { query: &query, ..GET }), Ok(()));
}

#[test]
fn parameters_are_signed_decoded_and_lists_joined() {
    for (signed, sent) in [
        (("info", "user_count,subscription_count"), "info=user_count%2Csubscription_count"),
        (("info", "a,b"), "info[]=a&info[]=b"),
        (("info", "a,b"), "info%5B0%5D=a&info%5B1%5D=b"),
        (("info", "b,a"), "info[1]=b&zz=&info[0]=a"),
        (("info", "a b+c"), "info=a+b%2Bc"),
        (("info", "a"), "&&Info=a&"),
        (("info", ""), "info"),
        (("info", "=ü%"), "info==%C3%BC%"),
        (("[]", "x"), "[]=x"),
    ] {
        let mut signed = vec![signed];
        if sent.contains("zz") {
            signed.push(("zz", ""));
        }
        let query = sign(&GET, &signed, sent);
        assert_eq!(check(&SignedRequest { query: &query, ..GET }), Ok(()), "{sent}");
    }
}

#[test]
fn the_path_may_be_signed_with_the_prefix_or_without() {
    for signed in ["/apps/1/events", "/ws/apps/1/events"] {
        let query = sign(&SignedRequest { path: signed, ..GET }, &[], "");
        for path in ["/apps/1/events", "/ws/apps/1/events"] {
            let request = SignedRequest { path, prefix: "/ws", query: &query, ..GET };
            assert_eq!(check(&request), Ok(()), "{signed} as {path}");
        }
    }
    let query = sign(&SignedRequest { path: "/x/apps/1/events", ..GET }, &[], "");
    let request = SignedRequest { path: "/apps/1/events", prefix: "/ws", query: &query, ..GET };
    assert_eq!(check(&request), Err(SignatureError::Signature));
}

#[test]
fn leading_slashes_may_be_signed_as_sent_or_as_one() {
    let sent = "/apps/1/events";
    for (path, prefix, signed) in [
        ("//apps/1/events", "", &["//apps/1/events", sent][..]),
        ("///apps/1/events", "", &["///apps/1/events", sent]),
        ("//apps/1/events", "/ws", &["//apps/1/events", sent, "/ws/apps/1/events"]),
        ("//ws/apps/1/events", "/ws", &["//ws/apps/1/events", "/ws/apps/1/events", sent]),
        ("/ws//apps/1/events", "/ws", &["/ws//apps/1/events", "//apps/1/events", sent]),
        ("/ws//apps/1/events", "/ws", &["/ws/apps/1/events"]),
    ] {
        for signed in signed {
            let query = sign(&SignedRequest { path: signed, ..GET }, &[], "");
            let request = SignedRequest { path, prefix, query: &query, ..GET };
            assert_eq!(check(&request), Ok(()), "{signed} as {path} below {prefix}");
        }
    }
    for (path, signed) in [
        ("//apps/1/events", "///apps/1/events"),
        (sent, "//apps/1/events"),
        ("/apps//1/events", sent),
        ("//apps/1/events", "apps/1/events"),
    ] {
        let query = sign(&SignedRequest { path: signed, ..GET }, &[], "");
        let request = SignedRequest { path, query: &query, ..GET };
        assert_eq!(check(&request), Err(SignatureError::Signature), "{signed} as {path}");
    }
}

#[test]
fn each_path_that_may_be_signed_is_tried_once() {
    let paths = |path, prefix| {
        let head = SignedHead { method: "GET", path, prefix, query: "", has_body: false };
        signed_paths(&head).map(|(prefix, path)| format!("{prefix}{path}")).collect::<Vec<_>>()
    };
    assert_eq!(paths("/apps/1", ""), ["/apps/1"]);
    assert_eq!(paths("/apps/1", "/ws"), ["/apps/1", "/ws/apps/1"]);
    assert_eq!(paths("/ws/apps/1", "/ws"), ["/apps/1", "/ws/apps/1"]);
    assert_eq!(paths("//apps/1", ""), ["/apps/1", "//apps/1"]);
    assert_eq!(paths("//ws/apps/1", "/ws"), ["/apps/1", "/ws/apps/1", "//ws/apps/1"]);
}

#[test]
fn leading_slashes_are_collapsed_and_no_others() {
    for (path, one) in
        [("//a//b/", "/a//b/"), ("///", "/"), ("/a", "/a"), ("a//b", "a//b"), ("", "")]
    {
        assert_eq!(collapsed(path), one, "{path}");
    }
}

/// The libraries of PHP and Ruby encode what they send; those of Node and Python do not.
#[test]
fn a_base64_key_may_be_sent_encoded_or_as_it_is() {
    let key = "base64:a+b/c=";
    let rules = AppRules { key: key.into(), ..test_rules() };
    let signed = format!("GET\n{}\nauth_key={key}&auth_timestamp={NOW}&auth_version=1.0", GET.path);
    let signature = rules.secret.sign(&[signed.as_bytes()]);
    let rest = format!("auth_timestamp={NOW}&auth_version=1.0&auth_signature={signature}");
    for sent in [key, "base64%3Aa%2Bb%2Fc%3D", "base64:a%2Bb/c="] {
        let query = format!("auth_key={sent}&{rest}");
        let request = SignedRequest { query: &query, ..GET };
        assert_eq!(verify(&rules, &request, NOW), Ok(()), "{sent}");
    }
    for sent in ["base64:a b/c=", "base64:a%20b/c=", "base64:a", ""] {
        let query = format!("auth_key={sent}&{rest}");
        let request = SignedRequest { query: &query, ..GET };
        assert_eq!(verify(&rules, &request, NOW), Err(SignatureError::WrongKey), "{sent}");
    }
    let spaced = AppRules { key: "a b".into(), ..test_rules() };
    let signed = format!("GET\n{}\nauth_key=a b&auth_timestamp={NOW}&auth_version=1.0", GET.path);
    let signature = spaced.secret.sign(&[signed.as_bytes()]);
    for sent in ["a+b", "a%20b"] {
        let query = format!(
            "auth_key={sent}&auth_timestamp={NOW}&auth_version=1.0&auth_signature={signature}"
        );
        let request = SignedRequest { query: &query, ..GET };
        assert_eq!(verify(&spaced, &request, NOW), Ok(()), "{sent}");
    }
}

#[test]
fn a_prefix_ends_where_a_segment_does() {
    for (signed, expected) in [("/wsx", Ok(())), ("x", Err(SignatureError::Signature))] {
        let query = sign(&SignedRequest { path: signed, ..GET }, &[], "");
        let request = SignedRequest { path: "/wsx", prefix: "/ws", query: &query, ..GET };
        assert_eq!(check(&request), expected, "{signed}");
    }
}

#[test]
fn the_path_may_be_signed_encoded_or_decoded() {
    for signed in ["/apps/1/channels/a%3Bb", "/apps/1/channels/a;b"] {
        let query = sign(&SignedRequest { path: signed, ..GET }, &[], "");
        let request = SignedRequest { path: "/apps/1/channels/a%3Bb", query: &query, ..GET };
        assert_eq!(check(&request), Ok(()), "{signed}");
    }
}

#[test]
fn refusals_are_told_in_sentences() {
    assert_eq!(SignatureError::Signature.to_string(), "Authentication signature invalid.");
    assert_eq!(
        SignatureError::Missing("auth_key").to_string(),
        "The auth_key parameter is missing or malformed."
    );
}

/// The form of a query that the signature covers: two queries with the same form are the same
/// request.
fn form(query: &str) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = query_pairs(query)
        .map(|(name, value)| {
            let name = name.to_ascii_lowercase();
            let value = if name == "auth_signature" { value.to_lowercase() } else { value.into() };
            (name, value)
        })
        .collect();
    pairs.sort();
    pairs
}

/// Replaces the character at `at` (counted around the end), inserts before it or removes it.
fn changed(text: &str, at: usize, to: Option<char>, replace: bool) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let at = at % (chars.len() + 1);
    if replace && at < chars.len() {
        chars.remove(at);
    }
    if let Some(to) = to {
        chars.insert(at, to);
    }
    chars.into_iter().collect()
}

proptest! {
    #[test]
    fn a_signed_request_passes_and_one_changed_character_fails(
        (value, body, secret) in ("[a-z,;=&% ü]{0,8}", "[a-z{}\"]{0,8}", "[a-z]{1,8}"),
        (part, at, to, replace) in (0..5, any::<usize>(), "[a-z0-9=_.%&]?", any::<bool>()),
    ) {
        let encoded =
            percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC);
        let original = SignedRequest { body: body.as_bytes(), method: "POST", ..GET };
        let query = sign(&original, &[("info", &value)], &format!("info={encoded}"));
        let original = SignedRequest { query: &query, ..original };
        prop_assert_eq!(check(&original), Ok(()));

        let change = |text: &str| changed(text, at, to.chars().next(), replace);
        let (method, path, other) =
            (change(original.method), change(original.path), change(&query));
        let other_body = change(&body);
        let mut request = original;
        let mut rules = test_rules();
        let same = match part {
            0 => { request.method = &method; method == "POST" }
            1 => { request.path = &path; path == GET.path }
            2 => { request.query = &other; form(&other) == form(&query) }
            3 => { request.body = other_body.as_bytes(); other_body == body }
            _ => { rules.secret = Secret::new(&change(&secret)); false }
        };
        if !same {
            prop_assert!(verify(&rules, &request, NOW).is_err(), "{request:?}");
        }
    }

    #[test]
    fn no_query_panics(query in ".*", path in ".*", prefix in ".*", body in any::<Vec<u8>>()) {
        let query = format!("{query}&auth_key=app-key&auth_version=1.0&auth_timestamp={NOW}");
        let (path, prefix, query, body) = (&*path, &*prefix, &*query, &*body);
        let request = SignedRequest { method: "GET", path, prefix, query, body };
        prop_assert!(check(&request).is_err());
        let _ = query_pairs(query).count();
    }
}
