//! Pairs of texts whose tokens are given, for windows of a long document.

use super::tokenizer::Tokenizer;
use crate::{batch::Tokens, error::Error};
use std::ops::Range;

/// Special tokens before, between and after a pair of texts, and the type ids of the two.
pub struct PairParts {
    special: [Tokens; 3],
    kinds: [u32; 2],
}

impl PairParts {
    /// Number of special tokens.
    pub fn special(&self) -> usize {
        self.special.iter().map(Tokens::len).sum()
    }

    /// Pair of two texts' own tokens.
    pub fn with(&self, first: &[u32], second: &[u32]) -> Tokens {
        let [before, between, after] = &self.special;
        let types = |n: usize, own: &[u32]| vec![self.kinds[n]; own.len()];
        let type_ids = [
            &before.type_ids[..],
            &types(0, first),
            &between.type_ids,
            &types(1, second),
            &after.type_ids,
        ];
        let ids = [&before.ids[..], first, &between.ids, second, &after.ids];
        Tokens { ids: ids.concat(), type_ids: type_ids.concat(), ..Tokens::default() }
    }
}

impl Tokenizer {
    /// Special tokens of a pair of texts.
    ///
    /// # Errors
    /// [`Error::Model`] if the tokenizer joins no pairs.
    pub fn pair_parts(&self) -> Result<PairParts, Error> {
        const SAMPLE: &str = "a";
        let parts = self.encode_parts(SAMPLE)?;
        let whole = self.encode_pair(SAMPLE, SAMPLE)?;
        let own = parts.own.len();
        let first = parts.before.len();
        let second = whole.len().saturating_sub(parts.after.len() + own);
        let is_own = |start: usize| whole.ids.get(start..start + own) == Some(&parts.own[..]);
        if own == 0 || first + own > second || !is_own(first) || !is_own(second) {
            let what = "tokenizer.json puts other special tokens around a pair than around a text";
            return Err(Error::Model(what.to_owned()));
        }
        let part = |range: Range<usize>| Tokens {
            ids: whole.ids[range.clone()].to_vec(),
            type_ids: whole.type_ids[range].to_vec(),
            ..Tokens::default()
        };
        let special = [part(0..first), part(first + own..second), part(second + own..whole.len())];
        Ok(PairParts { special, kinds: [first, second].map(|n| whole.type_ids[n]) })
    }
}
