//! `jinabert bench`: a device's roof, every kernel under it, and the whole model.

mod args;
mod compare;
mod grid;
mod kernels;
mod model;
mod page;
mod plot;
mod report;
mod roof;
mod stats;
mod suite;
mod table;
mod target;

pub use args::Bench;

use crate::{atomic_file::AtomicFile, error::CliError, source};
use args::{BenchAll, BenchCommand, BenchCompare, BenchModel};
use jinabert::{Options, batch::Tokens, kernels::Dtype};
use model::{KernelTimes, ModelLine};
use report::Report;
use stats::Limits;
use std::{
    fs,
    io::{self, Write},
    path::Path,
    time::Duration,
};
use suite::BenchOptions;

/// Runs one of the benchmarks.
pub fn run(args: &Bench, quiet: bool) -> Result<(), CliError> {
    match &args.command {
        None => all(&args.all, quiet),
        Some(BenchCommand::All(args)) => all(args, quiet),
        Some(BenchCommand::Model(args)) => forward(args, quiet),
        Some(BenchCommand::Compare(args)) => side_by_side(args),
    }
}

/// `jinabert bench all`
fn all(args: &BenchAll, quiet: bool) -> Result<(), CliError> {
    let dir = match (&args.source.model, args.kernel.is_empty()) {
        (_, false) => None,
        (Some(_), true) => Some(source::directory(&args.source, quiet)?),
        (None, true) => {
            let shipped = source::directory(&args.source, quiet);
            shipped.map_err(|e| tracing::warn!("no model: {e}")).ok()
        }
    };
    if is_stdout(args.json.as_deref()) && is_stdout(args.html.as_deref()) {
        return Err(CliError::Usage("only one of --json and --html can be standard output".into()));
    }
    // Outputs are opened first, so that an error appears before minutes of measuring.
    let json = args.json.as_deref().map(AtomicFile::open).transpose()?;
    let html = args.html.as_deref().map(AtomicFile::open).transpose()?;
    let options =
        BenchOptions { quick: args.quick, kernels: args.kernel.clone(), model: dir.as_deref() };
    let silent = is_stdout(args.json.as_deref()) || is_stdout(args.html.as_deref());
    let report = suite::run(args.device, &options, |text| -> Result<(), CliError> {
        if !silent {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()?;
        }
        Ok(())
    })?;
    json.map_or(Ok(()), |page| page.write(&report.json()))?;
    html.map_or(Ok(()), |page| page.write(&page::page(&report)))?;
    match report.faults() {
        0 => Ok(()),
        faults => Err(CliError::Doctor(faults, report.kernels.len())),
    }
}

/// True if an output is standard output.
fn is_stdout(path: Option<&Path>) -> bool {
    path == Some(Path::new("-"))
}

/// `jinabert bench compare`
fn side_by_side(args: &BenchCompare) -> Result<(), CliError> {
    let open = |path: &Path| {
        Report::parse(&read(path)?).map_err(|(line, what)| CliError::File {
            path: path.to_owned(),
            line,
            what,
        })
    };
    let table = compare::table(&open(&args.a)?, &open(&args.b)?);
    let mut out = io::stdout().lock();
    out.write_all(table.as_bytes())?;
    Ok(out.flush()?)
}

/// `jinabert bench model`
fn forward(args: &BenchModel, quiet: bool) -> Result<(), CliError> {
    let at_line = |path: &Path, (line, what)| CliError::File { path: path.to_owned(), line, what };
    let sequences = |path: &Path| -> Result<Vec<Tokens>, CliError> {
        model::parse(&read(path)?).map_err(|error| at_line(path, error))
    };
    // Files are read before a device is opened, and checked before anything is timed.
    let workloads = args.ids.iter().map(|path| sequences(path)).collect::<Result<Vec<_>, _>>()?;
    let options = Options { adapter: args.task.clone(), ..args.model.options()? };
    let (embedder, dir) = source::open(&args.model, options, "bench model", quiet)?;
    for (path, sequences) in args.ids.iter().zip(&workloads) {
        model::check(sequences, &embedder).map_err(|error| at_line(path, error))?;
    }
    let most = args.runs.get();
    let limits = Limits { least: most.min(3), most, time: Duration::from_secs_f64(args.seconds) };
    let dtype = Dtype::from(args.model.dtype).to_string();
    let mut out = io::stdout().lock();
    for (path, sequences) in args.ids.iter().zip(&workloads) {
        let timing = model::time(&embedder, sequences, limits)?;
        let tokens = sequences.iter().map(Tokens::len).sum();
        let kernels = args.profile.then(|| model::kernels(&embedder, sequences)).transpose()?;
        let sum = kernels.as_ref().map(KernelTimes::sum);
        let line = ModelLine {
            engine: model::ENGINE,
            device: &embedder.device(),
            dtype: &dtype,
            model: &source::name(&args.model.source, &dir),
            workload: &name(&path.with_extension("")),
            sequences: sequences.len(),
            tokens,
            tokens_per_s: 1e3 * tokens as f64 / timing.runs.median,
            ms: timing.runs.median,
            min_ms: timing.runs.min,
            first_ms: 1e3 * timing.first.as_secs_f64(),
            runs: timing.runs.runs,
            rss_mb: model::peak_mb(),
            overhead: sum.map(|sum| 1.0 - sum / timing.runs.median),
            attention_kept: kernels.as_ref().and_then(|kernels| kernels.attention_kept),
            kernels_ms: kernels.map(|kernels| kernels.ms),
        };
        if args.json {
            serde_json::to_writer(&mut out, &line).map_err(io::Error::from)?;
        } else {
            out.write_all(line.text().as_bytes())?;
        }
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}

/// Last part of a path.
fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads a file as text.
fn read(path: &Path) -> Result<String, CliError> {
    let bytes =
        fs::read(path).map_err(|source| CliError::Input { path: path.to_owned(), source })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..valid].iter().filter(|&&byte| byte == b'\n').count();
        CliError::File { path: path.to_owned(), line, what: "not UTF-8".to_owned() }
    })?;
    match text.strip_prefix('\u{feff}') {
        Some(text) => Ok(text.to_owned()),
        None => Ok(text),
    }
}
