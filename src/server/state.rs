//! What the server holds: models, limits, keys.

use super::{Pace, Serve, metrics, refusal::Refusal};
use crate::{
    Embedder, Error, OnLong, Options, Task, Wanted, batch::Tokens, embedder, kernels::Dtype,
    model::Inspection, scheduler::Scheduler,
};
use axum::http::StatusCode;
use serde::Serialize;
use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

/// A model to be served.
#[derive(Clone, Debug)]
pub struct ModelSource {
    /// What clients call it.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
}

/// What clients may do, and how much of it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Requests that are worked on or wait for a batch; one more is answered 429.
    pub concurrent_requests: usize,
    /// Texts of one request.
    pub client_batch: usize,
    /// Bytes of one request's body.
    pub payload: usize,
    /// Bytes of all bodies under way together.
    pub payloads: usize,
    /// Open connections; others wait to be accepted.
    pub connections: usize,
    /// Numbers in one answer that has them for every token.
    pub answer: usize,
    /// How slowly an answer may be taken.
    pub pace: Pace,
}

impl Limits {
    /// Whether a request may have so many items in a field: some, and not too many.
    pub fn batch(&self, field: &'static str, count: usize) -> Result<(), Refusal> {
        match count {
            0 => Err(Refusal::empty(field)),
            _ => self.at_most(field, count),
        }
    }

    /// Whether a request may have so many items in a field, or none.
    pub fn at_most(&self, field: &'static str, count: usize) -> Result<(), Refusal> {
        let limit = self.client_batch;
        if count <= limit { Ok(()) } else { Err(Refusal::too_many(field, count, limit)) }
    }
}

/// A model that is served.
pub struct Served {
    /// What clients call it.
    pub name: String,
    /// Runs what they ask.
    pub scheduler: Scheduler,
}

impl Served {
    /// The model.
    pub fn embedder(&self) -> &Arc<Embedder> {
        self.scheduler.embedder()
    }

    /// What it is for.
    pub fn kind(&self) -> Kind {
        match (self.embedder().task(), self.embedder().classes()) {
            (Task::Rerank, 1) => Kind::Reranker,
            (Task::Rerank, _) => Kind::Classifier,
            _ => Kind::Embedding,
        }
    }
}

/// What a model is for, by text-embeddings-inference's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Vectors of texts.
    Embedding,
    /// One number for a pair of texts.
    Reranker,
    /// A number for each of several classes.
    Classifier,
}

/// What a route does with a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Vectors.
    Embed,
    /// An order of texts.
    Rank,
    /// Classes: a reranker has one.
    Classify,
}

impl Use {
    /// Whether a model can be used so.
    fn fits(self, kind: Kind) -> bool {
        match self {
            Self::Embed => kind == Kind::Embedding,
            Self::Rank => kind == Kind::Reranker,
            Self::Classify => kind != Kind::Embedding,
        }
    }

    /// Why there is no model for it among these.
    fn lacking(self, models: &[Arc<Served>]) -> String {
        let classifier = models.iter().find(|model| model.kind() == Kind::Classifier);
        match (self, classifier) {
            (Self::Embed, _) => {
                "only rerankers and classifiers are served here, they make no embeddings".to_owned()
            }
            (Self::Rank, Some(model)) => {
                let (name, labels) = (&model.name, model.embedder().classes());
                format!(
                    "no reranker is served here: `{name}` is a classifier of {labels} labels, for \
                     /predict"
                )
            }
            _ => "no reranker is served here; `jinabert serve --model` takes one".to_owned(),
        }
    }
}

/// Everything that a request may need.
pub struct State {
    /// How much of everything.
    pub limits: Limits,
    /// Whether texts over the limit are cut unless a request says otherwise.
    pub auto_truncate: bool,
    /// Whether token ids are taken without a look at whether the tokenizer could have made them.
    pub trust_ids: bool,
    /// Bearer tokens that open the door; none needed if there are none.
    pub keys: Vec<String>,
    /// Requests under way.
    pub requests: Arc<Semaphore>,
    /// KiB of bodies under way.
    pub payloads: Arc<Semaphore>,
    /// Cores' threads that tokenise, apart from those that compute: who computes on all cores waits
    /// for whatever its own threads have begun.
    pub readers: rayon::ThreadPool,
    /// What is measured.
    pub metrics: metrics::Metrics,
    /// When the process began to serve, in seconds since 1970: `created` of its models.
    pub created: u64,
    /// How weights are stored, as text-embeddings-inference says it.
    pub dtype: &'static str,
    answers: AtomicU64,
    /// Requests that were told to come again.
    turned_away: AtomicU64,
    models: OnceLock<Vec<Arc<Served>>>,
}

