//! Public entry point: a model that turns texts into vectors.

mod choose;
mod chunks;
mod job;
mod load;
mod max_sim;
mod modules;
mod options;
mod perplexity;
mod prepare;
mod prompt;
mod recover;
mod runner;
mod runtime;
mod slot;
mod tasks;
mod texts;
mod token_vectors;
mod tokenization;
mod tokens;

use crate::{
    batch::Adapter,
    error::Error,
    files::Files,
    model::{
        self, AdapterInfo, Architecture, ColbertConfig, Config, Head, Modules, Output,
        SentenceTransformersConfig, Task,
    },
    text::Tokenizer,
};
pub use choose::Power;
pub use chunks::{EmbeddedChunk, EmbeddedChunks};
pub use job::{EncodeJob, EncoderInput, SequenceInput};
use options::checked_dimensions;
pub use options::{EncodeOptions, OnLong, Options, Pooling, Prompt, TruncationSide};
pub use perplexity::{LengthBucket, Perplexity, PerplexityOptions};
pub use prepare::Jobs;
use prompt::DefaultPrompt;
use runner::Runner;
pub use runtime::Runtime;
use std::{fmt, io, ops::Deref, panic::resume_unwind, sync::Arc, thread};
pub use tasks::probabilities;
pub use tasks::{Candidate, Masked, Score};
pub use texts::Progress;
pub use token_vectors::{Role, TokenVectors};
pub use tokenization::Tokenization;
pub use tokens::TokenCalls;

/// An embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Vector(Vec<f32>);

impl Vector {
    /// Cosine similarity of unit vectors; in general the dot product.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn dot(&self, other: &Self) -> f32 {
        assert_eq!(self.len(), other.len(), "dimensions of the two vectors");
        self.iter().zip(other.iter()).map(|(a, b)| f64::from(a * b)).sum::<f64>() as f32
    }

    /// The components.
    pub fn into_inner(self) -> Vec<f32> {
        self.0
    }
}

impl Deref for Vector {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl AsRef<[f32]> for Vector {
    fn as_ref(&self) -> &[f32] {
        &self.0
    }
}

/// Wraps stored components without scaling them.
impl From<Vec<f32>> for Vector {
    fn from(components: Vec<f32>) -> Self {
        Self(components)
    }
}

impl From<Vector> for Vec<f32> {
    fn from(vector: Vector) -> Self {
        vector.0
    }
}

/// A text's embedding with token counts.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Embedded {
    /// The embedding.
    pub vector: Vector,
    /// Number of tokens embedded, special tokens included.
    pub tokens: usize,
    /// Token count of the whole text if it was truncated; a lower bound for texts of more than a
    /// megabyte.
    pub truncated: Option<usize>,
}

/// A model, ready to embed.  `Send` and `Sync`: calls from several threads take turns on the
/// device; a [`Queue`](crate::Queue) merges them into common batches.
///
/// The methods here are the calls for texts.  The others are grouped:
///
/// | group | contents |
/// |---|---|
/// | [`Embedder::jobs`] | calls in two steps: jobs, for [`Embedder::compute`] or a queue |
/// | [`Embedder::tokens`] | calls whose input is token ids |
/// | [`Embedder::tokenization`] | texts to tokens and back, prompts |
/// | [`Embedder::runtime`] | the model on its device: memory, speed, batches |
pub struct Embedder {
    tokenizer: Option<Tokenizer>,
    runner: Runner,
    architecture: &'static Architecture,
    head: Arc<Head>,
    defaults: EncodeOptions,
    limit: usize,
    declared: SentenceTransformersConfig,
    prompt: DefaultPrompt,
    /// Tasks of the LoRA adapters.
    adapters: Vec<AdapterInfo>,
    /// Modules after pooling.
    modules: Arc<Modules>,
    /// Components of a whole vector.
    width: usize,
    /// Numbers of components that vectors may have; empty if they may have any number.
    matryoshka: Vec<usize>,
    pooling: Pooling,
    overlap: usize,
    queries: ColbertConfig,
    task: Task,
    /// Documents may be ranked by MaxSim of the last hidden states.
    max_sim: bool,
}

impl fmt::Debug for Embedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut found = f.debug_struct("Embedder");
        found
            .field("files", &self.runner.files)
            .field("task", &self.task)
            .field("device", &self.device());
        found.field("dimensions", &self.defaults.dimensions).field("max_length", &self.limit);
        found.field("pooling", &self.pooling).finish_non_exhaustive()
    }
}

impl Embedder {
    /// Opens a model directory (`config.json`, `model.safetensors` or shards, `tokenizer.json`)
    /// with default options.
    ///
    /// # Errors
    /// As [`Embedder::open_with`].
    pub fn open(files: impl Into<Files>) -> Result<Self, Error> {
        Self::open_with(files, Options::default())
    }

