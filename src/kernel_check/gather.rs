//! Cases of `gather`.

use super::{
    KernelCase, LayerCase, Seeded, Suite, Tolerance, Work, boxed, bytes, product, seeded::Role,
};
use crate::{
    error::Error,
    kernels::{KernelVariant, Tile, gather},
    recording::{Format, KernelId, Recording, Tensor},
};
use std::fmt;

/// Rows of a matrix.
#[derive(Clone, Debug)]
pub struct GatherCase {
    /// T
    pub t: u32,
    /// D
    pub d: u32,
    /// Rows to gather.
    pub rows: Vec<u32>,
}

pub(super) const SUITE: Suite = Suite {
    kernel: KernelId::Gather,
    sample: || Box::new(GatherCase { t: 260, d: 768, rows: vec![259, 0, 64, 64, 130] }),
    hard: || {
        boxed([
            GatherCase { t: 1, d: 32, rows: vec![0] },
            GatherCase { t: 5, d: 768, rows: vec![4, 0, 0, 3, 4, 1, 2] },
            // pages of a texture
            GatherCase { t: 20_000, d: 32, rows: vec![8191, 8192, 0, 19_999, 16_383, 16_384] },
            // more workgroups than one grid dimension holds
            GatherCase { t: 3, d: 64, rows: (0..270_000).map(|n| n % 3).collect() },
        ])
    },
    random: |choices| {
        let t = choices.integer(1..300);
        let d = 4 * choices.integer(1..100);
        Box::new(GatherCase { t, d, rows: choices.list(1..200, 0..t) })
    },
    layer: |sizes| {
        let d = sizes.d;
        let case = move |t| GatherCase { t, d, rows: (0..t).rev().collect() };
        vec![LayerCase::new(format!("D{d}"), case)]
    },
};

impl KernelCase for GatherCase {
    fn kernel(&self) -> KernelId {
        KernelId::Gather
    }

    fn formats(&self, variant: KernelVariant) -> [Format; 2] {
        [variant.stream(); 2]
    }

    fn dispatch(&self, rec: &mut Recording, data: &mut Seeded, _: Tile) -> Result<Tensor, Error> {
        let Self { t, d, rows } = self;
        let n = rows.len() as u32;
        let x = data.normal([*t, *d], 1.0, Role::Stream)?;
        let rows = data.integers([n], rows)?;
        let y = data.undefined([n, *d], Role::Stream)?;
        let kernel = gather::kernel(gather::Spec::new(data.variant, *d));
        gather::record(rec, &kernel, gather::Args { x: &x, rows: &rows, y: &y });
        Ok(y)
    }

    fn work(&self, variant: KernelVariant) -> Work {
        let moved = product(&[self.rows.len() as u32, self.d]);
        Work { flops: 0.0, bytes: bytes(variant.stream(), 2 * moved) }
    }

    fn tolerance(&self, _: KernelVariant) -> Tolerance {
        Tolerance { atol: 0.0, rtol: 0.0 }
    }
}

impl fmt::Display for GatherCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { t, d, rows } = self;
        write!(f, "{} T{t} D{d} n{}", self.kernel(), rows.len())
    }
}
