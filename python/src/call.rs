//! Calls without the GIL: other Python threads run meanwhile, and Ctrl-C cancels the work.

use crate::errors;
use jinabert::Error;
use pyo3::prelude::*;
use std::{
    mem,
    ops::ControlFlow,
    panic::resume_unwind,
    process,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Interval at which Python's signals are checked and progress is reported.
const TICK: Duration = Duration::from_millis(50);

/// Maximum wait for cancelled work; after it the call returns and the work goes on.
const PATIENCE: Duration = Duration::from_millis(800);

/// Threads of abandoned work, for [`settle`].
static LEFT: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Id of the first process that used threads and devices: its forks have neither.
static PROCESS: OnceLock<u32> = OnceLock::new();

/// Progress of an operation: its name, the amount done, and the total.
pub type Progress = (String, u64, u64);

/// State shared between the work and the thread that waits for it.
#[derive(Default)]
pub struct Watch {
    stop: AtomicBool,
    progress: Mutex<Option<Progress>>,
}

impl Watch {
    /// Reports progress; breaks if the work is cancelled.
    pub fn hear(&self, what: &str, done: u64, total: u64) -> ControlFlow<()> {
        *lock(&self.progress) = Some((what.to_owned(), done, total));
        self.go_on()
    }

    /// Breaks if the work is cancelled.
    pub fn go_on(&self) -> ControlFlow<()> {
        if self.stop.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Ignores poisoning: the values are valid even after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// True if this process is a fork of the first one.
pub fn forked() -> bool {
    *PROCESS.get_or_init(process::id) != process::id()
}

/// Returns an error in a fork, where a call would wait forever for threads that do not exist.
pub fn not_forked(py: Python<'_>) -> PyResult<()> {
    if !forked() {
        return Ok(());
    }
    let parent = PROCESS.get().copied().unwrap_or_default();
    let message = format!(
        "process {} is a fork of process {parent}, which had used jinabert already (opened an Embedder, \
         or set_num_threads); its threads and its device are not in the fork. Start processes with \
         `spawn` or `forkserver` (multiprocessing.set_start_method), or use jinabert only after the fork",
        process::id()
    );
    Err(errors::raise_as(py, "ForkedError", &message))
}

/// Runs short work on this thread.
pub fn briefly<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> PyResult<T> {
    py.detach(work).map_err(|error| errors::raise(py, error))
}

/// Runs work on a thread of its own, and raises the exceptions of Python's signal handlers.
/// `heard` is called with the progress.
pub fn watched<T: Send + 'static>(
    py: Python<'_>,
    heard: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Watch) -> Result<T, Error> + Send + 'static,
) -> PyResult<T> {
    let watch = Arc::new(Watch::default());
    let (sender, receiver) = mpsc::sync_channel(1);
    let worker = thread::Builder::new().name("jinabert".to_owned()).spawn({
        let watch = Arc::clone(&watch);
        // After Ctrl-C there is no receiver.
        move || drop(sender.send(work(&watch)))
    })?;
    let receiver = Mutex::new(receiver); // used for waiting while the GIL is released
    let wait = |time| py.detach(|| lock(&receiver).recv_timeout(time));
    loop {
        match wait(TICK) {
            Ok(result) => {
                // Joined, so that between two calls none of this library's threads exists.
                py.detach(|| drop(worker.join()));
                tell(heard, &watch)?;
                return result.map_err(|error| errors::raise(py, error));
            }
            Err(RecvTimeoutError::Disconnected) => {
                let panic = py.detach(|| worker.join()).expect_err("a thread that sent nothing");
                resume_unwind(panic)
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Err(raised) = py.check_signals().and_then(|()| tell(heard, &watch)) {
            watch.stop.store(true, Relaxed);
            // The work may take long between two checks of the watch.
            match wait(PATIENCE) {
                Err(RecvTimeoutError::Timeout) => lock(&LEFT).push(worker),
                _ => py.detach(|| drop(worker.join())),
            }
            return Err(raised);
        }
    }
}

fn tell(heard: Option<&Bound<'_, PyAny>>, watch: &Watch) -> PyResult<()> {
    let progress = lock(&watch.progress).take();
    match (heard, progress) {
        (Some(heard), Some(progress)) => heard.call1(progress).map(drop),
        _ => Ok(()),
    }
}

/// Waits for abandoned work: drivers must not be unloaded while it runs.
pub fn settle(py: Python<'_>) {
    if !forked() {
        let left = mem::take(&mut *lock(&LEFT));
        py.detach(|| left.into_iter().for_each(|worker| drop(worker.join())));
    }
}
