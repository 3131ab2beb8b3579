//! From a model directory to what embeds, the slow parts side by side.

use super::{Options, Pooling};
use crate::{
    device::{self, Device, Opened},
    error::Error,
    files::Files,
    kernels::Plan,
    model::{Choices, Config, Declared, Model, Numerics, Queries, Task},
    text::Tokenizer,
    tune::{self, Tune},
};
/// Tokens in a batch: enough to fill a GPU; on the CPU, few enough that activations stay near the
/// cores.
const BATCH_TOKENS: (usize, usize) = (16_384, 2_048);

/// The tokenizer if there is one, and the longest text that is wanted.
pub(super) fn tokenizer(
    files: &Files,
    options: &Options,
    config: &Config,
) -> Result<(Option<Tokenizer>, usize), Error> {
    const FILE: &str = "tokenizer.json";
    let tokenizer = match files.has(FILE) {
        true => Some(Tokenizer::parse(&files.read(FILE)?, &files.path(FILE))?),
        false => None,
    };
    let limit = options.max_length.unwrap_or(config.max_length);
    let special = tokenizer.as_ref().map_or(0, Tokenizer::special_tokens);
    if limit <= special {
        return Err(Error::Option(format!(
            "max length {limit} leaves no room: the tokenizer adds {special} special tokens"
        )));
    }
    Ok((tokenizer, limit))
}

/// How queries are padded, where the model is for them.
pub(super) fn queries(files: &Files, options: &Options) -> Result<Queries, Error> {
    let said = match options.task {
        Task::MultiVector => Queries::open(files)?,
        _ => Queries::default(),
    };
    Ok(Queries { length: options.query_length.unwrap_or(said.length), ..said })
}

/// What vectors are made of: as asked, or as the model declares it.  What it declares beyond that
/// is not computed here, and vectors without it are others.
pub(super) fn pooling(files: &Files, options: &Options) -> Result<Pooling, Error> {
    if !matches!(options.task, Task::Embed | Task::Encode) {
        return Ok(Pooling::Mean);
    }
    let declared = Declared::open(files)?;
    if let Some(other) = declared.others.first() {
        let what = format!("modules.json: a module `{other}`, which is not computed here");
        return Err(Error::Model(what));
    }
    match (options.pooling, declared.pooling.as_deref()) {
        (Pooling::Auto, None | Some("mean")) => Ok(Pooling::Mean),
        (Pooling::Auto, Some("cls")) => Ok(Pooling::Cls),
        (Pooling::Auto, Some(other)) => {
            let what = format!("modules.json: pooling `{other}`; mean and cls are computed here");
            Err(Error::Model(what))
        }
        (asked, _) => Ok(asked),
    }
}

/// A model on its device.
pub(super) struct Loaded {
    pub(super) model: Model,
    /// For people.
    pub(super) device: String,
    /// Why it is there, and not what was asked for.
    pub(super) after: Option<String>,
    /// The device's default.
    pub(super) batch_tokens: usize,
    /// Whether the processor computes.
    pub(super) software: bool,
}

/// Opens the device and puts the model there, or on the CPU if that fails and the options say so.
pub(super) fn load_or_fall_back(
    files: &Files,
    options: &Options,
    config: &Config,
) -> Result<Loaded, Error> {
    let error = match load(files, options, config) {
        Err(error @ (Error::NoGpu { .. } | Error::Gpu(_) | Error::Memory(_)))
            if options.falls_back() && options.device != Device::Cpu =>
        {
            error
        }
        result => return result,
    };
    tracing::warn!("{error}; the CPU takes over");
    let mut loaded = load(files, &options.on_cpu(), config)?;
    loaded.after = Some(error.to_string());
    Ok(loaded)
}

/// Opens the device and puts the model there.
pub(super) fn load(files: &Files, options: &Options, config: &Config) -> Result<Loaded, Error> {
    #[cfg(feature = "faults")]
    if options.faults.is_closed() && options.device != Device::Cpu {
        return Err(Error::NoGpu { needs: "one that can be opened, as ordered".to_owned() });
    }
    let mut opened = match &options.gpu {
        Some(gpu) => device::open_shared(gpu.clone(), options.tier, options.dtype)?,
        None => options.device.open(options.tier, options.dtype)?,
    };
    opened.engine.limit_wait(options.patience);
    opened.engine.limit_slice(options.slice);
    #[cfg(feature = "faults")]
    opened.engine.inject(&options.faults);
    let plan = plan(&opened, config, options);
    if let Some(plan) = &plan {
        opened.version.tier = plan.tier;
    }
    tracing::info!("device: {}, {} kernels", opened.name, opened.version);
    if options.dtype != opened.version.dtype {
        tracing::warn!("computing in {}: {}", opened.version.dtype, opened.name);
    }
    let (gpu, cpu) = BATCH_TOKENS;
    let software = opened.engine.caps().software;
    let batch_tokens = if software { cpu } else { gpu };
    let Options { skip_eps, deterministic, task, .. } = *options;
    let numerics = Numerics { skip_eps, deterministic };
    let choices = Choices { numerics, plan, task };
    let model = Model::open_with(files.clone(), opened.engine, opened.version, choices)?;
    Ok(Loaded { model, device: opened.name, after: None, batch_tokens, software })
}

/// What was found about the device, if it is for the tier that is asked for.
fn plan(opened: &Opened, config: &Config, options: &Options) -> Option<Plan> {
    let (index, adapter) = opened.adapter.as_ref().filter(|_| options.tune != Tune::Off)?;
    let key = tune::Key::new(adapter, opened.version.dtype, tune::Sizes::of(config));
    let plan = match index {
        Some(index) => tune::plan(*index, &key, options.tune)?,
        None => tune::known(&key)?,
    };
    Some(plan).filter(|plan| options.tier.is_none_or(|tier| tier == plan.tier))
}
