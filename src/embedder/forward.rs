//! Units of encoder work, independent of the caller and of post-processing.

use super::{Embedder, Error, ModelSlot, Output, Progress, Running};
use crate::{
    batch::{self, PackedBatch, Tokens},
    model::Model,
};
use std::{
    collections::VecDeque,
    fmt, iter,
    ops::{ControlFlow, Range},
};

/// Batches submitted ahead of the one being computed.
const AHEAD: usize = 2;

/// One sequence for the encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceInput {
    pub(super) tokens: Tokens,
    /// Token ranges to pool, one vector each.
    pub(super) spans: Vec<Range<u32>>,
}

impl SequenceInput {
    /// Pools the whole sequence.
    pub(super) fn whole(tokens: Tokens) -> Self {
        Self { spans: vec![0..tokens.len() as u32], tokens }
    }

    /// Pools the first token only.
    pub(super) fn first(tokens: Tokens) -> Self {
        Self { spans: vec![0..1], tokens }
    }

    /// Number of tokens, at least one.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }
}

/// Sequences of one call.
#[derive(Clone, Debug, PartialEq)]
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
/// [`Embedder::compute`] runs it alone; a [`Scheduler`](crate::scheduler::Scheduler) batches it
/// with the work of other calls.
pub struct EncodeJob<T> {
    /// Encoder work.
    pub work: EncoderInput,
    finish: Finish<T>,
}

impl<T> fmt::Debug for EncodeJob<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodeJob").field("work", &self.work).finish_non_exhaustive()
    }
}

impl<T: 'static> EncodeJob<T> {
    pub(super) fn new(
        sequences: Vec<SequenceInput>,
        output: Output,
        finish: impl FnOnce(Vec<Vec<f32>>) -> T + Send + 'static,
    ) -> Self {
        Self { work: EncoderInput { sequences, output }, finish: Box::new(finish) }
    }

    /// Converts the rows of each sequence, in order, into the result.
    pub fn finish(self, rows: Vec<Vec<f32>>) -> T {
        (self.finish)(rows)
    }

    /// Splits into the encoder work and the conversion of its output.
    pub fn split(self) -> (EncoderInput, impl FnOnce(Vec<Vec<f32>>) -> T + Send) {
        (self.work, self.finish)
    }

    /// Applies a function to the result.
    pub fn map<U: 'static>(self, map: impl FnOnce(T) -> U + Send + 'static) -> EncodeJob<U> {
        let Self { work, finish } = self;
        EncodeJob { work, finish: Box::new(|rows| map(finish(rows))) }
    }
}

/// A batch in flight.
pub struct Submitted<'a> {
    embedder: &'a Embedder,
    /// Generation of the model that runs it.
    generation: u64,
    /// The running batch, or the error of its submission.
    running: Result<Running, Error>,
    /// Input, kept for a retry.
    sequences: Vec<SequenceInput>,
    output: Output,
    /// Number of elements in the rows of each sequence.
    sizes: Vec<usize>,
}

impl fmt::Debug for Submitted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sequences, output) = (self.sequences.len(), self.output);
        write!(f, "Submitted({sequences} sequences, {output:?})")
    }
}

impl Submitted<'_> {
    /// Waits for the rows of each sequence.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::Memory`] or [`Error::NotFinite`] if the device fails and the
    /// retries fail.
    pub fn wait(self) -> Result<Vec<Vec<f32>>, Error> {
        let Self { embedder, sequences, output, sizes, .. } = self;
        let error = match self.running.and_then(Running::wait) {
            Err(error) if error.is_of_device() => error,
            result => return Ok(apart(&result?, sizes)),
        };
        let several = sequences.len() > 1;
        let error = match error {
            Error::Memory(_) if several => error,
            _ => {
                let batch = pack(&sequences.iter().collect::<Vec<_>>());
                let work = |model: &mut Model| model.forward(&batch, output);
                match embedder.retry(self.generation, error, work) {
                    Err(error @ Error::Memory(_)) if several => error,
                    result => return Ok(apart(&result?, sizes)),
                }
            }
        };
        let tokens: usize = sequences.iter().map(SequenceInput::tokens).sum();
        tracing::warn!("{error}; {tokens} tokens are halved");
        let half = |sequences: &[SequenceInput]| {
            embedder.submit(&sequences.iter().collect::<Vec<_>>(), output)?.wait()
        };
        let (some, others) = sequences.split_at(sequences.len() / 2);
        let mut rows = half(some)?;
        rows.extend(half(others)?);
        embedder.batch_tokens.lower(tokens / 2);
        Ok(rows)
    }
}

