use serde_json::{Value, json};

use crate::gateway::APP_ID;

/// The names of all events, for a `ringwave.toml`.
pub const EVERYTHING: &str = "\"channel_occupied\", \"channel_vacated\", \"member_added\", \
    \"member_removed\", \"client_event\", \"cache_miss\", \"subscription_count\"";

/// The lines of a `ringwave.toml` for an app that has a webhook with these settings.
pub fn app(webhook: &str) -> String {
    format!("[[apps]]\napp_id = \"{APP_ID}\"\n[[apps.webhooks]]\n{webhook}\n")
}

pub fn occupied(channel: &str) -> Value {
    json!({ "name": "channel_occupied", "channel": channel })
}

pub fn vacated(channel: &str) -> Value {
    json!({ "name": "channel_vacated", "channel": channel })
}

pub fn member(name: &str, channel: &str, user: &str) -> Value {
    json!({ "name": name, "channel": channel, "user_id": user })
}
