//! Seeded checkpoints in the official layout, as made by `tests/fixtures/tools/weights.py`.

use half::f16;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fs, path::Path};

/// Parameters of a checkpoint: the fields of a fixture's `recipe.json`.
pub struct Recipe {
    pub seed: String,
    pub config: Value,
    pub gate_shift: Option<f64>,
    pub qk: f64,
    pub glu_rms: Vec<f64>,
    pub f16: bool,
}

impl Recipe {
    /// Reads a fixture's recipe for the plain graph.
    pub fn open(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("a recipe");
        let recipe: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(recipe["code"], false, "only the plain graph is made here");
        Self {
            seed: recipe["seed"].as_str().expect("a string").to_owned(),
            config: recipe["cfg"].clone(),
            gate_shift: recipe["gate_shift"].as_f64(),
            qk: recipe["qk"].as_f64().expect("a number"),
            glu_rms: serde_json::from_value(recipe["glu_rms"].clone()).expect("numbers"),
            f16: recipe["dtype"] == "F16",
        }
    }

    /// Recipe for a checkpoint of the given size with ordinary weights.
    pub fn of_size(layers: u32, hidden: u32, heads: u32, vocabulary: u32) -> Self {
        let config = json!({
            "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
            "intermediate_size": 4 * hidden, "vocab_size": vocabulary, "type_vocab_size": 2,
            "max_position_embeddings": 8192, "position_embedding_type": "alibi",
            "feed_forward_type": "geglu", "layer_norm_eps": 1e-12,
        });
        let glu_rms = vec![0.5; layers as usize];
        Self { seed: "size".to_owned(), config, gate_shift: None, qk: 1.6, glu_rms, f16: true }
    }

    /// Writes `config.json` and `model.safetensors` into a directory.
    pub fn write(&self, dir: &Path) {
        let config = serde_json::to_string(&self.config).expect("JSON");
        fs::write(dir.join("config.json"), config).expect("a writable directory");
        let stored: BTreeMap<String, (Vec<usize>, Vec<u8>)> = self
            .tensors()
            .into_iter()
            .map(|(name, (shape, values))| (name, (shape, self.bytes(&values))))
            .collect();
        let dtype = if self.f16 { Dtype::F16 } else { Dtype::F32 };
        let views = stored.iter().map(|(name, (shape, bytes))| {
            (name, TensorView::new(dtype, shape.clone(), bytes).expect("sizes that agree"))
        });
        safetensors::serialize_to_file(views, None, &dir.join("model.safetensors"))
            .expect("a writable directory");
    }

    fn bytes(&self, values: &[f64]) -> Vec<u8> {
        if self.f16 {
            values.iter().flat_map(|v| f16::from_f64(*v).to_le_bytes()).collect()
        } else {
            values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect()
        }
    }

    fn size(&self, key: &str) -> usize {
        self.config[key].as_u64().expect("a size") as usize
    }

