//! Chunks of a text for late chunking: the tokens and the text range of each one.
//!
//! The rules, for all chunkings:
//!
//! * A token belongs to the chunk of its first character.  White space at its beginning, as in the
//!   tokens of byte-level tokenizers, is skipped, unless there is nothing else.
//! * The special tokens before the text belong to the first chunk, those after it to the last,
//!   unless text outside all chunks lies between.
//! * Chunks of [`Chunking::Tokens`] and [`Chunking::Sentences`] tile the text: every character,
//!   white space included, is in exactly one chunk, and so is every token.  A text without tokens
//!   is one chunk with the special tokens.
//! * [`Chunking::Tokens`] may split a character of several tokens, such as an emoji of a byte-level
//!   tokenizer.  The character then is in the chunk of its first token, and a chunk with only other
//!   tokens of it has no text.
//! * Chunks of [`Chunking::Overlapping`] follow the same rules, but each after the first begins
//!   with the last tokens or sentences of the one before; the last chunk is the first that reaches
//!   the end.
//! * A sentence ends according to Unicode's UAX #29, also at a line break; it includes the white
//!   space after it.  A sentence of only white space, or without the start of a token, is part of
//!   the one before it, or, at the start of the text, of the one after it.

use super::offsets::{CharOffsets, LeftOut};
use crate::{batch::Tokens, error::Error};
use std::{num::NonZeroUsize, ops::Range, str::FromStr};
use unicode_segmentation::UnicodeSegmentation;

/// Rule for splitting a text into chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunking {
    /// Chunks of this many tokens; the last may have fewer.
    Tokens(NonZeroUsize),
    /// Chunks of this many sentences; the last may have fewer.
    Sentences(NonZeroUsize),
    /// Chunks of equal size, each beginning with the end of the one before; the last may be
    /// shorter.
    Overlapping {
        /// Unit of size and overlap.
        unit: Unit,
        /// Chunk size in tokens or sentences.
        size: NonZeroUsize,
        /// Overlap with the chunk before: less than `size`.
        overlap: usize,
    },
    /// The caller's character ranges, in Unicode code points as in Python.  They must be in order,
    /// without overlap, each with the first character of at least one token; text between them
    /// belongs to no chunk.
    Spans(Vec<Range<usize>>),
}

/// Unit of chunk sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Tokens of the text, without special tokens.
    Tokens,
    /// Sentences by UAX #29.
    Sentences,
}

/// Parses `tokens:256` or `sentences:5`; `tokens:256:32` for an overlap of 32.
impl FromStr for Chunking {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).map_err(|what| Error::Option(format!("chunks `{text}`: {what}")))
    }
}

impl Chunking {
    fn parse(text: &str) -> Result<Self, String> {
        let (unit, numbers) = text.split_once(':').ok_or_else(|| {
            "expected tokens:N, sentences:N, or an overlap too: tokens:N:OVERLAP".to_owned()
        })?;
        let unit = match unit {
            "tokens" => Unit::Tokens,
            "sentences" => Unit::Sentences,
            _ => return Err(format!("`{unit}` is neither tokens nor sentences")),
        };
        let (count, overlap) = match numbers.split_once(':') {
            Some((count, overlap)) => (count, Some(overlap)),
            None => (numbers, None),
        };
        let size: NonZeroUsize =
            count.parse().map_err(|_| format!("`{count}` is not a number from 1 on"))?;
        let overlap = match overlap.map(str::parse::<usize>) {
            None => 0,
            Some(Ok(overlap)) => overlap,
            Some(Err(_)) => return Err("the overlap is not a number".to_owned()),
        };
        if overlap >= size.get() {
            return Err(no_step(size, overlap));
        }
        Ok(match (unit, overlap) {
            (Unit::Tokens, 0) => Self::Tokens(size),
            (Unit::Sentences, 0) => Self::Sentences(size),
            (unit, overlap) => Self::Overlapping { unit, size, overlap },
        })
    }
}

fn no_step(size: NonZeroUsize, overlap: usize) -> String {
    format!("expected an overlap under the size of {size}, got {overlap}")
}

/// A chunk of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Token range in the sequence, special tokens counted.
    pub tokens: Range<usize>,
    /// Character range in the text, in Unicode code points as in Python.
    pub chars: Range<usize>,
    /// Byte range in the text: `text[bytes]` is the chunk's text.
    pub bytes: Range<usize>,
}

