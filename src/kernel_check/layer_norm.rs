//! Cases of `layer_norm`.

use super::{
    KernelCase, LayerCase, Seeded, Suite, Tolerance, Work, boxed, bytes, product, seeded::Role,
};
use crate::{
    error::Error,
    kernels::{KernelVariant, Tile, layer_norm},
    recording::{Format, KernelId, Recording, Tensor},
};
use std::fmt;

/// Residual add and LayerNorm.
#[derive(Clone, Copy, Debug)]
pub struct LayerNormCase {
    /// T
    pub t: u32,
    /// D
    pub d: u32,
    /// Add a residual.
    pub residual: bool,
    /// RMSNorm.
    pub rms: bool,
    /// Offset of all elements of x: a large mean breaks one-pass variances.
    pub shift: f32,
}

pub(super) const SUITE: Suite = Suite {
    kernel: KernelId::LayerNorm,
    sample: || Box::new(case(37, 768, true, 0.0)),
    hard: || {
        let cases = [
            (1, 512, true, 0.0),
            (37, 768, true, 0.0),
            (5, 20, false, 0.0),
            (33, 1024, false, 0.0),
            (9, 384, true, 1000.0), // a one-pass variance loses all digits here
            (70_001, 32, true, 0.0),
        ];
        let rms = [case(37, 768, false, 0.0), case(9, 20, true, 3.0)];
        let rms = rms.map(|case| LayerNormCase { rms: true, ..case });
        boxed(
            cases.map(|(t, d, residual, shift)| case(t, d, residual, shift)).into_iter().chain(rms),
        )
    },
    random: |choices| {
        Box::new(LayerNormCase {
            t: choices.integer(1..100),
            d: 4 * choices.integer(1..300),
            residual: choices.flag(),
            rms: choices.flag(),
            shift: choices.float(-50.0..50.0),
        })
    },
    layer: |sizes| {
        let d = sizes.d;
        vec![LayerCase::new(format!("D{d} +r"), move |t| case(t, d, true, 0.0))]
    },
};

fn case(t: u32, d: u32, residual: bool, shift: f32) -> LayerNormCase {
    LayerNormCase { t, d, residual, rms: false, shift }
}

impl KernelCase for LayerNormCase {
    fn kernel(&self) -> KernelId {
        KernelId::LayerNorm
    }

    fn formats(&self, variant: KernelVariant) -> [Format; 2] {
        [variant.stream(), variant.wide()]
    }

    fn dispatch(&self, rec: &mut Recording, data: &mut Seeded, _: Tile) -> Result<Tensor, Error> {
        let Self { t, d, residual, rms, shift } = *self;
        let x = data.shifted([t, d], 1.0, shift, Role::Stream)?;
        let r = data.normal([t, d], 1.0, Role::Stream)?;
        let gamma = data.vector(d, 0.2, 1.0)?;
        let beta = data.vector(d, 0.5, 0.0)?;
        let y = data.undefined([t, d], Role::Wide)?;
        let spec = layer_norm::Spec { residual, rms, ..layer_norm::Spec::wide(data.variant, d) };
        let args = layer_norm::Args { x: &x, r: &r, gamma: &gamma, beta: &beta, y: &y };
        layer_norm::record(rec, &layer_norm::kernel(spec), args, 1e-12);
        Ok(y)
    }

    fn work(&self, variant: KernelVariant) -> Work {
        let td = product(&[self.t, self.d]);
        let inputs = if self.residual { 2 } else { 1 };
        let moved = bytes(variant.stream(), inputs * td) + bytes(variant.wide(), td);
        Work { flops: 8.0 * td as f64, bytes: moved }
    }

    /// Includes the input's rounding error, at the size of its mean.
    fn tolerance(&self, variant: KernelVariant) -> Tolerance {
        Tolerance { atol: 5e-6 + 1e-6 * self.shift.abs(), rtol: 1e-5 }.rounded_to(variant.wide())
    }
}

impl fmt::Display for LayerNormCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { t, d, residual, rms, shift } = self;
        write!(f, "{} T{t} D{d}{}", self.kernel(), if *residual { " +r" } else { "" })?;
        f.write_str(if *rms { " RMS" } else { "" })?;
        if *shift != 0.0 { write!(f, " mean{shift}") } else { Ok(()) }
    }
}
