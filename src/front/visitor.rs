//! The peer of a connection, and its place in its address' limit.
//!
//! A client that connects by itself is counted from the accept to the end of the connection. A
//! trusted proxy's connections carry the requests of many clients: there each request is counted
//! while it is served, and a WebSocket for as long as it is open.

use std::cell::RefCell;
use std::net::IpAddr;

use hyper::header::HeaderMap;

use crate::refusals::RefusedClient;

use super::Settings;
use super::address::Peer;
use super::door::{Place, TurnedAway};

/// One connection's other end. It is judged by the settings of each request: a peer may become a
/// trusted proxy, or cease to be one, while it is connected.
pub(super) struct Visitor {
    peer: Peer,
    /// The place of a client that connects by itself. None where nothing is counted.
    own: RefCell<Option<Place>>,
}

impl Visitor {
    /// Takes note of a new connection. None when its address has so many that this one is not even
    /// told so.
    pub(super) fn arrive(settings: &Settings, peer: Peer) -> Option<Self> {
        let Settings { proxies, limits, door, .. } = settings;
        let own = match peer {
            Peer::Address(address) if !proxies.trust(peer) => {
                match door.take_place(address.into(), *limits) {
                    Ok(place) => place,
                    Err(_) => Some(door.take_waiting_place(address.into())?),
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
    ) -> Result<Pass<'_>, TurnedAway> {
        let mut place = None;
        if settings.limits.count_anything()
            && let Some(client) = client()
        {
            let now = settings.clock.now_nanos();
            settings.door.take_request(client.into(), settings.limits, now)?;
            place = self.place_for(settings, client)?;
        }
        Ok(Pass { place, visitor: self })
    }

    fn place_for(&self, settings: &Settings, client: IpAddr) -> Result<Option<Place>, TurnedAway> {
        let Settings { proxies, limits, door, .. } = settings;
        let own = &mut *self.own.borrow_mut();
        if proxies.trust(self.peer) {
            // It may have become one since it connected: its clients are counted instead.
            *own = None;
            return door.take_place(client.into(), *limits);
        }
        match own {
            Some(own) => match own.is_within(*limits) {
                true => Ok(None),
                false => Err(TurnedAway::Connections),
            },
            None => {
                // Connected before anything was counted, or found no room in the table.
                *own = door.take_place(client.into(), *limits)?;
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
pub(super) struct Pass<'v> {
    place: Option<Place>,
    visitor: &'v Visitor,
}

impl Pass<'_> {
    /// The place of the WebSocket that the request becomes.
    pub(super) fn into_place(self) -> Option<Place> {
        self.place.or_else(|| self.visitor.own.take())
    }
}
