//! Units of encoder work, independent of the caller and of post-processing.

use super::{Embedder, Error, Output, Progress};
use crate::batch::Tokens;
use std::{
    cmp::Reverse,
    fmt,
    ops::{ControlFlow, Range},
    sync::Arc,
};

/// Function from the rows of a sequence, as the device returns them, to what the call keeps.
type Reduce = Arc<dyn Fn(&[f32]) -> Vec<f32> + Send + Sync>;

/// One sequence for the encoder.
#[derive(Clone)]
pub struct SequenceInput {
    pub(super) tokens: Tokens,
    /// Token ranges to pool, one vector each.
    pub(super) spans: Vec<Range<u32>>,
    /// Reduces the rows as soon as they are computed.
    reduce: Option<Reduce>,
    /// True if other sequences need it: it runs in the call's first batch.
    leads: bool,
}

impl fmt::Debug for SequenceInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut found = f.debug_struct("SequenceInput");
        found.field("tokens", &self.tokens).field("spans", &self.spans).finish_non_exhaustive()
    }
}

impl SequenceInput {
    /// Pools some ranges of tokens.
    pub(super) fn spans(tokens: Tokens, spans: Vec<Range<u32>>) -> Self {
        Self { tokens, spans, reduce: None, leads: false }
    }

    /// Pools the whole sequence.
    pub(super) fn whole(tokens: Tokens) -> Self {
        let all = 0..tokens.len() as u32;
        Self::spans(tokens, vec![all])
    }

    /// Pools the first token only.
    pub(super) fn first(tokens: Tokens) -> Self {
        Self::spans(tokens, vec![0..1])
    }

    /// Reduces the rows as soon as they are computed: a call for which every token has an output
    /// then holds those of one batch only.
    pub(super) fn reduced(
        self,
        reduce: impl Fn(&[f32]) -> Vec<f32> + Send + Sync + 'static,
    ) -> Self {
        Self { reduce: Some(Arc::new(reduce)), ..self }
    }

    /// Puts the sequence into the call's first batch.
    pub(super) fn leading(self) -> Self {
        Self { leads: true, ..self }
    }

    /// True if the call keeps other rows than the device returns.
    pub(super) fn is_reduced(&self) -> bool {
        self.reduce.is_some()
    }

    /// Rows that the call keeps, of those the device returned.
    pub(super) fn kept(&self, rows: &[f32]) -> Vec<f32> {
        self.reduce.as_ref().map_or_else(|| rows.to_vec(), |reduce| reduce(rows))
    }

    /// Place among the sequences of a call: one that others need is first, then the longest.
    pub(crate) fn rank(&self) -> Reverse<(bool, usize)> {
        Reverse((self.leads, self.tokens()))
    }

    /// Number of tokens, at least one.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }
}

/// Sequences of one call.
#[derive(Clone, Debug)]
pub struct EncoderInput {
    pub(super) sequences: Vec<SequenceInput>,
    pub(super) output: Output,
}

impl EncoderInput {
    /// The sequences.
    pub fn sequences(&self) -> &[SequenceInput] {
        &self.sequences
    }

    /// Output type, the same for all sequences of a batch.
    pub fn output(&self) -> Output {
        self.output
    }

    /// Number of tokens in all sequences.
    pub fn tokens(&self) -> usize {
        self.sequences.iter().map(SequenceInput::tokens).sum()
    }
}

/// Converts the device's output, the rows of each sequence, into the call's result.
type Finish<T> = Box<dyn FnOnce(Vec<Vec<f32>>) -> T + Send>;

/// A call whose input is read and checked: the encoder work, and the conversion of its output.
///
/// [`Embedder::compute`] runs it alone; a [`Queue`](crate::Queue) in batches with the input of
/// other calls.
pub struct EncodeJob<T> {
    /// Encoder work.
    pub input: EncoderInput,
    finish: Finish<T>,
}

impl<T> fmt::Debug for EncodeJob<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodeJob").field("input", &self.input).finish_non_exhaustive()
    }
}

impl<T: 'static> EncodeJob<T> {
    pub(super) fn new(
        sequences: Vec<SequenceInput>,
        output: Output,
        finish: impl FnOnce(Vec<Vec<f32>>) -> T + Send + 'static,
    ) -> Self {
        Self { input: EncoderInput { sequences, output }, finish: Box::new(finish) }
    }

    /// Converts the rows of each sequence, in order, into the result.
    pub fn finish(self, rows: Vec<Vec<f32>>) -> T {
        (self.finish)(rows)
    }

    /// Splits into the encoder work and the conversion of its output.
    pub fn split(self) -> (EncoderInput, impl FnOnce(Vec<Vec<f32>>) -> T + Send) {
        (self.input, self.finish)
    }

    /// Applies a function to the result.
    pub fn map<U: 'static>(self, map: impl FnOnce(T) -> U + Send + 'static) -> EncodeJob<U> {
        let Self { input, finish } = self;
        EncodeJob { input, finish: Box::new(|rows| map(finish(rows))) }
    }
}

impl Embedder {
    /// Runs a job in batches, longest sequences first, after one that others need.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::Memory`] or [`Error::NotFinite`] if the device fails and all
    /// retries fail.
    pub fn compute<T: 'static>(&self, job: EncodeJob<T>) -> Result<T, Error> {
        self.compute_watched(job, |_| ControlFlow::Continue(()))
    }

    /// As [`Embedder::compute`].  `watch` is called after every batch with the number of finished
    /// sequences (texts, pairs, windows), and may cancel the rest.
    ///
    /// # Errors
    /// As [`Embedder::compute`], and [`Error::Cancelled`] if `watch` breaks.
    pub fn compute_watched<T: 'static>(
        &self,
        job: EncodeJob<T>,
        watch: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<T, Error> {
        let rows = self.runner.run(&job.input, watch)?;
        Ok(job.finish(rows))
    }
}
