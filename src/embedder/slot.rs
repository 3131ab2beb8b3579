//! The model on its device, and what is known of the device.

use super::Error;
use crate::{gpu::AdapterSummary, kernels::KernelVariant, model::Model, recording::Caps};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Time for which failed remedies and lack of memory are remembered.
pub(super) const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// Minimum batch size in tokens for memory shortage; below it, batches are only halved per failure.
const FEW_TOKENS: usize = 64;

/// The model on its device.
pub(super) struct ModelSlot {
    /// None if a failed device could not be opened again.
    pub(super) model: Option<Model>,
    /// Kernel variant of the last model.
    pub(super) variant: KernelVariant,
    /// Capabilities of the last model's device.
    pub(super) caps: Caps,
    /// Adapter of the last model; none for the CPU.
    pub(super) adapter: Option<AdapterSummary>,
    /// Number of times the model has been replaced.
    pub(super) generation: u64,
    /// Times at which the device was opened again.
    pub(super) rebuilt: Vec<Instant>,
    /// Time at which a lower tier gave non-finite results, too: the model itself causes them.
    pub(super) fallback_failed_at: Option<Instant>,
}

impl ModelSlot {
    pub(super) fn new(model: Model, adapter: Option<AdapterSummary>) -> Self {
        let variant = model.variant();
        let caps = model.caps().clone();
        let model = Some(model);
        let rebuilt = Vec::new();
        Self { model, variant, caps, adapter, generation: 0, rebuilt, fallback_failed_at: None }
    }

    /// Runs `work` on the model.
    pub(super) fn with<T>(
        &mut self,
        work: impl FnOnce(&mut Model) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match &mut self.model {
            Some(model) => work(model),
            None => Err(Error::Gpu("it was lost, and could not be re-opened".to_owned())),
        }
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.model.as_ref().map_or(0, Model::allocated_bytes)
    }

    pub(super) fn rebuilds(&self) -> usize {
        self.rebuilt.iter().filter(|at| at.elapsed() < FAILURE_WINDOW).count()
    }
}

/// Tokens per batch, temporarily reduced after lack of memory.
pub(super) struct BatchTokens(Mutex<(usize, Option<(usize, Instant)>)>);

impl BatchTokens {
    pub(super) fn new(most: usize) -> Self {
        Self(Mutex::new((most, None)))
    }

    pub(super) fn get(&self) -> usize {
        match *self.lock() {
            (most, Some((fewer, since))) if since.elapsed() < FAILURE_WINDOW => fewer.min(most),
            (most, _) => most,
        }
    }

    /// Reduces the batch size after lack of memory.
    pub(super) fn lower(&self, tokens: usize) {
        let fewer = tokens.max(FEW_TOKENS).min(self.get());
        self.lock().1 = Some((fewer, Instant::now()));
    }

    /// Limits the batch size to that of another device.
    pub(super) fn limit(&self, most: usize) {
        let mut all = self.lock();
        all.0 = all.0.min(most);
    }

    fn lock(&self) -> MutexGuard<'_, (usize, Option<(usize, Instant)>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Current device of the model, readable without waiting for the model lock.
pub(super) struct DeviceInfo {
    /// Human-readable device name.
    pub(super) device: String,
    /// Reason why another device than the requested one is used.
    pub(super) switch_reason: Option<String>,
    /// True for the CPU path.
    pub(super) cpu: bool,
    /// True if the adapter is software: the processor computes.
    pub(super) software: bool,
}
