//! Upload of a checkpoint to a device, with every name, shape and value checked.

use super::{
    ModelFiles,
    architecture::{Architecture, BUCKETS, Mlp, POSITION, Positions},
    checkpoint::{Checkpoint, Dtype},
    config::Config,
    heads::Head,
    loader::{Linear, Loader, Norm, TYPES, WORD},
    lora::{LoraWeights, Ranks},
    task::HeadKind,
};
use crate::{
    error::Error,
    kernels::{KernelVariant, alibi, linear_geglu},
    recording::{Engine, Format, Tensor},
};
use std::{collections::BTreeSet, sync::Arc};

/// LayerNorms that only the code model's layers have.
pub struct QkNorms {
    /// LayerNorm of the queries, over the whole width.
    pub q: Norm,
    /// LayerNorm of the keys, over the whole width.
    pub k: Norm,
    /// LayerNorm after the second addition of the layer's input.
    pub residual: Norm,
}

/// Products for queries, keys and values.
pub enum Projections {
    /// One product, \[3D, D\].
    Fused(Linear),
    /// Separate products, \[D, D\] each: the code model normalises two of them.
    Apart {
        /// W_q
        q: Linear,
        /// W_k
        k: Linear,
        /// W_v
        v: Linear,
    },
}

/// First product of the MLP.
pub enum Up {
    /// \[2F, D\], in the order of [`linear_geglu::arrange`]; it has no bias.
    Gated(Tensor),
    /// \[F, D\]
    Plain(Linear),
}

/// One encoder layer.
pub struct Layer {
    /// W_q, W_k and W_v
    pub qkv: Projections,
    /// W_o
    pub proj: Linear,
    /// LayerNorm after attention.
    pub attention_norm: Norm,
    /// LayerNorms of the code model.
    pub qk: Option<QkNorms>,
    /// W_1
    pub up: Up,
    /// W_2
    pub down: Linear,
    /// LayerNorm after the MLP.
    pub mlp_norm: Norm,
}

/// Part of the word embeddings small enough for one binding.
pub struct WordPart {
    /// Vocabulary index of its first row.
    pub first: u32,
    /// \[rows, D\]
    pub rows: Tensor,
}

/// All weights of a model.
pub struct Weights {
    /// \[V, D\] in parts.
    pub word: Vec<WordPart>,
    /// Row added to a token's word embedding: of its type, \[types, D\], or of its type and
    /// position, \[types·P, D\].
    pub kind: Tensor,
    /// LayerNorm of the embeddings.
    pub embed_norm: Norm,
    /// Encoder layers, in order.
    pub layers: Vec<Layer>,
    /// Biases of the scores, \[H\], or a table of them.
    pub biases: Tensor,
    /// Head after the encoder.
    pub head: Arc<Head>,
    /// Adapters.
    pub lora: Option<LoraWeights>,
}

impl Weights {
    /// Checks names and shapes, then reads, widens and uploads one tensor after another.
    ///
    /// # Errors
    /// [`Error::Model`] for missing, unknown, misshapen or non-finite tensors; the engine's own.
    pub fn upload(
        files: &ModelFiles,
        variant: KernelVariant,
        table: Format,
        head: Option<HeadKind>,
        ranks: Option<Ranks>,
        engine: &mut dyn Engine,
    ) -> Result<Self, Error> {
        let ModelFiles { config, checkpoint, architecture, adapters, .. } = files;
        let used = BTreeSet::new();
        let mut loader = Loader { checkpoint, config, variant, table, engine, used };
        let weights = Self {
            word: loader.word()?,
            kind: loader.kinds(architecture)?,
            embed_norm: loader.norm_of(architecture, architecture.embed_norm)?,
            layers: (0..config.layers)
                .map(|n| loader.layer(n, architecture))
                .collect::<Result<_, _>>()?,
            biases: loader.biases(architecture)?,
            head: Arc::new(loader.head(head, architecture)?),
            lora: match (adapters, ranks) {
                (Some(adapters), Some(ranks)) => {
                    Some(loader.lora(adapters, ranks, architecture)?)
                }
                _ => None,
            },
        };
        loader.check_unused(architecture)?;
        Ok(weights)
    }
}

/// Storage format of the word embeddings: that of the file if it has 16 bits, which is exact.
pub fn table(checkpoint: &Checkpoint, variant: KernelVariant) -> Format {
    match checkpoint.dtype(WORD) {
        Some(Dtype::F16) => Format::F16,
        Some(Dtype::BF16) => Format::BF16,
        _ => variant.table(),
    }
}

