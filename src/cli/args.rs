//! What may be typed.

#[cfg(feature = "server")]
use super::serve_args::Serve;
use super::{
    bench_args::{Bench, seconds},
    completions::Completions,
    man::Man,
    task_args::{FillMask, MultiVector, Perplexity, Rerank},
};
use crate::{
    Device, Error, OnLong, Options,
    hub::{Id, Revision},
    kernels, precision,
    text::Chunking,
    tune,
};
use clap::{Parser, Subcommand, ValueEnum};
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
  jinabert similarity \"A blue cat\" \"A cat that is blue\"  a matrix of cosines
  jinabert doctor                                        is every device right?
  jinabert bench                                         how fast is it?
  jinabert pull jinaai/jina-embeddings-v2-base-en        a model from the Hugging Face hub
  jinabert serve                                         for OpenAI's clients: 127.0.0.1:8080/v1

Exit codes:
   0  success                   66  missing or bad model, unreadable input
   1  doctor or bench: a fault  69  no such device, or it failed; no hub
   2  bad options               73  output or cache cannot be created
  65  bad input                 74  writing failed, also a closed pipe"
)]
pub struct Args {
    /// Say nothing on stderr but warnings and errors; draw no progress bar.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// CPU threads for tokenising and for the CPU device [default: all cores].
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Embed texts: arguments, a file, or standard input.
    Embed(Embed),
    /// Print the cosine similarity of every pair of texts.
    Similarity(Similarity),
    /// Order documents by how well they answer a query, with a reranker.
    Rerank(Rerank),
    /// A vector for every token, with a ColBERT model; with --query, documents in its order.
    MultiVector(MultiVector),
    /// What a masked token may be, with a masked language model.
    FillMask(FillMask),
    /// How well a masked language model reads texts, by the length of what it reads.
    Perplexity(Perplexity),
    /// List the devices of this machine and the kernels each would run.
    #[command(after_help = "Example:\n  jinabert devices")]
    Devices,
    /// Check devices: the shipped model's golden vectors, and every kernel against its CPU twin.
    Doctor(Doctor),
    /// Fetch a model from the Hugging Face hub into the cache, and print its directory.
    Pull(Pull),
    /// Say what a model is: graph, head, sizes, tokenizer, pooling, licence; nothing is computed.
    Info(Info),
    /// Answer embedding clients over HTTP: OpenAI's, Jina's, Cohere's, text-embeddings-inference's.
    #[cfg(feature = "server")]
    Serve(Serve),
    /// Time a device: its own limits, every kernel under them, the whole model.
    Bench(Bench),
    /// Fit kernels to a GPU: find the fastest tier and tiles for a model, and keep them.
    Tune(Tune),
    /// What a shell needs to complete commands and options, on standard output.
    Completions(Completions),
    /// A manual page on standard output, or all of them in a directory.
    Man(Man),
}

impl Command {
    /// Whether what happens is said in lines of JSON.
    pub fn json_log(&self) -> bool {
        #[cfg(feature = "server")]
        if let Self::Serve(serve) = self {
            return serve.json_output;
        }
        false
    }

    /// Where spans are sent.
    #[cfg(feature = "otlp")]
    pub fn otlp_endpoint(&self) -> Option<&str> {
        match self {
            Self::Serve(serve) => serve.otlp_endpoint.as_deref(),
            _ => None,
        }
    }
}

/// Where a model is.
#[derive(clap::Args)]
pub struct Source {
    /// Model directory, or owner/name of a model at the Hugging Face hub [default: the shipped
    /// jinabert-mini-en].
    ///
    /// A directory has config.json, model.safetensors (or shards and their index), tokenizer.json.
    /// What is no directory and looks like owner/name is opened from the hub's cache without any
    /// request, and pulled before if it is not there: `jinabert pull --help`.
    ///
    /// The shipped model is looked for as models/jinabert-mini-en and
    /// share/jinabert/models/jinabert-mini-en in every directory above this program, then as
    /// models/jinabert-mini-en in the working directory.
    #[arg(long, value_name = "MODEL", env = "JINABERT_MODEL")]
    pub model: Option<PathBuf>,
    /// Which model at the hub.
    #[command(flatten)]
    pub hub: HubArgs,
}

