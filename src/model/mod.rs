//! The model: network, checkpoint, and the recording of a batch.

mod adapters;
mod architecture;
mod checkpoint;
mod config;
mod declared;
mod halves;
mod heads;
mod inspect;
mod jina_bert;
mod jina_bert_code;
mod json;
mod kernels;
mod loader;
mod lora;
mod modules;
mod queries;
mod scratch;
mod t5_config;
mod t5_encoder;
mod task;
mod weights;
mod xlm_roberta;
mod xlm_roberta_lora;

use crate::{
    batch::{Adapter, PackedBatch},
    error::Error,
    files::Files,
    kernels::{Dtype, KernelConfig, KernelVariant, attention::SKIP_EPS, pool},
    recording::{Caps, Engine, Format, InFlight, ROW_STEP, Recording, Span, TexturePages},
};
use adapters::Adapters;
pub use adapters::{AdapterInfo, LoraConfig, adapter};
pub use architecture::{ARCHITECTURES, Architecture, Mlp, Positions, kinds};
pub use checkpoint::Checkpoint;
pub use config::Config;
pub use declared::{DeclaredModule, SentenceTransformersConfig};
pub use heads::Head;
use heads::HeadScratch;
pub use inspect::{ModelInfo, TensorInfo};
pub use json::json_file;
use kernels::Kernels;
use lora::Ranks;
pub use modules::{Modules, normalize};
pub use queries::ColbertConfig;
use scratch::Scratch;
use std::sync::Arc;
pub use task::{HeadKind, Task};
use weights::Weights;

/// Output of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Last hidden state of every token, \[T, D\].
    Tokens,
    /// Mean over each span, truncated to the leading components, \[n, dims\].
    Vectors {
        /// Number of components kept.
        dims: u32,
        /// Divide by the L2 norm.
        normalize: bool,
    },
    /// ColBERT's projection of every token, \[T, P\], not normalised.
    Projected,
}

/// Settings that trade rounding for speed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numerics {
    /// Attention skips keys with a provably smaller share of a row's softmax; 0 skips none.
    pub skip_eps: f32,
    /// Give a sequence the same bits in every batch: all products then sum in one order, even for
    /// few rows ([`Tile::by_rows`](crate::kernels::Tile::by_rows)).
    pub deterministic: bool,
}

impl Default for Numerics {
    fn default() -> Self {
        Self { skip_eps: SKIP_EPS, deterministic: false }
    }
}

/// A model on a device.
pub struct Model {
    config: Config,
    architecture: &'static Architecture,
    engine: Box<dyn Engine>,
    kernels: Kernels,
    weights: Weights,
    adapters: Vec<AdapterInfo>,
    scratch: Scratch,
    head_scratch: HeadScratch,
    variant: KernelVariant,
}

/// Configuration and checkpoint of a model, whose tensor names agree with the configuration.
pub struct ModelFiles {
    config: Config,
    /// The encoder's tensors, by names without the prefix.
    checkpoint: Checkpoint,
    architecture: &'static Architecture,
    /// Prefix of those names.
    prefix: String,
    adapters: Option<Adapters>,
}

impl ModelFiles {
    /// Reads `config.json` and the headers of the weights.
    ///
    /// # Errors
    /// Errors of [`Model::open`] that need no tensor values.
    pub fn open(files: &Files) -> Result<Self, Error> {
        let config = Config::open(files)?;
        let checkpoint = Checkpoint::open(files)?;
        let shared = checkpoint.has("shared.weight");
        let checkpoint = checkpoint.renamed(|name| architecture::known_name(name, shared))?;
        let (architecture, prefix) =
            architecture::detect(checkpoint.names()).map_err(Error::Model)?;
        let prefix = prefix.to_owned();
        let checkpoint = checkpoint.below(&prefix)?;
        architecture.agree(&config).map_err(Error::Model)?;
        let adapters = Adapters::open(files, &config, &checkpoint)?;
        if adapters.is_some() && architecture.positions != Positions::Rotary {
            return Err(Error::Model(format!(
                "there are LoRA adapters, and the tensors are those of `{}`; supported with \
                 adapters: `xlm-roberta-flash-rotary`",
                architecture.name
            )));
        }
        Ok(Self { config, checkpoint, architecture, prefix, adapters })
    }

