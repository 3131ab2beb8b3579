//! Descriptions from the files beside the weights: tokenizer, licence.

use jinabert::{Error, Files, model::json_file, text::Tokenizer};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Main settings of `tokenizer.json`.
pub struct TokenizerFacts {
    kind: String,
    vocabulary: usize,
    lowercase: bool,
    /// Special tokens, with their ids.
    special: Vec<(String, u64)>,
    mask: Option<String>,
    added: usize,
    max_length: Option<u64>,
}

impl TokenizerFacts {
    /// Reads the settings; `None` without a tokenizer.
    ///
    /// # Errors
    /// As [`Tokenizer::open`].
    pub fn read(dir: &Path, files: &Files) -> Result<Option<Self>, Error> {
        const FILE: &str = "tokenizer.json";
        let path = dir.join(FILE);
        let stored = path.exists().then(|| Tokenizer::open(&path)).transpose()?;
        let Some(file) = json_file(files, FILE)? else { return Ok(None) };
        // A GGUF file has its own.
        let read = || Tokenizer::parse(file.to_string().as_bytes(), dir);
        let added = stored.map_or_else(read, Ok)?.special_tokens();
        let model = &file["model"];
        let words = match &model["vocab"] {
            Value::Object(words) => words.len(),
            Value::Array(words) => words.len(),
            _ => 0,
        };
        let list = file["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
        let content = |token: &Value| token["content"].as_str().unwrap_or_default().to_owned();
        let beside = list.iter().filter(|token| model["vocab"].get(content(token)).is_none());
        let special = list.iter().filter(|token| token["special"] == true);
        let special: Vec<_> =
            special.map(|token| (content(token), token["id"].as_u64().unwrap_or(0))).collect();
        let mask = special.iter().find(|(content, _)| content == "[MASK]" || content == "<mask>");
        Ok(Some(Self {
            kind: kind(model),
            vocabulary: words + beside.count(),
            lowercase: lowers(&file["normalizer"]),
            mask: mask.map(|(content, _)| content.clone()),
            special,
            added,
            max_length: max_length(files)?,
        }))
    }

    /// The settings as a JSON object.
    pub fn json(&self) -> Value {
        let special = self.special.iter().map(|(content, id)| (content.clone(), json!(id)));
        json!({
            "type": self.kind,
            "vocabulary": self.vocabulary,
            "lowercase": self.lowercase,
            "special_tokens": special.collect::<serde_json::Map<_, _>>(),
            "mask_token": self.mask,
            "added_to_a_text": self.added,
            "max_length": self.max_length,
        })
    }

    /// Rows of the table.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let case = if self.lowercase { "lower-cases" } else { "keeps case" };
        let limit = match self.max_length {
            None => "no max length".to_owned(),
            Some(limit) => format!("max length {limit}"),
        };
        // T5 has a hundred more.
        const SHOWN: usize = 12;
        let special = self.special.iter().map(|(content, id)| format!("{content} {id}"));
        let mut special: Vec<_> = special.take(SHOWN).collect();
        let more = self.special.len() - special.len();
        special.extend((more > 0).then(|| format!("{more} more")));
        let mask = self.mask.as_deref().unwrap_or("none");
        vec![
            ("tokenizer", format!("{}, {} tokens, {case}, {limit}", self.kind, self.vocabulary)),
            (
                "special",
                format!(
                    "{}; mask token: {mask}; {} added to a text",
                    special.join(", "),
                    self.added
                ),
            ),
        ]
    }
}

/// Type of the tokenizer model, which old files show only by their fields.
fn kind(model: &Value) -> String {
    let named = model["type"].as_str();
    let by_fields = if model.get("merges").is_some() { "BPE" } else { "WordPiece" };
    named.unwrap_or(by_fields).to_owned()
}

/// True if a normalizer, or one in a sequence, converts to lower case.
fn lowers(normalizer: &Value) -> bool {
    match normalizer["type"].as_str() {
        Some("Lowercase") => true,
        Some("BertNormalizer") => normalizer["lowercase"] == true,
        Some("Sequence") => {
            normalizer["normalizers"].as_array().is_some_and(|list| list.iter().any(lowers))
        }
        _ => false,
    }
}

/// Maximum length from sentence-transformers, otherwise the tokenizer's own, if it is a real limit.
fn max_length(files: &Files) -> Result<Option<u64>, Error> {
    /// Lengths from here on mean no limit.
    const NO_LIMIT: u64 = 1 << 30;
    let own = |name: &str, key: &str| -> Result<Option<u64>, Error> {
        let file = json_file(files, name)?;
        // Python writes 10^30 for no limit, which fits only in a float.
        Ok(file.and_then(|file| file[key].as_f64()).map(|n| n as u64).filter(|n| *n < NO_LIMIT))
    };
    Ok(match own("sentence_bert_config.json", "max_seq_length")? {
        Some(limit) => Some(limit),
        None => own("tokenizer_config.json", "model_max_length")?,
    })
}

/// Licence in the front matter of `README.md`, otherwise in `config.json`.
pub fn licence(dir: &Path, files: &Files) -> Option<String> {
    let card = fs::read_to_string(dir.join("README.md")).unwrap_or_default();
    let mut lines = card.trim_start_matches('\u{feff}').lines();
    let front = lines.next().is_some_and(|line| line.trim_end() == "---");
    let front = lines.take_while(|line| front && line.trim_end() != "---");
    let fields = front.filter_map(|line| line.split_once(':'));
    let licences = fields.filter(|(key, value)| {
        ["license", "license_name", "license_link"].contains(key) && !value.trim().is_empty()
    });
    let found: Vec<_> = licences.map(|(_, value)| value.trim().trim_matches(['"', '\''])).collect();
    if !found.is_empty() {
        return Some(found.join(", "));
    }
    let config = json_file(files, "config.json").ok()??;
    config["license"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_casing_is_found_in_sequences() {
        assert!(lowers(&json!({"type": "BertNormalizer", "lowercase": true})));
        assert!(!lowers(&json!({"type": "BertNormalizer", "lowercase": false})));
        let both = |second: &str| {
            let list = json!([{"type": "NFC"}, {"type": second}]);
            json!({"type": "Sequence", "normalizers": list})
        };
        assert!(lowers(&both("Lowercase")) && !lowers(&both("NFD")) && !lowers(&Value::Null));
    }
}
