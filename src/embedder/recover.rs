//! Recovery from device failures.
//!
//! Failed texts and tokens are retried, as far as the failure and the options allow it:
//!
//! * out of memory: in two halves, down to single texts;
//! * kernel refused by the driver's compiler: with simpler kernels; the refusal is remembered;
//! * result not finite: on a lower tier of kernels, or in f32 instead of f16;
//! * device lost, hung or work left out: on the same device, opened again;
//! * on the CPU, if [`Options::fallback`] allows it.
//!
//! A successful remedy stays in effect.  If all fail, the caller gets the last error, and the next
//! call finds the embedder as this call did.

use super::{
    Error, Options,
    load::{self, Loaded},
    runner::Runner,
    slot::{FAILURE_WINDOW, ModelSlot},
};
use crate::{
    device::Device,
    gpu::{self, AdapterSummary},
    kernels::KernelVariant,
    model::Model,
    tune::{History, Tune},
};
use std::{fmt, time::Instant};

/// Maximum number of times that a device is opened again within [`FAILURE_WINDOW`]; one that fails
/// more often is broken, and an error is faster than opening it.
const REBUILDS: usize = 3;

#[derive(Clone, Copy, PartialEq)]
enum Remedy {
    /// Open the same device again.
    Rebuild,
    /// Use simpler kernels, or a wider dtype.
    Lower(KernelVariant),
    /// Use the CPU path.
    Cpu,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rebuild => f.write_str("the device is re-opened"),
            Self::Lower(variant) => write!(f, "{variant} kernels are tried"),
            Self::Cpu => f.write_str("the CPU takes over"),
        }
    }
}

impl Runner {
    /// Runs `work`, and retries it as described in the module.
    pub(super) fn attempt<T: Send>(
        &self,
        work: impl FnMut(&mut Model) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        self.off_pool(|slot| self.run_in(slot, work))?
    }

    /// As [`Runner::attempt`], for work that failed with the model of some generation.
    pub(super) fn retry<T: Send>(
        &self,
        generation: u64,
        error: Error,
        work: impl FnMut(&mut Model) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        self.off_pool(|slot| {
            if slot.generation == generation {
                self.try_remedies(slot, error, work)
            } else {
                // Another failed call has already replaced the model.
                self.run_in(slot, work)
            }
        })?
    }

    fn run_in<T>(
        &self,
        slot: &mut ModelSlot,
        mut work: impl FnMut(&mut Model) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match slot.with(&mut work) {
            Err(error) if error.is_of_device() => self.try_remedies(slot, error, work),
            result => result,
        }
    }

    fn try_remedies<T>(
        &self,
        slot: &mut ModelSlot,
        mut error: Error,
        mut work: impl FnMut(&mut Model) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut variant = slot.variant;
        for remedy in self.remedies(slot, &error) {
            tracing::warn!("{error}; {remedy}");
            if let (Error::Compile { .. }, Some(adapter)) = (&error, &slot.adapter) {
                self.remember_refusal(adapter, variant, &error);
            }
            if let Remedy::Lower(lower) = remedy {
                variant = lower;
            }
            if remedy == Remedy::Rebuild {
                gpu::forget_adapters();
                self.remember_loss(slot);
                slot.rebuilt.retain(|at| at.elapsed() < FAILURE_WINDOW);
                slot.rebuilt.push(Instant::now());
                // Frees the memory for the new model.
                slot.model = None;
                slot.generation += 1;
            }
            let mut loaded = match self.reopen(slot, remedy) {
                Ok(loaded) => loaded,
                Err(failed) => {
                    tracing::warn!("{failed}");
                    continue;
                }
            };
            match work(&mut loaded.model) {
                Err(failed) if failed.is_of_device() => {
                    if matches!((&failed, remedy), (Error::NotFinite(_), Remedy::Lower(_))) {
                        slot.fallback_failed_at = Some(Instant::now());
                    }
                    error = failed;
                    // The model of the device is gone; other remedies were spare attempts.
                    if remedy == Remedy::Rebuild {
                        self.replace_model(slot, loaded);
                    }
                }
                result => {
                    loaded.switch_reason = match remedy {
                        Remedy::Cpu => Some(error.to_string()),
                        _ => self.device_info().switch_reason.clone(),
                    };
                    self.replace_model(slot, loaded);
                    return result;
                }
            }
        }
        Err(error)
    }

