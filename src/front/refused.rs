//! The log of the front's refusals: the one place where refused handshakes and requests are noted,
//! so that each of them leaves a trace.

use hyper::StatusCode;

use crate::apps::{App, Apps};
use crate::memory::Headroom;
use crate::protocol::close::ProtocolError;
use crate::refusals::{
    AnswerText, Refusal, RefusedClient, RefusedConnection, RefusedHandshake, RefusedRequest,
    RefusedSignature,
};

use super::address::Peer;
use super::address_limits::OverLimit;
use super::body::Unreceived;
use super::client_admission::ClientAdmission;
use super::clock::now_unix_s;
use super::gateway::{Gateway, Unserved};
use super::headers::{RequestHead, RequestHeaders, header_texts, text};
use super::pipe::Beginning;
use super::request_id::request_id;
use super::response::Rejection;
use super::route::Route;
use super::state::Front;

impl<G: Gateway> Front<G> {
    /// Notes a WebSocket that is refused on its open connection.
    pub(super) fn note_handshake(
        &self,
        clients: &ClientAdmission,
        head: &RequestHead<'_, impl RequestHeaders + ?Sized>,
        key: &str,
        error: ProtocolError,
    ) {
        let apps = self.gateway.apps();
        let app = apps.by_key(key).map(|app| &**app);
        let limits = self.settings.get().limits;
        let query = head.query;
        let refused = match (error, app) {
            (ProtocolError::UnknownApp, _) => RefusedHandshake::UnknownKey { key, apps: &apps },
            (ProtocolError::AppDisabled, _) => RefusedHandshake::Disabled,
            (ProtocolError::UnsupportedVersion, _) => RefusedHandshake::Version { query },
            (ProtocolError::OriginRefused, Some(app)) => {
                let origins = header_texts(head.headers, "origin");
                let refused = RefusedHandshake::Origin { origins: &origins, app };
                return self.note(Some(app), clients, head, &Refusal::Handshake(refused));
            }
            (ProtocolError::OverQuota, Some(app)) => RefusedHandshake::Quota(app),
            (ProtocolError::QuotaUnknown, _) => RefusedHandshake::QuotaUnknown,
            (ProtocolError::OverCapacity, _) => match self.gateway.headroom() {
                Headroom::Enough => RefusedHandshake::NoSlot,
                Headroom::Short | Headroom::Spent => RefusedHandshake::Memory,
            },
            (ProtocolError::AddressOverConnections, _) => {
                RefusedHandshake::AddressConnections(limits.connections)
            }
            (ProtocolError::AddressOverRate, _) => {
                RefusedHandshake::AddressRate(limits.requests_per_second)
            }
            // The stop of the server has lines of its own at INFO.
            (error, _) => return tracing::debug!(%error, "connection refused"),
        };
        // The limits of an address and the room of the process are the same for all apps.
        let app = app.filter(|_| {
            matches!(
                refused,
                RefusedHandshake::Disabled
                    | RefusedHandshake::Version { .. }
                    | RefusedHandshake::Quota(_)
            )
        });
        self.note(app, clients, head, &Refusal::Handshake(refused));
    }

