//! Chunks of a text for late chunking: which tokens each has, and which part of the text.
//!
//! The rules, for all ways to cut:
//!
//! * A token belongs to the chunk in which its first character lies.  White space at its beginning,
//!   as byte-level tokenizers have it in a word's token, is passed over, unless there is nothing
//!   else.
//! * The special tokens before the text belong to the first chunk, those after it to the last,
//!   unless text that belongs to no chunk lies between.
//! * Chunks of [`Chunking::Tokens`] and [`Chunking::Sentences`] tile the text: every character,
//!   white space too, is in one of them, and so is every token.  A text without tokens is one chunk
//!   with the special tokens.
//! * [`Chunking::Tokens`] may cut a character that several tokens make, an emoji of a byte-level
//!   tokenizer for one.  The character then is in the chunk of the first of them, and a chunk that
//!   has only others is without text.
//! * A sentence ends where Unicode's UAX #29 says so, at a line break too; it has the white space
//!   behind it.  One of white space only, or in which no token begins, counts as a part of the one
//!   before it, or, at the start of the text, of the one after it.

use crate::{batch::Tokens, error::Error};
use std::{num::NonZeroUsize, ops::Range, str::FromStr};
use unicode_segmentation::UnicodeSegmentation;

/// Where to cut a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunking {
    /// After every so many tokens; the last chunk may have fewer.
    Tokens(NonZeroUsize),
    /// After every so many sentences; the last chunk may have fewer.
    Sentences(NonZeroUsize),
    /// At the caller's ranges of characters, counted as Python does: Unicode code points.  In
    /// order, without overlap, each with the first character of at least one token; what lies
    /// between them belongs to no chunk.
    Spans(Vec<Range<usize>>),
}

/// `tokens:256` or `sentences:5`.
impl FromStr for Chunking {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |what: &str| Err(Error::Option(format!("chunks `{text}`: {what}")));
        let Some((unit, count)) = text.split_once(':') else {
            return bad("tokens:N or sentences:N is meant");
        };
        let make = match unit {
            "tokens" => Self::Tokens,
            "sentences" => Self::Sentences,
            _ => return bad(&format!("`{unit}` is neither tokens nor sentences")),
        };
        match count.parse() {
            Ok(count) => Ok(make(count)),
            Err(_) => bad(&format!("`{count}` is not a number from 1 on")),
        }
    }
}

/// A chunk of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its tokens in the sequence, special ones counted.
    pub tokens: Range<usize>,
    /// Its characters in the text, in Unicode code points as Python counts.
    pub chars: Range<usize>,
    /// Its bytes in the text: `text[bytes]` is what it says.
    pub bytes: Range<usize>,
}

/// A text's tokens and its chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunked {
    /// What the model reads: the whole text, special tokens included.
    pub tokens: Tokens,
    /// In order.
    pub chunks: Vec<Chunk>,
    /// Special tokens after the text's own.
    pub after: usize,
}

impl Chunked {
    /// Drops the text's last tokens so that `limit` are left, special ones included.  Chunks end
    /// where the text then does; those that begin there or later are dropped.  The text of a chunk
    /// stays what it was.
    pub fn truncate(&mut self, limit: usize) {
        let length = self.tokens.len();
        if length <= limit {
            return;
        }
        let end = limit.saturating_sub(self.after);
        self.tokens.ids.drain(end..length - self.after);
        self.tokens.type_ids.drain(end..length - self.after);
        let owned = self.chunks.last().is_some_and(|chunk| chunk.tokens.end == length);
        self.chunks.retain(|chunk| chunk.tokens.start < end);
        for chunk in &mut self.chunks {
            chunk.tokens.end = chunk.tokens.end.min(end);
        }
        if let Some(last) = self.chunks.last_mut().filter(|last| owned && last.tokens.end == end) {
            last.tokens.end = limit; // the special tokens at the end are the last chunk's
        }
    }
}

/// Where the tokens of a text lie.
pub(super) struct Places {
    /// The byte where the first character of each of the text's own tokens begins, in order.
    pub starts: Vec<usize>,
    /// Special tokens before them.
    pub before: usize,
    /// Special tokens after them.
    pub after: usize,
}

impl Places {
    /// Cuts the text; the message of a refusal.
    pub fn cut(&self, text: &str, chunking: &Chunking) -> Result<Vec<Chunk>, String> {
        let spans = match chunking {
            Chunking::Spans(spans) => return self.at_spans(text, spans),
            _ if self.starts.is_empty() => vec![(0..0, 0..text.len())],
            Chunking::Tokens(n) => self.after_tokens(text, n.get()),
            Chunking::Sentences(n) => self.after_sentences(text, n.get()),
        };
        Ok(self.chunks(text, spans))
    }

    /// Consecutive windows of the tokens.
    fn after_tokens(&self, text: &str, n: usize) -> Vec<(Range<usize>, Range<usize>)> {
        let first = |token: usize| {
            let start = self.starts[token];
            match token.checked_sub(1).is_some_and(|before| self.starts[before] == start) {
                // The character that begins there is in the chunk before.
                true => start + text[start..].chars().next().map_or(0, char::len_utf8),
                false => start,
            }
        };
        tiles((n..self.starts.len()).step_by(n).map(|token| (token, first(token))), self, text)
    }

    /// Groups of sentences.
    fn after_sentences(&self, text: &str, n: usize) -> Vec<(Range<usize>, Range<usize>)> {
        let token = |at: usize| self.starts.partition_point(|&start| start < at);
        let (mut cuts, mut begun) = (Vec::new(), false);
        for sentence in sentences(text) {
            let first = token(sentence.start);
            let blank = text[sentence.clone()].trim().is_empty();
            if !blank && first < token(sentence.end) {
                if begun {
                    cuts.push((first, sentence.start));
                }
                begun = true;
            }
        }
        tiles(cuts.into_iter().skip(n - 1).step_by(n), self, text)
    }