    /// Shortens submissions to the device, here and in later processes.
    fn remember_loss(&self, slot: &ModelSlot) {
        if self.options.injected().any_happened() {
            return;
        }
        slot.adapter.iter().for_each(History::add_loss);
    }

    /// Stores a compiler's refusal for later processes, unless it was an injected fault.
    fn remember_refusal(&self, adapter: &AdapterSummary, variant: KernelVariant, error: &Error) {
        if self.options.injected().refuses_any() {
            return;
        }
        History::add_refusal(adapter, variant, &error.to_string());
    }

    fn may_reopen(&self, slot: &ModelSlot) -> bool {
        let ours = !slot.caps.cpu && self.options.gpu.is_none();
        ours && slot.rebuilds() < REBUILDS
    }

    fn remedies(&self, slot: &ModelSlot, error: &Error) -> Vec<Remedy> {
        let caps = &slot.caps;
        let mut remedies = Vec::new();
        match error {
            Error::NotFinite(_)
                if slot.fallback_failed_at.is_some_and(|at| at.elapsed() < FAILURE_WINDOW) =>
            {
                return remedies;
            }
            Error::NotFinite(_) => {
                // Widening f16 weights to f32 is exact: the numbers stay the same.
                let variant = KernelVariant { half_weights: false, ..slot.variant };
                remedies.extend(variant.lower(caps).map(Remedy::Lower));
            }
            // Opening it again would not help: it would refuse the same kernel.
            Error::Compile { .. } => {
                remedies.extend(slot.variant.all_lower(caps).map(Remedy::Lower));
            }
            // A device that is lost repeatedly is not worth the wait.
            Error::Gpu(_) if self.may_reopen(slot) => remedies.push(Remedy::Rebuild),
            _ => {}
        }
        if !caps.cpu && self.options.falls_back() {
            remedies.push(Remedy::Cpu);
        }
        remedies
    }

    fn reopen(&self, slot: &ModelSlot, remedy: Remedy) -> Result<Loaded, Error> {
        let variant = match remedy {
            Remedy::Lower(variant) => variant,
            _ => slot.variant,
        };
        let widen = remedy != Remedy::Cpu && !variant.half_weights;
        let as_before = Options {
            tier: Some(variant.tier),
            dtype: variant.dtype,
            max_submission_time: match remedy {
                Remedy::Rebuild => load::cautious(self.options.max_submission_time),
                _ => self.options.max_submission_time,
            },
            tune: if self.options.tune == Tune::Off { Tune::Off } else { Tune::Known },
            ..self.options.clone()
        };
        let options = match remedy {
            Remedy::Cpu => as_before.on_cpu(),
            // Simpler CPU kernels, even if the options name a device that the CPU replaced.
            _ if slot.caps.cpu => Options { tier: Some(variant.tier), ..as_before.on_cpu() },
            _ => as_before,
        };
        let loaded = load::load(&self.files, &options, &self.config, widen)?;
        if *loaded.model.config() != self.config {
            let what = "its files are not what they were when it was opened";
            return Err(Error::Model(what.to_owned()));
        }
        if let (Remedy::Rebuild, Device::Index(index)) = (remedy, self.options.device)
            && loaded.adapter.as_ref().map(ToString::to_string)
                != slot.adapter.as_ref().map(ToString::to_string)
        {
            let needs = format!("adapter {index} is another now: {}", loaded.device);
            return Err(Error::NoGpu { needs });
        }
        let most = loaded.model.max_tokens();
        if most >= self.limit {
            Ok(loaded)
        } else {
            let limit = self.limit;
            Err(Error::Memory(format!("{most} tokens at a time, texts may have {limit}")))
        }
    }

    /// Replaces the model.
    fn replace_model(&self, slot: &mut ModelSlot, loaded: Loaded) {
        tracing::info!("device: {}, {} kernels", loaded.device, loaded.model.variant());
        let (new, device_info, batch_tokens) = loaded.into_parts(&self.options);
        self.batch_tokens.limit(batch_tokens);
        *self.device_info() = device_info;
        let rebuilt = std::mem::take(&mut slot.rebuilt);
        *slot = ModelSlot { generation: slot.generation + 1, rebuilt, ..new };
    }
}
