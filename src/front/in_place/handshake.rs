//! The handshake of a WebSocket. A client that is admitted costs no task and no copy of its head; a
//! refusal, or a client for which other nodes have to be asked, takes the way over hyper.

use std::mem::MaybeUninit;

use bytes::Bytes;
use httparse::Header;

use crate::apps::Admission;
use crate::id::ConnKey;
use crate::memory::Headroom;
use crate::protocol::session::check_protocol_version;
use crate::websocket::handshake::{self, UpgradeRequest};

use super::super::client_admission::ClientAdmission;
use super::super::gateway::{Gateway, Upgraded};
use super::super::headers::{RequestHead, header_texts};
use super::super::route::Route;
use super::super::state::Front;
use super::super::upgrade;
use super::{has_none, head};

/// The headers of a handshake that is read in place: browsers send fewer than 20, and proxies add a
/// few. One with more takes the other way.
const HEADERS_IN_PLACE: usize = 48;

/// Opens the WebSocket that the first bytes of a connection ask for. `None` if they do not, or if
/// it is to be decided by the task that speaks HTTP; nothing has been counted then.
pub(in super::super) fn open<G: Gateway>(
    front: &Front<G>,
    clients: Option<&ClientAdmission>,
    key: ConnKey,
    received: &[u8],
) -> Option<Upgraded> {
    let clients = clients?;
    let mut headers = [MaybeUninit::uninit(); HEADERS_IN_PLACE];
    let (head_len, head) = head(received, &mut headers)?;
    let RequestHead { path, query, headers, .. } = head;
    let settings = front.settings.get();
    let Some(Route::WebSocket { key: app_key }) = Route::of(path, &settings.path_prefix) else {
        return None;
    };
    let accept = accept(&head)?;

    let gateway = &front.gateway;
    let apps = gateway.apps();
    let app = apps.by_key(&app_key).filter(|app| app.rules.is_enabled())?;
    check_protocol_version(query).ok()?;
    app.allowed_origins.check(upgrade::origin(headers)).ok()?;
    if gateway.stopping().is_some() || gateway.headroom() != Headroom::Enough {
        return None;
    }
    let reservation = gateway.reserve()?;
    let admission = Admission::take(app)?;
    // This comes last, because a request is counted only once.
    let client = clients.client(&settings, headers);
    let permit = clients.admit(&settings, || client).ok()?;
    Some(Upgraded {
        admission: Some(admission),
        reservation,
        permit: permit.into_connection_permit(),
        client,
        key,
        opening: switching_protocols(&accept),
        leftover: Bytes::copy_from_slice(received.get(head_len..)?),
    })
}

/// The value of `Sec-WebSocket-Accept`. `None` if the head is no handshake, or asks for more than
/// one.
fn accept(head: &RequestHead<'_, [Header<'_>]>) -> Option<String> {
    let &RequestHead { method, headers, .. } = head;
    if !has_none(headers, &["content-length"]) {
        return None;
    }
    let request = UpgradeRequest {
        method,
        http11: true,
        connection: &header_texts(headers, "connection"),
        upgrade: &header_texts(headers, "upgrade"),
        version: &header_texts(headers, "sec-websocket-version"),
        key: &header_texts(headers, "sec-websocket-key"),
        has_body: false,
    };
    handshake::accept(&request).ok()
}

/// The head of the 101 response, with room for the first message behind it.
fn switching_protocols(accept: &str) -> Vec<u8> {
    const HEAD: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
                        connection: Upgrade\r\nsec-websocket-accept: ";
    const FIRST_MESSAGE: usize = 160;
    let mut head = Vec::with_capacity(HEAD.len() + accept.len() + 4 + FIRST_MESSAGE);
    head.extend_from_slice(HEAD.as_bytes());
    head.extend_from_slice(accept.as_bytes());
    head.extend_from_slice(b"\r\n\r\n");
    head
}
