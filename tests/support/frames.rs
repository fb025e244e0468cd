//! The frames that clients send (RFC 6455 section 5.2), written without the gateway's own code.

/// The header of a masked frame, up to its mask. `first` is its first byte.
pub(crate) fn header(first: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    match len {
        len @ 0..=125 => bytes.push(0x80 | u8::try_from(len).unwrap()),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes
}

/// A frame masked with this key. `first` is its first byte: FIN and the opcode.
pub(crate) fn masked(first: u8, key: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(first, payload.len());
    bytes.extend(key);
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}
