use crate::recording::{Caps, Format};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which of several versions of a kernel runs; chosen once, when an engine is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// As [`Tier::Tiled`], but products in matrices of f16 that subgroups multiply in hardware
    /// (`shaders/matrix/`).  Never chosen unasked: operands are rounded, and wgpu calls it
    /// experimental.
    Matrix {
        /// Rows and columns of a matrix.
        size: u32,
        /// Invocations in a subgroup.
        lanes: u32,
    },
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
        if let Some((size, lanes)) = caps.matrix {
            tiers.push(Self::Matrix { size, lanes });
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
        let tiers = Self::of(&Caps { matrix: None, ..caps.clone() });
        let tiled = tiers.iter().find(|tier| **tier == Self::Tiled && !caps.software);
        *tiled.or(tiers.last()).unwrap_or(&Self::Naive)
    }

    /// Whether it has kernels that store f16.
    fn halves(self) -> bool {
        matches!(self, Self::Tiled | Self::Texture | Self::Subgroup(_) | Self::Matrix { .. })
    }

    /// Invocations that work together without a barrier: 1, or the size of a subgroup.
    pub fn lanes(self) -> u32 {
        if let Self::Subgroup(lanes) = self { lanes } else { 1 }
    }

    /// How matrices of f32 are stored.
    pub fn format(self) -> Format {
        match self {
            Self::Texture | Self::Subgroup(_) => Format::Texture,
            _ => Format::F32,
        }
    }
}

/// How weights and wide activations are stored; arithmetic is f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32-bit floats throughout; f16 and bf16 weights are widened when they load.
    #[default]
    F32,
    /// 16-bit floats for the matrices of products, the word embeddings and, in buffers, for q, k,
    /// v, context and the MLP's intermediate.  The residual stream stays f32.
    F16,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        })
    }
}

/// Which kernels run, on matrices stored how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// Which of several texts of a kernel.
    pub tier: Tier,
    /// How weights and wide activations are stored.
    pub dtype: Dtype,
}

impl From<Tier> for Version {
    fn from(tier: Tier) -> Self {
        Self { tier, dtype: Dtype::F32 }
    }
}

impl Version {
    /// The versions that a device can run: every tier with f32, then those with f16.
    pub fn of(caps: &Caps) -> Vec<Self> {
        let tiers = Tier::of(caps);
        let half = tiers.iter().filter(|tier| tier.halves() && caps.half);
        let half = half.map(|&tier| Self { tier, dtype: Dtype::F16 });
        tiers.iter().map(|&tier| tier.into()).chain(half).collect()
    }

    /// The next that is plainer or more exact: f32 where this is f16, else the tier before it.
    pub fn lower(self, caps: &Caps) -> Option<Self> {
        if self.half() {
            return Some(self.tier.into());
        }
        let tiers = Tier::of(caps);
        let place = tiers.iter().position(|&tier| tier == self.tier)?;
        Some(Self { tier: *tiers.get(place.checked_sub(1)?)?, dtype: Dtype::F32 })
    }

    /// Whether a device can run this version.
    pub fn suits(self, caps: &Caps) -> bool {
        Self::of(caps).contains(&self)
    }

    /// The residual stream, and the sums that LayerNorm reads.
    pub fn stream(self) -> Format {
        self.tier.format()
    }

    /// What only one product or attention reads: q, k, v, context, the MLP's intermediate.
    pub fn wide(self) -> Format {
        match self.tier.format() {
            Format::F32 if self.half() => Format::F16,
            format => format,
        }
    }

    /// The matrix of a product.
    pub fn weights(self) -> Format {
        match self.tier.format() {
            Format::F32 if self.half() => Format::F16,
            Format::Texture if self.half() => Format::Texture16,
            format => format,
        }
    }

    /// The word embeddings, a buffer in every tier.
    pub fn table(self) -> Format {
        if self.half() { Format::F16 } else { Format::F32 }
    }

    fn half(self) -> bool {
        self.dtype == Dtype::F16 && self.tier.halves()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dtype {
            Dtype::F32 => write!(f, "{}", self.tier),
            Dtype::F16 => write!(f, "{} f16", self.tier),
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
            Self::Matrix { .. } => "matrix",
        })
    }
}