    /// Notes a request that is not answered with success.
    pub(super) fn note_request(
        &self,
        clients: &ClientAdmission,
        head: &RequestHead<'_, impl RequestHeaders + ?Sized>,
        rejection: &Rejection,
    ) {
        let apps = self.gateway.apps();
        let &RequestHead { method, path, .. } = head;
        let settings = self.settings.get();
        let prefix = &*settings.path_prefix;
        let route = Route::of(path, prefix);
        let id = match &route {
            Some(Route::Api { app_id, .. }) => &**app_id,
            _ => "",
        };
        let app = apps.by_id(id).map(|app| &**app);
        let client = clients.sender(&settings, head.headers);
        let of_app = Asked { apps: &apps, app, id, head, client };
        let refused = match rejection {
            Rejection::Text(StatusCode::NOT_FOUND, _) if route.is_none() => {
                RefusedRequest::NoRoute { method, path, prefix }
            }
            Rejection::Method(served) => RefusedRequest::Method { method, path, served },
            Rejection::Host => RefusedRequest::Host,
            Rejection::TwoLengths => RefusedRequest::TwoLengths,
            Rejection::Handshake(refusal) => RefusedRequest::NotWebSocket(*refusal),
            Rejection::OverLimit { cause, .. } => self.over_limit(*cause),
            Rejection::Body(Unreceived::TooSlow) => {
                RefusedRequest::SlowBody(settings.body_timeout.as_secs())
            }
            Rejection::Body(Unreceived::OverBudget) => match self.gateway.headroom() {
                Headroom::Enough | Headroom::Short => RefusedRequest::Bodies,
                Headroom::Spent => RefusedRequest::Memory,
            },
            Rejection::Unserved(Unserved::Overloaded) => RefusedRequest::Overloaded,
            Rejection::Unserved(Unserved::RedisAway) => RefusedRequest::RedisAway,
            Rejection::Unserved(Unserved::NodesSilent) => RefusedRequest::NodesSilent,
            Rejection::Invalid(violations) => {
                RefusedRequest::Invalid { status: 422, why: AnswerText(violations) }
            }
            rejection => match of_app.refused(rejection) {
                Some(refused) => refused,
                None => return,
            },
        };
        let everyones = matches!(
            refused,
            RefusedRequest::AddressConnections(_)
                | RefusedRequest::AddressRate(_)
                | RefusedRequest::Bodies
                | RefusedRequest::Memory
                | RefusedRequest::Overloaded
                | RefusedRequest::RedisAway
                | RefusedRequest::NodesSilent
        );
        let app = app.filter(|_| !everyones);
        self.note(app, clients, head, &Refusal::Request { refused, id: request_id(head.headers) });
    }

    fn over_limit(&self, cause: OverLimit) -> RefusedRequest<'static> {
        let limits = self.settings.get().limits;
        match cause {
            OverLimit::Connections => RefusedRequest::AddressConnections(limits.connections),
            OverLimit::Requests(_) => RefusedRequest::AddressRate(limits.requests_per_second),
        }
    }

    fn note(
        &self,
        app: Option<&App>,
        clients: &ClientAdmission,
        head: &RequestHead<'_, impl RequestHeaders + ?Sized>,
        refusal: &Refusal<'_>,
    ) {
        let settings = self.settings.get();
        settings.refusals.note(app, clients.sender(&settings, head.headers), refusal);
    }

    /// Notes bytes that hyper cannot read. It has answered 400 or 431, or nothing.
    pub(super) fn note_unread(&self, peer: Peer, beginning: &Beginning, error: &hyper::Error) {
        if !error.is_parse() {
            // The connection failed, or the client left in the middle.
            return;
        }
        let sender = peer.sender();
        let refused = match Spoken::of(beginning.bytes()) {
            _ if error.is_parse_too_large() => RefusedConnection::HeadTooLarge,
            Spoken::Tls => RefusedConnection::Tls(sender),
            Spoken::Http2 => RefusedConnection::Http2(sender),
            Spoken::ProxyHeader => RefusedConnection::ProxyHeader(sender),
            Spoken::Other => RefusedConnection::NotHttp(sender, error),
        };
        self.note_connection(peer, refused);
    }

    /// Notes a connection that does not begin with the PROXY header that its listener demands.
    pub(super) fn note_no_proxy_header(&self, peer: Peer) {
        self.note_connection(peer, RefusedConnection::NoProxyHeader(peer.sender()));
    }

    /// Notes a head that has begun and does not end in time.
    pub(super) fn note_slow_head(&self, peer: Peer) {
        self.note_connection(
            peer,
            RefusedConnection::SlowHead(self.settings.get().head_timeout.as_secs()),
        );
    }

    /// Notes a connection that is closed without a look at its bytes.
    pub(super) fn note_flood(&self, peer: Peer) {
        let most = self.settings.get().limits.connections.unwrap_or_default();
        self.note_connection(peer, RefusedConnection::AddressFlood { most });
    }

    /// Notes idle connections that are closed because the shard has as many as it may have.
    pub(super) fn note_crowded(&self) {
        let crowded = Refusal::Connection(RefusedConnection::Crowded { most: self.permits.most() });
        self.settings.get().refusals.note(None, RefusedClient::Unknown, &crowded);
    }

    fn note_connection(&self, peer: Peer, refused: RefusedConnection<'_>) {
        self.settings.get().refusals.note(None, peer.sender(), &Refusal::Connection(refused));
    }
}

