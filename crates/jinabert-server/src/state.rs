//! State of the server: models, limits, permits.

use crate::{
    config::{Limits, ModelSource, ServerConfig},
    error::ApiError,
    metrics::{self, Metrics},
};
use axum::http::StatusCode;
use jinabert::{
    Embedder, EncodeOptions, Error, OnLong, Options, Prompt, Task, batch::Tokens, kernels::Dtype,
    model::ModelInfo, scheduler::Scheduler,
};
use serde::Serialize;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

/// Model that is served.
pub struct ServedModel {
    /// Name that clients use.
    pub name: String,
    /// Scheduler that runs the requests.
    pub scheduler: Scheduler,
}

impl ServedModel {
    /// Embedder of the model.
    pub fn embedder(&self) -> &Arc<Embedder> {
        self.scheduler.embedder()
    }

    /// Task of the model.
    pub fn kind(&self) -> Kind {
        match (self.embedder().task(), self.embedder().tokens().classes()) {
            // A ColBERT model has no class.
            (Task::Rerank, 0 | 1) => Kind::Reranker,
            (Task::Rerank, _) => Kind::Classifier,
            _ => Kind::Embedding,
        }
    }
}

/// Task of a model, in the terms of text-embeddings-inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Embeddings of texts.
    Embedding,
    /// One score for a pair of texts.
    Reranker,
    /// One score for each of several classes.
    Classifier,
}

/// Operation for which a route needs a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Embed texts.
    Embed,
    /// Rank texts.
    Rank,
    /// Classify texts: a reranker has one class.
    Classify,
}

impl Capability {
    /// True if a model supports the operation.
    fn supported_by(self, model: &ServedModel) -> bool {
        let kind = model.kind();
        match self {
            Self::Embed => kind == Kind::Embedding,
            Self::Rank => kind == Kind::Reranker || model.embedder().ranks_by_max_sim(),
            Self::Classify => kind != Kind::Embedding && model.embedder().tokens().classes() > 0,
        }
    }

    /// Message that says why none of these models supports the operation.
    fn missing_message(self, models: &[Arc<ServedModel>]) -> String {
        let classifier = models.iter().find(|model| model.kind() == Kind::Classifier);
        match (self, classifier) {
            (Self::Embed, _) => {
                "expected an embedding model, got only rerankers and classifiers".to_owned()
            }
            (Self::Rank, Some(model)) => {
                let name = &model.name;
                let labels = model.embedder().tokens().classes();
                format!(
                    "no reranker is served here: `{name}` is a classifier of {labels} labels, for \
                     /predict"
                )
            }
            _ => "no reranker is served here; `jinabert serve --model` adds one".to_owned(),
        }
    }
}

/// State shared by all requests.
pub struct State {
    /// Limits for clients.
    pub limits: Limits,
    /// Truncate texts over the limit by default; a request may say otherwise.
    pub auto_truncate: bool,
    /// Accept token ids without checking that the tokenizer could have made them.
    pub trust_ids: bool,
    /// Accepted bearer tokens; if empty, no key is needed.
    pub keys: Vec<String>,
    /// Permits for requests.
    pub request_permits: Arc<Semaphore>,
    /// Permits for bodies and responses, one for each KiB.
    pub payload_permits: Arc<Semaphore>,
    /// Thread pool for tokenising, separate from the one that computes: a call that computes on all
    /// cores may run other work queued in its own pool, and has to wait for that to end.
    pub readers: rayon::ThreadPool,
    /// Metrics.
    pub metrics: Metrics,
    /// Start time of the server in seconds since 1970: `created` of its models.
    pub created: u64,
    /// Dtype of the weights, in the terms of text-embeddings-inference.
    pub dtype: &'static str,
    /// Number of response ids given out.
    ids: AtomicU64,
    /// Requests that were answered with `Retry-After`.
    refused: AtomicU64,
    models: OnceLock<Vec<Arc<ServedModel>>>,
}

