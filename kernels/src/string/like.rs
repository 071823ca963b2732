//! LIKE patterns: `%` is any sequence, `_` any one character, and an escape character takes the next one as it is.

use super::find::{Find, run_find};
use crate::isa::{Isa, isa};
use crate::mask::words;

/// A pattern, split at its `%`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Like {
    /// What is between the `%`s: at least one piece. The first starts at the start of the text, the last ends at its end.
    pieces: Vec<Piece>,
}

/// Part of a pattern without `%`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    /// The bytes; 0xff, which is in no UTF-8, stands for any one character.
    bytes: Vec<u8>,
    /// Whether there is any 0xff.
    any: bool,
}

/// The byte of a piece that stands for any one character.
const ANY: u8 = 0xff;

impl Like {
    /// The pattern. An escape character at its very end stands for itself.
    pub fn new(pattern: &str, escape: Option<char>) -> Self {
        let mut pieces = vec![Piece { bytes: Vec::new(), any: false }];
        let mut characters = pattern.chars();
        while let Some(character) = characters.next() {
            if character == '%' && escape != Some('%') {
                pieces.push(Piece { bytes: Vec::new(), any: false });
                continue;
            }
            let Some(piece) = pieces.last_mut() else { break };
            if character == '_' && escape != Some('_') {
                piece.bytes.push(ANY);
                piece.any = true;
                continue;
            }
            let literal = if escape == Some(character) { characters.next().unwrap_or(character) } else { character };
            piece.bytes.extend_from_slice(literal.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Like { pieces }
    }

    /// The text that the pattern stands for, if it has no wildcards.
    pub fn exact(&self) -> Option<&[u8]> {
        match self.pieces.as_slice() {
            [only] if !only.any => Some(&only.bytes),
            _ => None,
        }
    }

    /// The bytes that every match starts with (up to the first wildcard), for ranges of ordered strings.
    pub fn prefix(&self) -> &[u8] {
        let first = self.pieces.first().map_or(&[][..], |piece| &piece.bytes);
        &first[..first.iter().position(|byte| *byte == ANY).unwrap_or(first.len())]
    }

    /// The prefix, if the pattern is just a prefix and a `%`.
    pub fn only_prefix(&self) -> Option<&[u8]> {
        match self.pieces.as_slice() {
            [first, last] if !first.any && last.bytes.is_empty() => Some(&first.bytes),
            _ => None,
        }
    }

    /// Whether the text matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.matches_with(isa(), text)
    }

    /// [`Like::matches`] at a given level.
    pub fn matches_with(&self, isa: Isa, text: &[u8]) -> bool {
        run_find!(isa, level => self.test(level, text))
    }

    /// Sets the bits of the strings that match. String `i` is `data[offsets[i]..offsets[i + 1]]`.
    pub fn matches_offsets(&self, offsets: &[u32], data: &[u8], mask: &mut [u64]) {
        self.matches_offsets_with(isa(), offsets, data, mask);
    }

    /// [`Like::matches_offsets`] at a given level.
    pub fn matches_offsets_with(&self, isa: Isa, offsets: &[u32], data: &[u8], mask: &mut [u64]) {
        run_find!(isa, level => super::each(
            offsets,
            data,
            mask,
            #[inline(always)]
            |text| self.test(level, text),
        ));
    }

    /// Sets the bits of the strings that match, in the order in which they come; there are at most 64 a word of `mask`.
    pub fn matches_each<'a>(&self, texts: impl ExactSizeIterator<Item = &'a [u8]>, mask: &mut [u64]) {
        assert!(mask.len() >= words(texts.len()), "mask too short");
        mask.fill(0);
        run_find!(isa(), level => {
            for (row, text) in texts.enumerate() {
                mask[row / 64] |= u64::from(self.test(level, text)) << (row % 64);
            }
        });
    }

    #[inline(always)]
    fn test<F: Find>(&self, level: F, text: &[u8]) -> bool {
        let (first, middle, last) = match self.pieces.as_slice() {
            [] => return text.is_empty(),
            [only] => return only.starts(text) == Some(text.len()),
            [first, middle @ .., last] => (first, middle, last),
        };
        let Some(mut at) = first.starts(text) else { return false };
        let Some(end) = last.ends(text) else { return false };
        for piece in middle {
            // `at` never passes the end of the text.
            match piece.find(level, &text[at..]) {
                Some(after) => at += after,
                None => return false,
            }
        }
        at <= end
    }
}

impl Piece {
    /// If the text starts with this piece, where the piece ends.
    #[inline(always)]
    fn starts(&self, text: &[u8]) -> Option<usize> {
        if self.any { wild(text, &self.bytes) } else { text.starts_with(&self.bytes).then_some(self.bytes.len()) }
    }

    /// If the text ends with this piece, where the piece starts.
    #[inline(always)]
    fn ends(&self, text: &[u8]) -> Option<usize> {
        if !self.any {
            return text.ends_with(&self.bytes).then(|| text.len() - self.bytes.len());
        }
        // All matches have the same number of characters: go back that many.
        let starts = |byte: &u8| *byte & 0xc0 != 0x80;
        let mut characters = self.bytes.iter().filter(|byte| starts(byte)).count();
        let mut at = text.len();
        while characters > 0 {
            at = text[..at].iter().rposition(starts)?;
            characters -= 1;
        }
        (wild(&text[at..], &self.bytes) == Some(text.len() - at)).then_some(at)
    }

    /// The end of the first place where this piece is.
    #[inline(always)]
    fn find<F: Find>(&self, level: F, text: &[u8]) -> Option<usize> {
        if !self.any {
            return level.find_any(text, &self.bytes).map(|at| at + self.bytes.len());
        }
        let starts = (0..text.len()).filter(|at| text[*at] & 0xc0 != 0x80);
        starts.into_iter().find_map(|at| wild(&text[at..], &self.bytes).map(|length| at + length))
    }
}

/// If the text starts with the piece, in which [`ANY`] stands for a character: the length of that start.
fn wild(text: &[u8], piece: &[u8]) -> Option<usize> {
    let mut at = 0;
    for byte in piece {
        if *byte == ANY {
            let rest = text.get(at + 1..)?;
            at += 1 + rest.iter().take_while(|byte| **byte & 0xc0 == 0x80).count();
        } else if text.get(at) == Some(byte) {
            at += 1;
        } else {
            return None;
        }
    }
    Some(at)
}
