//! Result of a call, for threads to wait for or tasks to await.

use super::{CancelGuard, Scheduler};
use crate::{embedder::EncodeJob, error::Error};
use std::{
    any::Any,
    fmt,
    panic::resume_unwind,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// A call in flight.  Dropping it cancels the call; the device finishes what it has begun.
#[must_use = "a call that is dropped is cancelled"]
pub struct EmbedFuture<T> {
    call: Arc<SharedCall<T>>,
    /// True if its result was returned.
    returned: bool,
}

type Finish<T> = Box<dyn FnOnce(Vec<Vec<f32>>) -> T + Send>;
/// Rows, or an error, or the panic of a thread that tokenised the call's texts.
type Rows = Result<Result<Vec<Vec<f32>>, Error>, Box<dyn Any + Send>>;

impl<T> EmbedFuture<T> {
    pub(super) fn new(call: Arc<SharedCall<T>>) -> Self {
        Self { call, returned: false }
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::Memory`] or [`Error::NotFinite`] if the device fails; for texts
    /// tokenised on another thread ([`Queue::embed`](super::Queue::embed)), also the errors of the
    /// texts.
    ///
    /// # Panics
    /// If it has already returned its result as a future.
    pub fn wait(mut self) -> Result<T, Error> {
        self.assert_in_flight();
        let rows = self.call.wait(None).expect("waited for as long as it takes");
        self.finished(rows)
    }

    /// Waits for a limited time; without a result by then, the call stays in flight.
    ///
    /// # Errors
    /// Itself after the time limit.
    ///
    /// # Panics
    /// As [`EmbedFuture::wait`].
    pub fn wait_for(mut self, time: Duration) -> Result<Result<T, Error>, Self> {
        self.assert_in_flight();
        match self.call.wait(Some(time)) {
            Some(rows) => Ok(self.finished(rows)),
            None => Err(self),
        }
    }

    fn assert_in_flight(&self) {
        assert!(!self.returned, "this call has returned its result");
    }

    fn finished(&mut self, rows: Rows) -> Result<T, Error> {
        self.returned = true;
        let finish = self.call.state().finish.take();
        let rows = rows.unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok(finish.expect("it is set before there are rows")(rows))
    }
}

impl<T> fmt::Debug for EmbedFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmbedFuture")
    }
}

impl<T> Future for EmbedFuture<T> {
    type Output = Result<T, Error>;

    /// # Panics
    /// If it has already returned its result.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.assert_in_flight();
        match self.call.poll(context) {
            Poll::Ready(rows) => Poll::Ready(self.finished(rows)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T> Drop for EmbedFuture<T> {
    fn drop(&mut self) {
        let mut state = self.call.state();
        state.left = true;
        let reading = state.reading.take();
        let guard = state.guard.take();
        drop(state); // the scheduler's thread may be about to answer
        reading.into_iter().for_each(|reading| reading.end(|| ()));
        drop(guard);
    }
}

/// Number of calls whose texts are being tokenised on another thread.
#[derive(Default)]
pub(super) struct Reading {
    calls: Mutex<usize>,
    none: Condvar,
}

impl Reading {
    fn calls(&self) -> MutexGuard<'_, usize> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sum of this number and another, taken while neither can change.
    pub(super) fn plus(&self, other: impl FnOnce() -> usize) -> usize {
        let calls = self.calls();
        *calls + other()
    }

    pub(super) fn wait_for_none(&self) {
        let mut calls = self.calls();
        while *calls > 0 {
            calls = self.none.wait(calls).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Decrements the number, atomically with what `then` does.
    fn end<T>(&self, then: impl FnOnce() -> T) -> T {
        let mut calls = self.calls();
        let done = then();
        *calls -= 1;
        drop(calls);
        self.none.notify_all();
        done
    }
}

/// State of a call, shared by the threads that compute it and the one that waits for it.
pub(super) struct SharedCall<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

struct State<T> {
    /// Present while another thread tokenises its texts.
    reading: Option<Arc<Reading>>,
    /// Present once it is in the scheduler's queue.
    guard: Option<CancelGuard>,
    /// Converts rows into the result; set before there are any rows.
    finish: Option<Finish<T>>,
    rows: Option<Rows>,
    /// True if its [`EmbedFuture`] was dropped.
    left: bool,
    waker: Option<Waker>,
}

impl<T: Send + 'static> SharedCall<T> {
    /// Creates a call, to be submitted now or after its texts are tokenised.
    pub(super) fn new(reading: Option<&Arc<Reading>>) -> Arc<Self> {
        reading.into_iter().for_each(|reading| *reading.calls() += 1);
        let state = State {
            reading: reading.cloned(),
            guard: None,
            finish: None,
            rows: None,
            left: false,
            waker: None,
        };
        Arc::new(Self { state: Mutex::new(state), ready: Condvar::new() })
    }

    /// Queues prepared work, unless its [`EmbedFuture`] was dropped.
    pub(super) fn submit(self: &Arc<Self>, scheduler: &Weak<Scheduler>, prepared: EncodeJob<T>) {
        let (input, finish) = prepared.split();
        let mut state = self.state();
        if state.left {
            return;
        }
        state.finish = Some(Box::new(finish));
        let reading = state.reading.take();
        drop(state);
        let call = Arc::clone(self);
        let submit = || {
            let scheduler = scheduler.upgrade().expect("a queue waits for its readers");
            scheduler.submit(input, move |done| call.give(Ok(done.map(|done| done.rows))))
        };
        let guard = match reading {
            Some(reading) => reading.end(submit),
            None => submit(),
        };
        let mut state = self.state();
        let unwanted = if state.left { Some(guard) } else { state.guard.replace(guard) };
        drop(state);
        drop(unwanted);
    }

    /// Ends a call that was not submitted.
    pub(super) fn fail(&self, failure: Result<Error, Box<dyn Any + Send>>) {
        let reading = self.state().reading.take();
        reading.into_iter().for_each(|reading| reading.end(|| ()));
        self.give(failure.map(Err));
    }
}

impl<T> SharedCall<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if its [`EmbedFuture`] was dropped.
    pub(super) fn is_left(&self) -> bool {
        self.state().left
    }

    fn give(&self, rows: Rows) {
        let mut state = self.state();
        state.rows = Some(rows);
        let waker = state.waker.take();
        drop(state);
        self.ready.notify_all();
        waker.into_iter().for_each(Waker::wake);
    }

    fn wait(&self, time: Option<Duration>) -> Option<Rows> {
        let start = Instant::now();
        let mut state = self.state();
        loop {
            if let Some(rows) = state.rows.take() {
                return Some(rows);
            }
            state = match time.map(|time| time.checked_sub(start.elapsed())) {
                None => self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(None) => return None,
                Some(Some(left)) => {
                    let waited = self.ready.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Rows> {
        let waker = context.waker().clone();
        let mut state = self.state();
        if let Some(rows) = state.rows.take() {
            return Poll::Ready(rows);
        }
        let before = state.waker.replace(waker);
        drop(state); // dropping a waker may run any code
        drop(before);
        Poll::Pending
    }
}
