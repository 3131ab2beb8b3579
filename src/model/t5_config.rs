//! `config.json` of a T5 encoder, whose keys are others.

use super::{adapters::LoraConfig, config::Config};
use crate::{activation::Activation, kernels::relative_bias::Buckets};
use serde::Deserialize;
use serde_json::Value;

/// Keys that are read; all others are ignored.  Published files leave out most of them.
#[derive(Deserialize)]
struct File {
    d_model: u32,
    d_kv: u32,
    d_ff: u32,
    num_layers: u32,
    num_heads: u32,
    vocab_size: u32,
    #[serde(default = "small")]
    layer_norm_epsilon: f64,
    feed_forward_proj: Option<String>,
    dense_act_fn: Option<String>,
    #[serde(default)]
    is_gated_act: bool,
    #[serde(default = "usual_buckets")]
    relative_attention_num_buckets: u32,
    #[serde(default = "usual_distance")]
    relative_attention_max_distance: u32,
    #[serde(default = "trained")]
    n_positions: usize,
}

fn small() -> f64 {
    1e-6
}

fn usual_buckets() -> u32 {
    Buckets::T5.count
}

fn usual_distance() -> u32 {
    Buckets::T5.max_distance
}

fn trained() -> usize {
    512
}

/// True for the configuration of a T5.
pub(super) fn is_t5(config: &Value) -> bool {
    config.get("d_model").is_some() && config.get("hidden_size").is_none()
}

/// Reads the configuration.
///
/// # Errors
/// Description of the key, its value and what is supported.
pub(super) fn config(config: Value) -> Result<Config, String> {
    let file: File = serde_json::from_value(config).map_err(|e| e.to_string())?;
    let projection = file.feed_forward_proj.as_deref().unwrap_or("relu");
    if projection != "relu" || file.is_gated_act {
        return Err(format!(
            "feed_forward_proj is `{projection}`{}: a T5 1.1, which is not supported; supported: \
             `relu`",
            if file.is_gated_act { " and is_gated_act is true" } else { "" }
        ));
    }
    if let Some(other) = file.dense_act_fn.as_deref().filter(|name| *name != "relu") {
        return Err(format!("dense_act_fn is `{other}`; supported: `relu`"));
    }
    let buckets = Buckets {
        count: file.relative_attention_num_buckets,
        max_distance: file.relative_attention_max_distance,
    };
    buckets.check()?;
    let inner = file.num_heads.checked_mul(file.d_kv).filter(|inner| (1..=1 << 16).contains(inner));
    let inner = inner.ok_or_else(|| {
        let File { num_heads, d_kv, .. } = file;
        format!("{num_heads} heads of {d_kv}: expected 1 to 65536 together")
    })?;
    Ok(Config {
        hidden: file.d_model,
        layers: file.num_layers,
        heads: file.num_heads,
        inner,
        intermediate: file.d_ff,
        vocabulary: file.vocab_size,
        types: 1,
        eps: file.layer_norm_epsilon as f32,
        activation: Activation::Relu,
        gated: None,
        positions: None,
        model_type: Some("t5".to_owned()),
        first_position: None,
        rope_theta: 10_000.0,
        lora: LoraConfig::default(),
        matryoshka: Vec::new(),
        truncate_dim: None,
        buckets,
        labels: Vec::new(),
        max_length: file.n_positions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn base() -> Value {
        json!({"architectures": ["T5EncoderModel"], "d_model": 768, "d_kv": 64, "d_ff": 3072,
            "num_heads": 12, "num_layers": 12, "vocab_size": 32128})
    }

    #[test]
    fn short_files_have_the_usual_values() {
        let config = config(base()).expect("the published keys");
        assert_eq!((config.hidden, config.head_width(), config.layers), (768, 64, 12));
        assert_eq!((config.eps, config.max_length), (1e-6, 512));
        assert_eq!((config.activation, config.buckets), (Activation::Relu, Buckets::T5));
    }

    #[test]
    fn other_kinds_of_t5_are_named() {
        for (key, value, says) in [
            ("feed_forward_proj", json!("gated-gelu"), "a T5 1.1"),
            ("is_gated_act", json!(true), "is_gated_act is true"),
            ("dense_act_fn", json!("gelu_new"), "dense_act_fn is `gelu_new`"),
            ("relative_attention_num_buckets", json!(6), "relative_attention_num_buckets is 6"),
            ("relative_attention_max_distance", json!(8), "relative_attention_max_distance is 8"),
            ("relative_attention_max_distance", json!(1 << 20), "max_distance is 1048576"),
            ("d_kv", json!(1 << 20), "12 heads of 1048576"),
            ("d_kv", json!(0), "12 heads of 0: expected 1 to 65536"),
        ] {
            let mut file = base();
            file[key] = value;
            let error = config(file).expect_err(key);
            assert!(error.contains(says), "{error}");
        }
    }
}
