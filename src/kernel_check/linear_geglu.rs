//! Cases of `linear_geglu`.

use super::{
    KernelCase, LayerCase, Seeded, Suite, Tolerance, Work, boxed, bytes, product, product_tiles,
    seeded::Role,
};
use crate::{
    activation::Activation,
    error::Error,
    kernels::{KernelVariant, Tier, Tile, linear_geglu},
    recording::{Format, KernelId, Recording, Tensor},
};
use std::fmt;

/// `activation(x·W_gᵀ) ⊙ (x·W_uᵀ)`
#[derive(Clone, Copy, Debug)]
pub struct LinearGegluCase {
    /// T
    pub t: u32,
    /// F
    pub f: u32,
    /// K
    pub k: u32,
    /// True if the first half of the matrix is the gate.
    pub gate_first: bool,
    /// Activation of the gate.
    pub activation: Activation,
}

pub(super) const SUITE: Suite = Suite {
    kernel: KernelId::LinearGeglu,
    sample: || Box::new(case(37, 768, 384, true, Activation::Gelu)),
    hard: || {
        boxed([
            case(1, 4, 4, true, Activation::Gelu),
            case(37, 96, 768, true, Activation::Gelu),
            case(64, 32, 16, true, Activation::Relu),
            case(65, 100, 20, false, Activation::Gelu),
            case(33, 36, 204, true, Activation::Gelu),
            case(130, 68, 48, false, Activation::Relu),
            case(8_200, 4, 4, true, Activation::Gelu), // more rows than a page of a texture
        ])
    },
    random: |choices| {
        Box::new(LinearGegluCase {
            t: choices.integer(1..100),
            f: 4 * choices.integer(1..50),
            k: 4 * choices.integer(1..60),
            gate_first: choices.flag(),
            activation: choices.one_of(&[Activation::Gelu, Activation::Relu]),
        })
    },
    layer: |sizes| {
        let f = sizes.f;
        let k = sizes.d;
        let make = move |t| case(t, f, k, true, Activation::Gelu);
        vec![LayerCase::new(format!("F{f} K{k}"), make)]
    },
};

fn case(t: u32, f: u32, k: u32, gate_first: bool, activation: Activation) -> LinearGegluCase {
    LinearGegluCase { t, f, k, gate_first, activation }
}

impl KernelCase for LinearGegluCase {
    fn kernel(&self) -> KernelId {
        KernelId::LinearGeglu
    }

    fn tier(&self, tier: Tier) -> Option<Tier> {
        Some(tier)
    }

    fn formats(&self, variant: KernelVariant) -> [Format; 2] {
        [variant.weights(), variant.wide()]
    }

    fn tiles(&self, variant: KernelVariant) -> Vec<Tile> {
        product_tiles(variant)
    }

    fn dispatch(
        &self,
        rec: &mut Recording,
        data: &mut Seeded,
        tile: Tile,
    ) -> Result<Tensor, Error> {
        let Self { t, f, k, gate_first, activation } = *self;
        let tier = data.variant.tier;
        let x = data.normal([t, k], 2.0, Role::Stream)?;
        let arrange = |w, shape| linear_geglu::arrange(tier, gate_first, w, shape);
        let w = data.weights([2 * f, k], arrange)?;
        let h = data.undefined([t, f], Role::Wide)?;
        let spec = linear_geglu::Spec::new(data.variant, gate_first, activation);
        let kernel = linear_geglu::kernel(linear_geglu::Spec { tile, ..spec });
        linear_geglu::record(rec, &kernel, linear_geglu::Args { x: &x, w: &w, h: &h });
        Ok(h)
    }

    fn work(&self, variant: KernelVariant) -> Work {
        let Self { t, f, k, .. } = *self;
        let outputs = product(&[t, f]);
        Work {
            flops: 4.0 * product(&[t, f, k]) as f64 + 25.0 * outputs as f64,
            bytes: bytes(variant.stream(), product(&[t, k]))
                + bytes(variant.weights(), 2 * product(&[f, k]))
                + bytes(variant.wide(), outputs),
        }
    }

    /// An error of the gate, of order 2, is multiplied by an up of order 2 and its own slope.  The
    /// matrix tier rounds both inputs, the reference does not: 2⁻¹⁰ of each term at worst, and
    /// twice for a gate and its factor, both of order 2.
    fn tolerance(&self, variant: KernelVariant) -> Tolerance {
        let mut tolerance = Tolerance { atol: 2e-6 * (self.k as f32).sqrt() + 1e-5, rtol: 1e-5 };
        if let Tier::Matrix { .. } = variant.tier {
            tolerance.atol += 16.0 / 1024.0;
            tolerance.rtol += 2.0 / 1024.0;
        }
        tolerance.rounded_to(variant.wide())
    }
}

impl fmt::Display for LinearGegluCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { t, f: width, k, gate_first, activation } = self;
        let half = if *gate_first { "first" } else { "second" };
        write!(f, "{} T{t} F{width} K{k} {half} {activation:?}", self.kernel())
    }
}
