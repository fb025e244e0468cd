//! `GET /channels/{channel}/users`, `POST /users/{user}/terminate_connections` and
//! `GET /connections`.

use hyper::StatusCode;
use serde::Serialize;

use super::super::gateway::{Gateway, GatewayCommand};
use super::super::response::{HttpResponse, Rejection, done, json};
use super::call::Call;
use super::channels::named;

/// Lists the users who are present in a channel.
pub(super) async fn list<G: Gateway>(
    call: &Call<'_, G>,
    channel: &str,
) -> Result<HttpResponse, Rejection> {
    let channel = named(call, channel)?;
    if !channel.kind().is_presence() {
        return Err(NO_PRESENCE);
    }
    let channel = call.key_of(channel);
    let users = call.ask(|reply| GatewayCommand::Users { channel, reply }).await?;
    if users.is_empty() {
        return Err(Rejection::Unoccupied);
    }
    Ok(json(&UserList { users: users.into_iter().map(|id| UserEntry { id }).collect() }))
}

/// Closes all connections of a user. It is no error if there are none.
pub(super) async fn terminate<G: Gateway>(
    call: &Call<'_, G>,
    user_id: String,
) -> Result<HttpResponse, Rejection> {
    let app = call.app.clone();
    call.ask(|reply| GatewayCommand::Terminate { app, user_id, reply }).await?;
    Ok(done())
}

/// Counts the open WebSockets of the app. Reverb has this endpoint for its Pulse recorder.
pub(super) async fn connections<G: Gateway>(call: &Call<'_, G>) -> Result<HttpResponse, Rejection> {
    let app = call.app.clone();
    let connections = call.ask(|reply| GatewayCommand::Connections { app, reply }).await?;
    Ok(json(&ConnectionCount { connections }))
}

#[derive(Serialize)]
struct UserList {
    users: Vec<UserEntry>,
}

#[derive(Serialize)]
struct UserEntry {
    id: Box<str>,
}

#[derive(Serialize)]
struct ConnectionCount {
    connections: u32,
}

const NO_PRESENCE: Rejection =
    Rejection::text(StatusCode::BAD_REQUEST, "Only presence channels have users.");
