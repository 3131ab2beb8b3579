//! Preparation of encoder work from texts.

use super::job::{EncodeJob, SequenceInput};
use super::{
    Embedded, Embedder, EncodeOptions, Error, OnLong, Output, Pooling, Prompt, TruncationSide,
    Vector, options::checked_dimensions,
};
use crate::{
    batch::Tokens,
    text::{Cut, Piece, Tokenized, Tokenizer},
};
use std::iter;

impl Embedder {
    /// Default per-call options, from the [`Options`](super::Options).
    pub fn encode_options(&self) -> EncodeOptions {
        self.defaults
    }

    /// Token ids of each text as the model reads them, with special tokens and the prompt of the
    /// [`Options`](super::Options).
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn tokenize_as<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: EncodeOptions,
    ) -> Result<Vec<Tokenized>, Error> {
        self.tokenize_prompted(texts, &Prompt::Auto, options)
    }

    /// Token ids as the model reads them, from the caller's ids of each text: adds missing special
    /// tokens and the prompt of the [`Options`](super::Options), and truncates long lists as it
    /// does texts.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`].
    pub fn tokenize_ids(
        &self,
        texts: &[Vec<u32>],
        options: EncodeOptions,
    ) -> Result<Vec<Tokenized>, Error> {
        self.tokenize_ids_prompted(texts, &Prompt::Auto, options)
    }

    /// True if there is a tokenizer; without one only token ids can be embedded.
    pub fn reads_texts(&self) -> bool {
        self.tokenizer.is_some()
    }

    /// Index of the first list of token ids that the tokenizer produces for no text.
    ///
    /// # Errors
    /// [`Error::Option`] if there is no tokenizer.
    pub fn foreign(&self, lists: &[Vec<u32>]) -> Result<Option<usize>, Error> {
        let tokenizer = self.tokenizer()?;
        let parts = tokenizer.encode_parts("")?;
        Ok(lists.iter().position(|ids| !tokenizer.made(ids, &parts)))
    }

    /// Token ids of texts and of text pairs as the model reads them.
    ///
    /// # Errors
    /// As [`Embedder::rerank`].
    pub fn tokenize_sequences(
        &self,
        sequences: &[(String, Option<String>)],
        options: EncodeOptions,
    ) -> Result<Vec<Tokens>, Error> {
        let tokens = |(index, (first, second)): (usize, &(String, Option<String>))| {
            let cut = self.cut(options);
            let tokenized = match second {
                None => self.tokenizer()?.encode(&[first], cut),
                Some(second) => self.pairs(first, &[second], options),
            };
            let tokenized = tokenized.and_then(|one| self.within(&one, options).map(|()| one));
            let tokenized = tokenized.map_err(|error| match error {
                Error::QueryTooLong { tokens, limit } => Error::TooLong { index, tokens, limit },
                other => other.moved(|_| index),
            });
            Ok(tokenized?.remove(0).tokens)
        };
        sequences.iter().enumerate().map(tokens).collect()
    }

    /// Tokens of a text, with or without special tokens; none if the text itself has more than
    /// `most`.
    ///
    /// # Errors
    /// As [`Embedder::tokenize`].
    pub fn pieces(
        &self,
        text: &str,
        special: bool,
        most: usize,
    ) -> Result<Option<Vec<Piece>>, Error> {
        self.tokenizer()?.pieces(text, special, most)
    }

    /// Decodes token ids into text, with or without special tokens.
    ///
    /// # Errors
    /// [`Error::Option`] if there is no tokenizer.
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<String, Error> {
        Ok(self.tokenizer()?.decode_with(ids, special))
    }

    /// Truncation of long texts; refused texts are not read beyond it, either.
    pub(super) fn cut(&self, options: EncodeOptions) -> Option<Cut> {
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

    pub(super) fn within(
        &self,
        tokenized: &[Tokenized],
        options: EncodeOptions,
    ) -> Result<(), Error> {
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
            let tokens = tokenizer.length_in_pairs(query, limit)?;
            if tokens > limit {
                return Err(Error::QueryTooLong { tokens, limit });
            }
        }
        let pairs = tokenizer.encode_pairs(query, documents, self.cut(options))?;
        self.within(&pairs, options)?;
        Ok(pairs)
    }

    /// Prepares a vector for each text.
    ///
    /// # Errors
    /// As [`Embedder::embed`], before anything is computed.
    pub fn prepare<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: EncodeOptions,
    ) -> Result<EncodeJob<Vec<Embedded>>, Error> {
        self.prepare_tokenized(self.tokenize_as(texts, options)?, options)
    }

    /// Prepares a vector for each tokenised text.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`], before anything is computed.
    pub fn prepare_tokenized(
        &self,
        tokenized: Vec<Tokenized>,
        options: EncodeOptions,
    ) -> Result<EncodeJob<Vec<Embedded>>, Error> {
        let lengths: Vec<_> = tokenized.iter().map(Tokenized::lengths).collect();
        let tokens = tokenized.into_iter().map(|text| text.tokens).collect();
        Ok(self.prepare_tokens(tokens, options)?.map(|vectors| {
            let embedded = iter::zip(lengths, vectors);
            let embedded = embedded.map(|((tokens, truncated), vector)| Embedded {
                vector,
                tokens,
                truncated,
            });
            embedded.collect()
        }))
    }

    /// Prepares a vector for each list of tokens; the caller includes the special tokens.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`], before anything is computed.
    pub fn prepare_tokens(
        &self,
        sequences: Vec<Tokens>,
        options: EncodeOptions,
    ) -> Result<EncodeJob<Vec<Vector>>, Error> {
        self.embeds()?;
        let options = self.checked(options)?;
        let windows = options.on_long == OnLong::Window;
        if windows && sequences.iter().any(|tokens| tokens.len() > options.max_length) {
            let end = |tokens: &Tokens| match self.pooling {
                Pooling::Cls => 1.min(tokens.len()),
                _ => tokens.len(),
            };
            let whole: Vec<_> = sequences.iter().map(|tokens| vec![0..end(tokens)]).collect();
            let prepared = self.prepare_spans(sequences, whole, options)?;
            return Ok(prepared.map(|vectors| vectors.into_iter().flatten().collect()));
        }
        self.check_all(&sequences)?;
        let sequence = match self.pooling {
            Pooling::Cls => SequenceInput::first,
            _ => SequenceInput::whole,
        };
        let output = self.vectors(options);
        let sequences = sequences.into_iter().map(sequence).collect();
        Ok(EncodeJob::new(sequences, output, |rows| rows.into_iter().map(Vector).collect()))
    }

    /// Checks the options of a call against the model.
    pub(super) fn checked(&self, options: EncodeOptions) -> Result<EncodeOptions, Error> {
        let hidden = self.config().hidden as usize;
        checked_dimensions(Some(options.dimensions), hidden)?;
        self.limit(options).map(|_| options)
    }

    /// Device output for embeddings.
    pub(super) fn vectors(&self, options: EncodeOptions) -> Output {
        Output::Vectors { dims: options.dimensions as u32, normalize: options.normalize }
    }

    pub(super) fn check_all(&self, sequences: &[Tokens]) -> Result<(), Error> {
        sequences.iter().enumerate().try_for_each(|(index, tokens)| self.check(index, tokens))
    }
}
