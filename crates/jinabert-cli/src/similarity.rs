//! `jinabert similarity`

use crate::{
    error::CliError,
    options::{ModelArgs, PromptArgs},
    source,
};
use jinabert::{Vector, Workload};
use std::io::{self, Write};

/// `jinabert similarity`
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  jinabert similarity \"A blue cat\" \"A cat that is blue\" \"Stocks fell\"")]
pub struct Similarity {
    /// Two or more texts.
    #[arg(required = true, num_args = 2.., value_name = "TEXT")]
    pub text: Vec<String>,
    /// Task and prompt.
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// Model and device.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Prints a table of similarities.
pub fn run(args: &Similarity, quiet: bool) -> Result<(), CliError> {
    let options = args.model.options()?.workload(Workload::Latency);
    let options = args.prompt.chosen(options);
    let (embedder, _) = source::open(&args.model, options, "similarity", quiet)?;
    let vectors = embedder.embed(&args.text)?;
    let mut out = io::stdout().lock();
    out.write_all(matrix(&args.text, &vectors).as_bytes())?;
    Ok(out.flush()?)
}

/// Table with a row of cosines for each text, then the text itself.
fn matrix(texts: &[String], vectors: &[Vector]) -> String {
    let mut out = String::new();
    for (text, a) in texts.iter().zip(vectors) {
        for b in vectors {
            out.push_str(&format!("{:>7.3}", a.dot(b)));
        }
        out.push_str(&format!("   {}\n", label(text)));
    }
    out
}

/// Text on one line, shortened if it is long.
fn label(text: &str) -> String {
    const WIDTH: usize = 60;
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(WIDTH) {
        None => line,
        Some((cut, _)) => format!("{}…", &line[..cut]),
    }
}
