//! The model on its device: batches of sequences in, rows out, with retries after device failures.

use super::{
    Error, Options, Output, Progress,
    job::{EncoderInput, SequenceInput},
    load::Loaded,
    no_thread,
    slot::{BatchTokens, DeviceInfo, ModelSlot},
};
use crate::{
    batch::{self, PackedBatch},
    files::Files,
    model::{Config, Model},
    recording::{InFlight, Span},
};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use std::{
    collections::VecDeque,
    iter,
    ops::ControlFlow,
    panic::resume_unwind,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

/// Batches submitted ahead of the one being computed.
const AHEAD: usize = 2;

/// Runs batches on the model's device.
pub(super) struct Runner {
    slot: Mutex<ModelSlot>,
    device_info: Mutex<DeviceInfo>,
    pub(super) batch_tokens: BatchTokens,
    /// Threads for work that holds the model lock.
    pool: ThreadPool,
    /// Files and options of the model, to open it again.
    pub(super) files: Files,
    pub(super) options: Options,
    pub(super) config: Config,
    /// Token limit of a sequence; a device that cannot hold so many is of no use.
    pub(super) limit: usize,
    /// Components of a vector for each token, if the head has a projection.
    projected: usize,
}

impl Runner {
    /// Takes over a loaded model; `limit` is the token limit of a sequence.
    ///
    /// # Errors
    /// [`Error::Memory`] if the system gives no threads.
    pub(super) fn new(
        files: Files,
        options: Options,
        limit: usize,
        loaded: Loaded,
    ) -> Result<Self, Error> {
        // An embedder keeps the device that `auto` chose.
        let fallback = Some(options.falls_back());
        let options = match loaded.chosen {
            Some(device) => Options { device, fallback, ..options },
            None => options,
        };
        let config = loaded.model.config().clone();
        let projected = loaded.model.head().projected() as usize;
        let (slot, device_info, batch_tokens) = loaded.into_parts(&options);
        Ok(Self {
            slot: Mutex::new(slot),
            device_info: Mutex::new(device_info),
            batch_tokens: BatchTokens::new(batch_tokens),
            pool: pool()?,
            files,
            options,
            config,
            limit,
            projected,
        })
    }

    /// Runs all sequences in batches, by [`SequenceInput::rank`]; returns the rows of each, in
    /// order.  `watch` is called after every batch and may cancel the rest.
    ///
    /// # Errors
    /// As [`Runner::submit`], and [`Error::Cancelled`] if `watch` breaks.
    pub(super) fn run(
        &self,
        input: &EncoderInput,
        mut watch: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        // The device computes a batch while the next is packed and recorded.  On an error the
        // batches in flight are dropped: the device finishes them, and the next call waits.
        let EncoderInput { sequences, output } = input;
        let mut all = vec![Vec::new(); sequences.len()];
        let mut done = 0;
        let mut collect = |(members, batch): (Vec<usize>, InFlight<Vec<Vec<f32>>>)| {
            done += members.len();
            for (n, rows) in iter::zip(members, batch.wait()?) {
                all[n] = rows;
            }
            let progress = Progress { done, total: sequences.len() };
            match watch(progress) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(progress.cancelled()),
            }
        };
        let mut in_flight = VecDeque::new();
        for members in self.make_batches(sequences) {
            let batch: Vec<&SequenceInput> = members.iter().map(|&n| &sequences[n]).collect();
            let submitted = self.submit(&batch, *output)?;
            in_flight.push_back((members, submitted));
            if in_flight.len() > AHEAD
                && let Some(first) = in_flight.pop_front()
            {
                collect(first)?;
            }
        }
        in_flight.into_iter().try_for_each(collect)?;
        Ok(all)
    }

    /// Submits one batch; waiting yields the rows of each sequence, after retries if necessary.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::Memory`] or [`Error::NotFinite`] if the device fails and all
    /// retries fail.
    pub(super) fn submit(
        &self,
        sequences: &[&SequenceInput],
        output: Output,
    ) -> Result<InFlight<'_, Vec<Vec<f32>>>, Error> {
        let batch = pack(sequences);
        let (generation, submitted) = self
            .off_pool(|slot| (slot.generation, slot.with(|model| model.submit(&batch, output))))?;
        let submitted = match submitted {
            Err(error) if !error.is_of_device() => return Err(error),
            submitted => submitted,
        };
        // Kept for a retry.
        let sequences: Vec<SequenceInput> = sequences.iter().copied().cloned().collect();
        Ok(InFlight::new(move || match submitted.and_then(InFlight::wait) {
            Ok(values) => Ok(self.rows_of(&sequences, output, &values)),
            Err(error) if error.is_of_device() => {
                self.retry_batch(&sequences, output, generation, error)
            }
            Err(error) => Err(error),
        }))
    }

    /// Runs a failed batch again: as a whole on a repaired device, or, if memory is short, in two
    /// halves.
    fn retry_batch(
        &self,
        sequences: &[SequenceInput],
        output: Output,
        generation: u64,
        mut error: Error,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let several = sequences.len() > 1;
        if !(several && matches!(error, Error::Memory(_))) {
            let batch = pack(&sequences.iter().collect::<Vec<_>>());
            let work = |model: &mut Model| model.forward(&batch, output);
            match self.retry(generation, error, work) {
                Err(again @ Error::Memory(_)) if several => error = again,
                result => return Ok(self.rows_of(sequences, output, &result?)),
            }
        }
        let tokens: usize = sequences.iter().map(SequenceInput::tokens).sum();
        tracing::warn!("{error}; {tokens} tokens are halved");
        let half = |sequences: &[SequenceInput]| {
            self.submit(&sequences.iter().collect::<Vec<_>>(), output)?.wait()
        };
        let (first, second) = sequences.split_at(sequences.len() / 2);
        let mut rows = half(first)?;
        rows.extend(half(second)?);
        self.batch_tokens.lower(tokens / 2);
        Ok(rows)
    }

    /// Runs sequences one dispatch at a time; returns the time of each.
    ///
    /// # Errors
    /// [`Error::NoGpu`] if the device has no timestamps, or errors of the device.
    pub(super) fn profile(
        &self,
        sequences: &[SequenceInput],
        output: Output,
    ) -> Result<Vec<Span>, Error> {
        let mut spans = Vec::new();
        for members in self.make_batches(sequences) {
            let batch = pack(&members.iter().map(|&n| &sequences[n]).collect::<Vec<_>>());
            let some = self.off_pool(|slot| slot.with(|model| model.profile(&batch, output)));
            spans.extend(some??);
        }
        Ok(spans)
    }

    /// Pipeline depth: batches to keep in flight.
    pub(super) fn ahead(&self) -> usize {
        if self.device_info().software { 1 } else { 2 }
    }

    /// True if nothing is being submitted or waited for.
    pub(super) fn is_idle(&self) -> bool {
        self.slot.try_lock().is_ok()
    }

    /// Bytes allocated on the device now.
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.lock_model().allocated_bytes()
    }

    /// Locks the model.  A poisoned lock is ignored: the next batch overwrites all state that a
    /// panic left incomplete.
    fn lock_model(&self) -> MutexGuard<'_, ModelSlot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Current device, readable without waiting for the model lock.
    pub(super) fn device_info(&self) -> MutexGuard<'_, DeviceInfo> {
        self.device_info.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs work that holds the model lock on the embedder's own threads: a rayon thread that holds
    /// it could deadlock by stealing the next call, which waits for the same lock.
    pub(super) fn off_pool<R: Send>(
        &self,
        work: impl FnOnce(&mut ModelSlot) -> R + Send,
    ) -> Result<R, Error> {
        let locked = move || {
            let mut slot = self.lock_model();
            let slot = &mut *slot;
            self.pool.install(move || work(slot))
        };
        if rayon::current_thread_index().is_none() {
            return Ok(locked());
        }
        thread::scope(|scope| {
            let thread = thread::Builder::new().spawn_scoped(scope, locked).map_err(no_thread)?;
            Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }

    /// Groups sequences into batches; returns sequence indices.
    pub(super) fn make_batches(&self, sequences: &[SequenceInput]) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|&n| sequences[n].rank()); // stable: equal lengths keep their order
        batch::split(order, |n| sequences[n].tokens(), self.batch_tokens.get())
    }

    /// Splits output values into the rows of each sequence, as its call keeps them.
    fn rows_of(
        &self,
        sequences: &[SequenceInput],
        output: Output,
        values: &[f32],
    ) -> Vec<Vec<f32>> {
        let size = |sequence: &SequenceInput| match output {
            Output::Tokens => sequence.tokens() * self.config.hidden as usize,
            Output::Vectors { dims, .. } => sequence.spans.len() * dims as usize,
            Output::Projected => sequence.tokens() * self.projected,
        };
        let mut rest = values;
        let mut rows = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            let (own, left) = rest.split_at(size(sequence));
            rest = left;
            rows.push((sequence, own));
        }
        assert!(rest.is_empty(), "{} values more than the rows have", rest.len());
        let kept = |(sequence, own): (&SequenceInput, &[f32])| sequence.kept(own);
        if sequences.iter().any(SequenceInput::is_reduced) {
            rows.into_par_iter().map(kept).collect()
        } else {
            rows.into_iter().map(kept).collect()
        }
    }
}

/// Packs sequences end to end.
fn pack(sequences: &[&SequenceInput]) -> PackedBatch {
    PackedBatch::new(sequences.iter().map(|sequence| &sequence.tokens))
        .with_spans(sequences.iter().map(|sequence| &sequence.spans[..]))
}

/// Thread pool as large as the tokenizer's.
fn pool() -> Result<ThreadPool, Error> {
    ThreadPoolBuilder::new()
        .num_threads(rayon::current_num_threads())
        .thread_name(|n| format!("jinabert-{n}"))
        .build()
        .map_err(|error| Error::Memory(format!("no threads to compute on: {error}")))
}
