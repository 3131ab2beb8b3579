//! Unigram language model of a tokenizer: the most probable split of a text into pieces.
//!
//! Kudo 2018, "Subword Regularization", arXiv:1804.10959, section 3.2; the Viterbi search is
//! SentencePiece's.  Tokens are those of the model in the `tokenizers` crate, whose trie has a hash
//! map in each node: 590 MB for XLM-RoBERTa's 250,002 pieces, and most of the time to open it.
//! Here pieces are a sorted list, and the pieces that a text starts with are found in it by
//! bisection.

use serde::Deserialize;
use std::{collections::HashMap, ops::Range};
use tokenizers::{Result, Token};

/// Penalty of a character without a piece, below the least probable piece.
const UNKNOWN_PENALTY: f64 = 10.0;

/// The model as `tokenizer.json` has it.
#[derive(Clone, Deserialize)]
pub struct UnigramFile {
    vocab: Vec<(String, f64)>,
    unk_id: Option<usize>,
    #[serde(default)]
    byte_fallback: bool,
}

/// Unigram language model.
pub struct Unigram {
    pieces: Pieces,
    /// Log-probability of each piece.
    scores: Vec<f64>,
    unknown: Option<u32>,
    unknown_score: f64,
    byte_fallback: bool,
}

/// Pieces by id and by spelling.
struct Pieces {
    /// Spellings end to end, in the order of ids.
    spelled: String,
    /// End of each piece in `spelled`.
    ends: Vec<u32>,
    /// Ids in the order of spellings; of pieces that are spelled alike only the last.
    sorted: Vec<u32>,
    /// For each value of a piece's first two bytes, its first place in `sorted`; a second byte that
    /// is not there counts as 0.
    starts: Vec<u32>,
}

/// First two bytes of a piece or text, as an index.
fn two_bytes(text: &[u8]) -> usize {
    let byte = |n: usize| usize::from(text.get(n).copied().unwrap_or(0));
    byte(0) << 8 | byte(1)
}

impl Pieces {
    fn new<'a>(all: impl ExactSizeIterator<Item = &'a str>) -> std::result::Result<Self, String> {
        let mut ends = Vec::with_capacity(all.len());
        let mut spelled = String::new();
        for piece in all {
            spelled.push_str(piece);
            let end = u32::try_from(spelled.len());
            ends.push(end.map_err(|_| "vocab: expected less than 4 GiB, got more".to_owned())?);
        }
        let mut pieces = Self { spelled, ends, sorted: Vec::new(), starts: Vec::new() };
        let mut sorted: Vec<u32> = (0..pieces.ends.len() as u32).collect();
        sorted.retain(|&id| !pieces.spelling(id).is_empty());
        sorted.sort_by(|&a, &b| pieces.spelling(a).cmp(pieces.spelling(b)).then(b.cmp(&a)));
        sorted.dedup_by(|b, a| pieces.spelling(*a) == pieces.spelling(*b));
        let mut starts = vec![0; (1 << 16) + 1];
        for &id in &sorted {
            starts[two_bytes(pieces.spelling(id)) + 1] += 1;
        }
        for n in 0..1 << 16 {
            starts[n + 1] += starts[n];
        }
        (pieces.sorted, pieces.starts) = (sorted, starts);
        Ok(pieces)
    }

    /// Bytes of a piece.
    fn spelling(&self, id: u32) -> &[u8] {
        &self.spelled.as_bytes()[self.bytes(id)]
    }

    /// Place of a piece in `spelled`.
    fn bytes(&self, id: u32) -> Range<usize> {
        let n = id as usize;
        let start = if n == 0 { 0 } else { self.ends[n - 1] as usize };
        start..self.ends[n] as usize
    }

    fn id(&self, piece: &str) -> Option<u32> {
        let found = self.sorted.binary_search_by_key(&piece.as_bytes(), |&id| self.spelling(id));
        found.ok().map(|n| self.sorted[n])
    }

    /// Places of the pieces whose first two bytes are these.
    fn range(&self, two: usize) -> Range<usize> {
        self.starts[two] as usize..self.starts[two + 1] as usize
    }

    /// Calls `found` with the id and the length of every piece that the text starts with, shortest
    /// first.
    fn prefixes(&self, text: &[u8], mut found: impl FnMut(u32, usize)) {
        let mut take = |range: &mut Range<usize>, length: usize| {
            // The shortest piece of a range is the first.
            let id = self.sorted[range.start];
            if self.spelling(id).len() == length {
                range.start += 1;
                found(id, length);
            }
        };
        let mut single = self.range(two_bytes(&text[..1]));
        if !single.is_empty() {
            take(&mut single, 1);
        }
        if text.len() < 2 {
            return;
        }
        // A piece of one byte is also in the range of that byte and 0.
        let mut range = if text[1] == 0 { single } else { self.range(two_bytes(text)) };
        for length in 2..=text.len() {
            if range.is_empty() {
                return;
            }
            take(&mut range, length);
            let Some(&next) = text.get(length) else { return };
            let byte = |&id: &u32| self.spelling(id)[length];
            let places = &self.sorted[range.clone()];
            let start = places.partition_point(|id| byte(id) < next);
            let count = places[start..].partition_point(|id| byte(id) == next);
            range = range.start + start..range.start + start + count;
        }
    }
}

