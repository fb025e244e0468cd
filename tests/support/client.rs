//! A client of the Pusher protocol over tungstenite: messages as JSON, subscriptions signed.

use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
use std::net::TcpStream;

use serde_json::{Value, json};
use tungstenite::client::ClientRequestBuilder;
use tungstenite::error::ProtocolError;
use tungstenite::http::Uri;
use tungstenite::{Error, Message, WebSocket};

use super::gateway::{Gateway, KEY};
use super::sign::{channel_auth, user_auth};

pub struct Client {
    pub socket: WebSocket<TcpStream>,
    /// The socket id, empty until the connection is established.
    pub socket_id: String,
}

impl Client {
    /// Connects as pusher-js does.
    #[track_caller]
    pub fn connect(gateway: &Gateway) -> Self {
        let mut client = Self::open(gateway, &target(), &[]);
        client.established();
        client
    }

    /// Connects and subscribes to a channel.
    #[track_caller]
    pub fn subscribed(gateway: &Gateway, channel: &str) -> Self {
        let mut client = Self::connect(gateway);
        client.subscribe(channel);
        client
    }

    /// Connects and joins a presence channel.
    #[track_caller]
    pub fn joined(gateway: &Gateway, channel: &str, member: &Value) -> Self {
        let mut client = Self::connect(gateway);
        client.join(channel, member);
        client
    }

    /// Connects and signs in.
    #[track_caller]
    pub fn signed_in(gateway: &Gateway, user_data: &Value) -> Self {
        let mut client = Self::connect(gateway);
        client.sign_in(user_data);
        client
    }

