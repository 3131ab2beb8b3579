//! Reader of `config.json`, validated once.

use super::{adapters::LoraConfig, t5_config as t5};
use crate::{
    activation::Activation,
    error::Error,
    files::Files,
    kernels::{attention::MAX_HEAD_WIDTH, relative_bias::Buckets},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const FILE: &str = "config.json";

/// Sizes and settings of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// D, the hidden size
    pub hidden: u32,
    /// Encoder layers.
    pub layers: u32,
    /// H, attention heads
    pub heads: u32,
    /// Width of all heads together: D, unless the file has the width of a head (T5's `d_kv`).
    pub inner: u32,
    /// F, the intermediate size
    pub intermediate: u32,
    /// V, the vocabulary size
    pub vocabulary: u32,
    /// Rows of the token-type table.
    pub types: u32,
    /// Epsilon, added to variances in LayerNorm.
    pub eps: f32,
    /// Activation function of the gated half, or of the whole MLP without a gate.
    pub activation: Activation,
    /// True if the MLP has a gate; none if the file does not say.
    pub gated: Option<bool>,
    /// `position_embedding_type`, if declared; the file may leave it to the tensor names.
    pub positions: Option<String>,
    /// `model_type`, if declared.
    pub model_type: Option<String>,
    /// Row of a text's first token in a position table: the one after the padding's in RoBERTa, 0
    /// in BERT; none if `model_type` is neither.
    pub first_position: Option<u32>,
    /// θ of rotary positions.
    pub rope_theta: f64,
    /// Adapters of tasks.
    pub lora: LoraConfig,
    /// `matryoshka_dimensions`: numbers of leading components that are vectors by themselves; empty
    /// if not declared.
    pub matryoshka: Vec<usize>,
    /// `truncate_dim`: components to keep by default.
    pub truncate_dim: Option<usize>,
    /// Buckets of T5's relative positions.
    pub buckets: Buckets,
    /// `id2label`: names of the classifier's classes, in order; empty if not declared.
    pub labels: Vec<String>,
    /// Token limit declared by the publisher: `max_position_embeddings`, without the rows before
    /// the first position.  ALiBi and rotary positions themselves have no limit.
    pub max_length: usize,
}

/// Keys that are read; all others are ignored.
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
    model_type: Option<String>,
    #[serde(default)]
    architectures: Vec<String>,
    pad_token_id: Option<u32>,
    // of xlm-roberta-flash-implementation
    rotary_emb_base: Option<f64>,
    // of transformers 5
    rope_parameters: Option<RopeParameters>,
    // of jina-bert-flash-implementation
    mlp_type: Option<String>,
    #[serde(default)]
    use_qk_norm: bool,
    window_size: Option<Vec<i64>>,
    #[serde(default = "published")]
    max_position_embeddings: usize,
    #[serde(default)]
    id2label: BTreeMap<String, Value>,
    #[serde(default)]
    lora_adaptations: Vec<String>,
    lora_rank: Option<u32>,
    lora_alpha: Option<f64>,
    #[serde(default)]
    task_instructions: BTreeMap<String, String>,
    #[serde(default)]
    matryoshka_dimensions: Vec<usize>,
    truncate_dim: Option<usize>,
}

/// Keys that are read of `rope_parameters`.
#[derive(Deserialize)]
struct RopeParameters {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

impl File {
    fn labels(&self) -> Result<Vec<String>, String> {
        let values = (0..).map_while(|n| Some((n, self.id2label.get(&n.to_string())?)));
        values.map(|(n, value)| label(n, value)).collect()
    }

    /// Checks the settings of which only one value is supported.
    fn check(&self) -> Result<(), String> {
        let rope_type = self.rope_parameters.as_ref().and_then(|rope| rope.rope_type.as_deref());
        if let Some(kind) = rope_type.filter(|kind| *kind != "default") {
            return Err(format!("rope_parameters.rope_type is `{kind}`; supported: `default`"));
        }
        if self.hidden_act != "gelu" {
            let act = &self.hidden_act;
            return Err(format!("hidden_act is `{act}`; only `gelu`, the exact one, is supported"));
        }
        if let Some(kind) = self.mlp_type.as_deref().filter(|kind| *kind != "glu") {
            return Err(format!("mlp_type is `{kind}`; supported: `glu`"));
        }
        if self.use_qk_norm {
            return Err("use_qk_norm is true; the flash layout is supported without".to_owned());
        }
        match &self.window_size {
            Some(window) if window.iter().any(|n| *n != -1) => {
                Err(format!("window_size is {window:?}; supported: [-1, -1], no window"))
            }
            _ => Ok(()),
        }
    }

