//! Results of tokenisation.

use crate::{batch::Tokens, error::Error};
use rayon::prelude::*;
use std::ops::Range;

/// Bytes of texts tokenised on the calling thread, in up to half a millisecond.
const FEW: usize = 8 << 10;

/// Applies a function to each text and its index, on all cores unless the work, estimated as the
/// text's bytes plus `more`, is too small to wait for busy cores.
pub fn each<S: AsRef<str> + Sync, T: Send>(
    texts: &[S],
    more: usize,
    run: impl Fn((usize, &S)) -> Result<T, Error> + Send + Sync,
) -> Result<Vec<T>, Error> {
    if texts.iter().map(|text| text.as_ref().len() + more).sum::<usize>() <= FEW {
        texts.iter().enumerate().map(run).collect()
    } else {
        texts.par_iter().enumerate().map(run).collect()
    }
}

/// Tokens of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokenized {
    /// Input of the model.
    pub tokens: Tokens,
    /// Length before truncation; for truncated texts of more than a megabyte, a lower bound.
    pub full_length: usize,
}

impl Tokenized {
    /// Token count, and that of the whole text if it was truncated.
    pub fn lengths(&self) -> (usize, Option<usize>) {
        let tokens = self.tokens.len();
        let full = self.full_length;
        (tokens, (full > tokens).then_some(full))
    }
}

/// Truncation of long texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Number of tokens to keep, special tokens included.
    pub limit: usize,
    /// Drop the first tokens of the text instead of the last.
    pub first: bool,
}

/// A token of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Token id.
    pub id: u32,
    /// Spelling in the vocabulary.
    pub token: String,
    /// True for a special token added by the tokenizer.
    pub special: bool,
    /// Character range in the text, in Unicode code points.
    pub chars: Range<usize>,
}

/// Own tokens of a text, and the special tokens around them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Special tokens before them, in most models `[CLS]`.
    pub before: Vec<u32>,
    /// Own tokens of the text.
    pub own: Vec<u32>,
    /// Special tokens after them, in most models `[SEP]`.
    pub after: Vec<u32>,
}

impl Parts {
    /// Strips these special tokens from ids, if they are around them.
    pub fn within<'a>(&self, ids: &'a [u32]) -> &'a [u32] {
        let own = ids.strip_prefix(&self.before[..]);
        own.and_then(|own| own.strip_suffix(&self.after[..])).unwrap_or(ids)
    }

    /// Adds these special tokens around a text's ids, unless they are there already, and truncates
    /// as for texts.
    pub fn around(&self, ids: &[u32], cut: Option<Cut>) -> Tokenized {
        let own = self.within(ids);
        let Self { before, after, .. } = self;
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

/// Special tokens around a text, and the type id of its own tokens.
pub(super) struct Around {
    pub before: Tokens,
    /// Type id of the text's own tokens.
    pub kind: u32,
    pub after: Tokens,
}

impl Around {
    /// Adds the special tokens around a text's tokens.
    pub fn with(&self, own: &[u32]) -> Tokens {
        let types = vec![self.kind; own.len()];
        Tokens {
            ids: [&self.before.ids, own, &self.after.ids].concat(),
            type_ids: [&self.before.type_ids, &types[..], &self.after.type_ids].concat(),
            ..Tokens::default()
        }
    }
}

/// Token counts of two texts after truncation to `room` tokens in total, longest first.
pub(super) fn longest_first(first: usize, second: usize, room: usize) -> (usize, usize) {
    let half = room / 2;
    match (first.min(second) <= half, first <= second) {
        (true, true) => (first, room - first),
        (true, false) => (room - second, second),
        (false, true) => (half, room - half),
        (false, false) => (room - half, half),
    }
}
