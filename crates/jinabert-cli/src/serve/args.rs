//! Arguments of `jinabert serve`.

use crate::options::{Dtype, Power};
use clap::{ArgAction, ArgMatches, builder::BoolishValueParser, parser::ValueSource};
use jinabert::{Device, hub::Revision};
use std::path::{Path, PathBuf};

const PORT: u16 = 8080;

/// Parses a port; a `tcp://…` link, which Kubernetes sets for a service, means the default.
fn port(text: &str) -> Result<u16, std::num::ParseIntError> {
    if text.starts_with("tcp://") { Ok(PORT) } else { text.parse() }
}

/// `jinabert serve`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jinabert serve
  jinabert serve --model jinaai/jina-embeddings-v2-base-en --port 8080 --api-key secret
  jinabert serve --model jinaai/jina-embeddings-v2-small-en --model jinaai/jina-reranker-v1-tiny-en
  curl 127.0.0.1:8080/v1/embeddings -H 'content-type: application/json' -d '{\"input\": \"A blue cat\"}'

Routes: POST /v1/embeddings and /embeddings (OpenAI, Jina), /rerank, /v1/rerank, /v2/rerank (TEI,
Jina, Cohere), /embed, /embed_all, /similarity, /predict, /tokenize, /decode (TEI); GET /v1/models,
/info.  These require an API key if one is set.  Without a key: GET / (web page), /docs, /health,
/ping, /metrics.  Clients cannot read files and can use only the models named here.  The server
speaks plain HTTP: put a TLS proxy in front of it on untrusted networks.

