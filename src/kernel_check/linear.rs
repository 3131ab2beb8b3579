//! Cases of `linear`.

use super::{
    KernelCase, LayerCase, Seeded, Suite, Tolerance, Work, boxed, bytes, product, product_tiles,
    seeded::Role,
};
use crate::{
    activation::Activation,
    error::Error,
    kernels::{KernelVariant, Tier, Tile, linear},
    recording::{Format, KernelId, Recording, Tensor},
};
use std::fmt;

/// `activation(x·Wᵀ + bias)`, or `activation(x·Wᵀ + bias + r)`
#[derive(Clone, Copy, Debug)]
pub struct LinearCase {
    /// T
    pub t: u32,
    /// N
    pub n: u32,
    /// K
    pub k: u32,
    /// Activation after product, bias and residual.
    pub activation: Activation,
    /// Add a residual: to a sum in the residual stream, or before an activation.
    pub residual: bool,
}

impl LinearCase {
    /// A product without activation.
    pub fn new(t: u32, n: u32, k: u32, residual: bool) -> Self {
        Self { t, n, k, activation: Activation::Identity, residual }
    }

    /// True if the product goes back into the residual stream.
    fn back(&self) -> bool {
        self.residual && self.activation == Activation::Identity
    }
}

pub(super) const SUITE: Suite = Suite {
    kernel: KernelId::Linear,
    sample: || Box::new(LinearCase::new(130, 384, 768, true)),
    hard: || {
        let gelu = Activation::Gelu;
        let relu = Activation::Relu;
        boxed([
            LinearCase::new(1, 768, 768, false),
            LinearCase::new(3, 4, 4, true),
            LinearCase::new(63, 68, 20, false),
            LinearCase::new(64, 64, 16, true),
            LinearCase::new(65, 132, 48, true),
            LinearCase::new(33, 36, 204, true),
            LinearCase::new(130, 96, 3072, false),
            LinearCase::new(66_000, 8, 8, true),
            LinearCase::new(70_001, 4, 4, false),
            LinearCase { activation: gelu, ..LinearCase::new(67, 132, 76, false) },
            LinearCase { activation: relu, ..LinearCase::new(1, 36, 48, true) },
            LinearCase { activation: gelu, ..LinearCase::new(70, 132, 76, true) },
        ])
    },
    random: |choices| {
        Box::new(LinearCase {
            t: choices.integer(1..150),
            n: 4 * choices.integer(1..40),
            k: 4 * choices.integer(1..100),
            activation: choices.one_of(&[Activation::Identity, Activation::Gelu]),
            residual: choices.flag(),
        })
    },
    layer: |sizes| {
        let shape = |[n, k]: [u32; 2]| format!("N{n} K{k}");
        let qkv = [3 * sizes.d, sizes.d];
        let down = [sizes.d, sizes.f];
        vec![
            LayerCase::new(shape(qkv), move |t| LinearCase::new(t, qkv[0], qkv[1], false)),
            LayerCase::new(shape(down) + " +r", move |t| {
                LinearCase::new(t, down[0], down[1], true)
            }),
        ]
    },
};

impl KernelCase for LinearCase {
    fn kernel(&self) -> KernelId {
        KernelId::Linear
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
        let Self { t, n, k, activation, residual } = *self;
        let (x_role, y_role) =
            if self.back() { (Role::Wide, Role::Stream) } else { (Role::Stream, Role::Wide) };
        let x = data.normal([t, k], 1.0, x_role)?;
        let w = data.weights([n, k], |w, shape| tile.layout().arrange(w, shape))?;
        let bias = data.vector(n, 1.0, 0.0)?;
        let y = data.undefined([t, n], y_role)?;
        let r = if residual { data.normal([t, n], 1.0, y_role)? } else { x };
        let spec = linear::Spec::new(data.variant, self.back());
        let kernel = linear::kernel(linear::Spec { tile, activation, residual, ..spec });
        linear::record(rec, &kernel, linear::Args { x: &x, w: &w, bias: &bias, r: &r, y: &y });
        Ok(y)
    }

    fn work(&self, variant: KernelVariant) -> Work {
        let Self { t, n, k, residual, .. } = *self;
        let inputs = product(&[t, k]);
        let outputs = product(&[t, n]) * if residual { 2 } else { 1 };
        let activations = if self.back() {
            bytes(variant.wide(), inputs) + bytes(variant.stream(), outputs)
        } else {
            bytes(variant.stream(), inputs) + bytes(variant.wide(), outputs)
        };
        Work {
            flops: 2.0 * product(&[t, n, k]) as f64,
            bytes: activations + bytes(variant.weights(), product(&[n, k])),
        }
    }

    /// The matrix tier rounds both inputs, the reference does not: 2⁻¹⁰ of each term at worst;
    /// terms of 4 may cancel.
    fn tolerance(&self, variant: KernelVariant) -> Tolerance {
        let mut tolerance = Tolerance { atol: 2e-7 * (self.k as f32).sqrt() + 2e-6, rtol: 1e-5 };
        if let Tier::Matrix { .. } = variant.tier {
            tolerance.atol += 4.0 / 1024.0;
            tolerance.rtol += 1.0 / 1024.0;
        }
        tolerance.rounded_to(if self.back() { Format::F32 } else { variant.wide() })
    }
}

impl fmt::Display for LinearCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { t, n, k, activation, residual } = self;
        write!(f, "{} T{t} N{n} K{k}{}", self.kernel(), if *residual { " +r" } else { "" })?;
        match activation {
            Activation::Identity => Ok(()),
            _ => write!(f, " {activation:?}"),
        }
    }
}
