//! Names of tensors: those of llama.cpp's `gguf-py/gguf/tensor_mapping.py`, and transformers'.

use super::header::{Header, Value};
use std::collections::BTreeMap;

/// Key of the architecture.
const ARCHITECTURE: &str = "general.architecture";

/// Graph of the file, as transformers names its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Graph {
    /// jina-bert-implementation.
    Jina,
    /// jina-bert-implementation with `feed_forward_type: "original"`.
    JinaOriginal,
    /// jina-bert-v2-qk-post-norm.
    Code,
    /// jina-bert-v2-qk-post-norm without a gate.
    CodeOriginal,
    /// xlm-roberta-flash-implementation.
    Rotary,
    /// transformers' BERT.
    Bert,
}

/// Parts of a layer's names in GGUF and in transformers.
const SHARED: &[(&str, &str)] = &[
    ("attn_q", "attention.self.query"),
    ("attn_k", "attention.self.key"),
    ("attn_v", "attention.self.value"),
    ("attn_output", "attention.output.dense"),
    ("attn_output_norm", "attention.output.LayerNorm"),
];

const JINA: &[(&str, &str)] = &[
    ("ffn_up", "mlp.gated_layers"),
    ("ffn_down", "mlp.wo"),
    ("layer_output_norm", "mlp.layernorm"),
];

const ORIGINAL: &[(&str, &str)] = &[
    ("ffn_up", "intermediate.dense"),
    ("ffn_down", "output.dense"),
    ("layer_output_norm", "output.LayerNorm"),
];

const CODE: &[(&str, &str)] = &[
    ("attn_q_norm", "attention.self.layer_norm_q"),
    ("attn_k_norm", "attention.self.layer_norm_k"),
    ("attn_norm_2", "layer_norm_1"),
    ("ffn_up", "mlp.up_gated_layer"),
    ("ffn_down", "mlp.down_layer"),
    ("layer_output_norm", "layer_norm_2"),
];

const ROTARY: &[(&str, &str)] = &[
    ("attn_qkv", "mixer.Wqkv"),
    ("attn_output", "mixer.out_proj"),
    ("attn_output_norm", "norm1"),
    ("ffn_up", "mlp.fc1"),
    ("ffn_down", "mlp.fc2"),
    ("layer_output_norm", "norm2"),
];

impl Graph {
    /// # Errors
    /// Description of an architecture that is not supported.
    fn of(header: &Header) -> Result<Self, String> {
        let architecture = header.text(ARCHITECTURE)?;
        let has = |name: &str| header.tensors.contains_key(name);
        let code = has("blk.0.attn_q_norm.weight");
        let width = header.size(&format!("{architecture}.feed_forward_length"))?;
        let rows = header.tensors.get("blk.0.ffn_up.weight").map_or(0, |entry| entry.shape[0]);
        let gated = has("blk.0.ffn_gate.weight") || rows as u64 == 2 * u64::from(width);
        match architecture {
            "jina-bert-v2" => Ok(match (code, gated) {
                (false, true) => Self::Jina,
                (false, false) => Self::JinaOriginal,
                (true, true) => Self::Code,
                (true, false) => Self::CodeOriginal,
            }),
            "jina-bert-v3" => Ok(Self::Rotary),
            "bert" => Ok(Self::Bert),
            other => Err(format!(
                "its architecture is `{}`; supported: jina-bert-v2, jina-bert-v3, bert",
                other.escape_debug()
            )),
        }
    }

    /// Name of a layer's part in transformers.
    fn part(self, part: &str) -> Option<String> {
        let tables: &[&[(&str, &str)]] = match self {
            Self::Jina => &[JINA, SHARED],
            Self::JinaOriginal | Self::Bert => &[ORIGINAL, SHARED],
            Self::Code | Self::CodeOriginal => &[CODE, SHARED],
            Self::Rotary => &[ROTARY],
        };
        let found = tables.iter().flat_map(|table| table.iter()).find(|(name, _)| *name == part);
        match (self, found?.1) {
            (Self::CodeOriginal, "mlp.up_gated_layer") => Some("mlp.up_layer".to_owned()),
            (_, name) => Some(name.to_owned()),
        }
    }

