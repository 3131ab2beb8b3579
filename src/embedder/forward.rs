//! What is asked of the device, apart from who asks and what is made of it.

use super::{Embedder, Error, Output, Progress, Running, Seat};
use crate::{
    batch::{self, PackedBatch, Tokens},
    model::Model,
};
use std::{
    collections::VecDeque,
    iter,
    ops::{ControlFlow, Range},
};

/// Batches that are handed to the device before the one computed is waited for.
const AHEAD: usize = 2;

/// One sequence that the device runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    pub(super) tokens: Tokens,
    /// What of it is pooled: a vector each.
    pub(super) spans: Vec<Range<u32>>,
}

impl Forward {
    /// All of it is pooled.
    pub(super) fn whole(tokens: Tokens) -> Self {
        Self { spans: vec![0..tokens.len() as u32], tokens }
    }

    /// Its first token stands for it.
    pub(super) fn first(tokens: Tokens) -> Self {
        Self { spans: vec![0..1], tokens }
    }

    /// Tokens of it, at least one.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }
}

/// Sequences that one call asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    pub(super) forwards: Vec<Forward>,
    pub(super) output: Output,
}

impl Work {
    /// The sequences.
    pub fn forwards(&self) -> &[Forward] {
        &self.forwards
    }

    /// What each returns.  Sequences of one batch return the same.
    pub fn output(&self) -> Output {
        self.output
    }

    /// Tokens of all sequences together.
    pub fn tokens(&self) -> usize {
        self.forwards.iter().map(Forward::tokens).sum()
    }
}

/// Turns what the device returned, the rows of each sequence, into what was asked for.
type Finish<T> = Box<dyn FnOnce(Vec<Vec<f32>>) -> T + Send>;

/// A call whose input has been read and checked: what the device is to do, and what is made of it.
///
/// [`Embedder::compute`] runs it; a [`Scheduler`](crate::scheduler::Scheduler) runs it together
/// with what others ask for.
pub struct Prepared<T> {
    /// For the device.
    pub work: Work,
    finish: Finish<T>,
}

impl<T: 'static> Prepared<T> {
    pub(super) fn new(
        forwards: Vec<Forward>,
        output: Output,
        finish: impl FnOnce(Vec<Vec<f32>>) -> T + Send + 'static,
    ) -> Self {
        Self { work: Work { forwards, output }, finish: Box::new(finish) }
    }

    /// What is asked for, from the rows of each sequence in order.
    pub fn finish(self, rows: Vec<Vec<f32>>) -> T {
        (self.finish)(rows)
    }

    /// The two halves: for the device, and for what it returns.
    pub fn split(self) -> (Work, impl FnOnce(Vec<Vec<f32>>) -> T + Send) {
        (self.work, self.finish)
    }

    /// Makes something else of the same.
    pub fn map<U: 'static>(self, map: impl FnOnce(T) -> U + Send + 'static) -> Prepared<U> {
        let Self { work, finish } = self;
        Prepared { work, finish: Box::new(|rows| map(finish(rows))) }
    }
}

/// A batch under way.
pub struct Submitted<'a> {
    embedder: &'a Embedder,
    /// Of the model that runs it.
    generation: u64,
    /// What runs, or why it does not.
    running: Result<Running, Error>,
    /// For another try.
    forwards: Vec<Forward>,
    output: Output,
    /// Elements of each sequence's rows.
    sizes: Vec<usize>,
}

impl Submitted<'_> {
    /// Waits for the rows of each sequence.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::Memory`] or [`Error::NotFinite`] if the device fails, and fails
    /// again.
    pub fn wait(self) -> Result<Vec<Vec<f32>>, Error> {
        let Self { embedder, forwards, output, sizes, .. } = self;
        let error = match self.running.and_then(Running::wait) {
            Err(error) if error.is_of_device() => error,
            result => return Ok(apart(&result?, sizes)),
        };
        let several = forwards.len() > 1;
        let error = match error {
            Error::Memory(_) if several => error,
            _ => {
                let batch = pack(&forwards.iter().collect::<Vec<_>>());
                let work = |model: &mut Model| model.forward(&batch, output);
                match embedder.again(self.generation, error, work) {
                    Err(error @ Error::Memory(_)) if several => error,
                    result => return Ok(apart(&result?, sizes)),
                }
            }
        };
        let tokens: usize = forwards.iter().map(Forward::tokens).sum();
        tracing::warn!("{error}; {tokens} tokens are halved");
        let half = |forwards: &[Forward]| {
            embedder.submit(&forwards.iter().collect::<Vec<_>>(), output)?.wait()
        };
        let (some, others) = forwards.split_at(forwards.len() / 2);
        let mut rows = half(some)?;
        rows.extend(half(others)?);
        embedder.batch_tokens.lower(tokens / 2);
        Ok(rows)
    }
}

