//! `tokenizer.json`, run literally; the only file that names `tokenizers`.

use crate::{batch::Tokens, error::Error};
use rayon::prelude::*;
use std::path::Path;
use tokenizers::{Encoding, PostProcessor, TruncationDirection};

/// A tokenizer with the truncation and padding blocks of its file switched off: lengths are ours to
/// decide.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: usize,
}

/// A text's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokenized {
    /// What the model reads.
    pub tokens: Tokens,
    /// Length before truncation.
    pub full_length: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Read`] if it is missing, [`Error::Model`] if it is not a tokenizer.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let bytes =
            std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let bad = |e: &dyn std::fmt::Display| Error::Model(format!("`{}`: {e}", path.display()));
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| bad(&e))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| bad(&e))?;
        let special = inner.get_post_processor().map_or(0, |post| post.added_tokens(false));
        Ok(Self { inner, special })
    }

    /// Tokens that it adds to every text, `[CLS]` and `[SEP]` for most.
    pub fn special_tokens(&self) -> usize {
        self.special
    }

    /// Tokenises texts on all cores, special tokens included, cutting each to `limit` tokens if
    /// there is one.
    ///
    /// A cut keeps the special tokens and drops the text's last ones.  The limit must leave room
    /// for the special tokens.
    ///
    /// # Errors
    /// [`Error::Input`] naming the text, if the tokenizer refuses it.
    pub fn encode<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        limit: Option<usize>,
    ) -> Result<Vec<Tokenized>, Error> {
        let encode = |(n, text): (usize, &S)| {
            let encoded = self.encode_one(text.as_ref(), limit);
            encoded
                .map_err(|e| Error::Input { index: n, what: format!("cannot be tokenised: {e}") })
        };
        texts.par_iter().enumerate().map(encode).collect()
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

    fn encode_one(&self, text: &str, limit: Option<usize>) -> tokenizers::Result<Tokenized> {
        let mut encoding = self.inner.encode_fast(text, false)?;
        let full_length = encoding.len() + self.special;
        if let Some(limit) = limit {
            encoding.truncate(limit.saturating_sub(self.special), 0, TruncationDirection::Right);
        }
        let encoding: Encoding = self.inner.post_process(encoding, None, true)?;
        Ok(Tokenized { tokens: tokens(&encoding), full_length })
    }
}

fn tokens(encoding: &Encoding) -> Tokens {
    Tokens { ids: encoding.get_ids().to_vec(), type_ids: encoding.get_type_ids().to_vec() }
}
