//! `X-Forwarded-For` and `Forwarded`: only what trusted proxies wrote counts, whatever stands
//! before it.

#![no_main]

use std::net::IpAddr;

use arbitrary::Arbitrary;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use ringwave::testing::front::address::{Trusted, TrustedProxies};
use ringwave::testing::front::fuzzing::client;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    proxies: Vec<Proxy>,
    peer: Option<IpAddr>,
    /// The client's lines: whether the header is `Forwarded`, and the value.
    lines: Vec<(bool, &'a [u8])>,
    hops: Vec<Hop>,
    in_forwarded: bool,
}

#[derive(Arbitrary, Debug)]
enum Proxy {
    Unix,
    Network(IpAddr, u8),
}

/// The entry that one proxy on the way appends.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Hop {
    address: IpAddr,
    port: Option<u16>,
    spaced: bool,
}

impl Hop {
    fn text(self, quoted: bool) -> String {
        let node = match (self.address, self.port) {
            (IpAddr::V4(address), None) => address.to_string(),
            (IpAddr::V4(address), Some(port)) => format!("{address}:{port}"),
            (IpAddr::V6(address), None) => format!("[{address}]"),
            (IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
        };
        let space = if self.spaced { " " } else { "" };
        if quoted { format!("{space}for=\"{node}\";proto=https") } else { format!("{space}{node}") }
    }
}

fn trusted(proxy: &Proxy) -> Option<Trusted> {
    match proxy {
        Proxy::Unix => "unix".parse().ok(),
        Proxy::Network(address, len) => format!("{address}/{}", len % 129).parse().ok(),
    }
}

fn header(forwarded: bool) -> HeaderName {
    HeaderName::from_static(if forwarded { "forwarded" } else { "x-forwarded-for" })
}

fn trust(list: &[Trusted], address: IpAddr) -> bool {
    list.iter().any(|trusted| match trusted {
        Trusted::Network(network) => network.contains(&address.to_canonical()),
        Trusted::Unix => false,
    })
}

fuzz_target!(|input: Input<'_>| {
    let list: Vec<_> = input.proxies.iter().filter_map(trusted).collect();
    for proxy in &list {
        assert_eq!(proxy.to_string().parse(), Ok(*proxy), "shown as it is read");
    }
    let proxies: TrustedProxies = list.iter().copied().collect();
    let mut head = HeaderMap::new();
    for (forwarded, value) in &input.lines {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            head.append(header(*forwarded), value);
        }
    }
    let peer = input.peer.map(|address| address.to_canonical());
    let trusted_peer = match peer {
        Some(address) => trust(&list, address),
        None => list.contains(&Trusted::Unix),
    };
    let found = client(&proxies, input.peer, &head);
    if !trusted_peer {
        assert_eq!(found, peer, "the word of a stranger");
        return;
    }

    // The proxies' own entries come last, in lines of their own.
    let all = input.hops.iter().map(|hop| hop.address.to_canonical());
    let hops: Vec<IpAddr> = all.collect();
    if hops.is_empty() || input.in_forwarded && head.contains_key(header(false)) {
        return;
    }
    let texts: Vec<_> = input.hops.iter().map(|hop| hop.text(input.in_forwarded)).collect();
    let value = HeaderValue::from_str(&texts.join(",")).expect("addresses are text");
    head.append(header(input.in_forwarded), value);
    let found = client(&proxies, input.peer, &head);
    let stranger = hops.iter().rev().find(|&&address| !trust(&list, address));
    if let Some(stranger) = stranger {
        assert_eq!(found, Some(*stranger), "{head:?}");
    }
});
