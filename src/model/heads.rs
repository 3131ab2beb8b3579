//! Heads of a checkpoint, after the encoder.

use super::{
    architecture::Architecture,
    kernels::Kernels,
    loader::{Linear, Loader, Norm, WORD},
    task::{DECODER, HeadKind},
};
use crate::{
    activation::Activation,
    elements::TensorData,
    error::Error,
    kernels::{gather, layer_norm, linear},
    recording::{Engine, Format, Recording, Tensor, TexturePages},
    reference,
};
use rayon::prelude::*;
use std::ops::Range;

/// Dense layer on the host, for few rows.
pub struct Dense {
    /// \[N, K\]
    w: Vec<f32>,
    /// \[N\]
    bias: Vec<f32>,
}

impl Dense {
    /// Computes `y = W·x + b` for rows of x.
    fn of(&self, x: &[f32]) -> Vec<f32> {
        let n = self.bias.len();
        let k = self.w.len() / self.bias.len();
        let mut y = vec![0.0; x.len() / k * n];
        let rows = y.par_chunks_exact_mut(n).zip(x.par_chunks_exact(k));
        rows.for_each(|(y, x)| {
            reference::linear(x, &self.w, &self.bias, Activation::Identity, None, y);
        });
        y
    }
}

/// Part of the decoder small enough for one binding, and for one texture row.
pub struct Part {
    /// Vocabulary rows; `linear` has as many, padded with zeros to a multiple of four.
    rows: u32,
    linear: Linear,
}

impl Part {
    /// Number of logits in a row, with those of the padding.
    fn width(&self) -> u32 {
        self.linear.bias.shape.rows()
    }
}

/// Weights of a head.
pub enum Head {
    /// No head, or none requested.
    None,
    /// `classifier(tanh(pooler(x)))` of \[CLS\].
    ///
    /// Computed on the host, one row per text: less than a thousandth of the encoder's work.
    Classifier {
        /// \[D, D\]
        pooler: Dense,
        /// \[labels, D\]
        classifier: Dense,
    },
    /// `linear(x)` of every token.
    Projection(Linear),
    /// `decoder(LN(gelu(transform(x))))`; the decoder is tied to the word embeddings if it has no
    /// weights of its own.
    MaskedLm {
        /// \[D, D\]
        transform: Linear,
        /// LayerNorm after it.
        norm: Norm,
        /// \[V, D\] in parts.
        decoder: Vec<Part>,
    },
}

impl Head {
    /// Size of a projected token vector.
    pub fn projected(&self) -> u32 {
        match self {
            Self::Projection(linear) => linear.bias.shape.rows(),
            _ => 0,
        }
    }

    /// Logits \[B, labels\] of the \[CLS\] rows \[B, D\].
    ///
    /// # Panics
    /// If there is no classifier.
    pub fn classify(&self, rows: &[f32]) -> Vec<f32> {
        let Self::Classifier { pooler, classifier } = self else {
            panic!("opened without a classifier")
        };
        let mut pooled = pooler.of(rows);
        pooled.iter_mut().for_each(|x| *x = f64::from(*x).tanh() as f32);
        classifier.of(&pooled)
    }

    /// Labels of the classifier.
    pub fn labels(&self) -> usize {
        match self {
            Self::Classifier { classifier, .. } => classifier.bias.len(),
            _ => 0,
        }
    }
}

