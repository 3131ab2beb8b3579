//! Shared model for many callers, threads or tasks.

use super::{
    EmbedFuture, Scheduler,
    embed_future::{Reading, SharedCall},
};
use crate::{
    embedder::{Embedded, Embedder, EncodeJob, EncodeOptions, Prompt, Vector},
    error::Error,
};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock, Weak},
};

/// Bytes of texts tokenised on the caller's thread of [`Queue::embed`], within half a millisecond.
const SMALL: usize = 8 << 10;

/// Texts tokenised before a reader checks whether the call was cancelled.
const GROUP: usize = 4096;

/// A model for many callers: simultaneous calls of threads and tasks share batches, and short calls
/// need not wait for long ones.
///
/// A handle: cheap to clone, `Send` and `Sync`.  Everything it computes is batched: texts with
/// [`Queue::embed`], any other job that the [`Queue::embedder`] prepares with [`Queue::submit`].
/// Dropping the last clone waits for the accepted calls.
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
/// In `async` code a [`EmbedFuture`] is a future that works with any runtime:
///
/// ```no_run
/// # async fn run(queue: jinabert::Queue) -> Result<(), jinabert::Error> {
/// let vectors = queue.embed(&["A blue cat"])?.await?;
/// # Ok(())
/// # }
/// ```
///
/// Long texts never block a task: more than 8 KiB of them are tokenised on threads of the queue.
#[derive(Clone)]
pub struct Queue(Arc<Inner>);

struct Inner {
    scheduler: Arc<Scheduler>,
    reading: Arc<Reading>,
    /// Threads that tokenise; none if the system has no thread to give.  Rayon's own are
    /// unsuitable: all of them may be waiting for calls.
    readers: OnceLock<Option<ThreadPool>>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = self.0.reading.plus(|| self.0.scheduler.calls());
        write!(f, "Queue({calls} calls on {})", self.embedder().device())
    }
}

impl Inner {
    fn readers(&self) -> Option<&ThreadPool> {
        let build = || {
            let builder = ThreadPoolBuilder::new().num_threads(rayon::current_num_threads());
            builder.thread_name(|n| format!("jinabert-reader-{n}")).build().ok()
        };
        self.readers.get_or_init(build).as_ref()
    }
}

/// Waits for the accepted calls: here for those being tokenised, in the scheduler for the others.
impl Drop for Inner {
    fn drop(&mut self) {
        self.reading.wait_for_none();
    }
}

impl Queue {
    /// Starts the thread that submits batches.
    ///
    /// # Errors
    /// [`Error::Memory`] if the system cannot start a thread.
    pub fn new(embedder: impl Into<Arc<Embedder>>) -> Result<Self, Error> {
        let scheduler = Scheduler::new(embedder.into(), |_| {});
        let scheduler = scheduler.map_err(|e| Error::Memory(format!("no thread to run: {e}")))?;
        let scheduler = Arc::new(scheduler);
        let reading = Arc::default();
        let readers = OnceLock::new();
        Ok(Self(Arc::new(Inner { scheduler, reading, readers })))
    }

    /// The model: prepares jobs for [`Queue::submit`].  What it computes itself is not batched with
    /// the queue's calls.
    pub fn embedder(&self) -> &Arc<Embedder> {
        self.0.scheduler.embedder()
    }

    /// Embeds texts.  Up to 8 KiB of them are tokenised here, within half a millisecond; more are
    /// copied and tokenised on threads of the queue.
    ///
    /// # Errors
    /// As [`Embedder::embed`].  Errors of the device are returned when waiting for the result, and
    /// so are those of texts that are not tokenised here.
    pub fn embed<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
    ) -> Result<EmbedFuture<Vec<Vector>>, Error> {
        let options = self.embedder().encode_options();
        let bytes: usize = texts.iter().map(|text| text.as_ref().len()).sum();
        let Some(readers) = (bytes > SMALL).then(|| self.0.readers()).flatten() else {
            return Ok(self.submit(self.embedder().jobs().texts(texts, options)?.map(vectors)));
        };
        // Checks that do not depend on the texts.
        self.embedder().jobs().texts::<&str>(&[], options)?;
        let texts: Vec<String> = texts.iter().map(|text| text.as_ref().to_owned()).collect();
        let call = SharedCall::new(Some(&self.0.reading));
        let pending = EmbedFuture::new(call.clone());
        let embedder = self.embedder().clone();
        let scheduler = self.scheduler();
        readers.spawn(move || read(&call, &embedder, &scheduler, &texts, options));
        Ok(pending)
    }

    /// Queues a job, made by [`Embedder::jobs`].
    pub fn submit<T: Send + 'static>(&self, job: EncodeJob<T>) -> EmbedFuture<T> {
        let call = SharedCall::new(None);
        let pending = EmbedFuture::new(call.clone());
        call.submit(&self.scheduler(), job);
        pending
    }

    fn scheduler(&self) -> Weak<Scheduler> {
        Arc::downgrade(&self.0.scheduler)
    }
}

fn vectors(all: Vec<Embedded>) -> Vec<Vector> {
    all.into_iter().map(|embedded| embedded.vector).collect()
}

/// Tokenises a call's texts and queues the call.
fn read(
    call: &Arc<SharedCall<Vec<Vector>>>,
    embedder: &Embedder,
    scheduler: &Weak<Scheduler>,
    texts: &[String],
    options: EncodeOptions,
) {
    let prepare = || {
        let mut tokenized = Vec::with_capacity(texts.len());
        for some in texts.chunks(GROUP) {
            if call.is_left() {
                return Ok(None);
            }
            let before = tokenized.len();
            let some = embedder.tokenization().texts(some, &Prompt::Auto, options);
            tokenized.extend(some.map_err(|error| error.moved(|n| before + n))?);
        }
        Ok(Some(embedder.jobs().tokenized(tokenized, options)?.map(vectors)))
    };
    match catch_unwind(AssertUnwindSafe(prepare)) {
        Ok(Ok(Some(prepared))) => call.submit(scheduler, prepared),
        Ok(Ok(None)) => {}
        Ok(Err(error)) => call.fail(Ok(error)),
        Err(panic) => call.fail(Err(panic)),
    }
}