    /// Tasks of the adapters.
    pub fn adapters(&self) -> &[AdapterInfo] {
        self.adapters.as_ref().map_or(&[], |adapters| &adapters.infos)
    }

    /// True if every matrix of real numbers is in f16.
    pub fn is_half(&self) -> bool {
        self.checkpoint.is_half()
    }
}

/// Options for opening a model.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    /// Settings that trade rounding for speed.
    pub numerics: Numerics,
    /// Tiles of the products; the defaults if `None`.
    pub kernel_config: Option<KernelConfig>,
    /// Task that the checkpoint must support.
    pub task: Task,
    /// Widen f16 matrices to f32 even if the device could read f16.
    pub widen: bool,
}

impl Model {
    /// Loads `config.json` and the weights.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Model`] for the files, [`Error::Gpu`] for the device.
    pub fn open(
        files: impl Into<Files>,
        engine: Box<dyn Engine>,
        variant: impl Into<KernelVariant>,
    ) -> Result<Self, Error> {
        let choices = ModelOptions { task: Task::Encode, ..ModelOptions::default() };
        Self::open_with(files, engine, variant.into(), choices)
    }

    /// As [`Model::open`], with options.
    ///
    /// # Errors
    /// As [`Model::open`], and [`Error::Model`] if the checkpoint does not support the task.
    pub fn open_with(
        files: impl Into<Files>,
        engine: Box<dyn Engine>,
        variant: KernelVariant,
        options: ModelOptions,
    ) -> Result<Self, Error> {
        Self::load(ModelFiles::open(&files.into())?, engine, variant, options)
    }

    /// As [`Model::open_with`], from files whose headers have been read.
    ///
    /// # Errors
    /// As [`Model::open_with`].
    pub fn load(
        files: ModelFiles,
        mut engine: Box<dyn Engine>,
        variant: KernelVariant,
        ModelOptions { numerics, kernel_config, task, widen }: ModelOptions,
    ) -> Result<Self, Error> {
        let ModelFiles { config, checkpoint, architecture, adapters, .. } = &files;
        let head = task.head(HeadKind::detect(checkpoint.names()))?;
        let ranks = adapters.as_ref().map(|all| Ranks::new(all, config, architecture));
        let ranks = ranks.transpose()?;
        let usual = || KernelConfig::usual_on(engine.caps(), variant.tier, config.head_width());
        let kernel_config = kernel_config.unwrap_or_else(usual);
        let kernels = |variant, table| {
            Kernels::new(config, architecture, variant, numerics, kernel_config.clone())
                .with_table(table)
                .with_adapters(ranks)
        };
        let mut variant = variant.for_weights(checkpoint.is_half() && !widen, engine.caps());
        let mut table = weights::table(checkpoint, variant);
        let mut chosen = kernels(variant, table);
        // The pipelines compile while the weights are uploaded.
        engine.prepare(chosen.programs(architecture, head));
        if variant.half_weights && !halves::read(&mut *engine, variant, &chosen)? {
            tracing::info!("the device does not read every f16 as it is: weights are widened");
            variant.half_weights = false;
            table = Format::F32;
            chosen = kernels(variant, table);
            engine.prepare(chosen.programs(architecture, head));
        }
        let kernels = chosen;
        let weights = Weights::upload(&files, variant, table, head, ranks, &mut *engine)?;
        let scratch = Scratch::new(&mut *engine, variant, architecture, ranks.is_some())?;
        let head_scratch = HeadScratch::new(&mut *engine, variant.stream())?;
        let adapters = files.adapters().to_vec();
        let ModelFiles { config, architecture, .. } = files;
        Ok(Self {
            config,
            architecture,
            engine,
            kernels,
            weights,
            adapters,
            scratch,
            head_scratch,
            variant,
        })
    }

