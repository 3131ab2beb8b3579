//! Architectures of the family, and the tensor names that identify them.

use super::{config::Config, loader::WORD};
use std::collections::BTreeSet;

/// An architecture in one of its checkpoint layouts.
///
/// Names of products and LayerNorms omit `.weight` and `.bias`; names in a layer follow
/// `{layers}.{i}.`.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Architecture {
    /// Human-readable name.
    pub name: &'static str,
    /// Prefix of the layers.
    pub layers: &'static str,
    /// LayerNorm of the embeddings; in T5, which has none there, of the output.
    pub embed_norm: &'static str,
    /// Queries, keys and values: three products, or one with the three stacked vertically.
    pub qkv: &'static [&'static str],
    /// Product after attention.
    pub proj: &'static str,
    /// LayerNorm after attention.
    pub attention_norm: &'static str,
    /// First product of the MLP; its presence in layer 0 identifies the architecture.
    pub up: &'static str,
    /// Second product of the MLP.
    pub down: &'static str,
    /// LayerNorm after the MLP.
    pub mlp_norm: &'static str,
    /// Type of the first product.
    pub mlp: Mlp,
    /// LayerNorm of a language model's transform.
    pub transform_norm: &'static str,
    /// True if queries and keys are normalised, and the layer's input is added a second time.
    pub qk_norm: bool,
    /// Encoding of positions.
    pub positions: Positions,
    /// True if products and LayerNorms have biases.
    pub biases: bool,
}

/// Encoding of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Positions {
    /// Attention with linear biases.
    Alibi,
    /// Rotary embedding of queries and keys.
    Rotary,
    /// A learned row for each position, added to the embeddings.
    Absolute,
    /// A learned bias of the scores for each head and bucket of distances (T5).
    Relative,
}

impl Positions {
    /// Its `position_embedding_type` in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alibi => "alibi",
            Self::Rotary => "rotary",
            Self::Absolute => "absolute",
            Self::Relative => "relative",
        }
    }
}

/// Operation before the second product of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mlp {
    /// `activation(gate) ⊙ up`, both halves from one product without a bias.
    Gated {
        /// True if the first half is activated.
        gate_first: bool,
    },
    /// `activation(up)`: `feed_forward_type` is `original`.
    Plain {
        /// True if the product has a bias.
        bias: bool,
    },
}

/// jina-bert-implementation: small-en, base-en, de, es, zh, the rerankers, colbert.
const PLAIN: Architecture = Architecture {
    name: "jina-bert",
    layers: "encoder.layer",
    embed_norm: "embeddings.LayerNorm",
    qkv: &["attention.self.query", "attention.self.key", "attention.self.value"],
    proj: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "mlp.gated_layers",
    down: "mlp.wo",
    mlp_norm: "mlp.layernorm",
    mlp: Mlp::Gated { gate_first: true },
    transform_norm: "cls.predictions.transform.LayerNorm",
    qk_norm: false,
    positions: Positions::Alibi,
    biases: true,
};

/// jina-bert-v2-qk-post-norm: base-code.
const CODE: Architecture = Architecture {
    name: "jina-bert-qk-post-norm",
    up: "mlp.up_gated_layer",
    down: "mlp.down_layer",
    mlp_norm: "layer_norm_2",
    mlp: Mlp::Gated { gate_first: false },
    qk_norm: true,
    ..PLAIN
};

/// xlm-roberta-flash-implementation: jina-embeddings-v3, jina-colbert-v2.
const ROBERTA_FLASH: Architecture = Architecture {
    name: "xlm-roberta-flash-rotary",
    layers: "encoder.layers",
    embed_norm: "emb_ln",
    qkv: &["mixer.Wqkv"],
    proj: "mixer.out_proj",
    attention_norm: "norm1",
    up: "mlp.fc1",
    down: "mlp.fc2",
    mlp_norm: "norm2",
    mlp: Mlp::Plain { bias: true },
    positions: Positions::Rotary,
    ..PLAIN
};

