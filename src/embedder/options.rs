use super::Power;
use crate::{
    batch::Adapter,
    device::Device,
    error::Error,
    gpu::{self, Gpu},
    kernels::{Dtype, Tier, attention::SKIP_EPS},
    model::Task,
    recording::Faults,
    tune::{Tune, Workload},
};
use std::time::Duration;

/// Options of an embedder.
///
/// Written as a struct literal or as a chain of setters; both stay valid when fields are added:
///
/// ```
/// use jinabert::{Device, OnLong, Options};
///
/// let options = Options { dimensions: Some(256), ..Default::default() };
/// let options = Options::new().device(Device::Cpu).dimensions(256).on_long(OnLong::Truncate);
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Task of the model.
    pub task: Task,
    /// Device to compute on.
    pub device: Device,
    /// An application's own wgpu device, shared with rendering; replaces `device`.
    pub gpu: Option<Gpu>,
    /// Use the CPU if the GPU fails repeatedly.  If `None`: only if `device` is [`Device::Auto`]
    /// and there is no `gpu`.
    pub fallback: Option<bool>,
    /// Maximum predicted GPU time of one submission, at most a tenth of a second.  Windows drawn on
    /// the same GPU wait for up to three times that: 4 ms keep them fluid.
    pub max_submission_time: Duration,
    /// Time limit for one result; after it the device counts as hung.
    pub device_timeout: Duration,
    /// Faults to inject.
    #[cfg(feature = "faults")]
    pub faults: Faults,
    /// Kernel tier; the device's default if `None`.
    pub tier: Option<Tier>,
    /// GPUs that [`Device::Auto`] may choose.
    pub power: Power,
    /// Workload for which [`Device::Auto`] chooses a device.
    pub workload: Workload,
    /// Storage type of weights and wide activations.
    pub dtype: Dtype,
    /// Token limit of a text, special tokens included; as the model declares if `None`
    /// ([`SentenceTransformersConfig::limit`](crate::SentenceTransformersConfig::limit)).
    pub max_length: Option<usize>,
    /// Policy for texts over the limit.
    pub on_long: OnLong,
    /// Overlap of two windows of a text in tokens, for [`OnLong::Window`].
    pub overlap: usize,
    /// Leading components to keep, before the norm; all if `None`, or as `truncate_dim` in the
    /// model's config.json.
    pub dimensions: Option<usize>,
    /// Accept any number of components, also for a model that declares those it was trained for
    /// (`matryoshka_dimensions`).
    pub any_dimensions: bool,
    /// Task of the LoRA adapter for calls that choose none, such as `retrieval.query`; the weights
    /// as they are if `None`.  [`Embedder::adapters`](crate::Embedder::adapters) lists a model's.
    pub adapter: Option<String>,
    /// Rank documents also with an embedding model, by MaxSim of the last hidden states of query
    /// and document ([`Embedder::rerank`](crate::Embedder::rerank)); a model with a classifier
    /// ranks by that.
    pub max_sim: bool,
    /// Prompt before each text, for embeddings; it counts towards the token limit.
    pub prompt: Prompt,
    /// Pooling of token vectors into a text vector.
    pub pooling: Pooling,
    /// Normalise vectors to unit length.
    pub normalize: bool,
    /// Length to which [`Role::Query`](crate::Role::Query) is padded; 0 for no padding.  If `None`:
    /// as in the model's `artifact.metadata`, or 32.
    pub query_length: Option<usize>,
    /// Tokens per batch; the device's default if `None`.
    pub batch_tokens: Option<usize>,
    /// Maximum share of a row's softmax that attention may skip, in whole tiles of distant keys: a
    /// proven bound, not an estimate (`shaders/lib/skip_bound.wgsl` has the proof).  The default,
    /// 2⁻²⁴, is below the rounding of f32; 0 reads every key.
    pub skip_eps: f32,
    /// Give a text the same bits in every batch.  Otherwise the tiled tier sums batches of up to
    /// 16, of up to 64 and of more tokens in different orders: this uses more of a GPU for a single
    /// query and moves the components of a unit vector by at most 1e-6 (1e-3 in f16).  Enabling it
    /// costs that speed of small batches; the CPU and the other tiers have a single order anyway.
    pub deterministic: bool,
    /// Tune kernels for the GPU.  A search runs once and its result is kept on disk (directory
    /// `JINABERT_CACHE`).
    pub tune: Tune,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            task: Task::default(),
            device: Device::Auto,
            gpu: None,
            fallback: None,
            max_submission_time: gpu::SUBMISSION,
            device_timeout: gpu::PATIENCE,
            #[cfg(feature = "faults")]
            faults: Default::default(),
            tier: None,
            power: Power::default(),
            workload: Workload::default(),
            dtype: Dtype::F32,
            max_length: None,
            on_long: OnLong::Error,
            overlap: 256,
            dimensions: None,
            any_dimensions: false,
            adapter: None,
            max_sim: false,
            prompt: Prompt::Auto,
            pooling: Pooling::Auto,
            normalize: true,
            query_length: None,
            batch_tokens: None,
            skip_eps: SKIP_EPS,
            deterministic: false,
            tune: Tune::default(),
        }
    }
}

/// Generates a setter for each field.
macro_rules! setters {
    ($($field:ident: $type:ty => $value:expr,)*) => {
        $(
            #[doc = concat!("Sets [`", stringify!($field), "`](field@Self::", stringify!($field), ").")]
            #[must_use]
            pub fn $field(mut self, $field: $type) -> Self {
                self.$field = $value;
                self
            }
        )*
    };
}

