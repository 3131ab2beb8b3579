//! The compiled kernels of an engine, compiled on all cores, ahead of their first use if asked.

use super::{adapter::Gpu, pipeline::Pipeline, pipeline_cache::PipelineCache};
use crate::{
    error::Error,
    recording::{Program, Recording},
};
use std::{
    collections::{HashMap, HashSet},
    num::NonZero,
    panic,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

/// Pipelines, by the address of their program, which an entry keeps alive.
pub(super) struct Pipelines {
    compiler: Compiler,
    ready: HashMap<usize, Compiled>,
    ahead: Option<Ahead>,
}

type Compiled = (Arc<Program>, Pipeline);

impl Pipelines {
    pub(super) fn new(gpu: &Gpu, cache: Option<PipelineCache>) -> Self {
        let (device, alone) = (gpu.device.clone(), gpu.caps.gl);
        let compiler = Compiler { device, cache: cache.map(Arc::new), alone };
        Self { compiler, ready: HashMap::new(), ahead: None }
    }

    /// Begins to compile what will be needed; returns at once.
    pub(super) fn begin(&mut self, programs: Vec<Arc<Program>>) {
        if self.compiler.alone || self.ahead.is_some() {
            return;
        }
        let (compiler, programs) = (self.compiler.clone(), self.missing(&programs));
        let work = move || compiler.compile(programs);
        // Without a thread everything is compiled at its first use.
        self.ahead = thread::Builder::new().spawn(work).ok().map(|thread| Ahead(Some(thread)));
    }

    /// Compiles what a recording needs and is not there.
    pub(super) fn complete(&mut self, recording: &Recording) -> Result<(), Error> {
        if let Some(ahead) = self.ahead.take() {
            self.insert(ahead.finish()?);
        }
        let missing = self.missing(recording.commands.iter().map(|command| &command.program));
        if !missing.is_empty() {
            self.insert(self.compiler.compile(missing)?);
        }
        Ok(())
    }

    /// The pipeline of a program of a completed recording.
    pub(super) fn get(&self, program: &Arc<Program>) -> &Pipeline {
        &self.ready[&address(program)].1
    }

    fn missing<'a>(
        &self,
        programs: impl IntoIterator<Item = &'a Arc<Program>>,
    ) -> Vec<Arc<Program>> {
        let mut seen = HashSet::new();
        let new = |program: &&Arc<Program>| {
            !self.ready.contains_key(&address(program)) && seen.insert(address(program))
        };
        programs.into_iter().filter(new).cloned().collect()
    }

    fn insert(&mut self, compiled: Vec<Compiled>) {
        self.ready.extend(compiled.into_iter().map(|entry| (address(&entry.0), entry)));
    }
}

/// What identifies a program: the address of its `Arc`.
pub(super) fn address(program: &Arc<Program>) -> usize {
    Arc::as_ptr(program) as usize
}

/// What it takes to compile, on any thread.
#[derive(Clone)]
struct Compiler {
    device: wgpu::Device,
    cache: Option<Arc<PipelineCache>>,
    /// Whether only one thread at a time may use the device: OpenGL has one context, and waiting
    /// for it is a panic in wgpu.
    alone: bool,
}

impl Compiler {
    /// All or, of several errors, the first program's.
    fn compile(&self, programs: Vec<Arc<Program>>) -> Result<Vec<Compiled>, Error> {
        let cache = self.cache.as_ref().map(|on_disk| &on_disk.cache);
        let one = |program: Arc<Program>| {
            let pipeline = Pipeline::new(&self.device, &program, cache)?;
            Ok((program, pipeline))
        };
        let compiled: Vec<Result<Compiled, Error>> = match self.alone {
            true => programs.into_iter().map(one).collect(),
            false => on_all_cores(programs, one),
        };
        if let Some(cache) = &self.cache {
            cache.save();
        }
        compiled.into_iter().collect()
    }
}

/// Threads of our own, not rayon's: those may all be waiting for what is compiled here.
fn on_all_cores<T: Send, R: Send>(items: Vec<T>, one: impl Fn(T) -> R + Sync) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get).min(items.len());
    let (len, items) = (items.len(), Mutex::new(items.into_iter().enumerate()));
    let done = Mutex::new(Vec::with_capacity(len));
    let work = || {
        loop {
            let next = items.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((n, item)) = next else { break };
            let result = one(item);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((n, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..cores {
            // Fewer threads take longer.
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, result)| result).collect()
}

/// A thread that compiles; waited for, since a driver must not compile while its process ends.
struct Ahead(Option<JoinHandle<Result<Vec<Compiled>, Error>>>);

impl Ahead {
    fn finish(mut self) -> Result<Vec<Compiled>, Error> {
        let thread = self.0.take().expect("taken only here and when dropped");
        thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join(); // what it made, or why it failed, matters to nobody now
        }
    }
}