impl Loader<'_> {
    pub(super) fn head(
        &mut self,
        kind: Option<HeadKind>,
        architecture: &Architecture,
    ) -> Result<Head, Error> {
        Ok(match kind {
            None => Head::None,
            Some(HeadKind::Classifier) => {
                let d = self.config.hidden;
                // RoBERTa has both in one module, BERT in two.
                let roberta = self.checkpoint.has("classifier.out_proj.weight");
                let [pooler, classifier] = if roberta {
                    ["classifier.dense", "classifier.out_proj"]
                } else {
                    ["pooler.dense", "classifier"]
                };
                let labels = self.rows_of(&format!("{classifier}.weight"))?;
                Head::Classifier {
                    pooler: self.dense(pooler, [d, d])?,
                    classifier: self.dense(classifier, [labels, d])?,
                }
            }
            Some(HeadKind::Projection) => Head::Projection(self.projection()?),
            Some(HeadKind::MaskedLm) => self.masked_lm(architecture)?,
        })
    }

    fn dense(&mut self, name: &str, [n, k]: [u32; 2]) -> Result<Dense, Error> {
        let w = self.read(&format!("{name}.weight"), &[n, k])?.widened().into_owned();
        let bias = self.read(&format!("{name}.bias"), &[n])?.widened().into_owned();
        Ok(Dense { w, bias })
    }

    fn projection(&mut self) -> Result<Linear, Error> {
        let name = "linear.weight";
        let d = self.config.hidden;
        let n = self.rows_of(name)?;
        if !n.is_multiple_of(4) {
            let message = format!("`{name}` has {n} rows; a multiple of 4 is supported");
            return Err(Error::Model(message));
        }
        self.without_bias(&[name.trim_end_matches(".weight").to_owned()], [n, d])
    }

    fn masked_lm(&mut self, architecture: &Architecture) -> Result<Head, Error> {
        let d = self.config.hidden;
        let v = self.config.vocabulary;
        let transform = self.linear(&["cls.predictions.transform.dense".to_owned()], [d, d])?;
        let norm = self.norm(architecture.transform_norm)?;
        let own = self.checkpoint.has(DECODER);
        let w = self.read_half(if own { DECODER } else { WORD }, &[v, d])?;
        // Both names denote the same bias; checkpoints have either one, or equal copies.
        let names = ["cls.predictions.bias", "cls.predictions.decoder.bias"];
        let mut found = names.iter().filter(|name| self.checkpoint.has(name));
        let bias = self.read(found.next().unwrap_or(&names[0]), &[v])?;

        let row = u64::from(d) * u64::from(self.variant.weights().bytes());
        let most =
            (self.engine.caps().max_binding_bytes / row).min(u64::from(4 * TexturePages::HEIGHT));
        // A multiple of the CPU's panel and of a texel.
        let step = (most as u32 / 64 * 64).max(64);
        let parts = (0..v).step_by(step as usize).map(|first| {
            let rows = first..first + step.min(v - first);
            self.part(&w, &bias, rows)
        });
        Ok(Head::MaskedLm { transform, norm, decoder: parts.collect::<Result<_, Error>>()? })
    }

    /// Part of the decoder, from some rows of its weights \[V, D\] and its bias \[V\].
    fn part(&mut self, w: &TensorData, bias: &TensorData, rows: Range<u32>) -> Result<Part, Error> {
        let d = self.config.hidden;
        let count = rows.end - rows.start;
        let padded = count.next_multiple_of(4);
        let mut part_w = w.slice((rows.start * d) as usize..(rows.end * d) as usize);
        let mut part_bias = bias.slice(rows.start as usize..rows.end as usize);
        if padded > count {
            let zeros = vec![0.0; ((padded - count) * d) as usize];
            let bias_zeros = &zeros[..(padded - count) as usize];
            part_bias = TensorData::concat(&[part_bias, bias_zeros.into()]);
            part_w = TensorData::concat(&[part_w, zeros[..].into()]);
        }
        let bias = self.upload([padded].into(), part_bias)?;
        let w = self.weights(part_w, [padded, d])?;
        Ok(Part { rows: count, linear: Linear { w, bias } })
    }
}

/// Maximum rows of logits at a time: 125 MB for the English vocabulary.
const ROWS: u64 = 1024;

/// Tensors whose size depends on the number of rows of the head.
pub struct HeadScratch {
    /// \[n\], `u32`
    rows: Tensor,
    /// \[n, D\]
    gathered: Tensor,
    /// \[n, D\]
    transformed: Tensor,
    /// \[n, N\]
    pub(super) out: Tensor,
}

impl HeadScratch {
    pub(super) fn new(engine: &mut dyn Engine, stream: Format) -> Result<Self, Error> {
        Ok(Self {
            rows: empty(engine, Format::F32)?,
            gathered: empty(engine, stream)?,
            transformed: empty(engine, stream)?,
            out: empty(engine, stream)?,
        })
    }

    /// Releases all tensors.
    pub(super) fn release(&self, engine: &mut dyn Engine) -> Result<(), Error> {
        engine.release(&[self.rows, self.gathered, self.transformed, self.out])
    }

