//! Headers of the PROXY protocol: decided at the same byte whatever the cuts, never past their
//! bounds, and read as they were written.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ringwave::testing::front::fuzzing::{Beginning, proxy_header};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Raw(&'a [u8]),
    Line(&'a [u8]),
    Binary { command: u8, family: u8, length: u16, rest: &'a [u8] },
    Short { v6: bool, length: u8, rest: &'a [u8] },
    Sent { from: Pair, ports: (u16, u16), binary: bool, extensions: &'a [u8], behind: &'a [u8] },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Pair {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// A header as the specification writes it.
fn sent(from: Pair, ports: (u16, u16), binary: bool, extensions: &[u8]) -> Vec<u8> {
    if !binary {
        let (source, destination) = ports;
        return match from {
            Pair::V4(a, b) => format!("PROXY TCP4 {a} {b} {source} {destination}\r\n"),
            Pair::V6(a, b) => format!("PROXY TCP6 {a} {b} {source} {destination}\r\n"),
        }
        .into_bytes();
    }
    let (family, mut rest) = match from {
        Pair::V4(a, b) => (0x11, [a.octets(), b.octets()].concat()),
        Pair::V6(a, b) => (0x21, [a.octets(), b.octets()].concat()),
    };
    rest.extend([ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat());
    rest.extend(&extensions[..extensions.len().min(4000)]);
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [&SIGNATURE[..], &[0x21, family], &length, &rest].concat()
}

fn check(bytes: &[u8]) -> Beginning {
    let whole = proxy_header(bytes);
    // Once the result is decided, it stays so, and before that it is open.
    let mut decided = None;
    for len in 0..=bytes.len() {
        let beginning = proxy_header(&bytes[..len]);
        match decided {
            None if beginning != Beginning::Partial => decided = Some(beginning),
            Some(earlier) => assert_eq!(beginning, earlier, "at {len}"),
            None => {}
        }
        if let Beginning::Whole(header, _) = beginning {
            assert!(header <= len);
        }
    }
    assert_eq!(decided.unwrap_or(Beginning::Partial), whole);
    match whole {
        Beginning::Whole(header, _) => assert!(header <= 16 + 4096),
        Beginning::Partial => assert!(bytes.len() < 16 + 4096, "waits without a bound"),
        Beginning::Wrong => {}
    }
    whole
}

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Raw(bytes) => {
            check(bytes);
        }
        Input::Line(line) => {
            check(&[b"PROXY ", line].concat());
        }
        Input::Binary { command, family, length, rest } => {
            let bytes = [&SIGNATURE[..], &[command, family], &length.to_be_bytes(), rest].concat();
            if let Beginning::Whole(_, client) = check(&bytes) {
                let tells = command == 0x21 && matches!(family, 0x11 | 0x21);
                assert_eq!(client.is_some(), tells);
            }
        }
        Input::Short { v6, length, rest } => {
            let (family, needs) = if v6 { (0x21, 36) } else { (0x11, 12) };
            let bytes = [&SIGNATURE[..], &[0x21, family, 0, length], rest].concat();
            let wrong = check(&bytes) == Beginning::Wrong;
            assert_eq!(wrong, length < needs, "an address of {length} bytes");
        }
        Input::Sent { from, ports, binary, extensions, behind } => {
            let header = sent(from, ports, binary, extensions);
            let client = match from {
                Pair::V4(client, _) => IpAddr::V4(client),
                Pair::V6(client, _) => IpAddr::V6(client),
            };
            let behind = &behind[..behind.len().min(200)];
            let found = check(&[&header, behind].concat());
            assert_eq!(found, Beginning::Whole(header.len(), Some(client)));
        }
    }
});
