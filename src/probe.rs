//! A kernel on its own: a problem of a given shape on seeded data, recorded on any engine.
//!
//! The tests compare two engines on it, `jinabert doctor` checks a device with it, and the
//! benchmarks time it.

use crate::{
    batch,
    error::Error,
    kernels::{Tier, attention, embed, geglu, geglu::Activation, layer_norm, linear, pool},
    model::alibi,
    recording::{Engine, Recording, Shape, Tensor},
};
use std::fmt;

/// One dispatch of one kernel (of each part, for `embed`).
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// Rows of a vocabulary in `parts` parts, LayerNorm.
    Embed {
        /// T
        t: u32,
        /// D
        d: u32,
        /// V
        vocab: u32,
        /// Bindings that the vocabulary is spread over.
        parts: u32,
    },
    /// `x·Wᵀ + bias`
    Linear {
        /// T
        t: u32,
        /// N
        n: u32,
        /// K
        k: u32,
    },
    /// ALiBi attention over sequences of these lengths.
    Attention {
        /// Tokens of each sequence.
        lengths: Vec<u32>,
        /// H
        heads: u32,
        /// E
        e: u32,
        /// Standard deviation of the scores before the bias: 1 is typical, 30 makes softmax a
        /// maximum.
        sharpness: f32,
    },
    /// Residual add and LayerNorm.
    LayerNorm {
        /// T
        t: u32,
        /// D
        d: u32,
        /// Whether there is a residual.
        residual: bool,
        /// Added to every element of x: a large mean is where one-pass variances fail.
        shift: f32,
    },
    /// `activation(gate) ⊙ up`
    Geglu {
        /// T
        t: u32,
        /// F
        f: u32,
        /// Which half is activated.
        gate_first: bool,
        /// By which function.
        activation: Activation,
    },
    /// Mean, cut, norm.
    Pool {
        /// Tokens of each sequence.
        lengths: Vec<u32>,
        /// D
        d: u32,
        /// Components kept.
        dims: u32,
        /// Whether to divide by the norm.
        normalize: bool,
    },
}

/// A problem on an engine.
pub struct Recorded {
    /// What to run.
    pub recording: Recording,
    /// What it computes.
    pub output: Tensor,
}

/// What a problem costs at the least.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Floating-point operations; a multiply-add is two.
    pub flops: f64,
    /// Bytes that must be read or written once.
    pub bytes: f64,
}

