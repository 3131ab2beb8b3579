//! Kernels with tunable tiles, and the tile of each.

use super::Sizes;
use crate::{
    kernel_check::{AttentionCase, KernelCase, LinearCase, LinearGegluCase},
    kernels::{KernelConfig, Tier, Tile, attention},
};
use std::fmt;

/// Kernels with a choice of tiles.
pub(super) const TUNED_KERNELS: [TunedKernel; 4] =
    [TunedKernel::Linear, TunedKernel::LinearAdd, TunedKernel::LinearGeglu, TunedKernel::Attention];

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum TunedKernel {
    Linear,
    LinearAdd,
    LinearGeglu,
    Attention,
}

/// Tile of a product, or tiling of attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Choice {
    Product(Tile),
    Attention(attention::Tiling),
}

impl TunedKernel {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::LinearAdd => "linear +r",
            Self::LinearGeglu => "linear_geglu",
            Self::Attention => "attention",
        }
    }

    pub(super) fn case(self, sizes: Sizes, t: u32) -> Box<dyn KernelCase> {
        let Sizes { hidden: d, intermediate: f, heads, .. } = sizes;
        let activation = sizes.activation;
        match self {
            Self::Linear => Box::new(LinearCase::new(t, 3 * d, d, false)),
            Self::LinearAdd => Box::new(LinearCase::new(t, d, f, true)),
            Self::LinearGeglu => {
                Box::new(LinearGegluCase { t, f, k: d, gate_first: true, activation })
            }
            Self::Attention => Box::new(AttentionCase::new(&[t], heads, sizes.head_width())),
        }
    }

    /// A small case that covers the edges of every tile.
    pub(super) fn sample(self, sizes: Sizes) -> Box<dyn KernelCase> {
        let activation = sizes.activation;
        match self {
            Self::Linear => Box::new(LinearCase::new(67, 132, 76, false)),
            Self::LinearAdd => Box::new(LinearCase::new(67, 132, 76, true)),
            Self::LinearGeglu => {
                Box::new(LinearGegluCase { t: 67, f: 68, k: 76, gate_first: true, activation })
            }
            Self::Attention => Box::new(AttentionCase::new(&[70, 9, 1], 2, sizes.head_width())),
        }
    }

    pub(super) fn candidates(self, tier: Tier, rows: u32, e: u32) -> Vec<Choice> {
        match self {
            Self::Attention => {
                let tiles = attention::Spec::candidates(tier, e).into_iter();
                tiles.map(Choice::Attention).collect()
            }
            _ => Tile::candidates(tier, rows).into_iter().map(Choice::Product).collect(),
        }
    }

    pub(super) fn choice(self, config: &KernelConfig, n: usize) -> Choice {
        let tiles = config.products[n];
        match self {
            Self::Linear => Choice::Product(tiles.linear),
            Self::LinearAdd => Choice::Product(tiles.linear_add),
            Self::LinearGeglu => Choice::Product(tiles.linear_geglu),
            Self::Attention => Choice::Attention(config.attention),
        }
    }

    pub(super) fn choose(self, config: &mut KernelConfig, n: usize, choice: Choice) {
        let tiles = &mut config.products[n];
        match (self, choice) {
            (Self::Linear, Choice::Product(tile)) => tiles.linear = tile,
            (Self::LinearAdd, Choice::Product(tile)) => tiles.linear_add = tile,
            (Self::LinearGeglu, Choice::Product(tile)) => tiles.linear_geglu = tile,
            (Self::Attention, Choice::Attention(tile)) => config.attention = tile,
            (kernel, choice) => unreachable!("{choice:?} of {kernel:?}"),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Product(tile) => tile.fmt(f),
            Self::Attention(tile) => tile.fmt(f),
        }
    }
}
