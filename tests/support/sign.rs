//! Signatures as Pusher's documentation describes them, made without the gateway's own code.

use super::gateway::{KEY, SECRET};

pub(crate) use super::digest::{hmac_sha256, md5};

/// The answer of an app's authorisation endpoint for a private channel.
pub fn channel_auth(socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    channel_auth_by(KEY, SECRET, socket_id, channel, channel_data)
}

/// The same answer, signed with another key.
pub fn channel_auth_by(
    key: &str,
    secret: &str,
    socket_id: &str,
    channel: &str,
    channel_data: Option<&str>,
) -> String {
    let mut text = format!("{socket_id}:{channel}");
    if let Some(data) = channel_data {
        text.push(':');
        text.push_str(data);
    }
    format!("{key}:{}", hmac_sha256(secret, &text))
}

/// The answer of an app's user authentication endpoint.
pub fn user_auth(socket_id: &str, user_data: &str) -> String {
    format!("{KEY}:{}", hmac_sha256(SECRET, &format!("{socket_id}::user::{user_data}")))
}