impl Problem {
    /// The kernel's word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Embed { .. } => "embed",
            Self::Linear { .. } => "linear",
            Self::Attention { .. } => "attention",
            Self::LayerNorm { .. } => "layer_norm",
            Self::Geglu { .. } => "geglu",
            Self::Pool { .. } => "pool",
        }
    }

    /// Whether the tiers have kernels of their own for it.
    pub fn tiered(&self) -> bool {
        matches!(self, Self::Linear { .. } | Self::Attention { .. })
    }

    /// Uploads seeded inputs and records the dispatch.
    ///
    /// # Errors
    /// Those of [`Engine::upload`].
    pub fn record(
        &self,
        engine: &mut dyn Engine,
        tier: Tier,
        seed: u64,
    ) -> Result<Recorded, Error> {
        let mut data = Seeded { engine, state: seed };
        let mut recording = Recording::new();
        let output = match *self {
            Self::Embed { t, d, vocab, parts } => {
                data.embed(&mut recording, [t, d, vocab, parts])?
            }
            Self::Linear { t, n, k } => {
                let x = data.normal([t, k], 1.0)?;
                let w = data.normal([n, k], 1.0 / (k as f32).sqrt())?;
                let (bias, y) = (data.normal([n], 1.0)?, data.undefined([t, n])?);
                let kernel = linear::kernel(linear::Spec::new(tier));
                let args = linear::Args { x: &x, w: &w, bias: &bias, y: &y };
                linear::record(&mut recording, &kernel, args);
                y
            }
            Self::Attention { ref lengths, heads, e, sharpness } => {
                data.attention(&mut recording, tier, lengths, [heads, e], sharpness)?
            }
            Self::LayerNorm { t, d, residual, shift } => {
                let (x, r) = (data.shifted([t, d], 1.0, shift)?, data.normal([t, d], 1.0)?);
                let (gamma, beta) = (data.shifted([d], 0.2, 1.0)?, data.normal([d], 0.5)?);
                let y = data.undefined([t, d])?;
                let kernel = layer_norm::kernel(layer_norm::Spec::new(d, residual));
                let args = layer_norm::Args { x: &x, r: &r, gamma: &gamma, beta: &beta, y: &y };
                layer_norm::record(&mut recording, &kernel, args, 1e-12);
                y
            }
            Self::Geglu { t, f, gate_first, activation } => {
                let (gate_up, h) = (data.normal([t, 2 * f], 3.0)?, data.undefined([t, f])?);
                let kernel = geglu::kernel(geglu::Spec::new(f, gate_first, activation));
                geglu::record(&mut recording, &kernel, geglu::Args { gate_up: &gate_up, h: &h });
                h
            }
            Self::Pool { ref lengths, d, dims, normalize } => {
                let cu_seqlens = offsets(lengths);
                let t = cu_seqlens[lengths.len()];
                let x = data.shifted([t, d], 1.0, 0.3)?;
                let y = data.undefined([lengths.len() as u32, dims])?;
                let cu_seqlens = data.integers([cu_seqlens.len() as u32], &cu_seqlens)?;
                let kernel = pool::kernel(pool::Spec::new(d));
                let args = pool::Args { x: &x, cu_seqlens: &cu_seqlens, y: &y };
                pool::record(&mut recording, &kernel, args, normalize);
                y
            }
        };
        Ok(Recorded { recording, output })
    }

    /// The least work that solves it.
    pub fn work(&self) -> Work {
        let elements = |n: u64| 4.0 * n as f64;
        let product = |sizes: &[u32]| sizes.iter().map(|&n| u64::from(n)).product::<u64>();
        match *self {
            Self::Embed { t, d, .. } => {
                let td = product(&[t, d]);
                Work { flops: 8.0 * td as f64, bytes: elements(3 * td) }
            }
            Self::Linear { t, n, k } => Work {
                flops: 2.0 * product(&[t, n, k]) as f64,
                bytes: elements(product(&[t, k]) + product(&[n, k]) + product(&[t, n])),
            },
            Self::Attention { ref lengths, heads, e, .. } => {
                let d = product(&[heads, e]);
                let pairs: u64 = lengths.iter().map(|&n| u64::from(n).pow(2)).sum();
                let t: u64 = lengths.iter().map(|&n| u64::from(n)).sum();
                Work { flops: 4.0 * (pairs * d) as f64, bytes: elements(4 * t * d) }
            }
            Self::LayerNorm { t, d, residual, .. } => {
                let td = product(&[t, d]);
                let tensors = if residual { 3 } else { 2 };
                Work { flops: 8.0 * td as f64, bytes: elements(tensors * td) }
            }
            Self::Geglu { t, f, .. } => {
                let tf = product(&[t, f]);
                Work { flops: 25.0 * tf as f64, bytes: elements(3 * tf) }
            }
            Self::Pool { ref lengths, d, dims, .. } => {
                let td = lengths.iter().map(|&n| u64::from(n)).sum::<u64>() * u64::from(d);
                let written = lengths.len() as u64 * u64::from(dims);
                Work { flops: td as f64, bytes: elements(td + written) }
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |lengths: &[u32]| lengths.iter().map(|&n| u64::from(n)).sum::<u64>();
        write!(f, "{} ", self.word())?;
        match self {
            Self::Embed { t, d, vocab, parts } => write!(f, "T{t} D{d} V{vocab} parts{parts}"),
            Self::Linear { t, n, k } => write!(f, "T{t} N{n} K{k}"),
            Self::Attention { lengths, heads, e, sharpness } => {
                write!(f, "B{} T{} H{heads} E{e} σ{sharpness}", lengths.len(), sum(lengths))
            }
            Self::LayerNorm { t, d, residual, shift } => {
                write!(f, "T{t} D{d}{}", if *residual { " +r" } else { "" })?;
                if *shift != 0.0 { write!(f, " mean{shift}") } else { Ok(()) }
            }
            Self::Geglu { t, f: width, gate_first, activation } => {
                let half = if *gate_first { "first" } else { "second" };
                write!(f, "T{t} F{width} {half} {activation:?}")
            }
            Self::Pool { lengths, d, dims, normalize } => {
                write!(f, "B{} T{} D{d} dims{dims}", lengths.len(), sum(lengths))?;
                f.write_str(if *normalize { " norm" } else { "" })
            }
        }
    }
}

/// First token of each sequence, and the total.
fn offsets(lengths: &[u32]) -> Vec<u32> {
    let mut total = 0;
    std::iter::once(0)
        .chain(lengths.iter().map(|n| {
            total += n;
            total
        }))
        .collect()
}

/// Makes tensors from a counter: the same seed gives the same data on every engine.
struct Seeded<'a> {
    engine: &'a mut dyn Engine,
    state: u64,
}

