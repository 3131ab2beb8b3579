//! Tokenisation of texts, as the model reads them.

use super::{Embedder, EncodeOptions, Error, OnLong, Prompt, TruncationSide};
use crate::{
    batch::Tokens,
    text::{Cut, Piece, Tokenized, Tokenizer},
};

/// Texts to tokens and back, from [`Embedder::tokenization`].
#[derive(Clone, Copy, Debug)]
pub struct Tokenization<'a>(pub(super) &'a Embedder);

impl Embedder {
    /// Texts to tokens and back: with a prompt, in pairs, in chunks.
    pub fn tokenization(&self) -> Tokenization<'_> {
        Tokenization(self)
    }

    /// Token ids of each text as the model reads them, with special tokens and the prompt of the
    /// [`Options`](super::Options).
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn tokenize<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Tokenized>, Error> {
        self.tokenization().texts(texts, &Prompt::Auto, self.defaults)
    }

    pub(super) fn tokenizer(&self) -> Result<&Tokenizer, Error> {
        self.tokenizer.as_ref().ok_or_else(|| {
            let message = "this model has no tokenizer.json: only token ids can be embedded";
            Error::Option(message.to_owned())
        })
    }

    /// Truncation of long texts; refused texts are not read beyond it, either.
    fn cut(&self, options: EncodeOptions) -> Option<Cut> {
        let EncodeOptions { max_length: limit, on_long, truncation_side, .. } = options;
        let first = on_long == OnLong::Truncate && truncation_side == TruncationSide::Left;
        (on_long != OnLong::Window).then_some(Cut { limit, first })
    }

    /// Token limit of a call.
    pub(super) fn limit(&self, options: EncodeOptions) -> Result<usize, Error> {
        let least = 1 + self.tokenizer.as_ref().map_or(0, Tokenizer::special_tokens);
        let (limit, most) = (options.max_length, self.limit);
        if (least..=most).contains(&limit) {
            Ok(limit)
        } else {
            Err(Error::Option(format!("max length {limit}: expected {least} to {most}")))
        }
    }

    fn within(&self, tokenized: &[Tokenized], options: EncodeOptions) -> Result<(), Error> {
        let limit = self.limit(options)?;
        let length = |text: &Tokenized| match options.on_long {
            OnLong::Error => text.full_length,
            OnLong::Truncate => text.tokens.len(),
            OnLong::Window => 0,
        };
        match tokenized.iter().position(|text| length(text) > limit) {
            None => Ok(()),
            Some(index) => {
                let tokens = tokenized[index].full_length;
                Err(Error::TooLong { index, tokens, limit })
            }
        }
    }

    /// Tokens of `text` paired with each of several texts, within the limit.
    pub(super) fn pairs<S: AsRef<str> + Sync>(
        &self,
        query: &str,
        documents: &[S],
        options: EncodeOptions,
    ) -> Result<Vec<Tokenized>, Error> {
        let tokenizer = self.tokenizer()?;
        let limit = self.limit(options)?;
        if options.on_long != OnLong::Truncate {
            let tokens = tokenizer.length_in_pairs(query, limit).map_err(Error::of_query)?;
            if tokens > limit {
                return Err(Error::QueryTooLong { tokens, limit });
            }
        }
        let pairs = tokenizer.encode_pairs(query, documents, self.cut(options))?;
        self.within(&pairs, options)?;
        Ok(pairs)
    }
}