impl State {
    /// State without models.
    pub fn new(config: &ServerConfig) -> Result<Self, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let limits = config.limits.clone();
        Ok(Self {
            request_permits: Arc::new(Semaphore::new(limits.concurrent_requests)),
            payload_permits: Arc::new(Semaphore::new(limits.payloads.div_ceil(1024))),
            readers: rayon::ThreadPoolBuilder::new()
                .num_threads(rayon::current_num_threads())
                .thread_name(|n| format!("jinabert-reader-{n}"))
                .build()
                .map_err(|e| e.to_string())?,
            metrics: Metrics::install()?,
            created: now.as_secs(),
            dtype: match config.embedding.dtype {
                Dtype::F32 => "float32",
                Dtype::F16 => "float16",
            },
            ids: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            models: OnceLock::new(),
            auto_truncate: config.auto_truncate,
            trust_ids: config.trust_ids,
            keys: config.keys.clone(),
            limits,
        })
    }

    /// Id for a response.
    pub fn next_id(&self) -> String {
        format!("jinabert-{}-{}", self.created, self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Opens the models and warms each of them up.
    pub fn open(&self, sources: &[ModelSource], options: &Options) -> Result<(), Error> {
        let mut models = Vec::new();
        for source in sources {
            let start = Instant::now();
            let mut own_options = options.clone();
            own_options.task = match ModelInfo::open(&source.dir)?.task() {
                Task::Rerank | Task::MultiVector => Task::Rerank,
                _ => Task::Encode,
            };
            if own_options.task == Task::Rerank {
                // A reranker's texts have neither prompt nor task.
                own_options.prompt = Prompt::Auto;
                own_options.adapter = None;
            }
            let embedder = Arc::new(Embedder::open_with(&source.dir, own_options)?);
            if !embedder.tokenization().reads_texts() {
                let dir = source.dir.display();
                let message = format!("expected tokenizer.json in `{dir}`, which texts need");
                return Err(Error::Model(message));
            }
            warm_up(&embedder)?;
            let scheduler = Scheduler::new(embedder, metrics::batch_started)
                .map_err(|e| Error::Option(format!("cannot start the thread of a model: {e}")))?;
            let name = source.name.clone();
            tracing::info!("{name}: ready after {} ms", start.elapsed().as_millis());
            models.push(Arc::new(ServedModel { name, scheduler }));
        }
        // This is the only call that sets it.
        let _ = self.models.set(models);
        Ok(())
    }

    /// Models, once they are loaded.
    pub fn models(&self) -> Result<&[Arc<ServedModel>], ApiError> {
        self.models
            .get()
            .map(Vec::as_slice)
            .ok_or_else(|| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the models are loading"))
    }

    /// Checks that the models are loaded and that none has failed `FAILURES` times in a row.
    pub fn healthy(&self) -> Result<(), ApiError> {
        match self.models()?.iter().find(|model| model.scheduler.failures() >= FAILURES) {
            None => Ok(()),
            Some(model) => {
                let name = &model.name;
                let message = format!("the device failed {FAILURES} times in a row at `{name}`");
                Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message))
            }
        }
    }

    /// Finds the model for a request.
    ///
    /// The only model for a task matches every name, since clients send the names that they know.
    /// Among several models the name decides, in any case, with or without its owner; no name, or
    /// one of OpenAI's, selects the first, to rank the first reranker.
    pub fn model(
        &self,
        name: Option<&str>,
        needs: Capability,
    ) -> Result<Arc<ServedModel>, ApiError> {
        let models = self.models()?;
        let mut suitable: Vec<_> =
            models.iter().filter(|model| needs.supported_by(model)).collect();
        // A reranker ranks better than an embedding model's MaxSim.
        let by_embedding = |model: &Arc<ServedModel>| model.kind() == Kind::Embedding;
        suitable.sort_by_key(|model| needs == Capability::Rank && by_embedding(model));
        let Some(&first) = suitable.first() else {
            return Err(ApiError::new(StatusCode::NOT_FOUND, needs.missing_message(models))
                .about("model")
                .coded("model_not_found"));
        };
        let Some(name) = name.filter(|name| !name.is_empty() && suitable.len() > 1) else {
            return Ok(first.clone());
        };
        let exact = suitable.iter().find(|model| model.name.eq_ignore_ascii_case(name));
        let similar = || suitable.iter().find(|model| short_name(&model.name) == short_name(name));
        match exact.or_else(similar) {
            Some(&model) => Ok(model.clone()),
            None if name.starts_with("text-embedding-") => Ok(first.clone()),
            None => {
                let names: Vec<&str> = suitable.iter().map(|model| &model.name[..]).collect();
                let got: String = name.chars().take(200).collect();
                let message = format!("expected a model of {}, got `{got}`", names.join(", "));
                Err(ApiError::new(StatusCode::NOT_FOUND, message)
                    .about("model")
                    .coded("model_not_found"))
            }
        }
    }

    /// Number of requests in progress.
    pub fn requests_in_progress(&self) -> usize {
        self.limits.concurrent_requests - self.request_permits.available_permits()
    }

    /// Value of `Retry-After` in seconds: the time until the model with the longest queue has
    /// finished it, with a spread.
    pub fn retry_after(&self) -> u64 {
        let models = self.models.get().map(Vec::as_slice).unwrap_or_default();
        let backlog = models.iter().map(|model| model.scheduler.backlog()).max();
        let refusal = self.refused.fetch_add(1, Ordering::Relaxed);
        retry_after(backlog.unwrap_or_default(), refusal)
    }

    /// True if the key is accepted.  The time taken reveals nothing about a key but its length.
    pub fn admits(&self, key: &[u8]) -> bool {
        let found = self
            .keys
            .iter()
            .fold(subtle::Choice::from(0), |found, own| found | own.as_bytes().ct_eq(key));
        self.keys.is_empty() || found.into()
    }

    /// Options for a request's call of the embedder.
    pub fn encode_options(
        &self,
        embedder: &Embedder,
        dimensions: Option<u64>,
        normalize: Option<bool>,
        truncate: Option<bool>,
    ) -> Result<EncodeOptions, ApiError> {
        let dimensions =
            dimensions.filter(|n| *n > 0).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let options = embedder
            .encode_options()
            .with_dimensions(dimensions)
            .and_then(|options| embedder.checked(options))
            .map_err(|error| ApiError::engine(error).about("dimensions"))?;
        let truncate = truncate.unwrap_or(self.auto_truncate);
        let on_long = if truncate { OnLong::Truncate } else { OnLong::Error };
        Ok(EncodeOptions { normalize: normalize.unwrap_or(options.normalize), on_long, ..options })
    }
}

