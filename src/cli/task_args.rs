//! What may be typed after `rerank`, `multi-vector` and `fill-mask`.

use super::args::ModelArgs;
use clap::ValueEnum;
use std::path::PathBuf;

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
each text in order of its MaxSim score.")]
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
    /// Which model, where.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// What a text is to ColBERT.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TextRole {
    /// Neither.
    Plain,
    /// Marked with [unused0].
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