/// Best split of the text before a place: its score, and its last piece.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    /// Where the piece starts.
    start: usize,
    /// Its id; none if nothing ends here.
    id: Option<u32>,
}

impl Best {
    /// Takes another split if it is better.
    fn offer(&mut self, score: f64, start: usize, id: u32) {
        if self.id.is_none() || score > self.score {
            *self = Self { score, start, id: Some(id) };
        }
    }
}

impl TryFrom<UnigramFile> for Unigram {
    type Error = String;

    fn try_from(file: UnigramFile) -> std::result::Result<Self, String> {
        let UnigramFile { vocab, unk_id, byte_fallback } = file;
        let count = vocab.len();
        if let Some(id) = unk_id.filter(|id| *id >= count) {
            return Err(format!("unk_id {id}: expected one of {count} pieces"));
        }
        let pieces = Pieces::new(vocab.iter().map(|(piece, _)| piece.as_str()))?;
        let scores: Vec<f64> = vocab.iter().map(|(_, score)| *score).collect();
        let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
        let unknown = unk_id.map(|id| id as u32);
        Ok(Self { pieces, scores, unknown, unknown_score: least - UNKNOWN_PENALTY, byte_fallback })
    }
}

impl Unigram {
    /// Number of pieces.
    pub fn size(&self) -> usize {
        self.scores.len()
    }

    /// Spelling of a piece.
    pub fn piece(&self, id: u32) -> Option<&str> {
        ((id as usize) < self.size()).then(|| &self.pieces.spelled[self.pieces.bytes(id)])
    }

    /// Id of a piece.
    pub fn id(&self, piece: &str) -> Option<u32> {
        self.pieces.id(piece)
    }

    /// All pieces with their ids.
    pub fn pieces(&self) -> HashMap<String, u32> {
        let pieces =
            (0..self.size() as u32).filter_map(|id| Some((self.piece(id)?.to_owned(), id)));
        pieces.collect()
    }

    /// Tokens of a text, with byte offsets.
    ///
    /// # Errors
    /// For a character without a piece, if the model has no token for such.
    pub fn tokenize(&self, text: &str) -> Result<Vec<Token>> {
        let mut tokens = Vec::new();
        for (span, id) in self.split(text)? {
            let offsets = (span.start, span.end);
            let piece = text[span].to_owned();
            if Some(id) != self.unknown {
                tokens.push(Token::new(id, piece, offsets));
            } else if let Some(id) = self.id(&piece) {
                tokens.push(Token::new(id, piece, offsets));
            } else if let Some(bytes) = self.bytes(&piece, offsets) {
                tokens.extend(bytes);
            } else {
                tokens.push(Token::new(id, piece, offsets));
            }
        }
        Ok(tokens)
    }

    /// Spans of the best split, each with its piece; consecutive unknown characters are joined.
    fn split(&self, text: &str) -> Result<Vec<(Range<usize>, u32)>> {
        let best = self.best(text)?;
        let mut spans: Vec<(Range<usize>, u32)> = Vec::new();
        let mut end = text.len();
        while let Best { start, id: Some(id), .. } = best[end] {
            match spans.last_mut() {
                Some((after, last)) if *last == id && Some(id) == self.unknown => {
                    after.start = start;
                }
                _ => spans.push((start..end, id)),
            }
            end = start;
        }
        spans.reverse();
        Ok(spans)
    }