impl Options {
    /// Creates the default options.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        task: Task => task,
        device: Device => device,
        gpu: Gpu => Some(gpu),
        fallback: bool => Some(fallback),
        max_submission_time: Duration => max_submission_time,
        device_timeout: Duration => device_timeout,
        tier: Tier => Some(tier),
        power: Power => power,
        workload: Workload => workload,
        dtype: Dtype => dtype,
        max_length: usize => Some(max_length),
        on_long: OnLong => on_long,
        overlap: usize => overlap,
        dimensions: usize => Some(dimensions),
        any_dimensions: bool => any_dimensions,
        adapter: String => Some(adapter),
        max_sim: bool => max_sim,
        prompt: Prompt => prompt,
        pooling: Pooling => pooling,
        normalize: bool => normalize,
        query_length: usize => Some(query_length),
        batch_tokens: usize => Some(batch_tokens),
        skip_eps: f32 => skip_eps,
        deterministic: bool => deterministic,
        tune: Tune => tune,
    }

    /// The options for the CPU: its default tier, and f32.
    pub(super) fn on_cpu(&self) -> Self {
        let cpu = Self { device: Device::Cpu, gpu: None, tier: None, ..self.clone() };
        Self { dtype: Dtype::F32, ..cpu }
    }

    /// True if the CPU may replace a failing GPU.
    pub(super) fn falls_back(&self) -> bool {
        self.fallback.unwrap_or(self.device == Device::Auto && self.gpu.is_none())
    }
}

/// Prompt before the texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Prompt {
    /// In [`Options`]: the instruction of the text's task, if it has one; otherwise the model's
    /// default prompt (`default_prompt_name` of sentence-transformers'
    /// `config_sentence_transformers.json`), none if it declares none.  In a call: the prompt of
    /// the [`Options`].
    #[default]
    Auto,
    /// No prompt.
    None,
    /// The model's prompt of this name.
    Named(String),
    /// This text.
    Text(String),
}

/// Pooling of token vectors into a text vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// As the model's files declare (`modules.json` of sentence-transformers,
    /// [`SentenceTransformersConfig`]); the mean if they declare nothing.
    ///
    /// [`SentenceTransformersConfig`]: crate::SentenceTransformersConfig
    #[default]
    Auto,
    /// Mean of all tokens, special tokens included; Jina's models are trained for it.
    Mean,
    /// First token, `[CLS]`.
    Cls,
    /// Last token.
    Last,
    /// Largest value of each component over all tokens.
    Max,
    /// Mean of all tokens, each weighted by its position, from 1.
    WeightedMean,
    /// Sum of all tokens over the square root of their number.
    MeanSqrtLen,
}

/// Policy for texts over the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLong {
    /// Return [`Error::TooLong`](crate::Error::TooLong).
    #[default]
    Error,
    /// Drop the last tokens and report it in [`Embedded::truncated`](crate::Embedded::truncated).
    Truncate,
    /// Read the text in windows as long as the limit.  A vector is the mean over the outputs of all
    /// windows, or their largest value, as the pooling says; a reranker's score of a document the
    /// best of its windows'; MaxSim finds the best token in any window.  A query for MaxSim is
    /// read as a whole.
    Window,
}

/// Per-call options; [`Embedder::encode_options`] has the defaults from the [`Options`].
///
/// [`Embedder::encode_options`]: crate::Embedder::encode_options
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Leading components to keep, before the norm: from 1 to the hidden size.
    pub dimensions: usize,
    /// Normalise vectors to unit length.
    pub normalize: bool,
    /// Token limit of a text, special tokens included: [`Embedder::max_length`] or less.
    ///
    /// [`Embedder::max_length`]: crate::Embedder::max_length
    pub max_length: usize,
    /// Policy for texts over the limit.
    pub on_long: OnLong,
    /// Side to truncate, for [`OnLong::Truncate`].
    pub truncation_side: TruncationSide,
    /// LoRA adapter of the texts' task ([`Embedder::adapter`]); `None` for the weights as they are.
    ///
    /// [`Embedder::adapter`]: crate::Embedder::adapter
    pub adapter: Option<Adapter>,
}

impl Options {
    /// Faults to inject.
    #[cfg(feature = "faults")]
    pub(super) fn injected(&self) -> &Faults {
        &self.faults
    }

    /// Faults to inject: none without the feature.
    #[cfg(not(feature = "faults"))]
    pub(super) fn injected(&self) -> &Faults {
        &Faults {}
    }
}

impl EncodeOptions {
    /// Keeps only the first `dimensions` components of those it would keep; all if `None`.
    ///
    /// # Errors
    /// [`Error::Option`] for 0, or for more components than there are.
    pub fn with_dimensions(self, dimensions: Option<usize>) -> Result<Self, Error> {
        let dimensions = checked_dimensions(dimensions, self.dimensions, &[])?;
        Ok(Self { dimensions, ..self })
    }
}

/// Number of components to keep of `available`, one of `listed` or all if the list is not empty.
///
/// # Errors
/// [`Error::Option`] for another number.
pub(super) fn checked_dimensions(
    dimensions: Option<usize>,
    available: usize,
    listed: &[usize],
) -> Result<usize, Error> {
    let Some(n) = dimensions else { return Ok(available) };
    if !(1..=available).contains(&n) {
        return Err(Error::Option(format!("`dimensions` {n}: the model has 1 to {available}")));
    }
    if n == available || listed.is_empty() || listed.contains(&n) {
        return Ok(n);
    }
    let listed: Vec<String> = listed.iter().map(ToString::to_string).collect();
    Err(Error::Option(format!(
        "`dimensions` {n}: the model was trained for {} (matryoshka_dimensions), unless any number \
         is allowed",
        listed.join(", ")
    )))
}

/// Side of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TruncationSide {
    /// Drop the first tokens.
    Left,
    /// Drop the last tokens.
    #[default]
    Right,
}
