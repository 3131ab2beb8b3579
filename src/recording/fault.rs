//! Fault injection, for tests of the recovery.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Type of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device is destroyed during the run.
    Lost,
    /// The run's last submission takes about this long.
    Hang(Duration),
    /// One of the run's submissions is silently skipped.
    Stale,
    /// The first element of the result is NaN.
    NotFinite,
}

/// Faults injected into some runs of all engines that share this handle.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Orders>>);

#[derive(Debug, Default)]
struct Orders {
    /// Number of runs so far.
    runs: usize,
    by_run: BTreeMap<usize, Fault>,
    happened: Vec<Fault>,
    memory: Option<u64>,
    refused: usize,
    /// Paths below `shaders/`.
    refused_files: Vec<&'static str>,
    closed: bool,
    poses: bool,
}

impl Faults {
    /// Injects a fault into run `n` from now, 0 for the next.
    pub fn order(&self, n: usize, fault: Fault) {
        let mut orders = self.orders();
        let run = orders.runs + n;
        orders.by_run.insert(run, fault);
    }

    /// Limits every GPU to `bytes` bytes for tensors.
    pub fn limit_memory(&self, bytes: Option<u64>) {
        self.orders().memory = bytes;
    }

    /// Makes every compiler refuse the kernels of a file, by its path below `shaders/`.
    pub fn refuse(&self, file: &'static str) {
        self.orders().refused_files.push(file);
    }

    /// True if kernels of a file are refused.
    pub(crate) fn refuses(&self, file: &str) -> bool {
        self.orders().refused_files.contains(&file)
    }

    /// True if kernels of any file are refused.
    pub(crate) fn refuses_any(&self) -> bool {
        !self.orders().refused_files.is_empty()
    }

    /// Makes software adapters pose as hardware.
    pub fn pose(&self) {
        self.orders().poses = true;
    }

    /// True if software adapters pose as hardware.
    pub(crate) fn poses(&self) -> bool {
        self.orders().poses
    }

    /// Makes opening any GPU fail from now on, if `closed`.
    pub fn close(&self, closed: bool) {
        self.orders().closed = closed;
    }

    /// Faults that have occurred so far.
    pub fn happened(&self) -> Vec<Fault> {
        self.orders().happened.clone()
    }

    /// True if a fault has occurred.
    pub(crate) fn any_happened(&self) -> bool {
        !self.orders().happened.is_empty()
    }

    /// Counts a run; true if its result is to be spoiled with a NaN.
    pub(crate) fn spoils_next(&self) -> bool {
        self.next() == Some(Fault::NotFinite)
    }

    /// Number of allocations that were refused.
    pub fn refused(&self) -> usize {
        self.orders().refused
    }

    /// Counts a run and returns its fault, if any.
    pub(crate) fn next(&self) -> Option<Fault> {
        let mut orders = self.orders();
        let run = orders.runs;
        orders.runs += 1;
        let fault = orders.by_run.remove(&run)?;
        orders.happened.push(fault);
        Some(fault)
    }

    /// True if the limit allows `bytes` bytes in total.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let mut orders = self.orders();
        let room = orders.memory.is_none_or(|most| bytes <= most);
        orders.refused += usize::from(!room);
        room
    }

    /// True if opening a GPU fails.
    pub(crate) fn is_closed(&self) -> bool {
        self.orders().closed
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
