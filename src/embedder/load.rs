//! Loading a model directory into an embedder; the slow parts run in parallel.

use super::{
    Options, Pooling,
    slot::{DeviceInfo, ModelSlot},
};
use crate::{
    device::{self, Device, Opened},
    error::Error,
    files::Files,
    gpu::{self, AdapterSummary},
    kernels::{KernelConfig, KernelVariant},
    model::{
        ColbertConfig, Config, Model, ModelFiles, ModelOptions, Numerics,
        SentenceTransformersConfig, Task,
    },
    text::Tokenizer,
    tune::{self, History, Sizes, Speed, Speeds, Stored, Subject, Tune},
};
use std::time::Duration;

/// Tokens per batch on a GPU (enough to fill it) and on the CPU (few enough that activations stay
/// in cache).
const BATCH_TOKENS: (usize, usize) = (16_384, 2_048);

/// Embedding settings declared by the model; empty for other tasks.
pub(super) fn declared(files: &Files, task: Task) -> Result<SentenceTransformersConfig, Error> {
    match task {
        Task::Embed | Task::Encode => SentenceTransformersConfig::open(files),
        _ => Ok(SentenceTransformersConfig::default()),
    }
}

/// The tokenizer, if there is one, and the token limit: from the options, or as the model declares.
pub(super) fn tokenizer(
    files: &Files,
    options: &Options,
    declared: usize,
) -> Result<(Option<Tokenizer>, usize), Error> {
    const FILE: &str = "tokenizer.json";
    let tokenizer = if files.has(FILE) {
        Some(Tokenizer::parse(&files.read(FILE)?, &files.path(FILE))?)
    } else {
        None
    };
    let limit = options.max_length.unwrap_or(declared);
    let special = tokenizer.as_ref().map_or(0, Tokenizer::special_tokens);
    if limit <= special {
        return Err(Error::Option(format!(
            "max length {limit} leaves no room: the tokenizer adds {special} special tokens"
        )));
    }
    Ok((tokenizer, limit))
}

/// Query padding, for models that use it.
pub(super) fn queries(files: &Files, options: &Options) -> Result<ColbertConfig, Error> {
    let said = match options.task {
        Task::MultiVector | Task::Rerank => ColbertConfig::open(files)?,
        _ => ColbertConfig::default(),
    };
    Ok(ColbertConfig { length: options.query_length.unwrap_or(said.length), ..said })
}

/// Pooling from the options, or as the model declares.  Declared modules that are not implemented
/// are an error, as vectors without them would differ.
pub(super) fn pooling(
    declared: &SentenceTransformersConfig,
    options: &Options,
) -> Result<Pooling, Error> {
    if !matches!(options.task, Task::Embed | Task::Encode) {
        return Ok(Pooling::Mean);
    }
    if let Some(other) = declared.others.first() {
        let what = format!("modules.json: a module `{other}`, which is not computed here");
        return Err(Error::Model(what));
    }
    match (options.pooling, declared.pooling.as_deref()) {
        (Pooling::Auto, None) => Ok(Pooling::Mean),
        (Pooling::Auto, Some(name)) => match name.parse() {
            Ok(Pooling::Auto) | Err(_) => {
                let known = "mean, cls, max, lasttoken, weightedmean and mean_sqrt_len_tokens";
                let what = format!("modules.json: pooling `{name}`; computed here: {known}");
                Err(Error::Model(what))
            }
            Ok(pooling) => Ok(pooling),
        },
        (asked, _) => Ok(asked),
    }
}

/// A model on its device.
pub(super) struct Loaded {
    pub(super) model: Model,
    /// Human-readable device name.
    pub(super) device: String,
    /// Reason why another device than the requested one is used.
    pub(super) switch_reason: Option<String>,
    /// Default batch size of the device, in tokens.
    pub(super) batch_tokens: usize,
    /// True if the adapter is software: the processor computes.
    pub(super) software: bool,
    /// The adapter; none for the CPU.
    pub(super) adapter: Option<AdapterSummary>,
    /// Known speeds of a model of this size on the adapter, if it is hardware.
    pub(super) speeds: Option<Speeds>,
    /// The device chosen by `auto`; the embedder keeps it.
    pub(super) chosen: Option<Device>,
}

impl Loaded {
    /// Limits the batch size to what the GPU computes in a tenth of a second.
    pub(super) fn limit_batch(&mut self, speed: &Speed) {
        self.batch_tokens = self.batch_tokens.min(speed.batch_tokens());
    }

