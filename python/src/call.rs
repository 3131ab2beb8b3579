//! Work without the interpreter: threads of Python run meanwhile, and Ctrl-C ends it.

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

/// How often Python's signals are looked at, and progress is told.
const TICK: Duration = Duration::from_millis(50);

/// How long work that was told to stop is waited for before Python goes on without it.
const PATIENCE: Duration = Duration::from_millis(800);

/// Work that was left behind, for [`settle`].
static LEFT: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// The process in which threads and devices were first asked for: its forks have none.
static PROCESS: OnceLock<u32> = OnceLock::new();

/// What is done of something: its name, how much, and how much there is.
pub type Progress = (String, u64, u64);

/// Between work and who waits for it.
#[derive(Default)]
pub struct Watch {
    stop: AtomicBool,
    progress: Mutex<Option<Progress>>,
}

impl Watch {
    /// Tells how far the work has come; whether it is to go on.
    pub fn hear(&self, what: &str, done: u64, total: u64) -> ControlFlow<()> {
        *lock(&self.progress) = Some((what.to_owned(), done, total));
        self.go_on()
    }

    /// Whether the work is to go on.
    pub fn go_on(&self) -> ControlFlow<()> {
        match self.stop.load(Relaxed) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// A panic while it was held leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this process is a fork of the one that began.
pub fn forked() -> bool {
    *PROCESS.get_or_init(process::id) != process::id()
}

/// Refuses what would wait forever for threads that a fork does not have.
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

/// Does it on this thread: for what takes no time.
pub fn briefly<T: Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> PyResult<T> {
    py.detach(work).map_err(|error| errors::raise(py, error))
}

/// Does it on a thread of its own, and raises what Python's signal handlers raise.  `heard` is
/// called with how far it has come.
pub fn watched<T: Send + 'static>(
    py: Python<'_>,
    heard: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Watch) -> Result<T, Error> + Send + 'static,
) -> PyResult<T> {
    let watch = Arc::new(Watch::default());
    let (sender, receiver) = mpsc::sync_channel(1);
    let worker = thread::Builder::new().name("jinabert".to_owned()).spawn({
        let watch = Arc::clone(&watch);
        // Nobody receives after Ctrl-C.
        move || drop(sender.send(work(&watch)))
    })?;
    let receiver = Mutex::new(receiver); // to be waited on while the interpreter is elsewhere
    let wait = |time| py.detach(|| lock(&receiver).recv_timeout(time));
    loop {
        match wait(TICK) {
            Ok(result) => {
                // Not left to end later: who counts threads between two calls finds none of ours.
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
            // What it does between two looks at the watch may take long.
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

/// Waits for work that was left behind: drivers must not be unloaded under it.
pub fn settle(py: Python<'_>) {
    if !forked() {
        let left = mem::take(&mut *lock(&LEFT));
        py.detach(|| left.into_iter().for_each(|worker| drop(worker.join())));
    }
}
