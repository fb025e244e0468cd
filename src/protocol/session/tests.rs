use proptest::prelude::*;

use std::sync::Arc;

use super::super::auth::AuthError;
use super::super::names::NameError;
use super::super::rules::{RateLimit, Standing, test_rules};
use super::*;

const SOCKET: SocketId = SocketId { high: 12, low: 34 };
const NOW: Millis = Millis(1_000_000);
const PING: &str = r#"{"event":"pusher:ping","data":{}}"#;

/// A session with its rules.
struct Connection {
    session: Session,
    rules: AppRules,
}

impl Connection {
    fn handle<'t>(&mut self, text: &'t str, user: Option<&Arc<Member>>, now: Millis) -> Action<'t> {
        self.session.handle(&self.rules, text, user, now)
    }
}

fn session(rules: AppRules) -> Connection {
    Connection { session: Session::new(SOCKET), rules }
}

/// The error of a refusal whose frame is nothing but that error's message.
fn refusal(action: &Action<'_>) -> ProtocolError {
    let Action::Refuse(error, frame) = action else { panic!("{action:?}") };
    assert_eq!(*frame, error_frame(*error));
    *error
}

fn refusal_of(rules: AppRules, text: &str) -> ProtocolError {
    refusal(&session(rules).handle(text, None, NOW))
}

fn whisper(channel: &str) -> String {
    format!(r#"{{"event":"client-x","channel":"{channel}","data":{{"a":1}}}}"#)
}

fn subscribe(channel: &str, auth: &str, data: &str) -> String {
    format!(
        r#"{{"event":"pusher:subscribe","data":
        {{"channel":"{channel}","auth":"{auth}","channel_data":{data}}}}}"#
    )
}

fn signed(channel: &str, data: &str) -> String {
    let signature = test_rules().secret.sign(&[format!("{SOCKET}:{channel}{data}").as_bytes()]);
    format!("app-key:{signature}")
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<Session>() <= 64, "{}", size_of::<Session>());
}

#[test]
fn the_first_message_tells_id_and_timeout() {
    let Connection { session, rules } = session(test_rules());
    assert_eq!(session.established(&rules), outbound::connection_established(SOCKET, 30));
    assert_eq!(session.socket_id(), SOCKET);
}

#[test]
fn what_its_app_became_meanwhile_holds_for_the_next_message() {
    let mut connected = session(test_rules());
    let whisper = whisper("private-x");
    assert!(matches!(connected.handle(&whisper, None, NOW), Action::ClientEvent(_)));
    connected.rules.client_events = ClientEvents::None;
    assert_eq!(refusal(&connected.handle(&whisper, None, NOW)), ProtocolError::ClientEventsOff);
    for standing in [Standing::Disabled, Standing::Removed] {
        connected.rules.standing = standing;
        let action = connected.handle(PING, None, NOW);
        assert!(matches!(action, Action::Close(ProtocolError::AppDisabled)), "{action:?}");
    }
}

#[test]
fn pings_are_answered_and_pongs_and_unknown_events_are_not() {
    let mut session = session(test_rules());
    assert!(
        matches!(session.handle(PING, None, NOW), Action::Reply(frame) if frame == outbound::pong())
    );
    for text in [r#"{"event":"pusher:pong"}"#, r#"{"event":"other","channel":"x"}"#] {
        assert!(matches!(session.handle(text, None, NOW), Action::Nothing), "{text}");
    }
}

#[test]
fn what_is_malformed_is_told_and_the_connection_goes_on() {
    let mut session = session(test_rules());
    for text in ["", "{}", r#"{"event":"pusher:signin","data":{}}"#] {
        assert_eq!(refusal(&session.handle(text, None, NOW)), ProtocolError::Malformed);
    }
    assert!(matches!(session.handle(PING, None, NOW), Action::Reply(_)));
}