/// Which of a model's versions, kept where.
#[derive(clap::Args)]
pub struct HubArgs {
    /// Branch, tag or commit of a model at the hub [default: main].
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<Revision>,
    /// Where models of the hub are kept [default: $HF_HUB_CACHE, $HF_HOME/hub, or
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

The cache is the one of Python's huggingface_hub: what either has, both use.  Only config,
tokenizer, safetensors and the small files beside them are fetched, checked by length and hash, and
visible when whole; a download that was cut is resumed.  `pull` asks what is new and checks what is
there; commands with --model ask nothing where the cache has the model.

Environment: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT; HF_TOKEN, HF_TOKEN_PATH or the token in HF_HOME,
none with HF_HUB_DISABLE_IMPLICIT_TOKEN=1; HF_HUB_OFFLINE=1 for no request at all;
HF_HUB_DOWNLOAD_TIMEOUT, the longest silence in seconds [default: 30]; HTTPS_PROXY.")]
pub struct Pull {
    /// The model: owner/name.
    #[arg(value_name = "OWNER/NAME")]
    pub id: Id,
    /// Which of its versions, kept where.
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
    /// Where the model is.
    #[command(flatten)]
    pub source: Source,
    /// One line of JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Which model, where.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// Where it is.
    #[command(flatten)]
    pub source: Source,
    /// auto (a hardware GPU, otherwise the CPU), cpu, vulkan, metal, dx12, gl, or an index from
    /// `jinabert devices`.
    #[arg(long, value_name = "DEVICE", default_value = "auto", env = "JINABERT_DEVICE")]
    pub device: Device,
    /// How the device stores weights and activations; it computes in f32 always.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Longest text in tokens, special tokens included [default: the model's
    /// max_position_embeddings].
    #[arg(long, value_name = "N")]
    pub max_length: Option<usize>,
    /// What happens to a longer text.
    #[arg(long, value_enum, default_value_t = Long::Error)]
    pub on_long: Long,
    /// Tokens that two windows of a long text share, with --on-long window.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub overlap: usize,
    /// Tokens in one batch [default: 16384 on a GPU, 2048 on the CPU].
    #[arg(long, value_name = "N")]
    pub batch_tokens: Option<usize>,
    /// Let attention look at every key, also where all certainly weigh less than 2^-24 of a row.
    #[arg(long)]
    pub dense_attention: bool,
    /// Give a text the same bits whatever else is in its batch, not only the same to rounding.
    /// Costs speed in batches of up to 64 tokens on a hardware GPU, nothing elsewhere.
    #[arg(long)]
    pub deterministic: bool,
    /// Take the usual kernels of a GPU: neither look for the fastest, once, for up to 3 s, nor use
    /// what an earlier look found.
    #[arg(long)]
    pub no_tune: bool,
    /// Which kernels: naive, tiled, texture, subgroup or, experimental and rounded to f16, matrix,
    /// as far as the device has them; on the CPU, blocked or twin [default: the device's fastest].
    #[arg(long, value_name = "TIER")]
    pub tier: Option<String>,
}

impl ModelArgs {
    /// As the library takes them.
    ///
    /// # Errors
    /// As [`Device::tier`].
    pub fn options(&self) -> Result<Options, Error> {
        let tier = self.tier.as_deref().map(|name| self.device.tier(name)).transpose()?;
        Ok(Options {
            tier,
            device: self.device,
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

/// How weights and activations are stored.
#[derive(Clone, Copy, ValueEnum)]
pub enum Dtype {
    /// 32-bit floats throughout; f16 and bf16 weights are widened when they load.
    F32,
    /// Weights and wide activations in 16-bit floats, half the memory; sums and the residual stream
    /// in 32.  On a GPU.
    F16,
}

impl From<Dtype> for kernels::Dtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
        }
    }
}

/// What a component becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// A 32-bit float, as computed.
    Float32,
    /// A 16-bit float.
    Float16,
    /// One of 256 steps, -128 to 127.
    Int8,
    /// One of 256 steps, 0 to 255.
    Uint8,
    /// A bit, set where it is positive; eight to a byte, the first highest, zeros after the last;
    /// less 128, -128 to 127.
    Binary,
    /// The same bytes, 0 to 255.
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

/// How JSON has a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    /// A list of numbers.
    Float,
    /// A text: base64 of the numbers' little-endian bytes.
    Base64,
}

/// What happens to a text over the limit.
#[derive(Clone, Copy, ValueEnum)]
pub enum Long {
    /// Stop, naming the text.
    Error,
    /// Drop its last tokens, and say on stderr how many texts that befell.
    Truncate,
    /// Read it in windows that overlap; its vector is the mean over all of them.
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

Lines of jsonl input are objects: {\"text\": \"…\"}, or {\"ids\": […], \"type_ids\": […]} with special tokens
included and taken as given; both may have an \"id\", which comes back.  Every line of `lines` input is a
text, the empty line too.  Output is written as it is computed; a file appears under its name only when whole.")]
pub struct Embed {
    /// Texts to embed; without any, and without --input, standard input.
    pub text: Vec<String>,
    /// File to read, or - for standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    pub input: Option<PathBuf>,
    /// What a line is [default: jsonl for a name ending in .jsonl, otherwise lines].
    #[arg(long, value_enum)]
    pub input_format: Option<InputFormat>,
    /// File to write, or - for standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// How to write [default: by the output's name, otherwise jsonl].
    #[arg(short, long, value_enum)]
    pub format: Option<Format>,
    /// Keep only the leading N components, before normalising.
    #[arg(long, value_name = "N")]
    pub dimensions: Option<usize>,
    /// Read each text as a whole, but give a vector for every chunk of it: late chunking
    /// (arXiv:2409.04701).
    #[arg(long)]
    pub late_chunking: bool,
    /// What a chunk is: tokens:N or sentences:N.  A line of jsonl may have its own: "spans":
    /// [[first character, the one behind the last], …].
    #[arg(long, value_name = "UNIT:N")]
    pub chunk: Option<Chunking>,
    /// What a text's vector is made of: mean of all tokens, or cls, the first one; what the model
    /// declares unless given.  none for a vector of every token, neither cut nor scaled: lines of
    /// JSON, or a directory of npy files, one for each text.
    #[arg(long, value_enum)]
    pub pooling: Option<Pooling>,
    /// Leave vectors at their length instead of scaling them to 1.
    #[arg(long)]
    pub no_normalize: bool,
    /// In how many bits.
    #[command(flatten)]
    pub precision: PrecisionArgs,
    /// Which model, where.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// What a text's vector is made of.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pooling {
    /// The mean of all tokens, as the models are trained.
    Mean,
    /// The first token.
    Cls,
    /// Nothing: every token has its own.
    None,
}

/// In how many bits a vector is written.
#[derive(clap::Args)]
pub struct PrecisionArgs {
    /// What a component becomes.
    #[arg(long, value_enum, default_value_t = Precision::Float32)]
    pub precision: Precision,
    /// Range of int8 and uint8: components from -R to R in 256 steps, those beyond at the ends
    /// [default: 6 / √dimensions, at most 1; for vectors of length 1].
    #[arg(long, value_name = "R", conflicts_with = "calibration")]
    pub int8_range: Option<f32>,
    /// Vectors of the same model, float32, float16 or float64, that give int8 and uint8 a range for
    /// each component: from the smallest to the largest there, as sentence-transformers'
    /// calibration_embeddings.
    #[arg(long, value_name = "FILE.npy")]
    pub calibration: Option<PathBuf>,
    /// How json and jsonl have a vector.
    #[arg(long, value_enum, default_value_t = Encoding::Float)]
    pub encoding: Encoding,
}

/// `jinabert similarity`
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  jinabert similarity \"A blue cat\" \"A cat that is blue\" \"Stocks fell\"")]
pub struct Similarity {
    /// Two texts or more.
    #[arg(required = true, num_args = 2.., value_name = "TEXT")]
    pub text: Vec<String>,
    /// Which model, where.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// `jinabert tune`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert tune
  jinabert tune --model path/to/model --device 1 --dtype f16 --seconds 30

Every candidate must agree with the CPU before it may win.  The result is kept in the user's cache
directory ($JINABERT_CACHE names another) and serves every later run on the same adapter, driver and
model size.  Without this command, the first run looks for 3 s.")]
pub struct Tune {
    /// The model whose sizes count.
    #[command(flatten)]
    pub source: Source,
    /// auto, vulkan, metal, dx12, gl, or an index from `jinabert devices`.
    #[arg(long, value_name = "DEVICE", default_value = "auto", env = "JINABERT_DEVICE")]
    pub device: Device,
    /// How the device stores weights and activations.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// How long to look.
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
    /// Check only this device [default: all of them].
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Device>,
}

/// What a line of input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InputFormat {
    /// A text.
    Lines,
    /// A JSON object with "text" or "ids".
    Jsonl,
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One array of objects.
    Json,
    /// One object a line.
    Jsonl,
    /// NumPy array of shape [texts, dimensions]: float32, float16, int8 or uint8.
    Npy,
    /// A header, then index, id, tokens and the components.
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