impl Seeded<'_> {
    /// splitmix64 (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Close to normal with mean 0: the sum of twelve uniform 5-bit numbers has a deviation of 32.
    fn draw(&mut self) -> f32 {
        let bits = self.next();
        let sum: u64 = (0..12).map(|n| (bits >> (5 * n)) & 31).sum();
        (sum as f32 - 186.0) / 31.98
    }

    fn normal(&mut self, shape: impl Into<Shape>, deviation: f32) -> Result<Tensor, Error> {
        self.shifted(shape, deviation, 0.0)
    }

    fn shifted(
        &mut self,
        shape: impl Into<Shape>,
        deviation: f32,
        mean: f32,
    ) -> Result<Tensor, Error> {
        let shape = shape.into();
        let data: Vec<f32> = (0..shape.len()).map(|_| mean + deviation * self.draw()).collect();
        self.engine.upload(shape, &data)
    }

    /// A result, full of a value that no kernel computes, so that what is not written shows.
    fn undefined(&mut self, shape: impl Into<Shape>) -> Result<Tensor, Error> {
        let shape = shape.into();
        self.engine.upload(shape, &vec![UNWRITTEN; shape.len()])
    }

    fn integers(&mut self, shape: impl Into<Shape>, data: &[u32]) -> Result<Tensor, Error> {
        let tensor = self.engine.alloc(shape.into())?;
        self.engine.write(&tensor, data);
        Ok(tensor)
    }

    fn embed(&mut self, rec: &mut Recording, sizes: [u32; 4]) -> Result<Tensor, Error> {
        let [t, d, vocab, parts] = sizes;
        let ids: Vec<u32> = (0..t).map(|_| (self.next() % u64::from(vocab)) as u32).collect();
        let type_ids: Vec<u32> = (0..t).map(|_| (self.next() % 2) as u32).collect();
        let (ids, type_ids) = (self.integers([t], &ids)?, self.integers([t], &type_ids)?);
        let kind = self.normal([2, d], 0.04)?;
        let (gamma, beta) = (self.shifted([d], 0.2, 1.0)?, self.normal([d], 0.5)?);
        let x = self.undefined([t, d])?;
        let kernel = embed::kernel(embed::Spec::new(d));
        let step = vocab.div_ceil(parts);
        for first in (0..vocab).step_by(step as usize) {
            let word = self.normal([step.min(vocab - first), d], 0.05)?;
            let args = embed::Args {
                ids: &ids,
                type_ids: &type_ids,
                word: &word,
                kind: &kind,
                gamma: &gamma,
                beta: &beta,
                x: &x,
            };
            embed::record(rec, &kernel, args, first, 1e-12);
        }
        Ok(x)
    }

    fn attention(
        &mut self,
        rec: &mut Recording,
        tier: Tier,
        lengths: &[u32],
        [heads, e]: [u32; 2],
        sharpness: f32,
    ) -> Result<Tensor, Error> {
        let cu_seqlens = offsets(lengths);
        let shape = [cu_seqlens[lengths.len()], heads * e];
        let q = self.normal(shape, sharpness)?;
        let (k, v) = (self.normal(shape, 1.0)?, self.normal(shape, 1.0)?);
        let context = self.undefined(shape)?;
        let slopes = self.engine.upload([heads].into(), &alibi::slopes(heads as usize))?;
        let tiles = batch::tiles(&cu_seqlens, attention::TILE);
        let tiles = self.integers([tiles.len() as u32, 2], tiles.as_flattened())?;
        let cu_seqlens = self.integers([cu_seqlens.len() as u32], &cu_seqlens)?;
        let kernel = attention::kernel(attention::Spec::new(tier, e));
        let args = attention::Args {
            q: &q,
            k: &k,
            v: &v,
            slopes: &slopes,
            cu_seqlens: &cu_seqlens,
            tiles: &tiles,
            context: &context,
        };
        attention::record(rec, &kernel, args);
        Ok(context)
    }
}

/// What [`Recorded::output`] holds before it is computed.
pub const UNWRITTEN: f32 = -7.777e7;

/// How far a device may be from the twin.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Absolute part.
    pub atol: f32,
    /// Part relative to the twin's value.
    pub rtol: f32,
}

