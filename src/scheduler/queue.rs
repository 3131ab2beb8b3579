//! A model for many callers, threads or tasks.

use super::{Scheduler, Ticket};
use crate::{
    embedder::{Embedded, Embedder, Prepared, Vector},
    error::Error,
};
use std::{
    fmt,
    ops::Deref,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// A model for many callers: what threads and tasks ask for at the same time shares batches, and
/// short calls need not wait for long ones.
///
/// A handle: cheap to clone, `Send` and `Sync`.  Everything else that an [`Embedder`] does is
/// there, too, by dereferencing.  When the last clone is dropped, that waits for the calls that
/// were accepted.
///
/// ```no_run
/// use jinabert::{Embedder, Queue};
///
/// let queue = Queue::new(Embedder::open("models/jinabert-mini-en")?)?;
/// std::thread::scope(|scope| {
///     for text in ["A blue cat", "A cat that is blue"] {
///         let queue = queue.clone();
///         scope.spawn(move || queue.embed(&[text])?.wait());
///     }
/// });
/// # Ok::<(), jinabert::Error>(())
/// ```
///
/// In `async` code a [`Pending`] is a future, of no particular runtime:
///
/// ```no_run
/// # async fn run(queue: jinabert::Queue) -> Result<(), jinabert::Error> {
/// let vectors = queue.embed(&["A blue cat"])?.await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Queue(Arc<Scheduler>);

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({} calls on {})", self.0.calls(), self.device())
    }
}

impl Deref for Queue {
    type Target = Embedder;

    fn deref(&self) -> &Embedder {
        self.0.embedder()
    }
}

impl Queue {
    /// Starts the thread that hands batches to the device.
    ///
    /// # Errors
    /// [`Error::Memory`] if the system gives no thread.
    pub fn new(embedder: impl Into<Arc<Embedder>>) -> Result<Self, Error> {
        let scheduler = Scheduler::new(embedder.into(), |_| {});
        let scheduler = scheduler.map_err(|e| Error::Memory(format!("no thread to run: {e}")))?;
        Ok(Self(Arc::new(scheduler)))
    }

    /// Embeds texts: tokenises them on this thread, and queues what the device is to do.
    ///
    /// # Errors
    /// As [`Embedder::embed`]; those of the device come when the result is waited for.
    pub fn embed<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Pending<Vec<Vector>>, Error> {
        let prepared = self.prepare(texts, self.wanted())?;
        let vectors =
            |all: Vec<Embedded>| all.into_iter().map(|embedded| embedded.vector).collect();
        Ok(self.submit(prepared.map(vectors)))
    }

    /// Queues what was prepared: [`Embedder::prepare`] and its like for chunks, tokens, scores and
    /// classes.
    pub fn submit<T: Send + 'static>(&self, prepared: Prepared<T>) -> Pending<T> {
        let (work, finish) = prepared.split();
        let answer = Arc::new(Answer::default());
        let ticket = self.0.submit(work, {
            let answer = Arc::clone(&answer);
            move |done| answer.give(done.map(|done| done.rows))
        });
        Pending { answer, finish: Some(Box::new(finish)), _ticket: ticket }
    }
}

/// A call under way.  Dropped, it is cancelled; what the device has begun it finishes.
#[must_use = "a call that is dropped is cancelled"]
pub struct Pending<T> {
    answer: Arc<Answer>,
    /// Until there is a result.
    finish: Option<Finish<T>>,
    _ticket: Ticket,
}

type Finish<T> = Box<dyn FnOnce(Vec<Vec<f32>>) -> T + Send>;
type Rows = Result<Vec<Vec<f32>>, Error>;

impl<T> Pending<T> {
    /// Waits for the result.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::Memory`] or [`Error::NotFinite`] if the device fails.
    ///
    /// # Panics
    /// If it was polled, as a future, until it had returned its result.
    pub fn wait(mut self) -> Result<T, Error> {
        self.is_under_way();
        let rows = self.answer.wait(None).expect("waited for as long as it takes");
        self.finished(rows)
    }

    /// Waits for so long at most; what is not there yet is still under way then.
    ///
    /// # Errors
    /// Itself if the time is over.
    ///
    /// # Panics
    /// As [`Pending::wait`].
    pub fn wait_for(mut self, time: Duration) -> Result<Result<T, Error>, Self> {
        self.is_under_way();
        match self.answer.wait(Some(time)) {
            Some(rows) => Ok(self.finished(rows)),
            None => Err(self),
        }
    }

    fn is_under_way(&self) {
        assert!(self.finish.is_some(), "this call has returned its result");
    }

    fn finished(&mut self, rows: Rows) -> Result<T, Error> {
        let finish = self.finish.take().expect("it is under way");
        rows.map(finish)
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Error>;

    /// # Panics
    /// If it has returned its result before.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.is_under_way();
        match self.answer.poll(context) {
            Poll::Ready(rows) => Poll::Ready(self.finished(rows)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// What the scheduler's thread gives to whoever waits.
#[derive(Default)]
struct Answer {
    given: Mutex<Given>,
    ready: Condvar,
}

#[derive(Default)]
struct Given {
    rows: Option<Rows>,
    waker: Option<Waker>,
}

impl Answer {
    fn given(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, rows: Rows) {
        let mut given = self.given();
        given.rows = Some(rows);
        let waker = given.waker.take();
        drop(given);
        self.ready.notify_all();
        waker.into_iter().for_each(Waker::wake);
    }

    fn wait(&self, time: Option<Duration>) -> Option<Rows> {
        let start = Instant::now();
        let mut given = self.given();
        loop {
            if let Some(rows) = given.rows.take() {
                return Some(rows);
            }
            given = match time.map(|time| time.checked_sub(start.elapsed())) {
                None => self.ready.wait(given).unwrap_or_else(PoisonError::into_inner),
                Some(None) => return None,
                Some(Some(left)) => {
                    let waited = self.ready.wait_timeout(given, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Rows> {
        let waker = context.waker().clone();
        let mut given = self.given();
        if let Some(rows) = given.rows.take() {
            return Poll::Ready(rows);
        }
        let before = given.waker.replace(waker);
        drop(given); // a waker may do anything when it is dropped
        drop(before);
        Poll::Pending
    }
}
