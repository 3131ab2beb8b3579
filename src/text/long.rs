//! Tokenisation of long texts in pieces: memory depends on the tokens kept, not on the text.
//!
//! A *seam* is a place where a text can be split so that the concatenated tokens of both parts are
//! those of the whole.  The seams depend on the tokenizer; texts for tokenizers other than these
//! two types are read whole.
//!
//! **WordPiece after BERT's pre-tokenizer.**  Words end at white space, and every punctuation mark
//! and, with `handle_chinese_chars`, every Chinese character is a separate word.  BERT's normalizer
//! maps character by character; it reorders only combining marks, which never pass a character of
//! these kinds.  So there is a seam on both sides of such a character, unless an added token
//! contains the two characters around it next to each other.  A word of more characters than
//! `max_input_chars_per_word` is one `[UNK]` of any length: letters beyond that number are removed
//! before tokenisation.
//!
//! **Byte-level BPE.**  GPT-2's pattern ends a match before white space that follows anything else,
//! and looks ahead but never back: there is a seam.  Within a longer stretch, a place is a seam if
//! no merge crosses it.  Let `x` be the last token before and `y` the first after it, each part
//! tokenised alone; if `xy` tokenised alone is `x, y`, the place is a seam.  Proof: of the merges
//! of the whole, take the first that crosses a boundary between two tokens of the joined list.
//! Until then these two evolved independently, in the same order of ranks and places as in a text
//! of just the two; so the merge would happen there, too, but there both stay separate.  By the
//! same argument every run of tokens of a list is the list of its own text.

use super::offsets::{LeftOut, boundary};
use std::{borrow::Cow, collections::HashSet, iter, ops::Range};

/// Approximate bytes of one piece; a text of up to twice as many is read whole.
const PIECE: usize = 16 << 10;

/// Maximum bytes tokenised at once, in a text without seams.
const LONGEST: usize = 1 << 20;

/// Bytes of a text whose tokens are counted, even if they are not kept.
const COUNTED: usize = 1 << 20;

/// Tokens at the end of a piece after which a seam is tried.
const TRIES: usize = 64;

/// Type of pre-tokenizer and model between added tokens.
pub(super) enum Kind {
    /// BERT's pre-tokenizer and WordPiece.
    Words {
        /// Maximum length in characters of a word that is not `[UNK]`.
        most: usize,
        /// Treat Chinese characters as separate words.
        chinese: bool,
    },
    /// GPT-2's pattern and BPE of bytes, without a normalizer.
    Bytes,
}

impl Kind {
    /// True if there is certainly no seam inside an added token.
    fn keeps_whole(&self, token: &Added) -> bool {
        match self {
            Self::Words { .. } => {
                !token.normalized || !token.content.contains(|c: char| !c.is_ascii_graphic())
            }
            Self::Bytes => !token.content.contains(char::is_whitespace),
        }
    }
}

/// An added token, such as `[MASK]`.
pub(super) struct Added {
    pub content: String,
    /// Matches only between characters that are not letters.
    pub single_word: bool,
    /// Includes the white space before it.
    pub lstrip: bool,
    /// Includes the white space after it.
    pub rstrip: bool,
    /// Matched after the normalizer.
    pub normalized: bool,
}

impl Added {
    /// True if neither end is a letter or a digit.
    fn is_marked(&self) -> bool {
        let ends = [self.content.chars().next(), self.content.chars().next_back()];
        !ends.into_iter().flatten().any(char::is_alphanumeric)
    }

    /// True if the token ends with a character, and includes the white space after it.
    fn takes_space_after(&self, last: char) -> bool {
        self.rstrip && self.content.ends_with(last)
    }
}

/// Seam finder of a tokenizer.
pub(super) struct Seams {
    kind: Kind,
    added: Vec<Added>,
    /// Adjacent characters in added tokens.
    pairs: HashSet<(char, char)>,
    /// True if there are seams only beside white space.
    spaces_only: bool,
    /// True if added tokens include white space before them, and after them.
    strips: [bool; 2],
    /// Number of letters of a word that are kept; unlimited if added tokens may be among them.
    kept: usize,
    /// As [`PIECE`] and [`COUNTED`]; tests set smaller values.
    pub piece: usize,
    pub counted: usize,
}

/// Tokens of a text and, on request, their byte ranges.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    pub ids: Vec<u32>,
    pub spans: Vec<Range<usize>>,
}

/// Selection of a long text's tokens.
#[derive(Clone, Copy)]
pub(super) struct Keep {
    /// Maximum number of tokens.
    pub limit: usize,
    /// Keep the last tokens instead of the first.
    pub last: bool,
    /// Include byte ranges.
    pub spans: bool,
}

