//! Floor 1. Text that arrives in pieces, checked as it arrives (RFC 6455 section 8.1): the first
//! byte that cannot belong to UTF-8 is refused at once, and what was checked is never read again.

/// The text so far, and the beginning of a character that the last piece cut in two.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// The text so far, without the cut character.
    whole: String,
    /// The bytes of a character that the last piece cut in two, `cut_len` of them.
    cut: [u8; 4],
    cut_len: usize,
}

/// The bytes are not UTF-8, whatever may follow.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidUtf8;

impl Text {
    /// Length in bytes.
    pub(super) const fn len(&self) -> usize {
        self.whole.len() + self.cut_len
    }

    /// Bytes that fit without growing.
    pub(super) const fn capacity(&self) -> usize {
        self.whole.capacity()
    }

    /// Makes room for exactly this many bytes more.
    pub(super) fn reserve_exact(&mut self, bytes: usize) {
        self.whole.reserve_exact(self.cut_len + bytes);
    }

    /// The text, unless it ends inside of a character.
    pub(super) fn finished(&self) -> Result<&str, InvalidUtf8> {
        if self.cut_len == 0 { Ok(&self.whole) } else { Err(InvalidUtf8) }
    }

    /// Appends the next piece.
    pub(super) fn push(&mut self, mut piece: &[u8]) -> Result<(), InvalidUtf8> {
        while self.cut_len > 0 {
            let Some((byte, rest)) = piece.split_first() else { return Ok(()) };
            self.push_byte(*byte)?;
            piece = rest;
        }
        let valid = piece.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        self.whole.push_str(valid);
        // If the piece is valid, at most a character that its end cuts is left.
        piece[valid.len()..].iter().try_for_each(|byte| self.push_byte(*byte))
    }

    /// Appends one byte to the cut character, which may make it whole.
    fn push_byte(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
        self.cut[self.cut_len] = byte;
        self.cut_len += 1;
        match str::from_utf8(&self.cut[..self.cut_len]) {
            Ok(character) => {
                self.whole.push_str(character);
                self.cut_len = 0;
            }
            Err(error) if error.error_len().is_none() => {}
            Err(_) => return Err(InvalidUtf8),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of bytes that are taken one at a time before one is refused, and whether the end
    /// is accepted.
    fn accepted(bytes: &[u8]) -> (usize, bool) {
        let mut text = Text::default();
        let taken = bytes.iter().take_while(|byte| text.push(&[**byte]).is_ok()).count();
        (taken, taken == bytes.len() && text.finished().is_ok())
    }

    #[test]
    fn the_first_impossible_byte_is_refused() {
        for (bytes, taken) in [
            (&b"\x80"[..], 0),
            (b"a\xFF", 1),
            (b"\xC0\x80", 0),
            (b"\xC1\xBF", 0),
            (b"\xE0\x9F\xBF", 1),
            (b"\xED\xA0\x80", 1),
            (b"\xF0\x8F\xBF\xBF", 1),
            (b"\xF4\x90\x80\x80", 1),
            (b"\xF5\x80\x80\x80", 0),
            (b"\xE2\x82a", 2),
            (b"\xF0\x9F\x98\xC3", 3),
            (b"\xC3\xC3", 1),
        ] {
            assert_eq!(accepted(bytes), (taken, false), "{bytes:X?}");
        }
    }

    #[test]
    fn the_first_and_last_characters_of_each_length_are_accepted() {
        for text in ["\0\u{7F}", "\u{80}\u{7FF}", "\u{800}\u{D7FF}\u{E000}\u{FFFF}"] {
            assert_eq!(accepted(text.as_bytes()), (text.len(), true), "{text:?}");
        }
        assert_eq!(accepted("\u{10000}\u{10FFFF}".as_bytes()), (8, true));
    }

    #[test]
    fn a_text_that_ends_inside_of_a_character_is_not_finished() {
        for cut in 1..4 {
            assert_eq!(accepted(&"\u{1F600}".as_bytes()[..cut]), (cut, false));
        }
    }

    #[test]
    fn two_pieces_are_judged_as_std_judges_the_whole() {
        let bytes = [0x00, 0x41, 0x7F, 0x80, 0x9F, 0xA0, 0xBF, 0xC2, 0xE0, 0xED, 0xF0, 0xF4, 0xFF];
        let all = || bytes.iter().copied();
        for whole in all().flat_map(|a| all().flat_map(move |b| all().map(move |c| [a, b, c]))) {
            for last in bytes {
                let whole = [whole[0], whole[1], whole[2], last];
                for cut in 0..=4 {
                    let mut text = Text::default();
                    let pushed = text.push(&whole[..cut]).and_then(|()| text.push(&whole[cut..]));
                    let judged = pushed.and_then(|()| text.finished()).ok();
                    assert_eq!(judged, str::from_utf8(&whole).ok(), "{whole:X?} cut at {cut}");
                }
            }
        }
    }
}
