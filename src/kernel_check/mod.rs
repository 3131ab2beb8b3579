//! Single-kernel checks: a case of a given shape on seeded data, recorded on any engine.
//!
//! The tests compare two engines with it, `jinabert doctor` checks a device with it, and the
//! benchmarks measure it.

mod clock;
mod compare;
pub mod roof;
mod seeded;
mod tolerance;

use crate::{
    activation::Activation,
    error::Error,
    kernels::{
        KernelVariant, Tier, Tile,
        attention::{self, SKIP_EPS},
        gather, layer_norm, linear, linear_geglu, pool,
    },
    recording::{Caps, Engine, Format, KernelId, Recording, Tensor},
};
pub use clock::Clock;
pub use compare::{Comparison, Tolerance, compare};
pub use seeded::UNWRITTEN;
use seeded::{Role, Seeded, offsets};

/// One dispatch of one kernel (one per part, for `embed`).
#[derive(Clone, Debug, PartialEq)]
pub enum KernelCase {
    /// Rows of a vocabulary in `parts` parts, then LayerNorm.
    Embed {
        /// T
        t: u32,
        /// D
        d: u32,
        /// V
        vocab: u32,
        /// Number of bindings for the vocabulary.
        parts: u32,
    },
    /// `activation(x·Wᵀ + bias)`
    Linear {
        /// T
        t: u32,
        /// N
        n: u32,
        /// K
        k: u32,
        /// Activation after product and bias.
        activation: Activation,
        /// Add a residual.
        residual: bool,
    },
    /// `activation(x·W_gᵀ) ⊙ (x·W_uᵀ)`
    LinearGeglu {
        /// T
        t: u32,
        /// F
        f: u32,
        /// K
        k: u32,
        /// True if the first half of the matrix is the gate.
        gate_first: bool,
        /// Activation of the gate.
        activation: Activation,
    },
    /// Maximum norm of the keys of each tile.
    KeyNorm {
        /// Tokens of each sequence.
        lengths: Vec<u32>,
        /// Number of a sequence's last tokens that are not keys; its first token always is one.
        query_only: u32,
        /// H
        heads: u32,
        /// E
        e: u32,
    },
    /// ALiBi attention over sequences.
    Attention {
        /// Tokens of each sequence.
        lengths: Vec<u32>,
        /// Number of a sequence's last tokens that are not keys; its first token always is one.
        query_only: u32,
        /// H
        heads: u32,
        /// E
        e: u32,
        /// Standard deviation of the scores before the bias: 1 is typical, 30 makes softmax a
        /// maximum.
        sharpness: f32,
        /// Maximum share of a row that may be skipped; 0 for none.
        skip_eps: f32,
    },
    /// Residual add and LayerNorm.
    LayerNorm {
        /// T
        t: u32,
        /// D
        d: u32,
        /// Add a residual.
        residual: bool,
        /// Offset of all elements of x: a large mean breaks one-pass variances.
        shift: f32,
    },
    /// Mean, truncation, norm.
    Pool {
        /// T
        t: u32,
        /// Spans: first token and end, exclusive.
        spans: Vec<[u32; 2]>,
        /// D
        d: u32,
        /// Number of components kept.
        dims: u32,
        /// Divide by the L2 norm.
        normalize: bool,
    },
    /// Rows of a matrix.
    Gather {
        /// T
        t: u32,
        /// D
        d: u32,
        /// Rows to gather.
        rows: Vec<u32>,
    },
}

/// A case recorded on an engine.
pub struct Recorded {
    /// Recording to run.
    pub recording: Recording,
    /// Result of the recording.
    pub output: Tensor,
}

/// Minimum cost of a case.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Floating-point operations; a multiply-add is two.
    pub flops: f64,
    /// Bytes that must be read or written, each counted once.
    pub bytes: f64,
}

/// Spans of sequences laid end to end.
pub fn sequences(lengths: &[u32]) -> Vec<[u32; 2]> {
    offsets(lengths).windows(2).map(|range| [range[0], range[1]]).collect()
}

impl KernelCase {
    /// A product without activation.
    pub fn linear(t: u32, n: u32, k: u32, residual: bool) -> Self {
        Self::Linear { t, n, k, activation: Activation::Identity, residual }
    }

    /// Unit vectors of sequences of the given lengths.
    pub fn pool(lengths: &[u32], d: u32) -> Self {
        let t = lengths.iter().sum();
        let spans = sequences(lengths);
        Self::Pool { t, spans, d, dims: d, normalize: true }
    }

