//! `jinabert serve`: what may be typed.

use super::args::Dtype;
use crate::{Device, hub::Revision};
use clap::{ArgAction, ArgMatches, builder::BoolishValueParser, parser::ValueSource};
use std::path::{Path, PathBuf};

const PORT: u16 = 8080;

/// A port; the link that Kubernetes sets for a service of this name, `tcp://…`, means none.
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

What is exposed: POST /v1/embeddings and /embeddings (OpenAI, Jina), /rerank, /v1/rerank, /v2/rerank
(TEI, Jina, Cohere), /embed, /embed_all, /similarity, /predict, /tokenize, /decode (TEI); GET
/v1/models, /info.  These want a key if there is one.  Without: GET / (a page for a browser), /docs,
/health, /ping, /metrics.  Clients read no files and choose no model but those named here; the
connection is plain HTTP, so put a proxy with TLS before it where others listen.

SIGINT or SIGTERM: no new connections, what was accepted is finished within 30 s.")]
pub struct Serve {
    /// Model directory, or owner/name of a model at the hub; again for one more.  The first is
    /// meant where a request names none.  In the environment variable commas part several, unless
    /// all of it is one path [default: the shipped jinabert-mini-en].
    #[arg(long, value_name = "MODEL", env = "JINABERT_MODEL", action = ArgAction::Append)]
    pub model: Vec<PathBuf>,
    /// What clients call a model, in the order of --model; in the environment variable parted by
    /// commas [default: its own name].
    #[arg(long, value_name = "NAME", env = "JINABERT_SERVED_MODEL_NAME")]
    pub served_model_name: Vec<String>,
    /// Branch, tag or commit of models at the hub [default: main].
    #[arg(long, value_name = "REVISION", env = "JINABERT_REVISION")]
    pub revision: Option<Revision>,
    /// Where models of the hub are kept [default: $HF_HUB_CACHE, $HF_HOME/hub, or
    /// huggingface/hub in the user's cache directory].
    #[arg(long, value_name = "DIR", env = "JINABERT_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// The address to listen on; 0.0.0.0 for all of this machine's.
    #[arg(
        long,
        alias = "hostname",
        value_name = "HOST",
        env = "JINABERT_HOST",
        default_value = "127.0.0.1"
    )]
    pub host: String,
    /// The port; 0 for one that is free.
    #[arg(short, long, env = "JINABERT_PORT", default_value_t = PORT, value_parser = port)]
    pub port: u16,
    /// A key that clients must show as `Authorization: Bearer KEY`; again, or separated by commas,
    /// for more.  The environment variable does not show in the list of processes.
    #[arg(long, value_name = "KEY", env = "JINABERT_API_KEY", hide_env_values = true,
        action = ArgAction::Append, value_delimiter = ',')]
    pub api_key: Vec<String>,
    /// Pages of this origin may ask, `*` for all; again for more [default: none].
    #[arg(long, value_name = "ORIGIN", env = "JINABERT_CORS_ALLOW_ORIGIN", action = ArgAction::Append,
        value_delimiter = ',')]
    pub cors_allow_origin: Vec<String>,
    /// Requests that are worked on or wait for a batch; one more is answered 429.
    #[arg(long, value_name = "N", env = "JINABERT_MAX_CONCURRENT_REQUESTS", default_value_t = 512,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_concurrent_requests: u32,
    /// Texts of one request.
    #[arg(long, value_name = "N", env = "JINABERT_MAX_CLIENT_BATCH_SIZE", default_value_t = 2048,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_client_batch_size: u32,
    /// Tokens in one batch [default: 16384 on a GPU, 2048 on the CPU].
    #[arg(long, value_name = "N", env = "JINABERT_MAX_BATCH_TOKENS")]
    pub max_batch_tokens: Option<usize>,
    /// Bytes of one request's body.
    #[arg(long, value_name = "BYTES", env = "JINABERT_PAYLOAD_LIMIT", default_value_t = 32 << 20,
        value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    pub payload_limit: u32,
    /// Open connections; others wait to be accepted.
    #[arg(long, value_name = "N", env = "JINABERT_MAX_CONNECTIONS", default_value_t = 4096,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,
    /// Whether texts over the limit are cut unless a request says otherwise; if not, they are
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
    /// Take token ids without a look at whether the model's tokenizer could have made them.
    #[arg(long, env = "JINABERT_TRUST_TOKEN_IDS", value_parser = BoolishValueParser::new())]
    pub trust_token_ids: bool,
    /// Longest text in tokens, special tokens included [default: the model's
    /// max_position_embeddings].
    #[arg(long, value_name = "N", env = "JINABERT_MAX_LENGTH")]
    pub max_length: Option<usize>,
    /// auto (a hardware GPU, otherwise the CPU), cpu, vulkan, metal, dx12, gl, or an index from
    /// `jinabert devices`; for all models.
    #[arg(long, value_name = "DEVICE", default_value = "auto", env = "JINABERT_DEVICE")]
    pub device: Device,
    /// How the device stores weights and activations; it computes in f32 always.
    #[arg(long, value_enum, env = "JINABERT_DTYPE", default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Which kernels, as for `jinabert embed`.
    #[arg(long, value_name = "TIER", env = "JINABERT_TIER")]
    pub tier: Option<String>,
    /// Give a text the same bits whatever else is in its batch, not only the same to rounding.
    #[arg(long, env = "JINABERT_DETERMINISTIC", value_parser = BoolishValueParser::new())]
    pub deterministic: bool,
    /// Say what happens in lines of JSON.
    #[arg(long, env = "JINABERT_JSON_OUTPUT", value_parser = BoolishValueParser::new())]
    pub json_output: bool,
    /// Send a span for each request to this OpenTelemetry collector, as OTLP over HTTP: its base
    /// URL, http://127.0.0.1:4318 for most.
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "URL", env = "JINABERT_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
}

impl Serve {
    /// Parts the lists that an environment variable holds at its commas; flags are taken as they
    /// are, for paths and names may have commas.
    pub fn part_lists(&mut self, matches: &ArgMatches) {
        let named = |id| matches.value_source(id) == Some(ValueSource::EnvVariable);
        if named("model") {
            self.model = self.model.iter().flat_map(|value| models(value)).collect();
        }
        if named("served_model_name") {
            self.served_model_name =
                self.served_model_name.iter().flat_map(|names| parts(names)).collect();
        }
    }
}

fn models(value: &Path) -> Vec<PathBuf> {
    match value.to_str() {
        Some(text) if !value.exists() => parts(text).into_iter().map(PathBuf::from).collect(),
        _ => vec![value.to_owned()],
    }
}

/// What stands between commas; what has none is one whole, even if it is empty.
fn parts(text: &str) -> Vec<String> {
    text.split(',').map(|part| part.trim().to_owned()).collect()
}
