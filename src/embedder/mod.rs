//! Public entry point: a model that turns texts into vectors.

mod choose;
mod chunks;
mod job;
mod load;
mod options;
mod perplexity;
mod prepare;
mod prompt;
mod recover;
mod runner;
mod slot;
mod tasks;
mod texts;

use crate::{
    batch::Tokens,
    error::Error,
    files::Files,
    model::{Architecture, ColbertConfig, Config, Head, Output, SentenceTransformersConfig, Task},
    recording::{InFlight, Span},
    text::{Tokenized, Tokenizer},
    tune::Speed,
};
pub use choose::Power;
pub use chunks::{EmbeddedChunk, EmbeddedChunks};
pub use job::{EncodeJob, EncoderInput, SequenceInput};
use options::checked_dimensions;
pub use options::{EncodeOptions, OnLong, Options, Pooling, Prompt, TruncationSide};
pub use perplexity::{LengthBucket, Perplexity, PerplexityOptions};
use runner::Runner;
use std::{fmt, io, ops::Deref, panic::resume_unwind, sync::Arc, thread};
pub use tasks::probabilities;
pub use tasks::{Candidate, Masked, Role, Score, TokenVectors};
pub use texts::Progress;

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
pub struct Embedder {
    tokenizer: Option<Tokenizer>,
    runner: Runner,
    architecture: &'static Architecture,
    head: Arc<Head>,
    defaults: EncodeOptions,
    limit: usize,
    declared: SentenceTransformersConfig,
    /// Default prompt, put before each text.
    prompt: String,
    pooling: Pooling,
    overlap: usize,
    queries: ColbertConfig,
    task: Task,
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
        let dimensions = checked_dimensions(options.dimensions, config.hidden as usize)?;
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
        let limit = limit.min(loaded.model.max_tokens());
        let overlap = options.overlap;
        if options.on_long == OnLong::Window && overlap >= limit {
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
            },
            limit,
            declared,
            prompt,
            pooling,
            overlap,
            queries,
            task: options.task,
            runner: Runner::new(files, options, limit, loaded)?,
            tokenizer,
        })
    }

    /// Number of components of a vector.
    pub fn dim(&self) -> usize {
        self.defaults.dimensions
    }

    /// Pooling: the mean of a text's tokens, or its first token.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Token limit of a text, special tokens included.
    pub fn max_length(&self) -> usize {
        self.limit
    }

    /// Tokens per batch; a single longer sequence gets a batch of its own.
    pub fn batch_tokens(&self) -> usize {
        self.runner.batch_tokens.get()
    }

    /// Pipeline depth: batches to keep in flight.  The device is then never idle, and new calls
    /// wait no longer than necessary.
    pub fn ahead(&self) -> usize {
        self.runner.ahead()
    }

    /// True if nothing is being submitted or waited for: a new call would hardly wait.
    pub fn is_idle(&self) -> bool {
        self.runner.is_idle()
    }

    /// Submits one batch; waiting yields the rows of each sequence.  The sequences are those of an
    /// [`EncodeJob`].
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::Memory`] or [`Error::NotFinite`] if the device fails and all
    /// retries fail; most of them when waiting.
    pub fn submit(
        &self,
        sequences: &[&SequenceInput],
        output: Output,
    ) -> Result<InFlight<'_, Vec<Vec<f32>>>, Error> {
        self.runner.submit(sequences, output)
    }

    /// Task for which the model was opened.
    pub fn task(&self) -> Task {
        self.task
    }

    /// Current device, human-readable.
    pub fn device(&self) -> String {
        let place = self.runner.device_info();
        match &place.after {
            None => place.device.clone(),
            Some(error) => format!("{}; took over after: {error}", place.device),
        }
    }

    /// Speed of the model on its current device, measured now in up to a quarter of a second on all
    /// but the slowest devices; the criterion of [`Device::Auto`](crate::Device::Auto).
    ///
    /// # Errors
    /// [`Error::Gpu`] or a related error if the device fails.
    pub fn speed(&self) -> Result<Speed, Error> {
        self.runner.attempt(choose::speed)
    }

    /// `cpu` or `gpu`.
    pub fn kind(&self) -> &'static str {
        if self.runner.device_info().cpu { "cpu" } else { "gpu" }
    }

    /// Sizes and switches of the model.
    pub fn config(&self) -> &Config {
        &self.runner.config
    }

    /// Number of the classifier's classes; 0 without a classifier.
    pub fn classes(&self) -> usize {
        self.head.labels()
    }

    /// Architecture of the model.
    pub fn architecture(&self) -> &'static Architecture {
        self.architecture
    }

    /// Bytes allocated on the device now: weights, activations of the largest batch so far,
    /// readback.
    pub fn allocated_bytes(&self) -> u64 {
        self.runner.allocated_bytes()
    }

    /// Token ids of each text as the model reads them, with special tokens and the prompt of the
    /// [`Options`].
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn tokenize<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Tokenized>, Error> {
        self.tokenize_as(texts, self.defaults)
    }

    fn tokenizer(&self) -> Result<&Tokenizer, Error> {
        self.tokenizer.as_ref().ok_or_else(|| {
            let message = "this model has no tokenizer.json: only token ids can be embedded";
            Error::Option(message.to_owned())
        })
    }

    /// Embeds token lists as given; the caller includes the special tokens.
    ///
    /// # Errors
    /// [`Error::Input`] for an empty list or an id outside its table, [`Error::TooLong`] over the
    /// limit unless windows are enabled (ids are never truncated), [`Error::Gpu`] if the device
    /// fails.
    pub fn embed_tokens(&self, sequences: &[&Tokens]) -> Result<Vec<Vector>, Error> {
        let sequences = sequences.iter().map(|&tokens| tokens.clone()).collect();
        self.compute(self.prepare_tokens(sequences, self.defaults)?)
    }

    /// Run time of each kernel for sequences of tokens, without the gaps between kernels.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`], and [`Error::NoGpu`] if the device has no timestamps.
    pub fn profile(&self, sequences: &[&Tokens]) -> Result<Vec<Span>, Error> {
        let output = self.vectors(self.defaults);
        let sequences: Vec<_> = sequences.iter().map(|&tokens| tokens.clone()).collect();
        self.check_all(&sequences)?;
        let sequences: Vec<_> = sequences.into_iter().map(SequenceInput::whole).collect();
        self.runner.profile(&sequences, output)
    }

    fn check(&self, index: usize, tokens: &Tokens) -> Result<(), Error> {
        self.check_ids(index, tokens)?;
        if tokens.len() > self.limit {
            Err(Error::TooLong { index, tokens: tokens.len(), limit: self.limit })
        } else {
            Ok(())
        }
    }

    fn check_ids(&self, index: usize, tokens: &Tokens) -> Result<(), Error> {
        let bad = |what: String| Err(Error::Input { index, what });
        let ids = &tokens.ids;
        let types = &tokens.type_ids;
        if ids.len() != types.len() {
            return bad(format!("{} ids but {} type ids", ids.len(), types.len()));
        }
        if ids.is_empty() {
            return bad("no tokens, not even special ones".to_owned());
        }
        if tokens.query_only >= ids.len() {
            return bad(format!("{} tokens, {} of them query_only", ids.len(), tokens.query_only));
        }
        let Config { vocabulary, types: kinds, .. } = *self.config();
        if let Some(id) = ids.iter().find(|&&id| id >= vocabulary) {
            return bad(format!("id {id}; the vocabulary has {vocabulary} rows"));
        }
        if let Some(kind) = types.iter().find(|&&kind| kind >= kinds) {
            return bad(format!("type id {kind}; the model has {kinds} types"));
        }
        Ok(())
    }
}

/// Error for a thread that the system does not give.
fn no_thread(error: io::Error) -> Error {
    Error::Memory(format!("the system gives no thread: {error}"))
}
