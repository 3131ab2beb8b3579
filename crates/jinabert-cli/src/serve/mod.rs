//! `jinabert serve`

mod args;

pub use args::ServeArgs;

use crate::{
    error::CliError,
    options::{HubArgs, Source},
    source,
};
use axum::http::HeaderValue;
use jinabert::{Error, Options, Prompt};
use jinabert_server::{Limits, MinRate, ModelSource};
use std::net::{SocketAddr, ToSocketAddrs};

/// Maximum bytes of all bodies in progress, and maximum numbers in a response with some for every
/// token: enough for a text of 8,192 tokens with the largest model.
const PAYLOADS: usize = 512 << 20;
const ANSWER: usize = 16 << 20;

/// Serves until the process is asked to end.
pub fn run(args: ServeArgs, quiet: bool) -> Result<(), CliError> {
    let models = models(&args, quiet)?;
    let embedding = options(&args)?;
    let addresses: Vec<SocketAddr> = (&args.host[..], args.port)
        .to_socket_addrs()
        .map_err(|e| CliError::Usage(format!("--host {}: {e}", args.host)))?
        .collect();
    let origins = args.cors_allow_origin.iter().map(|origin| parse_origin(origin));
    let keys = keys(&args)?;
    let base = base_path(&args.base_path)?;
    let open = addresses.iter().any(|address| !address.ip().is_loopback());
    if open && keys.is_empty() {
        tracing::warn!(
            "warning: {} accepts connections from other machines, and there is no --api-key: anyone \
             who can connect to the port can use the server",
            args.host
        );
    }
    let config = jinabert_server::ServerConfig {
        models,
        embedding,
        addresses,
        origins: origins.collect::<Result<_, _>>()?,
        keys,
        limits: Limits {
            concurrent_requests: args.max_concurrent_requests as usize,
            client_batch: args.max_client_batch_size as usize,
            payload: args.payload_limit as usize,
            payloads: PAYLOADS.max(2 * args.payload_limit as usize),
            connections: args.max_connections as usize,
            answer: ANSWER,
            min_rate: MinRate::default(),
        },
        auto_truncate: args.auto_truncate,
        trust_ids: args.trust_token_ids,
        base,
    };
    jinabert_server::serve(config, |address| {
        tracing::info!("listening on http://{address}");
    })
    .map_err(|failure| match failure {
        jinabert_server::ServerError::Engine(error) => CliError::Engine(error),
        other => CliError::Serve(other),
    })
}

/// Parses an allowed origin, or `*`.
fn parse_origin(origin: &str) -> Result<HeaderValue, CliError> {
    let bad = || {
        let what = format!(
            "--cors-allow-origin: expected scheme://host[:port] or *, got `{origin}`, which is no \
             origin"
        );
        CliError::Usage(what)
    };
    let host = origin.split_once("://").map(|(_, host)| host);
    let is_bad = |c: char| c == '/' || c.is_whitespace();
    if origin == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains(is_bad)) {
        origin.parse().map_err(|_| bad())
    } else {
        Err(bad())
    }
}

/// API keys without the spaces around them.
fn keys(args: &ServeArgs) -> Result<Vec<String>, CliError> {
    let keys: Vec<String> = args.api_key.iter().map(|key| key.trim().to_owned()).collect();
    if keys.iter().any(String::is_empty) {
        let what = "--api-key (JINABERT_API_KEY): expected a key, got an empty key";
        return Err(CliError::Usage(what.to_owned()));
    }
    if keys.iter().any(|key| key.contains(char::is_control)) {
        let what = "--api-key: expected a key that a header can carry, got control characters";
        return Err(CliError::Usage(what.to_owned()));
    }
    Ok(keys)
}

/// Path prefix with a slash at its start and none at its end; empty for no prefix.
fn base_path(path: &str) -> Result<String, CliError> {
    let base = path.trim_matches('/');
    if !base.chars().all(|c| c.is_ascii_alphanumeric() || "-._~/".contains(c)) {
        let what = format!("--base-path: expected a path such as /emb, got `{path}`");
        return Err(CliError::Usage(what));
    }
    Ok(if base.is_empty() { String::new() } else { format!("/{base}") })
}

/// Directories of the models, and their names for clients.
fn models(args: &ServeArgs, quiet: bool) -> Result<Vec<ModelSource>, CliError> {
    let given = if args.model.is_empty() {
        vec![None]
    } else {
        args.model.iter().cloned().map(Some).collect()
    };
    let names = &args.served_model_name;
    if names.len() > given.len() {
        return Err(CliError::Usage(format!(
            "--served-model-name: expected at most {}, one for each model, got {} names",
            given.len(),
            names.len()
        )));
    }
    let mut models: Vec<ModelSource> = Vec::new();
    for (n, model) in given.into_iter().enumerate() {
        let hub = HubArgs { revision: args.revision.clone(), cache_dir: args.cache_dir.clone() };
        let source = Source { model, hub };
        let dir = source::directory(&source, quiet)?;
        let name = match names.get(n) {
            Some(name) => name.clone(),
            // The whole name at the hub, since clients use it.
            None => source::hub_name(&source).unwrap_or_else(|| source::name(&source, &dir)),
        };
        if models.iter().any(|other| other.name.eq_ignore_ascii_case(&name)) {
            return Err(CliError::Usage(format!(
                "two models are called `{name}`: use --served-model-name to give them different names"
            )));
        }
        models.push(ModelSource { name, dir });
    }
    Ok(models)
}

/// Options of the library.
fn options(args: &ServeArgs) -> Result<Options, Error> {
    Ok(Options {
        tier: args.tier.as_deref().map(|name| args.device.tier(name)).transpose()?,
        device: args.device,
        power: args.power.map_or_else(Default::default, Into::into),
        dtype: args.dtype.into(),
        max_length: args.max_length,
        any_dimensions: args.any_dimensions,
        adapter: args.default_task.clone(),
        max_sim: args.max_sim,
        prompt: match (&args.default_prompt_name, &args.default_prompt) {
            (Some(name), _) => Prompt::Named(name.clone()),
            (None, Some(text)) => Prompt::Text(text.clone()),
            (None, None) => Prompt::Auto,
        },
        batch_tokens: args.max_batch_tokens,
        deterministic: args.deterministic,
        ..Options::default()
    })
}