impl Tokenization<'_> {
    /// True if there is a tokenizer; without one only token ids can be embedded.
    pub fn reads_texts(self) -> bool {
        self.0.tokenizer.is_some()
    }

    /// Token ids of each text as the model reads them, with special tokens and a prompt.
    ///
    /// # Errors
    /// As [`Embedder::embed`] and [`Tokenization::prompt`].
    pub fn texts<S: AsRef<str> + Sync>(
        self,
        texts: &[S],
        prompt: &Prompt,
        options: EncodeOptions,
    ) -> Result<Vec<Tokenized>, Error> {
        let prompt = self.prompt(prompt, options.adapter)?;
        let tokenizer = self.0.tokenizer()?;
        let cut = self.0.cut(options);
        let lower = self.0.declared.lower_case;
        let tokenized = if prompt.is_empty() && !lower {
            tokenizer.encode(texts, cut)?
        } else {
            let whole = texts.iter().map(|text| self.as_read([prompt, text.as_ref()].concat()));
            tokenizer.encode(&whole.collect::<Vec<_>>(), cut)?
        };
        self.0.within(&tokenized, options)?;
        Ok(tokenized)
    }

    /// Token ids as the model reads them, from the caller's ids of each text: adds missing special
    /// tokens and a prompt, and truncates long lists as [`Tokenization::texts`] does texts.
    ///
    /// # Errors
    /// As [`TokenCalls::embed`](super::TokenCalls::embed) and [`Tokenization::prompt`].
    pub fn ids(
        self,
        texts: &[Vec<u32>],
        prompt: &Prompt,
        options: EncodeOptions,
    ) -> Result<Vec<Tokenized>, Error> {
        let tokenizer = self.0.tokenizer()?;
        let parts = tokenizer.encode_parts("")?;
        let prompted = !self.prompt(prompt, options.adapter)?.is_empty();
        let cut = self.0.cut(options).filter(|_| !prompted);
        let tokenized: Vec<Tokenized> = texts.iter().map(|ids| parts.around(ids, cut)).collect();
        for (index, text) in tokenized.iter().enumerate() {
            self.0.check_ids(index, &text.tokens)?;
        }
        if prompted {
            // At the boundary, one token may span prompt and text.
            let texts = texts.iter().map(|ids| tokenizer.decode_with(parts.within(ids), true));
            return self.texts(&texts.collect::<Vec<_>>(), prompt, options);
        }
        self.0.within(&tokenized, options)?;
        Ok(tokenized)
    }

    /// Token ids of texts and of text pairs as the model reads them.
    ///
    /// # Errors
    /// As [`Embedder::rerank`].
    pub fn sequences(
        self,
        sequences: &[(String, Option<String>)],
        options: EncodeOptions,
    ) -> Result<Vec<Tokens>, Error> {
        let embedder = self.0;
        let tokens = |(index, (first, second)): (usize, &(String, Option<String>))| {
            let cut = embedder.cut(options);
            let tokenized = match second {
                None => embedder.tokenizer()?.encode(&[first], cut),
                Some(second) => embedder.pairs(first, &[second], options),
            };
            let tokenized = tokenized.and_then(|one| embedder.within(&one, options).map(|()| one));
            let tokenized = tokenized.map_err(|error| match error {
                Error::QueryTooLong { tokens, limit } => Error::TooLong { index, tokens, limit },
                Error::Query { what } => Error::Input { index, what },
                other => other.moved(|_| index),
            });
            Ok(tokenized?.remove(0).tokens)
        };
        sequences.iter().enumerate().map(tokens).collect()
    }

    /// Text as the tokenizer gets it: in lower case, if the model declares `do_lower_case`.
    pub fn as_read(self, text: String) -> String {
        if self.0.declared.lower_case { text.to_lowercase() } else { text }
    }

    /// Tokens of a text [as it is read](Self::as_read), with or without special tokens; none if the
    /// text itself has more than `most`.
    ///
    /// # Errors
    /// As [`Embedder::tokenize`].
    pub fn pieces(
        self,
        text: &str,
        special: bool,
        most: usize,
    ) -> Result<Option<Vec<Piece>>, Error> {
        self.0.tokenizer()?.pieces(text, special, most)
    }

    /// Decodes token ids into text, with or without special tokens.
    ///
    /// # Errors
    /// [`Error::Option`] if there is no tokenizer.
    pub fn decode(self, ids: &[u32], special: bool) -> Result<String, Error> {
        Ok(self.0.tokenizer()?.decode_with(ids, special))
    }

    /// Index of the first list of token ids that the tokenizer produces for no text.
    ///
    /// # Errors
    /// [`Error::Option`] if there is no tokenizer.
    pub fn foreign(self, lists: &[Vec<u32>]) -> Result<Option<usize>, Error> {
        let tokenizer = self.0.tokenizer()?;
        let parts = tokenizer.encode_parts("")?;
        Ok(lists.iter().position(|ids| !tokenizer.made(ids, &parts)))
    }
}
