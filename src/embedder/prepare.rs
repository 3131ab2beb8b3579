//! Jobs: encoder work prepared from texts and tokens.

use super::{
    Embedded, Embedder, EncodeOptions, Error, OnLong, Output, Prompt, Vector,
    job::{EncodeJob, SequenceInput},
    modules::HostPooling,
    options::checked_dimensions,
};
use crate::{batch::Tokens, text::Tokenized};
use std::{iter, ops::Range};

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
        checked_dimensions(Some(options.dimensions), self.width, &self.matryoshka)?;
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
        if self.modules.is_empty() {
            Output::Vectors { dims: options.dimensions as u32, normalize: options.normalize }
        } else {
            self.pooled()
        }
    }

    /// Device output for pooled vectors that are not ready.
    pub(super) fn pooled(&self) -> Output {
        Output::Vectors { dims: self.config().hidden, normalize: false }
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
        if let Some(pooling) = embedder.pooling.on_host() {
            return self.pooled_on_host(pooling, sequences, options);
        }
        let windows = options.on_long == OnLong::Window;
        if windows && sequences.iter().any(|tokens| tokens.len() > options.max_length) {
            let spans = sequences.iter().map(|tokens| vec![embedder.pooling.span(tokens.len())]);
            let spans = spans.collect();
            let job = self.spans(sequences, spans, options)?;
            return Ok(job.map(|vectors| vectors.into_iter().flatten().collect()));
        }
        embedder.check_all(&sequences)?;
        let sequence = |tokens: Tokens| {
            let Range { start, end } = embedder.pooling.span(tokens.len());
            SequenceInput::spans(tokens, vec![start as u32..end as u32])
        };
        let output = embedder.vectors(options);
        let sequences = sequences.into_iter().map(sequence).collect();
        let modules = embedder.modules.clone();
        Ok(EncodeJob::new(sequences, output, move |rows| {
            let ready = |row| if modules.is_empty() { row } else { modules.ready(row, options) };
            rows.into_iter().map(|row| Vector(ready(row))).collect()
        }))
    }

    /// Vectors pooled by the host, of each window as soon as it is computed.
    fn pooled_on_host(
        self,
        pooling: HostPooling,
        sequences: Vec<Tokens>,
        options: EncodeOptions,
    ) -> Result<EncodeJob<Vec<Vector>>, Error> {
        let Self(embedder) = self;
        let width = embedder.config().hidden as usize;
        let lengths: Vec<usize> = sequences.iter().map(Tokens::len).collect();
        let (inputs, windows) = embedder.whole_windows(&sequences, embedder.overlap, options)?;
        let inputs = iter::zip(inputs, &windows).map(|(input, window)| {
            let owned = input.spans[0].start as usize * width;
            let (first, of) = (window.owned, lengths[window.sequence]);
            input.reduced(move |rows| pooling.part(&rows[owned..], width, first, of))
        });
        let modules = embedder.modules.clone();
        Ok(EncodeJob::new(inputs.collect(), Output::Tokens, move |parts| {
            let mut vectors = vec![Vec::new(); lengths.len()];
            for (window, part) in iter::zip(windows, parts) {
                pooling.join(&mut vectors[window.sequence], part);
            }
            vectors.into_iter().map(|vector| Vector(modules.ready(vector, options))).collect()
        }))
    }
}
