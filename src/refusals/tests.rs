use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread;

use super::cause::Cause;
use super::log::Counter;
use super::*;
use crate::apps::{App, Apps, test_app, test_app_named};
use crate::id::AppIndex;
use crate::protocol::auth::AuthError;
use crate::protocol::close::ProtocolError;
use crate::protocol::origin::Origins;
use crate::protocol::rules::KeyPair;
use crate::protocol::secret::Secret;
use crate::protocol::signing::SignatureError;

fn app(index: u16, id: &str, key: &str) -> App {
    test_app_named(index, id, key)
}

const CLIENT: RefusedClient = RefusedClient::Address(Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7))));

#[test]
fn the_first_is_logged_and_the_others_are_counted_until_the_minute_is_over() {
    let counter = Counter::default();
    assert_eq!(counter.due(1), None, "nothing happened");
    assert!(counter.is_first());
    assert!((0..999).all(|_| !counter.is_first()));
    assert_eq!(counter.due(10), None, "the minute begins");
    assert_eq!(counter.due(69), None);
    assert_eq!(counter.due(70), Some(999));
    assert!(!counter.is_first(), "the count was a line, and its minute has begun");
    assert_eq!(counter.due(129), None);
    assert_eq!(counter.due(130), Some(1));
    assert_eq!(counter.due(190), None, "a quiet minute is not logged");
    assert!(counter.is_first(), "after a quiet minute the next one is logged at once");
}

#[test]
fn the_counts_are_logged_at_the_end_of_the_process() {
    let counter = Counter::default();
    assert!(counter.is_first() && !counter.is_first());
    assert_eq!((counter.rest(), counter.rest()), (Some(1), None));
}

#[test]
fn one_of_many_threads_logs_and_no_refusal_is_lost() {
    let counter = Arc::new(Counter::default());
    let note = |counter: Arc<Counter>| (0..10_000).filter(|_| counter.is_first()).count();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let counter = Arc::clone(&counter);
            thread::spawn(move || note(counter))
        })
        .collect();
    let logged: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert_eq!((logged, counter.rest()), (1, Some(39_999)));
}

#[test]
fn refused_connections_have_ten_lines_a_second_of_each_cause_and_of_all_apps_together() {
    let refusals = Refusals::default();
    let lines = |cause| (0..100).filter(|_| refusals.has_line(cause)).count();
    assert_eq!((lines(Cause::UnknownKey), lines(Cause::UnknownKey)), (10, 0));
    assert_eq!(lines(Cause::Origin), 10);
    refusals.log_counts(1);
    assert_eq!((lines(Cause::UnknownKey), lines(Cause::Origin)), (10, 10));
}

#[test]
fn counters_are_made_for_apps_that_are_configured_and_for_no_text() {
    let refusals = Refusals::default();
    let apps = Apps::new(vec![app(0, "1", "key-one")]);
    for number in 0..10_000 {
        let key = format!("key-{number}");
        let refused = RefusedHandshake::UnknownKey { key: &key, apps: &apps };
        refusals.note(None, CLIENT, &Refusal::Handshake(refused));
    }
    assert_eq!(refusals.apps_with_counters(), 0);
    for (index, id) in [(0, "1"), (255, "2"), (256, "3"), (u16::MAX, "4"), (0, "1")] {
        let app = app(index, id, "key");
        refusals.note(Some(&app), CLIENT, &Refusal::Handshake(RefusedHandshake::Disabled));
    }
    assert_eq!(refusals.apps_with_counters(), 4);
    assert_eq!(refusals.of_app(AppIndex(u16::MAX), "4").app_field(), Some("4"));
}

#[test]
fn an_unknown_key_is_told_with_the_apps_that_there_are() {
    let sentence = |key: &str, apps: Vec<App>| {
        RefusedHandshake::UnknownKey { key, apps: &Apps::new(apps) }.to_string()
    };
    let one = || vec![app(0, "780619", "abcdefghijkl")];
    let told = sentence("zhcnzhcnzhcn", one());
    let expected = "unknown key zhcn…; this server has the app 780619 with key abcd…: ";
    assert!(told.contains(expected), "{told}");
    let told = sentence("780619", one());
    assert!(told.contains("which is the id of an app and not its key"), "{told}");
    let many = (0..5).map(|n| app(n, &format!("id-{n}"), &format!("k{n}--------"))).collect();
    let told = sentence("x", many);
    let expected = "this server has 5 apps: id-0 with key k0--…, id-1 with key k1--…, \
                    id-2 with key k2--… and 2 more: ";
    assert!(told.contains(expected), "{told}");
    assert!(sentence("x", Vec::new()).contains("this server has no app"));
}