    /// Name of a tensor in transformers; other tensors keep theirs, and are then unknown.
    fn name(self, name: &str) -> String {
        let (layers, norm) = match self {
            Self::Rotary => ("encoder.layers", "emb_ln"),
            _ => ("encoder.layer", "embeddings.LayerNorm"),
        };
        let (stem, end) = name.rsplit_once('.').unwrap_or((name, ""));
        let known = match stem {
            "token_embd" => Some("embeddings.word_embeddings".to_owned()),
            "token_types" => Some("embeddings.token_type_embeddings".to_owned()),
            "position_embd" => Some("embeddings.position_embeddings".to_owned()),
            "token_embd_norm" => Some(norm.to_owned()),
            _ => stem.strip_prefix("blk.").and_then(|rest| {
                let (layer, part) = rest.split_once('.')?;
                Some(format!("{layers}.{layer}.{}", self.part(part)?))
            }),
        };
        known.map_or_else(|| name.to_owned(), |stem| format!("{stem}.{end}"))
    }
}

/// Tensors of a file by transformers' names: each one, or several below each other.
pub(super) struct Names {
    pub(super) graph: Graph,
    pub(super) parts: BTreeMap<String, Vec<String>>,
}

impl Names {
    /// # Errors
    /// Description of an architecture that is not supported, or of names that clash.
    pub(super) fn of(header: &Header) -> Result<Self, String> {
        let graph = Graph::of(header)?;
        let mut parts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for stored in header.tensors.keys() {
            // Older files have the two halves of a gated MLP apart.
            let gate = stored.contains(".ffn_gate.");
            let name = graph.name(&stored.replace(".ffn_gate.", ".ffn_up."));
            let found = parts.entry(name).or_default();
            // jina-bert-implementation has the gate first, the code model last.
            let first = gate == (graph == Graph::Jina);
            found.insert(if first { 0 } else { found.len() }, stored.clone());
        }
        for (name, stored) in &parts {
            if stored.len() > 2
                || stored.len() == 2 && !stored.iter().any(|s| s.contains("ffn_gate"))
            {
                return Err(format!("tensor `{name}` is there twice, as {}", stored.join(", ")));
            }
        }
        Ok(Self { graph, parts })
    }
}

impl Header {
    /// A string.
    ///
    /// # Errors
    /// Description of a value that is missing or of another type.
    pub(super) fn text(&self, key: &str) -> Result<&str, String> {
        match self.metadata.get(key) {
            Some(Value::Text(text)) => Ok(text),
            other => Err(expected(key, "a string", other)),
        }
    }

    /// A number of things, such as layers.
    ///
    /// # Errors
    /// As [`Header::text`].
    pub(super) fn size(&self, key: &str) -> Result<u32, String> {
        let size = match self.metadata.get(key) {
            Some(Value::Integer(n)) => u32::try_from(*n).ok(),
            _ => None,
        };
        size.ok_or_else(|| expected(key, "a number below 2^32", self.metadata.get(key)))
    }

    /// A real number.
    ///
    /// # Errors
    /// As [`Header::text`].
    pub(super) fn real(&self, key: &str) -> Result<f64, String> {
        match self.metadata.get(key) {
            Some(Value::Real(x)) if x.is_finite() => Ok(*x),
            other => Err(expected(key, "a finite number", other)),
        }
    }
}

/// Message for a value that is missing or of another type.
pub(super) fn expected(key: &str, what: &str, found: Option<&Value>) -> String {
    let found = match found {
        None => "none".to_owned(),
        Some(Value::Text(_)) => "a string".to_owned(),
        Some(Value::Texts(list)) => format!("{} strings", list.len()),
        Some(Value::Integers(list)) => format!("{} integers", list.len()),
        Some(Value::Reals(list)) => format!("{} numbers", list.len()),
        Some(Value::Bools(list)) => format!("{} booleans", list.len()),
        Some(Value::Integer(n)) => n.to_string(),
        Some(Value::Real(x)) => x.to_string(),
        Some(Value::Bool(b)) => b.to_string(),
    };
    format!("{key}: expected {what}, got {found}")
}