    /// Records the projection of every row of `x`.
    pub(super) fn project(
        &mut self,
        engine: &mut dyn Engine,
        rec: &mut Recording,
        k: &Kernels,
        linear: &Linear,
        x: &Tensor,
    ) -> Result<(), Error> {
        let [t, _] = x.shape2();
        engine.resize(&mut self.out, [t, linear.bias.shape.rows()].into())?;
        let args = linear::Args { x, w: &linear.w, bias: &linear.bias, r: x, y: &self.out };
        linear::record(rec, &k.products(t).linear_stream, args);
        Ok(())
    }

    /// Runs `rec` and the head on some rows of `x`; `each` receives logits \[n, V\], part by part.
    pub(super) fn predict(
        &mut self,
        engine: &mut dyn Engine,
        mut rec: Recording,
        k: &Kernels,
        head: &Head,
        (x, rows): (&Tensor, &[u32]),
        mut each: impl FnMut(Vec<f32>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Head::MaskedLm { transform, norm, decoder } = head else {
            panic!("opened without a masked language model's head")
        };
        let [_, d] = x.shape2();
        let vocabulary: u32 = decoder.iter().map(|part| part.rows).sum();
        let widest = decoder.iter().map(Part::width).max().unwrap_or(1);
        let bound = engine.caps().max_binding_bytes / u64::from(4 * widest.max(d));
        for rows in rows.chunks(bound.clamp(1, ROWS) as usize) {
            self.transform(engine, &mut rec, k, (transform, norm), (x, rows))?;
            let mut logits = vec![0.0; rows.len() * vocabulary as usize];
            let mut first = 0;
            for part in decoder {
                let values = self.decode(engine, &mut rec, k, &part.linear)?;
                let columns = first..first + part.rows as usize;
                let to = logits.chunks_exact_mut(vocabulary as usize);
                for (to, from) in to.zip(values.chunks_exact(part.width() as usize)) {
                    to[columns.clone()].copy_from_slice(&from[..columns.len()]);
                }
                first = columns.end;
            }
            each(logits)?;
        }
        Ok(())
    }

    /// Records the transform of some rows of `x`; the result is in `gathered`.
    fn transform(
        &mut self,
        engine: &mut dyn Engine,
        rec: &mut Recording,
        k: &Kernels,
        (transform, norm): (&Linear, &Norm),
        (x, rows): (&Tensor, &[u32]),
    ) -> Result<(), Error> {
        let [_, d] = x.shape2();
        let n = rows.len() as u32;
        engine.resize(&mut self.rows, [n].into())?;
        engine.write(&self.rows, rows)?;
        for tensor in [&mut self.gathered, &mut self.transformed] {
            engine.resize(tensor, [n, d].into())?;
        }
        let g = &self.gathered;
        let t = &self.transformed;
        gather::record(rec, &k.gather, gather::Args { x, rows: &self.rows, y: g });
        let product_args =
            linear::Args { x: g, w: &transform.w, bias: &transform.bias, r: g, y: t };
        linear::record(rec, &k.products(n).transform, product_args);
        let norm_args = layer_norm::Args { x: t, r: t, gamma: &norm.gamma, beta: &norm.beta, y: g };
        layer_norm::record(rec, &k.norm, norm_args, k.eps);
        Ok(())
    }

    /// Runs `rec` and a part of the decoder on the transformed rows, and begins a new recording.
    fn decode(
        &mut self,
        engine: &mut dyn Engine,
        rec: &mut Recording,
        k: &Kernels,
        part: &Linear,
    ) -> Result<Vec<f32>, Error> {
        let [n, _] = self.gathered.shape2();
        engine.resize(&mut self.out, [n, part.bias.shape.rows()].into())?;
        let g = &self.gathered;
        let args = linear::Args { x: g, w: &part.w, bias: &part.bias, r: g, y: &self.out };
        linear::record(rec, &k.products(n).linear_stream, args);
        let logits = engine.run(rec, &self.out)?;
        *rec = Recording::within(engine.dispatch_limits());
        Ok(logits)
    }
}

fn empty(engine: &mut dyn Engine, format: Format) -> Result<Tensor, Error> {
    engine.alloc([0, 0].into(), format)
}
