//! The fastest tier and tiles of a device for a model's sizes: found once by a short search, kept
//! on disk, and forgotten when driver, kernels or sizes change.
//!
//! Every candidate is compared with the CPU twin before it may win.  Without a search, and for what
//! there was no time for, the usual tiles serve.

mod search;
mod store;

use crate::{
    error::Error,
    kernels::{Plan, linear_geglu::Activation},
    model::Config,
};
use search::search;
pub use search::{Found, Trial, Verdict};
use serde::{Deserialize, Serialize};
use std::time::Duration;
pub use store::{Key, path};

/// Whether kernels are fitted to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tune {
    /// The usual tier and tiles.
    Off,
    /// What an earlier search found, if there was one.
    #[default]
    Known,
    /// The same; otherwise search now, once, for up to [`BUDGET`], if the result can be kept.
    Search,
}

/// What a search without being asked may take: less than a person notices once.
pub const BUDGET: Duration = Duration::from_secs(3);

/// The sizes of a model that decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// D
    pub hidden: u32,
    /// F
    pub intermediate: u32,
    /// H
    pub heads: u32,
    /// Whether the gate is a ReLU, not a GELU.
    pub relu: bool,
}

impl Sizes {
    /// Those of a model.
    pub fn of(config: &Config) -> Self {
        let Config { hidden, intermediate, heads, activation, .. } = *config;
        Self { hidden, intermediate, heads, relu: activation == Activation::Relu }
    }

    /// E
    pub fn head_width(&self) -> u32 {
        self.hidden / self.heads
    }

    fn activation(&self) -> Activation {
        if self.relu { Activation::Relu } else { Activation::Gelu }
    }
}

/// The plan for adapter number `index` of [`gpu::adapters`](crate::gpu::adapters), if there is one
/// or one may be searched for.  A search that fails leaves the usual one.
pub fn plan(index: usize, key: &Key, how: Tune) -> Option<Plan> {
    if how == Tune::Off {
        return None;
    }
    let known = known(key);
    if known.is_some() || how == Tune::Known || store::path(key).is_none() {
        return known;
    }
    tracing::info!("fitting kernels to {}, once", key.adapter());
    let found = renew(index, key, BUDGET, |_| {});
    let failed = |error: &Error| tracing::warn!("kernels could not be fitted: {error}");
    found.inspect_err(failed).ok().map(|found| found.plan)
}

/// The plan that was found for an adapter, if one was.
pub fn known(key: &Key) -> Option<Plan> {
    store::load(key)
}

/// Searches and keeps what was found, whatever was known before.
///
/// # Errors
/// Those of the device.
pub fn renew(
    index: usize,
    key: &Key,
    budget: Duration,
    report: impl FnMut(&Trial),
) -> Result<Found, Error> {
    let found = search(index, key.dtype(), key.sizes(), budget, report)?;
    store::save(key, &found.plan);
    Ok(found)
}
