//! Arguments of `jinabert bench`.

use crate::options::{ModelArgs, Source, kernel_names, seconds};
use clap::Subcommand;
use jinabert::Device;
use std::{num::NonZeroUsize, path::PathBuf};

/// `jinabert bench`
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  jinabert bench                                       all benchmarks, within two minutes
  jinabert bench --device 0 --json A.json --html A.html
  jinabert bench --quick --kernel linear --kernel attention
  jinabert bench compare A.json B.json                 compare two versions or devices
  jinabert bench model --ids W1.txt --json             one forward pass over token ids

First the device's roofline is measured: multiply-adds on registers, a copy between buffers, the
overhead of a submission and of a dispatch.  Then every kernel in every tier, at the sizes of
jina-embeddings-v2 small and base, with as many tokens as the time allows; each kernel is compared
with its CPU reference before it is timed.  Then the whole model.

Percentages are relative to the roofline: min(compute, FLOP/byte x memory).  Bytes are counted once;
if a cache holds the data, a kernel may exceed 100 %.  A bound that is exceeded is measured again,
up to twice, and the highest figure counts.
Exit code 1: a kernel gave a wrong result."
)]
pub struct Bench {
    /// Benchmark to run.
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    /// Options of `all`, the default.
    #[command(flatten)]
    pub all: BenchAll,
}

/// Benchmarks.
#[derive(Subcommand)]
pub enum BenchCommand {
    /// Measure the device's roofline, every kernel relative to it, and the model [default].
    All(BenchAll),
    /// Time one forward pass of the whole model over token ids.
    Model(BenchModel),
    /// Compare two reports side by side.
    Compare(BenchCompare),
}

/// `jinabert bench all`
#[derive(clap::Args)]
pub struct BenchAll {
    /// Device, as in `jinabert embed --device`.
    #[arg(long, value_name = "DEVICE", default_value = "auto", env = "JINABERT_DEVICE")]
    pub device: Device,
    /// Location of the model.
    #[command(flatten)]
    pub source: Source,
    /// Measure only this kernel, and no model; may be repeated.
    #[arg(long, value_name = "WORD", value_parser = kernel_names())]
    pub kernel: Vec<String>,
    /// Make fewer and shorter runs.
    #[arg(long)]
    pub quick: bool,
    /// Also write the report as JSON; - writes it to standard output instead of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also write an HTML page with a roofline plot.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// `jinabert bench compare`
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  jinabert bench compare before.json after.json

A ratio over 1 means that the second report is faster.")]
pub struct BenchCompare {
    /// First report, written by `jinabert bench --json`.
    #[arg(value_name = "A.json")]
    pub a: PathBuf,
    /// Second report.
    #[arg(value_name = "B.json")]
    pub b: PathBuf,
}

/// `jinabert bench model`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert bench model --ids W1.txt --ids W2.txt
  jinabert bench model --model path/to/model --ids W1.txt --device 0 --json >> lines.jsonl

A file has one sequence per line: token ids separated by spaces, special tokens included.  After a
first run (first_ms), runs are repeated until --seconds or --runs is reached, at least three times;
if the first run takes over 40 s, it is the result.  Times are medians, from ids to vectors.")]
pub struct BenchModel {
    /// File of token ids, one sequence per line; may be repeated.
    #[arg(long, value_name = "FILE", required = true)]
    pub ids: Vec<PathBuf>,
    /// Print a JSON object per file instead of a human-readable line.
    #[arg(long)]
    pub json: bool,
    /// Maximum number of runs after the first.
    #[arg(long, value_name = "N", default_value = "50")]
    pub runs: NonZeroUsize,
    /// Also time every kernel separately, and the time between kernels; on the CPU, also count the
    /// work of attention.
    #[arg(long)]
    pub profile: bool,
    /// Maximum time for repeated runs, in seconds.
    #[arg(long, value_name = "S", default_value = "8", value_parser = seconds)]
    pub seconds: f64,
    /// Task of the sequences, for a model with LoRA adapters.
    #[arg(long, value_name = "TASK")]
    pub task: Option<String>,
    /// Model and device.
    #[command(flatten)]
    pub model: ModelArgs,
}