    /// [`Config::first_position`]
    fn first_position(&self) -> Option<u32> {
        let kind = self.model_type.as_deref();
        let roberta = kind.is_some_and(|kind| kind.ends_with("roberta"))
            || matches!(kind, Some("camembert" | "jina_embeddings_v3"))
            // Jina's reranker has no `model_type`.
            || kind.is_none() && self.architectures.iter().any(|name| name.contains("Roberta"));
        match kind {
            _ if roberta => Some(self.pad_token_id.unwrap_or(1).saturating_add(1)),
            Some("bert") => Some(0),
            _ => None,
        }
    }

    /// θ as the implementations of Jina and of transformers find it.
    fn rope_theta(&self) -> f64 {
        let native = self.model_type.as_deref() == Some("jina_embeddings_v3");
        let declared = self.rope_parameters.as_ref().and_then(|rope| rope.rope_theta);
        let usual = if native { 20_000.0 } else { 10_000.0 };
        declared.or(self.rotary_emb_base).unwrap_or(usual)
    }

    fn activation(&self) -> Result<Activation, String> {
        match self.feed_forward_type.as_deref() {
            None | Some("geglu" | "original") => Ok(Activation::Gelu),
            Some("reglu") => Ok(Activation::Relu),
            Some(other) => Err(format!(
                "feed_forward_type is `{other}`; supported: `geglu`, `reglu`, `original`"
            )),
        }
    }

