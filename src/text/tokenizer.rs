//! `tokenizer.json`, run literally; the only file that names `tokenizers`.

use super::chunk::{Chunked, Chunking, Places};
use crate::{batch::Tokens, error::Error};
use rayon::prelude::*;
use std::{
    collections::HashSet,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};
use tokenizers::{Encoding, PostProcessor, TruncationDirection};

/// A tokenizer with the truncation and padding blocks of its file switched off: lengths are ours to
/// decide.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: usize,
    /// Ids that texts do not produce.
    specials: HashSet<u32>,
}

/// Bytes of texts that are tokenised where they are asked for: within half a millisecond.
const FEW: usize = 8 << 10;

/// Does something with each text and its position, which takes as long as its bytes and `more`: on
/// all cores, unless that is too little to wait for cores that are busy.
pub fn each<S: AsRef<str> + Sync, T: Send>(
    texts: &[S],
    more: usize,
    run: impl Fn((usize, &S)) -> Result<T, Error> + Send + Sync,
) -> Result<Vec<T>, Error> {
    match texts.iter().map(|text| text.as_ref().len() + more).sum::<usize>() <= FEW {
        true => texts.iter().enumerate().map(run).collect(),
        false => texts.par_iter().enumerate().map(run).collect(),
    }
}

/// A text's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokenized {
    /// What the model reads.
    pub tokens: Tokens,
    /// Length before truncation.
    pub full_length: usize,
}

impl Tokenized {
    /// Its tokens, and those of the whole text, where some were dropped.
    pub fn lengths(&self) -> (usize, Option<usize>) {
        let (tokens, full) = (self.tokens.len(), self.full_length);
        (tokens, (full > tokens).then_some(full))
    }
}

/// Where long texts are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Tokens that are left, special ones included.
    pub limit: usize,
    /// Whether the text's first tokens are dropped instead of its last.
    pub first: bool,
}

impl Cut {
    fn from(self) -> TruncationDirection {
        if self.first { TruncationDirection::Left } else { TruncationDirection::Right }
    }
}

/// A token of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its id.
    pub id: u32,
    /// As the vocabulary spells it.
    pub token: String,
    /// Whether the tokenizer put it there.
    pub special: bool,
    /// Its characters in the text, in Unicode code points.
    pub chars: Range<usize>,
}

/// A text's own tokens, and the special ones that the tokenizer puts around them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Before them, `[CLS]` for most.
    pub before: Vec<u32>,
    /// The text's own.
    pub own: Vec<u32>,
    /// After them, `[SEP]` for most.
    pub after: Vec<u32>,
}

