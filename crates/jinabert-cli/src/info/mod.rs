//! `jinabert info`

mod describe;

use crate::{error::CliError, options::Source, source};
use describe::{TokenizerFacts, licence};
use jinabert::{
    Files, Task,
    device::cpu_caps,
    kernels::alibi,
    model::{HeadKind, ModelInfo, Positions, SentenceTransformersConfig},
};
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    path::Path,
};

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

/// Tokens of the batch that the memory figure is for: the CPU's batch size.
const BATCH: u64 = 2048;

/// Prints the description of a model.
pub fn run(args: &Info, quiet: bool) -> Result<(), CliError> {
    let dir = source::directory(&args.source, quiet)?;
    let files = Files::directory(&dir);
    let info = ModelInfo::open(files.clone())?;
    let facts = Facts {
        name: source::name(&args.source, &dir),
        tokenizer: TokenizerFacts::read(&dir, &files)?,
        declared: SentenceTransformersConfig::open(&files)?,
        licence: licence(&dir, &files),
        card: dir.join("README.md").exists(),
        info,
    };
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", facts.json())?;
    } else {
        out.write_all(facts.text().as_bytes())?;
    }
    Ok(out.flush()?)
}

/// Description of a model.
struct Facts {
    name: String,
    info: ModelInfo,
    tokenizer: Option<TokenizerFacts>,
    declared: SentenceTransformersConfig,
    licence: Option<String>,
    /// A README.md exists.
    card: bool,
}

impl Facts {
    fn json(&self) -> Value {
        let ModelInfo { config, architecture, prefix, head, files, tensors, adapters, .. } =
            &self.info;
        let ignored: Vec<&str> =
            tensors.iter().filter(|t| !t.used).map(|t| t.name.as_str()).collect();
        let positions = architecture.positions;
        let slopes = (positions == Positions::Alibi).then(|| alibi::slopes(config.heads as usize));
        let rope_theta = (positions == Positions::Rotary).then_some(config.rope_theta);
        let files: Vec<Value> = files
            .iter()
            .map(|(path, bytes)| json!({"name": file_name(path), "bytes": bytes}))
            .collect();
        json!({
            "name": self.name,
            "graph": architecture.name,
            "prefix": prefix,
            "task": self.info.task().to_string(),
            "head": head.map(|head| head.to_string()),
            "hidden_size": config.hidden,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "head_width": config.head_width(),
            "intermediate_size": config.intermediate,
            "vocab_size": config.vocabulary,
            "type_vocab_size": config.types,
            "layer_norm_eps": config.eps,
            "max_position_embeddings": config.max_length,
            "max_length": self.limit().0,
            "feed_forward_type": self.info.feed_forward(),
            "position_embedding_type": positions.name(),
            "alibi_slopes": slopes,
            "rope_theta": rope_theta,
            "parameters": self.info.parameters(),
            "dtypes": self.info.dtypes().into_iter()
                .map(|(dtype, elements)| json!({"dtype": dtype, "elements": elements}))
                .collect::<Vec<_>>(),
            "files": files,
            "bytes": self.bytes(),
            "tensors_used": tensors.len() - ignored.len(),
            "tensors_ignored": ignored,
            "tokenizer": self.tokenizer.as_ref().map(TokenizerFacts::json),
            "pooling": self.declared.pooling,
            "normalize": self.declared.normalize,
            "modules": self.declared.modules.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "include_prompt": !self.declared.prompt_excluded,
            "prompts": self.declared.prompts,
            "tasks": adapters.iter()
                .map(|info| json!({"task": info.task, "instruction": info.instruction}))
                .collect::<Vec<_>>(),
            "matryoshka_dimensions": config.matryoshka,
            "truncate_dim": config.truncate_dim,
            "default_prompt_name": self.declared.default_prompt,
            "license": self.licence,
            "cpu_weight_bytes": self.info.weight_bytes(&cpu_caps()),
            "cpu_batch_tokens": BATCH,
            "cpu_batch_bytes": self.info.batch_bytes(BATCH),
        })
    }

    fn text(&self) -> String {
        let mut rows = vec![("model", self.name.clone())];
        rows.extend(self.network_rows());
        rows.extend(self.file_rows());
        match &self.tokenizer {
            None => rows.push(("tokenizer", "none: only token ids can be embedded".to_owned())),
            Some(tokenizer) => rows.extend(tokenizer.rows()),
        }
        rows.extend(self.declared_rows());
        rows.push((
            "CPU memory",
            format!(
                "{} of weights, {} for a batch of {BATCH} tokens",
                size(self.info.weight_bytes(&cpu_caps())),
                size(self.info.batch_bytes(BATCH))
            ),
        ));
        rows.into_iter().map(|(key, value)| format!("{key:<12} {value}\n")).collect()
    }

