//! Command-line arguments.

#[cfg(feature = "server")]
use crate::serve_args::ServeArgs;
use crate::shaders::Shaders;
use crate::{
    bench::{Bench, seconds},
    completions::Completions,
    device_args::{Dtype, Power},
    input_args::InputArgs,
    man::Man,
    prompt_args::PromptArgs,
    task_args::{FillMask, MultiVector, PerplexityArgs, Rerank, Similarity},
};
use clap::{Parser, Subcommand, ValueEnum};
use jinabert::{
    Device, Error, OnLong, Options,
    hub::{Reference, Revision},
    precision,
    text::Chunking,
    tune,
};
use std::{num::NonZeroUsize, path::PathBuf};

/// JinaBERT text embeddings on any GPU.
#[derive(Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  jinabert embed \"A blue cat\"                            one vector, as a line of JSON
  jinabert embed --input texts.txt --output vectors.npy  a vector for every line
  jinabert similarity \"A blue cat\" \"A cat that is blue\"  cosine similarities
  jinabert doctor                                        check every device
  jinabert bench                                         measure the speed
  jinabert pull jinaai/jina-embeddings-v2-base-en        download a hub model
  jinabert serve                                         HTTP server: http://127.0.0.1:8080/v1

Exit codes:
   0  success                   66  missing or invalid model, unreadable input
   1  doctor or bench: a fault  69  no such device, device failure, hub unreachable
   2  bad options               73  output or cache cannot be created
  65  bad input                 74  writing failed, a closed pipe included"
)]
pub struct Args {
    /// Print only warnings and errors on stderr, and no progress.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Number of CPU threads for tokenisation and for the CPU device [default: all cores].
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Subcommand)]
pub enum Command {
    /// Embed texts from arguments, a file or standard input.
    Embed(Embed),
    /// Print the cosine similarity of every pair of texts.
    Similarity(Similarity),
    /// Rank documents by relevance to a query, with a reranker.
    Rerank(Rerank),
    /// Compute a vector for every token with a ColBERT model; with --query, rank documents.
    MultiVector(MultiVector),
    /// Predict masked tokens with a masked language model.
    FillMask(FillMask),
    /// Measure the pseudo-perplexity of a masked language model by context length.
    Perplexity(PerplexityArgs),
    /// List the devices of this machine and the kernels each would run.
    #[command(after_help = "Example:\n  jinabert devices")]
    Devices,
    /// Check devices: golden vectors of the shipped model, every kernel against its CPU reference.
    Doctor(Doctor),
    /// Download a model from the Hugging Face hub into the cache, and print its directory.
    Pull(Pull),
    /// Describe a model without running it: graph, head, sizes, tokenizer, pooling, licence.
    Info(Info),
    /// Serve the HTTP APIs of OpenAI, Jina, Cohere and text-embeddings-inference.
    #[cfg(feature = "server")]
    Serve(ServeArgs),
    /// Benchmark a device: its limits, every kernel relative to them, the whole model.
    Bench(Bench),
    /// Tune kernels for a GPU: find the fastest tier and tile sizes for a model, and save them.
    Tune(Tune),
    /// Write kernels in the languages of the drivers' compilers.
    Shaders(Shaders),
    /// Print a shell completion script.
    Completions(Completions),
    /// Print a manual page, or write all of them to a directory.
    Man(Man),
}

impl Command {
    /// Whether the log is written as lines of JSON.
    pub fn json_log(&self) -> bool {
        #[cfg(feature = "server")]
        if let Self::Serve(serve) = self {
            return serve.json_output;
        }
        false
    }

    /// Endpoint for OpenTelemetry spans.
    #[cfg(feature = "otlp")]
    pub fn otlp_endpoint(&self) -> Option<&str> {
        match self {
            Self::Serve(serve) => serve.otlp_endpoint.as_deref(),
            _ => None,
        }
    }
}

