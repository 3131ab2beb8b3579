//! What to compute: the network, its checkpoint, and the recording of a batch.

pub mod alibi;
mod checkpoint;
mod config;
mod declared;
mod heads;
mod inspect;
mod jina_bert;
mod jina_bert_code;
mod kernels;
mod loader;
mod queries;
mod scratch;
mod task;
mod variant;
mod weights;

use crate::{
    batch::PackedBatch,
    error::Error,
    files::Files,
    kernels::{Dtype, Plan, Version, attention::SKIP_EPS, pool},
    recording::{Caps, Engine, Page, ROW_STEP, Recording, Span, Ticket},
};
pub use checkpoint::Checkpoint;
pub use config::Config;
pub use declared::Declared;
#[cfg(feature = "cli")]
pub(crate) use declared::json_file;
pub use heads::Head;
use heads::HeadScratch;
pub use inspect::{Described, Inspection};
use kernels::Kernels;
pub use queries::Queries;
use scratch::Scratch;
use std::sync::Arc;
pub use task::{HeadKind, Task};
pub use variant::{Mlp, VARIANTS, Variant, kinds};
use weights::Weights;

/// What a forward pass returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// \[T, D\]: the last hidden state of every token.
    Tokens,
    /// \[n, dims\]: the mean over each span, cut to the leading components.
    Vectors {
        /// Components kept.
        dims: u32,
        /// Whether to divide by the L2 norm.
        normalize: bool,
    },
    /// \[T, P\]: ColBERT's projection of every token, not normalised.
    Projected,
}

/// What is left to rounding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numerics {
    /// Attention leaves out keys whose share of a row's softmax is certainly below this; none for
    /// 0.
    pub skip_eps: f32,
    /// Whether a sequence has the same bits in every batch: all products then sum in one order,
    /// however few rows they have ([`Tile::by_rows`](crate::kernels::Tile::by_rows)).
    pub deterministic: bool,
}

impl Default for Numerics {
    fn default() -> Self {
        Self { skip_eps: SKIP_EPS, deterministic: false }
    }
}

/// A checkpoint on a device.
pub struct Model {
    config: Config,
    variant: &'static Variant,
    engine: Box<dyn Engine>,
    kernels: Kernels,
    weights: Weights,
    scratch: Scratch,
    head_scratch: HeadScratch,
    version: Version,
}

/// A model directory whose names agree with its configuration.
struct Opened {
    config: Config,
    /// Of the encoder's tensors, by names without the prefix.
    checkpoint: Checkpoint,
    variant: &'static Variant,
    /// What stood before those names.
    prefix: String,
}

impl Opened {
    fn new(files: &Files) -> Result<Self, Error> {
        let config = Config::open(files)?;
        let checkpoint = Checkpoint::open(files)?;
        let (variant, prefix) = variant::detect(checkpoint.names()).map_err(Error::Model)?;
        let prefix = prefix.to_owned();
        let checkpoint = checkpoint.below(&prefix)?;
        variant.agree(&config).map_err(Error::Model)?;
        Ok(Self { config, checkpoint, variant, prefix })
    }
}

/// What may be chosen when a model is opened.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// What is left to rounding.
    pub numerics: Numerics,
    /// Which tiles products have; the usual ones if `None`.
    pub plan: Option<Plan>,
    /// What the checkpoint must be for.
    pub task: Task,
}

impl Model {
    /// Loads `config.json` and the weights.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Model`] for the files, [`Error::Gpu`] for the device.
    pub fn open(
        files: impl Into<Files>,
        engine: Box<dyn Engine>,
        version: impl Into<Version>,
    ) -> Result<Self, Error> {
        let choices = Choices { task: Task::Encode, ..Choices::default() };
        Self::open_with(files, engine, version.into(), choices)
    }

    /// As [`Model::open`], with choices.
    ///
    /// # Errors
    /// As [`Model::open`], and [`Error::Model`] if the checkpoint is not for the task.
    pub fn open_with(
        files: impl Into<Files>,
        mut engine: Box<dyn Engine>,
        version: Version,
        Choices { numerics, plan, task }: Choices,
    ) -> Result<Self, Error> {
        let Opened { config, checkpoint, variant, .. } = Opened::new(&files.into())?;
        let head = task.head(HeadKind::detect(checkpoint.names()))?;
        let plan = plan.unwrap_or_else(|| Plan::usual(version.tier, config.head_width()));
        let kernels = Kernels::new(&config, variant, version, numerics, plan)
            .with_table(weights::table(&checkpoint, version));
        // They compile while the weights are on their way.
        engine.prepare(kernels.programs(variant, head));
        let weights = Weights::upload(&checkpoint, &config, variant, version, head, &mut *engine)?;
        let scratch = Scratch::new(&mut *engine, version, variant.qk_norm)?;
        let head_scratch = HeadScratch::new(&mut *engine, version.stream())?;
        Ok(Self { config, variant, engine, kernels, weights, scratch, head_scratch, version })
    }