impl Problem {
    /// Bounds for f32, from the number of terms in the longest sum of the problem.
    ///
    /// Inputs are of order 1, so an f32 sum of n products carries about √n·2⁻²⁴ of the terms' size
    /// at random and n·2⁻²⁴ at worst.  The bounds are ten or more times what lavapipe and
    /// SwiftShader show, and a hundredth of what the mildest mutation in CONTRIBUTING's table
    /// causes.
    pub fn tolerance(&self) -> Tolerance {
        match *self {
            Self::Linear { k, .. } => {
                Tolerance { atol: 2e-7 * (k as f32).sqrt() + 2e-6, rtol: 1e-5 }
            }
            // exp turns an absolute error of the score into a relative one of the weight
            Self::Attention { sharpness, .. } => {
                Tolerance { atol: 5e-6 * (1.0 + sharpness), rtol: 1e-5 }
            }
            Self::Embed { .. } => Tolerance { atol: 5e-6, rtol: 1e-5 },
            // the input's own rounding, at the size of its mean
            Self::LayerNorm { shift, .. } => {
                Tolerance { atol: 5e-6 + 1e-6 * shift.abs(), rtol: 1e-5 }
            }
            Self::Geglu { .. } => Tolerance { atol: 2e-6, rtol: 5e-6 },
            Self::Pool { .. } => Tolerance { atol: 1e-6, rtol: 1e-5 },
        }
    }

    /// Runs the problem on `engine` and on the twin, and compares.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn check(&self, engine: &mut dyn Engine, tier: Tier, seed: u64) -> Result<Checked, Error> {
        let mut twin = crate::cpu::Engine::new(Tier::Naive);
        let recorded = self.record(&mut twin, Tier::Naive, seed)?;
        let expected = twin.run(&recorded.recording, &recorded.output)?;
        let recorded = self.record(engine, tier, seed)?;
        let actual = engine.run(&recorded.recording, &recorded.output)?;
        Ok(compare(&actual, &expected, self.tolerance()))
    }
}

/// A comparison with the twin.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Largest absolute difference.
    pub error: f32,
    /// Elements beyond the tolerance.
    pub wrong: usize,
    /// Elements compared.
    pub total: usize,
    /// The ten worst: index, computed, expected.
    pub worst: Vec<(usize, f32, f32)>,
}

/// Compares element by element; what is not finite is wrong.
pub fn compare(actual: &[f32], expected: &[f32], Tolerance { atol, rtol }: Tolerance) -> Checked {
    assert_eq!(actual.len(), expected.len(), "elements");
    let off = |a: f32, e: f32| if a.is_finite() { (a - e).abs() } else { f32::INFINITY };
    let pairs = || actual.iter().zip(expected).map(|(&a, &e)| (a, e)).enumerate();
    let wrong = pairs().filter(|(_, (a, e))| off(*a, *e) > atol + rtol * e.abs()).count();
    let error = pairs().map(|(_, (a, e))| off(a, e)).fold(0.0, f32::max);
    let mut worst: Vec<_> = pairs().map(|(n, (a, e))| (n, a, e)).collect();
    worst.sort_by(|x, y| off(y.1, y.2).total_cmp(&off(x.1, x.2)));
    worst.truncate(10);
    Checked { error, wrong, total: actual.len(), worst }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} elements wrong, max |Δ| {:.3e}", self.wrong, self.total, self.error)?;
        if self.wrong > 0 {
            for (n, actual, expected) in &self.worst {
                write!(f, "\n  [{n}] {actual:?} where {expected:?} is meant")?;
            }
        }
        Ok(())
    }
}

/// A small problem of every kernel, for a quick look at a device.
pub fn samples() -> Vec<Problem> {
    let lengths = vec![1, 64, 65, 130];
    vec![
        Problem::Embed { t: 37, d: 768, vocab: 300, parts: 2 },
        Problem::Linear { t: 130, n: 384, k: 768 },
        Problem::Attention { lengths: lengths.clone(), heads: 12, e: 64, sharpness: 1.0 },
        Problem::LayerNorm { t: 37, d: 768, residual: true, shift: 0.0 },
        Problem::Geglu { t: 37, f: 3072, gate_first: true, activation: Activation::Gelu },
        Problem::Pool { lengths, d: 768, dims: 768, normalize: true },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_has_a_sample() {
        let words: Vec<_> = samples().iter().map(Problem::word).collect();
        let kernels: Vec<_> = crate::kernels::ALL.iter().map(|kernel| kernel.word).collect();
        assert_eq!(words, kernels);
    }

    #[test]
    fn the_draw_is_standard_normal() {
        let mut engine = crate::cpu::Engine::new(Tier::Naive);
        let mut data = Seeded { engine: &mut engine, state: 1 };
        let sample: Vec<f64> = (0..100_000).map(|_| f64::from(data.draw())).collect();
        let mean = sample.iter().sum::<f64>() / 1e5;
        let variance = sample.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn comparison_counts_what_is_not_finite() {
        let tolerance = Tolerance { atol: 0.1, rtol: 0.0 };
        let checked = compare(&[1.0, f32::NAN, 3.2], &[1.05, 2.0, 3.0], tolerance);
        assert_eq!((checked.wrong, checked.worst[0].0, checked.worst[1].0), (2, 1, 2));
    }
}
