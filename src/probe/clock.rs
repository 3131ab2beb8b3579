use serde::{Deserialize, Serialize};
use std::fmt;

/// How times were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// By the device, at the beginning and the end of a pass.
    Timestamps,
    /// From submitting to the end of waiting; benchmarks take off what an empty submission takes.
    Wall,
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timestamps => "timestamps",
            Self::Wall => "wall clock",
        })
    }
}
