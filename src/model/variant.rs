//! The graphs of the family and the tensor names that tell them apart.

use super::config::Config;
use std::collections::BTreeSet;

/// One of the known graphs in one of the layouts that its checkpoints have.
///
/// Names of products and LayerNorms are without `.weight` and `.bias`, those in a layer below
/// `{layers}.{i}.`.
#[derive(Debug, PartialEq, Eq)]
pub struct Variant {
    /// For people.
    pub name: &'static str,
    /// Where the layers are.
    pub layers: &'static str,
    /// The LayerNorm of the embeddings.
    pub embed_norm: &'static str,
    /// Queries, keys and values: three products, or one with the three below one another.
    pub qkv: &'static [&'static str],
    /// The product after attention.
    pub proj: &'static str,
    /// The LayerNorm after it.
    pub attention_norm: &'static str,
    /// The MLP's first product; its presence in layer 0 decides the variant.
    pub up: &'static str,
    /// The MLP's second product.
    pub down: &'static str,
    /// The LayerNorm after the MLP.
    pub mlp_norm: &'static str,
    /// What the first product is.
    pub mlp: Mlp,
    /// The LayerNorm of a language model's transform.
    pub transform_norm: &'static str,
    /// Whether queries and keys are normalised, and the layer's input is added a second time.
    pub qk_norm: bool,
}

/// What an MLP does before its second product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mlp {
    /// `activation(gate) ⊙ up`, both halves of one product without a bias.
    Gated {
        /// Which half is activated.
        gate_first: bool,
    },
    /// `activation(up)`: `feed_forward_type` is `original`.
    Plain {
        /// Whether the product has one.
        bias: bool,
    },
}

/// jina-bert-implementation: small-en, base-en, de, es, zh, the rerankers, colbert.
const PLAIN: Variant = Variant {
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
};

/// jina-bert-v2-qk-post-norm: base-code.
const CODE: Variant = Variant {
    name: "jina-bert-qk-post-norm",
    up: "mlp.up_gated_layer",
    down: "mlp.down_layer",
    mlp_norm: "layer_norm_2",
    mlp: Mlp::Gated { gate_first: false },
    qk_norm: true,
    ..PLAIN
};

/// Every supported variant.
pub const VARIANTS: &[Variant] = &[
    PLAIN,
    // Fine-tunes by others, such as aari1995/German_Semantic_V3b.
    Variant {
        name: "jina-bert-original",
        up: "intermediate.dense",
        down: "output.dense",
        mlp_norm: "output.LayerNorm",
        mlp: Mlp::Plain { bias: true },
        ..PLAIN
    },
    // jina-bert-flash-implementation: the text tower of jina-clip-v1.  Its convert_v2_weights.py
    // renames and stacks PLAIN's tensors and computes the same.
    Variant {
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
    Variant {
        name: "jina-bert-qk-post-norm-original",
        up: "mlp.up_layer",
        mlp: Mlp::Plain { bias: false },
        ..CODE
    },
];

impl Variant {
    /// The tensor that decides.
    fn sign(&self) -> String {
        format!("{}.0.{}.weight", self.layers, self.up)
    }

    /// Whether the MLP has a gate.
    pub fn gated(&self) -> bool {
        matches!(self.mlp, Mlp::Gated { .. })
    }

    /// Holds the names of the tensors against what `config.json` says.
    ///
    /// # Errors
    /// What contradicts what.
    pub fn agree(&self, config: &Config) -> Result<(), String> {
        if let Some(gated) = config.gated.filter(|gated| *gated != self.gated()) {
            let says = if gated { "`geglu` or `reglu`" } else { "`original`" };
            return Err(format!(
                "feed_forward_type is {says} in config.json; the tensors are those of `{}`: \
                 `{}.weight` is there",
                self.name, self.up
            ));
        }
        // These names are any BERT's; what it does about positions only the config can say.
        if self.up == "intermediate.dense" && !config.alibi {
            return Err("this is a BERT with an ungated feed-forward block, and config.json does \
                        not say that position_embedding_type is `alibi`: it is not supported"
                .to_owned());
        }
        Ok(())
    }
}

/// Tensors that a checkpoint may hold beside the encoder: heads that embeddings do not use,
/// buffers, and the other half of a CLIP.
const UNUSED: &[&str] = &[
    "pooler.",
    "cls.",
    "classifier.",
    "linear.weight",
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    VISION,
    "visual_projection.",
    "logit_scale",
];

const VISION: &str = "vision_model.";

/// Whether a tensor may be there without being used.
pub fn may_be_unused(name: &str) -> bool {
    UNUSED.iter().any(|prefix| name.starts_with(prefix))
}

/// Other architectures, by a part of a name that only they have.
const FOREIGN: &[(&str, &str)] = &[
    ("embeddings.position_embeddings.", "a plain BERT with a position table"),
    ("SelfAttention.relative_attention_bias", "a T5 encoder, such as jina-embedding-*-v1"),
    ("parametrizations.weight", "an XLM-RoBERTa with LoRA adapters, such as jina-embeddings-v3"),
    ("lm_head.", "a language model"),
];

/// The variant that these names belong to, and what its names begin with.
///
/// # Errors
/// What the names look like instead.
pub fn detect<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<(&'static Variant, &'a str), String> {
    let names = names.filter(|name| !name.starts_with(VISION));
    let has = |part: &str| names.clone().any(|name| name.contains(part));
    // A checkpoint with a position table is not ours even where its other names agree.
    if let Some((_, what)) = FOREIGN.iter().find(|(part, _)| has(part)) {
        return Err(format!("this is {what}, which is not supported; JinaBERT is"));
    }
    for variant in VARIANTS {
        let sign = variant.sign();
        let prefix = names.clone().find_map(|name| name.strip_suffix(sign.as_str()));
        if let Some(prefix) = prefix.filter(|prefix| prefix.is_empty() || prefix.ends_with('.')) {
            return Ok((variant, prefix));
        }
    }
    Err(format!("no JinaBERT encoder; the tensors are {}", kinds(names)))
}

/// Names without the numbers of layers, each once, the first dozen of them.
pub fn kinds<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 12;
    let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let kind = |name: &str| {
        let parts = name.split('.').map(|part| if number(part) { "{i}" } else { part });
        parts.collect::<Vec<_>>().join(".")
    };
    let kinds: BTreeSet<String> = names.map(kind).collect();
    let listed: Vec<&str> = kinds.iter().take(MOST).map(String::as_str).collect();
    let more = kinds.len() - listed.len();
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    listed.join(", ") + &tail
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
    }

    #[test]
    fn what_is_not_ours_is_described() {
        let refused = |names: &[&'static str]| detect(names.iter().copied()).expect_err("foreign");
        let bert =
            ["embeddings.position_embeddings.weight", "encoder.layer.0.intermediate.dense.weight"];
        assert!(refused(&bert).contains("plain BERT"));
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
