use super::super::rules::{KeyPair, test_rules};
use super::super::secret::Secret;
use super::*;

const SOCKET: SocketId = SocketId { high: 1234, low: 1234 };

/// The rules of the vectors in Pusher's documentation of authentication signatures.
fn documented_rules() -> AppRules {
    AppRules {
        key: "278d425bdf160c739803".into(),
        secret: Secret::new("7ad3773142a6692b25b8"),
        ..test_rules()
    }
}

const PRIVATE: &str =
    "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4";
const PRESENCE: &str =
    "278d425bdf160c739803:31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80";
const PRESENCE_DATA: &str = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text, 200, false).unwrap()
}

fn ask(
    rules: &AppRules,
    channel: &str,
    auth: Option<&str>,
    data: Option<&str>,
) -> Result<Option<Member>, AuthError> {
    let authorised = authorise(rules, SOCKET, name(channel), auth, data, None)?;
    assert_eq!(authorised.channel().as_str(), channel);
    Ok(authorised.member().map(|member| Member::clone(member)))
}

/// Asks with a right signature over whatever is sent.
fn ask_signed(
    rules: &AppRules,
    channel: &str,
    data: Option<&str>,
) -> Result<Option<Member>, AuthError> {
    let signed = match data {
        Some(data) => format!("{SOCKET}:{channel}:{data}"),
        None => format!("{SOCKET}:{channel}"),
    };
    let auth = format!("{}:{}", rules.key, rules.secret.sign(&[signed.as_bytes()]));
    ask(rules, channel, Some(&auth), data)
}

fn ask_member(rules: &AppRules, data: &str) -> Result<Member, AuthError> {
    ask_signed(rules, "presence-x", Some(data)).map(Option::unwrap)
}

#[test]
fn the_documented_private_signature_fits() {
    let rules = documented_rules();
    assert_eq!(ask(&rules, "private-foobar", Some(PRIVATE), None), Ok(None));
    let upper = PRIVATE.replace("58df8b", "58DF8B");
    assert_eq!(ask(&rules, "private-foobar", Some(&upper), None), Ok(None));
}

#[test]
fn each_key_of_an_app_signs_with_its_own_secret_and_with_no_other() {
    let second = KeyPair { key: "second".into(), secret: Secret::new("second-secret") };
    let rules = AppRules { more_keys: vec![second], ..test_rules() };
    let ask_by = |key: &str, secret: &str| {
        let signed = format!("{SOCKET}:private-x");
        let auth = format!("{key}:{}", Secret::new(secret).sign(&[signed.as_bytes()]));
        ask(&rules, "private-x", Some(&auth), None)
    };
    assert_eq!(ask_by("app-key", "app-secret"), Ok(None));
    assert_eq!(ask_by("second", "second-secret"), Ok(None));
    assert_eq!(ask_by("second", "app-secret"), Err(AuthError::Signature));
    assert_eq!(ask_by("app-key", "second-secret"), Err(AuthError::Signature));
    assert_eq!(ask_by("third", "second-secret"), Err(AuthError::WrongKey));
}

