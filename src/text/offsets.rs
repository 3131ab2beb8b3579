//! Offsets in a text, in bytes and in characters.

use std::ops::Range;

/// Last character boundary up to a place.
pub(super) fn boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// Number of a prompt's tokens: those that end within its first `prompt` bytes.  `ends` has the end
/// of each token.
pub(super) fn prompted(ends: impl Iterator<Item = usize>, prompt: usize) -> usize {
    ends.take_while(|end| prompt > 0 && *end <= prompt).count()
}

/// Number of spaces, `Ġ`, that a byte-level post-processor strips from the offsets of a token.
pub(super) fn stripped(token: &str) -> usize {
    token.chars().take_while(|&c| c == 'Ġ').count()
}

/// Span of a token, given with its part of the text, without the white space at its ends; of a
/// token that is not an added one, without the spaces.
pub(super) fn trimmed(span: Range<usize>, part: &str, added: bool) -> Range<usize> {
    let blank: fn(char) -> bool = if added { char::is_whitespace } else { |c| c == ' ' };
    let left = part.len() - part.trim_start_matches(blank).len();
    let right = part.len() - part.trim_end_matches(blank).len();
    (span.start + left).min(span.end)..(span.end - right).max(span.start)
}

/// Counter of characters.  It counts on from the offset before, so near offsets take little time.
pub(super) struct CharOffsets<'a> {
    text: &'a str,
    byte: usize,
    char: usize,
}

impl<'a> CharOffsets<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, byte: 0, char: 0 }
    }

    /// Character range of a byte range.
    pub fn range(&mut self, bytes: &Range<usize>) -> Range<usize> {
        self.at(bytes.start)..self.at(bytes.end)
    }

    /// Number of characters before a byte, or before the character that it is in.
    fn at(&mut self, byte: usize) -> usize {
        let to = boundary(self.text, byte);
        if to < self.byte {
            self.char -= self.text[to..self.byte].chars().count();
        } else {
            self.char += self.text[self.byte..to].chars().count();
        }
        self.byte = to;
        self.char
    }
}

/// Places of a shortened text where bytes were left out, in order: the offset in the shortened
/// text, and the bytes left out up to there.
#[derive(Default)]
pub(super) struct LeftOut(Vec<(usize, usize)>);

impl LeftOut {
    /// Adds bytes that were left out at an offset, the last one or a later one.
    pub fn add(&mut self, at: usize, bytes: usize) {
        match self.0.last_mut() {
            Some((last, all)) if *last == at => *all += bytes,
            last => {
                let all = last.map_or(0, |(_, all)| *all);
                self.0.push((at, all + bytes));
            }
        }
    }

    /// Range in the whole text of a range in the shortened text.
    pub fn restored(&self, span: &Range<usize>) -> Range<usize> {
        self.place(span.start)..self.place(span.end)
    }

    fn place(&self, at: usize) -> usize {
        match self.0.partition_point(|&(place, _)| place <= at) {
            0 => at,
            n => at + self.0[n - 1].1,
        }
    }
}
