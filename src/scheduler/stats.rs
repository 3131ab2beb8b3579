//! Statistics of past batches: throughput, failures.

use std::time::{Duration, Instant};

/// Tokens and seconds of batches, as a moving average over the last ten or so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Throughput {
    tokens: f64,
    seconds: f64,
}

impl Throughput {
    /// Adds a batch with its time.
    pub(super) fn add(&mut self, tokens: usize, took: Duration) {
        const KEPT: f64 = 0.9;
        self.tokens = self.tokens * KEPT + tokens as f64;
        self.seconds = self.seconds * KEPT + took.as_secs_f64();
    }

    /// Predicted time of some tokens; zero before the first batch.
    pub(super) fn time(&self, tokens: usize) -> Duration {
        // NaN before the first batch.
        let seconds = tokens as f64 * (self.seconds / self.tokens);
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }
}

/// Consecutive batches at which the device and all remedies failed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Failures {
    count: u32,
    last: Option<Instant>,
}

impl Failures {
    /// Time for which they describe the device: a hung one fails about every two minutes.
    const WINDOW: Duration = Duration::from_secs(300);

    pub(super) fn add(&mut self, now: Instant) {
        *self = Self { count: self.count + 1, last: Some(now) };
    }

    pub(super) fn at(&self, now: Instant) -> u32 {
        let lately = self.last.is_some_and(|last| now.duration_since(last) < Self::WINDOW);
        if lately { self.count } else { 0 }
    }
}
