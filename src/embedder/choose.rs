//! Device `auto`: the GPU or the CPU, whichever runs this model faster.
//!
//! On the first use of a model size on an adapter both are measured; the times are kept on disk.

use super::{
    Options,
    load::{Loaded, is_hardware, load, subject},
};
use crate::{
    batch::{PackedBatch, Tokens},
    device::Device,
    error::Error,
    files::Files,
    gpu::{self, AdapterSummary},
    model::{Config, Model, Output},
    tune::{self, SHORT, Speed, Speeds, Subject, Tune},
};
use std::time::{Duration, Instant};

/// GPUs that `auto` may choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Power {
    /// The fastest device, which may be a discrete GPU or the CPU.
    #[default]
    Balanced,
    /// No discrete GPU: an integrated one, or the CPU.
    Low,
    /// The fastest device for batches.
    High,
}

/// Loads the model on the most suitable device if the options leave it open.
pub(super) fn best(files: &Files, options: &Options, config: &Config) -> Result<Loaded, Error> {
    let Some(Choice { options, why, loaded }) = choose(files, options, config)? else {
        return load_or_fall_back(files, options, config);
    };
    let mut loaded = match loaded {
        Some(loaded) => loaded,
        None => load_or_fall_back(files, &options, config)?,
    };
    loaded.chosen = Some(options.device);
    if loaded.switch_reason.is_none() {
        loaded.device = format!("{}; chosen by measurement: {why}", loaded.device);
    }
    Ok(loaded)
}

/// Loads the model on the device, or on the CPU if that fails and the options allow it.
fn load_or_fall_back(files: &Files, options: &Options, config: &Config) -> Result<Loaded, Error> {
    let error = match load(files, options, config, false) {
        Err(error)
            if (error.is_of_device() || matches!(error, Error::NoGpu { .. }))
                && options.falls_back()
                && options.device != Device::Cpu =>
        {
            error
        }
        Ok(mut loaded) => {
            measure_named(&mut loaded, options, config);
            return Ok(loaded);
        }
        Err(error) => return Err(error),
    };
    tracing::warn!("{error}; the CPU takes over");
    let mut loaded = load(files, &options.on_cpu(), config, false)?;
    loaded.switch_reason = Some(error.to_string());
    Ok(loaded)
}

/// Decision of `auto`.
struct Choice {
    /// The options, with a definite device.
    options: Options,
    /// Human-readable reason.
    why: String,
    /// The model, if it was loaded for the measurement.
    loaded: Option<Loaded>,
}

/// Chooses a device if it is `auto` and a GPU exists; otherwise returns the options unchanged.
///
/// # Errors
/// Errors of the model's files.
fn choose(files: &Files, options: &Options, config: &Config) -> Result<Option<Choice>, Error> {
    if options.device != Device::Auto || options.gpu.is_some() || options.tier.is_some() {
        return Ok(None);
    }
    let Some((index, adapter)) = candidate(options) else { return Ok(None) };
    let subject = subject(config, options);
    let on_gpu = Options { device: Device::Index(index), ..options.clone() };
    let on_gpu = Options { fallback: Some(options.falls_back()), ..on_gpu };
    let on_cpu = options.on_cpu();
    let (gpu_speed, cpu_speed, gpu_loaded, cpu_loaded) = match tune::speeds(&adapter, &subject) {
        Some(Speeds { gpu, cpu: Some(cpu) }) => (gpu, cpu, None, None),
        _ => {
            let measured = Options { tune: known(options.tune), ..on_gpu.clone() };
            let gpu = load(files, &measured, config, false)
                .and_then(|mut gpu| Ok((speed(&mut gpu.model)?, gpu)));
            let (gpu_speed, gpu) = match gpu {
                Ok(found) => found,
                Err(error) if error.is_of_device() || matches!(error, Error::NoGpu { .. }) => {
                    let why = format!("{adapter} failed: {error}");
                    tracing::warn!("{why}");
                    return Ok(Some(Choice { options: on_cpu, why, loaded: None }));
                }
                Err(error) => return Err(error),
            };
            let mut cpu = load(files, &options.on_cpu(), config, false)?;
            let cpu_speed = speed(&mut cpu.model)?;
            let speeds = Speeds { gpu: gpu_speed, cpu: Some(cpu_speed) };
            keep(options, &adapter, &subject, speeds);
            (gpu_speed, cpu_speed, Some(gpu), Some(cpu))
        }
    };
    let workload = match options.power {
        Power::High => tune::Workload::Throughput,
        _ => options.workload,
    };
    let chosen = if gpu_speed.beats(&cpu_speed, workload) {
        // A kernel search is made only for the chosen device.
        let mut loaded = gpu_loaded.filter(|_| options.tune != Tune::Search);
        if let Some(loaded) = &mut loaded {
            loaded.limit_batch(&gpu_speed);
        }
        let why = format!("{gpu_speed}; on the CPU {cpu_speed}");
        Choice { options: on_gpu, why, loaded }
    } else {
        let why = format!("{cpu_speed}; on {} {gpu_speed}", adapter.name);
        Choice { options: on_cpu, why, loaded: cpu_loaded }
    };
    tracing::info!("auto: {}: {}", chosen.options.device, chosen.why);
    Ok(Some(chosen))
}

