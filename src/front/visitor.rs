//! Who is at the other end of a connection, and what it holds of what its address may have.
//!
//! A client that connects by itself is counted from the accept to the end of the connection. A
//! trusted proxy's connections carry the requests of many clients: there each request is counted
//! while it is served, and a WebSocket for as long as it is open.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::header::HeaderMap;

use crate::refusals::Sender;

use super::address::Peer;
use super::door::{Door, Place, TurnedAway};

/// One connection's other end.
pub(super) struct Visitor {
    door: Arc<Door>,
    peer: Peer,
    /// What a client that connects by itself holds.
    own: RefCell<Option<Place>>,
}

impl Visitor {
    /// Takes note of a new connection. None when its address has so many that this one is not even
    /// told so.
    pub(super) fn arrive(door: &Arc<Door>, peer: Peer) -> Option<Self> {
        let own = match peer {
            Peer::Address(address) if !door.proxies().trust(peer) => {
                match door.take_place(address.into()) {
                    Ok(place) => place,
                    Err(_) => Some(door.take_waiting_place(address.into())?),
                }
            }
            Peer::Address(_) | Peer::Unix => None,
        };
        Some(Self { door: Arc::clone(door), peer, own: RefCell::new(own) })
    }

    /// Whose request this is, if that is known.
    pub(super) fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        self.door.proxies().client(self.peer, headers)
    }

    /// The same as the log names it.
    pub(super) fn sender(&self, headers: &HeaderMap) -> Sender {
        Sender::Address(self.client(headers))
    }

    /// Lets a request through that counts, or says why not. `client` is not asked where nothing is
    /// counted.
    pub(super) fn admit(
        &self,
        client: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<Pass<'_>, TurnedAway> {
        let mut place = None;
        if self.door.counts()
            && let Some(client) = client()
        {
            self.door.take_request(client.into())?;
            place = self.place_for(client)?;
        }
        Ok(Pass { place, visitor: self })
    }

    fn place_for(&self, client: IpAddr) -> Result<Option<Place>, TurnedAway> {
        if let Some(own) = &mut *self.own.borrow_mut() {
            return if own.is_within() { Ok(None) } else { Err(TurnedAway::Connections) };
        }
        match self.door.proxies().trust(self.peer) {
            true => self.door.take_place(client.into()),
            false => Ok(None),
        }
    }

    /// Whether the connection is of no use to anybody else once its client was turned away.
    pub(super) fn is_alone(&self) -> bool {
        self.own.borrow().is_some()
    }
}

/// What a request was let through with.
pub(super) struct Pass<'v> {
    place: Option<Place>,
    visitor: &'v Visitor,
}

impl Pass<'_> {
    /// What the WebSocket holds that the request becomes.
    pub(super) fn into_place(self) -> Option<Place> {
        self.place.or_else(|| self.visitor.own.take())
    }
}
