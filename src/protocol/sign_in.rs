//! Floor 1. The proof that a connection belongs to a user of the app.
//!
//! Contract: a [`SignedIn`] exists only because a signature of the app fitted. It never holds more
//! watched users than the app allows.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::id::SocketId;

use super::auth::{AuthError, Member, user_id_text, verify};
use super::message::object;
use super::rules::AppRules;

/// The proof that a connection may act as a user, with the user's watchlist.
#[derive(Debug)]
pub struct SignedIn {
    user: Arc<Member>,
    watchlist: Vec<Arc<str>>,
    cut: bool,
}

impl SignedIn {
    /// The user.
    #[must_use]
    pub(crate) const fn user(&self) -> &Arc<Member> {
        &self.user
    }

    /// Whether the watchlist was longer than the app allows.
    #[must_use]
    pub(crate) const fn cut(&self) -> bool {
        self.cut
    }

    /// The ids of the users that the user watches, each once.
    pub(crate) fn watchlist(&self) -> impl Iterator<Item = &str> {
        self.watchlist.iter().map(|id| &**id)
    }

    /// Returns the user, and the ids of the users that the user watches, each once.
    #[must_use]
    pub fn into_parts(self) -> (Arc<Member>, Vec<Arc<str>>) {
        (self.user, self.watchlist)
    }
}

/// Decides whether the connection `socket_id` is the user whom `user_data` describes.
///
/// The signature is that of the Pusher protocol: `key:hex(HMAC-SHA256(secret,
/// socket_id::user::user_data))`. The `id` is a string, as client libraries insist; ids of the
/// `watchlist` may be numbers too. A watchlist that is too long is cut, as Pusher does.
///
/// # Errors
/// The reason, for the log: clients are told no more than that they are not authorised.
pub(crate) fn sign_in(
    rules: &AppRules,
    socket_id: SocketId,
    auth: Option<&str>,
    user_data: &str,
) -> Result<SignedIn, AuthError> {
    let socket_id = socket_id.to_string();
    verify(rules, auth, &[socket_id.as_bytes(), b"::user::", user_data.as_bytes()])?;
    let data: UserData<'_> = object(user_data).map_err(|_| AuthError::UserData)?;
    let id_json = data.id.get();
    if !id_json.starts_with('"') {
        return Err(AuthError::UserData);
    }
    let user = Member {
        user_id: user_id(rules, id_json)?,
        id_json: id_json.into(),
        user_info: data.user_info.map(|info| info.get().into()),
    };
    let watched = data.watchlist.unwrap_or_default();
    let mut seen = HashSet::new();
    let mut watchlist = Vec::new();
    let mut cut = false;
    for id in watched {
        let id = user_id(rules, id.get())?;
        if seen.contains(&id) {
            continue;
        }
        if watchlist.len() == rules.limits.max_watchlist {
            cut = true;
            break;
        }
        seen.insert(Arc::clone(&id));
        watchlist.push(id);
    }
    Ok(SignedIn { user: Arc::new(user), watchlist, cut })
}

/// The data that the app gives about its user.
#[derive(Deserialize)]
struct UserData<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow, default)]
    user_info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    watchlist: Option<Vec<&'a RawValue>>,
}

fn user_id(rules: &AppRules, json: &str) -> Result<Arc<str>, AuthError> {
    let id = user_id_text(json).ok_or(AuthError::UserData)?;
    if id.len() > rules.limits.max_user_id { Err(AuthError::UserIdTooLong) } else { Ok(id.into()) }
}

#[cfg(test)]
mod tests {
    use super::super::rules::test_rules;
    use super::super::secret::Secret;
    use super::*;

    const SOCKET: SocketId = SocketId { high: 1234, low: 1234 };

    /// Asks with a right signature.
    fn ask(rules: &AppRules, user_data: &str) -> Result<SignedIn, AuthError> {
        let signature = rules.secret.sign(&[format!("{SOCKET}::user::{user_data}").as_bytes()]);
        sign_in(rules, SOCKET, Some(&format!("{}:{signature}", rules.key)), user_data)
    }

    fn refused(rules: &AppRules, user_data: &str) -> AuthError {
        ask(rules, user_data).expect_err(user_data)
    }

    fn watched(rules: &AppRules, user_data: &str) -> (Vec<String>, bool) {
        let signed_in = ask(rules, user_data).unwrap();
        let cut = signed_in.cut();
        (signed_in.into_parts().1.iter().map(ToString::to_string).collect(), cut)
    }

