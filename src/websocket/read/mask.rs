//! Floor 1. The masking of a payload (RFC 6455 section 5.3).

/// Masks or unmasks `bytes`, the first of them with the first byte of `mask`. Works on eight bytes
/// at a time, in a form that the compiler turns into wider steps if the machine has them.
pub(super) fn apply(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = bytes.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_cut_masks_as_the_formula_of_the_rfc() {
        let mask = [0x37, 0xFA, 0x21, 0x3D];
        for len in 0..40_usize {
            let plain: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            let masked: Vec<u8> = (0..len).map(|i| plain[i] ^ mask[i % 4]).collect();
            for cut in 0..=len {
                let mut bytes = plain.clone();
                let mut turned = mask;
                turned.rotate_left(cut % 4);
                apply(&mut bytes[..cut], mask);
                apply(&mut bytes[cut..], turned);
                assert_eq!(bytes, masked, "{len} bytes cut at {cut}");
            }
        }
    }
}
