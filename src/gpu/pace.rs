//! How much a device is asked to do at a time.
//!
//! Systems reset a GPU whose submission takes too long: Windows after 2 s, macOS after some hundred
//! milliseconds.  So a submission, and a dispatch, which cannot be divided, hold what the device
//! does in a tenth of a second, going by what it has done.

use std::time::Duration;

/// What a submission takes, by prediction, unless the caller wants it shorter.
pub const SUBMISSION: Duration = Duration::from_millis(100);

/// Operations per second before anything was measured: half of what the slowest card that anybody
/// runs this on (0.2 TFLOP/s) could do, so 10 GFLOP at first: 50 ms at its peak, 150 ms at a third.
const RATE: f64 = 1e11;

/// Never fewer: 1 GFLOP at a time.
const SLOWEST: f64 = 1e10;

/// A run with fewer operations tells how long a submission takes, not how fast the device is.
const LEAST: f64 = 1e9;

/// What is known of a device's speed.
pub(super) struct Pace {
    /// Operations per second.
    rate: f64,
    /// What a submission may take.
    slice: Duration,
    /// Operations at a time, where they are given.
    given: Option<f64>,
}

impl Pace {
    /// Of an unknown device.
    pub(super) fn new() -> Self {
        Self { rate: RATE, slice: SUBMISSION, given: None }
    }

    /// Submissions of so long at most, from now on.
    pub(super) fn cut(&mut self, slice: Duration) {
        self.slice = slice;
    }

    /// Operations at a time from now on, whatever the device does.
    pub(super) fn give(&mut self, flops: f64) {
        self.given = Some(flops);
    }

    /// Operations that one submission or dispatch should hold at most.
    pub(super) fn most(&self) -> f64 {
        self.given.unwrap_or(self.rate * self.slice.min(SUBMISSION).as_secs_f64())
    }

    /// Takes note of a run, from its first submission until its result was there: since it may
    /// have waited for others before it, this errs on the slow side, as does counting what
    /// attention skips on the fast side, by up to three either way.
    pub(super) fn learn(&mut self, flops: f64, time: Duration) {
        if flops >= LEAST {
            self.rate = (flops / time.as_secs_f64().max(1e-6)).max(SLOWEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pace_follows_the_device() {
        let mut pace = Pace::new();
        assert_eq!(pace.most(), 1e10);
        pace.learn(1e6, Duration::from_millis(5)); // too little to tell
        assert_eq!(pace.most(), 1e10);
        pace.learn(1e12, Duration::from_millis(100));
        assert_eq!(pace.most(), 1e12);
        pace.learn(1e10, Duration::from_secs(100));
        assert_eq!(pace.most(), 1e9);
        pace.cut(Duration::from_millis(4));
        assert_eq!(pace.most(), 4e7);
        pace.cut(Duration::from_secs(9)); // longer than any system would have it
        assert_eq!(pace.most(), 1e9);
        pace.give(5.0);
        assert_eq!(pace.most(), 5.0);
    }
}