#[test]
fn a_refused_origin_is_told_with_the_list() {
    let list = ["a.example", "*.b.example", "https://c.example:8443", "null"].map(str::to_owned);
    let app = App { allowed_origins: Origins::parse(&list).unwrap(), ..test_app() };
    let sentence = |origin: Option<&str>| {
        RefusedHandshake::Origin { origins: origin.as_slice(), app: &app }.to_string()
    };
    let shown = "has a.example, *.b.example, https://c.example:8443, null";
    for (origin, told) in [
        (Some("https://evil.example"), r#"the origin "https://evil.example" is not in the list"#),
        (Some("x\" app=\"1"), r#"the origin "x\" app=\"1" is not a scheme"#),
        (None, "it names no origin"),
    ] {
        let sentence = sentence(origin);
        assert!(sentence.contains(told) && sentence.contains(shown), "{sentence}");
    }
}

#[test]
fn a_clock_that_is_off_is_told_with_whose_it_is_and_by_how_much() {
    let (app, apps) = (test_app(), Apps::new(vec![test_app()]));
    let sentence = |query: &str| {
        let error = SignatureError::Timestamp { tolerance_s: 600 };
        RefusedSignature {
            error,
            app: &app,
            apps: &apps,
            query,
            now_unix_s: 1_000_000,
            client: CLIENT,
        }
        .to_string()
    };
    let told = sentence("auth_key=k&auth_timestamp=996340&auth_signature=5ec2e7");
    let expected = "it was signed 61 min ago by the clock of 10.0.0.7, and 10 min are allowed: \
                    check NTP";
    assert!(told.contains(expected) && !told.contains("5ec2e7"), "{told}");
    assert!(sentence("auth_timestamp=1000700").contains("11 min ahead"));
    assert!(sentence("auth_timestamp=0").contains("11 days ago"));
}

#[test]
fn a_key_of_another_app_is_told_as_what_it_is() {
    let (own, mut other) = (app(0, "1", "own-key-1"), app(1, "2", "other-key-2"));
    let old = KeyPair { key: "old-key-3".into(), secret: Secret::new("s") };
    other.rules.more_keys.push(old);
    let apps = Apps::new(vec![own.clone(), other]);
    let sentence = |query: &str| {
        let error = SignatureError::WrongKey;
        RefusedSignature { error, app: &own, apps: &apps, query, now_unix_s: 0, client: CLIENT }
            .to_string()
    };
    for key in ["other-key-2", "old-key-3"] {
        let told = sentence(&format!("auth_key={key}"));
        assert!(told.contains("of the app 2, and was sent to this one, whose key is own-…"));
    }
    let told = sentence("auth_key=it%2Dnever%2Dwas");
    assert!(told.contains("the key it-n…, and the app's key is own-…"), "{told}");
}

#[test]
fn a_refused_message_is_told_with_its_channel_and_never_with_its_signature() {
    let app = test_app();
    let signature = "5ec2e7ab".repeat(8);
    let sentence = |error, text: &str| {
        let error = ProtocolError::Unauthorised(error);
        RefusedMessage { error, subject: MessageSubject::Text(text), app: &app }.to_string()
    };
    for auth in [format!("other-key:{signature}"), signature.clone(), format!(":{signature}")] {
        let data = format!(r#"{{"channel":"private-x","auth":"{auth}"}}"#);
        let quoted = serde_json::to_string(&data).unwrap();
        for data in [data, quoted] {
            let text = format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#);
            for error in [AuthError::WrongKey, AuthError::Signature, AuthError::Missing] {
                let told = sentence(error, &text);
                assert!(told.starts_with(r#"subscription to "private-x" refused with 4009: "#));
                assert!(!told.contains("5ec2e7"), "{told}");
            }
        }
        let malformed = format!(r#"{{"event":"pusher:subscribe","data":{{"auth":"{auth}"}}"#);
        let (error, subject) = (ProtocolError::Malformed, MessageSubject::Text(&malformed));
        let told = RefusedMessage { error, subject, app: &app }.to_string();
        assert!(told.contains("[withheld]") && !told.contains("5ec2e7"), "{told}");
    }
    let told = sentence(
        AuthError::WrongKey,
        r#"{"event":"pusher:subscribe","data":{"channel":"private-x","auth":"base64:abcd=:12"}}"#,
    );
    assert!(told.contains("with the key base…, and the app's key is app…"), "{told}");
    let told =
        sentence(AuthError::Missing, r#"{"event":"pusher:signin","data":{"user_data":"{}"}}"#);
    assert!(told.starts_with("sign-in refused with 4009: "), "{told}");
}
