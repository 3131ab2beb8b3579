//! The graphs of the family and the tensor names that tell them apart.

use super::config::Config;

/// One of the known graphs.
#[derive(Debug, PartialEq, Eq)]
pub struct Variant {
    /// For people.
    pub name: &'static str,
    /// The MLP's first product in layer i, below `encoder.layer.{i}.` and without `.weight`; its
    /// presence decides the variant.
    pub up: &'static str,
    /// The MLP's second product, likewise.
    pub down: &'static str,
    /// The LayerNorm after the MLP, likewise.
    pub mlp_norm: &'static str,
    /// What the first product is.
    pub mlp: Mlp,
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

/// Every supported variant.
pub const VARIANTS: &[Variant] = &[
    Variant {
        name: "jina-bert",
        up: "mlp.gated_layers",
        down: "mlp.wo",
        mlp_norm: "mlp.layernorm",
        mlp: Mlp::Gated { gate_first: true },
        qk_norm: false,
    },
    Variant {
        name: "jina-bert-original",
        up: "intermediate.dense",
        down: "output.dense",
        mlp_norm: "output.LayerNorm",
        mlp: Mlp::Plain { bias: true },
        qk_norm: false,
    },
    Variant {
        name: "jina-bert-qk-post-norm",
        up: "mlp.up_gated_layer",
        down: "mlp.down_layer",
        mlp_norm: "layer_norm_2",
        mlp: Mlp::Gated { gate_first: false },
        qk_norm: true,
    },
    Variant {
        name: "jina-bert-qk-post-norm-original",
        up: "mlp.up_layer",
        down: "mlp.down_layer",
        mlp_norm: "layer_norm_2",
        mlp: Mlp::Plain { bias: false },
        qk_norm: true,
    },
];

impl Variant {
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

/// Tensors that a checkpoint may hold beside the encoder: heads that embeddings do not use, and
/// buffers.
const UNUSED: &[&str] = &[
    "pooler.",
    "cls.",
    "classifier.",
    "linear.weight",
    "embeddings.position_ids",
    "embeddings.token_type_ids",
];

/// Whether a tensor may be there without being used.
pub fn may_be_unused(name: &str) -> bool {
    UNUSED.iter().any(|prefix| name.starts_with(prefix))
}

/// Other architectures, by a part of a name that only they have.
const FOREIGN: &[(&str, &str)] = &[
    ("embeddings.position_embeddings.", "a plain BERT with a position table"),
    ("SelfAttention.relative_attention_bias", "a T5 encoder, such as jina-embedding-*-v1"),
    ("parametrizations.weight", "an XLM-RoBERTa with LoRA adapters, such as jina-embeddings-v3"),
    ("mixer.Wqkv", "a BERT in the flash-attention layout, such as jina-clip-v1"),
    ("lm_head.", "a language model"),
];

/// The variant that these names belong to.
///
/// # Errors
/// What the names look like instead.
pub fn detect<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
) -> Result<&'static Variant, String> {
    let has = |part: &str| names.clone().any(|name| name.contains(part));
    // A checkpoint with a position table is not ours even where its other names agree.
    let foreign = FOREIGN.iter().find(|(part, _)| has(part)).map(|(_, what)| *what);
    let known =
        VARIANTS.iter().find(|variant| has(&format!("encoder.layer.0.{}.weight", variant.up)));
    match (known, foreign) {
        (Some(variant), None) => Ok(variant),
        (_, Some(what)) => Err(format!("this is {what}, which is not supported; JinaBERT is")),
        (None, None) => {
            let mut sample: Vec<_> = names.take(5).collect();
            sample.sort_unstable();
            Err(format!("no JinaBERT encoder; the tensors are {}, …", sample.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide() {
        let detect = |names: &[&'static str]| detect(names.iter().copied());
        let plain = detect(&["encoder.layer.0.mlp.gated_layers.weight"]).expect("plain");
        let code = detect(&["x", "encoder.layer.0.mlp.up_gated_layer.weight"]).expect("code");
        assert_eq!((plain.mlp, plain.qk_norm), (Mlp::Gated { gate_first: true }, false));
        assert_eq!((code.mlp, code.qk_norm), (Mlp::Gated { gate_first: false }, true));
        let original = detect(&["encoder.layer.0.intermediate.dense.weight"]).expect("original");
        assert_eq!((original.mlp, original.qk_norm), (Mlp::Plain { bias: true }, false));
        let bert =
            ["embeddings.position_embeddings.weight", "encoder.layer.0.intermediate.dense.weight"];
        assert!(detect(&bert).expect_err("BERT").contains("plain BERT"));
        assert!(detect(&["a.b", "c"]).expect_err("nothing").contains("a.b, c"));
    }
}
