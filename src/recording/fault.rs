//! Failures on order, for the tests of what follows them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// A way to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device is destroyed while the run is under way.
    Lost,
    /// The run's last submission takes about so long.
    Hang(Duration),
    /// One of the run's submissions is not carried out, and nothing says so.
    Stale,
    /// The first element of the result is not a number.
    NotFinite,
}

/// Failures that were ordered for some of the runs of all engines that share this handle.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Orders>>);

#[derive(Debug, Default)]
struct Orders {
    /// Runs so far.
    runs: usize,
    by_run: BTreeMap<usize, Fault>,
    happened: Vec<Fault>,
    memory: Option<u64>,
    refused: usize,
    closed: bool,
}

impl Faults {
    /// Orders a failure of run `n` from now, 0 for the next.
    pub fn order(&self, n: usize, fault: Fault) {
        let mut orders = self.orders();
        let run = orders.runs + n;
        orders.by_run.insert(run, fault);
    }

    /// Gives every GPU so many bytes for tensors.
    pub fn limit_memory(&self, bytes: Option<u64>) {
        self.orders().memory = bytes;
    }

    /// Whether no GPU can be opened from now on.
    pub fn close(&self, closed: bool) {
        self.orders().closed = closed;
    }

    /// What has failed so far.
    pub fn happened(&self) -> Vec<Fault> {
        self.orders().happened.clone()
    }

    /// How often there was no room.
    pub fn refused(&self) -> usize {
        self.orders().refused
    }

    /// Counts a run; its failure, if one was ordered.
    pub(crate) fn next(&self) -> Option<Fault> {
        let mut orders = self.orders();
        let run = orders.runs;
        orders.runs += 1;
        let fault = orders.by_run.remove(&run)?;
        orders.happened.push(fault);
        Some(fault)
    }

    /// Whether there is room for so many bytes in all.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let mut orders = self.orders();
        let room = orders.memory.is_none_or(|most| bytes <= most);
        orders.refused += usize::from(!room);
        room
    }

    /// Whether no GPU can be opened.
    pub(crate) fn is_closed(&self) -> bool {
        self.orders().closed
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
