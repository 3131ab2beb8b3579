//! `jinabert tune`

use crate::{
    error::CliError,
    options::{Dtype, Source, seconds},
    source,
};
use jinabert::{
    Device, Error, gpu,
    model::{Checkpoint, Config},
    tune::{self, Found, Key, Sizes, Stored, Trial, Verdict},
};
use std::{
    io::{self, Write},
    time::Duration,
};

/// `jinabert tune`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert tune
  jinabert tune --model path/to/model --device 1 --dtype float16 --seconds 30

A candidate is used only if its results match the CPU's.  The result is saved in the user's cache
directory (or $JINABERT_CACHE) and applies to later runs with the same adapter, driver and model
size.  Without this command, the first run searches for up to 3 s.")]
pub struct Tune {
    /// Model for whose sizes kernels are tuned.
    #[command(flatten)]
    pub source: Source,
    /// Device: auto, vulkan, metal, dx12, gl, or an index from `jinabert devices`.
    #[arg(long, value_name = "DEVICE", default_value = "auto", env = "JINABERT_DEVICE")]
    pub device: Device,
    /// Storage type of weights and activations on the device.
    #[arg(long, value_enum, default_value_t = Dtype::Float32)]
    pub dtype: Dtype,
    /// Maximum search time in seconds.
    #[arg(long, value_name = "S", default_value = "60", value_parser = seconds)]
    pub seconds: f64,
}

/// Searches for the fastest kernels and saves them.
pub fn run(args: &Tune, quiet: bool) -> Result<(), CliError> {
    let dir = source::directory(&args.source, quiet)?;
    let files = dir.into();
    let sizes = Sizes::of(&Config::open(&files)?);
    let half_weights = Checkpoint::open(&files)?.is_half();
    let stored = Stored { dtype: args.dtype.into(), half_weights };
    let (index, key) = adapter(args.device, stored, sizes)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{}, {}, D {} F {} H {}",
        key.adapter(),
        stored.dtype,
        sizes.hidden,
        sizes.intermediate,
        sizes.heads
    )?;
    writeln!(
        out,
        "  {:<14}{:>5}  {:<10}{:<42}{:>10}{:>9}",
        "kernel", "T", "tier", "tile", "time", "GFLOP/s"
    )?;
    let mut written = Ok(());
    let budget = Duration::from_secs_f64(args.seconds);
    let found = tune::renew(index, &key, budget, |trial| {
        written = std::mem::replace(&mut written, Ok(())).and_then(|()| line(&mut out, trial));
    })?;
    written?;
    finish(&mut out, &key, &found)?;
    Ok(out.flush()?)
}

/// Number of the adapter, and the key of its stored configuration.
fn adapter(device: Device, stored: Stored, sizes: Sizes) -> Result<(usize, Key), Error> {
    let Some(index) = device.adapter()? else {
        return Err(Error::Option("tune: expected a GPU, got the CPU".to_owned()));
    };
    let gpu = gpu::open(index)?;
    Ok((index, Key::new(&gpu.summary, stored, sizes)))
}

/// Prints the result for a candidate.
fn line(out: &mut impl Write, trial: &Trial) -> io::Result<()> {
    let Trial { kernel, rows, tier, tile, verdict } = trial;
    let start = format!("  {kernel:<14}{rows:>5}  {:<10}{tile:<42}", tier.to_string());
    match verdict {
        Verdict::Right { time, gflops } => {
            writeln!(out, "{start}{:>7.2} ms{gflops:>9.1}", 1e3 * time.as_secs_f64())?;
        }
        Verdict::Wrong(what) => {
            let what = what.lines().next().unwrap_or_default();
            writeln!(out, "{start}  excluded: {what}")?;
        }
    }
    out.flush()
}

/// Prints the fastest kernels.
fn finish(out: &mut impl Write, key: &Key, found: &Found) -> io::Result<()> {
    let config = &found.config;
    writeln!(out, "\nfastest: {} kernels, times by {}", config.tier, found.clock)?;
    for tiles in &config.products {
        let rows = match tiles.rows {
            u32::MAX => "more rows".to_owned(),
            rows => format!("to {rows} rows"),
        };
        writeln!(out, "  {rows:<12}linear        {}", tiles.linear)?;
        writeln!(out, "  {:<12}linear +r     {}", "", tiles.linear_add)?;
        writeln!(out, "  {:<12}linear_geglu  {}", "", tiles.linear_geglu)?;
    }
    writeln!(out, "  {:<12}attention     {}", "", config.attention)?;
    let [default, best] = found.totals.map(|time| 1e3 * time.as_secs_f64());
    writeln!(
        out,
        "a layer of many rows takes {best:.2} ms, with the default kernels {default:.2} ms"
    )?;
    if !found.complete {
        writeln!(out, "not all candidates were tried in this time: --seconds allows more")?;
    }
    match tune::path(key) {
        Some(path) => writeln!(out, "kept in {}", path.display()),
        None => writeln!(out, "not kept: there is no cache directory"),
    }
}
