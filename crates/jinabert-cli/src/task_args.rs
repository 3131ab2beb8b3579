//! Arguments of `similarity`, `rerank`, `multi-vector`, `fill-mask` and `perplexity`.

use crate::{args::ModelArgs, input_args::InputArgs, prompt_args::PromptArgs};
use clap::ValueEnum;
use std::{path::PathBuf, str::FromStr};

/// `jinabert similarity`
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  jinabert similarity \"A blue cat\" \"A cat that is blue\" \"Stocks fell\"")]
pub struct Similarity {
    /// Two or more texts.
    #[arg(required = true, num_args = 2.., value_name = "TEXT")]
    pub text: Vec<String>,
    /// Prompt before each text.
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// Model and device.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// `jinabert rerank`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert rerank --model path/to/reranker \"capital of France\" \"Paris is it.\" \"Berlin is not.\"
  jinabert rerank --model path/to/reranker \"capital of France\" --input documents.jsonl --top-n 10

Output: one line of JSON per document, best first: index in the input, \"id\" if the document has
one, score (0 to 1), logit, number of tokens of query and document together, text.  Documents in
.jsonl are objects: {\"text\": \"…\", \"id\": …}.")]
pub struct Rerank {
    /// Query.
    pub query: String,
    /// Documents; a single -, or neither documents nor --input, reads standard input.
    #[arg(id = "text", value_name = "DOCUMENT")]
    pub document: Vec<String>,
    /// Input file and format.
    #[command(flatten)]
    pub input: InputArgs,
    /// Output only the best N.
    #[arg(long, value_name = "N")]
    pub top_n: Option<usize>,
    /// Model and device.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// `jinabert multi-vector`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert multi-vector --model path/to/colbert --role document \"Paris is the capital.\"
  jinabert multi-vector --model path/to/colbert --query \"capital of France\" --input documents.txt

Output: one line of JSON per text, with its token ids and a unit vector for each token.  With
--query, texts are ordered by MaxSim score.  A query over --query-length is not truncated.")]
pub struct MultiVector {
    /// Texts; a single -, or neither texts nor --input, reads standard input.
    pub text: Vec<String>,
    /// Input file and format.
    #[command(flatten)]
    pub input: InputArgs,
    /// Query for which the texts are scored as documents.
    #[arg(long)]
    pub query: Option<String>,
    /// Role of the texts, marked by a special token of ColBERT [default: plain, without a marker;
    /// document with --query].
    #[arg(long, value_enum)]
    pub role: Option<TextRole>,
    /// Length in tokens to which queries are padded with mask tokens, as in ColBERT: each mask gets
    /// a vector that counts in the score; 0 for no padding [default: query_maxlen in the model's
    /// artifact.metadata, or 32].
    #[arg(long, value_name = "TOKENS")]
    pub query_length: Option<usize>,
    /// Model and device.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Role of a text in ColBERT.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TextRole {
    /// Neither query nor document.
    Plain,
    /// Query: marked with [unused0], padded with mask tokens (--query-length).
    Query,
    /// Document: marked with [unused1]; punctuation gets no vector.
    Document,
}

/// `jinabert fill-mask`
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  jinabert fill-mask --model path/to/model \"Paris is the [MASK] of France.\"

Output: one line of JSON per candidate, most likely first: index of the text, \"id\" if the text has
one, token position of the mask, score (softmax over the vocabulary), token id, token.")]
pub struct FillMask {
    /// Texts with the tokenizer's mask token, [MASK] or <mask>; a single -, or neither texts nor
    /// --input, reads standard input.
    pub text: Vec<String>,
    /// Input file and format.
    #[command(flatten)]
    pub input: InputArgs,
    /// Number of candidates per mask.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub top_k: usize,
    /// Model and device.
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
