//! Cases of `attention`.

use super::{
    KernelCase, LayerCase, LayerSizes, Seeded, Suite, Tolerance, Work, boxed, bytes, product,
    seeded::{Keys, Role, keys},
    split,
};
use crate::{
    error::Error,
    kernels::{
        KernelVariant, Tier, Tile, alibi,
        attention::{self, Bias, SKIP_EPS},
    },
    recording::{Format, KernelId, Recording, Tensor},
};
use std::fmt;

/// Attention over sequences.
#[derive(Clone, Debug)]
pub struct AttentionCase {
    /// Tokens of each sequence.
    pub lengths: Vec<u32>,
    /// Number of a sequence's last tokens that are not keys; its first token always is one.
    pub query_only: u32,
    /// H
    pub heads: u32,
    /// E
    pub e: u32,
    /// Standard deviation of the scores before the bias: 1 is typical, 30 makes softmax a
    /// maximum.
    pub sharpness: f32,
    /// Maximum share of a row that may be skipped; 0 for none.
    pub skip_eps: f32,
    /// Biases of a table up to this distance, and no skipping, in place of ALiBi's.
    pub reach: Option<u32>,
}

impl AttentionCase {
    /// Typical scores, all tokens as keys, the default skipping.
    pub fn new(lengths: &[u32], heads: u32, e: u32) -> Self {
        let lengths = lengths.to_vec();
        Self { lengths, query_only: 0, heads, e, sharpness: 1.0, skip_eps: SKIP_EPS, reach: None }
    }
}

pub(super) const SUITE: Suite = Suite {
    kernel: KernelId::Attention,
    sample: || Box::new(AttentionCase::new(&[1, 64, 65, 130], 12, 64)),
    hard: || {
        let case = |lengths: &[u32], query_only, heads, e, sharpness| AttentionCase {
            query_only,
            sharpness,
            ..AttentionCase::new(lengths, heads, e)
        };
        let table = |lengths: &[u32], heads, e, reach| AttentionCase {
            reach: Some(reach),
            ..AttentionCase::new(lengths, heads, e)
        };
        boxed([
            table(&[1, 64, 200], 3, 64, 91),
            table(&[300, 5], 2, 16, 7),
            case(&[1], 0, 1, 64, 1.0),
            case(&[1, 2, 31, 32, 33, 63, 64, 65], 0, 12, 8, 1.0),
            case(&[129, 1, 7], 0, 3, 64, 1.0),
            case(&[1, 32, 65, 129, 200], 20, 2, 64, 1.0), // with query-only tokens
            case(&[700, 130, 300], 128, 2, 16, 3.0),      // with whole tiles of query-only tokens
            case(&[300], 0, 8, 48, 1.0),
            case(&[257, 65], 0, 2, 32, 30.0), // scores far apart: softmax is nearly a maximum
            case(&[100, 28], 0, 2, 16, 100.0),
            case(&[70, 5], 0, 1, 128, 1.0),
            case(&[1; 700], 0, 3, 8, 1.0),
            case(&[1000, 200], 0, 4, 8, 0.1), // most tiles of heads with steep slopes are skipped
            case(&[1000, 500], 290, 4, 8, 0.1),
        ])
    },
    random: |choices| {
        Box::new(AttentionCase {
            lengths: choices.list(1..6, 1..140),
            query_only: if choices.flag() { choices.integer(1..140) } else { 0 },
            heads: choices.integer(1..5),
            e: choices.one_of(&[4, 8, 20, 48, 64, 128]),
            sharpness: choices.float(0.0..40.0),
            skip_eps: choices.one_of(&[0.0, SKIP_EPS]),
            reach: if choices.flag() { Some(choices.integer(1..100)) } else { None },
        })
    },
    layer: |sizes| {
        vec![layer(sizes, 128, SKIP_EPS), layer(sizes, 1024, SKIP_EPS), layer(sizes, 1024, 0.0)]
    },
};