/// Tokens and chunks of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunked {
    /// Input of the model: the whole text, special tokens included.
    pub tokens: Tokens,
    /// Chunks in text order.
    pub chunks: Vec<Chunk>,
    /// Number of special tokens after the text's own tokens.
    pub after: usize,
}

impl Chunked {
    /// Drops the text's last tokens so that `limit` remain, special tokens included.  Chunks are
    /// cut at the new end; those that begin there or later are dropped, and those left with nothing
    /// but their overlap.  The text range of a chunk stays unchanged.
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
        // Chunks after the first that reaches the end would have only overlap with it.
        let reaching = self.chunks.iter().position(|chunk| chunk.tokens.end == end);
        self.chunks.truncate(reaching.map_or(usize::MAX, |last| last + 1));
        if let Some(last) = self.chunks.last_mut().filter(|last| owned && last.tokens.end == end) {
            last.tokens.end = limit; // the last chunk has the special tokens at the end
        }
    }
}

/// Positions of a text's tokens.
pub(super) struct Places {
    /// Byte offset of the first character of each of the text's own tokens, in order.
    pub starts: Vec<usize>,
    /// Number of special tokens before them.
    pub before: usize,
    /// Number of special tokens after them.
    pub after: usize,
}

impl Places {
    /// Places in a text without its prompt, which has `tokens` tokens and `bytes` bytes.  The
    /// prompt's tokens count as special tokens before the text.
    pub fn after_prompt(self, tokens: usize, bytes: usize) -> Self {
        let own = self.starts[tokens..].iter();
        let starts = own.map(|start| start.saturating_sub(bytes)).collect();
        Self { starts, before: self.before + tokens, after: self.after }
    }

    /// Splits the text into chunks, or returns an error message.
    pub fn cut(&self, text: &str, chunking: &Chunking) -> Result<Vec<Chunk>, String> {
        let (unit, size, overlap) = match chunking {
            Chunking::Spans(spans) => return self.at_spans(text, spans),
            Chunking::Tokens(n) => (Unit::Tokens, *n, 0),
            Chunking::Sentences(n) => (Unit::Sentences, *n, 0),
            Chunking::Overlapping { unit, size, overlap } => (*unit, *size, *overlap),
        };
        if overlap >= size.get() {
            return Err(no_step(size, overlap));
        }
        if self.starts.is_empty() {
            return Ok(self.chunks(text, vec![(0..0, 0..text.len())]));
        }
        let mut bounds = vec![(0, 0)];
        match unit {
            Unit::Tokens => bounds.extend(self.tokens(text)),
            Unit::Sentences => bounds.extend(self.sentences(text)),
        }
        bounds.push((self.starts.len(), text.len()));
        Ok(self.chunks(text, windows(&bounds, size.get(), overlap)))
    }

    /// Token index and byte offset of each token but the first.
    fn tokens(&self, text: &str) -> impl Iterator<Item = (usize, usize)> {
        (1..self.starts.len()).map(move |token| (token, self.bound(text, token)))
    }

    /// Byte offset where the text of a token begins if the token before is in another chunk.
    fn bound(&self, text: &str, token: usize) -> usize {
        let start = self.starts[token];
        if token.checked_sub(1).is_some_and(|before| self.starts[before] == start) {
            // The character at this position is in the chunk before.
            start + text[start..].chars().next().map_or(0, char::len_utf8)
        } else {
            start
        }
    }

    /// First token that begins at a byte offset or after it.
    fn token_from(&self, at: usize) -> usize {
        self.starts.partition_point(|&start| start < at)
    }

    /// First token and byte offset of each sentence but the first.
    fn sentences(&self, text: &str) -> Vec<(usize, usize)> {
        let mut cuts = Vec::new();
        let mut begun = false;
        for sentence in sentences(text) {
            let first = self.token_from(sentence.start);
            let blank = text[sentence.clone()].trim().is_empty();
            if !blank && first < self.token_from(sentence.end) {
                if begun {
                    cuts.push((first, sentence.start));
                }
                begun = true;
            }
        }
        cuts
    }

    fn at_spans(&self, text: &str, spans: &[Range<usize>]) -> Result<Vec<Chunk>, String> {
        if spans.is_empty() {
            return Err("no spans to cut at".to_owned());
        }
        let places: Vec<usize> =
            text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let mut found = Vec::new();
        let mut last = 0;
        for (n, span) in spans.iter().enumerate() {
            let Range { start, end } = span;
            let ranges = self
                .at_span(&places, span, last)
                .map_err(|what| format!("span {n}, {start}..{end}: {what}"))?;
            found.push(ranges);
            last = *end;
        }
        Ok(self.chunks(text, found))
    }

