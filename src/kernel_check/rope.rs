//! Cases of `rope`.

use super::{
    KernelCase, LayerCase, Seeded, Suite, Tolerance, Work, boxed, bytes, product, seeded::Role,
};
use crate::{
    error::Error,
    kernels::{KernelVariant, Tile, rope},
    recording::{Format, KernelId, Recording, Tensor},
};
use std::fmt;

/// Rotary position embedding of queries or keys.
#[derive(Clone, Copy, Debug)]
pub struct RopeCase {
    /// T
    pub t: u32,
    /// H
    pub heads: u32,
    /// E
    pub e: u32,
    /// P
    pub positions: u32,
}

pub(super) const SUITE: Suite = Suite {
    kernel: KernelId::Rope,
    sample: || Box::new(case(37, 12, 64, 512)),
    hard: || {
        boxed([
            case(1, 1, 8, 1),
            case(65, 3, 16, 8192),
            case(33, 2, 128, 100),
            case(9, 5, 48, 3),
            case(70_001, 1, 32, 64), // more workgroups than a dimension of a grid has
        ])
    },
    random: |choices| {
        let t = choices.integer(1..200);
        let heads = choices.integer(1..9);
        Box::new(case(t, heads, 8 * choices.integer(1..17), choices.integer(1..3000)))
    },
    layer: |sizes| {
        let heads = sizes.heads;
        let e = sizes.d / heads;
        vec![LayerCase::new(format!("H{heads}"), move |t| case(t, heads, e, 8192))]
    },
};

fn case(t: u32, heads: u32, e: u32, positions: u32) -> RopeCase {
    RopeCase { t, heads, e, positions }
}

impl KernelCase for RopeCase {
    fn kernel(&self) -> KernelId {
        KernelId::Rope
    }

    fn formats(&self, variant: KernelVariant) -> [Format; 2] {
        [variant.wide(); 2]
    }

    fn dispatch(&self, rec: &mut Recording, data: &mut Seeded, _: Tile) -> Result<Tensor, Error> {
        let Self { t, heads, e, positions } = *self;
        let d = heads * e;
        // Columns of a wider tensor, as in the model.
        let wide = data.normal([t, d + 8], 1.0, Role::Wide)?;
        let x = wide.columns(4..4 + d);
        let table = data.plain([positions, e], &rope::table(positions, e, 20_000.0))?;
        let positions = data.drawn_integers(t, positions)?;
        let y = data.undefined([t, d], Role::Wide)?;
        let kernel = rope::kernel(rope::Spec::new(data.variant, e));
        let args = rope::Args { x: &x, table: &table, positions: &positions, y: &y };
        rope::record(rec, &kernel, args);
        Ok(y)
    }

    fn work(&self, variant: KernelVariant) -> Work {
        let td = product(&[self.t, self.heads, self.e]);
        Work { flops: 3.0 * td as f64, bytes: bytes(variant.wide(), 2 * td) }
    }

    fn tolerance(&self, variant: KernelVariant) -> Tolerance {
        Tolerance { atol: 2e-6, rtol: 1e-6 }.rounded_to(variant.wide())
    }
}

impl fmt::Display for RopeCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { t, heads, e, positions } = self;
        write!(f, "{} T{t} H{heads} E{e} P{positions}", self.kernel())
    }
}
