use proptest::prelude::*;

use super::*;

/// The fields of a subscribe, owned.
type Subscribe = (String, Option<String>, Option<String>);

fn subscribe_of(text: &str) -> Result<Subscribe, Malformed> {
    match parse(text)? {
        Inbound::Subscribe { channel, auth, channel_data } => {
            Ok((channel.into_owned(), auth.map(Cow::into_owned), channel_data.map(Cow::into_owned)))
        }
        other => panic!("{other:?}"),
    }
}

fn client_event_of(text: &str) -> Result<(String, String, Option<String>), Malformed> {
    match parse(text)? {
        Inbound::ClientEvent { event, channel, data } => {
            Ok((event.into_owned(), channel.into_owned(), data.map(|data| data.get().to_owned())))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn ping_and_pong_need_nothing_but_their_name() {
    for data in ["", r#","data":{}"#, r#","data":"{}""#, r#","data":null"#, r#","data":7"#] {
        let ping = format!(r#"{{"event":"pusher:ping"{data}}}"#);
        assert!(matches!(parse(&ping), Ok(Inbound::Ping)), "{ping}");
        let pong = format!(r#" {{ "x":[{{}}], "event":"pusher:pong"{data} }} "#);
        assert!(matches!(parse(&pong), Ok(Inbound::Pong)), "{pong}");
    }
}

#[test]
fn subscribes_of_the_client_libraries_are_read() {
    assert_eq!(
        subscribe_of(r#"{"event":"pusher:subscribe","data":{"auth":"","channel":"x"}}"#),
        Ok(("x".into(), None, None))
    );
    assert_eq!(
        subscribe_of(r#"{"event":"pusher:subscribe","data":{"auth":"k:h","channel":"private-x"}}"#),
        Ok(("private-x".into(), Some("k:h".into()), None))
    );
    let presence = r#"{"event":"pusher:subscribe","data":{"auth":"k:h","channel_data":
        "{\"user_id\":1}","channel":"presence-x"}}"#;
    let expected = ("presence-x".into(), Some("k:h".into()), Some(r#"{"user_id":1}"#.into()));
    assert_eq!(subscribe_of(presence), Ok(expected));
}

#[test]
fn data_may_be_a_string_that_holds_the_object() {
    let text = r#"{"event":"pusher:subscribe",
        "data":"{\"channel\":\"x\",\"auth\":null,\"channel_data\":\"{\\\"a\\\":1}\"}"}"#;
    assert_eq!(subscribe_of(text), Ok(("x".into(), None, Some(r#"{"a":1}"#.into()))));
    let text = r#"{"event":"pusher:unsubscribe","data":"{\"channel\":\"x\"}"}"#;
    assert!(matches!(parse(text), Ok(Inbound::Unsubscribe { channel }) if channel == "x"));
}

#[test]
fn data_is_decoded_once_only() {
    let inner = serde_json::to_string(r#"{"channel":"x"}"#).unwrap();
    let twice = serde_json::to_string(&inner).unwrap();
    let text = format!(r#"{{"event":"pusher:subscribe","data":{twice}}}"#);
    assert!(parse(&text).is_err());
}

#[test]
fn names_without_escapes_are_borrowed() {
    let text = r#"{"event":"pusher:subscribe","data":{"auth":"k:h","channel":"private-x"}}"#;
    let Ok(Inbound::Subscribe { channel, auth, .. }) = parse(text) else { panic!() };
    assert!(matches!((channel, auth), (Cow::Borrowed(_), Some(Cow::Borrowed(_)))));
}

#[test]
fn subscribes_of_other_shapes_are_malformed() {
    for data in [
        "",
        r#","data":null"#,
        r#","data":{}"#,
        r#","data":[]"#,
        r#","data":["x"]"#,
        r#","data":"[\"x\"]""#,
        r#","data":"x""#,
        r#","data":7"#,
        r#","data":{"channel":null}"#,
        r#","data":{"channel":7}"#,
        r#","data":{"channel":["x"]}"#,
        r#","data":{"channel":"x","auth":7}"#,
        r#","data":{"channel":"x","auth":{}}"#,
        r#","data":{"channel":"x","channel_data":{"user_id":1}}"#,
        r#","data":{"channel":"x","channel_data":"{"}"#,
        r#","data":{"channel":"x","channel_data":"x"}"#,
        r#","data":{"channel":"x","channel":"y"}"#,
        r#","data":{"channel":"\ud800"}"#,
    ] {
        let text = format!(r#"{{"event":"pusher:subscribe"{data}}}"#);
        assert!(parse(&text).is_err(), "{text}");
    }
    assert!(parse(r#"{"event":"pusher:unsubscribe","data":{}}"#).is_err());
}

#[test]
fn empty_or_null_extras_are_none() {
    for (auth, data) in [("null", "null"), (r#""""#, r#""""#)] {
        let text = format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel":"x","auth":{auth},
            "channel_data":{data}}}}}"#
        );
        assert_eq!(subscribe_of(&text), Ok(("x".into(), None, None)));
    }
}

#[test]
fn what_is_no_message_is_malformed() {
    for text in [
        "",
        " ",
        "{}",
        "[]",
        "null",
        "7",
        "\"pusher:ping\"",
        "[\"pusher:ping\"]",
        "{",
        "ping",
        r#"{"event":null}"#,
        r#"{"event":7}"#,
        r#"{"event":""}"#,
        r#"{"event":"","channel":"x"}"#,
        r#"{"event":["pusher:ping"]}"#,
        r#"{"event":"pusher:ping"} x"#,
        r#"{"event":"pusher:ping",}"#,
        r#"{"event":"pusher:ping","event":"pusher:ping"}"#,
        r#"{"event":"pusher:ping","data":{},"data":{}}"#,
        r#"{"Event":"pusher:ping"}"#,
        "\u{feff}{\"event\":\"pusher:ping\"}",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn sign_ins_are_read_as_objects_and_as_strings() {
    let read = |data: &str| match parse(&format!(r#"{{"event":"pusher:signin","data":{data}}}"#)) {
        Ok(Inbound::SignIn { auth, user_data }) => {
            Some((auth.map(Cow::into_owned), user_data.into_owned()))
        }
        Err(Malformed) => None,
        Ok(other) => panic!("{other:?}"),
    };
    let expected = Some((Some("k:h".into()), r#"{"id":"1"}"#.into()));
    assert_eq!(read(r#"{"auth":"k:h","user_data":"{\"id\":\"1\"}"}"#), expected);
    let nested = r#""{\"auth\":\"k:h\",\"user_data\":\"{\\\"id\\\":\\\"1\\\"}\"}""#;
    assert_eq!(read(nested), expected);
    for data in [r#"{"user_data":"x"}"#, r#"{"auth":"","user_data":"x"}"#] {
        assert_eq!(read(data), Some((None, "x".into())), "{data}");
    }
    for data in ["{}", "null", r#"{"user_data":{}}"#, r#"{"auth":1,"user_data":"x"}"#, r#""x""#] {
        assert_eq!(read(data), None, "{data}");
    }
}

#[test]
fn unknown_events_of_the_protocol_are_malformed() {
    for event in
        ["pusher:signin_success", "pusher:connection_established", "pusher:", "pusher:PING"]
    {
        let text = format!(r#"{{"event":"{event}","data":{{"channel":"x"}},"channel":"x"}}"#);
        assert!(parse(&text).is_err(), "{text}");
    }
}

#[test]
fn data_of_client_events_stays_as_sent() {
    for data in [r#"{ "b" : 1, "a":[1.0e3] }"#, "[]", "{}", r#""te\u0078t""#, r#""{\"a\":1}""#] {
        let text = format!(r#"{{"event":"client-x","channel":"private-c","data": {data} }}"#);
        let expected = ("client-x".into(), "private-c".into(), Some(data.to_owned()));
        assert_eq!(client_event_of(&text), Ok(expected));
    }
    for text in [
        r#"{"event":"client-x","channel":"private-c","data":null}"#,
        r#"{"event":"client-x","channel":"private-c"}"#,
    ] {
        assert_eq!(client_event_of(text), Ok(("client-x".into(), "private-c".into(), None)));
    }
}

#[test]
fn client_events_of_other_shapes_are_malformed() {
    for rest in [
        "",
        r#","channel":null"#,
        r#","channel":7"#,
        r#","channel":["x"]"#,
        r#","channel":"x","data":7"#,
        r#","channel":"x","data":-1"#,
        r#","channel":"x","data":true"#,
        r#","channel":"x","data":{]"#,
    ] {
        for event in ["client-x", "other"] {
            let text = format!(r#"{{"event":"{event}"{rest}}}"#);
            assert!(parse(&text).is_err(), "{text}");
        }
    }
}

#[test]
fn events_of_other_names_are_ignored() {
    for event in ["other", "client_x", "Client-x", "pusher_internal:member_added", "pusher"] {
        let text = format!(r#"{{"event":"{event}","channel":"x","data":{{}}}}"#);
        assert!(matches!(parse(&text), Ok(Inbound::Ignored)), "{event}");
    }
}

#[test]
fn nesting_is_no_threat() {
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    assert!(parse(&open).is_err());
    for key in ["event", "data", "channel", "x"] {
        assert!(parse(&format!(r#"{{"event":"client-x","{key}":{open}"#)).is_err());
    }
    let ignored = format!(r#"{{"event":"pusher:ping","x":{open}{close}}}"#);
    assert!(matches!(parse(&ignored), Ok(Inbound::Ping)));
    let relayed = format!(r#"{{"event":"client-x","channel":"c","data":{open}{close}}}"#);
    assert!(client_event_of(&relayed).is_ok());
    let data = serde_json::to_string(&format!(r#"{{"channel":"x","y":{open}{close}}}"#)).unwrap();
    assert!(subscribe_of(&format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#)).is_ok());
    let data = format!(r#"{{"channel":"x","channel_data":"{open}"}}"#);
    assert!(subscribe_of(&format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#)).is_err());
}

proptest! {
    #[test]
    fn no_text_panics(text in ".*", json in r#"[\[\]{}",:a0\\ ]{0,40}"#) {
        let _ = parse(&text);
        let _ = parse(&format!(r#"{{"event":"pusher:subscribe","data":{json}}}"#));
        let _ = parse(&format!(r#"{{"event":"client-x","channel":"x","data":{json}}}"#));
    }

    #[test]
    fn any_strings_come_through(channel in ".*", auth in ".+", data in ".*") {
        let data = serde_json::to_string(&data).unwrap();
        let request = serde_json::json!({ "channel": channel, "auth": auth, "channel_data": data });
        let expected = (channel, Some(auth), Some(data));
        for data in [request.clone(), request.to_string().into()] {
            let text = serde_json::json!({ "event": "pusher:subscribe", "data": data }).to_string();
            prop_assert_eq!(subscribe_of(&text), Ok(expected.clone()));
        }
    }
}
