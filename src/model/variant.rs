//! The graphs of the family and the tensor names that tell them apart.

/// One of the two released graphs.
#[derive(Debug, PartialEq, Eq)]
pub struct Variant {
    /// For people.
    pub name: &'static str,
    /// The MLP's first product in layer i, below `encoder.layer.{i}.`; its presence decides the
    /// variant.
    pub gate_up: &'static str,
    /// The MLP's second product, without `.weight` and `.bias`.
    pub down: &'static str,
    /// The LayerNorm after the MLP, likewise.
    pub mlp_norm: &'static str,
    /// Which half of `gate_up` is activated.
    pub gate_first: bool,
    /// Whether queries and keys are normalised, and the layer's input is added a second time.
    pub qk_norm: bool,
}

/// Every supported variant.
pub const VARIANTS: &[Variant] = &[
    Variant {
        name: "jina-bert",
        gate_up: "mlp.gated_layers.weight",
        down: "mlp.wo",
        mlp_norm: "mlp.layernorm",
        gate_first: true,
        qk_norm: false,
    },
    Variant {
        name: "jina-bert-qk-post-norm",
        gate_up: "mlp.up_gated_layer.weight",
        down: "mlp.down_layer",
        mlp_norm: "layer_norm_2",
        gate_first: false,
        qk_norm: true,
    },
];

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
    ("intermediate.dense.", "a BERT with an ungated feed-forward block"),
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
        VARIANTS.iter().find(|variant| has(&format!("encoder.layer.0.{}", variant.gate_up)));
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
        assert!(plain.gate_first && !plain.qk_norm && !code.gate_first && code.qk_norm);
        let bert =
            ["embeddings.position_embeddings.weight", "encoder.layer.0.intermediate.dense.weight"];
        assert!(detect(&bert).expect_err("BERT").contains("plain BERT"));
        assert!(detect(&["a.b", "c"]).expect_err("nothing").contains("a.b, c"));
    }
}
