//! One connection's session: any messages in any order, with signatures that fit and ones that
//! nearly do, against a model of the protocol.

#![no_main]

use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringwave::testing::apps::App;
use ringwave::testing::protocol::auth::Member;
use ringwave::testing::protocol::close::ProtocolError;
use ringwave::testing::protocol::names::{ChannelName, valid_event_name};
use ringwave::testing::protocol::rules::{ClientEvents, RateLimit};
use ringwave::testing::protocol::session::{Action, Session};
use ringwave::testing::time::Millis;
use ringwave_fuzz::{SOCKET, app, auth};
use serde_json::{Value, json};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    settings: Settings,
    steps: Vec<Step<'a>>,
}

#[derive(Arbitrary, Debug)]
struct Settings {
    members_only: bool,
    client_events: bool,
    on_public: bool,
    strict_names: bool,
    subscription_errors: bool,
    /// Messages per second.
    rate: Option<u8>,
    terminate: bool,
}

#[derive(Arbitrary, Debug)]
struct Step<'a> {
    after_ms: u16,
    message: Message<'a>,
}

#[derive(Arbitrary, Debug)]
enum Message<'a> {
    Raw(&'a str),
    Ping,
    Subscribe { channel: Channel<'a>, proof: Proof, data: Data<'a>, in_text: bool },
    Unsubscribe(Channel<'a>),
    SignIn { id: Id<'a>, watchlist: Vec<u8>, proof: Proof },
    ClientEvent { channel: Channel<'a>, name: &'a str, data: &'a str },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Channel<'a> {
    prefix: u8,
    rest: &'a str,
}

impl Channel<'_> {
    fn name(self) -> String {
        const PREFIXES: [&str; 10] = [
            "",
            "private-",
            "presence-",
            "cache-",
            "private-cache-",
            "presence-cache-",
            "private-encrypted-",
            "private-encrypted-cache-",
            "#server-to-user-",
            "privat",
        ];
        format!("{}{}", PREFIXES[usize::from(self.prefix) % PREFIXES.len()], self.rest)
    }
}

/// The kind of signature that is sent.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Right,
    None,
    /// The right signature with one digit changed.
    Nearly(u8),
    OtherChannel,
    OtherSocket,
    OtherKey,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Data<'a> {
    None,
    Raw(&'a str),
    Member { id: Id<'a>, info: &'a str },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Id<'a> {
    Number(i32),
    Text(&'a str),
}

impl Id<'_> {
    fn json(self) -> Value {
        match self {
            Self::Number(number) => number.into(),
            Self::Text(text) => text.into(),
        }
    }
}

impl Data<'_> {
    fn text(self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Raw(text) => Some(text.to_owned()).filter(|text| !text.is_empty()),
            Self::Member { id, info } => {
                Some(json!({ "user_id": id.json(), "user_info": { "name": info } }).to_string())
            }
        }
    }
}

impl Proof {
    fn sign(self, subject: &str, channel_like: bool) -> Option<String> {
        let other = if channel_like { format!("{subject}x") } else { format!("x{subject}") };
        let right = || auth(&[format!("{SOCKET}:{subject}").as_bytes()]);
        Some(match self {
            Self::Right => right(),
            Self::None => return None,
            Self::Nearly(at) => {
                let mut auth = right().into_bytes();
                let at = auth.len() - 1 - usize::from(at) % 64;
                auth[at] = if auth[at] == b'0' { b'1' } else { b'0' };
                String::from_utf8(auth).expect("digits")
            }
            Self::OtherChannel => auth(&[format!("{SOCKET}:{other}").as_bytes()]),
            Self::OtherSocket => auth(&[format!("1234.5679:{subject}").as_bytes()]),
            Self::OtherKey => right().replacen("app-key", "other-key", 1),
        })
    }
}

struct Connection {
    app: App,
    session: Session,
    user: Option<Arc<Member>>,
    now: Millis,
    /// The times of client events that were let through, and of messages.
    events: Vec<Millis>,
    messages: Vec<Millis>,
}

impl Connection {
    fn name_is_valid(&self, name: &str) -> bool {
        ChannelName::parse(
            name,
            self.app.rules.limits.max_channel_name,
            self.app.rules.strict_names,
        )
        .is_ok()
    }

    fn send(&mut self, message: &Message<'_>) {
        let text = text(message);
        let limited = self.app.rules.rate_limit;
        let action = self.session.handle(&self.app.rules, &text, self.user.as_ref(), self.now);
        if let Action::Close(error) | Action::Refuse(error, _) = &action
            && *error == ProtocolError::RateLimited
            && limited.is_some()
        {
            return;
        }
        self.messages.push(self.now);
        match message {
            Message::Raw(_) => check_any(&self.app, &action),
            Message::Ping => assert!(matches!(action, Action::Reply(_))),
            Message::Unsubscribe(channel) => {
                assert!(matches!(action, Action::Unsubscribe(name) if name == channel.name()));
            }
            Message::Subscribe { channel, proof, data, .. } => {
                self.check_subscribe(&channel.name(), *proof, *data, &action);
            }
            Message::SignIn { id, proof, .. } => self.check_sign_in(*id, *proof, action),
            Message::ClientEvent { channel, name, data } => {
                let let_through = matches!(action, Action::ClientEvent(_));
                self.check_client_event(&channel.name(), name, data, &action);
                if let_through {
                    self.events.push(self.now);
                }
            }
        }
    }

    fn check_subscribe(&self, name: &str, proof: Proof, data: Data<'_>, action: &Action<'_>) {
        if let Action::Refuse(ProtocolError::Malformed, _) = action {
            assert!(
                matches!(data, Data::Raw(text) if serde_json::from_str::<Value>(text).is_err())
            );
            return;
        }
        let joined = match action {
            Action::Subscribe(authorised) => Some(authorised),
            Action::Refuse(..) => None,
            other => panic!("{other:?}"),
        };
        let Some(kind) = ChannelName::parse(name, usize::MAX, false).ok().map(|name| name.kind())
        else {
            assert!(joined.is_none());
            return;
        };
        let is_user = name
            .strip_prefix("#server-to-user-")
            .map(|owner| self.user.as_ref().is_some_and(|user| &*user.user_id == owner));
        let signed = proof == Proof::Right;
        let has_member = !kind.is_presence() || data.text().is_some() || self.user.is_some();
        if let Some(authorised) = joined {
            assert_eq!(authorised.channel().as_str(), name);
            assert!(self.name_is_valid(name));
            assert!(signed || !kind.needs_signature(), "{name} without its signature");
            assert!(is_user != Some(false), "the channel of another user");
            assert_eq!(authorised.member().is_some(), kind.is_presence());
            if let Some(member) = authorised.member() {
                assert!(member.user_id.len() <= self.app.rules.limits.max_user_id);
                assert!(!member.user_id.is_empty());
            }
        } else {
            let plain = match data {
                Data::None => true,
                Data::Raw(_) => !kind.is_presence(),
                // A character may take six bytes of JSON.
                Data::Member { id: Id::Number(_), info } => info.len() < 8,
                Data::Member { id: Id::Text(id), info } => {
                    (1..=20).contains(&id.len()) && info.len() < 8
                }
            };
            let fits = self.name_is_valid(name) && has_member && plain && is_user != Some(false);
            assert!(!fits || kind.needs_signature() && !signed, "{name} with its signature");
        }
    }

    fn check_sign_in(&mut self, id: Id<'_>, proof: Proof, action: Action<'_>) {
        let usable = matches!(id, Id::Text(id) if (1..=20).contains(&id.len()));
        let text = match id {
            Id::Text(text) => text,
            Id::Number(_) => "",
        };
        let same = self.user.as_ref().is_none_or(|user| &*user.user_id == text);
        match action {
            Action::SignIn(signed_in, _) => {
                assert!(proof == Proof::Right && usable && same);
                let (user, watchlist) = signed_in.into_parts();
                assert!(watchlist.len() <= self.app.rules.limits.max_watchlist);
                self.user = Some(user);
            }
            Action::Refuse(ProtocolError::Unauthorised(_), _) => {
                assert!(proof != Proof::Right || !usable || !same);
            }
            other => panic!("{other:?}"),
        }
    }

    fn check_client_event(&self, name: &str, event: &str, data: &str, action: &Action<'_>) {
        let app = &self.app;
        let event = format!("client-{event}");
        let second = Duration::from_secs(1);
        let recent = self.events.iter().filter(|&&then| self.now.since(then) < 2 * second).count();
        match action {
            Action::ClientEvent(it) => {
                assert_eq!((it.channel.as_str(), &*it.event), (name, &*event));
                assert!(app.rules.client_events != ClientEvents::None && self.name_is_valid(name));
                let kind = it.channel.kind();
                assert!(kind.needs_signature() || app.rules.client_events_on_public);
                assert!(!name.starts_with("#server-to-user-"));
                assert!(valid_event_name(&event, app.rules.limits.max_event_name));
                let sent = it.data.expect("was sent").get();
                assert!(sent.len() <= app.rules.limits.max_client_event_data.unwrap_or(usize::MAX));
                assert_eq!(serde_json::from_str::<Value>(sent).expect("JSON"), json!([data]));
                assert_eq!(it.must_be_member, app.rules.client_events == ClientEvents::Members);
                // A window that begins with an event admits three; two of them may touch.
                assert!(recent < 3 * 3, "{recent} in two seconds");
            }
            Action::Refuse(ProtocolError::RateLimited, _) => assert!(recent > 0),
            Action::Refuse(error, _) => assert!(is_of_a_message(*error), "{error:?}"),
            other => panic!("{other:?}"),
        }
    }
}

/// Whether it is about one message, so that the connection may go on.
const fn is_of_a_message(error: ProtocolError) -> bool {
    matches!(
        error,
        ProtocolError::Malformed
            | ProtocolError::Unauthorised(_)
            | ProtocolError::ChannelName(_)
            | ProtocolError::RateLimited
            | ProtocolError::ClientEventsOff
            | ProtocolError::ClientEventOnPublic
            | ProtocolError::ClientEventName
            | ProtocolError::ClientEventTooLarge
    )
}

/// Checks the facts that hold whatever was sent.
fn check_any(app: &App, action: &Action<'_>) {
    match action {
        Action::Subscribe(authorised) => {
            // The raw text cannot know a signature.
            assert!(!authorised.channel().kind().needs_signature());
            assert!(authorised.channel().len() <= app.rules.limits.max_channel_name);
        }
        Action::SignIn(..) => panic!("signed in without a signature"),
        Action::Close(error) => assert_eq!(*error, ProtocolError::RateLimited),
        Action::Refuse(error, _) => assert!(is_of_a_message(*error), "{error:?}"),
        Action::ClientEvent(event) => assert!(event.event.starts_with("client-")),
        Action::Nothing | Action::Reply(_) | Action::Unsubscribe(_) => {}
    }
}

fn text(message: &Message<'_>) -> String {
    match message {
        Message::Raw(text) => (*text).to_owned(),
        Message::Ping => r#"{"event":"pusher:ping","data":{}}"#.to_owned(),
        Message::Subscribe { channel, proof, data, in_text } => {
            let (channel, data) = (channel.name(), data.text());
            let subject =
                data.as_ref().map_or_else(|| channel.clone(), |data| format!("{channel}:{data}"));
            let request = json!({
                "channel": channel, "auth": proof.sign(&subject, true), "channel_data": data,
            });
            let request = if *in_text { request.to_string().into() } else { request };
            json!({ "event": "pusher:subscribe", "data": request }).to_string()
        }
        Message::Unsubscribe(channel) => {
            json!({ "event": "pusher:unsubscribe", "data": { "channel": channel.name() } })
                .to_string()
        }
        Message::SignIn { id, watchlist, proof } => {
            let user = json!({ "id": id.json(), "watchlist": watchlist }).to_string();
            let auth = proof.sign(&format!(":user::{user}"), false);
            let request = json!({ "auth": auth, "user_data": user });
            json!({ "event": "pusher:signin", "data": request }).to_string()
        }
        Message::ClientEvent { channel, name, data } => json!({
            "event": format!("client-{name}"), "channel": channel.name(), "data": [data],
        })
        .to_string(),
    }
}

fn configured(settings: &Settings) -> App {
    let mut app = app();
    app.rules.client_events = match (settings.client_events, settings.members_only) {
        (false, _) => ClientEvents::None,
        (true, true) => ClientEvents::Members,
        (true, false) => ClientEvents::All,
    };
    app.rules.client_events_on_public = settings.on_public;
    app.rules.strict_names = settings.strict_names;
    app.rules.subscription_errors = settings.subscription_errors;
    app.rules.rate_limit = settings.rate.map(|max| RateLimit {
        max_attempts: u32::from(max % 8),
        decay: Duration::from_secs(1),
        terminate: settings.terminate,
    });
    app
}

fuzz_target!(|input: Input<'_>| {
    let app = configured(&input.settings);
    let session = Session::new(SOCKET);
    let mut connection = Connection {
        app,
        session,
        user: None,
        now: Millis(1_000),
        events: Vec::new(),
        messages: Vec::new(),
    };
    for step in &input.steps {
        connection.now = connection.now + Duration::from_millis(step.after_ms.into());
        connection.send(&step.message);
    }
    if let Some(limit) = connection.app.rules.rate_limit {
        // Two windows may touch.
        for (at, &start) in connection.messages.iter().enumerate() {
            let rest = &connection.messages[at..];
            let within = rest.iter().filter(|then| then.since(start) < limit.decay).count();
            assert!(within <= 2 * limit.max_attempts as usize);
        }
    }
});
