//! Compiled kernels of a device, and those being compiled.

use super::pipeline::{Failed, Pipeline};
use crate::recording::Program;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// Compiled kernels of a device, shared by the engines that run on it.
#[derive(Default)]
pub(super) struct Compiled {
    state: Mutex<State>,
    /// Signalled when a program is done, and when no recording waits any more.
    pub(super) changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    /// Results by address of the program; the entry keeps the program alive.
    pub(super) done: HashMap<usize, (Arc<Program>, Result<Pipeline, Failed>)>,
    /// Programs being compiled by some thread.
    pub(super) busy: HashSet<usize>,
    /// Number of recordings waiting for their programs; meanwhile nothing is compiled ahead.
    pub(super) urgent: usize,
}

impl Compiled {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}