/// Name of a model in lower case, without its owner.
fn short_name(name: &str) -> String {
    name.rsplit('/').next().unwrap_or_default().to_lowercase()
}

/// Number of consecutive failed batches that makes a server unhealthy.
const FAILURES: u32 = 3;

/// Maximum of `Retry-After` in seconds: OpenAI's client ignores larger values.
const LONGEST_WAIT: f64 = 60.0;

/// Seconds until a client may retry, after the refusal of this number.  Consecutive refused clients
/// are spread over an interval as long as the queue's own time, so that they do not all return at
/// once.
fn retry_after(backlog: Duration, refusal: u64) -> u64 {
    // Fractions of multiples of the golden ratio are evenly spread for any number of clients.
    let share = (refusal as f64 * 0.618_033_988_749_895).fract();
    (backlog.as_secs_f64() * (1.0 + share)).ceil().clamp(1.0, LONGEST_WAIT) as u64
}

/// Runs a short batch and a full one, which compiles the kernels and allocates memory.
fn warm_up(embedder: &Embedder) -> Result<(), Error> {
    let one = vec![0; 16.min(embedder.max_length())];
    let long = 128.min(embedder.max_length());
    let count = embedder.runtime().batch_tokens().div_ceil(long);
    for texts in [vec![one], vec![vec![0; long]; count]] {
        let tokens: Vec<_> = texts.into_iter().map(Tokens::new).collect();
        match embedder.task() {
            Task::Rerank if embedder.tokens().classes() == 0 => {
                embedder.tokens().project(&tokens.iter().collect::<Vec<_>>())?;
            }
            Task::Rerank => drop(embedder.compute(embedder.jobs().classes(tokens)?)?),
            _ => {
                drop(embedder.compute(embedder.jobs().tokens(tokens, embedder.encode_options())?)?)
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sorted retry times of 100 clients, in seconds.
    fn after(seconds: f64) -> Vec<u64> {
        let backlog = Duration::from_secs_f64(seconds);
        let mut all: Vec<u64> = (0..100).map(|refusal| retry_after(backlog, refusal)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn retry_times_are_spread_evenly() {
        assert_eq!(after(0.0), [1; 100]);
        assert_eq!(after(0.4), [1; 100]);
        assert_eq!(after(1e9), [60; 100]);
        // Every second gets the same number of clients.
        let ten = after(10.0);
        assert_eq!((ten[0], ten[99]), (10, 20));
        for second in 11..=20 {
            let count = ten.iter().filter(|after| **after == second).count();
            assert!((9..=11).contains(&count), "{count} after {second} s");
        }
    }
}
