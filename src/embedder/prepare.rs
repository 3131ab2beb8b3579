//! Jobs: encoder work prepared from texts and tokens.

use super::{
    Embedded, Embedder, EncodeOptions, Error, OnLong, Output, Pooling, Prompt, Vector,
    job::{EncodeJob, SequenceInput},
    options::checked_dimensions,
};
use crate::{batch::Tokens, text::Tokenized};
use std::iter;

/// Makes jobs, from [`Embedder::jobs`]: the input is read and checked, nothing is computed.
///
/// [`Embedder::compute`] runs a job alone, a [`Queue`](crate::Queue) in common batches with those
/// of other callers.
///
/// ```no_run
/// use jinabert::{Embedder, OnLong};
///
/// let embedder = Embedder::open("models/jinabert-mini-en")?;
/// let mut options = embedder.encode_options();
/// options.on_long = OnLong::Truncate;
/// let job = embedder.jobs().texts(&["A blue cat"], options)?;
/// println!("{} tokens", job.input.tokens());
/// let embedded = embedder.compute(job)?;
/// # Ok::<(), jinabert::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Jobs<'a>(pub(super) &'a Embedder);

impl Embedder {
    /// Makes jobs for [`Embedder::compute`] and [`Queue::submit`](crate::Queue::submit), with
    /// options for each.
    pub fn jobs(&self) -> Jobs<'_> {
        Jobs(self)
    }

    /// Checks the options of a call against the model; returns them.
    ///
    /// # Errors
    /// [`Error::Option`] for dimensions or a length that the model does not have.
    pub fn checked(&self, options: EncodeOptions) -> Result<EncodeOptions, Error> {
        let hidden = self.config().hidden as usize;
        checked_dimensions(Some(options.dimensions), hidden, &self.matryoshka)?;
        self.limit(options).map(|_| options)
    }

    /// Gives sequences without an adapter that of the options.
    pub(super) fn adapted(&self, sequences: Vec<Tokens>, options: EncodeOptions) -> Vec<Tokens> {
        let adapted = |tokens: Tokens| {
            let adapter = tokens.adapter.or(options.adapter);
            Tokens { adapter, ..tokens }
        };
        sequences.into_iter().map(adapted).collect()
    }

    /// Device output for embeddings.
    pub(super) fn vectors(&self, options: EncodeOptions) -> Output {
        Output::Vectors { dims: options.dimensions as u32, normalize: options.normalize }
    }
}

impl Jobs<'_> {
    /// A vector for each text, with the prompt of the [`Options`](super::Options).
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn texts<S: AsRef<str> + Sync>(
        self,
        texts: &[S],
        options: EncodeOptions,
    ) -> Result<EncodeJob<Vec<Embedded>>, Error> {
        let tokenized = self.0.tokenization().texts(texts, &Prompt::Auto, options)?;
        self.tokenized(tokenized, options)
    }

    /// A vector for each tokenised text; [`Tokenization::texts`](super::Tokenization::texts) puts
    /// another prompt before them.
    ///
    /// # Errors
    /// As [`TokenCalls::embed`](super::TokenCalls::embed).
    pub fn tokenized(
        self,
        tokenized: Vec<Tokenized>,
        options: EncodeOptions,
    ) -> Result<EncodeJob<Vec<Embedded>>, Error> {
        let lengths: Vec<_> = tokenized.iter().map(Tokenized::lengths).collect();
        let tokens = tokenized.into_iter().map(|text| text.tokens).collect();
        Ok(self.tokens(tokens, options)?.map(|vectors| {
            let embedded = iter::zip(lengths, vectors);
            let embedded = embedded.map(|((tokens, truncated), vector)| Embedded {
                vector,
                tokens,
                truncated,
            });
            embedded.collect()
        }))
    }

    /// A vector for each list of tokens; the caller includes the special tokens.
    ///
    /// # Errors
    /// As [`TokenCalls::embed`](super::TokenCalls::embed).
    pub fn tokens(
        self,
        sequences: Vec<Tokens>,
        options: EncodeOptions,
    ) -> Result<EncodeJob<Vec<Vector>>, Error> {
        let Self(embedder) = self;
        embedder.embeds()?;
        let options = embedder.checked(options)?;
        let sequences = embedder.adapted(sequences, options);
        let windows = options.on_long == OnLong::Window;
        if windows && sequences.iter().any(|tokens| tokens.len() > options.max_length) {
            let end = |tokens: &Tokens| match embedder.pooling {
                Pooling::Cls => 1.min(tokens.len()),
                _ => tokens.len(),
            };
            let whole: Vec<_> = sequences.iter().map(|tokens| vec![0..end(tokens)]).collect();
            let job = self.spans(sequences, whole, options)?;
            return Ok(job.map(|vectors| vectors.into_iter().flatten().collect()));
        }
        embedder.check_all(&sequences)?;
        let sequence = match embedder.pooling {
            Pooling::Cls => SequenceInput::first,
            _ => SequenceInput::whole,
        };
        let output = embedder.vectors(options);
        let sequences = sequences.into_iter().map(sequence).collect();
        Ok(EncodeJob::new(sequences, output, |rows| rows.into_iter().map(Vector).collect()))
    }
}
