//! What a checkpoint is, from its headers alone: no value is read, no device is opened.

use super::{Config, HeadKind, Opened, Task, Variant, loader, task, variant};
use crate::{error::Error, files::Files, recording::Format, reference::Activation};
use std::path::PathBuf;

/// A model directory, described.
pub struct Inspection {
    /// Sizes and switches.
    pub config: Config,
    /// Which graph it is, in which layout.
    pub variant: &'static Variant,
    /// What the names of the encoder's tensors begin with, beside `bert.`.
    pub prefix: String,
    /// What follows the encoder.
    pub head: Option<HeadKind>,
    /// Files of weights and their bytes.
    pub files: Vec<(PathBuf, u64)>,
    /// Every tensor, by name without the prefix.
    pub tensors: Vec<Described>,
}

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// The type of its elements, as safetensors has it.
    pub dtype: String,
    /// How many there are.
    pub elements: u64,
    /// Whether the encoder or the head reads it.
    pub used: bool,
}

impl Inspection {
    /// Reads `config.json` and the headers of the weights.
    ///
    /// # Errors
    /// Those of [`Model::open`](super::Model::open) that need no value of a tensor.
    pub fn open(files: impl Into<Files>) -> Result<Self, Error> {
        let Opened { config, checkpoint, variant, prefix } = Opened::new(&files.into())?;
        let head = HeadKind::detect(checkpoint.names());
        let used = |name: &str| {
            !variant::may_be_unused(name)
                || head.is_some_and(|head| head.reads(name, |other| checkpoint.has(other)))
        };
        let tensors = checkpoint.tensors().map(|(name, dtype, elements)| Described {
            used: used(name),
            name: name.to_owned(),
            dtype,
            elements,
        });
        let tensors = tensors.collect();
        Ok(Self { config, variant, prefix, head, files: checkpoint.files(), tensors })
    }

    /// What the checkpoint is for.
    pub fn task(&self) -> Task {
        self.head.map_or(Task::Embed, HeadKind::task)
    }

    /// The MLP, as `feed_forward_type` calls it.
    pub fn feed_forward(&self) -> &'static str {
        match (self.variant.gated(), self.config.activation) {
            (false, _) => "original",
            (true, Activation::Relu) => "reglu",
            (true, _) => "geglu",
        }
    }

    /// Elements of the tensors that are read.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().filter(|tensor| tensor.used).map(|tensor| tensor.elements).sum()
    }

    /// Elements of each type, most first, of all tensors.
    pub fn dtypes(&self) -> Vec<(String, u64)> {
        let mut count: Vec<(String, u64)> = Vec::new();
        for Described { dtype, elements, .. } in &self.tensors {
            match count.iter_mut().find(|(known, _)| known == dtype) {
                Some((_, n)) => *n += elements,
                None => count.push((dtype.clone(), *elements)),
            }
        }
        count.sort_by_key(|(_, elements)| std::cmp::Reverse(*elements));
        count
    }

    /// Bytes of the weights on the CPU, the head's included: f32 all but word embeddings that are
    /// stored as f16.
    pub fn weight_bytes(&self) -> u64 {
        let bytes = |tensor: &&Described| match tensor.name == loader::WORD {
            true if tensor.dtype == "F16" => u64::from(Format::F16.bytes()) * tensor.elements,
            _ => u64::from(Format::F32.bytes()) * tensor.elements,
        };
        let used = self.tensors.iter().filter(|tensor| tensor.used);
        let read: u64 = used.map(|tensor| bytes(&tensor)).sum();
        // A decoder that is tied to the word embeddings is a product's matrix of its own.
        let tied = self.head == Some(HeadKind::MaskedLm)
            && !self.tensors.iter().any(|tensor| tensor.name == task::DECODER);
        let Config { vocabulary, hidden, .. } = self.config;
        let again = if tied { u64::from(vocabulary) * u64::from(hidden) } else { 0 };
        read + u64::from(Format::F32.bytes()) * again
    }

    /// Bytes of what the encoder computes for a batch of so many tokens on the CPU.
    pub fn batch_bytes(&self, tokens: u64) -> u64 {
        let Config { hidden, intermediate, .. } = self.config;
        let (d, f) = (u64::from(hidden), u64::from(intermediate));
        // The stream and one of its size, two more and narrower slabs where queries and keys are
        // normalised: `scratch.rs`.
        let (streams, wide) = if self.variant.qk_norm { (4, d) } else { (2, 3 * d) };
        let rows = super::scratch::mlp_rows(u64::MAX, intermediate);
        let slab = (tokens * wide).max(tokens.min(rows.into()) * f);
        u64::from(Format::F32.bytes()) * (streams * tokens * d + slab)
    }
}
