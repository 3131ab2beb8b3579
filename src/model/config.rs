//! `config.json`, validated once.

use crate::{
    error::Error, files::Files, kernels::attention::MAX_HEAD_WIDTH, reference::Activation,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const FILE: &str = "config.json";

/// The sizes and switches of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// D
    pub hidden: u32,
    /// Encoder layers.
    pub layers: u32,
    /// H
    pub heads: u32,
    /// F
    pub intermediate: u32,
    /// V
    pub vocabulary: u32,
    /// Rows of the token-type table.
    pub types: u32,
    /// Added to variances.
    pub eps: f32,
    /// The function of the gated half, or of all where there is no gate.
    pub activation: Activation,
    /// Whether the MLP has a gate, where the file says so.
    pub gated: Option<bool>,
    /// Whether the file says that positions are linear biases; it may leave it to the names.
    pub alibi: bool,
    /// `id2label`: what the classes of a classifier are called, in order; empty if it does not say.
    pub labels: Vec<String>,
    /// `max_position_embeddings`: how long a text the publisher declares.  ALiBi itself has no
    /// limit.
    pub max_length: usize,
}

/// The keys that are read; everything else in the file is ignored.
#[derive(Deserialize)]
struct File {
    hidden_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    intermediate_size: u32,
    vocab_size: u32,
    #[serde(default = "two")]
    type_vocab_size: u32,
    #[serde(default = "tiny")]
    layer_norm_eps: f64,
    #[serde(default = "gelu")]
    hidden_act: String,
    feed_forward_type: Option<String>,
    position_embedding_type: Option<String>,
    // jina-bert-flash-implementation's
    mlp_type: Option<String>,
    #[serde(default)]
    use_qk_norm: bool,
    window_size: Option<Vec<i64>>,
    #[serde(default = "published")]
    max_position_embeddings: usize,
    #[serde(default)]
    id2label: BTreeMap<String, String>,
}

impl File {
    fn labels(&mut self) -> Vec<String> {
        (0..self.id2label.len()).map_while(|n| self.id2label.remove(&n.to_string())).collect()
    }
}

/// What config.json of jinaai/jina-bert-flash-implementation says.  A jina-clip's config names that
/// repository and holds only what differs.
const FLASH: [(&str, u32); 6] = [
    ("hidden_size", 768),
    ("num_hidden_layers", 12),
    ("num_attention_heads", 12),
    ("intermediate_size", 3072),
    ("vocab_size", 30528),
    ("type_vocab_size", 2),
];

