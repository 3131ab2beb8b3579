//! What may be typed after `rerank`, `multi-vector`, `fill-mask` and `perplexity`.

use super::args::ModelArgs;
use clap::ValueEnum;
use std::{path::PathBuf, str::FromStr};

/// `jinabert rerank`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert rerank --model path/to/reranker \"capital of France\" \"Paris is it.\" \"Berlin is not.\"
  jinabert rerank --model path/to/reranker \"capital of France\" --input documents.jsonl --top-n 10

A line of JSON for each document, the best first: index in the input, score (0 to 1), logit, tokens
of query and document together, text.")]
pub struct Rerank {
    /// What is asked.
    pub query: String,
    /// Documents; without any, and without --input, a line of standard input each.
    #[arg(value_name = "DOCUMENT")]
    pub document: Vec<String>,
    /// File to read, a document a line (or {\"text\": …} in .jsonl), or - for standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "document")]
    pub input: Option<PathBuf>,
    /// Only the best N.
    #[arg(long, value_name = "N")]
    pub top_n: Option<usize>,
    /// Which model, where.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// `jinabert multi-vector`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert multi-vector --model path/to/colbert --role document \"Paris is the capital.\"
  jinabert multi-vector --model path/to/colbert --query \"capital of France\" --input documents.txt

A line of JSON for each text: its token ids and a unit vector for each.  With --query, a line for
each text in order of its MaxSim score.  A query that is longer than --query-length is not cut.")]
pub struct MultiVector {
    /// Texts; without any, and without --input, a line of standard input each.
    pub text: Vec<String>,
    /// File to read, a text a line (or {\"text\": …} in .jsonl), or - for standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    pub input: Option<PathBuf>,
    /// Score the texts as documents for this query instead.
    #[arg(long)]
    pub query: Option<String>,
    /// What the texts are, which ColBERT marks with a token of its own [default: plain, without a
    /// mark; document with --query].
    #[arg(long, value_enum)]
    pub role: Option<TextRole>,
    /// Tokens to pad queries to with masks, as ColBERT does: each mask gets a vector, which counts
    /// in the score; 0 for none [default: query_maxlen in the model's artifact.metadata, or 32].
    #[arg(long, value_name = "TOKENS")]
    pub query_length: Option<usize>,
    /// Which model, where.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// What a text is to ColBERT.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TextRole {
    /// Neither.
    Plain,
    /// Marked with [unused0], and padded with masks (--query-length).
    Query,
    /// Marked with [unused1]; punctuation gets no vector.
    Document,
}

/// `jinabert fill-mask`
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  jinabert fill-mask --model path/to/model \"Paris is the [MASK] of France.\"

A line of JSON for each candidate, the likeliest first: index of the text, position of the mask
among its tokens, score (softmax over the vocabulary), token id, token.")]
pub struct FillMask {
    /// Texts with the tokenizer's mask in them, [MASK] or <mask>.
    pub text: Vec<String>,
    /// File to read, a text a line (or {\"text\": …} in .jsonl), or - for standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    pub input: Option<PathBuf>,
    /// Candidates for each mask.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub top_k: usize,
    /// Which model, where.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// `jinabert perplexity`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert perplexity --model path/to/model book.txt
  jinabert perplexity --model path/to/model book.txt --lengths 512,8192 --svg curve.svg
  jinabert perplexity --model path/to/model note.txt --lengths 64 --mask-every exact

Masked pseudo-perplexity (Salazar et al. 2020, arXiv:1910.14659): a token counts with what the model
gives it when it sees a mask in its place.  Every length scores the same tokens: regions as long as
the longest window, spread over the texts and tiled by windows of each length.  So two lengths
differ in nothing but how much text a token has around it, edges of windows included.  Numbers of
different tokenizers, texts or --mask-every do not compare.

Standard errors are over regions, as windows of one text are alike; the last columns are the
difference from the shortest length and its error, region by region.")]
pub struct Perplexity {
    /// Texts, a file each, or - for standard input.
    #[arg(value_name = "FILE")]
    pub file: Vec<PathBuf>,
    /// Tokens of a window, special tokens included [default: 128, 256, 512, … up to the limit].
    #[arg(long, value_name = "L,…", value_delimiter = ',')]
    pub lengths: Vec<usize>,
    /// Most windows of the longest length; shorter ones tile the same text.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub windows: usize,
    /// Tokens from window to window; less than a window makes them overlap, and each token is
    /// scored where it has more text on both sides [default: whole windows].
    #[arg(long, value_name = "TOKENS")]
    pub stride: Option<usize>,
    /// One token of K is masked at a time, in K passes; exact (or 0) for one token alone, as the
    /// measure is defined: as many passes as tokens.
    #[arg(long, value_name = "K", default_value = "7")]
    pub mask_every: MaskEvery,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Draw perplexity against length, - for standard output.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Which model, where.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// How many tokens are masked at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskEvery {
    /// One alone.
    Exact,
    /// One of so many.
    Every(usize),
}

impl FromStr for MaskEvery {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            _ if text == "exact" => Ok(Self::Exact),
            Ok(0) => Ok(Self::Exact),
            Ok(n) if n > 1 => Ok(Self::Every(n)),
            _ => Err("2 or more is meant, 0 or exact".to_owned()),
        }
    }
}
