//! Cases of `pool`.

use super::{
    KernelCase, LayerCase, Seeded, Suite, Tolerance, UNWRITTEN, Work, boxed, bytes, product,
    seeded::Role, sequences, split,
};
use crate::{
    error::Error,
    kernels::{KernelVariant, Tile, pool},
    recording::{Format, KernelId, Recording, Tensor},
};
use std::fmt;

/// Mean, truncation, norm.
#[derive(Clone, Debug)]
pub struct PoolCase {
    /// T
    pub t: u32,
    /// Spans: first token and end, exclusive.
    pub spans: Vec<[u32; 2]>,
    /// D
    pub d: u32,
    /// Number of components kept.
    pub dims: u32,
    /// Divide by the L2 norm.
    pub normalize: bool,
}

impl PoolCase {
    /// Unit vectors of sequences of the given lengths.
    pub fn new(lengths: &[u32], d: u32) -> Self {
        let t = lengths.iter().sum();
        Self { t, spans: sequences(lengths), d, dims: d, normalize: true }
    }
}

pub(super) const SUITE: Suite = Suite {
    kernel: KernelId::Pool,
    sample: || Box::new(PoolCase::new(&[1, 64, 65, 130], 768)),
    hard: || {
        // Spans that overlap, repeat, or leave tokens out; of one token; of all tokens.
        let spans = vec![[0, 70], [60, 131], [60, 131], [255, 256], [0, 256], [3, 5]];
        boxed([
            PoolCase::new(&[1], 32),
            PoolCase::new(&[5, 1, 300, 64, 65], 768),
            PoolCase { dims: 129, ..PoolCase::new(&[7, 3], 384) },
            PoolCase { dims: 1, normalize: false, ..PoolCase::new(&[2, 9, 4000], 64) },
            PoolCase { dims: 7, ..PoolCase::new(&[1; 70_001], 32) },
            PoolCase { t: 256, spans, d: 384, dims: 384, normalize: false },
        ])
    },
    random: |choices| {
        let lengths = choices.list(1..20, 1..200);
        let d = 4 * choices.integer(1..100);
        let dims = choices.integer(1..d + 1);
        let normalize = choices.flag();
        Box::new(PoolCase { dims, normalize, ..PoolCase::new(&lengths, d) })
    },
    layer: |sizes| {
        let d = sizes.d;
        let case = move |t| PoolCase::new(&split(t, 128), d);
        vec![LayerCase::new(format!("D{d} L128"), case)]
    },
};

impl KernelCase for PoolCase {
    fn kernel(&self) -> KernelId {
        KernelId::Pool
    }

    fn formats(&self, variant: KernelVariant) -> [Format; 2] {
        [variant.stream(); 2]
    }

    fn dispatch(&self, rec: &mut Recording, data: &mut Seeded, _: Tile) -> Result<Tensor, Error> {
        let Self { t, ref spans, d, dims, normalize } = *self;
        let n = spans.len() as u32;
        let x = data.shifted([t, d], 1.0, 0.3, Role::Stream)?;
        let y = data.plain([n, dims], &vec![UNWRITTEN; (n * dims) as usize])?;
        let spans = data.integers([n, 2], spans.as_flattened())?;
        let kernel = pool::kernel(pool::Spec::new(data.variant, d));
        pool::record(rec, &kernel, pool::Args { x: &x, spans: &spans, y: &y }, normalize);
        Ok(y)
    }

    fn work(&self, variant: KernelVariant) -> Work {
        let tokens: u64 = self.spans.iter().map(|&[start, end]| u64::from(end - start)).sum();
        let td = tokens * u64::from(self.d);
        let written = product(&[self.spans.len() as u32, self.dims]);
        Work { flops: td as f64, bytes: bytes(variant.stream(), td + written) }
    }

    fn tolerance(&self, _: KernelVariant) -> Tolerance {
        Tolerance { atol: 1e-6, rtol: 1e-5 }
    }
}

impl fmt::Display for PoolCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { t, spans, d, dims, normalize } = self;
        let norm = if *normalize { " norm" } else { "" };
        write!(f, "{} B{} T{t} D{d} dims{dims}{norm}", self.kernel(), spans.len())
    }
}
