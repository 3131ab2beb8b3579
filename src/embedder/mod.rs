//! The front door: a model, texts in, vectors out.

mod chunks;
mod forward;
mod load;
mod options;
mod perplexity;
mod prepare;
mod recover;
mod tasks;
mod texts;

use crate::{
    batch::Tokens,
    error::Error,
    files::Files,
    model::{Config, Head, Output, Queries, Running, Task, Variant},
    recording::Span,
    text::{Tokenized, Tokenizer},
};
pub use chunks::{EmbeddedChunk, EmbeddedChunks};
pub use forward::{Forward, Prepared, Submitted, Work};
use load::Loaded;
pub use options::{End, OnLong, Options, Pooling, Wanted};
pub use perplexity::{AtLength, Measure, Measured};
use rayon::{ThreadPool, ThreadPoolBuilder};
use recover::{BatchTokens, Place, Seat};
use std::{
    io,
    ops::Deref,
    panic::resume_unwind,
    sync::{Arc, Mutex},
    thread,
};
#[cfg(feature = "server")]
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

/// A text's embedding and what it took.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Embedded {
    /// The embedding.
    pub vector: Vector,
    /// Tokens that went into it, special ones included.
    pub tokens: usize,
    /// Tokens of the whole text, where some were dropped.
    pub truncated: Option<usize>,
}

/// A model, ready to embed.  `Send` and `Sync`: calls from several threads take turns on the
/// device; a [`Queue`](crate::Queue) puts them into common batches.
pub struct Embedder {
    tokenizer: Option<Tokenizer>,
    seat: Mutex<Seat>,
    place: Mutex<Place>,
    files: Files,
    options: Options,
    config: Config,
    variant: &'static Variant,
    head: Arc<Head>,
    wanted: Wanted,
    limit: usize,
    pooling: Pooling,
    overlap: usize,
    batch_tokens: BatchTokens,
    /// For what holds the seat.
    pool: ThreadPool,
    queries: Queries,
    task: Task,
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

    /// Opens a model.  The files of a directory are mapped while they load and must not change
    /// meanwhile, nor as long as a device may fail: then they are read again.
    ///
    /// Without `tokenizer.json`, only token ids can be embedded.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Model`] for the files, [`Error::NoGpu`] for the device,
    /// [`Error::Option`] for options that contradict the model.
    pub fn open_with(files: impl Into<Files>, options: Options) -> Result<Self, Error> {
        let files = files.into();
        // The cheap checks come first: a directory that is no model should not cost a device.
        let config = Config::open(&files)?;
        let dimensions = dimensions(options.dimensions, config.hidden as usize)?;
        if !(0.0..1.0).contains(&options.skip_eps) {
            let eps = options.skip_eps;
            return Err(Error::Option(format!(
                "skip_eps {eps}: a share from 0 to below 1 is meant"
            )));
        }
        if options.batch_tokens == Some(0) {
            return Err(Error::Option("a batch of 0 tokens holds no text".to_owned()));
        }
        let queries = load::queries(&files, &options)?;
        let pooling = load::pooling(&files, &options)?;
        let pool = pool()?;
        // The tokenizer takes as long to read as a small model's weights, and the device to open.
        let (tokenizer, loaded) = thread::scope(|scope| {
            let tokenizer = || load::tokenizer(&files, &options, &config);
            let tokenizer = thread::Builder::new().spawn_scoped(scope, tokenizer);
            let tokenizer = tokenizer.map_err(no_thread)?;
            let loaded = load::load_or_fall_back(&files, &options, &config);
            let tokenizer = tokenizer.join().unwrap_or_else(|panic| resume_unwind(panic));
            Ok::<_, Error>((tokenizer, loaded))
        })?;
        let (tokenizer, limit) = tokenizer?;
        let Loaded { model, device, after, batch_tokens, software } = loaded?;
        let device_limit = model.max_tokens();
        let (limit, overlap) = (limit.min(device_limit), options.overlap);
        if options.on_long == OnLong::Window && overlap >= limit {
            return Err(Error::Option(format!(
                "overlap {overlap} leaves no room in windows of {limit} tokens"
            )));
        }
        // Calls may ask for windows where the options do not.
        let overlap = overlap.min(limit - 1);
        Ok(Self {
            variant: model.variant(),
            head: model.head().clone(),
            wanted: Wanted {
                dimensions,
                normalize: options.normalize,
                on_long: options.on_long,
                drop: End::Last,
            },
            limit,
            pooling,
            overlap,
            batch_tokens: BatchTokens::new(
                options.batch_tokens.unwrap_or(batch_tokens).min(device_limit),
            ),
            pool,
            queries,
            task: options.task,
            place: Mutex::new(Place { device, after, cpu: model.caps().cpu, software }),
            seat: Mutex::new(Seat::new(model)),
            files,
            options,
            tokenizer,
            config,
        })
    }

    /// Components of a vector.
    pub fn dim(&self) -> usize {
        self.wanted.dimensions
    }

    /// What a text's vector is made of: the mean of its tokens, or the first.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Longest text in tokens, special ones included.
    pub fn max_length(&self) -> usize {
        self.limit
    }

    /// Tokens of a batch, unless a single sequence has more.
    pub fn batch_tokens(&self) -> usize {
        self.batch_tokens.get()
    }

