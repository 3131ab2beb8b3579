//! Arguments of `jinabert embed`.

use crate::options::{InputArgs, ModelArgs, PromptArgs};
use clap::ValueEnum;
use jinabert::{precision, text::Chunking};
use std::path::{Path, PathBuf};

/// `jinabert embed`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert embed \"A blue cat\" \"A cat that is blue\"
  jinabert embed --input texts.txt --output vectors.npy
  cat docs.jsonl | jinabert embed --input-format jsonl --on-long truncate > vectors.jsonl
  jinabert embed --input texts.txt --precision binary --output bits.npy
  echo '{\"ids\": [2, 51, 3], \"id\": \"doc-7\"}' | jinabert embed --input-format jsonl
  jinabert embed --model jinaai/jina-embeddings-v3 --task retrieval.query \"What is a panda?\"
  jinabert embed --input docs.jsonl --keep-fields --skip-bad-lines --output vectors.jsonl

A line of jsonl input is an object: {\"text\": \"…\"}, or {\"ids\": […], \"type_ids\": […]} with
token ids that are used unchanged, special tokens and prompt included.  An \"id\" is copied to the
output; blank lines are skipped.  A json file is a list of such objects or of texts, or has one
object per line.  In `lines` input every line is a text, even an empty one.  Output is written as it
is computed; an output file appears under its name only when complete.")]
pub struct Embed {
    /// Texts to embed; a single -, or neither texts nor --input, reads standard input.
    pub text: Vec<String>,
    /// Input file and format.
    #[command(flatten)]
    pub input: InputArgs,
    /// Output file, or - for standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Output format [default: by the output's file name extension, otherwise jsonl].
    #[arg(short, long, value_enum)]
    pub format: Option<Format>,
    /// Keep only the first N components, before normalisation.
    #[arg(long, alias = "truncate-dim", value_name = "N")]
    pub dimensions: Option<usize>,
    /// Accept any number of --dimensions, also for a model that declares those it was trained for.
    #[arg(long)]
    pub any_dimensions: bool,
    /// Late chunking (arXiv:2409.04701): encode each text as a whole and output one vector per
    /// chunk.
    #[arg(long)]
    pub late_chunking: bool,
    /// Chunk size: tokens:N or sentences:N, or tokens:N:OVERLAP for overlapping chunks.  A line of
    /// jsonl may set its own chunks as character ranges: "spans": [[start, end], …], end exclusive.
    #[arg(long, value_name = "UNIT:N[:OVERLAP]")]
    pub chunk: Option<Chunking>,
    /// Pooling of the tokens [default: as the model declares].
    ///
    /// none outputs one vector per token, neither truncated nor normalised, as lines of JSON or a
    /// directory of npy files, one per text.
    #[arg(long, value_enum)]
    pub pooling: Option<Pooling>,
    /// Do not scale vectors to unit length.
    #[arg(long)]
    pub no_normalize: bool,
    /// Quantisation and encoding.
    #[command(flatten)]
    pub precision: PrecisionArgs,
    /// Task and prompt.
    #[command(flatten)]
    pub prompt: PromptArgs,
    /// Model and device.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Pooling of token vectors into a text vector.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pooling {
    /// Mean of all tokens, as in training.
    Mean,
    /// First token.
    Cls,
    /// Last token.
    #[value(name = "lasttoken")]
    Last,
    /// Largest value of each component.
    Max,
    /// Mean weighted by position.
    #[value(name = "weightedmean")]
    WeightedMean,
    /// No pooling: one vector per token.
    None,
}

/// Quantisation and encoding of vectors.
#[derive(clap::Args)]
pub struct PrecisionArgs {
    /// Number format of components.
    #[arg(long, value_enum, default_value_t = Precision::Float32)]
    pub precision: Precision,
    /// Range of int8 and uint8: components from -R to R map to 256 levels, others are clamped
    /// [default: 6 / √dimensions, at most 1; for unit vectors].
    #[arg(long, value_name = "R", conflicts_with = "calibration")]
    pub int8_range: Option<f32>,
    /// Calibration vectors of the same model (float32, float16 or float64): int8 and uint8 use each
    /// component's minimum and maximum in them as its range, like sentence-transformers'
    /// calibration_embeddings.
    #[arg(long, value_name = "FILE.npy")]
    pub calibration: Option<PathBuf>,
    /// Encoding of vectors in json and jsonl.
    #[arg(long, value_enum, default_value_t = Encoding::Float)]
    pub encoding: Encoding,
}

/// Output format of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Array of objects.
    Json,
    /// One object per line.
    Jsonl,
    /// NumPy array of shape [texts, dimensions]: float32, float16, int8 or uint8.
    Npy,
    /// Header line, then index, id, tokens and components.
    Csv,
}

impl Format {
    /// Format by the file name extension, ignoring case; `None` for other extensions.
    pub fn by_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_lowercase().as_str() {
            "json" => Some(Self::Json),
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "npy" => Some(Self::Npy),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// Number format of a vector's components.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 32-bit float, as computed.
    Float32,
    /// 16-bit float.
    Float16,
    /// 8-bit integer, -128 to 127.
    Int8,
    /// 8-bit integer, 0 to 255.
    Uint8,
    /// Sign bit, 1 if positive; 8 per byte, most significant bit first, padded with zeros; bytes
    /// minus 128, -128 to 127.
    Binary,
    /// As binary, bytes from 0 to 255.
    Ubinary,
}

impl From<Precision> for precision::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::Float32 => Self::Float32,
            Precision::Float16 => Self::Float16,
            Precision::Int8 => Self::Int8,
            Precision::Uint8 => Self::Uint8,
            Precision::Binary => Self::Binary,
            Precision::Ubinary => Self::Ubinary,
        }
    }
}

/// Encoding of vectors in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    /// List of numbers.
    Float,
    /// Base64 string of the little-endian bytes.
    Base64,
}