    fn tensors(&self) -> BTreeMap<String, (Vec<usize>, Vec<f64>)> {
        let d = self.size("hidden_size");
        let f = self.size("intermediate_size");
        let v = self.size("vocab_size");
        let types = self.size("type_vocab_size");
        let mut all = BTreeMap::new();
        let mut put = |name: String, shape: &[usize], deviation: f64, mean: f64| {
            let count = shape.iter().product();
            let key = fnv1a64(&format!("{}/{name}", self.seed));
            let scale = 3f64.sqrt() * deviation;
            let values = (0..count).map(|i| mean + scale * uniform(key, i as u64)).collect();
            all.insert(name, (shape.to_vec(), values));
        };
        let wide = 1.0 / (d as f64).sqrt();
        put("embeddings.word_embeddings.weight".into(), &[v, d], 0.05, 0.0);
        put("embeddings.token_type_embeddings.weight".into(), &[types, d], 0.04, 0.0);
        put("embeddings.LayerNorm.weight".into(), &[d], 0.15, 1.0);
        put("embeddings.LayerNorm.bias".into(), &[d], 0.15, 0.0);
        let large = if self.gate_shift.is_some() { 0.8 } else { 0.15 };
        for layer in 0..self.size("num_hidden_layers") {
            let name = |part: &str| format!("encoder.layer.{layer}.{part}");
            for (part, gain, bias) in [
                ("attention.self.query", self.qk, 0.3),
                ("attention.self.key", self.qk, 0.3),
                ("attention.self.value", 1.5, 0.2),
                ("attention.output.dense", 1.2, 0.1),
            ] {
                put(name(&format!("{part}.weight")), &[d, d], gain * wide, 0.0);
                put(name(&format!("{part}.bias")), &[d], bias, 0.0);
            }
            put(name("attention.output.LayerNorm.weight"), &[d], 0.15, 1.0);
            put(name("attention.output.LayerNorm.bias"), &[d], large, 0.0);
            put(name("mlp.gated_layers.weight"), &[2 * f, d], 1.2 * wide, 0.0);
            let down = 1.1 / (f as f64).sqrt() / self.glu_rms[layer];
            put(name("mlp.wo.weight"), &[d, f], down, 0.0);
            put(name("mlp.wo.bias"), &[d], 0.1, 0.0);
            put(name("mlp.layernorm.weight"), &[d], 0.15, 1.0);
            put(name("mlp.layernorm.bias"), &[d], 0.15, 0.0);
        }
        if let Some(shift) = self.gate_shift {
            for layer in 0..self.size("num_hidden_layers") {
                shift_gate(&mut all, layer, shift);
            }
        }
        all
    }
}

/// Config entries that a checkpoint of the plain graph shares with its flash layout.
pub fn flash_sizes(from: &Path) -> Map<String, Value> {
    let config = fs::read_to_string(from.join("config.json")).expect("a configuration");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    let keys = [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "vocab_size",
        "layer_norm_eps",
    ];
    keys.map(|key| (key.to_owned(), config[key].clone())).into_iter().collect()
}

/// Converts a checkpoint of the plain graph as jina-bert-flash-implementation's conversion script
/// does: renames tensors, stacks q, k and v, adds a prefix, and an image tower and a scale that
/// text embeddings do not use.
pub fn write_flash(from: &Path, to: &Path, prefix: &str, config: &Value) {
    let mut stored = stored(from);
    let queries: Vec<String> =
        stored.keys().filter(|name| name.contains(".self.query.")).cloned().collect();
    for query in queries {
        let [k, v] = ["key", "value"].map(|part| query.replace("query", part));
        let (dtype, mut shape, mut bytes) = stored.remove(&query).expect("queries");
        for part in [k, v] {
            bytes.extend(stored.remove(&part).expect("its fellows").2);
        }
        shape[0] *= 3;
        stored.insert(query.replace("attention.self.query", "mixer.Wqkv"), (dtype, shape, bytes));
    }
    let renamed = stored.into_iter().map(|(mut name, tensor)| {
        for (plain, flash) in [
            ("encoder.layer.", "encoder.layers."),
            ("embeddings.LayerNorm", "emb_ln"),
            ("attention.output.LayerNorm", "norm1"),
            ("mlp.layernorm", "norm2"),
            ("attention.output.dense", "mixer.out_proj"),
            ("predictions.transform.LayerNorm", "predictions.transform.layer_norm"),
            ("predictions.bias", "predictions.decoder.bias"),
        ] {
            name = name.replace(plain, flash);
        }
        (format!("{prefix}{name}"), tensor)
    });
    let mut stored: BTreeMap<_, _> = renamed.collect();
    let other = || (Dtype::F32, vec![2], vec![0; 8]);
    stored.insert("vision_model.blocks.0.mlp.fc1.weight".into(), other());
    stored.insert("vision_model.embeddings.position_embeddings.weight".into(), other());
    stored.insert("logit_scale".into(), (Dtype::F32, vec![], vec![0; 4]));
    save(&stored, to);
    fs::write(to.join("config.json"), config.to_string()).expect("a writable directory");
}

/// Tensors of a file, by name: type, shape, bytes.
type Stored = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn stored(from: &Path) -> Stored {
    let file = fs::read(from.join("model.safetensors")).expect("a checkpoint");
    let file = SafeTensors::deserialize(&file).expect("safetensors");
    let kept =
        |tensor: TensorView| (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec());
    file.iter().map(|(name, tensor)| (name.to_owned(), kept(tensor))).collect()
}

