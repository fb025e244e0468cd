//! The stamp of a message: text of fixed width that JSON does not escape. It is found in a frame
//! without parsing, however the server wraps, escapes or orders the fields.

/// The sender of a message, its number among the messages of that sender on that channel, and the
/// time at which it was meant to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The number of the storm that sent it.
    pub(crate) run: u32,
    /// The number of the channel.
    pub(crate) channel: u32,
    /// The number of the sender among those of the channel.
    pub(crate) sender: u16,
    /// Counts from 0 per channel and sender.
    pub(crate) sequence: u32,
    /// A time of [`now_ns`](crate::clock::now_ns).
    pub(crate) intended_ns: u64,
}

/// The length of a stamp in bytes.
pub(crate) const STAMP_LEN: usize = MARK.len() + 8 + 8 + 4 + 8 + 16;

/// The beginning of a stamp. None of its characters is a hexadecimal digit, so it occurs nowhere
/// else in a stamp.
const MARK: &[u8] = b"~rw";

impl Stamp {
    /// The text form.
    pub(crate) fn text(&self) -> [u8; STAMP_LEN] {
        let mut text = [0; STAMP_LEN];
        let (mark, mut rest) = text.split_at_mut(MARK.len());
        mark.copy_from_slice(MARK);
        for (value, width) in [
            (u64::from(self.run), 8),
            (u64::from(self.channel), 8),
            (u64::from(self.sender), 4),
            (u64::from(self.sequence), 8),
            (self.intended_ns, 16),
        ] {
            let (field, behind) = rest.split_at_mut(width);
            for (position, digit) in field.iter_mut().rev().enumerate() {
                *digit = DIGITS[(value >> (4 * position)) as usize & 15];
            }
            rest = behind;
        }
        text
    }

    /// The stamp in a payload. `hint` is the position of the last one and becomes the position of
    /// this one, because the messages of a server are alike.
    pub(crate) fn find(payload: &[u8], hint: &mut usize) -> Option<Self> {
        if let Some(stamp) = payload.get(*hint..).and_then(Self::at_start) {
            return Some(stamp);
        }
        let at = payload.windows(MARK.len()).position(|window| window == MARK)?;
        *hint = at;
        Self::at_start(&payload[at..])
    }

    fn at_start(text: &[u8]) -> Option<Self> {
        let mut rest = text.get(..STAMP_LEN)?.strip_prefix(MARK)?;
        let mut field = |width: usize| {
            let (digits, behind) = rest.split_at(width);
            rest = behind;
            digits.iter().try_fold(0u64, |value, digit| Some((value << 4) | nibble(*digit)?))
        };
        Some(Self {
            run: field(8)? as u32,
            channel: field(8)? as u32,
            sender: field(4)? as u16,
            sequence: field(8)? as u32,
            intended_ns: field(16)?,
        })
    }
}

const fn nibble(digit: u8) -> Option<u64> {
    match digit {
        b'0'..=b'9' => Some((digit - b'0') as u64),
        b'a'..=b'f' => Some((digit - b'a' + 10) as u64),
        _ => None,
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        run: 0xdead_beef,
        channel: 7,
        sender: 65_535,
        sequence: u32::MAX,
        intended_ns: 0x0123_4567_89ab_cdef,
    };

    #[test]
    fn a_stamp_is_read_as_it_was_written_at_any_position() {
        let text = STAMP.text();
        let wrapped = [b"{\"data\":\"", &text[..], b"xx\"}"].concat();
        let mut hint = 3;
        assert_eq!(Stamp::find(&wrapped, &mut hint), Some(STAMP));
        assert_eq!(hint, 9);
        assert_eq!(Stamp::find(&wrapped, &mut hint), Some(STAMP), "found by the hint");
        hint = 5000;
        assert_eq!(Stamp::find(&wrapped, &mut hint), Some(STAMP), "the hint may be past the end");
    }

    #[test]
    fn a_cut_or_damaged_stamp_is_none() {
        let text = STAMP.text();
        for end in 0..STAMP_LEN {
            assert_eq!(Stamp::find(&text[..end], &mut 0), None);
        }
        for at in 0..STAMP_LEN {
            let mut damaged = text;
            damaged[at] = b'G';
            assert_eq!(Stamp::find(&damaged, &mut 0), None);
        }
    }
}