impl Embedder {
    /// Submits one batch.  The sequences must have passed the checks of the `prepare` methods.
    ///
    /// # Errors
    /// As [`Submitted::wait`].
    pub fn submit(
        &self,
        sequences: &[&SequenceInput],
        output: Output,
    ) -> Result<Submitted<'_>, Error> {
        let rows = |sequence: &&SequenceInput| match output {
            Output::Tokens => sequence.tokens() * self.config.hidden as usize,
            Output::Vectors { dims, .. } => sequence.spans.len() * dims as usize,
            Output::Projected => sequence.tokens() * self.head.projected() as usize,
        };
        let sizes = sequences.iter().map(rows).collect();
        let batch = pack(sequences);
        let submit = |slot: &mut ModelSlot| {
            (slot.generation, slot.with(|model| model.submit(&batch, output)))
        };
        let (generation, running) = self.off_pool(submit)?;
        match running {
            Err(error) if !error.is_of_device() => Err(error),
            running => Ok(Submitted {
                embedder: self,
                generation,
                running,
                sequences: sequences.iter().map(|&forward| forward.clone()).collect(),
                output,
                sizes,
            }),
        }
    }

    /// Runs prepared work in batches, longest sequences first.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::Memory`] or [`Error::NotFinite`] if the device fails and all
    /// retries fail.
    pub fn compute<T: 'static>(&self, prepared: EncodeJob<T>) -> Result<T, Error> {
        self.compute_watched(prepared, |_| ControlFlow::Continue(()))
    }

    /// As [`Embedder::compute`].  `watch` is called after every batch with the number of finished
    /// sequences (texts, pairs, windows), and may cancel the rest.
    ///
    /// # Errors
    /// As [`Embedder::compute`], and [`Error::Cancelled`] if `watch` breaks.
    pub fn compute_watched<T: 'static>(
        &self,
        prepared: EncodeJob<T>,
        mut watch: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<T, Error> {
        // The device computes a batch while the next is packed and recorded.  On an error the
        // batches in flight are dropped: the device finishes them, and the next call waits.
        let EncoderInput { sequences, output } = &prepared.work;
        let (mut all, mut done) = (vec![Vec::new(); sequences.len()], 0);
        let mut collect = |(members, submitted): (Vec<usize>, Submitted)| {
            done += members.len();
            for (n, rows) in iter::zip(members, submitted.wait()?) {
                all[n] = rows;
            }
            let progress = Progress { done, total: sequences.len() };
            match watch(progress) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(progress.cancelled()),
            }
        };
        let mut under_way = VecDeque::new();
        for members in self.plan(sequences) {
            let batch: Vec<&SequenceInput> = members.iter().map(|&n| &sequences[n]).collect();
            let submitted = self.submit(&batch, *output)?;
            under_way.push_back((members, submitted));
            if under_way.len() > AHEAD
                && let Some(first) = under_way.pop_front()
            {
                collect(first)?;
            }
        }
        under_way.into_iter().try_for_each(collect)?;
        Ok(prepared.finish(all))
    }

    /// Groups sequences into batches; returns sequence indices.
    fn plan(&self, sequences: &[SequenceInput]) -> Vec<Vec<usize>> {
        let lengths: Vec<usize> = sequences.iter().map(SequenceInput::tokens).collect();
        batch::make_batches(&lengths, self.batch_tokens())
    }

    /// Batches of some sequences, for [`Embedder::profile`].
    pub(super) fn batches(&self, sequences: &[SequenceInput]) -> impl Iterator<Item = PackedBatch> {
        self.plan(sequences)
            .into_iter()
            .map(|members| pack(&members.iter().map(|&n| &sequences[n]).collect::<Vec<_>>()))
    }
}

/// Splits output values into the rows of each sequence.
fn apart(values: &[f32], sizes: Vec<usize>) -> Vec<Vec<f32>> {
    assert_eq!(values.len(), sizes.iter().sum::<usize>(), "elements of the rows");
    let mut rest = values;
    let rows = sizes.into_iter().map(|size| {
        let (rows, left) = rest.split_at(size);
        rest = left;
        rows.to_vec()
    });
    rows.collect()
}

/// Packs sequences end to end.
fn pack(sequences: &[&SequenceInput]) -> PackedBatch {
    PackedBatch::new(sequences.iter().map(|forward| &forward.tokens))
        .with_spans(sequences.iter().map(|forward| &forward.spans[..]))
}