    fn at_spans(&self, text: &str, spans: &[Range<usize>]) -> Result<Vec<Chunk>, String> {
        if spans.is_empty() {
            return Err("no spans to cut at".to_owned());
        }
        let places: Vec<usize> =
            text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let length = places.len() - 1;
        let (mut found, mut last) = (Vec::new(), 0);
        for (n, Range { start, end }) in spans.iter().cloned().enumerate() {
            let bad = |what: String| Err(format!("span {n}, {start}..{end}: {what}"));
            if start > end {
                return bad("runs backwards".to_owned());
            }
            if start == end {
                return bad("is empty".to_owned());
            }
            if end > length {
                return bad(format!("passes the end of the text, {length} characters"));
            }
            if start < last {
                return bad(format!("begins before the span before it ends, at {last}"));
            }
            let bytes = places[start]..places[end];
            let token = |at: usize| self.starts.partition_point(|&start| start < at);
            let tokens = token(bytes.start)..token(bytes.end);
            if tokens.is_empty() {
                return bad("no token begins in it, and a chunk has at least one".to_owned());
            }
            last = end;
            found.push((tokens, bytes));
        }
        Ok(self.chunks(text, found))
    }

    /// Adds the special tokens, and counts characters.
    fn chunks(&self, text: &str, spans: Vec<(Range<usize>, Range<usize>)>) -> Vec<Chunk> {
        let own = self.starts.len();
        let (mut byte, mut char) = (0, 0);
        let mut chars = |to: usize| {
            char += text[byte..to].chars().count();
            byte = to;
            char
        };
        let chunk = |(tokens, bytes): (Range<usize>, Range<usize>)| {
            let start = if tokens.start == 0 { 0 } else { self.before + tokens.start };
            let after = if tokens.end == own { self.after } else { 0 };
            let tokens = start..self.before + tokens.end + after;
            Chunk { tokens, chars: chars(bytes.start)..chars(bytes.end), bytes }
        };
        spans.into_iter().map(chunk).collect()
    }
}

/// Tokens and bytes between cuts, each of which is the first token and the first byte after it.
fn tiles(
    cuts: impl Iterator<Item = (usize, usize)>,
    places: &Places,
    text: &str,
) -> Vec<(Range<usize>, Range<usize>)> {
    let mut from = (0, 0);
    let cuts = cuts.chain([(places.starts.len(), text.len())]);
    let tile = |to: (usize, usize)| {
        let tile = (from.0..to.0, from.1..to.1);
        from = to;
        tile
    };
    cuts.map(tile).collect()
}

/// Sentences by UAX #29.
fn sentences(text: &str) -> Vec<Range<usize>> {
    // The rules ask for white space, not for how much; but the crate looks ahead from every
    // character of it, past all that follow.  So a run of the same is looked at as one.
    let (mut short, mut runs, mut last) = (String::with_capacity(text.len()), Vec::new(), None);
    let mut left_out = 0;
    for c in text.chars() {
        let breaks = matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
        if last == Some(c) && c.is_whitespace() && !breaks {
            left_out += c.len_utf8();
            match runs.last_mut() {
                Some((at, bytes)) if *at == short.len() => *bytes = left_out,
                _ => runs.push((short.len(), left_out)),
            }
        } else {
            short.push(c);
            last = Some(c);
        }
    }
    let whole = |at: usize| match runs.partition_point(|&(run, _)| run <= at) {
        0 => at,
        n => at + runs[n - 1].1,
    };
    let bounds = short.split_sentence_bound_indices();
    bounds.map(|(at, sentence)| whole(at)..whole(at + sentence.len())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_cut_are_read() {
        let count = |n| NonZeroUsize::new(n).expect("not zero");
        let read = |text: &str| text.parse::<Chunking>();
        assert_eq!(read("tokens:256").expect("good"), Chunking::Tokens(count(256)));
        assert_eq!(read("sentences:5").expect("good"), Chunking::Sentences(count(5)));
        for (text, says) in [
            ("", "chunks ``: tokens:N or sentences:N is meant"),
            ("256", "chunks `256`: tokens:N or sentences:N is meant"),
            ("words:3", "chunks `words:3`: `words` is neither tokens nor sentences"),
            ("tokens:0", "chunks `tokens:0`: `0` is not a number from 1 on"),
            ("tokens:-1", "chunks `tokens:-1`: `-1` is not"),
            ("sentences:", "chunks `sentences:`: `` is not"),
            ("tokens: 5", "chunks `tokens: 5`: ` 5` is not"),
            ("tokens:99999999999999999999", "is not a number from 1 on"),
        ] {
            let error = read(text).expect_err(text);
            assert!(matches!(&error, Error::Option(what) if what.contains(says)), "{error}");
        }
    }

    /// White space is left out for the crate and put back.
    #[test]
    fn sentences_are_the_crate_s() {
        let texts = [
            "",
            "   ",
            "A b.   C d?\u{3000}\u{3000}\u{3000}\u{a0}\u{a0}E.\t\t\tF",
            "a.\n\n\n  b.\r\n\r\n\u{2028}\u{2028}c  \n  d.)   (E.   f.",
            "  \u{3000}\u{3000}A.  \u{3000}\u{3000}  B",
            "3.8 is no end.  \"Is this?\"  \u{65e5}\u{3002}\u{672c}",
        ];
        for text in texts {
            let expected = text.split_sentence_bound_indices();
            let expected: Vec<_> = expected.map(|(at, part)| at..at + part.len()).collect();
            assert_eq!(sentences(text), expected, "{text:?}");
        }
    }
}