impl Parts {
    /// Ids without these special ones, if they are around them.
    pub fn within<'a>(&self, ids: &'a [u32]) -> &'a [u32] {
        let own = ids.strip_prefix(&self.before[..]);
        own.and_then(|own| own.strip_suffix(&self.after[..])).unwrap_or(ids)
    }

    /// A text's own tokens between these special ones, cut as texts are; special ones that are
    /// there already are not added.
    pub fn around(&self, ids: &[u32], cut: Option<Cut>) -> Tokenized {
        let (own, Self { before, after, .. }) = (self.within(ids), self);
        let special = before.len() + after.len();
        let room = cut.map_or(own.len(), |cut| cut.limit.saturating_sub(special).min(own.len()));
        let kept = match cut {
            Some(Cut { first: true, .. }) => &own[own.len() - room..],
            _ => &own[..room],
        };
        let ids = [before, kept, after].concat();
        Tokenized { tokens: Tokens::new(ids), full_length: own.len() + special }
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Read`] if it is missing, [`Error::Model`] if it is not a tokenizer.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let bytes =
            std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(&bytes, path)
    }

    /// As [`Tokenizer::open`], of bytes that messages are to call by a name.
    ///
    /// # Errors
    /// [`Error::Model`] if it is not a tokenizer.
    pub fn parse(bytes: &[u8], name: &Path) -> Result<Self, Error> {
        let bad = |e: &dyn std::fmt::Display| Error::Model(format!("`{}`: {e}", name.display()));
        // Where this is no JSON, or JSON of another kind, the library panics in some places.
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|e| bad(&e))?;
        let parsed = catch_unwind(|| tokenizers::Tokenizer::from_bytes(bytes));
        let parsed = parsed.map_err(|_| bad(&"not a tokenizer, though JSON"))?;
        let mut inner = parsed.map_err(|e| bad(&e))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| bad(&e))?;
        // So does a post-processor that names what is not there, whatever the text.
        let texts = || (inner.encode("a", true).is_ok(), inner.encode(("a", "b"), true).is_ok());
        let tried = catch_unwind(AssertUnwindSafe(texts));
        tried.map_err(|_| bad(&"its post-processor contradicts itself"))?;
        let special = inner.get_post_processor().map_or(0, |post| post.added_tokens(false));
        let added = inner.get_added_tokens_decoder();
        let specials = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id);
        Ok(Self { specials: specials.collect(), inner, special })
    }

    /// Tokens that it adds to every text, `[CLS]` and `[SEP]` for most.
    pub fn special_tokens(&self) -> usize {
        self.special
    }

    /// Tokenises texts on all cores, special tokens included, cutting those that are too long.
    ///
    /// A cut keeps the special tokens.  Its limit must leave room for them.
    ///
    /// # Errors
    /// [`Error::Input`] naming the text, if the tokenizer refuses it.
    pub fn encode<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        cut: Option<Cut>,
    ) -> Result<Vec<Tokenized>, Error> {
        let encode = |(n, text): (usize, &S)| {
            let encoded = self.encode_one(text.as_ref(), cut);
            encoded
                .map_err(|e| Error::Input { index: n, what: format!("cannot be tokenised: {e}") })
        };
        each(texts, 0, encode)
    }

    /// Tokenises two texts as one sequence, special tokens and type ids as the tokenizer gives
    /// them.
    ///
    /// # Errors
    /// [`Error::Input`] if the tokenizer refuses them.
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Tokens, Error> {
        let encoded = self.inner.encode_fast((first, second), true);
        let encoding = encoded
            .map_err(|e| Error::Input { index: 0, what: format!("cannot be tokenised: {e}") })?;
        Ok(tokens(&encoding))
    }

    /// Tokenises one text with each of some others as pairs on all cores, cutting the other of a
    /// pair that is too long.
    ///
    /// # Errors
    /// [`Error::Model`] if the tokenizer has nothing to put between them; [`Error::Input`] naming
    /// the other text, if the tokenizer refuses the pair, or if the first alone leaves no room.
    pub fn encode_pairs<S: AsRef<str> + Sync>(
        &self,
        first: &str,
        others: &[S],
        cut: Option<Cut>,
    ) -> Result<Vec<Tokenized>, Error> {
        let refused = |index, e| Error::Input { index, what: format!("cannot be tokenised: {e}") };
        let bytes = first.len();
        let first = self.inner.encode_fast(first, false).map_err(|e| refused(0, e))?;
        let special = self.inner.get_post_processor().map_or(0, |post| post.added_tokens(true));
        if special <= self.special {
            let what = "tokenizer.json joins no pairs: nothing would part the two texts";
            return Err(Error::Model(what.to_owned()));
        }
        let encode = |(n, other): (usize, &S)| {
            let mut other =
                self.inner.encode_fast(other.as_ref(), false).map_err(|e| refused(n, e))?;
            let full_length = first.len() + other.len() + special;
            if let Some(cut) = cut.filter(|cut| full_length > cut.limit) {
                let limit = cut.limit;
                let room = limit.saturating_sub(first.len() + special);
                if room == 0 {
                    let query = first.len() + special;
                    let what = format!("no room: the query alone has {query} tokens of {limit}");
                    return Err(Error::Input { index: n, what });
                }
                other.truncate(room, 0, cut.from());
            }
            let pair = self.inner.post_process(first.clone(), Some(other), true);
            let pair = pair.map_err(|e| refused(n, e))?;
            Ok(Tokenized { tokens: tokens(&pair), full_length })
        };
        each(others, bytes, encode)
    }

    /// Tokenises a text, its own tokens apart from the special ones.
    ///
    /// # Errors
    /// [`Error::Input`] if the tokenizer refuses it.
    pub fn encode_parts(&self, text: &str) -> Result<Parts, Error> {
        let refused = |e| Error::Input { index: 0, what: format!("cannot be tokenised: {e}") };
        let own = self.inner.encode_fast(text, false).map_err(refused)?;
        // What is put around a text does not depend on how long it is.
        let mut few = match own.is_empty() {
            true => self.inner.encode_fast("a", false).map_err(refused)?,
            false => own.clone(),
        };
        few.truncate(1, 0, TruncationDirection::Right);
        let whole = self.inner.post_process(few.clone(), None, true).map_err(refused)?;
        let ids = whole.get_ids();
        let before = whole.get_sequence_ids().iter().position(Option::is_some).unwrap_or(0);
        let after = ids[before + few.len()..].to_vec();
        Ok(Parts { before: ids[..before].to_vec(), own: own.get_ids().to_vec(), after })
    }

    /// The id of a token as the vocabulary spells it.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// How the vocabulary spells an id.
    pub fn token_of(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The text of some ids, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.decode_with(ids, false)
    }

    /// The text of some ids, with or without special tokens.
    pub fn decode_with(&self, ids: &[u32], special: bool) -> String {
        self.inner.decode(ids, !special).unwrap_or_default()
    }

    /// Whether these ids are what this tokenizer makes of some text, with or without the special
    /// tokens around it, which `parts` names: ids of another vocabulary hardly ever are.
    pub fn made(&self, ids: &[u32], parts: &Parts) -> bool {
        let own = parts.within(ids);
        let allowed = [self.mask().map(|(id, _)| id), self.unknown()];
        if own.iter().any(|&id| self.is_special(id) && !allowed.contains(&Some(id))) {
            return false;
        }
        let text = self.decode_with(own, true);
        self.inner.encode_fast(text, false).is_ok_and(|again| again.get_ids() == own)
    }

    /// The tokens of a text, with or without the special ones around them.
    ///
    /// # Errors
    /// [`Error::Input`] if the tokenizer refuses it.
    pub fn pieces(&self, text: &str, special: bool) -> Result<Vec<Piece>, Error> {
        let refused = |e| Error::Input { index: 0, what: format!("cannot be tokenised: {e}") };
        let encoding = self.inner.encode_char_offsets(text, special).map_err(refused)?;
        let own = encoding.get_sequence_ids();
        let pieces = (0..encoding.len()).map(|n| Piece {
            id: encoding.get_ids()[n],
            token: encoding.get_tokens()[n].clone(),
            special: own[n].is_none(),
            chars: encoding.get_offsets()[n].0..encoding.get_offsets()[n].1,
        });
        Ok(pieces.collect())
    }

    /// Whether an id is a special token: one that texts do not produce.
    pub fn is_special(&self, id: u32) -> bool {
        self.specials.contains(&id)
    }

    /// The mask of a masked language model: `[MASK]` or `<mask>`.
    pub fn mask(&self) -> Option<(u32, &'static str)> {
        ["[MASK]", "<mask>"].into_iter().find_map(|mask| Some((self.id_of(mask)?, mask)))
    }

    /// What stands for a word that the vocabulary cannot spell: `[UNK]` or `<unk>`.
    pub fn unknown(&self) -> Option<u32> {
        ["[UNK]", "<unk>"].into_iter().find_map(|unknown| self.id_of(unknown))
    }

    /// Tokenises a text and says which tokens each chunk of it has.  Nothing is cut off.
    ///
    /// # Errors
    /// [`Error::Input`] for spans that do not suit the text, naming the first, and if the tokenizer
    /// refuses the text.
    pub fn encode_chunked(&self, text: &str, chunking: &Chunking) -> Result<Chunked, Error> {
        let bad = |what: String| Error::Input { index: 0, what };
        let refused = |e: tokenizers::Error| bad(format!("cannot be tokenised: {e}"));
        let own = self.inner.encode(text, false).map_err(refused)?;
        let starts = starts(text, &own);
        let encoding = self.inner.post_process(own, None, true).map_err(refused)?;
        let sequences = encoding.get_sequence_ids();
        let before = sequences.iter().position(Option::is_some).unwrap_or(0);
        if sequences.iter().flatten().count() != starts.len() {
            return Err(bad("the tokenizer does not say which tokens are the text's".to_owned()));
        }
        let after = encoding.len() - before - starts.len();
        let places = Places { starts, before, after };
        let chunks = places.cut(text, chunking).map_err(bad)?;
        Ok(Chunked { chunks, after, tokens: tokens(&encoding) })
    }

    fn encode_one(&self, text: &str, cut: Option<Cut>) -> tokenizers::Result<Tokenized> {
        let mut encoding = self.inner.encode_fast(text, false)?;
        let full_length = encoding.len() + self.special;
        if let Some(cut) = cut {
            encoding.truncate(cut.limit.saturating_sub(self.special), 0, cut.from());
        }
        let encoding: Encoding = self.inner.post_process(encoding, None, true)?;
        Ok(Tokenized { tokens: tokens(&encoding), full_length })
    }
}

fn tokens(encoding: &Encoding) -> Tokens {
    let (ids, type_ids) = (encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec());
    Tokens { ids, type_ids, unseen: 0 }
}

/// The byte where the first character of each token begins: never before that of the token before
/// it, and never within a character.
fn starts(text: &str, encoding: &Encoding) -> Vec<usize> {
    let whole = |at: usize| (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let mut last = 0;
    let start = |(&(start, end), token): (&(usize, usize), &String)| {
        let (start, end) = (whole(start), whole(end));
        let part = &text[start..end];
        let start = match part.find(|c: char| !c.is_whitespace()) {
            Some(at) => start + at,
            None if part.starts_with(' ') => start,
            // A byte-level post-processor takes spaces, `Ġ`, off the ends of every token.
            None => start.saturating_sub(token.chars().take_while(|&c| c == 'Ġ').count()),
        };
        last = start.max(last);
        last
    };
    encoding.get_offsets().iter().zip(encoding.get_tokens()).map(start).collect()
}
