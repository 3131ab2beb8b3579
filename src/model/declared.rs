//! What `modules.json` of sentence-transformers declares: what becomes of a model's hidden states.

use crate::{error::Error, files::Files};
use serde_json::{Value, json};
use std::{fmt, iter};

const FILE: &str = "modules.json";

/// What is made of hidden states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Declared {
    /// `mean`, `cls` and so on; none where nothing is declared.
    pub pooling: Option<String>,
    /// Whether vectors are normalised; none where nothing is declared.
    pub normalize: Option<bool>,
    /// Modules of other kinds, such as `sentence_transformers.models.Dense`.
    pub others: Vec<String>,
}

impl Declared {
    /// Reads the files of a model, if there are any.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Model`] for the files.
    pub fn open(files: &Files) -> Result<Self, Error> {
        let Some(modules) = json_file(files, FILE)? else { return Ok(Self::default()) };
        let modules = modules.as_array().cloned().unwrap_or_default();
        let mut declared = Self { normalize: Some(false), ..Self::default() };
        for module in &modules {
            let kind = module["type"].as_str().unwrap_or_default();
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Normalize" => declared.normalize = Some(true),
                "Pooling" => {
                    let place = module["path"].as_str().unwrap_or_default();
                    let parts = place.split('/').filter(|part| !part.is_empty());
                    let parts: Vec<&str> = parts.chain(iter::once("config.json")).collect();
                    let config = json_file(files, &parts.join("/"))?;
                    declared.pooling = config.and_then(|config| mode(&config));
                }
                _ => declared.others.push(kind.to_owned()),
            }
        }
        Ok(declared)
    }
}

impl fmt::Display for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.pooling.as_deref().unwrap_or("not declared"))?;
        match self.normalize {
            None => {}
            Some(true) => f.write_str(", then normalised")?,
            Some(false) => f.write_str(", not normalised")?,
        }
        match self.others.is_empty() {
            true => Ok(()),
            false => write!(f, ", and {}", self.others.join(", ")),
        }
    }
}

/// One of the files, if it is there.
///
/// # Errors
/// [`Error::Read`], and [`Error::Model`] if it is not JSON.
pub(crate) fn json_file(files: &Files, name: &str) -> Result<Option<Value>, Error> {
    if !files.has(name) {
        return Ok(None);
    }
    let parsed = serde_json::from_str(&files.text(name)?);
    parsed.map(Some).map_err(|e| Error::Model(format!("`{}`: {e}", files.path(name).display())))
}

/// The modes that are on, `pooling_mode_mean_tokens` as `mean`.
fn mode(config: &Value) -> Option<String> {
    let on = config.as_object()?.iter().filter(|(_, value)| **value == json!(true));
    let modes: Vec<&str> = on
        .filter_map(|(key, _)| key.strip_prefix("pooling_mode_"))
        .map(|key| key.trim_end_matches("_tokens").trim_end_matches("_token"))
        .collect();
    (!modes.is_empty()).then(|| modes.join(" + "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_modes_have_short_names() {
        let config = |on: &str| json!({"word_embedding_dimension": 64, on: true, "x": true});
        assert_eq!(mode(&config("pooling_mode_cls_token")).as_deref(), Some("cls"));
        assert_eq!(mode(&config("pooling_mode_mean_tokens")).as_deref(), Some("mean"));
        assert_eq!(mode(&config("y")), None);
    }

    #[test]
    fn modules_are_read_whoever_made_them() {
        let modules = json!([
            {"type": "custom_st.Transformer", "path": ""},
            {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
            {"type": "sentence_transformers.models.Dense", "path": "2_Dense"},
            {"type": "sentence_transformers.models.Normalize", "path": "3_Normalize"},
        ]);
        let pooling = json!({"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true});
        let files = Files::memory()
            .with("modules.json", modules.to_string().into_bytes())
            .with("1_Pooling/config.json", pooling.to_string().into_bytes());
        let declared = Declared::open(&files).expect("JSON");
        let said = "cls + max, then normalised, and sentence_transformers.models.Dense";
        assert_eq!(declared.to_string(), said);
        assert_eq!(Declared::open(&Files::memory()).expect("nothing"), Declared::default());
        assert!(Declared::open(&Files::memory().with("modules.json", b"nope".to_vec())).is_err());
    }
}
