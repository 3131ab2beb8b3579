use crate::recording::{Caps, Format};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Tier of kernels, chosen once when an engine is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// CPU: reference implementations, plain loops on one thread.
    Reference,
    /// CPU: blocked products and tiled attention on all cores.
    Blocked,
    /// GPU: the shortest correct kernels (`shaders/naive/`).
    Naive,
    /// GPU: tiles in workgroup memory and registers.
    Tiled,
    /// GPU: matrices in textures, tiles in registers only, no barriers (`shaders/texture/`).
    Texture,
    /// As [`Tier::Texture`], with loads shared by the lanes of a subgroup; its size must be the
    /// same on the whole device.
    Subgroup(u32),
    /// As [`Tier::Tiled`], but products use subgroup matrices of f16, multiplied in hardware
    /// (`shaders/matrix/`).  Never chosen by default: operands are rounded, and wgpu calls the
    /// feature experimental.
    Matrix {
        /// Rows and columns of a subgroup matrix.
        size: u32,
        /// Invocations in a subgroup.
        lanes: u32,
    },
}

/// Subgroup sizes for which sharing loads pays: those of software drivers.  On GPUs a broadcast
/// costs a vector instruction per multiply-add, and the shared values do not fit into registers
/// (`benches/isa`: only a fifth of the instructions are multiply-adds then).
const SHARING: std::ops::RangeInclusive<u32> = 4..=8;

/// PCI vendor id of Arm, whose Mali GPUs have no dedicated workgroup memory and few registers:
/// every tiled kernel spills there (`benches/isa`), but products of 2 by 8 from textures do not.
pub(super) const ARM: u32 = 0x13b5;

/// PCI vendor id of Intel.
pub(super) const INTEL: u32 = 0x8086;

impl Tier {
    /// Present name of a tier that may be given by a former one: `reference` was `twin`.
    pub(crate) fn current_name(name: &str) -> &str {
        if name == "twin" { "reference" } else { name }
    }

    /// Tiers that a device can run, simplest first.
    pub fn of(caps: &Caps) -> Vec<Self> {
        if caps.cpu {
            return vec![Self::Reference, Self::Blocked];
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

    /// True if a device can run this tier.
    pub fn suits(self, caps: &Caps) -> bool {
        Self::of(caps).contains(&self)
    }

    /// Default tier of a device, usually the fastest: in software drivers, loads from textures are
    /// many times cheaper than loads from buffers and workgroup memory.
    pub fn choose(caps: &Caps) -> Self {
        let tiers = Self::of(&Caps { matrix: None, ..caps.clone() });
        if caps.vendor == ARM && caps.textures {
            return Self::Texture;
        }
        let tiled = tiers.iter().find(|tier| **tier == Self::Tiled && !caps.software);
        *tiled.or(tiers.last()).unwrap_or(&Self::Naive)
    }

    /// True if the tier has kernels that store f16.
    fn halves(self) -> bool {
        matches!(self, Self::Tiled | Self::Texture | Self::Subgroup(_) | Self::Matrix { .. })
    }

    /// True if the tier's products read f16 weights.
    fn reads_halves(self) -> bool {
        self.halves() || self == Self::Blocked
    }

    /// Invocations that cooperate without a barrier: 1, or the size of a subgroup.
    pub(crate) fn lanes(self) -> u32 {
        if let Self::Subgroup(lanes) = self { lanes } else { 1 }
    }

    /// Storage format of f32 matrices.
    pub fn format(self) -> Format {
        match self {
            Self::Texture | Self::Subgroup(_) => Format::Texture,
            _ => Format::F32,
        }
    }
}

/// Storage type of weights and wide activations; arithmetic is always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dtype {
    /// 32-bit floats, except for product matrices and word embeddings that the file stores as f16:
    /// these stay f16, which is exact.  All others are widened on loading.
    #[default]
    F32,
    /// 16-bit floats for product matrices, word embeddings and, in buffers, for q, k, v, context
    /// and the MLP's intermediate.  The residual stream stays f32.
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

/// Variant of the kernels: the tier and the storage of matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KernelVariant {
    /// Tier of the kernels.
    pub tier: Tier,
    /// Storage type of weights and wide activations.
    pub dtype: Dtype,
    /// True if product matrices are f16 and all else is f32, as for a model whose file stores them
    /// as f16.
    pub half_weights: bool,
}

impl From<Tier> for KernelVariant {
    fn from(tier: Tier) -> Self {
        Self::new(tier, Dtype::F32)
    }
}

impl KernelVariant {
    /// A tier with everything stored as `dtype`, whatever the file stores.
    pub fn new(tier: Tier, dtype: Dtype) -> Self {
        Self { tier, dtype, half_weights: false }
    }