/// Every supported architecture.
pub const ARCHITECTURES: &[Architecture] = &[
    PLAIN,
    // Third-party fine-tunes, such as aari1995/German_Semantic_V3b.
    Architecture {
        name: "jina-bert-original",
        up: "intermediate.dense",
        down: "output.dense",
        mlp_norm: "output.LayerNorm",
        mlp: Mlp::Plain { bias: true },
        ..PLAIN
    },
    // jina-bert-flash-implementation: the text tower of jina-clip-v1.  Its convert_v2_weights.py
    // renames and stacks the tensors of PLAIN; the computation is the same.
    Architecture {
        name: "jina-bert-flash",
        layers: "encoder.layers",
        embed_norm: "emb_ln",
        qkv: &["mixer.Wqkv"],
        proj: "mixer.out_proj",
        attention_norm: "norm1",
        mlp_norm: "norm2",
        transform_norm: "cls.predictions.transform.layer_norm",
        ..PLAIN
    },
    CODE,
    Architecture {
        name: "jina-bert-qk-post-norm-original",
        up: "mlp.up_layer",
        mlp: Mlp::Plain { bias: false },
        ..CODE
    },
    ROBERTA_FLASH,
    // jina-reranker-v2.
    Architecture {
        name: "xlm-roberta-flash-absolute",
        positions: Positions::Absolute,
        ..ROBERTA_FLASH
    },
    // transformers' BERT and (XLM-)RoBERTa: all-MiniLM, bge, multilingual-e5.
    Architecture {
        name: "bert",
        up: "intermediate.dense",
        down: "output.dense",
        mlp_norm: "output.LayerNorm",
        mlp: Mlp::Plain { bias: true },
        positions: Positions::Absolute,
        ..PLAIN
    },
    // jina-embedding-{s,b,l}-en-v1.
    Architecture {
        name: "t5-encoder",
        layers: "encoder.block",
        embed_norm: "encoder.final_layer_norm",
        qkv: &["layer.0.SelfAttention.q", "layer.0.SelfAttention.k", "layer.0.SelfAttention.v"],
        proj: "layer.0.SelfAttention.o",
        attention_norm: "layer.0.layer_norm",
        up: "layer.1.DenseReluDense.wi",
        down: "layer.1.DenseReluDense.wo",
        mlp_norm: "layer.1.layer_norm",
        mlp: Mlp::Plain { bias: false },
        positions: Positions::Relative,
        biases: false,
        ..PLAIN
    },
];

impl Architecture {
    /// Name of the tensor that identifies the architecture.
    fn sign(&self) -> String {
        format!("{}.0.{}.weight", self.layers, self.up)
    }

    /// True if the MLP has a gate.
    pub(super) fn gated(&self) -> bool {
        matches!(self.mlp, Mlp::Gated { .. })
    }

    /// Checks that the tensor names agree with `config.json`.
    ///
    /// # Errors
    /// Description of the contradiction.
    pub(super) fn agree(&self, config: &Config) -> Result<(), String> {
        if (self.positions == Positions::Relative) != (config.model_type.as_deref() == Some("t5")) {
            return Err(format!(
                "the tensors are those of `{}`; config.json is {}",
                self.name,
                if self.biases { "a T5's" } else { "no T5's: it has no d_model" }
            ));
        }
        if let Some(gated) = config.gated.filter(|gated| *gated != self.gated()) {
            let says = if gated { "`geglu` or `reglu`" } else { "`original`" };
            return Err(format!(
                "feed_forward_type is {says} in config.json; the tensors are those of `{}`: \
                 `{}.weight` is there",
                self.name, self.up
            ));
        }
        let positions = self.positions.name();
        if let Some(kind) = config.positions.as_deref().filter(|kind| *kind != positions) {
            return Err(format!(
                "position_embedding_type is `{kind}` in config.json; the tensors are those of \
                 `{}`, which has `{positions}`",
                self.name
            ));
        }
        if self.positions == Positions::Absolute && config.first_position.is_none() {
            return Err(format!(
                "model_type is {} in config.json; expected for a position table: bert, roberta, \
                 xlm-roberta or camembert",
                config
                    .model_type
                    .as_deref()
                    .map_or("absent".to_owned(), |kind| format!("`{kind}`"))
            ));
        }
        if self.positions == Positions::Rotary && !config.head_width().is_multiple_of(8) {
            return Err(format!(
                "a head is {} wide; supported with rotary positions: multiples of 8",
                config.head_width()
            ));
        }
        // Every BERT has these names; only the config declares the type of positions.
        let ungated = self.up == "intermediate.dense" && self.positions == Positions::Alibi;
        if ungated && config.positions.is_none() {
            return Err("this is a BERT with an ungated feed-forward block, and config.json does \
                        not say that position_embedding_type is `alibi`: it is not supported"
                .to_owned());
        }
        Ok(())
    }
}

/// Tensors allowed beside the encoder: heads that embeddings do not use, buffers, and the other
/// half of a CLIP.
const UNUSED: &[&str] = &[
    "pooler.",
    "cls.",
    "classifier.",
    "linear.weight",
    // The same as T5's word embeddings.
    "encoder.embed_tokens.weight",
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    VISION,
    "visual_projection.",
    "logit_scale",
];

/// Biases of T5's buckets.
pub(super) const BUCKETS: &str =
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight";

/// Name of a tensor as the loader knows it: weights with LoRA adapters beside them, and T5's word
/// embeddings, have other names.  `shared` tells if T5 has its first name for the latter.
pub(super) fn known_name(name: &str, shared: bool) -> String {
    match name {
        "shared.weight" => WORD.to_owned(),
        "encoder.embed_tokens.weight" if !shared => WORD.to_owned(),
        _ => name.replace("parametrizations.weight.original", "weight"),
    }
}