    /// Batches that are worth handing to the device before the first of them is waited for: it is
    /// never idle then, and what comes in between waits no longer than it must.
    pub fn ahead(&self) -> usize {
        if self.place().software { 1 } else { 2 }
    }

    /// Whether nothing is handed to the device or waited for at this moment: a call that comes now
    /// hardly waits for others.
    pub fn is_idle(&self) -> bool {
        self.seat.try_lock().is_ok()
    }

    /// What the model was opened for.
    pub fn task(&self) -> Task {
        self.task
    }

    /// What it runs on now, for people.
    pub fn device(&self) -> String {
        let place = self.place();
        match &place.after {
            None => place.device.clone(),
            Some(error) => format!("{}; took over after: {error}", place.device),
        }
    }

    /// `cpu` or `gpu`.
    pub fn kind(&self) -> &'static str {
        if self.place().cpu { "cpu" } else { "gpu" }
    }

    /// Sizes and switches of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Classes that its classifier has; 0 without one.
    pub fn classes(&self) -> usize {
        self.head.labels()
    }

    /// Which graph the model is.
    pub fn variant(&self) -> &'static Variant {
        self.variant
    }

    /// Bytes that the device holds for it now: weights, activations of the largest batch so far,
    /// readback.
    pub fn allocated_bytes(&self) -> u64 {
        self.seat().allocated_bytes()
    }

    /// The tokens that the model reads for each text, special ones included.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn tokenize<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Tokenized>, Error> {
        self.tokenize_as(texts, self.wanted)
    }

    fn tokenizer(&self) -> Result<&Tokenizer, Error> {
        self.tokenizer.as_ref().ok_or_else(|| {
            let message = "this model has no tokenizer.json: only token ids can be embedded";
            Error::Option(message.to_owned())
        })
    }

    /// Embeds token lists, special tokens included by the caller, taken as given.
    ///
    /// # Errors
    /// [`Error::Input`] for an empty list or an id outside its table, [`Error::TooLong`] over the
    /// limit unless it is to be read in windows (ids are never truncated), [`Error::Gpu`] if the
    /// device fails.
    pub fn embed_tokens(&self, sequences: &[&Tokens]) -> Result<Vec<Vector>, Error> {
        let sequences = sequences.iter().map(|&tokens| tokens.clone()).collect();
        self.compute(self.prepare_tokens(sequences, self.wanted)?)
    }

    /// How long each kernel takes for sequences of tokens, without anything that goes on between.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`], and [`Error::NoGpu`] where the device cannot tell.
    pub fn profile(&self, sequences: &[&Tokens]) -> Result<Vec<Span>, Error> {
        let output = self.vectors(self.wanted);
        let sequences: Vec<_> = sequences.iter().map(|&tokens| tokens.clone()).collect();
        self.check_all(&sequences)?;
        let forwards: Vec<_> = sequences.into_iter().map(Forward::whole).collect();
        let mut spans = Vec::new();
        for batch in self.batches(&forwards) {
            let some = self.apart(|seat| seat.with(|model| model.profile(&batch, output)));
            spans.extend(some??);
        }
        Ok(spans)
    }

    fn check(&self, index: usize, tokens: &Tokens) -> Result<(), Error> {
        self.check_ids(index, tokens)?;
        match tokens.len() > self.limit {
            true => Err(Error::TooLong { index, tokens: tokens.len(), limit: self.limit }),
            false => Ok(()),
        }
    }

    fn check_ids(&self, index: usize, tokens: &Tokens) -> Result<(), Error> {
        let bad = |what: String| Err(Error::Input { index, what });
        let (ids, types) = (&tokens.ids, &tokens.type_ids);
        if ids.len() != types.len() {
            return bad(format!("{} ids but {} type ids", ids.len(), types.len()));
        }
        if ids.is_empty() {
            return bad("no tokens, not even special ones".to_owned());
        }
        if tokens.unseen >= ids.len() {
            return bad(format!("{} tokens, {} of them unseen", ids.len(), tokens.unseen));
        }
        let Config { vocabulary, types: kinds, .. } = self.config;
        if let Some(id) = ids.iter().find(|&&id| id >= vocabulary) {
            return bad(format!("id {id}; the vocabulary has {vocabulary} rows"));
        }
        if let Some(kind) = types.iter().find(|&&kind| kind >= kinds) {
            return bad(format!("type id {kind}; the model has {kinds} types"));
        }
        Ok(())
    }
}

/// As many threads as tokenise.
fn pool() -> Result<ThreadPool, Error> {
    let name = |n| format!("jinabert-{n}");
    let pool = ThreadPoolBuilder::new().num_threads(rayon::current_num_threads());
    let pool = pool.thread_name(name).build();
    pool.map_err(|error| Error::Memory(format!("no threads to compute on: {error}")))
}

fn no_thread(error: io::Error) -> Error {
    Error::Memory(format!("the system gives no thread: {error}"))
}

/// Components of a vector, of those that the model has.
pub(crate) fn dimensions(asked: Option<usize>, hidden: usize) -> Result<usize, Error> {
    match asked {
        None => Ok(hidden),
        Some(n) if (1..=hidden).contains(&n) => Ok(n),
        Some(n) => Err(Error::Option(format!("`dimensions` {n}: the model has 1 to {hidden}"))),
    }
}