impl Keep {
    pub const ALL: Self = Self { limit: usize::MAX, last: false, spans: false };
}

/// Tokenizer without special tokens.
pub(super) trait Pieces {
    /// Tokens of a piece.
    fn tokens(&self, piece: &str, spans: bool) -> Result<Own, String>;
    /// True if two BPE tokens do not merge.
    fn apart(&self, left: u32, right: u32) -> bool;
}

impl Seams {
    /// Creates the seam finder; none if an added token may cross any place.
    pub fn new(kind: Kind, added: Vec<Added>) -> Option<Self> {
        let strips =
            [added.iter().any(|token| token.lstrip), added.iter().any(|token| token.rstrip)];
        let spaces_only = added.iter().any(|token| token.normalized);
        let splits = added.iter().any(|token| !kind.keeps_whole(token));
        if splits || spaces_only && strips == [true; 2] {
            return None;
        }
        let pairs = added
            .iter()
            .flat_map(|token| iter::zip(token.content.chars(), token.content.chars().skip(1)))
            .collect();
        let longest = added.iter().map(|token| token.content.chars().count()).max().unwrap_or(0);
        let kept = match kind {
            Kind::Words { most, .. } if added.iter().all(Added::is_marked) => most.max(longest) + 1,
            _ => usize::MAX,
        };
        Some(Self { pairs, kind, spaces_only, strips, kept, added, piece: PIECE, counted: COUNTED })
    }

    /// True if a text is long enough to be split.
    pub fn is_long(&self, text: &str) -> bool {
        text.len() > 2 * self.piece
    }

    /// True if the rest can be skipped: there are tokens beyond the limit, and enough were counted.
    fn enough(&self, keep: Keep, count: usize, bytes: usize) -> bool {
        count > keep.limit && bytes >= self.counted
    }

    /// True if there is certainly a seam between these characters.
    fn between(&self, before: char, after: char) -> bool {
        match self.kind {
            Kind::Bytes => {
                let begins = !before.is_whitespace() && after.is_whitespace();
                begins && !self.added.iter().any(|token| token.takes_space_after(before))
            }
            Kind::Words { chinese, .. } => {
                let space = [before, after].map(is_space);
                // Added tokens also include white space that BERT's normalizer drops.
                let taken = [before, after].map(char::is_whitespace);
                if self.pairs.contains(&(before, after))
                    || taken[0] && self.strips[0]
                    || taken[1] && self.strips[1]
                {
                    return false;
                }
                space[0]
                    || space[1]
                    || !self.spaces_only
                        && (parts(before, chinese) || parts(after, chinese))
                        && !self.beside_word(before, after)
            }
        }
    }

    /// True if an added token that depends on its neighbours may be beside the place.
    fn beside_word(&self, before: char, after: char) -> bool {
        let mut single = self.added.iter().filter(|token| token.single_word);
        single.any(|token| token.content.ends_with(before) || token.content.starts_with(after))
    }

    /// End of the segment that begins at a seam: about one piece, more if there is no other seam.
    fn after(&self, text: &str, from: usize) -> usize {
        let far = boundary(text, from + self.piece);
        let near = boundary(text, from + self.piece / 2);
        let back = self.last_seam(text, near, far);
        back.or_else(|| self.first_seam(text, far, text.len())).unwrap_or(text.len())
    }

    /// Beginning of the segment that ends at a seam.
    fn before(&self, text: &str, to: usize) -> usize {
        let far = boundary(text, to.saturating_sub(self.piece));
        let near = boundary(text, to.saturating_sub(self.piece / 2));
        let forth = self.first_seam(text, far, near);
        forth.or_else(|| self.last_seam(text, 0, far)).unwrap_or(0)
    }

    /// First seam from one place on, before another.
    fn first_seam(&self, text: &str, from: usize, to: usize) -> Option<usize> {
        let mut before = text[..from].chars().next_back();
        text[from..to].char_indices().find_map(|(at, after)| {
            let found = before.is_some_and(|before| self.between(before, after));
            before = Some(after);
            found.then_some(from + at)
        })
    }

    /// Last seam after one place, up to another.
    fn last_seam(&self, text: &str, from: usize, to: usize) -> Option<usize> {
        let mut after = text[to..].chars().next();
        text[from..to].char_indices().rev().find_map(|(at, before)| {
            let found = after.is_some_and(|after| self.between(before, after));
            after = Some(before);
            found.then_some(from + at + before.len_utf8())
        })
    }

