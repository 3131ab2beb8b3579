//! Cases of `lora`.

use super::{
    KernelCase, LayerCase, Seeded, Suite, Tolerance, Work, boxed, bytes, product, seeded::Role,
};
use crate::{
    error::Error,
    kernels::{KernelVariant, Tile, lora},
    recording::{Format, KernelId, Recording, Tensor},
};
use std::fmt;

/// Low-rank product of the adapter that each token chooses.
#[derive(Clone, Copy, Debug)]
pub struct LoraCase {
    /// T
    pub t: u32,
    /// N
    pub n: u32,
    /// K
    pub k: u32,
    /// R
    pub rank: u32,
    /// n: number of adapters.
    pub adapters: u32,
    /// Add a residual.
    pub residual: bool,
}

pub(super) const SUITE: Suite = Suite {
    kernel: KernelId::Lora,
    sample: || Box::new(case(37, 768, 1024, 4, true)),
    hard: || {
        boxed([
            case(1, 4, 4, 4, false),
            case(65, 3072, 1024, 4, false),
            case(33, 260, 252, 12, true),
            case(9, 36, 3072, 256, true),
            case(70_001, 8, 4, 4, true), // more workgroups than a dimension of a grid has
        ])
    },
    random: |choices| {
        Box::new(LoraCase {
            t: choices.integer(1..100),
            n: 4 * choices.integer(1..100),
            k: 4 * choices.integer(1..100),
            rank: 4 * choices.integer(1..9),
            adapters: choices.integer(1..7),
            residual: choices.flag(),
        })
    },
    layer: |sizes| {
        let [d, f] = [sizes.d, sizes.f];
        [(3 * d, d, false), (d, d, true), (f, d, false), (d, f, true)]
            .map(|(n, k, residual)| {
                let shape = format!("N{n} K{k} R4{}", if residual { " +r" } else { "" });
                LayerCase::new(shape, move |t| case(t, n, k, 4, residual))
            })
            .into()
    },
};

/// A case with the adapters of jina-embeddings-v3, and one of zeros.
fn case(t: u32, n: u32, k: u32, rank: u32, residual: bool) -> LoraCase {
    LoraCase { t, n, k, rank, adapters: 6, residual }
}

impl KernelCase for LoraCase {
    fn kernel(&self) -> KernelId {
        KernelId::Lora
    }

    fn formats(&self, variant: KernelVariant) -> [Format; 2] {
        [variant.stream(), variant.wide()]
    }

    fn dispatch(&self, rec: &mut Recording, data: &mut Seeded, _: Tile) -> Result<Tensor, Error> {
        let Self { t, n, k, rank, adapters, residual } = *self;
        let (x_role, y_role) =
            if residual { (Role::Wide, Role::Stream) } else { (Role::Stream, Role::Wide) };
        let x = data.normal([t, k], 1.0, x_role)?;
        let rows = adapters * rank;
        let a = data.drawn((rows * k) as usize, 1.0 / (k as f32).sqrt(), 0.0);
        let a = data.plain([rows, k], &a)?;
        let b = data.drawn((rows * n) as usize, 1.0 / (rank as f32).sqrt(), 0.0);
        let b = data.plain([rows, n], &b)?;
        let adapters = data.drawn_integers(t, adapters)?;
        let y = data.undefined([t, n], y_role)?;
        let r = if residual { data.normal([t, n], 1.0, Role::Stream)? } else { x };
        let kernel = lora::kernel(lora::Spec::new(data.variant, rank, residual));
        let args = lora::Args { x: &x, a: &a, b: &b, adapters: &adapters, r: &r, y: &y };
        lora::record(rec, &kernel, args);
        Ok(y)
    }

    fn work(&self, variant: KernelVariant) -> Work {
        let Self { t, n, k, rank, residual, .. } = *self;
        let [inputs, outputs] = [product(&[t, k]), product(&[t, n])];
        let moved = if residual {
            bytes(variant.wide(), inputs) + bytes(variant.stream(), 2 * outputs)
        } else {
            bytes(variant.stream(), inputs) + bytes(variant.wide(), outputs)
        };
        Work { flops: 2.0 * f64::from(rank) * (inputs + outputs) as f64, bytes: moved }
    }

    fn tolerance(&self, variant: KernelVariant) -> Tolerance {
        let atol = 1e-6 * (self.rank as f32).sqrt() + 2e-6;
        let stored = if self.residual { Format::F32 } else { variant.wide() };
        Tolerance { atol, rtol: 1e-5 }.rounded_to(stored)
    }
}

impl fmt::Display for LoraCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { t, n, k, rank, adapters, residual } = self;
        write!(f, "{} T{t} N{n} K{k} R{rank} n{adapters}", self.kernel())?;
        if *residual { f.write_str(" +r") } else { Ok(()) }
    }
}