#[test]
fn the_documented_presence_signature_fits() {
    let member =
        ask(&documented_rules(), "presence-foobar", Some(PRESENCE), Some(PRESENCE_DATA)).unwrap();
    let expected = Member {
        user_id: "10".into(),
        id_json: "10".into(),
        user_info: Some(r#"{"name":"Mr. Channels"}"#.into()),
    };
    assert_eq!(member, Some(expected));
}

/// The example of earlier documentation, kept by the tests of many client libraries.
#[test]
fn the_formerly_documented_presence_signature_fits() {
    let data = PRESENCE_DATA.replace("Channels", "Pusher");
    let auth =
        "278d425bdf160c739803:afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c";
    assert!(ask(&documented_rules(), "presence-foobar", Some(auth), Some(&data)).is_ok());
}

#[test]
fn the_documented_user_signature_fits() {
    let parts: [&[u8]; 2] = [b"1234.1234::user::", br#"{"id":"12345"}"#];
    assert_eq!(
        documented_rules().secret.sign(&parts),
        "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba"
    );
}

#[test]
fn a_signature_is_for_one_socket_channel_and_data() {
    let rules = documented_rules();
    let other = SocketId { high: 1234, low: 1235 };
    let refused = authorise(&rules, other, name("private-foobar"), Some(PRIVATE), None, None);
    assert_eq!(refused.map(|_| ()), Err(AuthError::Signature));
    assert_eq!(ask(&rules, "private-foobaz", Some(PRIVATE), None), Err(AuthError::Signature));
    assert_eq!(ask(&rules, "private-foobar", Some(PRIVATE), Some("{}")), Err(AuthError::Signature));
    let changed = PRESENCE_DATA.replace("10", "11");
    assert_eq!(
        ask(&rules, "presence-foobar", Some(PRESENCE), Some(&changed)),
        Err(AuthError::Signature)
    );
    assert_eq!(ask(&rules, "presence-foobar", Some(PRESENCE), None), Err(AuthError::Signature));
}

#[test]
fn data_of_a_private_channel_is_signed_too() {
    assert_eq!(ask_signed(&test_rules(), "private-x", Some(r#"{"a":1}"#)), Ok(None));
    assert_eq!(ask_signed(&test_rules(), "private-encrypted-x", None), Ok(None));
}

#[test]
fn signatures_of_other_forms_are_refused() {
    let rules = documented_rules();
    let ask = |auth: &str| ask(&rules, "private-foobar", Some(auth), None);
    let (key, digits) = PRIVATE.split_once(':').unwrap();
    for auth in ["", ":", digits, &format!(":{digits}"), &format!("{key}x:{digits}")] {
        assert_eq!(ask(auth), Err(AuthError::WrongKey), "{auth}");
    }
    let short = digits.get(1..).unwrap();
    for rest in ["", short, &format!("{digits}0"), &format!("x{short}")] {
        assert_eq!(ask(&format!("{key}:{rest}")), Err(AuthError::Signature), "{rest}");
    }
    assert_eq!(ask(&format!("{key}:{digits}:")), Err(AuthError::WrongKey), "cut at the last colon");
}

#[test]
fn a_key_may_have_colons() {
    let second = KeyPair { key: "base64:b:=".into(), secret: Secret::new("second-secret") };
    let rules = AppRules { key: "base64:a/b+c=".into(), more_keys: vec![second], ..test_rules() };
    assert_eq!(ask_signed(&rules, "private-x", None), Ok(None));
    assert!(ask_member(&rules, r#"{"user_id":1}"#).is_ok());
    let signature = Secret::new("second-secret").sign(&[format!("{SOCKET}:private-x").as_bytes()]);
    let by = |key: &str| ask(&rules, "private-x", Some(&format!("{key}:{signature}")), None);
    assert_eq!(by("base64:b:="), Ok(None));
    assert_eq!(by("base64"), Err(AuthError::WrongKey));
    assert_eq!(by("base64:a/b+c="), Err(AuthError::Signature));
}

#[test]
fn only_kinds_that_need_none_pass_without_a_signature() {
    let rules = test_rules();
    for channel in ["news", "cache-news", "privatefoo"] {
        assert_eq!(ask(&rules, channel, None, None), Ok(None));
        assert_eq!(ask(&rules, channel, Some("junk"), Some("junk")), Ok(None));
    }
    for channel in ["private-x", "private-cache-x", "private-encrypted-x", "presence-x"] {
        assert_eq!(ask(&rules, channel, None, None), Err(AuthError::Missing), "{channel}");
    }
}

#[test]
fn channels_of_users_need_a_sign_in() {
    let refused = ask_signed(&test_rules(), "#server-to-user-1", None);
    assert_eq!(refused, Err(AuthError::SignInNeeded));
    let user = Arc::new(Member {
        user_id: "1".into(),
        id_json: r#""1""#.into(),
        user_info: Some("{}".into()),
    });
    let join = |channel: &str| {
        authorise(&test_rules(), SOCKET, name(channel), None, None, Some(&user)).map(|_| ())
    };
    assert_eq!(join("#server-to-user-1"), Ok(()));
    for other in ["#server-to-user-", "#server-to-user-12", "#server-to-user-01"] {
        assert_eq!(join(other), Err(AuthError::SignInNeeded), "{other}");
    }
    assert_eq!(join("private-x"), Err(AuthError::Missing));
}

#[test]
fn who_is_signed_in_may_leave_out_the_data_of_a_presence_channel() {
    let mut rules = test_rules();
    let user = Arc::new(Member {
        user_id: "1".into(),
        id_json: r#""1""#.into(),
        user_info: Some(r#"{"name":"A"}"#.into()),
    });
    let signed = rules.secret.sign(&[format!("{SOCKET}:presence-x").as_bytes()]);
    let auth = format!("app-key:{signed}");
    let join = |rules: &AppRules, auth: Option<&str>| {
        authorise(rules, SOCKET, name("presence-x"), auth, None, Some(&user))
            .map(|authorised| Arc::clone(authorised.member().unwrap()))
    };
    assert!(Arc::ptr_eq(&join(&rules, Some(&auth)).unwrap(), &user));
    assert_eq!(join(&rules, None), Err(AuthError::Missing));
    rules.limits.max_presence_user_info = Some(5);
    assert_eq!(join(&rules, Some(&auth)), Err(AuthError::UserInfoTooLarge));
    // The data that the app signs for the channel takes precedence.
    let data = r#"{"user_id":"2"}"#;
    let signed = rules.secret.sign(&[format!("{SOCKET}:presence-x:{data}").as_bytes()]);
    let auth = format!("app-key:{signed}");
    let joined =
        authorise(&rules, SOCKET, name("presence-x"), Some(&auth), Some(data), Some(&user))
            .unwrap();
    assert_eq!(joined.member().map(|member| &*member.user_id), Some("2"));
}

#[test]
fn ids_keep_their_json_form_and_compare_as_text() {
    let rules = test_rules();
    let number = ask_member(&rules, r#"{"user_id":10}"#).unwrap();
    let text = ask_member(&rules, r#"{ "user_id" : "10" , "user_info": null }"#).unwrap();
    assert_eq!((&*number.user_id, &*number.id_json), ("10", "10"));
    assert_eq!((&*text.user_id, &*text.id_json), ("10", r#""10""#));
    assert_eq!((number.user_info, text.user_info), (None, None));
    let escaped = ask_member(&rules, r#"{"user_id":"\u00fc\/"}"#).unwrap();
    assert_eq!((&*escaped.user_id, &*escaped.id_json), ("ü/", r#""\u00fc\/""#));
    assert_eq!(&*ask_member(&rules, r#"{"user_id":0}"#).unwrap().user_id, "0");
}

#[test]
fn user_info_may_be_any_json() {
    let rules = test_rules();
    for info in ["true", "[]", r#""x""#, r#"{"a": [1, 2]}"#, "0"] {
        let data = format!(r#"{{"user_info":{info},"user_id":"a"}}"#);
        assert_eq!(ask_member(&rules, &data).unwrap().user_info.as_deref(), Some(info));
    }
}

#[test]
fn members_without_a_plain_id_are_refused() {
    let rules = test_rules();
    let deep = "[".repeat(100_000);
    for data in [
        "",
        "{}",
        "null",
        "[]",
        "[1]",
        "1",
        "\"{}\"",
        r#"{"user_id":null}"#,
        r#"{"user_id":""}"#,
        r#"{"user_id":true}"#,
        r#"{"user_id":[1]}"#,
        r#"{"user_id":{}}"#,
        r#"{"user_id":01}"#,
        r#"{"user_id":1,"user_id":2}"#,
        r#"{"user_id":"\ud800"}"#,
        r#"{"user_id":1} x"#,
        r#"{"user_info":{}}"#,
        &deep,
        &format!(r#"{{"user_id":1,"user_info":{deep}}}"#),
    ] {
        assert_eq!(ask_member(&rules, data), Err(AuthError::ChannelData), "{data:.40}");
    }
    assert_eq!(ask_signed(&rules, "presence-x", None), Err(AuthError::ChannelData));
}

#[test]
fn ids_and_infos_have_limits() {
    let mut rules = test_rules();
    rules.limits.max_user_id = 3;
    rules.limits.max_presence_user_info = Some(7);
    assert!(ask_member(&rules, r#"{"user_id":123,"user_info":{"a":1}}"#).is_ok());
    assert!(ask_member(&rules, r#"{"user_id":"\u0061bc"}"#).is_ok());
    assert_eq!(ask_member(&rules, r#"{"user_id":1234}"#), Err(AuthError::UserIdTooLong));
    let large = r#"{"user_id":1,"user_info":{"a":12}}"#;
    assert_eq!(ask_member(&rules, large), Err(AuthError::UserInfoTooLarge));
}

#[test]
fn a_secret_prints_nothing_of_itself() {
    let rules = documented_rules();
    let printed = format!("{rules:?} {:?}", rules.secret);
    assert!(printed.contains("[withheld]") && !printed.contains("7ad377"));
}
