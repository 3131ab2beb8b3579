//! Adapters on a device: factors of every matrix, and the tensors between their products.

use super::{
    adapters::Adapters,
    architecture::Architecture,
    config::Config,
    loader::{Loader, TYPES, WORD},
};
use crate::{
    batch::PackedBatch,
    error::Error,
    kernels::KernelVariant,
    recording::{Engine, Format, Tensor},
};

/// Low-rank factors of one matrix, of all adapters and of one more that is zero.
pub struct Lora {
    /// \[n·R, K\]
    pub a: Tensor,
    /// \[n·R, N\]
    pub b: Tensor,
}

/// Factors of one encoder layer.
pub struct LayerLora {
    /// Of W_q, W_k and W_v, stacked.
    pub qkv: Lora,
    /// Of W_o
    pub proj: Lora,
    /// Of W_1
    pub up: Lora,
    /// Of W_2
    pub down: Lora,
}

/// Factors of all adapters.
pub struct LoraWeights {
    /// Number of adapters.
    count: u32,
    /// Factors of the word embeddings that a token chooses by its id, \[n, V, r\].
    words: Vec<f32>,
    /// r
    rank: usize,
    /// Product of a token's row of `words` and its type: A is the identity, B has the other factors
    /// of the word embeddings, and the adapter's token types.
    pub kinds: Lora,
    /// Encoder layers, in order.
    pub layers: Vec<LayerLora>,
}

/// Ranks of the products, multiples of 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranks {
    /// Of the rows added to the word embeddings: the rank, and one for each token type.
    pub kinds: u32,
    /// Of queries, keys and values.
    pub qkv: u32,
    /// Of all others.
    pub other: u32,
}

impl Ranks {
    /// Ranks of a checkpoint's adapters.
    ///
    /// # Errors
    /// [`Error::Model`] for factors of another shape.
    pub fn new(
        adapters: &Adapters,
        config: &Config,
        architecture: &Architecture,
    ) -> Result<Self, Error> {
        let qkv = adapters.qkv_rank(config, |n| qkv(architecture, n))?;
        let [kinds, qkv, other] =
            [adapters.rank() + config.types, qkv, adapters.rank()].map(|r| r.next_multiple_of(4));
        Ok(Self { kinds, qkv, other })
    }
}

/// Name of the stacked queries, keys and values.
fn qkv(architecture: &Architecture, n: u32) -> String {
    format!("{}.{n}.{}", architecture.layers, architecture.qkv[0])
}

impl Loader<'_> {
    /// Factors of all adapters.
    pub(super) fn lora(
        &mut self,
        adapters: &Adapters,
        ranks: Ranks,
        architecture: &Architecture,
    ) -> Result<LoraWeights, Error> {
        let Config { hidden: d, intermediate: f, layers, .. } = *self.config;
        let name = |n: u32, part: &str| format!("{}.{n}.{part}", architecture.layers);
        let layers = (0..layers).map(|n| {
            Ok(LayerLora {
                qkv: self.factors(adapters, &qkv(architecture, n), [3 * d, d], ranks.qkv)?,
                proj: self.factors(adapters, &name(n, architecture.proj), [d, d], ranks.other)?,
                up: self.factors(adapters, &name(n, architecture.up), [f, d], ranks.other)?,
                down: self.factors(adapters, &name(n, architecture.down), [d, f], ranks.other)?,
            })
        });
        let layers = layers.collect::<Result<_, Error>>()?;
        let (words, kinds) = self.embedding_factors(adapters, ranks.kinds)?;
        adapters.check_unused()?;
        let rank = adapters.rank() as usize;
        Ok(LoraWeights { count: adapters.count(), words, rank, kinds, layers })
    }

    fn factors(
        &mut self,
        adapters: &Adapters,
        name: &str,
        [n, k]: [u32; 2],
        rank: u32,
    ) -> Result<Lora, Error> {
        let factors = adapters.product(self.checkpoint, name, [n, k], rank)?;
        self.used.extend(adapters.names(name));
        let rows = (adapters.count() + 1) * rank;
        Ok(Lora {
            a: self.upload([rows, k].into(), factors.a.into())?,
            b: self.upload([rows, n].into(), factors.b.into())?,
        })
    }

    /// Factors of the word embeddings that a token chooses, and the product with the others.
    fn embedding_factors(
        &mut self,
        adapters: &Adapters,
        padded: u32,
    ) -> Result<(Vec<f32>, Lora), Error> {
        let Config { vocabulary, types, hidden: d, .. } = *self.config;
        let mut table = |name: &str, rows: u32| {
            let name = name.trim_end_matches(".weight");
            self.used.extend(adapters.names(name));
            adapters.table(self.checkpoint, name, [rows, d])
        };
        let [words, word_b] = table(WORD, vocabulary)?;
        let [type_a, type_b] = table(TYPES, types)?;
        let base = self.read(TYPES, &[types, d])?.widened().into_owned();
        let [rank, padded, types, width] =
            [adapters.rank(), padded, types, d].map(|size| size as usize);
        let mut b = Vec::new();
        for adapter in 0..=adapters.count() as usize {
            let mut rows = vec![0.0; padded * width];
            let (first, kinds) = rows.split_at_mut(rank * width);
            kinds[..types * width].copy_from_slice(&base);
            if adapter < adapters.count() as usize {
                let part = adapter * rank * width..(adapter + 1) * rank * width;
                first.copy_from_slice(&word_b[part.clone()]);
                let a = type_a[adapter * types * rank..].chunks_exact(rank);
                for (a, kind) in a.zip(kinds.chunks_exact_mut(width)).take(types) {
                    add_product(a, &type_b[part.clone()], kind);
                }
            }
            b.extend(rows);
        }
        let one = |row: usize| (0..padded).map(move |n| if n == row { 1.0 } else { 0.0 });
        let identity: Vec<f32> = (0..padded).flat_map(one).collect();
        let a = identity.repeat(adapters.count() as usize + 1);
        let rows = (adapters.count() + 1) * padded as u32;
        let kinds = Lora {
            a: self.upload([rows, padded as u32].into(), a.into())?,
            b: self.upload([rows, d].into(), b.into())?,
        };
        Ok((words, kinds))
    }
}