    /// The kept tokens of a text, and the number of all tokens; beyond [`COUNTED`] bytes, a lower
    /// bound above the limit.
    pub fn read(
        &self,
        text: &str,
        keep: Keep,
        pieces: &impl Pieces,
    ) -> Result<(Own, usize), String> {
        if keep.last {
            self.read_last(text, keep, pieces)
        } else {
            self.read_first(text, keep, pieces)
        }
    }

    /// As [`Seams::read`], from the start of the text on.
    fn read_first(
        &self,
        text: &str,
        keep: Keep,
        pieces: &impl Pieces,
    ) -> Result<(Own, usize), String> {
        let mut own = Own::default();
        let mut count = 0;
        let mut from = 0;
        while from < text.len() && !self.enough(keep, count, from) {
            let to = self.after(text, from);
            let room = Keep { limit: keep.limit.saturating_sub(count), ..keep };
            let part = self.segment(&text[from..to], room, pieces)?;
            count += part.ids.len();
            let tokens = part.ids.len().min(room.limit);
            own.extend(part, tokens, from, keep.spans);
            from = to;
        }
        Ok((own, count))
    }

    /// As [`Seams::read`], from the end of the text back.
    fn read_last(
        &self,
        text: &str,
        keep: Keep,
        pieces: &impl Pieces,
    ) -> Result<(Own, usize), String> {
        let mut parts = Vec::new();
        let mut count = 0;
        let mut to = text.len();
        while to > 0 && !self.enough(keep, count, text.len() - to) {
            let from = self.before(text, to);
            let mut part = self.segment(&text[from..to], Keep::ALL, pieces)?.ids;
            // Tokens beyond the limit are only counted.
            let first = part.len().saturating_sub(keep.limit.saturating_sub(count));
            count += part.len();
            part.drain(..first);
            parts.push(part);
            to = from;
        }
        let ids = parts.into_iter().rev().flatten().collect();
        Ok((Own { ids, spans: Vec::new() }, count))
    }

    /// Tokens of a segment between two seams; of a long one, no more than [`Seams::enough`].
    fn segment(&self, text: &str, keep: Keep, pieces: &impl Pieces) -> Result<Own, String> {
        if !self.is_long(text) {
            return pieces.tokens(text, keep.spans);
        }
        if let Kind::Bytes = self.kind
            && let Some(own) = self.stretch(text, keep, pieces)?
        {
            return Ok(own);
        }
        let (short, left_out) = self.shorten(text);
        if short.len() > LONGEST {
            return Err(format!(
                "{} bytes without white space or punctuation, over the limit of {LONGEST}",
                short.len()
            ));
        }
        let mut own = pieces.tokens(&short, keep.spans)?;
        own.spans.iter_mut().for_each(|span| *span = left_out.restored(span));
        Ok(own)
    }

    /// Removes letters of a segment that change nothing; also returns their places.
    fn shorten<'a>(&self, text: &'a str) -> (Cow<'a, str>, LeftOut) {
        let mut left_out = LeftOut::default();
        if self.kept == usize::MAX {
            return (text.into(), left_out);
        }
        let mut short = String::new();
        let mut run = 0;
        for c in text.chars() {
            run = if is_letter(c) { run + 1 } else { 0 };
            if run <= self.kept {
                short.push(c);
            } else {
                left_out.add(short.len(), c.len_utf8());
            }
        }
        (short.into(), left_out)
    }

    /// Tokens of a stretch of bytes, in pieces split where no merge crosses; none if there is no
    /// such place.
    fn stretch(&self, text: &str, keep: Keep, pieces: &impl Pieces) -> Result<Option<Own>, String> {
        let blank = self.blank(text);
        let mut own = Own::default();
        let mut from = 0;
        let mut piece = self.piece_at(text, 0, pieces)?;
        while from + self.piece < text.len() {
            if self.enough(keep, own.ids.len(), from) {
                return Ok(Some(own));
            }
            let mut found = None;
            for n in (1..piece.ids.len()).rev().take(TRIES) {
                let end = from + piece.spans[n - 1].end;
                // One character may consist of several tokens.
                let parted = from + piece.spans[n].start >= end;
                if !parted || !self.inside(text, end, blank) {
                    continue;
                }
                let next = self.piece_at(text, end, pieces)?;
                let first = next.ids.first();
                if first.is_some_and(|&first| pieces.apart(piece.ids[n - 1], first)) {
                    found = Some((n, end, next));
                    break;
                }
            }
            let Some((n, end, next)) = found else { return Ok(None) };
            own.extend(piece, n, from, keep.spans);
            from = end;
            piece = next;
        }
        let rest = piece.ids.len();
        own.extend(piece, rest, from, keep.spans);
        Ok(Some(own))
    }

    /// Tokens of the piece that begins at a place, with their spans.
    fn piece_at(&self, text: &str, from: usize, pieces: &impl Pieces) -> Result<Own, String> {
        pieces.tokens(&text[from..boundary(text, from + self.piece)], true)
    }

    /// Number of white space bytes at the beginning, unless an added token may include some.
    fn blank(&self, text: &str) -> usize {
        let rest = text.trim_start();
        let mut added = self.added.iter();
        let taken =
            added.any(|token| token.rstrip || token.lstrip && rest.starts_with(&token.content));
        if taken { 0 } else { text.len() - rest.len() }
    }

    /// True if GPT-2's pattern matches the split stretch like the whole, except that one match
    /// becomes two.
    fn inside(&self, text: &str, at: usize, blank: usize) -> bool {
        if at == 0 || !text.is_char_boundary(at) {
            return false;
        }
        let mut before = text[..at].chars().rev();
        let mut after = text[at..].chars();
        let (Some(last), Some(first)) = (before.next(), after.next()) else { return false };
        if last.is_whitespace() || first.is_whitespace() {
            // The last white space of several belongs to the following match.
            return at + first.len_utf8() < blank;
        }
        // `'s` and the like are separate matches.
        ![Some(last), Some(first), before.next()].contains(&Some('\''))
            && !self.pairs.contains(&(last, first))
            && !self.beside_word(last, first)
    }
}

