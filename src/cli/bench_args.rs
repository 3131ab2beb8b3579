//! What may be typed after `jinabert bench`.

use super::args::{ModelArgs, Source};
use crate::{Device, kernels};
use clap::{Subcommand, builder::PossibleValuesParser};
use std::{num::NonZeroUsize, path::PathBuf};

/// `jinabert bench`
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  jinabert bench                                       everything, within two minutes
  jinabert bench --device 0 --json A.json --html A.html
  jinabert bench --quick --kernel linear --kernel attention
  jinabert bench compare A.json B.json                 before and after, or two devices
  jinabert bench model --ids W1.txt --json             one forward of given token ids

First the device's own roof is measured: multiply-adds on registers, a copy between buffers, the
cost of a submission and of a dispatch.  Then every kernel in every tier, at the sizes of
jina-embeddings-v2 small and base and for as many tokens as there is time for; each is compared with
its CPU twin before it is timed.  Then the whole model.

Percent are of the bound that applies: min(compute, FLOP/byte x memory).  Bytes are counted once;
where a cache holds the data, a kernel may pass 100 %.
Exit code 1 says that a kernel is wrong."
)]
pub struct Bench {
    /// What to time.
    #[command(subcommand)]
    pub what: Option<What>,
    /// Without a word, all.
    #[command(flatten)]
    pub all: All,
}

/// What to time.
#[derive(Subcommand)]
pub enum What {
    /// Measure the device's own roof, every kernel next to it, and the model [default].
    All(All),
    /// Time one forward of the whole model over token ids.
    Model(Model),
    /// Print two reports side by side.
    Compare(Compare),
}

/// `jinabert bench all`
#[derive(clap::Args)]
pub struct All {
    /// As `jinabert embed --device`.
    #[arg(long, value_name = "DEVICE", default_value = "auto", env = "JINABERT_DEVICE")]
    pub device: Device,
    /// Which model.
    #[command(flatten)]
    pub source: Source,
    /// Only this kernel, and no model; may be given several times.
    #[arg(long, value_name = "WORD", value_parser = words())]
    pub kernel: Vec<String>,
    /// Fewer and shorter runs.
    #[arg(long)]
    pub quick: bool,
    /// Also write everything as JSON; - is standard output, without the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also write a page with a roofline plot.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

fn words() -> PossibleValuesParser {
    PossibleValuesParser::new(kernels::ALL.iter().map(|kernel| kernel.word))
}

/// `jinabert bench compare`
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  jinabert bench compare before.json after.json

Ratios over 1 say that the second report is faster.")]
pub struct Compare {
    /// A file that `jinabert bench --json` wrote.
    #[arg(value_name = "A.json")]
    pub a: PathBuf,
    /// Another.
    #[arg(value_name = "B.json")]
    pub b: PathBuf,
}

/// `jinabert bench model`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert bench model --ids W1.txt --ids W2.txt
  jinabert bench model --model path/to/model --ids W1.txt --device 0 --json >> lines.jsonl

A file has a sequence a line, its token ids separated by spaces, special tokens included.  After one
run (first_ms), runs are repeated until --seconds or --runs is reached, three at the least; a first
run over 40 s is the measurement.  The time is the median, from ids to vectors.")]
pub struct Model {
    /// File of token ids, a sequence a line; may be given several times.
    #[arg(long, value_name = "FILE", required = true)]
    pub ids: Vec<PathBuf>,
    /// Print a JSON object for each file instead of a line for people.
    #[arg(long)]
    pub json: bool,
    /// Most runs after the first.
    #[arg(long, value_name = "N", default_value = "50")]
    pub runs: NonZeroUsize,
    /// Also time every kernel by itself, and what goes on between; on the CPU, count how much
    /// attention looks at.
    #[arg(long)]
    pub profile: bool,
    /// How long to repeat.
    #[arg(long, value_name = "S", default_value = "8", value_parser = seconds)]
    pub seconds: f64,
    /// Which model, where.
    #[command(flatten)]
    pub model: ModelArgs,
}

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("0 to 86400 is meant".to_owned()),
    }
}
