//! Loading a checkpoint's tensors onto a device.

use super::{
    architecture::{Architecture, kinds, may_be_unused},
    checkpoint::Checkpoint,
    config::Config,
};
use crate::{
    elements::{F16_MAX, TensorData},
    error::Error,
    kernels::{KernelVariant, Tile},
    recording::{Engine, Format, Shape, Tensor},
};
use std::collections::BTreeSet;

/// Matrix and bias of a product.
pub struct Linear {
    /// \[N, K\], in the tier's [`Layout`](crate::kernels::Layout)
    pub w: Tensor,
    /// \[N\]
    pub bias: Tensor,
}

/// Scale and shift of a LayerNorm.
pub struct Norm {
    /// \[D\]
    pub gamma: Tensor,
    /// \[D\]
    pub beta: Tensor,
}

pub(super) const TYPES: &str = "embeddings.token_type_embeddings.weight";

pub(super) const WORD: &str = "embeddings.word_embeddings.weight";

/// Reads, checks and uploads tensors one by one.
pub(super) struct Loader<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) config: &'a Config,
    pub(super) variant: KernelVariant,
    /// Storage format of the word embeddings.
    pub(super) table: Format,
    pub(super) engine: &'a mut dyn Engine,
    /// Names of the tensors that were read.
    pub(super) used: BTreeSet<String>,
}

impl<'a> Loader<'a> {
    pub(super) fn read(&mut self, name: &str, shape: &[u32]) -> Result<TensorData<'a>, Error> {
        // Old checkpoints call a LayerNorm's weight and bias gamma and beta.
        let old = name.replace("LayerNorm.weight", "LayerNorm.gamma");
        let old = old.replace("LayerNorm.bias", "LayerNorm.beta");
        let name =
            if self.checkpoint.has(name) || !self.checkpoint.has(&old) { name } else { &old };
        self.used.insert(name.to_owned());
        self.checkpoint.read(name, shape)
    }

    pub(super) fn upload(&mut self, shape: Shape, values: TensorData<'_>) -> Result<Tensor, Error> {
        self.engine.upload(shape, Format::F32, values)
    }

    /// Number of rows of a tensor whose size is not in config.json.
    pub(super) fn rows_of(&self, name: &str) -> Result<u32, Error> {
        let missing = || Error::Model(format!("tensor `{name}` is missing"));
        self.checkpoint.rows(name).ok_or_else(missing)
    }

    fn vector(&mut self, name: &str, n: u32) -> Result<Tensor, Error> {
        let values = self.read(name, &[n])?;
        self.upload([n].into(), values)
    }

    pub(super) fn matrix(&mut self, name: &str, shape: [u32; 2]) -> Result<Tensor, Error> {
        let values = self.read(name, &shape)?;
        self.upload(shape.into(), values)
    }

    /// Reads a tensor that may be stored as f16.
    pub(super) fn read_half(&mut self, name: &str, shape: &[u32]) -> Result<TensorData<'a>, Error> {
        let values = self.read(name, shape)?;
        if !self.variant.weights().half() {
            return Ok(values);
        }
        match values.first_beyond_f16() {
            None => Ok(values),
            Some(n) => Err(Error::Model(format!(
                "tensor `{name}` is {} at element {n}, beyond the {F16_MAX} of f16: load it as f32",
                values.at(n)
            ))),
        }
    }

    /// Matrix of a product in the layout of the tier's kernels.
    pub(super) fn weights(
        &mut self,
        values: TensorData<'_>,
        shape: [u32; 2],
    ) -> Result<Tensor, Error> {
        let (shape, values) = Tile::new(self.variant.tier).layout().arrange(values, shape);
        self.engine.upload(shape, self.variant.weights(), values)
    }

    /// Products with the same input, stacked vertically.
    pub(super) fn linear(&mut self, names: &[String], [n, k]: [u32; 2]) -> Result<Linear, Error> {
        let mut w = Vec::new();
        let mut bias = Vec::new();
        for name in names {
            w.push(self.read_half(&format!("{name}.weight"), &[n, k])?);
            bias.push(self.read(&format!("{name}.bias"), &[n])?);
        }
        let rows = n * names.len() as u32;
        let w = if w.len() == 1 { w.remove(0) } else { TensorData::concat(&w) };
        let bias = TensorData::concat(&bias);
        Ok(Linear { w: self.weights(w, [rows, k])?, bias: self.upload([rows].into(), bias)? })
    }

    /// Products with the same input, stacked vertically, with a zero bias.
    pub(super) fn without_bias(
        &mut self,
        names: &[String],
        [n, k]: [u32; 2],
    ) -> Result<Linear, Error> {
        let read = |name: &String| self.read_half(&format!("{name}.weight"), &[n, k]);
        let mut w = names.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let rows = n * names.len() as u32;
        let w = if w.len() == 1 { w.remove(0) } else { TensorData::concat(&w) };
        let bias = self.upload([rows].into(), vec![0.0; rows as usize].into())?;
        Ok(Linear { w: self.weights(w, [rows, k])?, bias })
    }

    /// An RMSNorm, with a zero shift.
    pub(super) fn norm_without_bias(&mut self, name: &str) -> Result<Norm, Error> {
        let d = self.config.hidden;
        Ok(Norm {
            gamma: self.vector(&format!("{name}.weight"), d)?,
            beta: self.upload([d].into(), vec![0.0; d as usize].into())?,
        })
    }

    pub(super) fn norm(&mut self, name: &str) -> Result<Norm, Error> {
        Ok(Norm {
            gamma: self.vector(&format!("{name}.weight"), self.config.hidden)?,
            beta: self.vector(&format!("{name}.bias"), self.config.hidden)?,
        })
    }

    /// Checks for unread tensors: an unknown one means that the graph is a different one.
    pub(super) fn check_unused(&self, architecture: &Architecture) -> Result<(), Error> {
        let unknown = |name: &&str| !self.used.contains(*name) && !may_be_unused(name);
        let unknown: Vec<_> = self.checkpoint.names().filter(unknown).collect();
        match unknown.as_slice() {
            [] => Ok(()),
            [first, ..] => Err(Error::Model(format!(
                "{} unknown tensors, `{first}` the first: config.json has {} layers, and the graph \
                 is `{}`; they are {}",
                unknown.len(),
                self.config.layers,
                architecture.name,
                kinds(unknown.iter().copied())
            ))),
        }
    }
}