    /// The model in its slot, its device, and the batch size in tokens under these options.
    pub(super) fn into_parts(self, options: &Options) -> (ModelSlot, DeviceInfo, usize) {
        let Self { model, device, switch_reason, batch_tokens, software, adapter, .. } = self;
        let batch_tokens = options.batch_tokens.unwrap_or(batch_tokens).min(model.max_tokens());
        let info = DeviceInfo { device, switch_reason, cpu: model.caps().cpu, software };
        (ModelSlot::new(model, adapter), info, batch_tokens)
    }
}

/// Shorter submission time for a device that was lost: a system timeout may have stopped it.
pub(super) fn cautious(time: Duration) -> Duration {
    time.min(gpu::SUBMISSION) / 4
}

/// Opens the device and loads the model onto it; `widen` stores weights in f32 even if the device
/// reads f16.
pub(super) fn load(
    files: &Files,
    options: &Options,
    config: &Config,
    mut widen: bool,
) -> Result<Loaded, Error> {
    if options.injected().is_closed() && options.device != Device::Cpu {
        return Err(Error::NoGpu { needs: "one that can be opened, as ordered".to_owned() });
    }
    let mut opened = match &options.gpu {
        Some(gpu) => device::open_shared(gpu.clone(), options.tier, options.dtype)?,
        None => options.device.open(options.tier, options.dtype)?,
    };
    opened.engine.limit_wait(options.device_timeout);
    let adapter = opened.adapter.as_ref().map(|(_, adapter)| adapter.clone());
    let history = adapter.as_ref().map(History::of).unwrap_or_default();
    opened.engine.limit_slice(if history.lost {
        cautious(options.max_submission_time)
    } else {
        options.max_submission_time
    });
    opened.engine.inject(options.injected());
    let files = ModelFiles::open(files)?;
    let half_weights = files.is_half();
    let mut kernel_config = tuned_config(half_weights, &opened, config, options);
    if let Some(kernel_config) = &kernel_config {
        opened.variant.tier = kernel_config.tier;
    }
    if options.tier.is_none() {
        let caps = opened.engine.caps();
        let wanted = opened.variant.for_weights(half_weights, caps);
        let accepted = history.accepted(caps, wanted);
        if accepted != wanted {
            let refused = "the driver refused these before";
            tracing::info!("{accepted} kernels, not {wanted} ones: {refused}");
            widen = !accepted.half_weights;
            kernel_config = kernel_config.filter(|config| config.tier == accepted.tier);
            opened.variant = KernelVariant { half_weights: false, ..accepted };
        }
    }
    tracing::info!("device: {}, {} kernels", opened.name, opened.variant);
    if options.dtype != opened.variant.dtype {
        tracing::warn!("computing in {}: {}", opened.variant.dtype, opened.name);
    }
    let (gpu, cpu) = BATCH_TOKENS;
    let software = opened.engine.caps().software;
    let hardware = adapter.as_ref().filter(|adapter| is_hardware(adapter, options));
    let speeds = hardware.and_then(|adapter| tune::speeds(adapter, &subject(config, options)));
    let batch_tokens = match &speeds {
        Some(speeds) => speeds.gpu.batch_tokens().min(gpu),
        None if hardware.is_some() => gpu,
        None => cpu,
    };
    let Options { skip_eps, deterministic, task, .. } = *options;
    let numerics = Numerics { skip_eps, deterministic };
    let choices = ModelOptions { numerics, kernel_config, task, widen };
    let model = Model::load(files, opened.engine, opened.variant, choices)?;
    let device = opened.name;
    let batch_tokens = batch_tokens.min(model.fused_tokens());
    let switch_reason = None;
    let chosen = None;
    Ok(Loaded { model, device, switch_reason, batch_tokens, software, adapter, speeds, chosen })
}

/// Properties of the model that determine its speed.
pub(super) fn subject(config: &Config, options: &Options) -> Subject {
    Subject::new(Sizes::of(config), config.layers, options.dtype)
}

/// True for a GPU, or for a device that poses as one in a test.
pub(super) fn is_hardware(adapter: &AdapterSummary, options: &Options) -> bool {
    !adapter.software || options.injected().poses()
}

/// Tuning result for the device, if it is for the requested tier.
fn tuned_config(
    half_weights: bool,
    opened: &Opened,
    config: &Config,
    options: &Options,
) -> Option<KernelConfig> {
    let (index, adapter) = opened.adapter.as_ref().filter(|_| options.tune != Tune::Off)?;
    let stored = Stored { dtype: opened.variant.dtype, half_weights };
    let key = tune::Key::new(adapter, stored, Sizes::of(config));
    let config = match index {
        Some(index) => tune::kernel_config(*index, &key, options.tune),
        None => tune::known(&key),
    };
    config.filter(|config| options.tier.is_none_or(|tier| tier == config.tier))
}