    /// Opens a model.  The files of a directory are memory-mapped while loading.  They must not
    /// change later, either: after a device failure they are read again.
    ///
    /// Without `tokenizer.json`, only token ids can be embedded.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Model`] for the files, [`Error::NoGpu`] for the device,
    /// [`Error::Option`] for options that contradict the model.
    pub fn open_with(files: impl Into<Files>, options: Options) -> Result<Self, Error> {
        let files = files.into();
        // Cheap checks first: an invalid directory should not cost a device initialisation.
        let config = Config::open(&files)?;
        if !(0.0..1.0).contains(&options.skip_eps) {
            let eps = options.skip_eps;
            return Err(Error::Option(format!("expected a skip_eps from 0 to below 1, got {eps}")));
        }
        if options.batch_tokens == Some(0) {
            return Err(Error::Option("a batch of 0 tokens holds no text".to_owned()));
        }
        let queries = load::queries(&files, &options)?;
        let declared = load::declared(&files, options.task)?;
        let pooling = load::pooling(&declared, &options)?;
        let modules = match options.task {
            Task::Embed | Task::Encode => declared.modules.as_slice(),
            _ => &[],
        };
        let modules = Modules::open(&files, modules, config.hidden as usize)?;
        let width = modules.width(config.hidden as usize);
        let matryoshka =
            if options.any_dimensions { Vec::new() } else { config.matryoshka.clone() };
        let kept = options.dimensions.or(config.truncate_dim);
        let dimensions = checked_dimensions(kept, width, &matryoshka)?;
        let prompt = prompt::of_options(&declared, &options)?;
        let (limit, _) = declared.limit(&config);
        // Reading the tokenizer takes as long as a small model's weights or opening the device.
        let (tokenizer, loaded) = thread::scope(|scope| {
            let tokenizer = || load::tokenizer(&files, &options, limit);
            let tokenizer = thread::Builder::new().spawn_scoped(scope, tokenizer);
            let tokenizer = tokenizer.map_err(no_thread)?;
            let loaded = choose::best(&files, &options, &config);
            let tokenizer = tokenizer.join().unwrap_or_else(|panic| resume_unwind(panic));
            Ok::<_, Error>((tokenizer, loaded))
        })?;
        let (tokenizer, limit) = tokenizer?;
        let loaded = loaded?;
        let most = loaded.model.max_positions().unwrap_or(usize::MAX);
        if let Some(length) = options.max_length.filter(|length| *length > most) {
            return Err(Error::Option(format!(
                "max length {length}: expected at most {most}, the rows of the position table"
            )));
        }
        let limit = limit.min(most).min(loaded.model.max_tokens());
        let adapters = loaded.model.adapters().to_vec();
        let task = options.adapter.as_ref().map(|task| model::adapter(&adapters, task));
        let adapter = task.transpose()?;
        let overlap = options.overlap;
        // Reranking has an overlap of its own.
        let ranks = options.task == Task::Rerank;
        if options.on_long == OnLong::Window && overlap >= limit && !ranks {
            return Err(Error::Option(format!(
                "overlap {overlap} leaves no room in windows of {limit} tokens"
            )));
        }
        // Single calls may request windows even if the options do not.
        let overlap = overlap.min(limit - 1);
        Ok(Self {
            architecture: loaded.model.architecture(),
            head: loaded.model.head().clone(),
            defaults: EncodeOptions {
                dimensions,
                normalize: options.normalize,
                max_length: limit,
                on_long: options.on_long,
                truncation_side: TruncationSide::Right,
                adapter,
            },
            limit,
            declared,
            prompt,
            adapters,
            matryoshka,
            modules: Arc::new(modules),
            width,
            pooling,
            overlap,
            queries,
            task: options.task,
            max_sim: options.max_sim && loaded.model.head().labels() == 0,
            runner: Runner::new(files, options, limit, loaded)?,
            tokenizer,
        })
    }

    /// Number of components of a vector.
    pub fn dim(&self) -> usize {
        self.defaults.dimensions
    }

    /// Pooling of a text's tokens.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Token limit of a text, special tokens included.
    pub fn max_length(&self) -> usize {
        self.limit
    }

    /// Task for which the model was opened.
    pub fn task(&self) -> Task {
        self.task
    }

    /// Tasks of the model's LoRA adapters, with the instructions before their texts.
    pub fn adapters(&self) -> &[AdapterInfo] {
        &self.adapters
    }

    /// LoRA adapter of a task such as `retrieval.query`, for [`EncodeOptions::adapter`].
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown task, naming the model's.
    ///
    /// # Example
    /// ```no_run
    /// use jinabert::{EncodeOptions, Embedder};
    ///
    /// let embedder = Embedder::open("models/jina-embeddings-v3")?;
    /// let query = embedder.adapter("retrieval.query")?;
    /// let options = EncodeOptions { adapter: Some(query), ..embedder.encode_options() };
    /// let job = embedder.jobs().texts(&["What is a blue cat?"], options)?;
    /// let vectors = embedder.compute(job)?;
    /// # Ok::<(), jinabert::Error>(())
    /// ```
    pub fn adapter(&self, task: &str) -> Result<Adapter, Error> {
        model::adapter(&self.adapters, task)
    }

    /// True if [`Embedder::rerank`] gives MaxSim: of a ColBERT model, or of an embedding model as
    /// [`Options::max_sim`] says.
    pub fn ranks_by_max_sim(&self) -> bool {
        self.head.projected() > 0 || self.max_sim
    }

    /// Current device, human-readable.
    pub fn device(&self) -> String {
        let place = self.runner.device_info();
        match &place.switch_reason {
            None => place.device.clone(),
            Some(error) => format!("{}; took over after: {error}", place.device),
        }
    }

    /// Sizes and switches of the model.
    pub fn config(&self) -> &Config {
        &self.runner.config
    }

    /// Default per-call options, from the [`Options`].
    pub fn encode_options(&self) -> EncodeOptions {
        self.defaults
    }
}

/// Error for a thread that the system does not give.
fn no_thread(error: io::Error) -> Error {
    Error::Memory(format!("the system gives no thread: {error}"))
}