    /// Graph, task and sizes.
    fn network_rows(&self) -> Vec<(&'static str, String)> {
        let ModelInfo { config, architecture, prefix, head, .. } = &self.info;
        let below = if prefix.is_empty() { String::new() } else { format!(", below `{prefix}`") };
        let head_name = head.map_or("an encoder without a head".to_owned(), |h| h.to_string());
        let task = match (head, self.info.labels()) {
            (Some(HeadKind::Classifier), labels) if labels != 1 => {
                format!("serve (POST /predict): a classifier of {labels} labels")
            }
            (Some(HeadKind::MaskedLm), _) => format!("fill-mask and embed: {head_name}"),
            _ => format!("{}: {head_name}", self.info.task()),
        };
        let jinabert::model::Config { hidden, layers, heads, intermediate, vocabulary, .. } =
            config;
        let width = config.head_width();
        let sizes = format!(
            "{layers} layers, {hidden} wide, {heads} heads of {width}, MLP {intermediate}, \
             {vocabulary} × {hidden} word embeddings, {} token types",
            config.types
        );
        let positions = match architecture.positions {
            Positions::Rotary => ("rotary", format!("θ = {}", config.rope_theta)),
            Positions::Absolute => ("positions", format!("a table of {}", config.max_length)),
            Positions::Relative => (
                "relative",
                format!(
                    "{} buckets of distances up to {}",
                    config.buckets.count,
                    config.buckets.reach()
                ),
            ),
            _ => {
                let slopes = alibi::slopes(*heads as usize);
                let listed: Vec<String> =
                    slopes.iter().map(|slope| format!("{slope:.4}")).collect();
                ("ALiBi", format!("{heads} slopes: {}", listed.join(" ")))
            }
        };
        let (limit, key) = self.limit();
        vec![
            ("graph", format!("{}{below}", architecture.name)),
            ("for", task),
            ("sizes", sizes),
            ("MLP", self.info.feed_forward().to_owned()),
            positions,
            ("eps", format!("{:e}", config.eps)),
            ("max length", format!("{limit} ({key})")),
        ]
    }

    /// Parameters, files and tensors.
    fn file_rows(&self) -> Vec<(&'static str, String)> {
        let ModelInfo { files, tensors, .. } = &self.info;
        let dtypes = self.info.dtypes();
        let dtypes = dtypes.iter().map(|(dtype, n)| format!("{dtype} ({})", grouped(*n)));
        let mut rows = vec![
            ("parameters", grouped(self.info.parameters())),
            ("stored as", dtypes.collect::<Vec<_>>().join(", ")),
        ];
        for (path, bytes) in files {
            rows.push(("file", format!("{}, {}", file_name(path), size(*bytes))));
        }
        let (used, ignored): (Vec<_>, Vec<_>) = tensors.iter().partition(|t| t.used);
        rows.push(("tensors", format!("{} used, {} ignored", used.len(), ignored.len())));
        if !ignored.is_empty() {
            let names = ignored.iter().map(|tensor| tensor.name.as_str());
            rows.push(("ignored", jinabert::model::kinds(names)));
        }
        rows
    }

    /// Pooling, prompts and licence.
    fn declared_rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![("pooling", self.declared.to_string())];
        if !self.declared.prompts.is_empty() {
            let prompts = self.declared.prompts.iter();
            let prompts = prompts.map(|(name, text)| format!("{name} `{}`", text.escape_debug()));
            let default = self.declared.default_prompt.as_deref().unwrap_or("none");
            let prompts = prompts.collect::<Vec<_>>().join(", ");
            rows.push(("prompts", format!("{prompts}; default: {default}")));
        }
        let ModelInfo { adapters, config, .. } = &self.info;
        if !adapters.is_empty() {
            let tasks = adapters.iter().map(|info| match &*info.instruction {
                "" => info.task.clone(),
                text => format!("{} `{}`", info.task, text.escape_debug()),
            });
            rows.push(("tasks", tasks.collect::<Vec<_>>().join(", ")));
        }
        if !config.matryoshka.is_empty() {
            let dimensions: Vec<String> = config.matryoshka.iter().map(usize::to_string).collect();
            rows.push(("dimensions", format!("trained for {}", dimensions.join(", "))));
        }
        // The directory may be an incomplete copy of a repository.
        let silent = if self.card { "not declared" } else { "unknown: no README.md here" };
        rows.push(("licence", self.licence.clone().unwrap_or(silent.to_owned())));
        rows
    }

    /// Maximum text length in tokens, and the key that sets it: the keys of sentence-transformers
    /// apply to embeddings only.
    fn limit(&self) -> (usize, &'static str) {
        match self.info.task() {
            Task::Rerank | Task::MultiVector => {
                SentenceTransformersConfig::default().limit(&self.info.config)
            }
            _ => self.declared.limit(&self.info.config),
        }
    }

    fn bytes(&self) -> u64 {
        self.info.files.iter().map(|(_, bytes)| bytes).sum()
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Formats a number with a space between groups of three digits.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.char_indices() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// Formats a size in the unit that leaves one to three digits before the point.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 32_690_688].map(grouped), ["0", "999", "1 000", "32 690 688"]);
        assert_eq!([999, 1000, 16_735_488].map(size), ["999 B", "1.0 kB", "16.7 MB"]);
        assert_eq!(size(1_024_008_192), "1.02 GB");
    }
}