SIGINT or SIGTERM: new connections are refused, accepted requests are completed within 30 s.")]
pub struct ServeArgs {
    /// Model directory, or owner/name of a hub model; may be repeated.  The first model serves
    /// requests that name none.  The environment variable is a comma-separated list, unless the
    /// whole value is an existing path [default: the shipped jinabert-mini-en].
    #[arg(
        long,
        alias = "model-id",
        value_name = "MODEL",
        env = "JINABERT_MODEL",
        action = ArgAction::Append
    )]
    pub model: Vec<PathBuf>,
    /// Model name for clients, in the order of --model; the environment variable is a
    /// comma-separated list [default: the model's own name].
    #[arg(long, value_name = "NAME", env = "JINABERT_SERVED_MODEL_NAME")]
    pub served_model_name: Vec<String>,
    /// Branch, tag or commit of hub models [default: main].
    #[arg(long, value_name = "REVISION", env = "JINABERT_REVISION")]
    pub revision: Option<Revision>,
    /// Cache directory for hub models [default: $HF_HUB_CACHE, $HF_HOME/hub, or
    /// huggingface/hub in the user's cache directory].
    #[arg(long, value_name = "DIR", env = "JINABERT_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Address to listen on; 0.0.0.0 for all interfaces.
    #[arg(
        long,
        alias = "hostname",
        value_name = "HOST",
        env = "JINABERT_HOST",
        default_value = "127.0.0.1"
    )]
    pub host: String,
    /// Port to listen on; 0 for any free port.
    #[arg(short, long, env = "JINABERT_PORT", default_value_t = PORT, value_parser = port)]
    pub port: u16,
    /// URL path prefix behind a proxy that keeps it: /emb for /emb/v1/embeddings.  Paths without
    /// the prefix are served too, for proxies that remove it.
    #[arg(
        long,
        value_name = "PATH",
        env = "JINABERT_BASE_PATH",
        default_value = "",
        hide_default_value = true
    )]
    pub base_path: String,
    /// API key that clients must send as `Authorization: Bearer KEY`; may be repeated or
    /// comma-separated.  The environment variable is not visible in the process list.
    #[arg(long, value_name = "KEY", env = "JINABERT_API_KEY", hide_env_values = true,
        action = ArgAction::Append, value_delimiter = ',')]
    pub api_key: Vec<String>,
    /// Allowed CORS origin, `*` for all; may be repeated [default: none].
    #[arg(long, value_name = "ORIGIN", env = "JINABERT_CORS_ALLOW_ORIGIN", action = ArgAction::Append,
        value_delimiter = ',')]
    pub cors_allow_origin: Vec<String>,
    /// Maximum requests in progress or waiting for a batch; further ones get status 429.
    #[arg(long, value_name = "N", env = "JINABERT_MAX_CONCURRENT_REQUESTS", default_value_t = 512,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_concurrent_requests: u32,
    /// Maximum texts per request.
    #[arg(long, value_name = "N", env = "JINABERT_MAX_CLIENT_BATCH_SIZE", default_value_t = 2048,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_client_batch_size: u32,
    /// Maximum tokens per batch [default: up to 16384 on a GPU, depending on its speed; 2048 on the
    /// CPU].
    #[arg(long, value_name = "N", env = "JINABERT_MAX_BATCH_TOKENS")]
    pub max_batch_tokens: Option<usize>,
    /// Maximum bytes of a request body.
    #[arg(long, value_name = "BYTES", env = "JINABERT_PAYLOAD_LIMIT", default_value_t = 32 << 20,
        value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    pub payload_limit: u32,
    /// Maximum open connections; further ones wait to be accepted.
    #[arg(long, value_name = "N", env = "JINABERT_MAX_CONNECTIONS", default_value_t = 4096,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,
    /// Truncate texts over the maximum length unless a request says otherwise; if false, they are
    /// refused.
    #[arg(
        long,
        value_name = "BOOL",
        env = "JINABERT_AUTO_TRUNCATE",
        default_value_t = true,
        num_args = 0..=1,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        action = ArgAction::Set
    )]
    pub auto_truncate: bool,
    /// Accept token ids without checking that the model's tokenizer could have produced them.
    #[arg(long, env = "JINABERT_TRUST_TOKEN_IDS", value_parser = BoolishValueParser::new())]
    pub trust_token_ids: bool,
    /// Task of texts for which a request names none, for models with LoRA adapters such as
    /// jina-embeddings-v3 [default: no adapter].
    #[arg(long, value_name = "TASK", env = "JINABERT_DEFAULT_TASK")]
    pub default_task: Option<String>,
    /// Accept any number of `dimensions`, also for models that declare those they were trained for.
    #[arg(long, env = "JINABERT_ANY_DIMENSIONS", value_parser = BoolishValueParser::new())]
    pub any_dimensions: bool,
    /// Rank documents also with embedding models, by MaxSim of their token vectors.
    #[arg(long, env = "JINABERT_MAX_SIM", value_parser = BoolishValueParser::new())]
    pub max_sim: bool,
    /// Name of the model's prompt to put before each text unless a request names another one
    /// (`prompt_name`) [default: default_prompt_name in the model's
    /// config_sentence_transformers.json].
    #[arg(
        long,
        value_name = "NAME",
        env = "JINABERT_DEFAULT_PROMPT_NAME",
        conflicts_with = "default_prompt"
    )]
    pub default_prompt_name: Option<String>,
    /// Prompt text to put before each text unless a request names a prompt; "" for no prompt.
    #[arg(long, value_name = "TEXT", env = "JINABERT_DEFAULT_PROMPT")]
    pub default_prompt: Option<String>,
    /// Maximum text length in tokens, including special tokens and prompt [default: each model's
    /// own limit].
    #[arg(long, alias = "max-seq-length", value_name = "N", env = "JINABERT_MAX_LENGTH")]
    pub max_length: Option<usize>,
    /// Device for all models: auto (the faster of a hardware GPU and the CPU), cpu, vulkan, metal,
    /// dx12, gl, or an index from `jinabert devices`.
    #[arg(long, value_name = "DEVICE", default_value = "auto", env = "JINABERT_DEVICE")]
    pub device: Device,
    /// Preference of `auto`: `low` excludes discrete GPUs, `high` maximises throughput.
    #[arg(long, value_enum, value_name = "LEVEL", env = "JINABERT_POWER")]
    pub power: Option<Power>,
    /// Storage type of weights and activations on the device; arithmetic is always f32.
    #[arg(long, value_enum, env = "JINABERT_DTYPE", default_value_t = Dtype::Float32)]
    pub dtype: Dtype,
    /// Kernel tier, as in `jinabert embed`.
    #[arg(long, value_name = "TIER", env = "JINABERT_TIER")]
    pub tier: Option<String>,
    /// Return bit-identical vectors for a text in every batch, instead of equal up to rounding.
    #[arg(long, env = "JINABERT_DETERMINISTIC", value_parser = BoolishValueParser::new())]
    pub deterministic: bool,
    /// Write the log as lines of JSON.
    #[arg(long, env = "JINABERT_JSON_OUTPUT", value_parser = BoolishValueParser::new())]
    pub json_output: bool,
    /// Base URL of an OpenTelemetry collector that receives a span per request, as OTLP over HTTP;
    /// usually http://127.0.0.1:4318.
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "URL", env = "JINABERT_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
}

impl ServeArgs {
    /// Splits comma-separated lists from environment variables; flags are used unchanged, since
    /// paths and names may contain commas.
    pub fn split_lists(&mut self, matches: &ArgMatches) {
        let is_from_variable = |id| matches.value_source(id) == Some(ValueSource::EnvVariable);
        if is_from_variable("model") {
            self.model = self.model.iter().flat_map(|value| models(value)).collect();
        }
        if is_from_variable("served_model_name") {
            self.served_model_name =
                self.served_model_name.iter().flat_map(|names| parts(names)).collect();
        }
    }
}

/// Models in a list, unless the whole value is an existing path.
fn models(value: &Path) -> Vec<PathBuf> {
    match value.to_str() {
        Some(text) if !value.exists() => parts(text).into_iter().map(PathBuf::from).collect(),
        _ => vec![value.to_owned()],
    }
}

/// Splits a text at commas; an empty text gives one empty part.
fn parts(text: &str) -> Vec<String> {
    text.split(',').map(|part| part.trim().to_owned()).collect()
}