    /// Best split before each byte at which a piece may end.
    fn best(&self, text: &str) -> Result<Vec<Best>> {
        let mut best = vec![Best { score: 0.0, start: 0, id: None }; text.len() + 1];
        for (start, first) in text.char_indices() {
            let before = best[start].score;
            let mut single = false;
            self.pieces.prefixes(&text.as_bytes()[start..], |id, length| {
                single |= length == first.len_utf8();
                best[start + length].offer(self.scores[id as usize] + before, start, id);
            });
            if !single {
                let what = "a character without a token, and the model has no unk_id";
                let id = self.unknown.ok_or(what)?;
                best[start + first.len_utf8()].offer(self.unknown_score + before, start, id);
            }
        }
        Ok(best)
    }

    /// Tokens of the bytes of unknown text, if the vocabulary has them all.
    fn bytes(&self, text: &str, offsets: (usize, usize)) -> Option<Vec<Token>> {
        let token = |byte: u8| {
            let spelled = format!("<0x{byte:02X}>");
            Some(Token::new(self.id(&spelled)?, spelled, offsets))
        };
        if self.byte_fallback { text.bytes().map(token).collect() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tokenizers::{Model, models::unigram::Unigram as Reference};

    fn both(model: Value) -> (Unigram, Reference) {
        let file: UnigramFile = serde_json::from_value(model).expect("a model");
        let UnigramFile { vocab, unk_id, byte_fallback } = file.clone();
        let reference = Reference::from(vocab, unk_id, byte_fallback).expect("a model");
        (file.try_into().expect("a model"), reference)
    }

    fn model_of(fixture: &str) -> Value {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
        let bytes = std::fs::read(format!("{dir}/{fixture}/tokenizer.json")).expect("a file");
        let json: Value = serde_json::from_slice(&bytes).expect("JSON");
        json["model"].clone()
    }

    /// Asserts that both give the same tokens, or fail both.
    fn same((ours, reference): &(Unigram, Reference), text: &str) {
        let found = ours.tokenize(text).ok();
        assert_eq!(found, reference.tokenize(text).ok(), "{text:?}");
        for token in found.into_iter().flatten() {
            assert_eq!(ours.id(&token.value), reference.token_to_id(&token.value));
        }
    }

    #[test]
    fn pieces_are_those_of_the_library() {
        for fixture in ["v3-native", "t5-plain"] {
            let pair = both(model_of(fixture));
            assert_eq!(pair.0.size(), pair.1.get_vocab_size());
            assert_eq!(pair.0.pieces(), pair.1.get_vocab());
            for id in 0..=pair.0.size() as u32 {
                assert_eq!(pair.0.piece(id).map(str::to_owned), pair.1.id_to_token(id));
            }
            for text in ["", "▁the", "▁the▁old▁bridge▁über▁den▁Fluß", "☃☃☃", "▁古い橋☃は", "<unk>☃"]
            {
                same(&pair, text);
            }
        }
    }

    #[test]
    fn odd_vocabularies() {
        let small = |unk: Value, fallback: bool| {
            both(json!({"type": "Unigram", "unk_id": unk, "byte_fallback": fallback,
                "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -2.0], ["ab", -3.0], ["", -1.0],
                    ["a", -9.0], ["xyx", -0.5], ["<0xE2>", -5.0], ["<0x98>", -5.0],
                    ["<0x83>", -5.0], ["bxyx", -4.0]]}))
        };
        for unk in [json!(0), json!(3), json!(null)] {
            for fallback in [false, true] {
                let pair = small(unk.clone(), fallback);
                for text in ["ab", "aabb", "bxyx", "☃", "a☃☃b", "axyxbé", "xyab", "<unk>", "<0xE2>"]
                {
                    same(&pair, text);
                }
            }
        }
        let empty = both(json!({"vocab": [], "unk_id": null}));
        same(&empty, "");
        same(&empty, "a");
        let beyond = json!({"vocab": [["a", 0.0]], "unk_id": 1});
        let file: UnigramFile = serde_json::from_value(beyond).expect("a file");
        let error = Unigram::try_from(file).err().expect("an error");
        assert_eq!(error, "unk_id 1: expected one of 1 pieces");
    }

    proptest! {
        #[test]
        fn any_text_has_the_librarys_tokens(text in "[▁a-z ☃é古い<>unk]{0,60}", any in ".{0,40}") {
            thread_local! {
                static PAIRS: [(Unigram, Reference); 2] =
                    ["v3-native", "t5-plain"].map(|name| both(model_of(name)));
            }
            PAIRS.with(|pairs| for pair in pairs {
                same(pair, &text);
                same(pair, &any);
            });
        }
    }
}