    /// Sizes and switches.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Which graph it is.
    pub fn variant(&self) -> &'static Variant {
        self.variant
    }

    /// Which kernels run, on matrices stored how.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What its device allows.
    pub fn caps(&self) -> &Caps {
        self.engine.caps()
    }

    /// Tokens that one batch, hence one text, may have on this device: every activation must fit
    /// into a binding or a texture.
    pub fn max_tokens(&self) -> usize {
        let Config { hidden: d, intermediate: f, .. } = self.config;
        match self.version.stream().texture() {
            true => {
                let columns = d.max(f).max(if self.variant.qk_norm { d } else { 3 * d });
                (Page::HEIGHT / columns.div_ceil(4) * Page::HEIGHT) as usize
            }
            false => {
                // Parts of the fused weights can be bound on their own only where they are aligned.
                let apart = self.variant.qk_norm || d.is_multiple_of(ROW_STEP);
                let stream = d * self.version.stream().bytes();
                let qkv = if apart { 0 } else { 3 * d * self.version.wide().bytes() };
                (self.engine.caps().max_binding_bytes / u64::from(stream.max(qkv))) as usize
            }
        }
    }

    /// Bytes that the device holds for this model now.
    pub fn allocated_bytes(&self) -> u64 {
        self.engine.allocated_bytes()
    }

    /// Runs a batch, at least one token and at most [`Model::max_tokens`], ids and types within
    /// their tables.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails, [`Error::Memory`] if it has no room, and
    /// [`Error::NotFinite`] if it returns what is not.
    pub fn forward(&mut self, batch: &PackedBatch, output: Output) -> Result<Vec<f32>, Error> {
        self.submit(batch, output)?.wait()
    }

    /// As [`Model::forward`], without waiting for the result; others may be submitted meanwhile.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails, [`Error::Memory`] if it has no room.
    pub fn submit(&mut self, batch: &PackedBatch, output: Output) -> Result<Running, Error> {
        let submitted = self.try_submit(batch, output);
        submitted.inspect_err(|error| self.release_after(error))
    }

    /// What did not fit leaves room for what does.
    fn release_after(&mut self, error: &Error) {
        if let Error::Memory(_) = error {
            let released = self.scratch.release(&mut *self.engine);
            let released = released.and_then(|()| self.head_scratch.release(&mut *self.engine));
            if let Err(error) = released {
                tracing::warn!("{error}");
            }
        }
    }

    fn try_submit(&mut self, batch: &PackedBatch, output: Output) -> Result<Running, Error> {
        let recording = self.record(batch, output)?;
        let result = match output {
            Output::Tokens => self.scratch.x,
            Output::Vectors { .. } => self.scratch.y,
            Output::Projected => self.head_scratch.out,
        };
        Ok(Running { ticket: self.engine.submit(&recording, &result)?, dtype: self.version.dtype })
    }

    /// Runs a batch dispatch by dispatch and says how long each took.
    ///
    /// # Errors
    /// As [`Engine::profile`].
    pub fn profile(&mut self, batch: &PackedBatch, output: Output) -> Result<Vec<Span>, Error> {
        let recording = self.record(batch, output)?;
        self.engine.profile(&recording)
    }

    /// The last hidden state of every token of the last batch, \[T, D\]; nothing is run again.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails.
    pub fn last_hidden(&mut self) -> Result<Vec<f32>, Error> {
        self.engine.run(&Recording::new(), &self.scratch.x)
    }

    /// What [`Model::forward`] runs.
    ///
    /// # Errors
    /// [`Error::Memory`] if the device has no room for the batch.
    pub fn record(&mut self, batch: &PackedBatch, output: Output) -> Result<Recording, Error> {
        let dims = match output {
            Output::Tokens | Output::Projected => 0,
            Output::Vectors { dims, .. } => dims,
        };
        self.scratch.fit(&mut *self.engine, &self.config, batch, dims)?;
        let (k, w, s) = (&self.kernels, &self.weights, &self.scratch);
        let mut rec = Recording::within(self.engine.dispatch_flops());
        match self.variant.qk_norm {
            false => jina_bert::record(&mut rec, k, w, s),
            true => jina_bert_code::record(&mut rec, k, w, s),
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

    /// The head that was loaded.
    pub fn head(&self) -> &Arc<Head> {
        &self.weights.head
    }

    /// What a masked language model makes of some tokens of a batch, \[n, V\].
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

    /// As [`Model::logits`], some rows after the other: all of a large batch would take gigabytes.
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
        let (k, w, x) = (&self.kernels, &self.weights, &self.scratch.x);
        let (engine, dtype) = (&mut *self.engine, self.version.dtype);
        let each = |logits: Vec<f32>| finite(logits, dtype).map(|logits| each(&logits));
        self.head_scratch.predict(engine, recording, k, &w.head, (x, rows), each)
    }
}

/// A batch under way.
pub struct Running {
    ticket: Ticket,
    dtype: Dtype,
}

impl Running {
    /// Waits for what [`Model::forward`] returns.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device fails, [`Error::NotFinite`] if it returns what is not.
    pub fn wait(self) -> Result<Vec<f32>, Error> {
        finite(self.ticket.wait()?, self.dtype)
    }
}

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
