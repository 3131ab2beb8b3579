//! A handful of repeated timings, and when to stop repeating.

use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// What repeated timings say, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle one; of an even number, the slower of the two.
    pub median: f64,
    /// The fastest.
    pub min: f64,
    /// The slowest.
    pub max: f64,
    /// How many there were.
    pub runs: usize,
}

impl Spread {
    /// Of at least one timing.
    pub fn of(samples: impl IntoIterator<Item = Duration>) -> Self {
        let ms = |time: Duration| 1e3 * time.as_secs_f64();
        let mut sorted: Vec<f64> = samples.into_iter().map(ms).collect();
        assert!(!sorted.is_empty(), "no timing");
        sorted.sort_by(f64::total_cmp);
        let runs = sorted.len();
        Self { median: sorted[runs / 2], min: sorted[0], max: sorted[runs - 1], runs }
    }

    /// With every timing multiplied: one dispatch of many.
    pub fn scaled(self, factor: f64) -> Self {
        let Self { median, min, max, runs } = self;
        Self { median: factor * median, min: factor * min, max: factor * max, runs }
    }

    /// With `ms` less in every timing, as far as that leaves anything.
    pub fn less(self, ms: f64) -> Self {
        let less = |time: f64| (time - ms).max(0.05 * time);
        let Self { median, min, max, runs } = self;
        Self { median: less(median), min: less(min), max: less(max), runs }
    }
}

/// When to stop repeating: after `most` runs, or once `time` has passed and there were `least`.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Runs there must be.
    pub least: usize,
    /// Runs there may be.
    pub most: usize,
    /// How long to go on.
    pub time: Duration,
}

impl Limits {
    /// Repeats `run`, which says how long it took.
    ///
    /// # Errors
    /// The first that `run` returns.
    pub fn repeat<E>(self, mut run: impl FnMut() -> Result<Duration, E>) -> Result<Spread, E> {
        let (start, mut samples) = (Instant::now(), Vec::new());
        let more = |n: usize| n < self.least || n < self.most && start.elapsed() < self.time;
        while more(samples.len()) {
            samples.push(run()?);
        }
        Ok(Spread::of(samples))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(times: &[u64]) -> Spread {
        Spread::of(times.iter().map(|&ms| Duration::from_millis(ms)))
    }

    #[test]
    fn by_hand() {
        assert_eq!(ms(&[5, 1, 9]), Spread { median: 5.0, min: 1.0, max: 9.0, runs: 3 });
        assert_eq!(ms(&[4, 3, 1, 2]).median, 3.0);
        assert_eq!(ms(&[7]), Spread { median: 7.0, min: 7.0, max: 7.0, runs: 1 });
        assert_eq!(ms(&[2, 4, 6]).scaled(0.5), Spread { median: 2.0, min: 1.0, max: 3.0, runs: 3 });
        let less = ms(&[2, 4, 6]).less(1.0);
        assert_eq!((less.min, less.median, less.max), (1.0, 3.0, 5.0));
        assert!(ms(&[2]).less(100.0).median > 0.0);
    }

    #[test]
    fn repeating_ends() {
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
