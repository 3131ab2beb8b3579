//! `jinabert pull`

use crate::{error::CliError, options::HubArgs, progress::DownloadBar};
use jinabert::hub::{Hub, Reference};
use std::io::{self, Write};

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

/// Downloads a model and prints its directory.
pub fn run(args: &Pull, quiet: bool) -> Result<(), CliError> {
    let (id, revision) = args.model.clone().with(args.hub.revision.as_ref())?;
    let bar = DownloadBar::new(quiet);
    let pulled = Hub::from_env(args.hub.cache_dir.as_deref())
        .and_then(|hub| hub.pull(&id, &revision, &|progress| bar.show(progress)));
    bar.finish();
    let mut out = io::stdout().lock();
    writeln!(out, "{}", pulled?.display())?;
    Ok(out.flush()?)
}
