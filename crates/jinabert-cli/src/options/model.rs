//! Arguments for a model, its device and its batches.

use super::device::{Dtype, Power};
use clap::ValueEnum;
use jinabert::{Device, Error, OnLong, Options, hub::Revision, tune};
use std::path::PathBuf;

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
    #[arg(long, alias = "model-id", value_name = "MODEL", env = "JINABERT_MODEL")]
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

/// Handling of texts over the maximum length.
#[derive(Clone, Copy, ValueEnum)]
pub enum Long {
    /// Stop with an error that names the text.
    Error,
    /// Truncate at the end, and report the number of truncated texts on stderr.
    Truncate,
    /// Process the text in overlapping windows; a vector is pooled from all of them, a document's
    /// score is the best of theirs.
    Window,
}

impl From<Long> for OnLong {
    fn from(long: Long) -> Self {
        match long {
            Long::Error => Self::Error,
            Long::Truncate => Self::Truncate,
            Long::Window => Self::Window,
        }
    }
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
    #[arg(long, value_enum, default_value_t = Dtype::Float32)]
    pub dtype: Dtype,
    /// Maximum text length in tokens, including special tokens and prompt [default: the model's own
    /// limit, see `jinabert info`].
    #[arg(long, alias = "max-seq-length", value_name = "N")]
    pub max_length: Option<usize>,
    /// Handling of texts over the maximum length.
    #[arg(long, value_enum, default_value_t = Long::Error)]
    pub on_long: Long,
    /// Overlap of consecutive windows in tokens, with --on-long window; `rerank` has its own.
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
    /// device supports it; on the CPU, blocked or reference [default: the device's fastest].
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
            on_long: self.on_long.into(),
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
