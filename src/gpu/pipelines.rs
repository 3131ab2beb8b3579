//! Compiled kernels: once per device, on all cores, ahead of their first use on request.

use super::{
    adapter::Gpu,
    compiled::Compiled,
    pipeline::{Failed, Pipeline},
    pipeline_cache::PipelineCache,
};
use crate::{
    error::Error,
    recording::{Program, Recording},
};
use std::{
    collections::{HashMap, HashSet},
    num::NonZero,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Identity of a program: the address of its `Arc`.
pub(super) fn address(program: &Arc<Program>) -> usize {
    Arc::as_ptr(program) as usize
}

/// Pipelines of one engine.
pub(super) struct Pipelines {
    compiler: Compiler,
    ready: HashMap<usize, Pipeline>,
    compiles_ahead: bool,
    ahead: Option<Ahead>,
}

impl Pipelines {
    pub(super) fn new(gpu: &Gpu, cache: Option<PipelineCache>) -> Self {
        let device = gpu.device.clone();
        let alone = gpu.caps.gl;
        let compiled = Arc::clone(&gpu.compiled);
        let compiler = Compiler { device, compiled, cache: cache.map(Arc::new), alone };
        let compiles_ahead = !alone && !gpu.caps.software;
        Self { compiler, ready: HashMap::new(), compiles_ahead, ahead: None }
    }

    /// Starts compiling programs in the background, unless the cores that would compile are the
    /// device: programs that no recording uses would delay the first result.
    pub(super) fn begin(&mut self, programs: Vec<Arc<Program>>) {
        if !self.compiles_ahead || self.ahead.is_some() {
            return;
        }
        self.ahead = Ahead::start(self.compiler.clone(), programs);
    }

    /// Compiles programs and waits for them.
    pub(super) fn compile(&self, programs: &[Arc<Program>]) {
        self.compiler.all(programs);
    }

    /// Compiles all programs of a recording.
    ///
    /// # Errors
    /// [`Error::Compile`] for the first program that the driver refuses.
    pub(super) fn complete(&mut self, recording: &Recording) -> Result<(), Error> {
        let mut seen = HashSet::new();
        let needed = recording.commands.iter().map(|command| &command.program);
        let missing: Vec<_> = needed
            .filter(|program| !self.ready.contains_key(&address(program)))
            .filter(|program| seen.insert(address(program)))
            .cloned()
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        for (program, pipeline) in missing.iter().zip(self.compiler.all(&missing)) {
            self.ready.insert(address(program), pipeline?);
        }
        Ok(())
    }

    /// Pipeline of a program of a completed recording.
    pub(super) fn get(&self, program: &Arc<Program>) -> &Pipeline {
        &self.ready[&address(program)]
    }
}

/// Compiler, usable from any thread.
#[derive(Clone)]
struct Compiler {
    device: wgpu::Device,
    compiled: Arc<Compiled>,
    cache: Option<Arc<PipelineCache>>,
    /// True if only one thread at a time may use the device: OpenGL has one context, and waiting
    /// for it panics in wgpu.
    alone: bool,
}

impl Compiler {
    /// Compiles missing programs, before any that are compiled ahead; returns the result of each
    /// program.
    fn all(&self, programs: &[Arc<Program>]) -> Vec<Result<Pipeline, Error>> {
        let known = self.compiled.lock().done.len();
        let _urgent = Urgent::new(&self.compiled);
        if self.alone {
            programs.iter().for_each(|program| self.one(program))
        } else {
            on_all_cores(programs, |program| self.one(program))
        }
        let results = programs.iter().map(|program| self.result(program)).collect();
        if self.compiled.lock().done.len() > known {
            self.save();
        }
        results
    }

    /// Result of a program that some thread has begun to compile.
    fn result(&self, program: &Arc<Program>) -> Result<Pipeline, Error> {
        let key = address(program);
        let mut state = self.compiled.lock();
        loop {
            match state.done.get(&key) {
                Some((_, Ok(pipeline))) => return Ok(pipeline.clone()),
                Some((_, Err(failed))) => {
                    let failed = failed.clone();
                    if !failed.lasting() {
                        state.done.remove(&key);
                    }
                    return Err(failed.into_error());
                }
                None if state.busy.contains(&key) => state = self.compiled.wait(state),
                // A transient failure, reported to another caller: try again.
                None => {
                    drop(state);
                    self.one(program);
                    state = self.compiled.lock();
                }
            }
        }
    }

    /// Compiles a program, unless it is done or in work by another thread.
    fn one(&self, program: &Arc<Program>) {
        let key = address(program);
        {
            let mut state = self.compiled.lock();
            if state.done.contains_key(&key) || !state.busy.insert(key) {
                return;
            }
        }
        // A panic in a driver's binding must not block waiting threads.
        let work = std::panic::AssertUnwindSafe(|| {
            let cache = self.cache.as_ref().map(|on_disk| &on_disk.cache);
            Pipeline::new(&self.device, program, cache)
        });
        let made = std::panic::catch_unwind(work).unwrap_or_else(|_| {
            let message = format!("shaders/{}: the compiler panicked", program.file);
            Err(Failed::Refused { kernel: program.name(), message })
        });
        let mut state = self.compiled.lock();
        state.busy.remove(&key);
        state.done.insert(key, (Arc::clone(program), made));
        self.compiled.changed.notify_all();
    }

    fn save(&self) {
        if let Some(cache) = &self.cache {
            cache.save();
        }
    }
}

/// Guard of a recording that waits for its programs.
struct Urgent<'a>(&'a Compiled);

impl<'a> Urgent<'a> {
    fn new(compiled: &'a Compiled) -> Self {
        compiled.lock().urgent += 1;
        Self(compiled)
    }
}

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.lock().urgent -= 1;
        self.0.changed.notify_all();
    }
}

/// Runs `one` on all cores, on own threads: rayon's may all be waiting for what is compiled here.
fn on_all_cores<T: Sync>(items: &[T], one: impl Fn(&T) + Sync) {
    let cores = thread::available_parallelism().map_or(1, NonZero::get).min(items.len());
    let left = Mutex::new(items.iter());
    let work = || {
        loop {
            let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(item) = next else { break };
            one(item);
        }
    };
    thread::scope(|scope| {
        for _ in 1..cores {
            // With fewer threads it only takes longer.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
}

/// Thread that compiles ahead.  It is joined on drop, since a driver must not compile while its
/// process ends.
struct Ahead {
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    compiled: Arc<Compiled>,
}

impl Ahead {
    /// Starts the thread; none if the system refuses: then programs compile on first use.
    fn start(compiler: Compiler, programs: Vec<Arc<Program>>) -> Option<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let compiled = Arc::clone(&compiler.compiled);
        let stopped = Arc::clone(&stop);
        let work = move || {
            on_all_cores(&programs, |program| {
                let mut state = compiler.compiled.lock();
                while state.urgent > 0 && !stopped.load(Ordering::Relaxed) {
                    state = compiler.compiled.wait(state);
                }
                drop(state);
                if !stopped.load(Ordering::Relaxed) {
                    compiler.one(program);
                }
            });
            compiler.save();
        };
        let thread = Some(thread::Builder::new().spawn(work).ok()?);
        Some(Self { thread, stop, compiled })
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Under the lock, so that no thread begins to sleep between its check and this signal.
        drop(self.compiled.lock());
        self.compiled.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its result is no longer needed
        }
    }
}
