//! Arguments of `rerank`, `multi-vector` and `fill-mask`.

use crate::options::{InputArgs, ModelArgs};
use clap::ValueEnum;
use std::path::PathBuf;

/// `jinabert rerank`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert rerank --model path/to/reranker \"capital of France\" \"Paris is it.\" \"Berlin is not.\"
  jinabert rerank --model path/to/reranker \"capital of France\" --input documents.jsonl --top-n 10

Output: one line of JSON per document, best first: index in the input, \"id\" if the document has
one, score (0 to 1), logit, number of tokens of query and document together, text.  By MaxSim the
logit is the sum over the query's tokens, the score their mean, and tokens are the document's.
Documents in .jsonl are objects: {\"text\": \"…\", \"id\": …}.  With --on-long window a long document
is read in windows, and the best one counts, with MaxSim the best token of any.")]
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
    /// How documents are scored [default: by the model's classifier, or by MaxSim with a ColBERT
    /// model].
    #[arg(long, value_enum)]
    pub by: Option<RankBy>,
    /// Model and device.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// How documents are scored.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RankBy {
    /// Sum over the query's tokens of the best cosine with a token of the document; with an
    /// embedding model, of the last hidden states.
    Maxsim,
}

/// `jinabert multi-vector`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert multi-vector --model path/to/colbert --role document \"Paris is the capital.\"
  jinabert multi-vector --model path/to/colbert --query \"capital of France\" --input documents.txt
  jinabert multi-vector --model path/to/colbert --role document --input documents.txt --output v.jsonl
  jinabert multi-vector --model path/to/colbert --query \"capital of France\" --vectors v.jsonl

Output: one line of JSON per text, with its token ids and a unit vector for each token.  With
--query, texts are ordered by MaxSim score; with --vectors, documents whose vectors were kept by an
earlier run.  A query over --query-length is not truncated.")]
pub struct MultiVector {
    /// Texts; a single -, or neither texts nor --input, reads standard input.
    pub text: Vec<String>,
    /// Input file and format.
    #[command(flatten)]
    pub input: InputArgs,
    /// Output file, or - for standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Query for which the texts are scored as documents.
    #[arg(long)]
    pub query: Option<String>,
    /// Output of an earlier run with --role document, to be scored instead of texts; - for
    /// standard input.
    #[arg(long, value_name = "FILE", requires = "query",
        conflicts_with_all = ["text", "input", "role", "keep_fields", "skip_bad_lines"])]
    pub vectors: Option<PathBuf>,
    /// Output only the best N, with --query.
    #[arg(long, value_name = "N", requires = "query")]
    pub top_n: Option<usize>,
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
    /// Query: with ColBERT's marker, padded with mask tokens (--query-length).
    Query,
    /// Document: with ColBERT's marker; punctuation gets no vector.
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