    /// The kernel.
    pub fn kernel(&self) -> KernelId {
        match self {
            Self::Embed { .. } => KernelId::Embed,
            Self::Linear { .. } => KernelId::Linear,
            Self::LinearGeglu { .. } => KernelId::LinearGeglu,
            Self::KeyNorm { .. } => KernelId::KeyNorm,
            Self::Attention { .. } => KernelId::Attention,
            Self::LayerNorm { .. } => KernelId::LayerNorm,
            Self::Pool { .. } => KernelId::Pool,
            Self::Gather { .. } => KernelId::Gather,
        }
    }

    /// Variants of a device with different kernels for this case: for products and attention
    /// every tier, for the others one per storage format of their tensors.
    pub fn variants(&self, caps: &Caps) -> Vec<KernelVariant> {
        let own = |variant: KernelVariant| {
            let tier = Some(variant.tier).filter(|tier| match self {
                Self::Linear { .. } | Self::LinearGeglu { .. } | Self::Attention { .. } => true,
                _ => tier.format() == Format::F32 && caps.cpu,
            });
            // Only products have subgroup-matrix variants.
            let tier = match (self, tier) {
                (Self::Attention { .. }, Some(Tier::Matrix { .. })) => Some(Tier::Tiled),
                (_, tier) => tier,
            };
            let stream = variant.stream();
            let wide = variant.wide();
            let formats = match self {
                Self::Embed { .. } => [stream, variant.table()],
                Self::Linear { .. } | Self::LinearGeglu { .. } => [variant.weights(), wide],
                Self::KeyNorm { .. } | Self::Attention { .. } => [wide, wide],
                Self::LayerNorm { .. } => [stream, wide],
                Self::Pool { .. } | Self::Gather { .. } => [stream, stream],
            };
            (tier, formats)
        };
        let all = KernelVariant::all(caps);
        let new = |n: &usize| all[..*n].iter().all(|&other| own(other) != own(all[*n]));
        (0..all.len()).filter(new).map(|n| all[n]).collect()
    }

    /// Tiles that a variant's kernel for this case may have, the default last: more than one
    /// only for products.
    pub fn tiles(&self, variant: impl Into<KernelVariant>) -> Vec<Tile> {
        let tier = variant.into().tier;
        match self {
            Self::Linear { .. } | Self::LinearGeglu { .. } => {
                Tile::by_rows(tier).into_iter().map(|(_, tile)| tile).collect()
            }
            _ => vec![Tile::new(tier)],
        }
    }

    /// Uploads seeded inputs and records the dispatch, with the default tile.
    ///
    /// # Errors
    /// Errors of [`Engine::upload`].
    pub fn record(
        &self,
        engine: &mut dyn Engine,
        variant: impl Into<KernelVariant>,
        seed: u64,
    ) -> Result<Recorded, Error> {
        let variant = variant.into();
        self.record_tiled(engine, variant, Tile::new(variant.tier), seed)
    }