    /// Token and byte range of a caller's span that begins at `last` or later; `places` has the
    /// byte offset of every character, and of the end.
    fn at_span(
        &self,
        places: &[usize],
        &Range { start, end }: &Range<usize>,
        last: usize,
    ) -> Result<(Range<usize>, Range<usize>), String> {
        let length = places.len() - 1;
        if start > end {
            return Err("runs backwards".to_owned());
        }
        if start == end {
            return Err("is empty".to_owned());
        }
        if end > length {
            return Err(format!("passes the end of the text, {length} characters"));
        }
        if start < last {
            return Err(format!("begins before the span before it ends, at {last}"));
        }
        let bytes = places[start]..places[end];
        let tokens = self.token_from(bytes.start)..self.token_from(bytes.end);
        if tokens.is_empty() {
            return Err("no token begins in it, and a chunk has at least one".to_owned());
        }
        Ok((tokens, bytes))
    }

    /// Adds the special tokens, and converts bytes to characters.
    fn chunks(&self, text: &str, spans: Vec<(Range<usize>, Range<usize>)>) -> Vec<Chunk> {
        let mut offsets = CharOffsets::new(text);
        let chunks = spans.into_iter().map(|(own, bytes)| Chunk {
            tokens: self.with_special(&own),
            chars: offsets.range(&bytes),
            bytes,
        });
        chunks.collect()
    }

    /// Range in the sequence of a range of the text's own tokens, with the special tokens before
    /// the first and after the last.
    fn with_special(&self, own: &Range<usize>) -> Range<usize> {
        let start = if own.start == 0 { 0 } else { self.before + own.start };
        let after = if own.end == self.starts.len() { self.after } else { 0 };
        start..self.before + own.end + after
    }
}

/// Token and byte ranges of windows over units; `bounds` has token and byte of each unit boundary.
/// A window has `size` units, `overlap` of them shared with the window before.
fn windows(
    bounds: &[(usize, usize)],
    size: usize,
    overlap: usize,
) -> Vec<(Range<usize>, Range<usize>)> {
    let mut windows = Vec::new();
    let mut start = 0_usize;
    let last = bounds.len() - 1;
    loop {
        let end = last.min(start.saturating_add(size));
        let from = bounds[start];
        let to = bounds[end];
        windows.push((from.0..to.0, from.1..to.1));
        if end == last {
            return windows;
        }
        start = end - overlap;
    }
}

/// Splits into sentences by UAX #29.
fn sentences(text: &str) -> Vec<Range<usize>> {
    // The rules depend on the presence of white space, not its length; but from every white space
    // character the crate scans all that follow.  So a run of equal ones is passed as one.
    let mut short = String::with_capacity(text.len());
    let mut left_out = LeftOut::default();
    let mut last = None;
    for c in text.chars() {
        let breaks = matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
        if last == Some(c) && c.is_whitespace() && !breaks {
            left_out.add(short.len(), c.len_utf8());
        } else {
            short.push(c);
            last = Some(c);
        }
    }
    let bounds = short.split_sentence_bound_indices();
    bounds.map(|(at, sentence)| left_out.restored(&(at..at + sentence.len()))).collect()
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
        assert_eq!(read("tokens:256:0").expect("good"), Chunking::Tokens(count(256)));
        let overlapping =
            |unit, size, overlap| Chunking::Overlapping { unit, size: count(size), overlap };
        let tokens = overlapping(Unit::Tokens, 256, 32);
        assert_eq!(read("tokens:256:32").expect("good"), tokens);
        let sentences = overlapping(Unit::Sentences, 5, 4);
        assert_eq!(read("sentences:5:4").expect("good"), sentences);
        for (text, says) in [
            ("", "chunks ``: expected tokens:N, sentences:N, or an overlap too: tokens:N:OVERLAP"),
            ("256", "chunks `256`: expected tokens:N, sentences:N, or"),
            ("tokens:8:8", "chunks `tokens:8:8`: expected an overlap under the size of 8, got 8"),
            ("tokens:8:", "chunks `tokens:8:`: the overlap is not a number"),
            ("tokens:8:-1", "chunks `tokens:8:-1`: the overlap is not a number"),
            ("tokens:8:2:1", "chunks `tokens:8:2:1`: the overlap is not a number"),
            ("tokens::2", "chunks `tokens::2`: `` is not a number from 1 on"),
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

    /// White space is removed for the crate and restored afterwards.
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
