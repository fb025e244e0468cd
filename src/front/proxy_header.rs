//! The PROXY protocol, versions 1 and 2, by which a proxy names the client whose bytes it passes
//! on. The header comes first on a connection, once. Pure: bytes go in, a verdict comes out.
//!
//! The parser is our own, because the first bytes of a connection may come from anybody, and the
//! crates that were examined accept input that the specification forbids (signs in ports, lines
//! without their spaces or over their length), or wait for more bytes of a header that is already
//! wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A complete header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProxyHeader {
    /// The address of the client. `None` if the proxy speaks for itself (`LOCAL`), or does not know
    /// an address (`UNKNOWN`, a unix socket).
    pub(super) client: Option<IpAddr>,
    /// The length of the header in bytes. HTTP begins behind it.
    pub(super) len: usize,
}

/// The verdict on the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// A header.
    Whole(ProxyHeader),
    /// A possible beginning of a header: more bytes are needed.
    Partial,
    /// No header, whatever bytes follow.
    Wrong,
}

/// Reads the header at the beginning of `bytes`, which may hold more. The verdict comes with the
/// first byte that allows one.
pub(super) fn parse(bytes: &[u8]) -> Start {
    if let Some(rest) = bytes.strip_prefix(&SIGNATURE) {
        return version_2(rest);
    }
    if let Some(rest) = bytes.strip_prefix(WORD) {
        return version_1(rest);
    }
    match SIGNATURE.starts_with(bytes) || WORD.starts_with(bytes) {
        true => Start::Partial,
        false => Start::Wrong,
    }
}

/// Reads a line such as `PROXY TCP4 192.0.2.1 198.51.100.1 47011 80`.
fn version_1(rest: &[u8]) -> Start {
    let line_max = LINE_MAX - WORD.len();
    let Some(end) = rest.iter().take(line_max).position(|&byte| byte == b'\n') else {
        return if rest.len() < line_max { Start::Partial } else { Start::Wrong };
    };
    let line = rest[..end].strip_suffix(b"\r").and_then(|line| str::from_utf8(line).ok());
    let whole = |client| Start::Whole(ProxyHeader { client, len: WORD.len() + end + 1 });
    match line.map(|line| line.split(' ').collect::<Vec<_>>()).as_deref() {
        // The specification says to ignore the rest of the line.
        Some(["UNKNOWN", ..]) => whole(None),
        Some([family, source, destination, ports @ ..]) => {
            let client = match *family {
                "TCP4" => both::<Ipv4Addr>(source, destination),
                "TCP6" => both::<Ipv6Addr>(source, destination),
                _ => None,
            };
            match client {
                Some(client) if ports.len() == 2 && ports.iter().all(|text| is_port(text)) => {
                    whole(Some(client))
                }
                _ => Start::Wrong,
            }
        }
        _ => Start::Wrong,
    }
}

fn both<A: std::str::FromStr + Into<IpAddr>>(source: &str, destination: &str) -> Option<IpAddr> {
    let _valid: A = destination.parse().ok()?;
    source.parse::<A>().ok().map(Into::into)
}

/// Whether this is a number from 0 to 65535 without sign and leading zeros.
fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port.to_string() == text)
}

