//! Calls whose input is token ids.

use super::{Embedder, Error, Vector, job::SequenceInput};
use crate::{
    batch::{Adapter, Tokens},
    model::Config,
    recording::Span,
};

/// Calls whose input is token ids, from [`Embedder::tokens`].
///
/// Lists are read as given: the caller includes the special tokens, and a prompt if there is one.
/// [`Embedder::tokenize`] and [`Embedder::tokenization`] make them from texts.
#[derive(Clone, Copy, Debug)]
pub struct TokenCalls<'a>(pub(super) &'a Embedder);

impl Embedder {
    /// Calls whose input is token ids: vectors of lists, spans and single tokens, logits,
    /// probabilities.
    pub fn tokens(&self) -> TokenCalls<'_> {
        TokenCalls(self)
    }

    pub(super) fn check_all(&self, sequences: &[Tokens]) -> Result<(), Error> {
        sequences.iter().enumerate().try_for_each(|(index, tokens)| self.check(index, tokens))
    }

    pub(super) fn check(&self, index: usize, tokens: &Tokens) -> Result<(), Error> {
        self.check_ids(index, tokens)?;
        if tokens.len() > self.limit {
            Err(Error::TooLong { index, tokens: tokens.len(), limit: self.limit })
        } else {
            Ok(())
        }
    }

    pub(super) fn check_ids(&self, index: usize, tokens: &Tokens) -> Result<(), Error> {
        let bad = |what: String| Err(Error::Input { index, what });
        let ids = &tokens.ids;
        let types = &tokens.type_ids;
        if ids.len() != types.len() {
            return bad(format!("{} ids but {} type ids", ids.len(), types.len()));
        }
        if ids.is_empty() {
            return bad("no tokens, not even special ones".to_owned());
        }
        if tokens.query_only >= ids.len() {
            return bad(format!("{} tokens, {} of them query_only", ids.len(), tokens.query_only));
        }
        let adapters = self.adapters().len() as u32;
        if let Some(Adapter(n)) = tokens.adapter.filter(|adapter| adapter.0 >= adapters) {
            return bad(format!("adapter {n} of another model; this one has {adapters}"));
        }
        let Config { vocabulary, types: kinds, .. } = *self.config();
        if let Some(id) = ids.iter().find(|&&id| id >= vocabulary) {
            return bad(format!("id {id}; the vocabulary has {vocabulary} rows"));
        }
        if let Some(kind) = types.iter().find(|&&kind| kind >= kinds) {
            return bad(format!("type id {kind}; the model has {kinds} types"));
        }
        Ok(())
    }
}

impl TokenCalls<'_> {
    /// Embeds each list.
    ///
    /// # Errors
    /// [`Error::Input`] for an empty list or an id outside its table, [`Error::TooLong`] over the
    /// limit unless windows are enabled (ids are never truncated), [`Error::Gpu`] if the device
    /// fails.
    pub fn embed(self, sequences: &[&Tokens]) -> Result<Vec<Vector>, Error> {
        let Self(embedder) = self;
        embedder.compute(embedder.jobs().tokens(cloned(sequences), embedder.defaults)?)
    }

    /// Run time of each kernel for the lists, without the gaps between kernels.
    ///
    /// # Errors
    /// As [`TokenCalls::embed`], and [`Error::NoGpu`] if the device has no timestamps.
    pub fn profile(self, sequences: &[&Tokens]) -> Result<Vec<Span>, Error> {
        let Self(embedder) = self;
        let output = embedder.vectors(embedder.defaults);
        let sequences = embedder.adapted(cloned(sequences), embedder.defaults);
        embedder.check_all(&sequences)?;
        let sequences: Vec<_> = sequences.into_iter().map(SequenceInput::whole).collect();
        embedder.runner.profile(&sequences, output)
    }
}

/// Copies of the lists.
pub(super) fn cloned(sequences: &[&Tokens]) -> Vec<Tokens> {
    sequences.iter().map(|&tokens| tokens.clone()).collect()
}