/// The text tower of a CLIP's configuration, as a JinaBERT's own would be.
fn text_tower(clip: &Map<String, Value>, text: &Map<String, Value>) -> Result<Value, String> {
    if clip.get("add_projections") == Some(&Value::Bool(true)) {
        return Err("add_projections is true; a CLIP without projections is supported".to_owned());
    }
    for (key, supported) in [("proj_type", "none"), ("pooler_type", "mean_pooler")] {
        if let Some(other) = text.get(key).and_then(Value::as_str).filter(|s| *s != supported) {
            return Err(format!("text_config.{key} is `{other}`; supported: `{supported}`"));
        }
    }
    let mut own = Map::new();
    let differs = text.get("hf_model_config_kwargs").and_then(Value::as_object);
    for from in [Some(text), differs].into_iter().flatten() {
        own.extend(from.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    let named = text.get("hf_model_name_or_path").and_then(Value::as_str).unwrap_or_default();
    let known = named.contains("jina-bert") && named.contains("flash");
    if let Some((key, _)) = FLASH.iter().find(|(key, _)| !known && !own.contains_key(*key)) {
        return Err(format!(
            "text_config has no {key} and hf_model_name_or_path is `{named}`; supported: \
             `jinaai/jina-bert-flash-implementation`"
        ));
    }
    for (key, value) in FLASH {
        own.entry(key).or_insert(value.into());
    }
    Ok(Value::Object(own))
}

fn two() -> u32 {
    2
}

fn tiny() -> f64 {
    1e-12
}

fn gelu() -> String {
    "gelu".to_owned()
}

fn published() -> usize {
    8192
}

impl Config {
    /// E: width of one head.
    pub fn head_width(&self) -> u32 {
        self.hidden / self.heads
    }

    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`Error::Read`], or [`Error::Model`] naming the key, its value and what is supported.
    pub fn open(files: &Files) -> Result<Self, Error> {
        let path = files.path(FILE);
        Self::parse(&files.text(FILE)?)
            .map_err(|e| Error::Model(format!("`{}`: {e}", path.display())))
    }

    /// Checks the text of a `config.json`.
    fn parse(text: &str) -> Result<Self, String> {
        let mut value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let text = value.get("text_config").and_then(Value::as_object);
        if let (Some(clip), Some(text)) = (value.as_object(), text) {
            value = text_tower(clip, text)?;
        }
        let mut file: File = serde_json::from_value(value).map_err(|e| e.to_string())?;
        let labels = file.labels();
        if let Some(kind) = file.position_embedding_type.as_deref().filter(|kind| *kind != "alibi")
        {
            return Err(format!(
                "position_embedding_type is `{kind}`: this is not a JinaBERT (`alibi`); a plain BERT with a \
                 position table is not supported"
            ));
        }
        if file.hidden_act != "gelu" {
            let act = file.hidden_act;
            return Err(format!("hidden_act is `{act}`; only `gelu`, the exact one, is supported"));
        }
        if let Some(kind) = file.mlp_type.as_deref().filter(|kind| *kind != "glu") {
            return Err(format!("mlp_type is `{kind}`; supported: `glu`"));
        }
        if file.use_qk_norm {
            return Err("use_qk_norm is true; the flash layout is supported without".to_owned());
        }
        if let Some(window) = file.window_size.filter(|window| window.iter().any(|n| *n != -1)) {
            return Err(format!("window_size is {window:?}; supported: [-1, -1], no window"));
        }
        let activation = match file.feed_forward_type.as_deref() {
            None | Some("geglu" | "original") => Activation::Gelu,
            Some("reglu") => Activation::Relu,
            Some(other) => {
                return Err(format!(
                    "feed_forward_type is `{other}`; supported: `geglu`, `reglu`, `original`"
                ));
            }
        };
        let config = Self {
            hidden: file.hidden_size,
            layers: file.num_hidden_layers,
            heads: file.num_attention_heads,
            intermediate: file.intermediate_size,
            vocabulary: file.vocab_size,
            types: file.type_vocab_size,
            eps: file.layer_norm_eps as f32,
            activation,
            gated: match file.feed_forward_type {
                Some(kind) => Some(kind != "original"),
                None => file.mlp_type.map(|kind| kind == "glu"),
            },
            alibi: file.position_embedding_type.is_some(),
            labels,
            max_length: file.max_position_embeddings,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let limits = [
            ("hidden_size", self.hidden, 1 << 16),
            ("num_hidden_layers", self.layers, 1 << 10),
            ("num_attention_heads", self.heads, 1 << 10),
            ("intermediate_size", self.intermediate, 1 << 18),
            ("vocab_size", self.vocabulary, 1 << 24),
            ("type_vocab_size", self.types, 1 << 10),
        ];
        for (key, value, limit) in limits {
            if value == 0 || value > limit {
                return Err(format!("{key} is {value}; supported: 1 to {limit}"));
            }
        }
        if !self.hidden.is_multiple_of(self.heads) {
            let Self { hidden, heads, .. } = self;
            return Err(format!(
                "hidden_size {hidden} is not a multiple of num_attention_heads {heads}"
            ));
        }
        let width = self.head_width();
        if !width.is_multiple_of(4) || width > MAX_HEAD_WIDTH {
            return Err(format!(
                "a head is {width} wide; supported: multiples of 4 to {MAX_HEAD_WIDTH}"
            ));
        }
        if !self.intermediate.is_multiple_of(4) {
            return Err(format!("intermediate_size {} is not a multiple of 4", self.intermediate));
        }
        if !(self.eps.is_finite() && self.eps >= 0.0) {
            return Err(format!("layer_norm_eps {} is not a small positive number", self.eps));
        }
        if self.max_length == 0 {
            return Err("max_position_embeddings is 0".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"{"hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8,
        "intermediate_size": 2048, "vocab_size": 30528, "position_embedding_type": "alibi",
        "feed_forward_type": "geglu", "torch_dtype": "float32", "model_type": "bert"}"#;

    #[test]
    fn small_en() {
        let config = Config::parse(SMALL).expect("the published values");
        assert_eq!((config.hidden, config.head_width(), config.types), (512, 64, 2));
        assert_eq!((config.eps, config.max_length), (1e-12, 8192));
        assert_eq!((config.gated, config.alibi), (Some(true), true));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, says) in [
            ("\"alibi\"", "\"absolute\"", "position_embedding_type is `absolute`"),
            ("\"geglu\"", "\"swiglu\"", "feed_forward_type is `swiglu`"),
            ("512", "0", "hidden_size is 0"),
            ("512", "-1", "invalid value"),
            ("512", "500", "500 is not a multiple of num_attention_heads 8"),
            ("\"num_attention_heads\": 8", "\"num_attention_heads\": 256", "a head is 2 wide"),
            ("2048", "2046", "2046 is not a multiple of 4"),
            ("30528", "4000000000", "vocab_size is 4000000000"),
            ("\"vocab_size\"", "\"vocab\"", "missing field `vocab_size`"),
            ("}", "", "EOF"),
        ] {
            let text = SMALL.replacen(from, to, 1);
            let error = Config::parse(&text).expect_err(to);
            assert!(error.contains(says), "{error}");
        }
    }

    /// As jina-clip-v1's, without what is not read.
    const CLIP: &str = r#"{"model_type": "jina_clip", "add_projections": false,
        "text_config": {"embed_dim": 768, "hf_model_config_kwargs": {"use_flash_attn": false},
            "hf_model_name_or_path": "jinaai/jina-bert-flash-implementation",
            "pooler_type": "mean_pooler", "proj_type": null}, "vision_config": {"width": 768}}"#;

    #[test]
    fn text_towers() {
        let config = Config::parse(CLIP).expect("the published values");
        assert_eq!((config.hidden, config.layers, config.heads), (768, 12, 12));
        assert_eq!((config.intermediate, config.vocabulary, config.types), (3072, 30528, 2));
        assert_eq!((config.eps, config.max_length), (1e-12, 8192));
        let own = CLIP.replace("\"use_flash_attn\"", "\"num_hidden_layers\": 4, \"mlp_type\"");
        let own = Config::parse(&own.replace("\"mlp_type\": false", "\"mlp_type\": \"glu\""));
        let own = own.expect("its own");
        assert_eq!((own.layers, own.hidden, own.gated), (4, 768, Some(true)));
        for (from, to, says) in [
            ("\"add_projections\": false", "\"add_projections\": true", "add_projections is true"),
            ("mean_pooler", "cls_pooler", "text_config.pooler_type is `cls_pooler`"),
            ("\"proj_type\": null", "\"proj_type\": \"mlp\"", "text_config.proj_type is `mlp`"),
            ("jina-bert-flash-implementation", "jina-embeddings-v3", "no hidden_size and hf_model"),
            ("\"use_flash_attn\"", "\"use_qk_norm\": true, \"x\"", "use_qk_norm is true"),
            ("\"use_flash_attn\"", "\"mlp_type\": \"mlp\", \"x\"", "mlp_type is `mlp`"),
            ("\"use_flash_attn\"", "\"window_size\": [64, -1], \"x\"", "window_size is [64, -1]"),
        ] {
            let error = Config::parse(&CLIP.replacen(from, to, 1)).expect_err(to);
            assert!(error.contains(says), "{error}");
        }
    }
}
