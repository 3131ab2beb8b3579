//! `jinabert serve`

use crate::{
    CliError,
    args::{HubArgs, Source},
    serve_args::ServeArgs,
    source,
};
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
    let origins = args.cors_allow_origin.iter().map(|origin| {
        let bad = || {
            let message =
                format!("--cors-allow-origin `{origin}` is no origin: scheme://host[:port]");
            CliError::Usage(message)
        };
        let host = origin.split_once("://").map(|(_, host)| host);
        let odd = |c: char| c == '/' || c.is_whitespace();
        match origin == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains(odd)) {
            true => origin.parse().map_err(|_| bad()),
            false => Err(bad()),
        }
    });
    let keys: Vec<String> = args.api_key.iter().map(|key| key.trim().to_owned()).collect();
    if keys.iter().any(String::is_empty) {
        return Err(CliError::Usage(
            "--api-key (JINABERT_API_KEY): an empty key opens no door".to_owned(),
        ));
    }
    if keys.iter().any(|key| key.contains(char::is_control)) {
        let what = "--api-key: expected a key that a header can carry, got control characters";
        return Err(CliError::Usage(what.to_owned()));
    }
    let base = args.base_path.trim_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    if !base.chars().all(plain) {
        let path = &args.base_path;
        let what = format!("--base-path: expected a path such as /emb, got `{path}`");
        return Err(CliError::Usage(what));
    }
    let base = if base.is_empty() { String::new() } else { format!("/{base}") };
    let open = addresses.iter().any(|address| !address.ip().is_loopback());
    if open && keys.is_empty() {
        tracing::warn!(
            "warning: {} is not this machine alone, and no --api-key is set: whoever reaches the port may \
             use it",
            args.host
        );
    }
    let serve = jinabert_server::ServerConfig {
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
            pace: MinRate::default(),
        },
        auto_truncate: args.auto_truncate,
        trust_ids: args.trust_token_ids,
        base,
    };
    jinabert_server::serve(serve, |address| {
        tracing::info!("listening on http://{address}");
    })
    .map_err(|failure| match failure {
        jinabert_server::ServerError::Engine(error) => CliError::Engine(error),
        other => CliError::Serve(other),
    })
}

fn models(args: &ServeArgs, quiet: bool) -> Result<Vec<ModelSource>, CliError> {
    let given = match args.model.is_empty() {
        true => vec![None],
        false => args.model.iter().cloned().map(Some).collect(),
    };
    let (count, names) = (given.len(), &args.served_model_name);
    if names.len() > count {
        return Err(CliError::Usage(format!("{} names for {count} models", names.len())));
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
                "two models are called `{name}`: --served-model-name tells them apart"
            )));
        }
        models.push(ModelSource { name, dir });
    }
    Ok(models)
}

fn options(args: &ServeArgs) -> Result<Options, Error> {
    Ok(Options {
        tier: args.tier.as_deref().map(|name| args.device.tier(name)).transpose()?,
        device: args.device,
        power: args.power.map_or_else(Default::default, Into::into),
        dtype: args.dtype.into(),
        max_length: args.max_length,
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
