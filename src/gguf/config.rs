//! `config.json` and sentence-transformers' files from metadata.

use super::{
    header::{Header, Value},
    names::{Graph, Names, expected},
};
use serde_json::json;

/// # Errors
/// Description of a value that is missing or of another type.
pub(super) fn config(header: &Header, names: &Names) -> Result<serde_json::Value, String> {
    let architecture = header.text("general.architecture")?;
    let key = |name: &str| format!("{architecture}.{name}");
    let rows = |name: &str| {
        let entry = header.tensors.get(name);
        entry.map(|entry| entry.shape[0]).ok_or_else(|| format!("tensor `{name}` is missing"))
    };
    let graph = names.graph;
    let mut config = json!({
        // Position tables come without RoBERTa's rows before the first position.
        "model_type": "bert",
        "position_embedding_type": match graph {
            Graph::Rotary => "rotary",
            Graph::Bert => "absolute",
            _ => "alibi",
        },
        "hidden_size": header.size(&key("embedding_length"))?,
        "num_hidden_layers": header.size(&key("block_count"))?,
        "num_attention_heads": header.size(&key("attention.head_count"))?,
        "intermediate_size": header.size(&key("feed_forward_length"))?,
        "max_position_embeddings": header.size(&key("context_length"))?,
        "layer_norm_eps": header.real(&key("attention.layer_norm_epsilon"))?,
        "vocab_size": rows("token_embd.weight")?,
        "type_vocab_size": rows("token_types.weight")?,
    });
    match graph {
        Graph::Jina | Graph::Code => config["feed_forward_type"] = json!("geglu"),
        Graph::JinaOriginal | Graph::CodeOriginal => {
            config["feed_forward_type"] = json!("original");
        }
        Graph::Rotary => {
            config["rotary_emb_base"] = json!(header.real(&key("rope.freq_base"))?);
        }
        Graph::Bert => {}
    }
    Ok(config)
}

/// `modules.json` and the pooling's configuration, if the file declares a pooling.
///
/// # Errors
/// Description of a pooling that is not supported.
pub(super) fn pooling(header: &Header) -> Result<Vec<(&'static str, serde_json::Value)>, String> {
    let architecture = header.text("general.architecture")?;
    let key = format!("{architecture}.pooling_type");
    // enum llama_pooling_type: none, mean, first token, last token, rank.
    let mode = match header.metadata.get(&key) {
        None | Some(Value::Integer(0 | 4)) => return Ok(Vec::new()),
        Some(Value::Integer(1)) => "mean",
        Some(Value::Integer(2)) => "cls",
        Some(Value::Integer(3)) => "lasttoken",
        other => return Err(expected(&key, "0 to 4", other)),
    };
    let module = |n: u32, path: &str, kind: &str| {
        let kind = format!("sentence_transformers.models.{kind}");
        json!({"idx": n, "name": n.to_string(), "path": path, "type": kind})
    };
    let modules = json!([
        module(0, "", "Transformer"),
        module(1, "1_Pooling", "Pooling"),
        // llama.cpp's server and Ollama normalise.
        module(2, "2_Normalize", "Normalize"),
    ]);
    Ok(vec![("modules.json", modules), ("1_Pooling/config.json", json!({"pooling_mode": mode}))])
}