    #[test]
    fn the_documented_signature_fits() {
        let rules = AppRules {
            key: "278d425bdf160c739803".into(),
            secret: Secret::new("7ad3773142a6692b25b8"),
            ..test_rules()
        };
        let auth =
            "278d425bdf160c739803:4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba";
        let data = r#"{"id":"12345"}"#;
        let signed_in = sign_in(&rules, SOCKET, Some(auth), data).unwrap();
        assert_eq!(&*signed_in.user().user_id, "12345");
        let other = SocketId { high: 1234, low: 1235 };
        for (socket, auth, data, error) in [
            (other, Some(auth), data, AuthError::Signature),
            (SOCKET, Some(auth), r#"{"id":"12346"}"#, AuthError::Signature),
            (SOCKET, Some(&auth[1..]), data, AuthError::WrongKey),
            (SOCKET, Some(&auth[..80]), data, AuthError::Signature),
            (SOCKET, None, data, AuthError::Missing),
        ] {
            let refused = sign_in(&rules, socket, auth, data).expect_err(data);
            assert_eq!(refused, error, "{socket} {auth:?} {data}");
        }
    }

    #[test]
    fn a_signature_of_a_channel_signs_nobody_in() {
        let (rules, data) = (test_rules(), r#"{"id":"1"}"#);
        let signature = rules.secret.sign(&[format!("{SOCKET}:private-x:{data}").as_bytes()]);
        let auth = format!("app-key:{signature}");
        assert_eq!(
            sign_in(&rules, SOCKET, Some(&auth), data).expect_err(data),
            AuthError::Signature
        );
    }

    #[test]
    fn a_user_is_kept_as_signed() {
        let signed_in =
            ask(&test_rules(), r#"{"id":"\u00fc","user_info":{"a": [1]},"name":"x"}"#).unwrap();
        let user = signed_in.user();
        assert_eq!((&*user.user_id, &*user.id_json), ("ü", r#""\u00fc""#));
        assert_eq!(user.user_info.as_deref(), Some(r#"{"a": [1]}"#));
        assert!(ask(&test_rules(), r#"{"id":"0"}"#).unwrap().user().user_info.is_none());
    }

    #[test]
    fn users_without_an_id_of_text_are_refused() {
        let deep = format!(r#"{{"id":"1","user_info":{}"#, "[".repeat(100_000));
        for data in [
            "",
            "null",
            "[]",
            "{}",
            "\"1\"",
            r#"{"id":1}"#,
            r#"{"id":""}"#,
            r#"{"id":null}"#,
            r#"{"id":["1"]}"#,
            r#"{"user_id":"1"}"#,
            r#"{"id":"1","id":"2"}"#,
            r#"{"id":"1"} x"#,
            r#"{"id":"1","watchlist":"2"}"#,
            r#"{"id":"1","watchlist":{"0":"2"}}"#,
            r#"{"id":"1","watchlist":[""]}"#,
            r#"{"id":"1","watchlist":["2",null]}"#,
            r#"{"id":"1","watchlist":[["2"]]}"#,
            &deep,
        ] {
            assert_eq!(refused(&test_rules(), data), AuthError::UserData, "{data:.40}");
        }
    }

    #[test]
    fn a_watchlist_has_each_user_once_and_no_more_than_allowed() {
        let mut rules = test_rules();
        rules.limits.max_watchlist = 2;
        let (none, some) = (Vec::<String>::new(), vec!["a".to_owned(), "7".to_owned()]);
        assert_eq!(watched(&rules, r#"{"id":"1"}"#), (none.clone(), false));
        assert_eq!(watched(&rules, r#"{"id":"1","watchlist":null}"#), (none.clone(), false));
        assert_eq!(watched(&rules, r#"{"id":"1","watchlist":["a",7]}"#), (some.clone(), false));
        let twice = r#"{"id":"1","watchlist":["a",7,"a","7"]}"#;
        assert_eq!(watched(&rules, twice), (some.clone(), false));
        assert_eq!(watched(&rules, r#"{"id":"1","watchlist":["a",7,"b","c"]}"#), (some, true));
        rules.limits.max_watchlist = 0;
        assert_eq!(watched(&rules, r#"{"id":"1","watchlist":["a"]}"#), (none, true));
    }

    #[test]
    fn ids_have_a_limit() {
        let mut rules = test_rules();
        rules.limits.max_user_id = 3;
        assert!(ask(&rules, r#"{"id":"\u0061bc","watchlist":["xyz"]}"#).is_ok());
        assert_eq!(refused(&rules, r#"{"id":"abcd"}"#), AuthError::UserIdTooLong);
        let watching = r#"{"id":"a","watchlist":["abcd"]}"#;
        assert_eq!(refused(&rules, watching), AuthError::UserIdTooLong);
    }
}
