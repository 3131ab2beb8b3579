use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// Source of measured times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// Device timestamps, at the beginning and the end of a pass.
    Timestamps,
    /// Wall time from submit to result; benchmarks subtract that of an empty submission.
    Wall,
}

impl Clock {
    /// Chooses timestamps, unless those of a run of the given wall time stood still or nearly so,
    /// as on some drivers.
    pub fn working(wall: Duration, timestamps: Duration) -> Self {
        // Below a millisecond, submitting may take a hundred times as long as the work.
        let nearly = wall > Duration::from_millis(1) && timestamps < wall / 100;
        if timestamps.is_zero() || nearly { Self::Wall } else { Self::Timestamps }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timestamps => "timestamps",
            Self::Wall => "wall clock",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_that_stand_still_are_no_clock() {
        for (wall_us, ticks_us, clock) in [
            (500, 0, Clock::Wall),
            (500, 1, Clock::Timestamps),
            (5_000, 0, Clock::Wall),
            (5_000, 49, Clock::Wall),
            (5_000, 50, Clock::Timestamps),
        ] {
            let [wall, ticks] = [wall_us, ticks_us].map(Duration::from_micros);
            assert_eq!(Clock::working(wall, ticks), clock, "{ticks:?} of {wall:?}");
        }
    }
}