impl State {
    pub(super) fn new(options: &Serve) -> Result<Self, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let limits = options.limits.clone();
        Ok(Self {
            requests: Arc::new(Semaphore::new(limits.concurrent_requests)),
            payloads: Arc::new(Semaphore::new(limits.payloads.div_ceil(1024))),
            readers: rayon::ThreadPoolBuilder::new()
                .num_threads(rayon::current_num_threads())
                .thread_name(|n| format!("jinabert-reader-{n}"))
                .build()
                .map_err(|e| e.to_string())?,
            metrics: metrics::Metrics::install()?,
            created: now.as_secs(),
            dtype: match options.embedding.dtype {
                Dtype::F32 => "float32",
                Dtype::F16 => "float16",
            },
            answers: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            models: OnceLock::new(),
            auto_truncate: options.auto_truncate,
            trust_ids: options.trust_ids,
            keys: options.keys.clone(),
            limits,
        })
    }

    /// A name for an answer.
    pub fn next_id(&self) -> String {
        format!("jinabert-{}-{}", self.created, self.answers.fetch_add(1, Ordering::Relaxed))
    }

    /// Opens the models, lets each compute something of any size, and is ready.
    pub(super) fn open(&self, sources: &[ModelSource], options: &Options) -> Result<(), Error> {
        let mut models = Vec::new();
        for source in sources {
            let start = Instant::now();
            let task = Inspection::open(&source.dir)?.task();
            let task = if task == Task::Rerank { task } else { Task::Encode };
            let options = Options { task, ..options.clone() };
            let embedder = Arc::new(Embedder::open_with(&source.dir, options)?);
            if !embedder.reads_texts() {
                let dir = source.dir.display();
                let what = format!("`{dir}` has no tokenizer.json, and clients send texts");
                return Err(Error::Model(what));
            }
            warm_up(&embedder)?;
            let scheduler = Scheduler::new(embedder, metrics::batch)
                .map_err(|e| Error::Option(format!("no thread for a model: {e}")))?;
            let (name, ms) = (source.name.clone(), start.elapsed().as_millis());
            tracing::info!("{name}: ready after {ms} ms");
            models.push(Arc::new(Served { name, scheduler }));
        }
        // Nobody else sets it.
        let _ = self.models.set(models);
        Ok(())
    }

    /// The models, once they are loaded.
    pub fn models(&self) -> Result<&[Arc<Served>], Refusal> {
        self.models
            .get()
            .map(Vec::as_slice)
            .ok_or_else(|| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the models are loading"))
    }

    /// Whether requests may hope for an answer.
    pub fn healthy(&self) -> Result<(), Refusal> {
        match self.models()?.iter().find(|model| model.scheduler.failures() >= FAILURES) {
            None => Ok(()),
            Some(model) => {
                let message = format!("the device fails at `{}`", model.name);
                Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message))
            }
        }
    }

    /// The model that a request means.
    ///
    /// One that is the only one for the task is meant by every name: clients send the names that
    /// they know.  Among several the name decides, in any case, with or without its owner; no name,
    /// or one of OpenAI's, means the first.
    pub fn model(&self, name: Option<&str>, purpose: Use) -> Result<Arc<Served>, Refusal> {
        let models = self.models()?;
        let fit: Vec<_> = models.iter().filter(|model| purpose.fits(model.kind())).collect();
        let Some(&first) = fit.first() else {
            return Err(Refusal::new(StatusCode::NOT_FOUND, purpose.lacking(models))
                .about("model")
                .coded("model_not_found"));
        };
        let Some(name) = name.filter(|name| !name.is_empty() && fit.len() > 1) else {
            return Ok(first.clone());
        };
        let short = |name: &str| name.rsplit('/').next().unwrap_or_default().to_lowercase();
        let exact = fit.iter().find(|model| model.name.eq_ignore_ascii_case(name));
        let found = exact.or_else(|| fit.iter().find(|model| short(&model.name) == short(name)));
        match found {
            Some(&model) => Ok(model.clone()),
            None if name.starts_with("text-embedding-") => Ok(first.clone()),
            None => {
                let names: Vec<&str> = fit.iter().map(|model| &model.name[..]).collect();
                let name: String = name.chars().take(200).collect();
                let message = format!("no model `{name}` here, but {}", names.join(", "));
                Err(Refusal::new(StatusCode::NOT_FOUND, message)
                    .about("model")
                    .coded("model_not_found"))
            }
        }
    }

    /// Requests that are worked on.
    pub fn under_way(&self) -> usize {
        self.limits.concurrent_requests - self.requests.available_permits()
    }

    /// In how many seconds a request that is turned away may come again: when the model that has
    /// most to do will be done with what it has.
    pub fn retry_after(&self) -> u64 {
        let models = self.models.get().map(Vec::as_slice).unwrap_or_default();
        let backlog = models.iter().map(|model| model.scheduler.backlog()).max();
        let turn = self.turned_away.fetch_add(1, Ordering::Relaxed);
        retry_after(backlog.unwrap_or_default(), turn)
    }

    /// Whether a key opens the door.  How long that takes says nothing about a key but its length.
    pub fn admits(&self, key: &str) -> bool {
        let key = key.as_bytes();
        let found = self
            .keys
            .iter()
            .fold(subtle::Choice::from(0), |found, own| found | own.as_bytes().ct_eq(key));
        self.keys.is_empty() || found.into()
    }

    /// What a request wants of a model.
    pub fn wanted(
        &self,
        embedder: &Embedder,
        dimensions: Option<u64>,
        normalize: Option<bool>,
        truncate: Option<bool>,
    ) -> Result<Wanted, Refusal> {
        let own = embedder.wanted();
        let asked = dimensions.filter(|n| *n > 0).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let dimensions = embedder::dimensions(asked, own.dimensions)
            .map_err(|error| Refusal::engine(error).about("dimensions"))?;
        let on_long = match truncate.unwrap_or(self.auto_truncate) {
            true => OnLong::Truncate,
            false => OnLong::Error,
        };
        Ok(Wanted { dimensions, normalize: normalize.unwrap_or(own.normalize), on_long, ..own })
    }
}

