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

    /// Whether a device can run this tier.  Mesa's software OpenGL unrolls the tiled attention and
    /// then compiles it for minutes.
    pub fn suits(self, caps: &Caps) -> bool {
        self == Self::Naive || !(caps.gl && caps.software)
    }

    /// The fastest tier that suits a device.
    pub fn choose(caps: &Caps) -> Self {
        let mut fastest_first = Self::ALL.into_iter().rev();
        fastest_first.find(|tier| tier.suits(caps)).unwrap_or(Self::Naive)
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
