use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The text of a frame: what stands behind the header.
fn text_of(frame: &Frame) -> String {
    let bytes = frame.bytes();
    let start = bytes.windows(2).position(|pair| pair == br#"{""#).unwrap();
    let text = String::from_utf8(bytes[start..].to_vec()).unwrap();
    assert_eq!(&Frame::text(0, |out| out.extend_from_slice(text.as_bytes())), frame);
    text
}

fn value_of(frame: &Frame) -> Value {
    serde_json::from_str(&text_of(frame)).unwrap()
}

/// `data` of a frame, decoded from its string.
fn data_of(frame: &Frame) -> Value {
    serde_json::from_str(value_of(frame)["data"].as_str().unwrap()).unwrap()
}

fn member(user_info: Option<&str>) -> Member {
    Member { user_id: "1".into(), id_json: "1".into(), user_info: user_info.map(Into::into) }
}

#[test]
fn the_first_message_has_the_form_of_reverb() {
    let id = SocketId { high: 968_569_754, low: 430_884_026 };
    assert_eq!(
        text_of(&connection_established(id, 30)),
        concat!(
            r#"{"event":"pusher:connection_established","#,
            r#""data":"{\"socket_id\":\"968569754.430884026\",\"activity_timeout\":30}"}"#,
        )
    );
}

#[test]
fn ping_and_pong_are_whole_frames() {
    assert_eq!(text_of(&pong()), r#"{"event":"pusher:pong"}"#);
}

#[test]
fn a_client_is_pinged_both_ways_at_once() {
    let text = Frame::text(0, |out| out.extend(br#"{"event":"pusher:ping"}"#));
    // A PING without payload follows (RFC 6455 section 5.5.2).
    let both = [&text.bytes()[..], &[0x89, 0]];
    assert_eq!(ping().bytes()[..], both.concat());
}

#[test]
fn a_sign_in_is_answered_in_the_form_of_pusher() {
    assert_eq!(
        text_of(&signin_success(r#"{"id":"1"}"#)),
        r#"{"event":"pusher:signin_success","data":"{\"user_data\":\"{\\\"id\\\":\\\"1\\\"}\"}"}"#
    );
}

#[test]
fn news_of_watched_users_stay_in_order() {
    let told = |news: &[(&str, bool)]| data_of(&watchlist_events(news.iter().copied()));
    assert_eq!(
        text_of(&watchlist_events([("a", true)].into_iter())),
        concat!(
            r#"{"event":"pusher_internal:watchlist_events","#,
            r#""data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"a\"]}]}"}"#,
        )
    );
    assert_eq!(told(&[]), json!({ "events": [] }));
    assert_eq!(
        told(&[("a", true), ("\"", true), ("b", false), ("a", true)]),
        json!({ "events": [
            { "name": "online", "user_ids": ["a", "\""] },
            { "name": "offline", "user_ids": ["b"] },
            { "name": "online", "user_ids": ["a"] },
        ] })
    );
}

#[test]
fn subscriptions_have_the_form_of_reverb() {
    assert_eq!(
        text_of(&subscription_succeeded("c")),
        r#"{"event":"pusher_internal:subscription_succeeded","data":"{}","channel":"c"}"#
    );
    assert_eq!(
        text_of(&presence_succeeded(&[("1", r#""1""#, Some(r#"{"name":"A"}"#))])),
        concat!(
            r#"{"event":"pusher_internal:subscription_succeeded","#,
            r#""data":"{\"presence\":{\"count\":1,\"ids\":[\"1\"],"#,
            r#"\"hash\":{\"1\":{\"name\":\"A\"}}}}","channel":"presence-r"}"#,
        )
    );
    assert_eq!(
        text_of(&cache_miss("cache-x")),
        r#"{"event":"pusher:cache_miss","channel":"cache-x"}"#
    );
}

#[test]
fn a_number_of_subscribers_has_the_form_of_pusher() {
    assert_eq!(
        text_of(&subscription_count("c", 3)),
        concat!(
            r#"{"event":"pusher_internal:subscription_count","#,
            r#""data":"{\"subscription_count\":3}","channel":"c"}"#,
        )
    );
}

fn presence_succeeded(members: &[(&str, &str, Option<&str>)]) -> Frame {
    let mut list = MemberList::default();
    members.iter().for_each(|&(user_id, id_json, info)| list.push(user_id, id_json, info));
    list.subscription_succeeded("presence-r")
}

#[test]
fn the_presence_hash_is_an_object_for_any_ids() {
    assert_eq!(
        data_of(&presence_succeeded(&[])),
        json!({"presence": {"count": 0, "ids": [], "hash": {}}})
    );
    let members =
        [("0", "0", Some("true")), ("1", "1", None), ("\"ü", r#""\"\u00fc""#, Some("[]"))];
    assert_eq!(
        data_of(&presence_succeeded(&members)),
        json!({"presence": {
            "count": 3,
            "ids": [0, 1, "\"ü"],
            "hash": {"0": true, "1": {}, "\"ü": []},
        }})
    );
}

#[test]
fn members_come_and_go_in_the_form_of_reverb() {
    assert_eq!(
        text_of(&member_added("presence-r", &member(Some(r#"{"name":"A"}"#)))),
        concat!(
            r#"{"event":"pusher_internal:member_added","#,
            r#""data":"{\"user_id\":1,\"user_info\":{\"name\":\"A\"}}","channel":"presence-r"}"#,
        )
    );
    assert_eq!(data_of(&member_added("presence-r", &member(None))), json!({"user_id": 1}));
    assert_eq!(
        text_of(&member_removed("presence-r", r#""1""#)),
        concat!(
            r#"{"event":"pusher_internal:member_removed","#,
            r#""data":"{\"user_id\":\"1\"}","channel":"presence-r"}"#,
        )
    );
}

#[test]
fn published_data_is_escaped_once_and_nothing_more() {
    assert_eq!(
        text_of(&event("App\\Events\\X", r#"{"a":1}"#, "c")),
        r#"{"event":"App\\Events\\X","data":"{\"a\":1}","channel":"c"}"#
    );
    assert_eq!(
        text_of(&event("x", "a/ü😀\u{7f}\u{2028}", "c")),
        "{\"event\":\"x\",\"data\":\"a/ü😀\u{7f}\u{2028}\",\"channel\":\"c\"}"
    );
}

#[test]
fn client_events_pass_their_data_as_it_is() {
    assert_eq!(
        text_of(&client_event("client-x", "presence-c", Some(r#"{ "a":1 }"#), Some("7"))),
        r#"{"event":"client-x","channel":"presence-c","data":{ "a":1 },"user_id":7}"#
    );
    assert_eq!(
        text_of(&client_event("client-x", "private-c", Some(r#""te\u0078t""#), None)),
        r#"{"event":"client-x","channel":"private-c","data":"te\u0078t"}"#
    );
    assert_eq!(
        text_of(&client_event("client-x", "private-c", None, None)),
        r#"{"event":"client-x","channel":"private-c","data":null}"#,
        "without data it carries null"
    );
}

#[test]
fn errors_have_the_form_of_reverb() {
    assert_eq!(
        text_of(&error(4001, "Application does not exist")),
        concat!(
            r#"{"event":"pusher:error","#,
            r#""data":"{\"code\":4001,\"message\":\"Application does not exist\"}"}"#,
        )
    );
    assert_eq!(
        text_of(&subscription_error(
            "private-x",
            "AuthError",
            "The connection is unauthorized.",
            401
        )),
        concat!(
            r#"{"event":"pusher:subscription_error","channel":"private-x","#,
            r#""data":{"type":"AuthError","error":"The connection is unauth"#,
            r#"orized.","status":401}}"#,
        )
    );
}

#[test]
fn no_frame_outgrows_its_first_guess_by_its_form() {
    for frame in [
        connection_established(SocketId { high: u64::MAX, low: u64::MAX }, u32::MAX),
        subscription_succeeded(""),
        member_removed("", ""),
        event("", "", ""),
        client_event("", "", None, None),
        error(4009, ""),
    ] {
        assert!(text_of(&frame).len() <= FORM_LEN + 64, "{frame:?}");
    }
}

proptest! {
    #[test]
    fn strings_are_escaped_as_serde_does(text in any::<String>()) {
        let mut out = Json::default();
        out.string(&text);
        prop_assert_eq!(out.0, serde_json::to_vec(&text).unwrap());
    }

    #[test]
    fn any_event_comes_through(name in ".*", data in any::<String>(), channel in ".*") {
        let expected = json!({"event": name, "data": data, "channel": channel});
        prop_assert_eq!(value_of(&event(&name, &data, &channel)), expected);
    }
}