    /// Sizes and settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Architecture.
    pub fn architecture(&self) -> &'static Architecture {
        self.architecture
    }

    /// Tasks of the adapters.
    pub fn adapters(&self) -> &[AdapterInfo] {
        &self.adapters
    }

    /// Adapter of a task.
    ///
    /// # Errors
    /// [`Error::Option`], naming the tasks that there are.
    pub fn adapter(&self, task: &str) -> Result<Adapter, Error> {
        adapter(&self.adapters, task)
    }

    /// Kernel variant: the tier and the storage of matrices.
    pub fn variant(&self) -> KernelVariant {
        self.variant
    }

    /// Capabilities of its device.
    pub fn caps(&self) -> &Caps {
        self.engine.caps()
    }

    /// Maximum tokens of one batch, hence of one text, on this device: every activation must fit
    /// into a binding or a texture.
    pub fn max_tokens(&self) -> usize {
        let Config { hidden: d, intermediate: f, inner, .. } = self.config;
        if self.variant.stream().texture() {
            let qkv = if self.architecture.qk_norm { inner } else { 3 * inner };
            let columns = d.max(f).max(qkv);
            (TexturePages::HEIGHT / columns.div_ceil(4) * TexturePages::HEIGHT) as usize
        } else {
            // Parts of the fused weights can be bound separately only if they are aligned.
            let apart = self.architecture.qk_norm
                || inner.is_multiple_of(ROW_STEP) && self.adapters.is_empty();
            let stream = d.max(inner) * self.variant.stream().bytes();
            let qkv = if apart { 0 } else { 3 * inner * self.variant.wide().bytes() };
            (self.engine.caps().max_binding_bytes / u64::from(stream.max(qkv))) as usize
        }
    }

    /// Maximum tokens of one text in the architecture, if it has a position table.
    pub fn max_positions(&self) -> Option<usize> {
        let absolute = self.architecture.positions == Positions::Absolute;
        absolute.then_some(self.config.max_length)
    }

    /// Maximum tokens of a batch whose queries, keys and values fit one binding, and so are
    /// computed by one product.
    pub fn fused_tokens(&self) -> usize {
        let all = self.max_tokens();
        if self.variant.stream().texture() || self.architecture.qk_norm {
            all
        } else {
            let row = u64::from(3 * self.config.inner * self.variant.wide().bytes());
            all.min((self.engine.caps().max_binding_bytes / row).max(1) as usize)
        }
    }

    /// Bytes allocated on the device for this model now.
    pub fn allocated_bytes(&self) -> u64 {
        self.engine.allocated_bytes()
    }

    /// Runs a batch of 1 to [`Model::max_tokens`] tokens, with ids and types within their tables.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails, [`Error::Memory`] if it is out of memory, and
    /// [`Error::NotFinite`] if a result is not finite.
    pub fn forward(&mut self, batch: &PackedBatch, output: Output) -> Result<Vec<f32>, Error> {
        self.submit(batch, output)?.wait()
    }

    /// As [`Model::forward`], without waiting; more batches may be submitted meanwhile.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails, [`Error::Memory`] if it is out of memory.
    pub fn submit(
        &mut self,
        batch: &PackedBatch,
        output: Output,
    ) -> Result<InFlight<'static, Vec<f32>>, Error> {
        let submitted = self.try_submit(batch, output);
        submitted.inspect_err(|error| self.release_after(error))
    }

    /// Releases the memory of a batch that did not fit, for one that does.
    fn release_after(&mut self, error: &Error) {
        if let Error::Memory(_) = error {
            let released = self.scratch.release(&mut *self.engine);
            let released = released.and_then(|()| self.head_scratch.release(&mut *self.engine));
            if let Err(error) = released {
                tracing::warn!("{error}");
            }
        }
    }

    fn try_submit(
        &mut self,
        batch: &PackedBatch,
        output: Output,
    ) -> Result<InFlight<'static, Vec<f32>>, Error> {
        let recording = self.record(batch, output)?;
        let result = match output {
            Output::Tokens => self.scratch.x,
            Output::Vectors { .. } => self.scratch.y,
            Output::Projected => self.head_scratch.out,
        };
        let dtype = self.variant.dtype;
        let in_flight = self.engine.submit(&recording, &result)?;
        Ok(in_flight.and_then(move |values| finite(values, dtype)))
    }

    /// Runs a batch one dispatch at a time and returns the time of each.
    ///
    /// # Errors
    /// As [`Engine::profile`].
    pub fn profile(&mut self, batch: &PackedBatch, output: Output) -> Result<Vec<Span>, Error> {
        let recording = self.record(batch, output)?;
        self.engine.profile(&recording)
    }

    /// Last hidden state of every token of the last batch, \[T, D\]; nothing is computed again.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails.
    pub fn last_hidden(&mut self) -> Result<Vec<f32>, Error> {
        self.engine.run(&Recording::new(), &self.scratch.x)
    }

    /// Records the dispatches of [`Model::forward`].
    ///
    /// # Errors
    /// [`Error::Memory`] if the device is out of memory.
    pub fn record(&mut self, batch: &PackedBatch, output: Output) -> Result<Recording, Error> {
        let dims = match output {
            Output::Tokens | Output::Projected => 0,
            Output::Vectors { dims, .. } => dims,
        };
        let lora = self.weights.lora.as_ref();
        self.scratch.fit(&mut *self.engine, &self.config, lora, batch, dims)?;
        let k = &self.kernels;
        let w = &self.weights;
        let s = &self.scratch;
        let mut rec = Recording::within(self.engine.dispatch_limits());
        match self.architecture.positions {
            Positions::Alibi if self.architecture.qk_norm => {
                jina_bert_code::record(&mut rec, k, w, s)
            }
            Positions::Alibi => jina_bert::record(&mut rec, k, w, s),
            Positions::Rotary if batch.is_adapted() => xlm_roberta_lora::record(&mut rec, k, w, s),
            Positions::Rotary => xlm_roberta::record(&mut rec, k, w, s),
            Positions::Absolute => jina_bert::record(&mut rec, k, w, s),
            Positions::Relative => t5_encoder::record(&mut rec, k, w, s),
        }
        match (output, &*w.head) {
            (Output::Tokens, _) => {}
            (Output::Vectors { normalize, .. }, _) => {
                let args = pool::Args { x: &s.x, spans: &s.spans, y: &s.y };
                pool::record(&mut rec, &k.pool, args, normalize);
            }
            (Output::Projected, Head::Projection(linear)) => {
                self.head_scratch.project(&mut *self.engine, &mut rec, k, linear, &s.x)?;
            }
            (Output::Projected, _) => panic!("opened without a projection"),
        }
        Ok(rec)
    }

    /// Head of the model.
    pub fn head(&self) -> &Arc<Head> {
        &self.weights.head
    }

    /// Masked-language-model logits of some tokens of a batch, \[n, V\].
    ///
    /// # Errors
    /// As [`Model::forward`].
    ///
    /// # Panics
    /// If the model was not opened for [`Task::FillMask`].
    pub fn logits(&mut self, batch: &PackedBatch, rows: &[u32]) -> Result<Vec<f32>, Error> {
        let mut all = Vec::new();
        self.each_logits(batch, rows, |logits| all.extend_from_slice(logits))?;
        Ok(all)
    }

    /// As [`Model::logits`], in blocks of rows: all of a large batch would take gigabytes.
    ///
    /// # Errors
    /// As [`Model::forward`].
    ///
    /// # Panics
    /// As [`Model::logits`].
    pub fn each_logits(
        &mut self,
        batch: &PackedBatch,
        rows: &[u32],
        each: impl FnMut(&[f32]),
    ) -> Result<(), Error> {
        let predicted = self.try_logits(batch, rows, each);
        predicted.inspect_err(|error| self.release_after(error))
    }

    fn try_logits(
        &mut self,
        batch: &PackedBatch,
        rows: &[u32],
        mut each: impl FnMut(&[f32]),
    ) -> Result<(), Error> {
        let recording = self.record(batch, Output::Tokens)?;
        let k = &self.kernels;
        let w = &self.weights;
        let x = &self.scratch.x;
        let engine = &mut *self.engine;
        let dtype = self.variant.dtype;
        let each = |logits: Vec<f32>| finite(logits, dtype).map(|logits| each(&logits));
        self.head_scratch.predict(engine, recording, k, &w.head, (x, rows), each)
    }
}

/// Checks that all values are finite.
fn finite(values: Vec<f32>, dtype: Dtype) -> Result<Vec<f32>, Error> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(values),
        Some(n) => {
            let hint = match dtype {
                Dtype::F32 => "",
                Dtype::F16 => "; f16 ends at 65504, f32 may do",
            };
            Err(Error::NotFinite(format!("the device returned {} at element {n}{hint}", values[n])))
        }
    }
}
