//! Continuous batching: sequences of many callers in common batches.
//!
//! One thread submits batches to the device, each within the model's token budget.  Batches are
//! formed one at a time, so that a call of two thousand texts delays a query no longer than the
//! batch in progress:
//!
//! * Calls of few tokens, a quarter of a batch at most, are *short*: they go first, in order, and
//!   share batches only with each other.  While there are long calls, every second batch is for
//!   them.  Their batches have half of the tokens if short calls arrived recently.
//! * Of the long calls, the one with the fewest computed tokens is next, and the rest of its batch
//!   is filled from the one after it.  A later call is treated as if it had received its share so
//!   far (start-time fair queueing; Goyal, Vin, Cheng 1996), so that neither earlier nor later
//!   calls can block it forever.
//!
//! A call whose [`CancelGuard`] is dropped leaves the queue.  If a batch fails, each call in it is
//! retried alone, so that it fails only for its own faults; but not if the device failed and all of
//! the embedder's remedies did, as nothing is left to run on.

mod embed_future;
mod queue;
mod stats;
#[cfg(test)]
mod tests;

use crate::{
    embedder::{Embedder, EncoderInput, SequenceInput},
    error::Error,
};
pub use embed_future::EmbedFuture;
pub use queue::Queue;
use stats::{Failures, Throughput};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt, iter,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Time after a short call in which more are expected; they should wait for half a batch only.
const LATELY: Duration = Duration::from_secs(2);

/// Reason why a batch has no rows.
struct Failed {
    error: Error,
    /// True if its calls may succeed one by one.  A failed device would fail them one after the
    /// other, each as slowly.
    alone: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { alone: !matches!(error, Error::Gpu(_) | Error::Compile { .. }), error }
    }
}

/// Result of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// Rows of each sequence, for [`EncodeJob::finish`](crate::EncodeJob::finish).
    pub rows: Vec<Vec<f32>>,
    /// Waiting time before its first batch.
    pub queued: Duration,
    /// Time from then on.
    pub computed: Duration,
}

/// A finished batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Number of sequences.
    pub sequences: usize,
    /// Number of tokens in all sequences.
    pub tokens: usize,
}

/// Called once, on the scheduler's thread.
type Reply = Box<dyn FnOnce(Result<Done, Error>) + Send>;

/// Batches the calls of many callers for one model.
pub struct Scheduler {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

struct Shared {
    embedder: Arc<Embedder>,
    queue: Mutex<Waiting>,
    /// Signalled when there is work, or when no more will come.
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// Calls by number, hence in order of arrival.
    calls: BTreeMap<u64, QueuedCall>,
    next: u64,
    /// Tokens received by a hypothetical long call that was always present and got just its share.
    clock: usize,
    /// Throughput of the last batches.
    throughput: Throughput,
    failures: Failures,
    /// True if the last batch had short calls.
    short_last: bool,
    /// Arrival time of the last short call.
    short_at: Option<Instant>,
    closing: bool,
}

struct QueuedCall {
    input: Arc<EncoderInput>,
    /// Indices of its sequences, by their rank.
    order: Vec<usize>,
    /// Number of sequences already in a batch.
    begun: usize,
    /// Tokens of those, counted from the queue's clock at arrival.
    served: usize,
    short: bool,
    rows: Vec<Vec<f32>>,
    /// Number of sequences without rows.
    missing: usize,
    /// Number of tokens in those.
    left: usize,
    arrived: Instant,
    started: Option<Instant>,
    reply: Reply,
}

impl QueuedCall {
    fn new(input: EncoderInput, short: bool, reply: Reply) -> Self {
        let sequences = input.sequences();
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        order.sort_by_key(|&n| sequences[n].rank());
        Self {
            rows: vec![Vec::new(); order.len()],
            missing: order.len(),
            left: input.tokens(),
            order,
            input: Arc::new(input),
            begun: 0,
            served: 0,
            short,
            arrived: Instant::now(),
            started: None,
            reply,
        }
    }
}

/// One sequence in a batch.
struct Member {
    call: u64,
    input: Arc<EncoderInput>,
    index: usize,
}

impl Member {
    fn sequence(&self) -> &SequenceInput {
        &self.input.sequences()[self.index]
    }
}

/// A call in the queue.  Dropping it cancels the call; the device finishes what it has begun.
#[must_use = "a call whose guard is dropped is cancelled"]
pub struct CancelGuard {
    shared: Arc<Shared>,
    call: u64,
}

impl fmt::Debug for CancelGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelGuard({})", self.call)
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        // The reply's captures are dropped after the queue is unlocked.
        let call = self.shared.queue().calls.remove(&self.call);
        drop(call);
    }
}