impl Embedder {
    /// Hands one batch to the device.  Sequences have passed the checks of what prepared them.
    ///
    /// # Errors
    /// As [`Submitted::wait`].
    pub fn submit(&self, forwards: &[&Forward], output: Output) -> Result<Submitted<'_>, Error> {
        let rows = |forward: &&Forward| match output {
            Output::Tokens => forward.tokens() * self.config.hidden as usize,
            Output::Vectors { dims, .. } => forward.spans.len() * dims as usize,
            Output::Projected => forward.tokens() * self.head.projected() as usize,
        };
        let sizes = forwards.iter().map(rows).collect();
        let batch = pack(forwards);
        let submit =
            |seat: &mut Seat| (seat.generation, seat.with(|model| model.submit(&batch, output)));
        let (generation, running) = self.apart(submit)?;
        match running {
            Err(error) if !error.is_of_device() => Err(error),
            running => Ok(Submitted {
                embedder: self,
                generation,
                running,
                forwards: forwards.iter().map(|&forward| forward.clone()).collect(),
                output,
                sizes,
            }),
        }
    }

    /// Runs what was prepared, in batches, longest sequences first.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::Memory`] or [`Error::NotFinite`] if the device fails and nothing
    /// helps.
    pub fn compute<T: 'static>(&self, prepared: Prepared<T>) -> Result<T, Error> {
        self.compute_watched(prepared, |_| ControlFlow::Continue(()))
    }

    /// As [`Embedder::compute`]; `watch` hears after every batch how many sequences (texts, pairs,
    /// windows) are done, and may end it there.
    ///
    /// # Errors
    /// As [`Embedder::compute`], and [`Error::Cancelled`] if `watch` breaks.
    pub fn compute_watched<T: 'static>(
        &self,
        prepared: Prepared<T>,
        mut watch: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<T, Error> {
        // The device computes a batch while the next is packed and recorded.  On an error those
        // under way are dropped: the device finishes them, and the next call waits its turn.
        let Work { forwards, output } = &prepared.work;
        let (mut all, mut done) = (vec![Vec::new(); forwards.len()], 0);
        let mut collect = |(members, submitted): (Vec<usize>, Submitted)| {
            done += members.len();
            for (n, rows) in iter::zip(members, submitted.wait()?) {
                all[n] = rows;
            }
            let progress = Progress { done, total: forwards.len() };
            match watch(progress) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(progress.cancelled()),
            }
        };
        let mut under_way = VecDeque::new();
        for members in self.plan(forwards) {
            let batch: Vec<&Forward> = members.iter().map(|&n| &forwards[n]).collect();
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

    /// Which sequences make each batch.
    fn plan(&self, forwards: &[Forward]) -> Vec<Vec<usize>> {
        let lengths: Vec<usize> = forwards.iter().map(Forward::tokens).collect();
        batch::plan(&lengths, self.batch_tokens())
    }

    /// The batches of some sequences, for [`Embedder::profile`].
    pub(super) fn batches(&self, forwards: &[Forward]) -> impl Iterator<Item = PackedBatch> {
        self.plan(forwards)
            .into_iter()
            .map(|members| pack(&members.iter().map(|&n| &forwards[n]).collect::<Vec<_>>()))
    }
}

/// The rows of each sequence.
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

/// Sequences end to end.
fn pack(forwards: &[&Forward]) -> PackedBatch {
    PackedBatch::new(forwards.iter().map(|forward| &forward.tokens))
        .with_spans(forwards.iter().map(|forward| &forward.spans[..]))
}