#[test]
fn subscribes_come_out_with_their_proof() {
    let mut session = session(test_rules());
    let data = r#""{\"user_id\":7}""#;
    for (channel, auth, data, user) in [
        ("news", String::new(), "null", None),
        ("private-x", signed("private-x", ""), "null", None),
        ("presence-x", signed("presence-x", r#":{"user_id":7}"#), data, Some("7")),
    ] {
        let text = subscribe(channel, &auth, data);
        let Action::Subscribe(authorised) = session.handle(&text, None, NOW) else {
            panic!("{text}")
        };
        assert_eq!(authorised.channel().as_str(), channel);
        assert_eq!(authorised.member().map(|member| &*member.user_id), user);
    }
}

#[test]
fn subscribes_without_proof_are_unauthorised() {
    let other_socket = signed("private-x", "").replace("app-key", "other-key");
    for (auth, reason) in [
        ("", AuthError::Missing),
        (&*other_socket, AuthError::WrongKey),
        (&signed("private-y", ""), AuthError::Signature),
    ] {
        let refused = refusal_of(test_rules(), &subscribe("private-x", auth, "null"));
        assert_eq!(refused, ProtocolError::Unauthorised(reason));
    }
    let refused = refusal_of(test_rules(), &subscribe("#server-to-user-1", "", "null"));
    assert_eq!(refused, ProtocolError::Unauthorised(AuthError::SignInNeeded));
}

fn sign_in_as(user_data: &str) -> String {
    let signature = test_rules().secret.sign(&[format!("{SOCKET}::user::{user_data}").as_bytes()]);
    let data =
        serde_json::json!({ "auth": format!("app-key:{signature}"), "user_data": user_data });
    serde_json::json!({ "event": "pusher:signin", "data": data }).to_string()
}

#[test]
fn a_sign_in_is_answered_with_what_was_signed() {
    let mut session = session(test_rules());
    let data = r#"{"id":"1","watchlist":["2"]}"#;
    let Action::SignIn(signed_in, answer) = session.handle(&sign_in_as(data), None, NOW) else {
        panic!()
    };
    assert_eq!(answer, outbound::signin_success(data));
    let (user, watchlist) = signed_in.into_parts();
    assert_eq!((&*user.user_id, &*watchlist), ("1", &["2".into()][..]));
    // Once more as the same one, but not as another.
    let [same, other] = [r#"{"id":"1"}"#, r#"{"id":"2"}"#].map(sign_in_as);
    assert!(matches!(session.handle(&same, Some(&user), NOW), Action::SignIn(..)));
    let refused = refusal(&session.handle(&other, Some(&user), NOW));
    assert_eq!(refused, ProtocolError::Unauthorised(AuthError::OtherUser));
    let text = subscribe("#server-to-user-1", "", "null");
    assert!(matches!(session.handle(&text, Some(&user), NOW), Action::Subscribe(_)));
}

#[test]
fn a_sign_in_with_too_long_a_watchlist_succeeds_and_is_told_so() {
    let mut rules = test_rules();
    rules.limits.max_watchlist = 1;
    let data = r#"{"id":"1","watchlist":["2","3"]}"#;
    let mut session = session(rules);
    let Action::SignIn(signed_in, answer) = session.handle(&sign_in_as(data), None, NOW) else {
        panic!()
    };
    let error = error_frame(ProtocolError::WatchlistTooLong);
    assert_eq!(answer, joined(&[outbound::signin_success(data), error]));
    assert_eq!(signed_in.into_parts().1, [Arc::<str>::from("2")]);
}

#[test]
fn a_sign_in_without_its_signature_is_unauthorised() {
    let text = sign_in_as(r#"{"id":"1"}"#).replace("app-key", "other-key");
    assert_eq!(refusal_of(test_rules(), &text), ProtocolError::Unauthorised(AuthError::WrongKey));
    let refused = refusal_of(test_rules(), &sign_in_as(r#"{"id":1}"#));
    assert_eq!(refused, ProtocolError::Unauthorised(AuthError::UserData));
}

#[test]
fn a_refused_subscribe_is_told_on_the_channel_if_the_app_wants_it() {
    let rules = AppRules { subscription_errors: true, ..test_rules() };
    let mut session = session(rules);
    let text = subscribe("private-x", "", "null");
    let Action::Refuse(error, frame) = session.handle(&text, None, NOW) else { panic!() };
    assert_eq!(frame, subscribe_refusal(error, "private-x", true));
    assert_ne!(frame, error_frame(error));
}

#[test]
fn names_are_held_to_the_rules_of_the_app() {
    let long = "x".repeat(201);
    let refused = refusal_of(test_rules(), &subscribe(&long, "", "null"));
    assert_eq!(refused, ProtocolError::ChannelName(NameError::TooLong { max_len: 200 }));
    let refused = refusal_of(test_rules(), &subscribe("", "", "null"));
    assert_eq!(refused, ProtocolError::ChannelName(NameError::Empty));
    let text = subscribe("a/b", "", "null");
    assert!(matches!(session(test_rules()).handle(&text, None, NOW), Action::Subscribe(_)));
    let strict = AppRules { strict_names: true, ..test_rules() };
    assert_eq!(refusal_of(strict, &text), ProtocolError::ChannelName(NameError::Alphabet));
}

#[test]
fn unsubscribes_pass_their_name_whatever_it_is() {
    for name in ["x", "", "private-x"] {
        let text = format!(r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{name}"}}}}"#);
        let mut session = session(test_rules());
        let action = session.handle(&text, None, NOW);
        assert!(matches!(action, Action::Unsubscribe(channel) if channel == name));
    }
}

#[test]
fn client_events_pass_as_the_app_allows() {
    for (client_events, must_be_member) in
        [(ClientEvents::Members, true), (ClientEvents::All, false)]
    {
        let mut session = session(AppRules { client_events, ..test_rules() });
        for channel in ["private-x", "presence-x", "private-encrypted-x", "private-cache-x"] {
            let text = whisper(channel);
            let Action::ClientEvent(event) = session.handle(&text, None, NOW) else {
                panic!("{text}")
            };
            assert_eq!((event.channel.as_str(), &*event.event), (channel, "client-x"));
            assert_eq!(event.data.map(RawValue::get), Some(r#"{"a":1}"#));
            assert_eq!(event.must_be_member, must_be_member);
        }
    }
    let none = AppRules { client_events: ClientEvents::None, ..test_rules() };
    assert_eq!(refusal_of(none, &whisper("private-x")), ProtocolError::ClientEventsOff);
}

#[test]
fn client_events_on_public_channels_are_the_apps_choice() {
    for channel in ["x", "cache-x", "privatefoo", "#server-to-user-1"] {
        let refused = refusal_of(test_rules(), &whisper(channel));
        assert_eq!(refused, ProtocolError::ClientEventOnPublic, "{channel}");
    }
    let open = || AppRules { client_events_on_public: true, ..test_rules() };
    for channel in ["x", "cache-x"] {
        let text = whisper(channel);
        let mut session = session(open());
        assert!(matches!(session.handle(&text, None, NOW), Action::ClientEvent(_)), "{channel}");
    }
    let refused = refusal_of(open(), &whisper("#server-to-user-1"));
    assert_eq!(refused, ProtocolError::ClientEventOnPublic);
}

#[test]
fn client_events_have_limits() {
    let rules = || {
        let mut rules = test_rules();
        rules.limits.max_event_name = Some(8);
        rules.limits.max_client_event_data = Some(7);
        rules
    };
    let text = whisper("private-x");
    assert!(matches!(session(rules()).handle(&text, None, NOW), Action::ClientEvent(_)));
    for (from, to, error) in [
        ("client-x", "client-xy", ProtocolError::ClientEventName),
        ("client-x", "client-\\n", ProtocolError::ClientEventName),
        (r#""a":1"#, r#""a":12"#, ProtocolError::ClientEventTooLarge),
        ("private-x", "", ProtocolError::ChannelName(NameError::Empty)),
    ] {
        assert_eq!(refusal_of(rules(), &text.replace(from, to)), error);
    }
}

#[test]
fn client_events_per_second_are_exact() {
    let mut rules = test_rules();
    rules.limits.max_client_events_per_second = Some(3);
    let mut session = session(rules);
    let text = whisper("private-x");
    for second in 0..3 {
        let start = NOW + Duration::from_secs(second);
        for event in 0..5 {
            let action = session.handle(&text, None, start + Duration::from_millis(199 * event));
            match event {
                0..3 => assert!(matches!(action, Action::ClientEvent(_)), "{second} {event}"),
                _ => assert_eq!(refusal(&action), ProtocolError::RateLimited),
            }
        }
        assert!(matches!(session.handle(PING, None, start), Action::Reply(_)));
    }
}

#[test]
fn the_rate_limit_counts_every_message() {
    let rate_limit =
        RateLimit { max_attempts: 4, decay: Duration::from_secs(10), terminate: false };
    let mut session = session(AppRules { rate_limit: Some(rate_limit), ..test_rules() });
    let text = whisper("private-x");
    for text in [PING, "junk", &text, r#"{"event":"pusher:pong"}"#] {
        assert!(!matches!(
            session.handle(text, None, NOW),
            Action::Refuse(ProtocolError::RateLimited, _)
        ));
    }
    let last = NOW + Duration::from_millis(9_999);
    assert_eq!(refusal(&session.handle(PING, None, last)), ProtocolError::RateLimited);
    assert_eq!(refusal(&session.handle("junk", None, last)), ProtocolError::RateLimited);
    assert!(matches!(session.handle(PING, None, NOW + Duration::from_secs(10)), Action::Reply(_)));
}

#[test]
fn the_rate_limit_ends_the_connection_if_the_app_says_so() {
    let rate_limit = RateLimit { max_attempts: 1, decay: Duration::from_secs(1), terminate: true };
    let mut session = session(AppRules { rate_limit: Some(rate_limit), ..test_rules() });
    assert!(matches!(session.handle(PING, None, NOW), Action::Reply(_)));
    let action = session.handle(PING, None, NOW);
    assert!(matches!(action, Action::Close(ProtocolError::RateLimited)));
}

#[test]
fn a_limit_of_none_admits_none() {
    let mut window = Window::default();
    assert!(!window.admits(0, Duration::from_secs(1), NOW));
}

#[test]
fn a_window_starts_with_its_first_message() {
    let mut window = Window::default();
    let admitted =
        [500, 1_100, 1_499, 1_500].map(|at| window.admits(2, Duration::from_secs(1), Millis(at)));
    assert_eq!(admitted, [true, true, false, true]);
}

#[test]
fn protocol_versions_that_look_the_same_are_spoken() {
    for query in
        ["", "protocol=5", "protocol=6&x", "client=js&protocol=7", "%70rotocol=7", "Protocol=9"]
    {
        assert_eq!(check_protocol_version(query), Ok(()), "{query}");
    }
    for query in
        ["protocol=4", "protocol=8", "protocol=", "protocol", "protocol=7.0", "a&protocol=x"]
    {
        let refused = Err(ProtocolError::UnsupportedVersion);
        assert_eq!(check_protocol_version(query), refused, "{query}");
    }
}

proptest! {
    #[test]
    fn a_window_never_admits_more_than_its_limit(
        steps in proptest::collection::vec(0_u64..400, 1..200),
        max in 1_u32..6,
    ) {
        let length = Duration::from_secs(1);
        let (mut window, mut now) = (Window::default(), NOW);
        let mut admitted = Vec::new();
        for step in steps {
            now = now + Duration::from_millis(step);
            if window.admits(max, length, now) {
                admitted.push(now);
            } else {
                // Refused only when at least this many were admitted in the length before.
                let recent = admitted.iter().filter(|&&then| now.since(then) < length).count();
                prop_assert!(recent >= max as usize);
            }
        }
        // Two windows may touch, so no length of time has more than twice the limit.
        for (at, &start) in admitted.iter().enumerate() {
            let within = admitted[at..].iter().filter(|then| then.since(start) < length).count();
            prop_assert!(within <= 2 * max as usize);
        }
    }

    #[test]
    fn no_private_channel_opens_without_its_signature(
        (auth, data, name) in (".*", ".*", "[a-z-]{0,9}"),
    ) {
        let channel = format!("private-{name}");
        let request =
            serde_json::json!({ "channel": channel, "auth": auth, "channel_data": data });
        let text =
            serde_json::json!({ "event": "pusher:subscribe", "data": request }).to_string();
        let mut session = session(test_rules());
        prop_assert!(matches!(session.handle(&text, None, NOW), Action::Refuse(..)));
    }

    #[test]
    fn no_message_panics(text in ".*") {
        let mut session = session(AppRules { subscription_errors: true, ..test_rules() });
        let _ = session.handle(&text, None, NOW);
        let _ = check_protocol_version(&text);
    }
}
