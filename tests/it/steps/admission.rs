use std::collections::BTreeMap;
use std::thread;

use super::in_turn;
use crate::client::{Client, data, target};
use crate::gateway::Gateway;

/// A client that was let in, or the code that it was refused with.
pub fn admitted_or_refused(node: &Gateway) -> Result<Client, u16> {
    let mut client = Client::open(node, &target(), &[]);
    let first = client.next();
    if first["event"] == "pusher:connection_established" {
        return Ok(client);
    }
    assert_eq!(first["event"], "pusher:error", "{first}");
    let code = data(&first)["code"].as_u64().unwrap();
    assert_eq!(u64::from(client.expect_close().0), code);
    Err(u16::try_from(code).unwrap())
}

/// Connects so many clients at once. Returns those that were let in, and how often each code
/// refused the others.
pub fn storm(nodes: &[&Gateway], count: usize) -> (Vec<Client>, BTreeMap<u16, usize>) {
    let mut admitted = Vec::new();
    let mut refused = BTreeMap::new();
    thread::scope(|scope| {
        let connecting: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || admitted_or_refused(in_turn(nodes, number))))
            .collect();
        for connection in connecting {
            match connection.join().unwrap() {
                Ok(client) => admitted.push(client),
                Err(code) => *refused.entry(code).or_default() += 1,
            }
        }
    });
    (admitted, refused)
}