impl Own {
    /// Appends the first tokens of a piece that begins at a place.
    fn extend(&mut self, piece: Self, tokens: usize, from: usize, spans: bool) {
        self.ids.extend_from_slice(&piece.ids[..tokens]);
        if spans {
            let spans = piece.spans.into_iter().take(tokens);
            self.spans.extend(spans.map(|span| span.start + from..span.end + from));
        }
    }
}

/// True if BERT's normalizer treats the character as white space; it drops most control characters.
fn is_space(c: char) -> bool {
    c.is_whitespace() && (!c.is_control() || matches!(c, '\t' | '\n' | '\r'))
}

/// True if a character is a separate word, regardless of its neighbours.
fn parts(c: char, chinese: bool) -> bool {
    c.is_ascii_punctuation()
        || matches!(c, '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{2043}' | '\u{3001}'..='\u{3003}'
            | '\u{3008}'..='\u{3011}' | '\u{ff01}'..='\u{ff03}' | '\u{ff05}'..='\u{ff0a}'
            | '\u{ff0c}'..='\u{ff0f}' | '\u{ff1a}' | '\u{ff1b}' | '\u{ff1f}' | '\u{60c}' | '\u{61b}'
            | '\u{61f}' | '\u{6d4}' | '\u{964}' | '\u{965}' | '\u{ab}' | '\u{bb}')
        || chinese && matches!(c, '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}')
}

/// True if a character is certainly a letter of a word, before and after the normalizer.
fn is_letter(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(c, 'À'..='Ö' | 'Ø'..='ö' | 'ø'..='ɏ' | 'Α'..='Ρ' | 'Σ'..='Ω' | 'α'..='ω' | 'Ѐ'..='ҁ'
            | 'Ҋ'..='ӿ' | 'א'..='ת' | 'ء'..='غ' | 'ف'..='ي' | 'ก'..='ะ' | 'ა'..='ჰ' | 'ぁ'..='ゖ'
            | 'ァ'..='ヺ' | '가'..='힣' | '\u{1f600}'..='\u{1f610}')
}

/// Byte offset of the first character of each token, from its byte range and the bytes stripped
/// from its start: ascending, and never inside a character.
pub(super) fn starts(text: &str, spans: impl Iterator<Item = (usize, usize, usize)>) -> Vec<usize> {
    let mut last = 0;
    let ascending = spans.map(|(from, to, stripped)| {
        last = last.max(first_character(text, from..to, stripped));
        last
    });
    ascending.collect()
}

/// Byte offset of the first character of a token that is not white space, if there is one.
fn first_character(text: &str, span: Range<usize>, stripped: usize) -> usize {
    let start = boundary(text, span.start);
    let part = &text[start..boundary(text, span.end)];
    match part.find(|c: char| !c.is_whitespace()) {
        Some(at) => start + at,
        None if part.starts_with(' ') => start,
        None => start.saturating_sub(stripped),
    }
}

/// All characters classified as letters of a word, and all classified as separate words.
#[cfg(test)]
pub(super) fn classes() -> (Vec<char>, Vec<char>) {
    let all = || ('\0'..=char::MAX).filter(|c| !c.is_whitespace());
    (all().filter(|&c| is_letter(c)).collect(), all().filter(|&c| parts(c, true)).collect())
}
