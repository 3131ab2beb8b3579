//! Inputs from a counter: the same seed gives the same data on every engine and in every tier.

use super::offsets;
use crate::{
    elements::TensorData,
    error::Error,
    kernels::{Dtype, KernelVariant, attention, key_norm, work_list},
    recording::{Engine, Format, Recording, Shape, Tensor},
};

/// Number of keys of each sequence if the last `query_only` tokens are not keys.
pub(super) fn keys(lengths: &[u32], query_only: u32) -> Vec<u32> {
    lengths.iter().map(|n| n.saturating_sub(query_only).max(1)).collect()
}

/// Role of a tensor, which determines its storage format.
#[derive(Clone, Copy)]
pub(super) enum Role {
    Stream,
    Wide,
    Weights,
    Table,
    /// A table in bf16, whatever the variant.
    BrainTable,
}

/// Creates tensors from a counter: the same seed gives the same data on every engine.
pub struct Seeded<'a> {
    engine: &'a mut dyn Engine,
    pub(super) variant: KernelVariant,
    state: u64,
}

impl<'a> Seeded<'a> {
    pub(super) fn new(engine: &'a mut dyn Engine, variant: KernelVariant, seed: u64) -> Self {
        Self { engine, variant, state: seed }
    }

    /// Next number of splitmix64 (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Almost normal with mean 0: the sum of twelve uniform 5-bit numbers has a deviation of 32.
    fn draw(&mut self) -> f32 {
        let bits = self.next();
        let sum: u64 = (0..12).map(|n| (bits >> (5 * n)) & 31).sum();
        (sum as f32 - 186.0) / 31.98
    }

    pub(super) fn normal(
        &mut self,
        shape: [u32; 2],
        deviation: f32,
        role: Role,
    ) -> Result<Tensor, Error> {
        self.shifted(shape, deviation, 0.0, role)
    }

    pub(super) fn drawn(&mut self, n: usize, deviation: f32, mean: f32) -> Vec<f32> {
        (0..n).map(|_| mean + deviation * self.draw()).collect()
    }

    /// An activation, in the variant's format.
    pub(super) fn shifted(
        &mut self,
        shape: [u32; 2],
        deviation: f32,
        mean: f32,
        role: Role,
    ) -> Result<Tensor, Error> {
        let data = self.drawn(Shape::from(shape).len(), deviation, mean);
        self.store(shape, data, role)
    }

    /// An output, filled with a value that no kernel computes, so that unwritten elements show.
    pub(super) fn undefined(&mut self, shape: [u32; 2], role: Role) -> Result<Tensor, Error> {
        self.store(shape, vec![UNWRITTEN; Shape::from(shape).len()], role)
    }

    /// Uploads a matrix.  Matrices that a variant stores in f16 are rounded on every engine, so
    /// that the reference has the same values.
    fn store(
        &mut self,
        shape: impl Into<Shape>,
        mut data: Vec<f32>,
        role: Role,
    ) -> Result<Tensor, Error> {
        let of = |variant: KernelVariant| match role {
            Role::Stream => variant.stream(),
            Role::Wide => variant.wide(),
            Role::Weights => variant.weights(),
            Role::Table => variant.table(),
            Role::BrainTable => Format::BF16,
        };
        // Wide activations are f16 only in buffers; f16 inputs are exact in wider formats, too.
        let half = match role {
            Role::Stream | Role::BrainTable => false,
            Role::Weights if self.variant.half_weights => true,
            _ => self.variant.dtype == Dtype::F16,
        };
        if half {
            data = TensorData::f16(&TensorData::from(data).to_f16()).widened().into_owned();
        }
        if let Role::BrainTable = role {
            data = TensorData::bf16(&TensorData::from(data).to_bf16()).widened().into_owned();
        }
        self.engine.upload(shape.into(), of(self.variant), data.into())
    }