fn save(stored: &Stored, to: &Path) {
    let views = stored.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).expect("sizes that agree"))
    });
    safetensors::serialize_to_file(views, None, &to.join("model.safetensors"))
        .expect("a writable directory");
}

/// Model type of a checkpoint in transformers' layout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ModelType {
    /// One type; the first position is row 2.
    XlmRoberta,
    /// Two types, here with equal rows; the first position is row 0.
    Bert,
}

/// Converts an XLM-RoBERTa with absolute positions from FlashAttention's layout to transformers'.
pub fn write_transformers(from: &Path, to: &Path, model_type: ModelType) {
    let mut converted = Stored::new();
    for (mut name, (dtype, mut shape, mut bytes)) in stored(from) {
        for (flash, plain) in [
            ("encoder.layers.", "encoder.layer."),
            ("emb_ln", "embeddings.LayerNorm"),
            ("mixer.out_proj", "attention.output.dense"),
            ("norm1", "attention.output.LayerNorm"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
            ("norm2", "output.LayerNorm"),
        ] {
            name = name.replace(flash, plain);
        }
        if model_type == ModelType::Bert {
            name = name.replace("roberta.", "bert.");
            let row = bytes.len() / shape[0];
            if name.contains("position_embeddings") {
                bytes.drain(..2 * row);
                shape[0] -= 2;
            } else if name.contains("token_type_embeddings") {
                bytes.extend_from_within(..);
                shape[0] *= 2;
            }
        }
        if !name.contains("mixer.Wqkv") {
            converted.insert(name, (dtype, shape, bytes));
            continue;
        }
        shape[0] /= 3;
        let parts = bytes.chunks_exact(bytes.len() / 3).map(<[u8]>::to_vec);
        for (part, bytes) in ["query", "key", "value"].into_iter().zip(parts) {
            let name = name.replace("mixer.Wqkv", &format!("attention.self.{part}"));
            converted.insert(name, (dtype, shape.clone(), bytes));
        }
    }
    save(&converted, to);
    let config = fs::read_to_string(from.join("config.json")).expect("a configuration");
    let mut config: Value = serde_json::from_str(&config).expect("JSON");
    config["model_type"] = match model_type {
        ModelType::XlmRoberta => json!("xlm-roberta"),
        ModelType::Bert => json!("bert"),
    };
    if model_type == ModelType::Bert {
        config["type_vocab_size"] = json!(2);
        let rows = config["max_position_embeddings"].as_u64().expect("a number") - 2;
        config["max_position_embeddings"] = json!(rows);
    }
    fs::write(to.join("config.json"), config.to_string()).expect("a writable directory");
}

/// Moves gate pre-activations to around `shift`, where exact and tanh GELU differ.
fn shift_gate(all: &mut BTreeMap<String, (Vec<usize>, Vec<f64>)>, layer: usize, shift: f64) {
    let name = |part: &str| format!("encoder.layer.{layer}.{part}");
    let bias = all[&name("attention.output.LayerNorm.bias")].1.clone();
    let square: f64 = bias.iter().map(|b| b * b).sum();
    let (shape, gate) = all.get_mut(&name("mlp.gated_layers.weight")).expect("just made");
    let rows = shape[0] / 2;
    for row in gate.chunks_exact_mut(bias.len()).take(rows) {
        for (w, b) in row.iter_mut().zip(&bias) {
            *w = 0.35 * *w + shift * b / square;
        }
    }
}

fn fnv1a64(text: &str) -> u64 {
    text.bytes()
        .fold(0xCBF2_9CE4_8422_2325, |h, c| (h ^ u64::from(c)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// Uniform in (-1, 1), from 24 bits of the splitmix64 finaliser.
fn uniform(key: u64, i: u64) -> f64 {
    let z = key.wrapping_add((i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let z = z ^ (z >> 31);
    ((z >> 40) as f64 + 0.5) / 8_388_608.0 - 1.0
}