/// Location of a model.
#[derive(clap::Args)]
pub struct Source {
    /// Model directory, or owner/name of a model on the Hugging Face hub [default: the shipped
    /// jinabert-mini-en].
    ///
    /// A directory contains config.json, model.safetensors (or shards and their index) and
    /// tokenizer.json.  If no such directory exists, owner/name, owner/name@revision or the URL of
    /// a model page is opened from the hub cache without a network request; a model that is not
    /// cached is downloaded first: `jinabert pull --help`.
    ///
    /// The shipped model is searched as models/jinabert-mini-en and
    /// share/jinabert/models/jinabert-mini-en in every parent directory of this program, then as
    /// models/jinabert-mini-en in the working directory.
    #[arg(long, value_name = "MODEL", env = "JINABERT_MODEL")]
    pub model: Option<PathBuf>,
    /// Revision and cache of a hub model.
    #[command(flatten)]
    pub hub: HubArgs,
}

/// Revision and cache of a hub model.
#[derive(clap::Args)]
pub struct HubArgs {
    /// Branch, tag or commit of a hub model [default: main].
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<Revision>,
    /// Cache directory for hub models [default: $HF_HUB_CACHE, $HF_HOME/hub, or
    /// huggingface/hub in the user's cache directory].
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

/// `jinabert pull`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert pull jinaai/jina-embeddings-v2-base-en
  jinabert embed --model jinaai/jina-embeddings-v2-base-en \"A blue cat\"
  HF_ENDPOINT=https://mirror.example jinabert pull owner/name --revision v1.0

The cache layout is that of Python's huggingface_hub, and both programs can share one cache.  Only
config, tokenizer, safetensors and the small files beside them are downloaded; length and hash are
verified, and a file appears only when complete.  An interrupted download is resumed.  `pull` checks
for updates and verifies cached files; other commands make no request if the model is cached.

Environment: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT; HF_TOKEN, HF_TOKEN_PATH or the token in HF_HOME,
none with HF_HUB_DISABLE_IMPLICIT_TOKEN=1; HF_HUB_OFFLINE=1 disables all requests;
HF_HUB_DOWNLOAD_TIMEOUT is the read timeout in seconds [default: 30]; HTTPS_PROXY.  `~` and $NAME in
paths are expanded.  SSL_CERT_FILE, SSL_CERT_DIR, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE add
certificate authorities to Mozilla's and the system's.")]
pub struct Pull {
    /// The model: owner/name, owner/name@revision, or the URL of its page.
    #[arg(value_name = "OWNER/NAME")]
    pub model: Reference,
    /// Revision and cache of the model.
    #[command(flatten)]
    pub hub: HubArgs,
}

/// `jinabert info`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert info
  jinabert info --model jinaai/jina-embeddings-v2-base-en --json

Only config.json, the headers of the weights and the small files are read.")]
pub struct Info {
    /// Location of the model.
    #[command(flatten)]
    pub source: Source,
    /// Print one line of JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Model, device and batching.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// Location of the model.
    #[command(flatten)]
    pub source: Source,
    /// Device: auto (the faster of a hardware GPU and the CPU), cpu, vulkan, metal, dx12, gl, or an
    /// index from `jinabert devices`.
    #[arg(long, value_name = "DEVICE", default_value = "auto", env = "JINABERT_DEVICE")]
    pub device: Device,
    /// Preference of `auto`: `low` excludes discrete GPUs, `high` maximises throughput.
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub power: Option<Power>,
    /// Storage type of weights and activations on the device; arithmetic is always f32.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Maximum text length in tokens, including special tokens and prompt [default: the model's own
    /// limit, see `jinabert info`].
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// Handling of texts over the maximum length.
    #[arg(long, value_enum, default_value_t = Long::Error)]
    pub on_long: Long,
    /// Overlap of consecutive windows in tokens, with --on-long window.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub overlap: usize,
    /// Maximum tokens per batch [default: up to 16384 on a GPU, depending on its speed; 2048 on the
    /// CPU].
    #[arg(long, value_name = "N")]
    pub batch_tokens: Option<usize>,
    /// Compute attention over all keys, even those that certainly weigh less than 2^-24 of a row.
    #[arg(long)]
    pub dense_attention: bool,
    /// Return bit-identical vectors for a text in every batch, instead of equal up to rounding.
    /// Slower for batches of up to 64 tokens on a hardware GPU, no cost elsewhere.
    #[arg(long)]
    pub deterministic: bool,
    /// Use a GPU's default kernels: no search for faster ones (once, for up to 3 s), and no saved
    /// result of an earlier search.
    #[arg(long)]
    pub no_tune: bool,
    /// Kernel tier: naive, tiled, texture, subgroup or matrix (experimental, rounds to f16), if the
    /// device supports it; on the CPU, blocked or twin [default: the device's fastest].
    #[arg(long, value_name = "TIER")]
    pub tier: Option<String>,
}

impl ModelArgs {
    /// Options of the library.
    ///
    /// # Errors
    /// As [`Device::tier`].
    pub fn options(&self) -> Result<Options, Error> {
        let tier = self.tier.as_deref().map(|name| self.device.tier(name)).transpose()?;
        Ok(Options {
            tier,
            device: self.device,
            power: self.power.map_or_else(Default::default, Into::into),
            max_length: self.max_length,
            on_long: match self.on_long {
                Long::Error => OnLong::Error,
                Long::Truncate => OnLong::Truncate,
                Long::Window => OnLong::Window,
            },
            overlap: self.overlap,
            batch_tokens: self.batch_tokens,
            dtype: self.dtype.into(),
            deterministic: self.deterministic,
            tune: if self.no_tune { tune::Tune::Off } else { tune::Tune::Search },
            skip_eps: if self.dense_attention { 0.0 } else { Options::default().skip_eps },
            ..Options::default()
        })
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

/// Handling of texts over the maximum length.
#[derive(Clone, Copy, ValueEnum)]
pub enum Long {
    /// Stop with an error that names the text.
    Error,
    /// Truncate at the end, and report the number of truncated texts on stderr.
    Truncate,
    /// Process the text in overlapping windows; its vector is the mean over all of them.
    Window,
}

/// `jinabert embed`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert embed \"A blue cat\" \"A cat that is blue\"
  jinabert embed --input texts.txt --output vectors.npy
  cat docs.jsonl | jinabert embed --input-format jsonl --on-long truncate > vectors.jsonl
  jinabert embed --input texts.txt --precision binary --output bits.npy
  echo '{\"ids\": [2, 51, 3], \"id\": \"doc-7\"}' | jinabert embed --input-format jsonl
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
    #[arg(long, value_name = "N")]
    pub dimensions: Option<usize>,
    /// Late chunking (arXiv:2409.04701): encode each text as a whole and output one vector per
    /// chunk.
    #[arg(long)]
    pub late_chunking: bool,
    /// Chunk size: tokens:N or sentences:N, or tokens:N:OVERLAP for overlapping chunks.  A line of
    /// jsonl may set its own chunks as character ranges: "spans": [[start, end], …], end exclusive.
    #[arg(long, value_name = "UNIT:N[:OVERLAP]")]
    pub chunk: Option<Chunking>,
    /// Pooling: mean of all tokens, or cls for the first token [default: as the model declares].
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
    /// Prompt before each text.
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

/// `jinabert tune`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert tune
  jinabert tune --model path/to/model --device 1 --dtype f16 --seconds 30

A candidate is used only if its results match the CPU's.  The result is saved in the user's cache
directory (or $JINABERT_CACHE) and applies to later runs with the same adapter, driver and model
size.  Without this command, the first run searches for up to 3 s.")]
pub struct Tune {
    /// Model for whose sizes kernels are tuned.
    #[command(flatten)]
    pub source: Source,
    /// Device: auto, vulkan, metal, dx12, gl, or an index from `jinabert devices`.
    #[arg(long, value_name = "DEVICE", default_value = "auto", env = "JINABERT_DEVICE")]
    pub device: Device,
    /// Storage type of weights and activations on the device.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Maximum search time in seconds.
    #[arg(long, value_name = "S", default_value = "60", value_parser = seconds)]
    pub seconds: f64,
}

/// `jinabert doctor`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert doctor
  jinabert doctor --device cpu")]
pub struct Doctor {
    /// Check only this device [default: all devices].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Device>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