    /// Matrix of a product, \[N, K\], in the order of `arrange`.
    pub(super) fn weights(
        &mut self,
        [n, k]: [u32; 2],
        arrange: impl FnOnce(TensorData<'static>, [u32; 2]) -> (Shape, TensorData<'static>),
    ) -> Result<Tensor, Error> {
        let w = self.drawn(n as usize * k as usize, 1.0 / (k as f32).sqrt(), 0.0);
        let (shape, w) = arrange(w.into(), [n, k]);
        self.store(shape, w.widened().into_owned(), Role::Weights)
    }

    /// f32 values in a buffer, in every tier.
    pub(super) fn plain(&mut self, shape: impl Into<Shape>, data: &[f32]) -> Result<Tensor, Error> {
        self.engine.upload(shape.into(), Format::F32, data.into())
    }

    pub(super) fn vector(&mut self, n: u32, deviation: f32, mean: f32) -> Result<Tensor, Error> {
        let data = self.drawn(n as usize, deviation, mean);
        self.plain([n], &data)
    }

    pub(super) fn integers(
        &mut self,
        shape: impl Into<Shape>,
        data: &[u32],
    ) -> Result<Tensor, Error> {
        let tensor = self.engine.alloc(shape.into(), Format::F32)?;
        self.engine.write(&tensor, data)?;
        Ok(tensor)
    }

    /// Numbers below `end`.
    pub(super) fn drawn_integers(&mut self, n: u32, end: u32) -> Result<Tensor, Error> {
        let drawn: Vec<u32> = (0..n).map(|_| (self.next() % u64::from(end)) as u32).collect();
        self.integers([n], &drawn)
    }

    /// Queries, keys and values, \[T, 3D\], as the output of one product.
    pub(super) fn projections(
        &mut self,
        lengths: &[u32],
        [heads, e]: [u32; 2],
        sharpness: f32,
    ) -> Result<Tensor, Error> {
        let t = lengths.iter().sum::<u32>();
        let d = heads * e;
        let mut qkv = self.drawn(3 * (t * d) as usize, 1.0, 0.0);
        for row in qkv.chunks_exact_mut(3 * d as usize) {
            row[..d as usize].iter_mut().for_each(|q| *q *= sharpness);
        }
        self.store([t, 3 * d], qkv, Role::Wide)
    }

    /// Records `key_norm` for the keys of sequences: all but the last `query_only` tokens.
    pub(super) fn key_norm(
        &mut self,
        rec: &mut Recording,
        (lengths, query_only): (&[u32], u32),
        k: &Tensor,
        e: u32,
    ) -> Result<Keys, Error> {
        let heads = k.shape2()[1] / e;
        let list = work_list::tiles(&offsets(lengths), &keys(lengths, query_only), attention::TILE);
        let count = list.len() as u32;
        let keys = work_list::tile_keys(&list);
        let tiles = self.integers([count, 4], list.as_flattened())?;
        let norms = self.plain([count, heads], &vec![UNWRITTEN; (count * heads) as usize])?;
        let kernel = key_norm::kernel(key_norm::Spec::new(self.variant, e));
        let args = key_norm::Args { k, tiles: &tiles, norms: &norms };
        key_norm::record(rec, &kernel, args);
        Ok(Keys { keys, tiles, norms })
    }
}

/// Work list and norms of some keys.
pub(super) struct Keys {
    /// Number of keys of each tile.
    pub(super) keys: Vec<u32>,
    pub(super) tiles: Tensor,
    pub(super) norms: Tensor,
}

/// Initial value of [`Recorded::output`](super::Recorded::output).
pub const UNWRITTEN: f32 = -7.777e7;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Tier;

    #[test]
    fn the_draw_is_standard_normal() {
        let mut engine = crate::cpu::Engine::new(Tier::Reference);
        let mut data = Seeded::new(&mut engine, Tier::Reference.into(), 1);
        let sample: Vec<f64> = (0..100_000).map(|_| f64::from(data.draw())).collect();
        let mean = sample.iter().sum::<f64>() / 1e5;
        let variance = sample.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
    }
}
