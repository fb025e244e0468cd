//! `GET /channels/{channel}/users`, `POST /users/{user}/terminate_connections` and
//! `GET /connections`.

use hyper::StatusCode;
use serde::Serialize;

use super::super::gateway::{Command, Gateway};
use super::super::reply::{Answer, Rejection, json};
use super::channels::named;
use super::{Call, done};

/// Lists the users who are present in a channel.
pub(super) async fn list<G: Gateway>(
    call: &Call<'_, G>,
    channel: &str,
) -> Result<Answer, Rejection> {
    let channel = named(call, channel)?;
    if !channel.kind().is_presence() {
        return Err(NO_PRESENCE);
    }
    let app = call.app.clone();
    let users = call.ask(|reply| Command::Users { app, channel, reply }).await?;
    if users.is_empty() {
        return Err(Rejection::Unoccupied);
    }
    Ok(json(&Users { users: users.into_iter().map(|id| User { id }).collect() }))
}

/// Closes all connections of a user. That there are none is not an error.
pub(super) async fn terminate<G: Gateway>(
    call: &Call<'_, G>,
    user_id: String,
) -> Result<Answer, Rejection> {
    let app = call.app.clone();
    call.ask(|reply| Command::Terminate { app, user_id, reply }).await?;
    Ok(done())
}

/// How many WebSockets the app has open on this node (an endpoint of Reverb's, which its Pulse
/// recorder asks).
pub(super) fn connections<G>(call: &Call<'_, G>) -> Answer {
    json(&Connections { connections: call.app.counters.connections() })
}

#[derive(Serialize)]
struct Users {
    users: Vec<User>,
}

#[derive(Serialize)]
struct User {
    id: Box<str>,
}

#[derive(Serialize)]
struct Connections {
    connections: u32,
}

const NO_PRESENCE: Rejection =
    Rejection::text(StatusCode::BAD_REQUEST, "Only presence channels have users.");
