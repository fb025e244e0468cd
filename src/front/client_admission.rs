//! The peer of a connection, and its place in its address' limit.
//!
//! A client that connects by itself is counted from the accept to the end of the connection. A
//! trusted proxy's connections carry the requests of many clients: there each request is counted
//! while it is served, and a WebSocket for as long as it is open.

use std::cell::RefCell;
use std::net::IpAddr;

use hyper::header::HeaderMap;

use crate::refusals::RefusedClient;

use super::address::Peer;
use super::address_limits::{ConnectionPermit, OverLimit};
use super::settings::Settings;

/// One connection's other end. It is judged by the settings of each request: a peer may become a
/// trusted proxy, or cease to be one, while it is connected.
pub(super) struct ClientAdmission {
    peer: Peer,
    /// The place of a client that connects by itself. None where nothing is counted.
    own: RefCell<Option<ConnectionPermit>>,
}

impl ClientAdmission {
    /// Takes note of a new connection. None when its address has so many that this one is not even
    /// told so.
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
    pub(super) fn client(&self, settings: &Settings, headers: &HeaderMap) -> Option<IpAddr> {
        settings.proxies.client(self.peer, headers)
    }

    /// The same as the log names it.
    pub(super) fn sender(&self, settings: &Settings, headers: &HeaderMap) -> RefusedClient {
        RefusedClient::Address(self.client(settings, headers))
    }

    /// Lets a request through that counts, or says why not. `client` is not asked where nothing is
    /// counted.
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
            // It may have become one since it connected: its clients are counted instead.
            *own = None;
            return addresses.take_connection(client.into(), *limits);
        }
        match own {
            Some(own) => match own.is_within(*limits) {
                true => Ok(None),
                false => Err(OverLimit::Connections),
            },
            None => {
                // Connected before anything was counted, or found no room in the table.
                *own = addresses.take_connection(client.into(), *limits)?;
                Ok(None)
            }
        }
    }

    /// Whether the connection is of no use to anybody else once its client was turned away.
    pub(super) fn is_alone(&self) -> bool {
        self.own.borrow().is_some()
    }
}

/// The permission for a request, with the place that was taken for it alone, if any.
pub(super) struct RequestPermit<'v> {
    permit: Option<ConnectionPermit>,
    clients: &'v ClientAdmission,
}

impl RequestPermit<'_> {
    /// The place of the WebSocket that the request becomes.
    pub(super) fn into_connection_permit(self) -> Option<ConnectionPermit> {
        self.permit.or_else(|| self.clients.own.take())
    }
}
