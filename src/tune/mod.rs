//! Auto-tuning: the fastest tier and tiles of a device for a model's sizes, found once by a short
//! search, kept on disk, and discarded when driver, kernels or sizes change.
//!
//! Every candidate is compared with the CPU reference before it may be chosen.  Without a search,
//! and for kernels that the search had no time for, the default tiles are used.

mod kept;
mod refused;
mod search;
mod speed;
mod store;
mod tuned_kernel;

use crate::{
    activation::Activation,
    error::Error,
    kernels::{Dtype, KernelConfig},
    model::Config,
};
pub use refused::History;
pub use search::{Found, Trial, Verdict};
use search::{Progress, search};
use serde::{Deserialize, Serialize};
pub use speed::{SHORT, Speed, Speeds, Subject, Workload, keep_speeds, measured, speeds};
use std::time::Duration;
pub use store::{Key, path};

/// Tuning policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tune {
    /// Use the default tier and tiles.
    Off,
    /// Use the result of an earlier search, if any.
    #[default]
    Known,
    /// Use an earlier result, else search for up to [`BUDGET`] plus compile time, if the result can
    /// be kept.  A search that ran out of time continues later, [`SEARCHES`] times in all.
    Search,
}

/// Time budget of an automatic search: hardly noticed once.
pub const BUDGET: Duration = Duration::from_secs(3);

/// Number of searches of a GPU, each for the kernels that earlier ones had no time for; a software
/// driver, whose candidates are slow and similar, gets one.
pub const SEARCHES: u32 = 3;

/// Sizes of a model that determine its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// D
    pub hidden: u32,
    /// F
    pub intermediate: u32,
    /// H
    pub heads: u32,
    /// Activation of the gate.
    pub activation: Activation,
}

impl Sizes {
    /// Sizes of a model.
    pub fn of(config: &Config) -> Self {
        let Config { intermediate, heads, activation, .. } = *config;
        // T5's heads together need not be as wide as the residual stream.
        let hidden = heads * config.head_width();
        Self { hidden, intermediate, heads, activation }
    }

    /// E
    pub fn head_width(&self) -> u32 {
        self.hidden / self.heads
    }
}

/// Storage of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Requested dtype.
    pub dtype: Dtype,
    /// True if the file stores matrices as f16.
    pub half_weights: bool,
}

/// Configuration for adapter number `index` of [`gpu::adapters`](crate::gpu::adapters), known or
/// found by a search if that is allowed.  After a failed search the default configuration is used.
pub fn kernel_config(index: usize, key: &Key, how: Tune) -> Option<KernelConfig> {
    if how == Tune::Off {
        return None;
    }
    let known = store::load(key);
    let most = if key.is_software() { 1 } else { SEARCHES };
    let done = known.as_ref().is_some_and(|known| known.complete || known.searches >= most);
    if done || how == Tune::Known || store::path(key).is_none() {
        return known.map(|known| known.config);
    }
    match &known {
        None => tracing::info!("fitting kernels to {}, once", key.adapter()),
        Some(_) => {
            tracing::info!("fitting kernels to {}: what there was no time for", key.adapter())
        }
    }
    let found = go_on(index, key, BUDGET, known, |_| {});
    let failed = |error: &Error| tracing::warn!("kernels could not be fitted: {error}");
    found.inspect_err(failed).ok().map(|found| found.config)
}

/// Configuration from an earlier search of an adapter, if any.
pub fn known(key: &Key) -> Option<KernelConfig> {
    store::load(key).map(|known| known.config)
}

/// Searches and stores the result, replacing an earlier one.
///
/// # Errors
/// Errors of the device.
pub fn renew(
    index: usize,
    key: &Key,
    budget: Duration,
    report: impl FnMut(&Trial),
) -> Result<Found, Error> {
    go_on(index, key, budget, None, report)
}

fn go_on(
    index: usize,
    key: &Key,
    budget: Duration,
    from: Option<Progress>,
    report: impl FnMut(&Trial),
) -> Result<Found, Error> {
    let keep = |progress: &Progress| store::save(key, progress);
    search(index, key, budget, from, keep, report)
}
