//! A handful of repeated timings, and when to stop repeating.

use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Statistics of repeated timings, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Median; of an even number of runs, the slower of the middle two.
    pub median: f64,
    /// Fastest run.
    pub min: f64,
    /// Slowest run.
    pub max: f64,
    /// Number of runs.
    pub runs: usize,
}

impl Spread {
    /// Statistics of at least one timing.
    pub fn of(samples: impl IntoIterator<Item = Duration>) -> Self {
        let times = samples.into_iter().map(|time| 1e3 * time.as_secs_f64());
        let mut sorted: Vec<f64> = times.collect();
        assert!(!sorted.is_empty(), "no timing");
        sorted.sort_by(f64::total_cmp);
        let runs = sorted.len();
        Self { median: sorted[runs / 2], min: sorted[0], max: sorted[runs - 1], runs }
    }

    /// Multiplies every timing, for example to get one dispatch of many.
    pub fn scaled(self, factor: f64) -> Self {
        let Self { median, min, max, runs } = self;
        Self { median: factor * median, min: factor * min, max: factor * max, runs }
    }

    /// Subtracts `ms` from every timing, but leaves at least 5 % of it.
    pub fn less(self, ms: f64) -> Self {
        let Self { median, min, max, runs } = self;
        let [median, min, max] = [median, min, max].map(|time| (time - ms).max(0.05 * time));
        Self { median, min, max, runs }
    }
}

/// Rate in 10⁹ a second, for `amount` in `ms` milliseconds; `None` if the clock did not move.
pub fn giga_per_s(amount: f64, ms: f64) -> Option<f64> {
    Some(1e-6 * amount / ms).filter(|rate| rate.is_finite())
}

/// Stopping rule: after `most` runs, or once `time` has passed and there were `least` runs.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Minimum number of runs.
    pub least: usize,
    /// Maximum number of runs.
    pub most: usize,
    /// Time after which no further run starts.
    pub time: Duration,
}

impl Limits {
    /// Repeats `run`, which returns its own duration.
    ///
    /// # Errors
    /// The first error that `run` returns.
    pub fn repeat<E>(self, mut run: impl FnMut() -> Result<Duration, E>) -> Result<Spread, E> {
        let start = Instant::now();
        let mut samples = Vec::new();
        while self.allow_more(samples.len(), start) {
            samples.push(run()?);
        }
        Ok(Spread::of(samples))
    }

    /// True if there may be another run, after `runs` since `start`.
    fn allow_more(self, runs: usize, start: Instant) -> bool {
        runs < self.least || runs < self.most && start.elapsed() < self.time
    }
}

/// Formats three significant digits, or the whole number.
pub fn digits(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v < 0.001 => format!("{value:.0e}"),
        v if v < 0.01 => format!("{value:.4}"),
        v if v < 1.0 => format!("{value:.3}"),
        v if v < 10.0 => format!("{value:.2}"),
        v if v < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(times: &[u64]) -> Spread {
        Spread::of(times.iter().map(|&ms| Duration::from_millis(ms)))
    }

    #[test]
    fn statistics_are_of_the_sorted_timings() {
        assert_eq!(ms(&[5, 1, 9]), Spread { median: 5.0, min: 1.0, max: 9.0, runs: 3 });
        assert_eq!(ms(&[4, 3, 1, 2]).median, 3.0);
        assert_eq!(ms(&[7]), Spread { median: 7.0, min: 7.0, max: 7.0, runs: 1 });
        assert_eq!(ms(&[2, 4, 6]).scaled(0.5), Spread { median: 2.0, min: 1.0, max: 3.0, runs: 3 });
        let less = ms(&[2, 4, 6]).less(1.0);
        assert_eq!((less.min, less.median, less.max), (1.0, 3.0, 5.0));
        assert!(ms(&[2]).less(100.0).median > 0.0);
        assert_eq!(giga_per_s(2e6, 4.0), Some(0.5));
        assert_eq!([giga_per_s(2e6, 0.0), giga_per_s(0.0, 0.0)], [None; 2]);
    }

    #[test]
    fn repetitions_end_within_the_limits() {
        let count = |least, most, time| {
            let limits = Limits { least, most, time: Duration::from_millis(time) };
            let run = || {
                std::thread::sleep(Duration::from_millis(1));
                Ok::<_, ()>(Duration::ZERO)
            };
            limits.repeat(run).expect("no failure").runs
        };
        assert_eq!(count(3, 50, 0), 3);
        assert_eq!(count(3, 5, 60_000), 5);
        assert_eq!(count(5, 2, 60_000), 5);
        let failed = Limits { least: 1, most: 1, time: Duration::ZERO }.repeat(|| Err("broken"));
        assert_eq!(failed, Err("broken"));
    }
}
