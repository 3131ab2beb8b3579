use crate::recording::{Caps, Format};
use std::fmt;

/// Which of several versions of a kernel runs; chosen once, when an engine is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// On the CPU: the twins themselves, plain loops on one thread.
    Twin,
    /// On the CPU: blocked products and tiled attention on all cores.
    Blocked,
    /// On a GPU: the shortest correct versions (`shaders/naive/`).
    Naive,
    /// On a GPU: tiled in workgroup memory and registers.
    Tiled,
    /// On a GPU: matrices in textures, tiles in registers only, no barriers (`shaders/texture/`).
    Texture,
    /// The same, and the lanes of a subgroup, of this size on the whole device, load for each
    /// other.
    Subgroup(u32),
}

/// Subgroups in which sharing pays: those of software drivers.  On cards a broadcast costs a vector
/// instruction for each multiply-add that it feeds, and what is shared does not fit into registers
/// (`benches/isa`: a fifth of the instructions are multiply-adds then).
const SHARING: std::ops::RangeInclusive<u32> = 4..=8;

impl Tier {
    /// The tiers that a device can run, the plainest first.
    pub fn of(caps: &Caps) -> Vec<Self> {
        if caps.cpu {
            return vec![Self::Twin, Self::Blocked];
        }
        // Mesa's software OpenGL unrolls every other kernel and then compiles it for minutes.
        if caps.gl && caps.software {
            return vec![Self::Naive];
        }
        let mut tiers = vec![Self::Naive, Self::Tiled];
        if caps.textures {
            tiers.push(Self::Texture);
        }
        if let (true, Some((least, most))) = (caps.textures, caps.subgroup)
            && least == most
            && SHARING.contains(&least)
        {
            tiers.push(Self::Subgroup(least));
        }
        tiers
    }

    /// Whether a device can run this tier.
    pub fn suits(self, caps: &Caps) -> bool {
        Self::of(caps).contains(&self)
    }

    /// The tier that is usually the fastest on a device: in software drivers, loads from textures
    /// are many times cheaper than those from buffers and workgroup memory.
    pub fn choose(caps: &Caps) -> Self {
        let tiers = Self::of(caps);
        let tiled = tiers.iter().find(|tier| **tier == Self::Tiled && !caps.software);
        *tiled.or(tiers.last()).unwrap_or(&Self::Naive)
    }

    /// Invocations that work together without a barrier: 1, or the size of a subgroup.
    pub fn lanes(self) -> u32 {
        if let Self::Subgroup(lanes) = self { lanes } else { 1 }
    }

    /// How matrices are stored.
    pub fn format(self) -> Format {
        match self {
            Self::Texture | Self::Subgroup(_) => Format::Texture,
            _ => Format::F32,
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Twin => "twin",
            Self::Blocked => "blocked",
            Self::Naive => "naive",
            Self::Tiled => "tiled",
            Self::Texture => "texture",
            Self::Subgroup(_) => "subgroup",
        })
    }
}