    /// True if the MLP has a gate; none if the file does not say.
    fn gated(&self) -> Option<bool> {
        match &self.feed_forward_type {
            Some(kind) => Some(kind != "original"),
            None => self.mlp_type.as_ref().map(|kind| kind == "glu"),
        }
    }
}

/// Name of a class; a number is allowed.
fn label(n: usize, value: &Value) -> Result<String, String> {
    match value {
        Value::String(name) => Ok(name.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        // transformers' name for an unnamed class.
        Value::Null => Ok(format!("LABEL_{n}")),
        _ => Err(format!("id2label: expected the name of class {n}, got {value}")),
    }
}

/// Normalises keys and values as transformers does: drops null values, and accepts whole numbers
/// written as floats.
pub(super) fn plain(keys: &mut Map<String, Value>) {
    keys.retain(|_, value| !value.is_null());
    for value in keys.values_mut() {
        match value {
            Value::Array(list) => list.iter_mut().for_each(whole),
            one => whole(one),
        }
    }
}

/// Converts a float without a fraction to an integer.
fn whole(value: &mut Value) {
    /// Every integer up to this one has an exact float.
    const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
    if let Some(float) = value.as_f64().filter(|x| value.is_f64() && x.fract() == 0.0)
        && float.abs() <= EXACT
    {
        *value = (float as i64).into();
    }
}

/// Defaults from config.json of jinaai/jina-bert-flash-implementation.  A jina-clip's config names
/// that repository and holds only the differences.
const FLASH: [(&str, u32); 6] = [
    ("hidden_size", 768),
    ("num_hidden_layers", 12),
    ("num_attention_heads", 12),
    ("intermediate_size", 3072),
    ("vocab_size", 30528),
    ("type_vocab_size", 2),
];

/// Text tower of a CLIP configuration, converted to a JinaBERT configuration.
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
    plain(&mut own);
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
        self.inner / self.heads
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
        let tower = value.get("text_config").and_then(Value::as_object);
        if let (Some(clip), Some(tower)) = (value.as_object(), tower) {
            value = text_tower(clip, tower)?;
        }
        if let Some(keys) = value.as_object_mut() {
            plain(keys);
        }
        if t5::is_t5(&value) {
            let config = t5::config(value)?;
            config.check()?;
            return Ok(config);
        }
        let file: File = serde_json::from_value(value).map_err(|e| e.to_string())?;
        let labels = file.labels()?;
        file.check()?;
        let first_position = file.first_position();
        let rows = file.max_position_embeddings;
        let config = Self {
            hidden: file.hidden_size,
            layers: file.num_hidden_layers,
            heads: file.num_attention_heads,
            inner: file.hidden_size,
            intermediate: file.intermediate_size,
            vocabulary: file.vocab_size,
            types: file.type_vocab_size,
            eps: file.layer_norm_eps as f32,
            activation: file.activation()?,
            gated: file.gated(),
            rope_theta: file.rope_theta(),
            positions: file.position_embedding_type,
            model_type: file.model_type,
            first_position,
            labels,
            lora: LoraConfig {
                adaptations: file.lora_adaptations,
                rank: file.lora_rank,
                alpha: file.lora_alpha,
                instructions: file.task_instructions,
            },
            matryoshka: file.matryoshka_dimensions,
            truncate_dim: file.truncate_dim,
            buckets: Buckets::T5,
            max_length: rows.saturating_sub(first_position.unwrap_or(0) as usize),
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
        if !self.inner.is_multiple_of(self.heads) {
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
        if !self.hidden.is_multiple_of(4) {
            return Err(format!("the hidden size {} is not a multiple of 4", self.hidden));
        }
        if !self.intermediate.is_multiple_of(4) {
            return Err(format!("intermediate_size {} is not a multiple of 4", self.intermediate));
        }
        if !(self.eps.is_finite() && self.eps >= 0.0) {
            return Err(format!("layer_norm_eps {} is not a small positive number", self.eps));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return Err(format!("rotary_emb_base {} is not a positive number", self.rope_theta));
        }
        if self.max_length == 0 {
            let first = self.first_position.unwrap_or(0);
            return Err(format!("max_position_embeddings: expected more than {first}"));
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
        assert_eq!((config.gated, config.positions.as_deref()), (Some(true), Some("alibi")));
    }

    #[test]
    fn invalid_fields_are_named() {
        for (from, to, says) in [
            ("\"alibi\"", "\"alibi\", \"rotary_emb_base\": -1", "rotary_emb_base -1"),
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

    #[test]
    fn nulls_floats_and_numbers_are_taken_as_transformers_does() {
        let with = |more: &str| Config::parse(&SMALL.replacen('{', &format!("{{{more}, "), 1));
        let plain = Config::parse(SMALL).expect("the published values");
        for key in [
            "id2label",
            "label2id",
            "type_vocab_size",
            "layer_norm_eps",
            "hidden_act",
            "use_qk_norm",
            "max_position_embeddings",
            "window_size",
            "mlp_type",
            "text_config",
        ] {
            assert_eq!(with(&format!("\"{key}\": null")).expect(key), plain, "{key}");
        }
        let floats = SMALL.replace("512", "512.0").replace("30528", "3.0528e4");
        assert_eq!(Config::parse(&floats).expect("whole numbers"), plain);
        assert_eq!(with("\"window_size\": [-1.0, -1]").expect("no window"), plain);
        assert_eq!(with("\"layer_norm_eps\": 0").expect("an integer").eps, 0.0);
        let error = Config::parse(&SMALL.replace("512", "512.5")).expect_err("half a number");
        assert!(error.contains("512.5"), "{error}");
        let error = Config::parse(&SMALL.replace("512", "null")).expect_err("left out");
        assert!(error.contains("missing field `hidden_size`"), "{error}");

        let labels = |map: &str| with(&format!("\"id2label\": {map}")).map(|config| config.labels);
        let named = r#"{"0": "no", "1": 1, "2": 0.5, "3": true, "4": null}"#;
        assert_eq!(labels(named).expect("names"), ["no", "1", "0.5", "true", "LABEL_4"]);
        assert_eq!(labels(r#"{"0": 0, "1": 1}"#).expect("numbers"), ["0", "1"]);
        let error = labels(r#"{"0": "a", "1": ["b"]}"#).expect_err("a list");
        assert!(error.contains("expected the name of class 1, got [\"b\"]"), "{error}");
    }

    /// Configuration of jina-clip-v1, without unused keys.
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
        let null = CLIP.replace("\"use_flash_attn\"", "\"hidden_size\": null, \"x\"");
        assert_eq!(Config::parse(&null).expect("left out").hidden, 768);
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
