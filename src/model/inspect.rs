//! Description of a checkpoint from its headers alone: no values are read, no device is opened.

use super::{
    AdapterInfo, Adapters, Architecture, Config, HeadKind, ModelFiles, Positions, Task,
    architecture, loader, task,
};
use crate::{
    activation::Activation,
    error::Error,
    files::Files,
    kernels::{KernelVariant, Tier},
    recording::{Caps, Format},
};
use std::path::PathBuf;

/// Description of a model directory.
pub struct ModelInfo {
    /// Sizes and settings.
    pub config: Config,
    /// Architecture and tensor layout.
    pub architecture: &'static Architecture,
    /// Prefix of the encoder's tensor names, beside `bert.`.
    pub prefix: String,
    /// Head after the encoder.
    pub head: Option<HeadKind>,
    /// Tasks of the LoRA adapters.
    pub adapters: Vec<AdapterInfo>,
    /// Weight files and their sizes in bytes.
    pub files: Vec<(PathBuf, u64)>,
    /// All tensors, by name without the prefix.
    pub tensors: Vec<TensorInfo>,
    /// True if every matrix is in f16.
    pub half: bool,
}

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Element type, as in safetensors.
    pub dtype: String,
    /// Number of elements.
    pub elements: u64,
    /// True for a tensor of rank 2.
    pub matrix: bool,
    /// True if the encoder or the head reads it.
    pub used: bool,
}

impl ModelInfo {
    /// Reads `config.json` and the headers of the weights.
    ///
    /// # Errors
    /// Errors of [`Model::open`](super::Model::open) that need no tensor values.
    pub fn open(files: impl Into<Files>) -> Result<Self, Error> {
        let files = ModelFiles::open(&files.into())?;
        let adapters = files.adapters().to_vec();
        let ModelFiles { config, checkpoint, architecture, prefix, adapters: lora } = files;
        let head = HeadKind::detect(checkpoint.names());
        let used = |name: &str| {
            !architecture::may_be_unused(name)
                || head.is_some_and(|head| head.reads(name, |other| checkpoint.has(other)))
        };
        let tensors = checkpoint.tensors().map(|(name, dtype, elements, rank)| TensorInfo {
            used: used(name),
            name: name.to_owned(),
            dtype,
            elements,
            matrix: rank == 2,
        });
        let tensors = tensors.collect();
        let half = checkpoint.is_half();
        let mut paths = checkpoint.files();
        paths.extend(lora.iter().flat_map(Adapters::files));
        Ok(Self { config, architecture, prefix, head, adapters, files: paths, tensors, half })
    }

    /// Task of the checkpoint.
    pub fn task(&self) -> Task {
        self.head.map_or(Task::Embed, HeadKind::task)
    }

    /// Number of the classifier's labels; 0 without a classifier.
    pub fn labels(&self) -> usize {
        let names = ["classifier.weight", "classifier.out_proj.weight"];
        let classifier = self.tensors.iter().find(|tensor| names.contains(&tensor.name.as_str()));
        classifier.map_or(0, |weight| (weight.elements / u64::from(self.config.hidden)) as usize)
    }

    /// Type of the MLP, in the terms of `feed_forward_type`.
    pub fn feed_forward(&self) -> &'static str {
        match (self.architecture.gated(), self.config.activation) {
            (false, _) => "original",
            (true, Activation::Gelu) => "geglu",
            (true, Activation::Relu) => "reglu",
            (true, Activation::Identity) => unreachable!("no configuration names it"),
        }
    }

    /// Number of elements of the tensors that are read.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().filter(|tensor| tensor.used).map(|tensor| tensor.elements).sum()
    }

    /// Number of elements of each type over all tensors, in descending order.
    pub fn dtypes(&self) -> Vec<(String, u64)> {
        let mut count: Vec<(String, u64)> = Vec::new();
        for TensorInfo { dtype, elements, .. } in &self.tensors {
            match count.iter_mut().find(|(known, _)| known == dtype) {
                Some((_, n)) => *n += elements,
                None => count.push((dtype.clone(), *elements)),
            }
        }
        count.sort_by_key(|(_, elements)| std::cmp::Reverse(*elements));
        count
    }

    /// Bytes of the weights on a CPU, head included: all in f32 except word embeddings stored
    /// in 16 bits and, if the products read f16, other matrices stored in f16.
    pub fn weight_bytes(&self, caps: &Caps) -> u64 {
        let variant = KernelVariant::from(Tier::Blocked).for_weights(self.half, caps);
        let products = variant.weights();
        let bytes = |tensor: &&TensorInfo| {
            let format = match tensor.name.as_str() {
                loader::WORD if tensor.dtype == "F16" => Format::F16,
                loader::WORD if tensor.dtype == "BF16" => Format::BF16,
                name if tensor.matrix && !task::in_f32(name) => products,
                _ => Format::F32,
            };
            u64::from(format.bytes()) * tensor.elements
        };
        let used = self.tensors.iter().filter(|tensor| tensor.used);
        let read: u64 = used.map(|tensor| bytes(&tensor)).sum();
        // A decoder tied to the word embeddings is stored as a separate matrix.
        let tied = self.head == Some(HeadKind::MaskedLm)
            && !self.tensors.iter().any(|tensor| tensor.name == task::DECODER);
        let Config { vocabulary, hidden, .. } = self.config;
        let again = if tied { u64::from(vocabulary) * u64::from(hidden) } else { 0 };
        read + u64::from(products.bytes()) * again
    }

    /// Bytes of the encoder's activations for a batch of `tokens` tokens on the CPU.
    pub fn batch_bytes(&self, tokens: u64) -> u64 {
        let Config { hidden, intermediate, inner, .. } = self.config;
        let [d, inner] = [hidden, inner].map(u64::from);
        let f = u64::from(intermediate);
        // The residual stream and one buffer of its size; two more if queries and keys are
        // normalised or rotated, or norms come first; narrower slabs if they are separate: see
        // `scratch.rs`.
        let wide = if self.architecture.qk_norm { inner } else { 3 * inner };
        let more = matches!(self.architecture.positions, Positions::Rotary | Positions::Relative);
        let streams = if self.architecture.qk_norm || more { 4 } else { 2 };
        let rows = super::scratch::mlp_rows(u64::MAX, tokens * wide, intermediate);
        let slab = (tokens * wide).max(tokens.min(rows.into()) * f);
        u64::from(Format::F32.bytes()) * (streams * tokens * d + slab)
    }
}