/// Batches in a row that failed: no accident.
const FAILURES: u32 = 3;

/// The longest that a client is told to wait, in seconds: OpenAI's does not obey more.
const LONGEST_WAIT: f64 = 60.0;

/// Seconds until a client may come again.  Those that are turned away one after the other are
/// spread over as long again as the queue takes, so that they do not come back all at once.
fn retry_after(backlog: Duration, turn: u64) -> u64 {
    // Multiples of the golden ratio: however many there are, their fractions lie evenly.
    let share = (turn as f64 * 0.618_033_988_749_895).fract();
    (backlog.as_secs_f64() * (1.0 + share)).ceil().clamp(1.0, LONGEST_WAIT) as u64
}

/// A short batch, and a full one: kernels are compiled then, and memory is there.
fn warm_up(embedder: &Embedder) -> Result<(), Error> {
    let one = vec![0; 16.min(embedder.max_length())];
    let long = 128.min(embedder.max_length());
    let count = embedder.batch_tokens().div_ceil(long);
    for texts in [vec![one], vec![vec![0; long]; count]] {
        let tokens: Vec<_> = texts.into_iter().map(Tokens::new).collect();
        match embedder.task() {
            Task::Rerank => drop(embedder.compute(embedder.prepare_classes(tokens)?)?),
            _ => drop(embedder.compute(embedder.prepare_tokens(tokens, embedder.wanted())?)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_are_turned_away_come_back_one_after_the_other() {
        let after = |seconds: f64| {
            let backlog = Duration::from_secs_f64(seconds);
            let mut all: Vec<u64> = (0..100).map(|turn| retry_after(backlog, turn)).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(after(0.0), [1; 100]);
        assert_eq!(after(0.4), [1; 100]);
        assert_eq!(after(1e9), [60; 100]);
        // Within each second as many as within every other.
        let ten = after(10.0);
        assert_eq!((ten[0], ten[99]), (10, 20));
        for second in 11..=20 {
            let count = ten.iter().filter(|after| **after == second).count();
            assert!((9..=11).contains(&count), "{count} after {second} s");
        }
    }
}
