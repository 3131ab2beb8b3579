//! What may be typed after `jinabert bench`.

use super::args::ModelArgs;
use clap::Subcommand;
use std::{num::NonZeroUsize, path::PathBuf};

/// `jinabert bench`
#[derive(clap::Args)]
pub struct Bench {
    /// What to time.
    #[command(subcommand)]
    pub what: What,
}

/// What to time.
#[derive(Subcommand)]
pub enum What {
    /// Time one forward of the whole model over token ids.
    Model(Model),
}

/// `jinabert bench model`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert bench model --ids W1.txt --ids W2.txt
  jinabert bench model --model path/to/model --ids W1.txt --device 0 --json >> lines.jsonl

A file has a sequence a line, its token ids separated by spaces, special tokens included.  After one run
(first_ms), runs are repeated until --seconds or --runs is reached, three at the least; a first run over
40 s is the measurement.  The time is the median and counts everything from ids to vectors.")]
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
    /// How long to repeat.
    #[arg(long, value_name = "S", default_value = "8", value_parser = seconds)]
    pub seconds: f64,
    /// Which model, where.
    #[command(flatten)]
    pub model: ModelArgs,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("0 to 86400 is meant".to_owned()),
    }
}