/// Position table.
pub(super) const POSITION: &str = "embeddings.position_embeddings.weight";

const VISION: &str = "vision_model.";

/// True if a tensor may be present without being used.
pub fn may_be_unused(name: &str) -> bool {
    UNUSED.iter().any(|prefix| name.starts_with(prefix))
}

/// Other architectures, each with a part of a name that identifies it.
const FOREIGN: &[(&str, &str)] = &[
    ("DenseReluDense.wi_0", "a T5 1.1, with a gated MLP"),
    ("decoder.block.", "a T5 with a decoder"),
    ("lm_head.", "a language model"),
];

/// Detects the architecture from tensor names, and the prefix of its names.
///
/// # Errors
/// Description of the architecture that the names suggest.
pub fn detect<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(&'static Architecture, &'a str), String> {
    let names = names.filter(|name| !name.starts_with(VISION));
    let foreign = FOREIGN.iter().find(|(part, _)| names.clone().any(|name| name.contains(part)));
    if let Some((_, what)) = foreign {
        return Err(format!("this is {what}, which is not supported"));
    }
    // A position table rules out the other architectures even if the other names agree.
    let table =
        |prefix: &str| names.clone().any(|name| name.strip_prefix(prefix) == Some(POSITION));
    for architecture in ARCHITECTURES {
        let sign = architecture.sign();
        let prefix = names.clone().find_map(|name| name.strip_suffix(sign.as_str()));
        if let Some(prefix) = prefix.filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
            && table(prefix) == (architecture.positions == Positions::Absolute)
        {
            return Ok((architecture, prefix));
        }
    }
    Err(format!("no encoder of a known architecture; the tensors are {}", kinds(names)))
}

/// Distinct names without layer numbers, at most twelve.
pub fn kinds<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 12;
    let kinds: BTreeSet<String> = names.map(kind).collect();
    let listed: Vec<&str> = kinds.iter().take(MOST).map(String::as_str).collect();
    let more = kinds.len() - listed.len();
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    listed.join(", ") + &tail
}

/// Name with `{i}` for each number in it.
fn kind(name: &str) -> String {
    let parts = name.split('.').map(|part| if is_number(part) { "{i}" } else { part });
    parts.collect::<Vec<_>>().join(".")
}

fn is_number(part: &str) -> bool {
    part.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide() {
        let detect = |names: &[&'static str]| detect(names.iter().copied());
        let (plain, prefix) = detect(&["encoder.layer.0.mlp.gated_layers.weight"]).expect("plain");
        assert_eq!((plain.mlp, plain.qk_norm), (Mlp::Gated { gate_first: true }, false));
        assert_eq!(prefix, "");
        let (code, _) = detect(&["x", "encoder.layer.0.mlp.up_gated_layer.weight"]).expect("code");
        assert_eq!((code.mlp, code.qk_norm), (Mlp::Gated { gate_first: false }, true));
        let (original, _) =
            detect(&["encoder.layer.0.intermediate.dense.weight"]).expect("original");
        assert_eq!((original.mlp, original.qk_norm), (Mlp::Plain { bias: true }, false));
        let clip = [
            "text_model.transformer.encoder.layers.0.mlp.gated_layers.weight",
            "vision_model.embeddings.position_embeddings.weight",
        ];
        let (flash, prefix) = detect(&clip).expect("a CLIP");
        assert_eq!((flash.name, prefix), ("jina-bert-flash", "text_model.transformer."));
        let bert =
            ["embeddings.position_embeddings.weight", "encoder.layer.0.intermediate.dense.weight"];
        assert_eq!(detect(&bert).expect("a BERT").0.positions, Positions::Absolute);
        let (rotary, _) = detect(&["roberta.encoder.layers.0.mlp.fc1.weight"]).expect("rotary");
        assert_eq!(rotary.positions, Positions::Rotary);
    }

    #[test]
    fn unsupported_architectures_are_described() {
        let refused = |names: &[&'static str]| detect(names.iter().copied()).expect_err("foreign");
        let table =
            ["embeddings.position_embeddings.weight", "encoder.layer.0.mlp.gated_layers.weight"];
        assert!(refused(&table).contains("no encoder of a known architecture"));
        assert!(refused(&["c", "a.b"]).ends_with("the tensors are a.b, c"));
        let devlin = [
            "encoder.layer.0.mlp.devlin.weight",
            "encoder.layer.11.mlp.devlin.weight",
            "xencoder.layer.0.mlp.gated_layers.weight",
        ];
        let says = refused(&devlin);
        assert!(says.contains("encoder.layer.{i}.mlp.devlin.weight, xencoder"), "{says}");
        let many: Vec<String> = (b'a'..=b'z').map(|c| char::from(c).to_string()).collect();
        assert!(kinds(many.iter().map(String::as_str)).ends_with("k, l and 14 more"));
    }
}
