use crate::{
    device::Device,
    gpu::{self, Gpu},
    kernels::{Dtype, Tier, attention::SKIP_EPS},
    model::Task,
    tune::Tune,
};
use std::time::Duration;

/// How to embed.
///
/// Written as a struct or as a chain, which later versions with more fields leave valid:
///
/// ```
/// use jinabert::{Device, OnLong, Options};
///
/// let options = Options { dimensions: Some(256), ..Default::default() };
/// let options = Options::new().device(Device::Cpu).dimensions(256).on_long(OnLong::Truncate);
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// What the model is for.
    pub task: Task,
    /// Where to compute.
    pub device: Device,
    /// An application's own device, instead of `device`: what it draws with may embed, too.
    pub gpu: Option<Gpu>,
    /// Whether the CPU takes over where the GPU fails and fails again; if `None`, where `device` is
    /// [`Device::Auto`] and there is no `gpu`.
    pub fallback: Option<bool>,
    /// How long the GPU is kept at a time, by prediction, a tenth of a second at most.  A window
    /// that is drawn on it meanwhile waits for up to three times that: 4 ms keep it moving.
    pub slice: Duration,
    /// How long a result may take before the device counts as hung.
    pub patience: Duration,
    /// Failures to order.
    #[cfg(feature = "faults")]
    pub faults: crate::recording::Faults,
    /// Which kernels to use; the device's default if `None`.
    pub tier: Option<Tier>,
    /// How weights and wide activations are stored.
    pub dtype: Dtype,
    /// Longest text in tokens, special ones included; `max_position_embeddings` of the model if
    /// `None`.
    pub max_length: Option<usize>,
    /// What happens to a longer one.
    pub on_long: OnLong,
    /// Tokens that two windows of a text share, for [`OnLong::Window`].
    pub overlap: usize,
    /// Leading components to keep, before the norm; all if `None`.
    pub dimensions: Option<usize>,
    /// What of a text's tokens its vector is made of.
    pub pooling: Pooling,
    /// Whether vectors have unit length.
    pub normalize: bool,
    /// Tokens that [`Role::Query`](crate::Role::Query) pads to; 0 for no padding, what the model's
    /// `artifact.metadata` says, or 32, if `None`.
    pub query_length: Option<usize>,
    /// Tokens in one batch; the device's default if `None`.
    pub batch_tokens: Option<usize>,
    /// The share of a row's softmax that attention may leave out, in whole tiles of keys too far
    /// away to matter: certainly, not probably (`shaders/lib/reach.wgsl` has the proof).  The
    /// default, 2⁻²⁴, is below the rounding of f32; 0 looks at every key.
    pub skip_eps: f32,
    /// Whether a text has the same bits in every batch.  Otherwise the tiled tier sums batches of
    /// up to 16, of up to 64 and of more tokens in different orders, which fills more of a card
    /// with a single query and moves the components of a unit vector by 1e-6 at the most (1e-3 in
    /// f16).  It costs that speed of small batches; the CPU and the other tiers have one order
    /// anyway.
    pub deterministic: bool,
    /// Whether kernels are fitted to the GPU.  A search is run once and its result kept on disk
    /// (`JINABERT_CACHE` says where).
    pub tune: Tune,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            task: Task::default(),
            device: Device::Auto,
            gpu: None,
            fallback: None,
            slice: gpu::SUBMISSION,
            patience: gpu::PATIENCE,
            #[cfg(feature = "faults")]
            faults: Default::default(),
            tier: None,
            dtype: Dtype::F32,
            max_length: None,
            on_long: OnLong::Error,
            overlap: 256,
            dimensions: None,
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

/// A method for each field, which sets it.
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
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        task: Task => task,
        device: Device => device,
        gpu: Gpu => Some(gpu),
        fallback: bool => Some(fallback),
        slice: Duration => slice,
        patience: Duration => patience,
        tier: Tier => Some(tier),
        dtype: Dtype => dtype,
        max_length: usize => Some(max_length),
        on_long: OnLong => on_long,
        overlap: usize => overlap,
        dimensions: usize => Some(dimensions),
        pooling: Pooling => pooling,
        normalize: bool => normalize,
        query_length: usize => Some(query_length),
        batch_tokens: usize => Some(batch_tokens),
        skip_eps: f32 => skip_eps,
        deterministic: bool => deterministic,
        tune: Tune => tune,
    }

    /// The same on the CPU, with what it has.
    pub(super) fn on_cpu(&self) -> Self {
        let cpu = Self { device: Device::Cpu, gpu: None, tier: None, ..self.clone() };
        Self { dtype: Dtype::F32, ..cpu }
    }

    /// Whether the CPU takes over from a GPU.
    pub(super) fn falls_back(&self) -> bool {
        self.fallback.unwrap_or(self.device == Device::Auto && self.gpu.is_none())
    }
}

/// What a text's vector is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// What the model's files declare (`modules.json` of sentence-transformers, [`Declared`]); the
    /// mean where they say nothing.
    ///
    /// [`Declared`]: crate::model::Declared
    #[default]
    Auto,
    /// The mean of all its tokens, special ones included: what Jina's models are trained for.
    Mean,
    /// Its first token, `[CLS]`.
    Cls,
}

/// What happens to a text over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLong {
    /// [`Error::TooLong`](crate::Error::TooLong)
    Error,
    /// Its last tokens are dropped, and [`Embedded::truncated`](crate::Embedded::truncated) says
    /// so.
    Truncate,
    /// It is read in windows of as many tokens as the limit: a vector is the mean over what all of
    /// them make of it.  For embeddings only.
    Window,
}

/// What one call asks for, where that may differ from call to call: [`Embedder::wanted`] has what
/// the [`Options`] say.
///
/// [`Embedder::wanted`]: crate::Embedder::wanted
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Leading components to keep, before the norm: from 1 to as many as the model has.
    pub dimensions: usize,
    /// Whether vectors have unit length.
    pub normalize: bool,
    /// What happens to a text over the limit.
    pub on_long: OnLong,
    /// Which end of it is dropped, for [`OnLong::Truncate`].
    pub drop: End,
}

/// An end of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// Its first tokens.
    First,
    /// Its last tokens.
    #[default]
    Last,
}