    /// Versions to choose from on a device: every tier with f32, then those with f16.
    pub fn of(caps: &Caps) -> Vec<Self> {
        let tiers = Tier::of(caps);
        let half = tiers.iter().filter(|tier| tier.halves() && caps.half);
        let half = half.map(|&tier| Self::new(tier, Dtype::F16));
        tiers.iter().map(|&tier| tier.into()).chain(half).collect()
    }

    /// Versions that a device can run: those of [`KernelVariant::of`], and f32 with f16 weights.
    pub fn all(caps: &Caps) -> Vec<Self> {
        let tiers = Tier::of(caps).into_iter().filter(|tier| tier.reads_halves() && caps.half);
        let mixed = tiers.map(|tier| Self { half_weights: true, ..tier.into() });
        Self::of(caps).into_iter().chain(mixed).collect()
    }

    /// The variant for a model whose file stores product matrices as f16, if `half`, or as f32.
    pub fn for_weights(self, half: bool, caps: &Caps) -> Self {
        let mixed = Self { half_weights: true, ..self };
        let half_weights = half && self.dtype == Dtype::F32 && mixed.suits(caps);
        Self { half_weights, ..self }
    }

    /// Next simpler or more exact variant: f32 instead of f16, else a tier that is easier to
    /// compile.
    pub fn lower(self, caps: &Caps) -> Option<Self> {
        if self.half() || self.half_weights {
            return Some(self.tier.into());
        }
        let lower = match self.tier {
            Tier::Reference | Tier::Naive => return None,
            Tier::Blocked => Tier::Reference,
            Tier::Matrix { .. } => Tier::Tiled,
            Tier::Subgroup(_) => Tier::Texture,
            // This tier needs no workgroup memory and no barriers.
            Tier::Tiled if caps.textures => Tier::Texture,
            Tier::Tiled | Tier::Texture => Tier::Naive,
        };
        lower.suits(caps).then_some(lower.into())
    }

    /// All variants reached by [`KernelVariant::lower`], the next first.
    pub fn all_lower(self, caps: &Caps) -> impl Iterator<Item = Self> {
        std::iter::successors(self.lower(caps), |variant| variant.lower(caps))
    }

    /// True if a device can run this variant.
    pub fn suits(self, caps: &Caps) -> bool {
        Self::all(caps).contains(&self)
    }

    /// Format of the residual stream, and of the sums that LayerNorm reads.
    pub fn stream(self) -> Format {
        self.tier.format()
    }

    /// Format of activations read by one kernel only: q, k, v, context, the MLP's intermediate.
    pub fn wide(self) -> Format {
        match self.tier.format() {
            Format::F32 if self.half() => Format::F16,
            format => format,
        }
    }

    /// Format of a product's matrix.
    pub fn weights(self) -> Format {
        let half = self.half() || (self.half_weights && self.tier.reads_halves());
        match self.tier.format() {
            Format::F32 if half => Format::F16,
            Format::Texture if half => Format::Texture16,
            format => format,
        }
    }

    /// Format of the word embeddings, a buffer in every tier.
    pub fn table(self) -> Format {
        if self.half() { Format::F16 } else { Format::F32 }
    }

    /// True if the variant stores f16.
    pub fn half(self) -> bool {
        self.dtype == Dtype::F16 && self.tier.halves()
    }
}

impl fmt::Display for KernelVariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dtype {
            Dtype::F32 if self.half_weights => write!(f, "{} f16 weights", self.tier),
            Dtype::F32 => write!(f, "{}", self.tier),
            Dtype::F16 => write!(f, "{} f16", self.tier),
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reference => "reference",
            Self::Blocked => "blocked",
            Self::Naive => "naive",
            Self::Tiled => "tiled",
            Self::Texture => "texture",
            Self::Subgroup(_) => "subgroup",
            Self::Matrix { .. } => "matrix",
        })
    }
}
