//! Size of the submissions to a device.
//!
//! Systems reset a GPU whose submission takes too long: Windows after 2 s, macOS after some hundred
//! milliseconds.  So a submission, and a dispatch, which cannot be split, has the work of a tenth
//! of a second, predicted from earlier submissions.  Products, attention and memory-bound kernels
//! have separate rates: a compiler that spills in one may not spill in another.  A software driver,
//! which no watchdog resets, has dispatches four times as long: at the end of each one, cores wait
//! for the last.

use crate::recording::{Command, DispatchLimits, KernelId};
use std::time::{Duration, Instant};

/// Maximum predicted time of a submission, unless the caller sets a shorter one.
pub const SUBMISSION: Duration = Duration::from_millis(100);

/// Maximum predicted time of a submission to a software driver, likewise.
const SOFTWARE: Duration = Duration::from_millis(400);

/// Operations per second before any measurement: 1 GFLOP at first, 100 ms on the slowest GPU in
/// use.  On a faster one the rate doubles with each submission.
const RATE: f64 = 1e10;

/// Minimum rate: 0.1 GFLOP at a time.
const SLOWEST: f64 = 1e9;

/// Maximum growth of a rate per observation: the first submissions may not be typical.
const GROWTH: f64 = 2.0;

/// Minimum operations of an observation: a smaller submission measures overhead, not speed.
const LEAST: f64 = 1e8;

/// Operations of each class in a submission.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Work([f64; 3]);

/// Positions in [`Work`].
const PRODUCT: usize = 0;
const ATTENTION: usize = 1;
const MEMORY: usize = 2;

fn class(command: &Command) -> usize {
    match command.program.kernel {
        KernelId::Linear | KernelId::LinearGeglu => PRODUCT,
        KernelId::Attention => ATTENTION,
        _ => MEMORY,
    }
}

impl Work {
    pub(super) fn of(commands: &[Command]) -> Self {
        let mut work = Self::default();
        commands.iter().for_each(|command| work.0[class(command)] += command.flops);
        work
    }

    /// Sum of the operations of several submissions.
    pub(super) fn sum(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().fold(Self::default(), |sum, one| {
            Self(std::array::from_fn(|class| sum.0[class] + one.0[class]))
        })
    }
}

/// Measured speed of a device, and the limits derived from it.
pub(super) struct SubmissionBudget {
    /// Operations per second of each class.
    rates: [f64; 3],
    /// Maximum time of a submission.
    slice: Duration,
    /// Maximum time of a submission without a caller's limit.
    longest: Duration,
    /// Fixed operations per submission, for tests.
    given: Option<f64>,
    /// End time of the last submission, if it was observed.
    ended: Option<Instant>,
}

impl SubmissionBudget {
    /// Creates the budget of an unknown device.
    pub(super) fn new(software: bool) -> Self {
        let longest = if software { SOFTWARE } else { SUBMISSION };
        Self { rates: [RATE; 3], slice: longest, longest, given: None, ended: None }
    }

    /// Sets the maximum time of a submission; from [`SUBMISSION`] up, the device's own maximum.
    pub(super) fn limit_time(&mut self, slice: Duration) {
        self.slice = if slice < SUBMISSION { slice } else { self.longest };
    }

    /// Sets fixed operations per submission, regardless of the device's speed.
    pub(super) fn fix_flops(&mut self, flops: f64) {
        self.given = Some(flops);
    }

    fn most(&self, class: usize) -> f64 {
        self.given.unwrap_or(self.rates[class] * self.slice.as_secs_f64())
    }

    /// Maximum operations per dispatch.
    pub(super) fn limits(&self) -> DispatchLimits {
        DispatchLimits { product: self.most(PRODUCT), attention: self.most(ATTENTION) }
    }

    /// Share of a submission used by a dispatch.
    pub(super) fn share(&self, command: &Command) -> f64 {
        command.flops / self.most(class(command))
    }

