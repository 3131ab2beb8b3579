//! From a model directory to what embeds, the slow parts side by side.

use super::Options;
use crate::{
    device::Opened,
    error::Error,
    kernels::Plan,
    model::{Choices, Config, Model, Numerics, Queries, Task},
    text::Tokenizer,
    tune::{self, Tune},
};
use std::path::Path;

/// Tokens in a batch: enough to fill a GPU; on the CPU, few enough that activations stay near the
/// cores.
const BATCH_TOKENS: (usize, usize) = (16_384, 2_048);

/// The tokenizer if there is one, and the longest text that is wanted.
pub(super) fn tokenizer(
    dir: &Path,
    options: &Options,
    config: &Config,
) -> Result<(Option<Tokenizer>, usize), Error> {
    let path = dir.join("tokenizer.json");
    let tokenizer = if path.exists() { Some(Tokenizer::open(&path)?) } else { None };
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
pub(super) fn queries(dir: &Path, options: &Options) -> Result<Queries, Error> {
    let said = match options.task {
        Task::MultiVector => Queries::open(dir)?,
        _ => Queries::default(),
    };
    Ok(Queries { length: options.query_length.unwrap_or(said.length), ..said })
}

/// A model on its device.
pub(super) struct Loaded {
    pub(super) model: Model,
    /// For people.
    pub(super) device: String,
    /// The device's default.
    pub(super) batch_tokens: usize,
    /// Whether the processor computes.
    pub(super) software: bool,
}

/// Opens the device and puts the model there.
pub(super) fn load(dir: &Path, options: &Options, config: &Config) -> Result<Loaded, Error> {
    let mut opened = options.device.open(options.tier, options.dtype)?;
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
    let model = Model::open_with(dir, opened.engine, opened.version, choices)?;
    Ok(Loaded { model, device: opened.name, batch_tokens, software })
}

/// What was found about the device, if it is for the tier that is asked for.
fn plan(opened: &Opened, config: &Config, options: &Options) -> Option<Plan> {
    let (index, adapter) = opened.adapter.as_ref().filter(|_| options.tune != Tune::Off)?;
    let key = tune::Key::new(adapter, opened.version.dtype, tune::Sizes::of(config));
    let plan = tune::plan(*index, &key, options.tune)?;
    Some(plan).filter(|plan| options.tier.is_none_or(|tier| tier == plan.tier))
}