impl Scheduler {
    /// Starts the thread; `observe` is called for every finished batch.
    pub fn new(
        embedder: Arc<Embedder>,
        observe: impl Fn(Batch) + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { embedder, queue: Mutex::default(), wake: Condvar::new() });
        let worker = thread::Builder::new().name("jinabert-scheduler".to_owned()).spawn({
            let shared = shared.clone();
            move || shared.serve(observe)
        })?;
        Ok(Self { shared, worker: Some(worker) })
    }

    /// Model of the scheduler.
    pub fn embedder(&self) -> &Arc<Embedder> {
        &self.shared.embedder
    }

    /// Queues a call.  `reply` is called on the scheduler's thread, or on this one if there is
    /// nothing to do, and should only pass the result on and return.
    pub fn submit(
        &self,
        input: EncoderInput,
        reply: impl FnOnce(Result<Done, Error>) + Send + 'static,
    ) -> CancelGuard {
        if input.sequences().is_empty() {
            let zero = Duration::ZERO;
            reply(Ok(Done { rows: Vec::new(), queued: zero, computed: zero }));
            return CancelGuard { shared: self.shared.clone(), call: u64::MAX };
        }
        let short = input.tokens() <= self.embedder().runtime().batch_tokens() / 4;
        let mut call = QueuedCall::new(input, short, Box::new(reply));
        let mut queue = self.shared.queue();
        // It gets no credit for the time before.
        call.served = queue.clock;
        if short {
            queue.short_at = Some(Instant::now());
        }
        let number = queue.next;
        queue.next += 1;
        queue.calls.insert(number, call);
        self.shared.wake.notify_one();
        CancelGuard { shared: self.shared.clone(), call: number }
    }

    /// Predicted time for all queued work, at the speed of the last batches.
    pub fn backlog(&self) -> Duration {
        self.shared.queue().backlog()
    }

    /// Number of consecutive batches at which the device and all remedies failed; zero if the last
    /// failure is five minutes old, as the next batch may succeed.  Lack of memory and non-finite
    /// results may be caused by a call and are not counted.
    pub fn failures(&self) -> u32 {
        self.shared.queue().failures.at(Instant::now())
    }

    /// Number of calls that are waiting or being computed.
    pub fn calls(&self) -> usize {
        self.shared.queue().calls.len()
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scheduler({} calls on {})", self.calls(), self.embedder().device())
    }
}

/// Waits for the accepted calls.
impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.queue().closing = true;
        self.shared.wake.notify_one();
        if let Some(worker) = self.worker.take()
            // The last owner may be a caller that this very thread has just answered.
            && worker.thread().id() != thread::current().id()
        {
            // The thread catches panics of batches.
            let _ = worker.join();
        }
    }
}

impl Waiting {
    fn backlog(&self) -> Duration {
        self.throughput.time(self.calls.values().map(|call| call.left).sum())
    }

    /// Picks the next batch of at most `budget` tokens, or of one sequence.
    fn pick(&mut self, budget: usize) -> Vec<Member> {
        let waiting = |call: &QueuedCall| call.begun < call.order.len();
        let (mut short, mut long): (Vec<_>, Vec<_>) =
            self.calls.iter_mut().filter(|(_, call)| waiting(call)).partition(|(_, c)| c.short);
        long.sort_by_key(|(_, call)| call.served); // stable: in order of arrival
        self.short_last = long.is_empty() || !short.is_empty() && !self.short_last;
        let sharing = long.len().max(1);
        let calls = if self.short_last { &mut short } else { &mut long };
        let output = calls.first().map(|(_, call)| call.input.output());
        let lately = self.short_at.is_some_and(|at| at.elapsed() < LATELY);
        let halved = lately && !self.short_last;
        let mut batch = Vec::new();
        let mut room = if halved { budget / 2 } else { budget };
        for (number, call) in calls {
            if Some(call.input.output()) != output {
                continue;
            }
            while let Some(&index) = call.order.get(call.begun) {
                let tokens = call.input.sequences()[index].tokens();
                if tokens > room && !batch.is_empty() {
                    break;
                }
                room = room.saturating_sub(tokens);
                batch.push(Member { call: **number, input: call.input.clone(), index });
                call.begun += 1;
                call.served += tokens;
                call.started.get_or_insert_with(Instant::now);
            }
        }
        if !self.short_last {
            let tokens: usize = batch.iter().map(|member| member.sequence().tokens()).sum();
            self.clock += tokens / sharing;
        }
        batch
    }

