//! From texts to what the device is to do for them.

use super::forward::{Forward, Prepared};
use super::{Embedded, Embedder, End, Error, OnLong, Output, Pooling, Vector, Wanted};
use crate::{
    batch::Tokens,
    text::{Cut, Piece, Tokenized},
};
use std::iter;

impl Embedder {
    /// What a call wants unless it says otherwise: as the [`Options`](super::Options) were.
    pub fn wanted(&self) -> Wanted {
        self.wanted
    }

    /// The tokens that the model reads for each text, special ones included.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn tokenize_as<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        wanted: Wanted,
    ) -> Result<Vec<Tokenized>, Error> {
        let tokenized = self.tokenizer()?.encode(texts, self.cut(wanted))?;
        self.within(&tokenized, wanted)?;
        Ok(tokenized)
    }

    /// The tokens that the model reads for texts of which a caller has the ids: the special ones
    /// are added unless they are there, and long texts are cut as texts are.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`].
    pub fn tokenize_ids(
        &self,
        texts: &[Vec<u32>],
        wanted: Wanted,
    ) -> Result<Vec<Tokenized>, Error> {
        let tokenizer = self.tokenizer()?;
        let parts = tokenizer.encode_parts("")?;
        let tokenized: Vec<Tokenized> =
            texts.iter().map(|ids| parts.around(ids, self.cut(wanted))).collect();
        for (index, text) in tokenized.iter().enumerate() {
            self.check_ids(index, &text.tokens)?;
        }
        self.within(&tokenized, wanted)?;
        Ok(tokenized)
    }

    /// Whether there is a tokenizer: without one only token ids can be embedded.
    pub fn reads_texts(&self) -> bool {
        self.tokenizer.is_some()
    }

    /// The first of some lists of token ids that the model's tokenizer makes of no text.
    ///
    /// # Errors
    /// [`Error::Option`] if there is no tokenizer.
    pub fn foreign(&self, lists: &[Vec<u32>]) -> Result<Option<usize>, Error> {
        let tokenizer = self.tokenizer()?;
        let parts = tokenizer.encode_parts("")?;
        Ok(lists.iter().position(|ids| !tokenizer.made(ids, &parts)))
    }

    /// The tokens that the model reads for texts and pairs of texts.
    ///
    /// # Errors
    /// As [`Embedder::rerank`].
    pub fn tokenize_sequences(
        &self,
        sequences: &[(String, Option<String>)],
        wanted: Wanted,
    ) -> Result<Vec<Tokens>, Error> {
        let tokens = |(index, (first, second)): (usize, &(String, Option<String>))| {
            let cut = self.cut(wanted);
            let tokenized = match second {
                None => self.tokenizer()?.encode(&[first], cut),
                Some(second) => self.tokenizer()?.encode_pairs(first, &[second], cut),
            };
            let tokenized = tokenized.and_then(|one| self.within(&one, wanted).map(|()| one));
            Ok(tokenized.map_err(|error| error.moved(|_| index))?.remove(0).tokens)
        };
        sequences.iter().enumerate().map(tokens).collect()
    }

    /// The tokens of a text, with or without the special ones around them.
    ///
    /// # Errors
    /// As [`Embedder::tokenize`].
    pub fn pieces(&self, text: &str, special: bool) -> Result<Vec<Piece>, Error> {
        self.tokenizer()?.pieces(text, special)
    }

    /// The text of token ids, with or without special tokens.
    ///
    /// # Errors
    /// [`Error::Option`] if there is no tokenizer.
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<String, Error> {
        Ok(self.tokenizer()?.decode_with(ids, special))
    }

    /// Where long texts are cut.
    pub(super) fn cut(&self, wanted: Wanted) -> Option<Cut> {
        let Wanted { on_long, drop, .. } = wanted;
        (on_long == OnLong::Truncate)
            .then_some(Cut { limit: self.limit, first: drop == End::First })
    }

    pub(super) fn within(&self, tokenized: &[Tokenized], wanted: Wanted) -> Result<(), Error> {
        match tokenized.iter().position(|text| text.tokens.len() > self.limit) {
            None => Ok(()),
            Some(_) if wanted.on_long == OnLong::Window => Ok(()),
            Some(index) => {
                let tokens = tokenized[index].full_length;
                Err(Error::TooLong { index, tokens, limit: self.limit })
            }
        }
    }

    /// A vector for each text.
    ///
    /// # Errors
    /// As [`Embedder::embed`], before anything is computed.
    pub fn prepare<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        wanted: Wanted,
    ) -> Result<Prepared<Vec<Embedded>>, Error> {
        self.prepare_tokenized(self.tokenize_as(texts, wanted)?, wanted)
    }

    /// A vector for each text that has been tokenised.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`], before anything is computed.
    pub fn prepare_tokenized(
        &self,
        tokenized: Vec<Tokenized>,
        wanted: Wanted,
    ) -> Result<Prepared<Vec<Embedded>>, Error> {
        let lengths: Vec<_> = tokenized.iter().map(Tokenized::lengths).collect();
        let tokens = tokenized.into_iter().map(|text| text.tokens).collect();
        Ok(self.prepare_tokens(tokens, wanted)?.map(|vectors| {
            let embedded = iter::zip(lengths, vectors);
            let embedded = embedded.map(|((tokens, truncated), vector)| Embedded {
                vector,
                tokens,
                truncated,
            });
            embedded.collect()
        }))
    }

    /// A vector for each list of tokens, special ones included by the caller.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`], before anything is computed.
    pub fn prepare_tokens(
        &self,
        sequences: Vec<Tokens>,
        wanted: Wanted,
    ) -> Result<Prepared<Vec<Vector>>, Error> {
        self.embeds()?;
        let wanted = self.checked(wanted)?;
        let windows = wanted.on_long == OnLong::Window;
        if windows && sequences.iter().any(|tokens| tokens.len() > self.limit) {
            let end = |tokens: &Tokens| match self.pooling {
                Pooling::Cls => 1.min(tokens.len()),
                _ => tokens.len(),
            };
            let whole: Vec<_> = sequences.iter().map(|tokens| vec![0..end(tokens)]).collect();
            let prepared = self.prepare_spans(sequences, whole, wanted)?;
            return Ok(prepared.map(|vectors| vectors.into_iter().flatten().collect()));
        }
        self.check_all(&sequences)?;
        let forward = match self.pooling {
            Pooling::Cls => Forward::first,
            _ => Forward::whole,
        };
        let output = self.vectors(wanted);
        let forwards = sequences.into_iter().map(forward).collect();
        Ok(Prepared::new(forwards, output, |rows| rows.into_iter().map(Vector).collect()))
    }

    /// What a call wants, if the model has that.
    pub(super) fn checked(&self, wanted: Wanted) -> Result<Wanted, Error> {
        let hidden = self.config.hidden as usize;
        super::dimensions(Some(wanted.dimensions), hidden).map(|_| wanted)
    }

    /// What the device returns for vectors.
    pub(super) fn vectors(&self, wanted: Wanted) -> Output {
        Output::Vectors { dims: wanted.dimensions as u32, normalize: wanted.normalize }
    }

    pub(super) fn check_all(&self, sequences: &[Tokens]) -> Result<(), Error> {
        sequences.iter().enumerate().try_for_each(|(index, tokens)| self.check(index, tokens))
    }
}