    /// As [`KernelCase::record`], with a given tile of the variant's tier for a product.
    ///
    /// # Errors
    /// Errors of [`Engine::upload`].
    pub fn record_tiled(
        &self,
        engine: &mut dyn Engine,
        variant: impl Into<KernelVariant>,
        tile: Tile,
        seed: u64,
    ) -> Result<Recorded, Error> {
        let variant = variant.into();
        let tier = variant.tier;
        assert_eq!(tile.layout(), Tile::new(tier).layout(), "a tile of another tier");
        let mut data = Seeded { engine, variant, state: seed };
        let mut recording = Recording::new();
        let output = match *self {
            Self::Embed { t, d, vocab, parts } => {
                data.embed(&mut recording, [t, d, vocab, parts])?
            }
            Self::Linear { t, n, k, activation, residual } => {
                let usual = linear::Spec::new(variant, residual);
                let spec = linear::Spec { tile, activation, ..usual };
                let x_role = if residual { Role::Wide } else { Role::Stream };
                let y_role = if residual { Role::Stream } else { Role::Wide };
                let x = data.normal([t, k], 1.0, x_role)?;
                let w = data.weights([n, k], |w, shape| tile.layout().arrange(w, shape))?;
                let bias = data.vector(n, 1.0, 0.0)?;
                let y = data.undefined([t, n], y_role)?;
                let r = if residual { data.normal([t, n], 1.0, Role::Stream)? } else { x };
                let kernel = linear::kernel(spec);
                let args = linear::Args { x: &x, w: &w, bias: &bias, r: &r, y: &y };
                linear::record(&mut recording, &kernel, args);
                y
            }
            Self::LinearGeglu { t, f, k, gate_first, activation } => {
                let x = data.normal([t, k], 2.0, Role::Stream)?;
                let arrange = |w, shape| linear_geglu::arrange(tier, gate_first, w, shape);
                let w = data.weights([2 * f, k], arrange)?;
                let h = data.undefined([t, f], Role::Wide)?;
                let usual = linear_geglu::Spec::new(variant, gate_first, activation);
                let spec = linear_geglu::Spec { tile, ..usual };
                let args = linear_geglu::Args { x: &x, w: &w, h: &h };
                linear_geglu::record(&mut recording, &linear_geglu::kernel(spec), args);
                h
            }
            Self::KeyNorm { ref lengths, query_only, heads, e } => {
                // Columns of a wider tensor, as in the model.
                let shape = [lengths.iter().sum(), heads * e + 4];
                let wide = data.normal(shape, 1.0, Role::Wide)?;
                let k = wide.columns(4..4 + heads * e);
                data.key_norm(&mut recording, (lengths, query_only), &k, e)?.norms
            }
            Self::Attention { ref lengths, query_only, heads, e, sharpness, skip_eps } => {
                let sequences = (&lengths[..], query_only);
                let skip = attention::skip(skip_eps);
                data.attention(&mut recording, sequences, [heads, e], sharpness, skip)?
            }
            Self::LayerNorm { t, d, residual, shift } => {
                let x = data.shifted([t, d], 1.0, shift, Role::Stream)?;
                let r = data.normal([t, d], 1.0, Role::Stream)?;
                let gamma = data.vector(d, 0.2, 1.0)?;
                let beta = data.vector(d, 0.5, 0.0)?;
                let y = data.undefined([t, d], Role::Wide)?;
                let spec = layer_norm::Spec::wide(variant, d);
                let kernel = layer_norm::kernel(layer_norm::Spec { residual, ..spec });
                let args = layer_norm::Args { x: &x, r: &r, gamma: &gamma, beta: &beta, y: &y };
                layer_norm::record(&mut recording, &kernel, args, 1e-12);
                y
            }
            Self::Pool { t, ref spans, d, dims, normalize } => {
                let x = data.shifted([t, d], 1.0, 0.3, Role::Stream)?;
                let n = spans.len() as u32;
                let y = data.plain([n, dims], &vec![UNWRITTEN; (n * dims) as usize])?;
                let spans = data.integers([n, 2], spans.as_flattened())?;
                let kernel = pool::kernel(pool::Spec::new(variant, d));
                let args = pool::Args { x: &x, spans: &spans, y: &y };
                pool::record(&mut recording, &kernel, args, normalize);
                y
            }
            Self::Gather { t, d, ref rows } => {
                let x = data.normal([t, d], 1.0, Role::Stream)?;
                let n = rows.len() as u32;
                let rows = data.integers([n], rows)?;
                let y = data.undefined([n, d], Role::Stream)?;
                let kernel = gather::kernel(gather::Spec::new(variant, d));
                let args = gather::Args { x: &x, rows: &rows, y: &y };
                gather::record(&mut recording, &kernel, args);
                y
            }
        };
        Ok(Recorded { recording, output })
    }