impl Loader<'_> {
    /// Slopes of ALiBi, zeros, which change no score, or T5's biases.
    fn biases(&mut self, architecture: &Architecture) -> Result<Tensor, Error> {
        let Config { heads, buckets, .. } = *self.config;
        let biases = match architecture.positions {
            Positions::Alibi => alibi::slopes(heads as usize),
            Positions::Rotary | Positions::Absolute => vec![0.0; heads as usize],
            Positions::Relative => {
                buckets.table(&self.read(BUCKETS, &[buckets.count, heads])?.widened())
            }
        };
        self.upload([biases.len() as u32].into(), biases.into())
    }

    /// LayerNorm, or an RMSNorm without a bias.
    fn norm_of(&mut self, architecture: &Architecture, name: &str) -> Result<Norm, Error> {
        if architecture.biases { self.norm(name) } else { self.norm_without_bias(name) }
    }

    /// Product, with a bias if the architecture has biases.
    fn linear_of(
        &mut self,
        architecture: &Architecture,
        name: String,
        shape: [u32; 2],
    ) -> Result<Linear, Error> {
        if architecture.biases {
            self.linear(&[name], shape)
        } else {
            self.without_bias(&[name], shape)
        }
    }

    fn projections(&mut self, n: u32, architecture: &Architecture) -> Result<Projections, Error> {
        let Config { hidden: d, inner, .. } = *self.config;
        let names =
            architecture.qkv.iter().map(|part| format!("{}.{n}.{part}", architecture.layers));
        let names: Vec<_> = names.collect();
        if !architecture.biases {
            return Ok(Projections::Fused(self.without_bias(&names, [inner, d])?));
        }
        if !architecture.qk_norm {
            let rows = 3 * inner / names.len() as u32;
            return Ok(Projections::Fused(self.linear(&names, [rows, d])?));
        }
        let mut one = |n: usize| self.linear(&names[n..=n], [d, d]);
        Ok(Projections::Apart { q: one(0)?, k: one(1)?, v: one(2)? })
    }

    /// Rows that are added to the word embeddings.
    fn kinds(&mut self, architecture: &Architecture) -> Result<Tensor, Error> {
        let Config { types, hidden: d, .. } = *self.config;
        match architecture.positions {
            Positions::Absolute => {}
            Positions::Relative => {
                return self.upload([types, d].into(), vec![0.0; (types * d) as usize].into());
            }
            Positions::Alibi | Positions::Rotary => return self.matrix(TYPES, [types, d]),
        }
        let first = self.config.first_position.unwrap_or(0);
        let rows = first as usize + self.config.max_length;
        let rows = u32::try_from(rows)
            .map_err(|_| Error::Model(format!("max_position_embeddings is {rows}: too many")))?;
        let count = rows - first;
        let kinds = self.read(TYPES, &[types, d])?.widened().into_owned();
        let positions = self.read(POSITION, &[rows, d])?.widened().into_owned();
        let positions = &positions[(first * d) as usize..];
        let rows = kinds.chunks_exact(d as usize).flat_map(|kind| {
            let rows = positions.chunks_exact(d as usize);
            rows.flat_map(move |row| kind.iter().zip(row).map(|(kind, position)| kind + position))
        });
        let rows: Vec<f32> = rows.collect();
        self.upload([types * count, d].into(), rows.into())
    }

    /// Word embeddings, split to fit a binding: 61,056 × 768 in f32 are 188 MB, WebGPU guarantees
    /// 128 MiB.
    fn word(&mut self) -> Result<Vec<WordPart>, Error> {
        let Config { vocabulary, hidden, .. } = *self.config;
        let format = self.table;
        let values = if format == Format::BF16 {
            self.read(WORD, &[vocabulary, hidden])?
        } else {
            self.read_half(WORD, &[vocabulary, hidden])?
        };
        let row = u64::from(format.bytes()) * u64::from(hidden);
        let most = (self.engine.caps().max_binding_bytes / row).max(1);
        let step = most.min(u64::from(vocabulary)) as u32;
        let parts = (0..vocabulary).step_by(step as usize).map(|first| {
            let rows = step.min(vocabulary - first);
            let [from, to] = [first, first + rows].map(|row| row as usize * hidden as usize);
            let rows = self.engine.upload([rows, hidden].into(), format, values.slice(from..to))?;
            Ok(WordPart { first, rows })
        });
        parts.collect()
    }

    fn layer(&mut self, n: u32, architecture: &Architecture) -> Result<Layer, Error> {
        let Config { hidden: d, intermediate: f, inner, .. } = *self.config;
        let name = |part: &str| format!("{}.{n}.{part}", architecture.layers);
        let qk = if architecture.qk_norm {
            Some(QkNorms {
                q: self.norm(&name("attention.self.layer_norm_q"))?,
                k: self.norm(&name("attention.self.layer_norm_k"))?,
                residual: self.norm(&name("layer_norm_1"))?,
            })
        } else {
            None
        };
        Ok(Layer {
            qkv: self.projections(n, architecture)?,
            proj: self.linear_of(architecture, name(architecture.proj), [d, inner])?,
            attention_norm: self.norm_of(architecture, &name(architecture.attention_norm))?,
            qk,
            up: self.up(&name(architecture.up), architecture.mlp)?,
            down: self.linear_of(architecture, name(architecture.down), [d, f])?,
            mlp_norm: self.norm_of(architecture, &name(architecture.mlp_norm))?,
        })
    }

    fn up(&mut self, name: &str, mlp: Mlp) -> Result<Up, Error> {
        let Config { hidden: d, intermediate: f, .. } = *self.config;
        Ok(match mlp {
            Mlp::Gated { gate_first } => {
                let shape = [2 * f, d];
                let w = self.read_half(&format!("{name}.weight"), &shape)?;
                let (shape, w) = linear_geglu::arrange(self.variant.tier, gate_first, w, shape);
                Up::Gated(self.engine.upload(shape, self.variant.weights(), w)?)
            }
            Mlp::Plain { bias: true } => Up::Plain(self.linear(&[name.to_owned()], [f, d])?),
            Mlp::Plain { bias: false } => Up::Plain(self.without_bias(&[name.to_owned()], [f, d])?),
        })
    }
}