/// A request under `/apps/`.
struct Asked<'a, H: ?Sized> {
    apps: &'a Apps,
    /// `None` if there is no such app.
    app: Option<&'a App>,
    /// The id of the app in the path.
    id: &'a str,
    head: &'a RequestHead<'a, H>,
    client: RefusedClient,
}

impl<'a, H: RequestHeaders + ?Sized> Asked<'a, H> {
    /// The refusal to note. `None` if the rejection is an ordinary answer, or if the client has
    /// left.
    fn refused(&self, rejection: &'a Rejection) -> Option<RefusedRequest<'a>> {
        let Some(app) = self.app else {
            return Some(RefusedRequest::UnknownAppId { id: self.id, apps: self.apps });
        };
        match rejection {
            Rejection::Signature { error, .. } => Some(RefusedRequest::Signed(RefusedSignature {
                error: *error,
                app,
                apps: self.apps,
                query: self.head.query,
                now_unix_s: now_unix_s(),
                client: self.client,
            })),
            Rejection::Body(Unreceived::TooLarge) => {
                let announced = self.head.headers.values("content-length").next();
                let announced = announced.and_then(|length| text(length)?.parse().ok());
                Some(RefusedRequest::TooLarge {
                    announced,
                    most: app.rules.limits.max_request_size,
                })
            }
            Rejection::TooMany(..) => {
                Some(RefusedRequest::AppRate(app.rules.limits.max_requests_per_second))
            }
            Rejection::Text(StatusCode::FORBIDDEN, _) => Some(RefusedRequest::Disabled),
            Rejection::Text(StatusCode::PAYLOAD_TOO_LARGE, why) => {
                Some(RefusedRequest::DataTooLarge(why))
            }
            Rejection::Text(status, why) => {
                Some(RefusedRequest::Invalid { status: status.as_u16(), why: AnswerText(why) })
            }
            // An unoccupied channel is an ordinary answer; a body that broke off has no reader.
            _ => None,
        }
    }
}

/// The protocol of a client that does not speak HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    Tls,
    Http2,
    ProxyHeader,
    Other,
}

impl Spoken {
    /// Recognises the protocol by the first bytes of a connection.
    fn of(bytes: &[u8]) -> Self {
        // A record of the handshake (22) of SSL 3.0 or any TLS, whose major version is 3 (RFC 8446
        // section 5.1).
        if bytes.starts_with(&[0x16, 0x03]) {
            Self::Tls
        } else if bytes.starts_with(b"PRI * HTTP/2") {
            Self::Http2
        } else if bytes.starts_with(b"PROXY ") || bytes.starts_with(b"\r\n\r\n\0\r\nQUIT") {
            Self::ProxyHeader
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_are_known_by_their_first_bytes() {
        for (bytes, spoken) in [
            (&b"\x16\x03\x01\x02\x00\x01\x00\x01"[..], Spoken::Tls),
            (b"PRI * HTTP/2.0\r\n", Spoken::Http2),
            (b"PROXY TCP4 1.2.3", Spoken::ProxyHeader),
            (b"\r\n\r\n\0\r\nQUIT\n\x21", Spoken::ProxyHeader),
            (b"SSH-2.0-OpenSSH", Spoken::Other),
            (b"\x16", Spoken::Other),
            (b"", Spoken::Other),
        ] {
            assert_eq!(Spoken::of(bytes), spoken, "{bytes:?}");
        }
    }
}