    /// Minimum work for the case, with tensors stored as in a variant.
    pub fn work(&self, variant: impl Into<KernelVariant>) -> Work {
        let variant = variant.into();
        let size = |format: Format, n: u64| f64::from(format.bytes()) * n as f64;
        let stream = |n: u64| size(variant.stream(), n);
        let wide = |n: u64| size(variant.wide(), n);
        let weights = |n: u64| size(variant.weights(), n);
        let product = |sizes: &[u32]| sizes.iter().map(|&n| u64::from(n)).product::<u64>();
        match *self {
            Self::Embed { t, d, .. } => {
                let td = product(&[t, d]);
                let bytes = size(variant.table(), td) + stream(2 * td);
                Work { flops: 8.0 * td as f64, bytes }
            }
            Self::Linear { t, n, k, residual, .. } => {
                let inputs = product(&[t, k]);
                let outputs = product(&[t, n]);
                let activations = if residual {
                    wide(inputs) + stream(2 * outputs)
                } else {
                    stream(inputs) + wide(outputs)
                };
                Work {
                    flops: 2.0 * product(&[t, n, k]) as f64,
                    bytes: activations + weights(product(&[n, k])),
                }
            }
            Self::LinearGeglu { t, f, k, .. } => Work {
                flops: 4.0 * product(&[t, f, k]) as f64 + 25.0 * product(&[t, f]) as f64,
                bytes: stream(product(&[t, k]))
                    + weights(2 * product(&[f, k]))
                    + wide(product(&[t, f])),
            },
            Self::KeyNorm { ref lengths, query_only, heads, e } => {
                let keys: u32 = seeded::keys(lengths, query_only).iter().sum();
                let read = u64::from(keys) * product(&[heads, e]);
                Work { flops: 2.0 * read as f64, bytes: wide(read) }
            }
            Self::Attention { ref lengths, query_only, heads, e, .. } => {
                let d = product(&[heads, e]);
                let keys = seeded::keys(lengths, query_only);
                let pairs: u64 =
                    lengths.iter().zip(&keys).map(|(&n, &keys)| product(&[n, keys])).sum();
                let t: u32 = lengths.iter().chain(&keys).sum();
                Work { flops: 4.0 * (pairs * d) as f64, bytes: wide(2 * u64::from(t) * d) }
            }
            Self::LayerNorm { t, d, residual, .. } => {
                let td = product(&[t, d]);
                let tensors = if residual { 3 } else { 2 };
                Work { flops: 8.0 * td as f64, bytes: stream((tensors - 1) * td) + wide(td) }
            }
            Self::Pool { ref spans, d, dims, .. } => {
                let tokens: u64 = spans.iter().map(|&[start, end]| u64::from(end - start)).sum();
                let td = tokens * u64::from(d);
                let written = spans.len() as u64 * u64::from(dims);
                Work { flops: td as f64, bytes: stream(td + written) }
            }
            Self::Gather { d, ref rows, .. } => {
                let moved = rows.len() as u64 * u64::from(d);
                Work { flops: 0.0, bytes: stream(2 * moved) }
            }
        }
    }
}

impl KernelCase {
    /// Runs the case on `engine` and on the CPU reference, and compares.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn check(
        &self,
        engine: &mut dyn Engine,
        variant: impl Into<KernelVariant>,
        seed: u64,
    ) -> Result<Comparison, Error> {
        let variant = variant.into();
        self.check_tiled(engine, variant, Tile::new(variant.tier), seed)
    }

    /// As [`KernelCase::check`], with a given tile for a product.
    ///
    /// # Errors
    /// Errors of the engine.
    pub fn check_tiled(
        &self,
        engine: &mut dyn Engine,
        variant: impl Into<KernelVariant>,
        tile: Tile,
        seed: u64,
    ) -> Result<Comparison, Error> {
        let variant = variant.into();
        let mut reference = crate::cpu::Engine::new(Tier::Reference);
        let recorded =
            self.record(&mut reference, KernelVariant { tier: Tier::Reference, ..variant }, seed)?;
        let expected = reference.run(&recorded.recording, &recorded.output)?;
        let recorded = self.record_tiled(engine, variant, tile, seed)?;
        let actual = engine.run(&recorded.recording, &recorded.output)?;
        Ok(compare(&actual, &expected, self.tolerance(variant)))
    }
}

/// A small case for each kernel, for a quick device check.
pub fn samples() -> Vec<KernelCase> {
    let lengths = vec![1, 64, 65, 130];
    let gate_first = true;
    let activation = Activation::Gelu;
    vec![
        KernelCase::Embed { t: 37, d: 768, vocab: 300, parts: 2 },
        KernelCase::linear(130, 384, 768, true),
        KernelCase::LinearGeglu { t: 37, f: 768, k: 384, gate_first, activation },
        KernelCase::KeyNorm { lengths: lengths.clone(), query_only: 0, heads: 12, e: 64 },
        KernelCase::Attention {
            lengths: lengths.clone(),
            query_only: 0,
            heads: 12,
            e: 64,
            sharpness: 1.0,
            skip_eps: SKIP_EPS,
        },
        KernelCase::LayerNorm { t: 37, d: 768, residual: true, shift: 0.0 },
        KernelCase::pool(&lengths, 768),
        KernelCase::Gather { t: 260, d: 768, rows: vec![259, 0, 64, 64, 130] },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_has_a_sample() {
        let words: Vec<_> = samples().iter().map(KernelCase::kernel).collect();
        let kernels: Vec<_> =
            crate::kernels::ALL.iter().map(|interface| interface.kernel).collect();
        assert_eq!(words, kernels);
    }
}