/// Measures the GPU named by the options unless its speed is known: the speed sets the batch size.
fn measure_named(loaded: &mut Loaded, options: &Options, config: &Config) {
    let Some(adapter) = loaded.adapter.clone().filter(|adapter| is_hardware(adapter, options))
    else {
        return;
    };
    let named = options.gpu.is_none() && options.tier.is_none() && options.batch_tokens.is_none();
    if !named || loaded.speeds.is_some() {
        return;
    }
    match speed(&mut loaded.model) {
        Ok(gpu) => {
            loaded.limit_batch(&gpu);
            keep(options, &adapter, &subject(config, options), Speeds { gpu, cpu: None });
        }
        Err(error) => tracing::warn!("{adapter} was not measured: {error}"),
    }
}

/// Stores the measured speeds, unless the adapter only poses as hardware.
fn keep(options: &Options, adapter: &AdapterSummary, subject: &Subject, speeds: Speeds) {
    if !options.injected().poses() {
        tune::keep_speeds(adapter, subject, speeds);
    }
}

/// The tuning policy without a search.
fn known(tune: Tune) -> Tune {
    if tune == Tune::Off { Tune::Off } else { Tune::Known }
}

/// The GPU that the CPU is compared with, if there is one.
fn candidate(options: &Options) -> Option<(usize, AdapterSummary)> {
    let suits = |adapter: &AdapterSummary| {
        is_hardware(adapter, options) && (options.power != Power::Low || adapter.kind != "discrete")
    };
    gpu::native_adapters().into_iter().enumerate().find(|(_, adapter)| suits(adapter))
}

/// Time limit for measuring one shape.
const ENOUGH: Duration = Duration::from_millis(60);

/// Measures a short forward pass and a larger one.
///
/// # Errors
/// Errors of the device.
pub(super) fn speed(model: &mut Model) -> Result<Speed, Error> {
    let short = time(model, 1, SHORT)?;
    // A batch of bounded run time, estimated from the time of the short one.
    let (sequences, each) = match short * 32 {
        all if all < ENOUGH * 4 => (8, 64),
        all if all < ENOUGH * 16 => (2, 64),
        _ => (1, SHORT),
    };
    let bulk = if each == SHORT { short } else { time(model, sequences, each)? };
    Ok(Speed::new(short, sequences * each, bulk))
}

/// Fastest of a few runs, after a warm-up run that compiles and allocates.
fn time(model: &mut Model, sequences: usize, each: usize) -> Result<Duration, Error> {
    let vocabulary = model.config().vocabulary;
    let ids = (0..each as u32).map(|n| n * 7919 % vocabulary).collect();
    let tokens = Tokens::new(ids);
    let batch = PackedBatch::new(std::iter::repeat_n(&tokens, sequences));
    let output = Output::Vectors { dims: model.config().hidden, normalize: true };
    let mut once = || {
        let start = Instant::now();
        model.forward(&batch, output)?;
        Ok::<_, Error>(start.elapsed())
    };
    once()?;
    let start = Instant::now();
    let mut best = Duration::MAX;
    for _ in 0..5 {
        best = best.min(once()?);
        if start.elapsed() > ENOUGH {
            break;
        }
    }
    Ok(best)
}
