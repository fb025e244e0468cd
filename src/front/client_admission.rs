//! The admission of clients by the limits of their addresses.
//!
//! A client that connects directly is counted from the accept to the end of the connection. The
//! connections of a trusted proxy carry the requests of many clients, so there each request is
//! counted while it is served, and each WebSocket while it is open.

use std::cell::RefCell;
use std::net::IpAddr;

use crate::refusals::RefusedClient;

use super::address::Peer;
use super::address_limits::{ConnectionPermit, OverLimit};
use super::headers::RequestHeaders;
use super::settings::Settings;

/// The admission of the clients behind one connection. The settings of each request decide, because
/// a reload can make a connected peer a trusted proxy, or an ordinary client again.
pub(super) struct ClientAdmission {
    peer: Peer,
    /// The permit of a client that connects directly. `None` if connections are not counted.
    own: RefCell<Option<ConnectionPermit>>,
}

impl ClientAdmission {
    /// Counts a new connection. Returns `None` if its address has so many that this one is closed
    /// without an answer.
    pub(super) fn arrive(settings: &Settings, peer: Peer) -> Option<Self> {
        let Settings { proxies, limits, addresses, .. } = settings;
        let own = match peer {
            Peer::Address(address) if !proxies.trust(peer) => {
                match addresses.take_connection(address.into(), *limits) {
                    Ok(permit) => permit,
                    Err(_) => Some(addresses.take_waiting_connection(address.into())?),
                }
            }
            Peer::Address(_) | Peer::Unix => None,
        };
        Some(Self { peer, own: RefCell::new(own) })
    }

    /// The address of the client that sent this request, if it is known.
    pub(super) fn client(
        &self,
        settings: &Settings,
        headers: &(impl RequestHeaders + ?Sized),
    ) -> Option<IpAddr> {
        settings.proxies.client(self.peer, headers)
    }

    /// The client that sent this request, as the log names it.
    pub(super) fn sender(
        &self,
        settings: &Settings,
        headers: &(impl RequestHeaders + ?Sized),
    ) -> RefusedClient {
        RefusedClient::Address(self.client(settings, headers))
    }

    /// Admits a request, or returns the limit that it exceeds. `client` is called only if clients
    /// are counted.
    pub(super) fn admit(
        &self,
        settings: &Settings,
        client: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<RequestPermit<'_>, OverLimit> {
        let mut permit = None;
        if settings.limits.count_anything()
            && let Some(client) = client()
        {
            let now = settings.clock.now_nanos();
            settings.addresses.take_request(client.into(), settings.limits, now)?;
            permit = self.connection_permit_for(settings, client)?;
        }
        Ok(RequestPermit { permit, clients: self })
    }

    fn connection_permit_for(
        &self,
        settings: &Settings,
        client: IpAddr,
    ) -> Result<Option<ConnectionPermit>, OverLimit> {
        let Settings { proxies, limits, addresses, .. } = settings;
        let own = &mut *self.own.borrow_mut();
        if proxies.trust(self.peer) {
            // The peer may have become a trusted proxy since it connected. From then on its clients
            // are counted instead.
            *own = None;
            return addresses.take_connection(client.into(), *limits);
        }
        match own {
            Some(own) => match own.is_within(*limits) {
                true => Ok(None),
                false => Err(OverLimit::Connections),
            },
            None => {
                // The client connected before there was a limit, or the table had no room.
                *own = addresses.take_connection(client.into(), *limits)?;
                Ok(None)
            }
        }
    }

    /// Whether the connection carries the requests of a single client, so that it can be closed
    /// when that client is refused.
    pub(super) fn is_alone(&self) -> bool {
        self.own.borrow().is_some()
    }
}

/// The permit for a request, with the connection permit that was taken for it alone, if any.
pub(super) struct RequestPermit<'v> {
    permit: Option<ConnectionPermit>,
    clients: &'v ClientAdmission,
}

impl RequestPermit<'_> {
    /// The connection permit for the WebSocket that the request becomes.
    pub(super) fn into_connection_permit(self) -> Option<ConnectionPermit> {
        self.permit.or_else(|| self.clients.own.take())
    }
}
