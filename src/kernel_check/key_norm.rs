//! Cases of `key_norm`.

use super::{
    KernelCase, LayerCase, Seeded, Suite, Tolerance, Work, boxed, bytes, product,
    seeded::{Role, keys},
    split,
};
use crate::{
    error::Error,
    kernels::{KernelVariant, Tile},
    recording::{Format, KernelId, Recording, Tensor},
};
use std::fmt;

/// Maximum norm of the keys of each tile.
#[derive(Clone, Debug)]
pub struct KeyNormCase {
    /// Tokens of each sequence.
    pub lengths: Vec<u32>,
    /// Number of a sequence's last tokens that are not keys; its first token always is one.
    pub query_only: u32,
    /// H
    pub heads: u32,
    /// E
    pub e: u32,
}

pub(super) const SUITE: Suite = Suite {
    kernel: KernelId::KeyNorm,
    sample: || Box::new(case(&[1, 64, 65, 130], 0, 12, 64)),
    hard: || {
        boxed([
            case(&[1], 0, 1, 64),
            case(&[1, 63, 64, 65, 128, 129], 0, 12, 8),
            case(&[1, 63, 64, 65, 128, 129], 64, 12, 8), // tiles without any key
            case(&[700, 2], 0, 3, 128),
            case(&[1; 300], 0, 2, 16),
        ])
    },
    random: |choices| {
        Box::new(KeyNormCase {
            lengths: choices.list(1..6, 1..200),
            query_only: choices.integer(0..90),
            heads: choices.integer(1..5),
            e: choices.one_of(&[4, 8, 20, 48, 64, 128]),
        })
    },
    layer: |sizes| {
        let heads = sizes.heads;
        let e = sizes.d / heads;
        let make = move |t| case(&split(t, 128), 0, heads, e);
        vec![LayerCase::new(format!("H{heads}"), make)]
    },
};

fn case(lengths: &[u32], query_only: u32, heads: u32, e: u32) -> KeyNormCase {
    KeyNormCase { lengths: lengths.to_vec(), query_only, heads, e }
}

impl KernelCase for KeyNormCase {
    fn kernel(&self) -> KernelId {
        KernelId::KeyNorm
    }

    fn formats(&self, variant: KernelVariant) -> [Format; 2] {
        [variant.wide(); 2]
    }

    fn dispatch(&self, rec: &mut Recording, data: &mut Seeded, _: Tile) -> Result<Tensor, Error> {
        let Self { ref lengths, query_only, heads, e } = *self;
        // Columns of a wider tensor, as in the model.
        let shape = [lengths.iter().sum(), heads * e + 4];
        let wide = data.normal(shape, 1.0, Role::Wide)?;
        let k = wide.columns(4..4 + heads * e);
        Ok(data.key_norm(rec, (lengths, query_only), &k, e)?.norms)
    }

    fn work(&self, variant: KernelVariant) -> Work {
        let keys: u32 = keys(&self.lengths, self.query_only).iter().sum();
        let read = u64::from(keys) * product(&[self.heads, self.e]);
        Work { flops: 2.0 * read as f64, bytes: bytes(variant.wide(), read) }
    }

    fn tolerance(&self, _: KernelVariant) -> Tolerance {
        Tolerance { atol: 1e-6, rtol: 1e-6 }
    }
}

impl fmt::Display for KeyNormCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lengths, query_only, heads, e } = self;
        let tokens: u32 = lengths.iter().sum();
        write!(f, "{} B{} T{tokens} H{heads} E{e}", self.kernel(), lengths.len())?;
        if *query_only > 0 { write!(f, " -{query_only} keys") } else { Ok(()) }
    }
}