    /// Stores the rows of a batch; returns the calls that now have all of their rows.
    fn keep(&mut self, batch: &[Member], rows: Vec<Vec<f32>>) -> Vec<(Reply, Result<Done, Error>)> {
        let mut done = Vec::new();
        for (member, rows) in iter::zip(batch, rows) {
            let Some(call) = self.calls.get_mut(&member.call) else { continue };
            call.rows[member.index] = rows;
            call.missing -= 1;
            call.left -= member.sequence().tokens();
            if call.missing == 0
                && let Some(call) = self.calls.remove(&member.call)
            {
                let started = call.started.unwrap_or(call.arrived);
                let queued = started - call.arrived;
                let computed = started.elapsed();
                done.push((call.reply, Ok(Done { rows: call.rows, queued, computed })));
            }
        }
        done
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Waiting> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Main loop of the thread.
    fn serve(&self, observe: impl Fn(Batch)) {
        let mut in_flight = VecDeque::new();
        let mut free = Instant::now();
        loop {
            while in_flight.len() < self.embedder.runtime().ahead() {
                let Some(batch) = self.next(in_flight.is_empty()) else { break };
                let sequences = batch.len();
                let tokens = batch.iter().map(|member| member.sequence().tokens()).sum();
                quietly(|| observe(Batch { sequences, tokens }));
                let begun = Instant::now();
                let submitted = self.guarded(|| {
                    let sequences: Vec<&SequenceInput> =
                        batch.iter().map(Member::sequence).collect();
                    self.embedder.runtime().submit(&sequences, batch[0].input.output())
                });
                in_flight.push_back((batch, submitted, tokens, begun));
            }
            let Some((batch, submitted, tokens, begun)) = in_flight.pop_front() else { return };
            match submitted.and_then(|submitted| self.guarded(|| submitted.wait())) {
                Ok(rows) => {
                    // It began when it was submitted, or when the one before it was done.
                    self.queue().throughput.add(tokens, begun.max(free).elapsed());
                    free = Instant::now();
                    self.answer(&batch, rows);
                }
                Err(failed) => {
                    if !failed.alone {
                        self.queue().failures.add(Instant::now());
                    }
                    self.apart(batch, failed);
                }
            }
        }
    }

    /// Next batch, waited for if `idle`; `None` if there is none now or, if `idle`, never again.
    fn next(&self, idle: bool) -> Option<Vec<Member>> {
        let mut queue = self.queue();
        loop {
            let batch = queue.pick(self.embedder.runtime().batch_tokens());
            if !batch.is_empty() {
                return Some(batch);
            }
            if !idle || queue.closing {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Converts the panic of a batch into its failure.
    fn guarded<T>(&self, run: impl FnOnce() -> Result<T, Error>) -> Result<T, Failed> {
        let run = catch_unwind(AssertUnwindSafe(run)).map(|result| result.map_err(Failed::from));
        run.unwrap_or_else(|panic| {
            let what = panic.downcast_ref::<String>().map(String::as_str);
            let what = what.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            tracing::error!("a batch was given up: {what}");
            let error = Error::Gpu("a batch was given up: an internal error".to_owned());
            Err(Failed { error, alone: true })
        })
    }

    fn answer(&self, batch: &[Member], rows: Vec<Vec<f32>>) {
        let done = {
            let mut queue = self.queue();
            queue.failures = Failures::default();
            queue.keep(batch, rows)
        };
        for (reply, result) in done {
            quietly(|| reply(result));
        }
    }

    /// Runs the calls of a failed batch one by one.
    fn apart(&self, batch: Vec<Member>, Failed { error, alone }: Failed) {
        let mut calls: BTreeMap<u64, Vec<Member>> = BTreeMap::new();
        for member in batch {
            calls.entry(member.call).or_default().push(member);
        }
        if let (1, Some((&number, _))) = (calls.len(), calls.first_key_value()) {
            return self.fail(number, error);
        }
        if !alone {
            let what = match &error {
                Error::Gpu(what) => what.clone(),
                other => other.to_string(),
            };
            for &number in calls.keys() {
                self.fail(number, Error::Gpu(what.clone()));
            }
            return;
        }
        tracing::warn!("a batch of {} calls failed, each is run again: {error}", calls.len());
        for (number, members) in calls {
            if !self.queue().calls.contains_key(&number) {
                continue; // cancelled
            }
            let sequences: Vec<&SequenceInput> = members.iter().map(Member::sequence).collect();
            let output = members[0].input.output();
            match self.guarded(|| self.embedder.runtime().submit(&sequences, output)?.wait()) {
                Ok(rows) => self.answer(&members, rows),
                Err(failed) => self.fail(number, failed.error),
            }
        }
    }

    fn fail(&self, number: u64, error: Error) {
        let call = self.queue().calls.remove(&number);
        if let Some(call) = call {
            quietly(|| (call.reply)(Err(error)));
        }
    }
}

/// Catches panics of a caller's callback, so that they do not end the thread.
fn quietly(tell: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(tell)).is_err() {
        tracing::error!("a caller's reply panicked");
    }
}