/// `y = y + a·B` for one row.
fn add_product(a: &[f32], b: &[f32], y: &mut [f32]) {
    let width = y.len();
    for (column, y) in y.iter_mut().enumerate() {
        let b = b[column..].iter().step_by(width);
        let sum: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        *y = (f64::from(*y) + sum) as f32;
    }
}

impl LoraWeights {
    /// Adapter of each token; the one of zeros for sequences without.
    fn adapters(&self, batch: &PackedBatch) -> Vec<u32> {
        let sequences = batch.cu_seqlens.windows(2).zip(&batch.adapters);
        let tokens = sequences.flat_map(|(range, adapter)| {
            let adapter = adapter.map_or(self.count, |adapter| adapter.0);
            (range[0]..range[1]).map(move |_| adapter)
        });
        tokens.collect()
    }

    /// Factors that each token chooses by its id and type, \[T, R\].
    fn chosen(&self, batch: &PackedBatch, adapters: &[u32]) -> Vec<f32> {
        let Self { words, rank, count, .. } = self;
        let [_, padded] = self.kinds.a.shape2();
        let vocabulary = words.len() / (rank * *count as usize);
        let mut rows = vec![0.0; adapters.len() * padded as usize];
        let tokens = batch.ids.iter().zip(&batch.type_ids).zip(adapters);
        for (row, ((&id, &kind), &adapter)) in rows.chunks_exact_mut(padded as usize).zip(tokens) {
            if adapter < *count {
                let word = (adapter as usize * vocabulary + id as usize) * rank;
                row[..*rank].copy_from_slice(&words[word..word + rank]);
            }
            row[rank + kind as usize] = 1.0;
        }
        rows
    }
}

/// Tensors between the products, which grow with the largest batch.
pub(super) struct LoraScratch {
    /// Adapter of each token, \[T\], `u32`.
    pub(super) adapters: Tensor,
    /// Factors of the embeddings, \[T, R\].
    pub(super) chosen: Tensor,
    /// Row added to each token's word embedding, \[T, D\].
    pub(super) kinds: Tensor,
    /// Result of a low-rank product, in the shape of the product that adds it.
    slab: Tensor,
    /// The slab for queries, keys and values, \[T, 3D\].
    pub(super) qkv: Tensor,
    /// The slab for the MLP's intermediate, \[R, F\].
    pub(super) up: Tensor,
    /// The slab in the format of the residual stream, \[T, D\].
    pub(super) stream: Tensor,
    variant: KernelVariant,
}

impl LoraScratch {
    pub(super) fn new(engine: &mut dyn Engine, variant: KernelVariant) -> Result<Self, Error> {
        let mut empty = |format| engine.alloc([0, 0].into(), format);
        let slab = empty(variant.wide())?;
        Ok(Self {
            adapters: empty(Format::F32)?,
            chosen: empty(Format::F32)?,
            kinds: empty(Format::F32)?,
            slab,
            qkv: slab,
            up: slab,
            stream: slab,
            variant,
        })
    }

    /// Sets the shapes for a batch whose MLP runs `rows` rows at a time, and uploads its adapters.
    pub(super) fn fit(
        &mut self,
        engine: &mut dyn Engine,
        weights: &LoraWeights,
        config: &Config,
        batch: &PackedBatch,
        rows: u32,
    ) -> Result<(), Error> {
        let Config { hidden: d, intermediate: f, .. } = *config;
        let t = batch.tokens();
        let adapters = weights.adapters(batch);
        let chosen = weights.chosen(batch, &adapters);
        let [_, padded] = weights.kinds.a.shape2();
        engine.resize(&mut self.adapters, [t].into())?;
        engine.write(&self.adapters, &adapters)?;
        engine.resize(&mut self.chosen, [t, padded].into())?;
        engine.write(&self.chosen, bytemuck::cast_slice(&chosen))?;
        engine.resize(&mut self.kinds, [t, d].into())?;
        self.qkv = self.slab.shaped([t, 3 * d]);
        self.up = self.slab.shaped([rows, f]);
        self.stream = self.slab.viewed([t, d], self.variant.stream());
        engine.reserve(&[self.qkv, self.up, self.stream])
    }

    /// All tensors, to release them.
    pub(super) fn tensors(&self) -> [Tensor; 4] {
        [self.adapters, self.chosen, self.kinds, self.slab]
    }
}