/// Sequences of `length` tokens.
fn layer(LayerSizes { d, heads, .. }: LayerSizes, length: u32, skip_eps: f32) -> LayerCase {
    let dense = if skip_eps > 0.0 { "" } else { " dense" };
    let e = d / heads;
    LayerCase::new(format!("H{heads} L{length}{dense}"), move |t| AttentionCase {
        skip_eps,
        ..AttentionCase::new(&split(t, length), heads, e)
    })
}

impl KernelCase for AttentionCase {
    fn kernel(&self) -> KernelId {
        KernelId::Attention
    }

    /// Only products have kernels of subgroup matrices.
    fn tier(&self, tier: Tier) -> Option<Tier> {
        Some(match tier {
            Tier::Matrix { .. } => Tier::Tiled,
            _ => tier,
        })
    }

    fn formats(&self, variant: KernelVariant) -> [Format; 2] {
        [variant.wide(); 2]
    }

    fn dispatch(&self, rec: &mut Recording, data: &mut Seeded, _: Tile) -> Result<Tensor, Error> {
        let Self { ref lengths, query_only, heads, e, sharpness, skip_eps, reach } = *self;
        let d = heads * e;
        let qkv = data.projections(lengths, [heads, e], sharpness)?;
        let [q, k, v] = [0, d, 2 * d].map(|first| qkv.columns(first..first + d));
        let Keys { keys, tiles, norms } = data.key_norm(rec, (lengths, query_only), &k, e)?;
        let context = data.undefined([qkv.shape2()[0], d], Role::Wide)?;
        let (bias, numbers, skip_eps) = match reach {
            None => (Bias::Alibi, alibi::slopes(heads as usize), skip_eps),
            Some(reach) => {
                let bias = Bias::Table { reach };
                (bias, data.drawn((heads * bias.width()) as usize, 2.0, 0.0), 0.0)
            }
        };
        let biases = data.plain([heads * bias.width()], &numbers)?;
        let spec = attention::Spec { bias, ..attention::Spec::new(data.variant, e) };
        let kernel = attention::kernel(spec);
        let args = attention::Args {
            q: &q,
            k: &k,
            v: &v,
            biases: &biases,
            tiles: &tiles,
            norms: &norms,
            context: &context,
        };
        let scores = [attention::scale(e), attention::skip(skip_eps)];
        attention::record(rec, &kernel, args, scores, &keys);
        Ok(context)
    }

    fn work(&self, variant: KernelVariant) -> Work {
        let Self { ref lengths, query_only, heads, e, .. } = *self;
        let d = product(&[heads, e]);
        let keys = keys(lengths, query_only);
        let pairs: u64 = lengths.iter().zip(&keys).map(|(&n, &keys)| product(&[n, keys])).sum();
        let t: u32 = lengths.iter().chain(&keys).sum();
        let moved = bytes(variant.wide(), 2 * u64::from(t) * d);
        Work { flops: 4.0 * (pairs * d) as f64, bytes: moved }
    }

    /// exp turns an absolute error of the score into a relative error of the weight.
    fn tolerance(&self, variant: KernelVariant) -> Tolerance {
        Tolerance { atol: 5e-6 * (1.0 + self.sharpness), rtol: 1e-5 }.rounded_to(variant.wide())
    }
}

impl fmt::Display for AttentionCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lengths, query_only, heads, e, sharpness, skip_eps, reach } = self;
        let tokens: u32 = lengths.iter().sum();
        write!(f, "{} B{} T{tokens} H{heads} E{e} σ{sharpness}", self.kernel(), lengths.len())?;
        f.write_str(if *skip_eps > 0.0 { "" } else { " dense" })?;
        if let Some(reach) = reach {
            write!(f, " reach{reach}")?;
        }
        if *query_only > 0 { write!(f, " -{query_only} keys") } else { Ok(()) }
    }
}