    /// Opens a WebSocket without reading from it.
    #[track_caller]
    pub fn open(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> Self {
        Self::over(gateway.tcp(), gateway, target, headers)
    }

    /// Opens a WebSocket, as [`Client::open`] does, over an existing connection.
    #[track_caller]
    pub fn over(
        stream: TcpStream,
        gateway: &Gateway,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let uri: Uri = format!("ws://{}{target}", gateway.address()).parse().unwrap();
        let mut request = ClientRequestBuilder::new(uri);
        for (name, value) in headers {
            request = request.with_header(*name, *value);
        }
        let (socket, _) = tungstenite::client(request, stream).unwrap();
        Self { socket, socket_id: String::new() }
    }

    /// Takes the first message of a connection that is let in.
    #[track_caller]
    pub fn established(&mut self) -> Value {
        let message = self.next();
        assert_eq!(message["event"], "pusher:connection_established", "{message}");
        let data = data(&message);
        self.socket_id = data["socket_id"].as_str().unwrap().to_owned();
        data
    }

    #[track_caller]
    pub fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string());
    }

    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// The next message, which has to be text. tungstenite answers WebSocket pings before it.
    #[track_caller]
    pub fn next_text(&mut self) -> String {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return text.to_string(),
                Ok(Message::Ping(_)) => {}
                other => panic!("expected a message, got {other:?}"),
            }
        }
    }

    #[track_caller]
    pub fn next(&mut self) -> Value {
        let text = self.next_text();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}"))
    }

    /// The next message, which has to be this event.
    #[track_caller]
    pub fn expect(&mut self, event: &str) -> Value {
        let message = self.next();
        assert_eq!(message["event"], event, "{message}");
        message
    }

    /// The next message, which has to be this event on this channel with this data.
    #[track_caller]
    pub fn expect_event(&mut self, channel: &str, event: &str, data: &str) {
        let expected = json!({ "event": event, "data": data, "channel": channel });
        assert_eq!(self.next(), expected);
    }

    /// The next message, which has to be an error.
    #[track_caller]
    pub fn expect_error(&mut self, code: u16, text: &str) {
        let message = self.expect("pusher:error");
        assert_eq!(data(&message), json!({ "code": code, "message": text }));
    }

    /// Expects a Close frame next, and then the end of the stream.
    #[track_caller]
    pub fn expect_close(&mut self) -> (u16, String) {
        let frame = match self.socket.read() {
            Ok(Message::Close(Some(frame))) => frame,
            other => panic!("expected a Close frame, got {other:?}"),
        };
        match self.socket.read() {
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => {}
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {}
            // The gateway does not wait for an answer that comes after seconds.
            Err(Error::Io(error)) if matches!(error.kind(), BrokenPipe | ConnectionReset) => {}
            other => panic!("something follows the Close frame: {other:?}"),
        }
        (frame.code.into(), frame.reason.to_string())
    }

    /// Expects an error and then a Close frame with the same code and text.
    #[track_caller]
    pub fn expect_refusal(&mut self, code: u16, text: &str) {
        self.expect_error(code, text);
        assert_eq!(self.expect_close(), (code, text.to_owned()));
    }

    /// Expects that nothing was sent to the client beyond the messages that it has read. Its shard
    /// answers in order. Other shards may still be about to send something: to exclude that,
    /// publish an event and expect it first.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        self.send(&json!({ "event": "pusher:ping", "data": {} }));
        assert_eq!(self.next(), json!({ "event": "pusher:pong" }));
    }

    /// Asks for a subscription, which is signed if the channel is private.
    #[track_caller]
    pub fn ask(&mut self, channel: &str) {
        let auth = match channel.starts_with("private-") {
            true => channel_auth(&self.socket_id, channel, None),
            false => String::new(),
        };
        let data = json!({ "auth": auth, "channel": channel });
        self.send(&json!({ "event": "pusher:subscribe", "data": data }));
    }

    /// Asks for a subscription to a presence channel.
    #[track_caller]
    pub fn ask_as(&mut self, channel: &str, member: &Value) {
        let member = member.to_string();
        let auth = channel_auth(&self.socket_id, channel, Some(&member));
        let data = json!({ "auth": auth, "channel": channel, "channel_data": member });
        self.send(&json!({ "event": "pusher:subscribe", "data": data }));
    }

    /// Asks to be signed in.
    #[track_caller]
    pub fn ask_sign_in(&mut self, user_data: &str) {
        let auth = user_auth(&self.socket_id, user_data);
        let data = json!({ "auth": auth, "user_data": user_data });
        self.send(&json!({ "event": "pusher:signin", "data": data }));
    }

    #[track_caller]
    pub fn sign_in(&mut self, user_data: &Value) {
        let user_data = user_data.to_string();
        self.ask_sign_in(&user_data);
        assert_eq!(data(&self.expect("pusher:signin_success")), json!({ "user_data": user_data }));
    }

    /// Takes the success of a subscription; returns its data.
    #[track_caller]
    pub fn succeeded(&mut self, channel: &str) -> Value {
        let message = self.expect("pusher_internal:subscription_succeeded");
        assert_eq!(message["channel"], channel);
        data(&message)
    }

    #[track_caller]
    pub fn subscribe(&mut self, channel: &str) {
        self.ask(channel);
        assert_eq!(self.succeeded(channel), json!({}));
    }

    /// Joins a presence channel; returns `presence` of the success.
    #[track_caller]
    pub fn join(&mut self, channel: &str, member: &Value) -> Value {
        self.ask_as(channel, member);
        self.succeeded(channel)["presence"].take()
    }

    #[track_caller]
    pub fn unsubscribe(&mut self, channel: &str) {
        self.send(&json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } }));
    }

    #[track_caller]
    pub fn whisper(&mut self, channel: &str, event: &str, data: &Value) {
        self.send(&json!({ "event": event, "data": data, "channel": channel }));
    }
}

/// `data`, which server messages carry as a string of JSON.
#[track_caller]
pub fn data(message: &Value) -> Value {
    let text = message["data"].as_str().unwrap_or_else(|| panic!("no string: {message}"));
    serde_json::from_str(text).unwrap_or_else(|_| panic!("not JSON: {message}"))
}

/// The target that pusher-js connects to.
pub fn target() -> String {
    format!("/app/{KEY}?protocol=7&client=js&version=8.6.0&flash=false")
}
