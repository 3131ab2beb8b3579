//! Arguments of `jinabert perplexity`.

use crate::options::ModelArgs;
use std::{path::PathBuf, str::FromStr};

/// `jinabert perplexity`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert perplexity --model path/to/model book.txt
  jinabert perplexity --model path/to/model book.txt --lengths 512,8192 --svg curve.svg
  jinabert perplexity --model path/to/model note.txt --lengths 64 --mask-every exact

Masked pseudo-perplexity (Salazar et al. 2020, arXiv:1910.14659): each token is scored by the
probability that the model gives it when it is masked.  Every length scores the same tokens: regions
as long as the longest window, spread over the texts and tiled by windows of each length.  So two
lengths differ only in the context of a token, edges of windows included.  Results of different
tokenizers, texts or values of --mask-every are not comparable.

Standard errors are over regions, since windows of one text are correlated; the last columns are the
difference from the shortest length and its standard error, paired by region.")]
pub struct PerplexityArgs {
    /// Text files, one text each, or - for standard input.
    #[arg(value_name = "FILE")]
    pub file: Vec<PathBuf>,
    /// Window lengths in tokens, special tokens included [default: 128, 256, 512, … up to the
    /// maximum length].
    #[arg(long, value_name = "L,…", value_delimiter = ',')]
    pub lengths: Vec<usize>,
    /// Maximum number of windows of the longest length; shorter ones tile the same text.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub windows: usize,
    /// Distance between window starts in tokens; if less than the length, windows overlap and each
    /// token is scored where it has more context on both sides [default: the window length].
    #[arg(long, value_name = "TOKENS")]
    pub stride: Option<usize>,
    /// Mask every K-th token at a time, in K passes; exact (or 0) masks one token at a time, as the
    /// measure is defined, with one pass per token.
    #[arg(long, value_name = "K", default_value = "7")]
    pub mask_every: MaskEvery,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Write a plot of perplexity by length as SVG, - for standard output.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Model and device.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Number of tokens that are masked at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskEvery {
    /// One token.
    Exact,
    /// Every n-th token.
    Every(usize),
}

impl FromStr for MaskEvery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            _ if text == "exact" => Ok(Self::Exact),
            Ok(0) => Ok(Self::Exact),
            Ok(n) if n > 1 => Ok(Self::Every(n)),
            _ => Err("expected 0, exact, or 2 or more".to_owned()),
        }
    }
}
