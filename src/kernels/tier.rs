use crate::recording::Caps;
use std::fmt;

/// Which of several versions of a kernel runs; chosen once, when an engine is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The shortest correct versions (`shaders/naive/`); on the CPU, the twins themselves.
    Naive,
    /// Tiled in workgroup memory and registers; on the CPU, blocked products on all cores.
    Tiled,
}

impl Tier {
    /// Every tier, slowest first.
    pub const ALL: [Self; 2] = [Self::Naive, Self::Tiled];

    /// The tier for a device.
    pub fn choose(_caps: &Caps) -> Self {
        Self::Tiled
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Naive => "naive",
            Self::Tiled => "tiled",
        })
    }
}