/// Reads the binary header: version and command, family and protocol, the length of the rest,
/// addresses, extensions.
fn version_2(rest: &[u8]) -> Start {
    let command = match rest.first() {
        None => return Start::Partial,
        Some(0x20) => ProxyCommand::Local,
        Some(0x21) => ProxyCommand::Proxy,
        Some(_) => return Start::Wrong,
    };
    let Some((&[_, family, high, low], rest)) = rest.split_first_chunk() else {
        return Start::Partial;
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    // LOCAL needs no addresses, whatever the family, and an unspecified family has none.
    let needs = match (command, family) {
        (ProxyCommand::Local, _) | (ProxyCommand::Proxy, UNSPECIFIED) => 0,
        (ProxyCommand::Proxy, TCP_IPV4) => 2 * (4 + 2),
        (ProxyCommand::Proxy, TCP_IPV6) => 2 * (16 + 2),
        (ProxyCommand::Proxy, UNIX_STREAM) => 2 * 108,
        // Datagrams, and families that are not defined.
        (ProxyCommand::Proxy, _) => return Start::Wrong,
    };
    if length < needs || length > REST_MAX {
        return Start::Wrong;
    }
    let Some(rest) = rest.get(..length) else { return Start::Partial };
    let client = match (command, family) {
        (ProxyCommand::Proxy, TCP_IPV4) => {
            rest.first_chunk().map(|&octets: &[u8; 4]| Ipv4Addr::from(octets).into())
        }
        (ProxyCommand::Proxy, TCP_IPV6) => {
            rest.first_chunk().map(|&octets: &[u8; 16]| Ipv6Addr::from(octets).into())
        }
        _ => None,
    };
    Start::Whole(ProxyHeader { client, len: SIGNATURE.len() + 4 + length })
}

#[derive(Clone, Copy)]
enum ProxyCommand {
    Local,
    Proxy,
}

const WORD: &[u8] = b"PROXY ";
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, its end included.
const LINE_MAX: usize = 107;

/// The most bytes that version 2 may have behind its length. The specification allows 65,535;
/// addresses, names and the extensions for TLS are a few hundred.
const REST_MAX: usize = 4096;

const UNSPECIFIED: u8 = 0x00;
const TCP_IPV4: u8 = 0x11;
const TCP_IPV6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn inet(tlvs: &[u8]) -> Vec<u8> {
        [&[192, 0, 2, 1, 198, 51, 100, 1, 0xb7, 0xa3, 0, 80], tlvs].concat()
    }

    fn inet6() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::1".parse().unwrap();
        [&source.octets()[..], &[0; 16], &[0xb7, 0xa3, 0, 80]].concat()
    }

    fn good() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let longest = "ffff:f...f:ffff:ffff:ffff:ffff:ffff:ffff".replace("f...f", "ffff");
        let longest = format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n");
        assert_eq!(longest.len(), LINE_MAX);
        vec![
            (b"PROXY TCP4 192.0.2.1 198.51.100.1 47011 80\r\n".to_vec(), Some("192.0.2.1")),
            (b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n".to_vec(), Some("2001:db8::1")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (longest.into_bytes(), None),
            (v2(0x21, TCP_IPV4, &inet(b"")), Some("192.0.2.1")),
            (v2(0x21, TCP_IPV4, &inet(&[4, 0, 9, 1, 2, 3])), Some("192.0.2.1")),
            (v2(0x21, TCP_IPV4, &inet(&vec![7; REST_MAX - 12])), Some("192.0.2.1")),
            (v2(0x21, TCP_IPV6, &inet6()), Some("2001:db8::1")),
            (v2(0x21, UNSPECIFIED, b""), None),
            (v2(0x21, UNSPECIFIED, b"whatever"), None),
            (v2(0x21, UNIX_STREAM, &[b'/'; 216]), None),
            (v2(0x20, UNSPECIFIED, b""), None),
            (v2(0x20, TCP_IPV4, &inet(b"")), None),
            (v2(0x20, 0x99, b""), None),
        ]
    }

    #[test]
    fn headers_of_both_versions_name_the_client_at_every_split() {
        for (header, client) in good() {
            let len = header.len();
            let whole = ProxyHeader { client: client.map(|text| text.parse().unwrap()), len };
            let behind = [&header[..], b"GET / HTTP/1.1\r\n"].concat();
            for end in 0..behind.len() {
                let expected = if end < len { Start::Partial } else { Start::Whole(whole) };
                assert_eq!(parse(&behind[..end]), expected, "{header:?} cut at {end}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        let lines = [
            "GET / HTTP/1.1\r\n",
            "POST ",
            "PROXYTCP4 ",
            "PROXY  TCP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 01 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 1 2 3\r\n",
            "PROXY TCP4 192.0.2.1  1 2\r\n",
            "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY TCP4 example.com 198.51.100.1 1 2\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 1 2\r\n",
            "PROXY \r\n",
            "proxy UNKNOWN\r\n",
            "\r\n\r\nGET",
        ];
        for line in lines {
            assert_eq!(parse(line.as_bytes()), Start::Wrong, "{line:?}");
        }
        let too_long = format!("PROXY UNKNOWN {}", "x".repeat(LINE_MAX));
        assert_eq!(parse(too_long.as_bytes()), Start::Wrong);
        for wrong in [
            v2(0x11, TCP_IPV4, &inet(b"")),
            v2(0x22, TCP_IPV4, &inet(b"")),
            v2(0x21, TCP_IPV4, &inet(b"")[..11]),
            v2(0x21, TCP_IPV6, &inet6()[..35]),
            v2(0x21, UNIX_STREAM, &[0; 215]),
            v2(0x21, 0x12, &inet(b"")),
            v2(0x21, UNSPECIFIED, &vec![0; REST_MAX + 1]),
        ] {
            assert_eq!(parse(&wrong), Start::Wrong, "{wrong:?}");
            assert_eq!(parse(&wrong[..16]), Start::Wrong, "what follows cannot mend it");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it_and_more_bytes_change_no_verdict(
            start in 0..3_usize,
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let prefix: &[u8] = [&b""[..], WORD, &SIGNATURE][start];
            let bytes = [prefix, &bytes].concat();
            let mut decided = None;
            for end in 0..=bytes.len() {
                let verdict = parse(&bytes[..end]);
                match decided {
                    Some(decided) => prop_assert_eq!(verdict, decided),
                    None if verdict != Start::Partial => decided = Some(verdict),
                    None => {}
                }
                if let Start::Whole(header) = verdict {
                    prop_assert!(header.len <= end && header.len <= SIGNATURE.len() + 4 + REST_MAX);
                }
            }
        }
    }
}