    /// Observes the end, now, of one or more submissions, submitted at a given time; `waited` is
    /// false if they may have ended earlier.
    pub(super) fn observe(&mut self, work: Work, submitted: Instant, waited: bool) {
        let now = Instant::now();
        let began = self.ended.map_or(submitted, |ended| ended.max(submitted));
        self.ended = waited.then_some(now);
        if waited {
            self.learn(work, now.saturating_duration_since(began));
        }
    }

    /// Learns from the time of some work.  Waiting for earlier work lowers the rate, and counting
    /// keys that attention skips raises it, each by a factor of up to three.
    fn learn(&mut self, Work(work): Work, time: Duration) {
        let predicted: [f64; 3] = std::array::from_fn(|class| work[class] / self.rates[class]);
        let total: f64 = predicted.iter().sum();
        let faster = total / time.as_secs_f64().max(1e-6);
        if total <= 0.0 || faster < 1.0 && work.iter().sum::<f64>() < LEAST {
            return;
        }
        for (rate, predicted) in self.rates.iter_mut().zip(predicted) {
            // Weighted by this class's share of the time.
            let change = faster.min(GROWTH).powf(predicted / total);
            *rate = (*rate * change).max(SLOWEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn products(flops: f64) -> Work {
        Work([flops, 0.0, 0.0])
    }

    #[test]
    fn budget_follows_the_device() {
        let mut budget = SubmissionBudget::new(false);
        let most = |budget: &SubmissionBudget| budget.limits().product;
        assert_eq!(most(&budget), 1e9);
        budget.learn(products(1e6), 5 * MS); // too small to measure speed
        assert_eq!(most(&budget), 1e9);
        budget.learn(products(1e9), MS);
        assert_eq!(most(&budget), 2e9, "twice as much at a time");
        (0..20).for_each(|_| budget.learn(products(1e12), 100 * MS));
        assert!((most(&budget) / 1e12 - 1.0).abs() < 1e-9, "{}", most(&budget));
        budget.learn(products(1e10), 100_000 * MS);
        assert_eq!(most(&budget), 1e8, "the slowest at once");
        budget.limit_time(4 * MS);
        assert_eq!(most(&budget), 4e6);
        budget.limit_time(9000 * MS); // longer than any system allows
        assert_eq!(most(&budget), 1e8);
        let mut software = SubmissionBudget::new(true);
        assert_eq!(most(&software), 4e9);
        software.limit_time(4 * MS);
        assert_eq!(most(&software), 4e7);
        software.limit_time(SUBMISSION);
        assert_eq!(most(&software), 4e9);
        budget.fix_flops(5.0);
        assert_eq!((budget.limits().product, budget.limits().attention), (5.0, 5.0));
    }

    #[test]
    fn classes_have_rates_of_their_own() {
        let mut budget = SubmissionBudget::new(false);
        (0..20).for_each(|_| budget.learn(products(1e11), 100 * MS));
        (0..20).for_each(|_| budget.learn(Work([0.0, 1e9, 0.0]), 500 * MS));
        let DispatchLimits { product, attention } = budget.limits();
        assert!((product / 1e11 - 1.0).abs() < 1e-9, "{product}");
        assert!((attention / 2e8 - 1.0).abs() < 1e-9, "{attention}");
        // In a mixed submission that takes longer than predicted, attention took most of the time.
        budget.learn(Work([1e9, 1e9, 0.0]), 1000 * MS);
        let slower = budget.limits();
        assert!(slower.attention < 0.6 * attention, "{slower:?}");
        assert!(slower.product > 0.98 * product, "{slower:?}");
    }

    #[test]
    fn only_what_was_waited_for_is_timed() {
        let mut budget = SubmissionBudget::new(false);
        let long_ago = Instant::now() - 1000 * MS;
        budget.observe(products(1e9), long_ago, false); // it may have ended long ago
        assert_eq!(budget.limits().product, 1e9);
        budget.observe(products(1e9), long_ago, true);
        let slow = budget.limits().product;
        assert!((0.9e8..1.1e8).contains(&slow), "{slow}");
        // Submitted at the same time, it began when the one before it ended, just now.
        budget.observe(products(1e9), long_ago, true);
        assert_eq!(budget.limits().product, 2.0 * slow);
    }
}
