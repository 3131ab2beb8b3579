//! Settings declared by a model's sentence-transformers files: modules, prompts and token limits.

use super::{
    Config,
    json::{bad, json_file, object},
};
use crate::{error::Error, files::Files};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt};

const MODULES: &str = "modules.json";
const PROMPTS: &str = "config_sentence_transformers.json";
const TRANSFORMER: &str = "sentence_bert_config.json";
const TOKENIZER: &str = "tokenizer_config.json";

/// Prompt names that sentence-transformers adds to every model, empty unless declared.
const ALWAYS: &[&str] = &["query", "document"];

/// Module of sentence-transformers after pooling.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeclaredModule {
    /// Division by the L2 norm.
    Normalize,
    /// Dense layer, in a folder.
    Dense(String),
    /// LayerNorm, in a folder.
    LayerNorm(String),
}

/// Settings of sentence-transformers for prompts, pooling and normalisation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SentenceTransformersConfig {
    /// `mean`, `cls` and so on; none if not declared.
    pub pooling: Option<String>,
    /// True if pooling excludes prompt tokens: `include_prompt` is false.
    pub prompt_excluded: bool,
    /// Normalisation of vectors; none if not declared.
    pub normalize: Option<bool>,
    /// Modules between pooling and the end that change vectors, in order.
    pub modules: Vec<DeclaredModule>,
    /// Types of other modules, such as `sentence_transformers.models.CNN`.
    pub others: Vec<String>,
    /// Prompts by name.
    pub prompts: BTreeMap<String, String>,
    /// Name of the default prompt.
    pub default_prompt: Option<String>,
    /// `max_seq_length` of `sentence_bert_config.json`.
    pub max_seq_length: Option<usize>,
    /// `do_lower_case` of `sentence_bert_config.json`: texts are lower-cased before tokenising.
    pub lower_case: bool,
    /// `model_max_length` of `tokenizer_config.json`, where sentence-transformers 5.4 and later
    /// keep the limit.
    pub model_max_length: Option<usize>,
}

impl SentenceTransformersConfig {
    /// Reads the sentence-transformers files of a model, if any.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Model`] for the files, also for a missing file that
    /// `modules.json` declares.
    pub fn open(files: &Files) -> Result<Self, Error> {
        let mut declared = Self::default();
        declared.read_modules(files)?;
        declared.read_prompts(files)?;
        let transformer = json_file(files, TRANSFORMER)?.unwrap_or_default();
        declared.max_seq_length = length(&transformer, "max_seq_length")
            .map_err(|what| bad(files, TRANSFORMER, &what))?;
        declared.lower_case = truthy(&transformer["do_lower_case"]);
        let tokenizer = json_file(files, TOKENIZER)?.unwrap_or_default();
        declared.model_max_length =
            length(&tokenizer, "model_max_length").map_err(|what| bad(files, TOKENIZER, &what))?;
        Ok(declared)
    }

    fn read_modules(&mut self, files: &Files) -> Result<(), Error> {
        let Some(modules) = json_file(files, MODULES)? else { return Ok(()) };
        let modules = modules.as_array().map(Vec::as_slice).unwrap_or_default();
        self.normalize = Some(false);
        for module in modules {
            let kind = module["type"].as_str().unwrap_or_default();
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Normalize" => {
                    check_normalize(files, module["path"].as_str().unwrap_or_default())?;
                    self.normalize = Some(true);
                    self.modules.push(DeclaredModule::Normalize);
                }
                "Dropout" => {}
                name @ ("Dense" | "LayerNorm") => {
                    // Vectors that another module follows are not normalised at the end.
                    self.normalize = Some(false);
                    let folder = module["path"].as_str().unwrap_or_default().to_owned();
                    self.modules.push(match name {
                        "Dense" => DeclaredModule::Dense(folder),
                        _ => DeclaredModule::LayerNorm(folder),
                    });
                }
                "Pooling" => {
                    self.read_pooling(files, module["path"].as_str().unwrap_or_default())?;
                }
                _ => self.others.push(kind.to_owned()),
            }
        }
        // The last one is an option of each call.
        if self.modules.last() == Some(&DeclaredModule::Normalize) {
            self.modules.pop();
        }
        Ok(())
    }

    fn read_pooling(&mut self, files: &Files, folder: &str) -> Result<(), Error> {
        let name = module_file(files, folder, "config.json")?;
        let config = object(files, &name)?;
        let pooling = mode(&config).map_err(|what| bad(files, &name, &what))?;
        self.pooling = Some(pooling);
        self.prompt_excluded = config.get("include_prompt").is_some_and(|on| !truthy(on));
        Ok(())
    }

    fn read_prompts(&mut self, files: &Files) -> Result<(), Error> {
        if !files.has(PROMPTS) {
            return Ok(());
        }
        let config = object(files, PROMPTS)?;
        // For a reranker whose encoder embeds, sentence-transformers ignores the prompts.
        if config.get("model_type").is_some_and(|kind| kind != "SentenceTransformer") {
            return Ok(());
        }
        self.prompts = prompts(&config).map_err(|what| bad(files, PROMPTS, &what))?;
        self.default_prompt =
            self.default_of(&config).map_err(|what| bad(files, PROMPTS, &what))?;
        Ok(())
    }

    /// Name of the default prompt that a file declares, which must be one of the prompts.
    fn default_of(&self, config: &Map<String, Value>) -> Result<Option<String>, String> {
        match config.get("default_prompt_name") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) if self.prompts.contains_key(name) => Ok(Some(name.clone())),
            Some(Value::String(name)) if ALWAYS.contains(&&**name) => Ok(None),
            Some(Value::String(name)) => {
                Err(format!("default_prompt_name `{name}`: {}", self.known_prompts()))
            }
            Some(other) => Err(format!("default_prompt_name: expected a name, got {other}")),
        }
    }

    /// Prompt by name.
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown name, with the known names.
    pub fn prompt(&self, name: &str) -> Result<&str, Error> {
        self.prompts.get(name).map(String::as_str).ok_or_else(|| {
            let name: String = name.chars().take(100).collect();
            Error::Option(format!("prompt name `{name}`: {}", self.known_prompts()))
        })
    }

    /// Names of the prompts, for messages.
    pub fn known_prompts(&self) -> String {
        let names: Vec<String> = self.prompts.keys().map(|name| format!("`{name}`")).collect();
        if names.is_empty() {
            "this model has no prompts".to_owned()
        } else {
            format!("this model's prompts are {}", names.join(", "))
        }
    }

    /// Token limit as in sentence-transformers, and the key that sets it: `max_seq_length` if it is
    /// declared, otherwise the smaller of `model_max_length` and `max_position_embeddings`.
    pub fn limit(&self, config: &Config) -> (usize, &'static str) {
        match (self.max_seq_length, self.model_max_length) {
            (Some(declared), _) => (declared, "max_seq_length"),
            (None, Some(declared)) if declared < config.max_length => {
                (declared, "model_max_length")
            }
            _ => (config.max_length, "max_position_embeddings"),
        }
    }
}

impl fmt::Display for DeclaredModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normalize => "Normalize",
            Self::Dense(_) => "Dense",
            Self::LayerNorm(_) => "LayerNorm",
        })
    }
}

impl fmt::Display for SentenceTransformersConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.pooling.as_deref().unwrap_or("not declared"))?;
        if self.prompt_excluded {
            f.write_str(" without the prompt")?;
        }
        for module in &self.modules {
            write!(f, ", {module}")?;
        }
        match self.normalize {
            None => {}
            Some(true) => f.write_str(", then normalised")?,
            Some(false) => f.write_str(", not normalised")?,
        }
        if self.others.is_empty() { Ok(()) } else { write!(f, ", and {}", self.others.join(", ")) }
    }
}

/// Token limit in a file.
fn length(file: &Value, key: &str) -> Result<Option<usize>, String> {
    match &file[key] {
        Value::Null => Ok(None),
        // Python's value for "no limit" is 10^30, which only a float holds.
        value => match value.as_f64() {
            Some(tokens) if tokens >= 1.0 && tokens.fract() == 0.0 => Ok(Some(tokens as usize)),
            _ => Err(format!("{key}: expected 1 or more tokens, got {value}")),
        },
    }
}

/// Prompts by name, from the key `prompts`.
fn prompts(config: &Map<String, Value>) -> Result<BTreeMap<String, String>, String> {
    match config.get("prompts") {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(prompts)) => prompts.iter().map(prompt).collect(),
        Some(other) => Err(format!("prompts: expected an object, got {other}")),
    }
}

/// Name and text of a prompt; null is an empty text.
fn prompt((name, text): (&String, &Value)) -> Result<(String, String), String> {
    match text {
        Value::Null => Ok((name.clone(), String::new())),
        Value::String(text) => Ok((name.clone(), text.clone())),
        other => Err(format!("prompt `{name}`: expected a text, got {other}")),
    }
}

/// Checks that a module reads and writes the text's vector, not the tokens'.
pub fn of_sentence(config: &Map<String, Value>) -> Result<(), String> {
    const VECTOR: &str = "sentence_embedding";
    for key in ["module_input_name", "module_output_name"] {
        match config.get(key).unwrap_or(&Value::Null) {
            Value::Null => {}
            Value::String(name) if name == VECTOR => {}
            other => return Err(format!("{key}: expected `{VECTOR}`, got {other}")),
        }
    }
    Ok(())
}

/// Checks the settings of a `Normalize`, if it has any.
fn check_normalize(files: &Files, folder: &str) -> Result<(), Error> {
    let name = module_file(files, folder, "config.json")?;
    if folder.is_empty() || !files.has(&name) {
        return Ok(());
    }
    of_sentence(&object(files, &name)?).map_err(|what| bad(files, &name, &what))
}

/// Path of a file in a module's folder.
///
/// # Errors
/// [`Error::Model`] for a folder outside the model's own.
pub fn module_file(files: &Files, folder: &str, name: &str) -> Result<String, Error> {
    let parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    if folder.starts_with('/') || !parts.iter().all(|part| is_plain(part)) {
        let what = format!("`{}` is not a folder of the model", folder.escape_debug());
        return Err(bad(files, MODULES, &what));
    }
    Ok([&parts[..], &[name]].concat().join("/"))
}

/// True for the name of a folder that stays in the folder above it, on every system.
fn is_plain(folder: &str) -> bool {
    !matches!(folder, "." | "..") && !folder.contains(['\\', ':', '\0'])
}

/// Active pooling modes: from the key `pooling_mode`, a string or a list of strings, or from one
/// key per mode, `pooling_mode_mean_tokens` for `mean`.  The mean if there is none, as in
/// sentence-transformers.
fn mode(config: &Map<String, Value>) -> Result<String, String> {
    let Some(value) = config.get("pooling_mode") else {
        let on = config.iter().filter(|(_, value)| truthy(value));
        let modes: Vec<&str> = on
            .filter_map(|(key, _)| key.strip_prefix("pooling_mode_"))
            .map(|key| match key {
                "mean_sqrt_len_tokens" => key,
                _ => key.trim_end_matches("_tokens").trim_end_matches("_token"),
            })
            .collect();
        return Ok(if modes.is_empty() { "mean".to_owned() } else { modes.join(" + ") });
    };
    let names: Option<Vec<&str>> = match value {
        Value::String(name) => Some(vec![name]),
        Value::Array(list) if !list.is_empty() => list.iter().map(Value::as_str).collect(),
        _ => None,
    };
    let modes = names.ok_or_else(|| {
        format!("pooling_mode: expected the name of a pooling or a list of names, got {value}")
    })?;
    Ok(modes.join(" + "))
}

/// True if Python treats the value as true.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn files(all: &[(&str, Value)]) -> Files {
        let with = |files: Files, (name, value): &(&str, Value)| {
            files.with(*name, value.to_string().into_bytes())
        };
        all.iter().fold(Files::memory(), with)
    }

    fn pooling(config: Value) -> Result<SentenceTransformersConfig, Error> {
        let modules = json!([{"type": "sentence_transformers.models.Pooling", "path": "2_P/"}]);
        SentenceTransformersConfig::open(&files(&[
            ("modules.json", modules),
            ("2_P/config.json", config),
        ]))
    }

    #[test]
    fn pooling_is_read_in_the_keys_of_every_version() {
        let old = |on: &str| json!({"word_embedding_dimension": 64, on: true, "x": true});
        for (config, expected) in [
            (old("pooling_mode_cls_token"), "cls"),
            (old("pooling_mode_mean_tokens"), "mean"),
            (old("pooling_mode_lasttoken"), "lasttoken"),
            (json!({"pooling_mode_cls_token": 1, "pooling_mode_mean_tokens": 0}), "cls"),
            (old("y"), "mean"),
            (json!({"pooling_mode": "cls"}), "cls"),
            (json!({"pooling_mode": ["cls"]}), "cls"),
            (json!({"pooling_mode": ["cls", "mean"]}), "cls + mean"),
            (json!({"pooling_mode": "weightedmean"}), "weightedmean"),
            // The new key has priority.
            (json!({"pooling_mode": "cls", "pooling_mode_mean_tokens": true}), "cls"),
        ] {
            let declared = pooling(config.clone()).expect("a pooling");
            assert_eq!(declared.pooling.as_deref(), Some(expected), "{config}");
        }
        for config in [json!(null), json!(3), json!([]), json!(["cls", 3]), json!({})] {
            let error = pooling(json!({"pooling_mode": config})).expect_err("no pooling");
            assert!(
                error.to_string().contains("2_P/config.json`: pooling_mode: expected"),
                "{error}"
            );
        }
        assert!(pooling(json!([])).is_err());
    }

    #[test]
    fn a_pooling_that_is_declared_must_be_there_and_the_models_own() {
        for (folder, says) in [
            ("1_Pooling", "cannot read `1_Pooling/config.json`"),
            ("../other", "`../other` is not a folder of the model"),
            ("/etc", "`/etc` is not a folder"),
            ("a\\b", "is not a folder"),
        ] {
            let modules = json!([{"type": "sentence_transformers.models.Pooling", "path": folder}]);
            let error = SentenceTransformersConfig::open(&files(&[("modules.json", modules)]))
                .expect_err(folder);
            assert!(error.exit_code() == 66 && error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn modules_are_read_whoever_made_them() {
        let modules = json!([
            {"type": "custom_st.Transformer", "path": ""},
            {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
            {"type": "sentence_transformers.models.CNN", "path": "2_CNN"},
            {"type": "sentence_transformers.models.Normalize", "path": "3_Normalize"},
        ]);
        let pooling = json!({"pooling_mode_cls_token": true, "pooling_mode_max_tokens": true,
            "include_prompt": false});
        let found = files(&[("modules.json", modules), ("1_Pooling/config.json", pooling)]);
        let declared = SentenceTransformersConfig::open(&found).expect("JSON");
        let said =
            "cls + max without the prompt, then normalised, and sentence_transformers.models.CNN";
        assert_eq!(declared.to_string(), said);
        assert_eq!(
            SentenceTransformersConfig::open(&Files::memory()).expect("nothing"),
            SentenceTransformersConfig::default()
        );
        assert!(
            SentenceTransformersConfig::open(
                &Files::memory().with("modules.json", b"nope".to_vec())
            )
            .is_err()
        );
    }

    #[test]
    fn prompts_are_read() {
        let open = |config: Value| SentenceTransformersConfig::open(&files(&[(PROMPTS, config)]));
        let prompts = json!({"query": "query: ", "passage": "passage: ", "none": null});
        let both = json!({"prompts": prompts, "default_prompt_name": "passage"});
        let declared = open(both).expect("prompts");
        assert_eq!(declared.default_prompt.as_deref(), Some("passage"));
        assert_eq!(
            (declared.prompt("query").ok(), declared.prompt("none").ok()),
            (Some("query: "), Some(""))
        );
        let error = declared.prompt("document").expect_err("unknown").to_string();
        assert_eq!(
            error,
            "prompt name `document`: this model's prompts are `none`, `passage`, `query`"
        );
        // Every sentence-transformers model has these two.
        assert_eq!(
            open(json!({"default_prompt_name": "query"})).expect("none"),
            SentenceTransformersConfig::default()
        );
        let reranker = json!({"model_type": "CrossEncoder", "prompts": prompts});
        assert_eq!(open(reranker).expect("none"), SentenceTransformersConfig::default());
        let error = open(json!({})).expect("none").prompt("a").expect_err("unknown").to_string();
        assert!(error.contains("no prompts"), "{error}");
        for (config, says) in [
            (
                json!({"default_prompt_name": "x", "prompts": {"a": "b"}}),
                "`x`: this model's prompts are `a`",
            ),
            (json!({"default_prompt_name": 3}), "expected a name, got 3"),
            (json!({"prompts": ["a"]}), "expected an object, got [\"a\"]"),
            (json!({"prompts": {"a": 3}}), "prompt `a`: expected a text, got 3"),
            (json!([]), "expected an object"),
        ] {
            let error = open(config).expect_err(says);
            let line = error.to_string();
            assert!(
                error.exit_code() == 66 && line.contains(says) && line.contains(PROMPTS),
                "{line}"
            );
        }
    }

    #[test]
    fn the_limit_is_what_sentence_transformers_has() {
        let config = r#"{"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1,
            "intermediate_size": 64, "vocab_size": 9, "max_position_embeddings": 1024}"#;
        let config = Config::open(&Files::memory().with("config.json", config)).expect("sizes");
        let own = (1024, "max_position_embeddings");
        for (seq, model, expected) in [
            (Value::Null, Value::Null, own),
            (json!(512), Value::Null, (512, "max_seq_length")),
            (json!(512.0), json!(20), (512, "max_seq_length")),
            (json!(8192), json!(20), (8192, "max_seq_length")),
            (Value::Null, json!(20), (20, "model_max_length")),
            (Value::Null, json!(8192), own),
            (Value::Null, json!(1e30), own),
        ] {
            let found = files(&[
                (TRANSFORMER, json!({"max_seq_length": seq, "do_lower_case": false})),
                (TOKENIZER, json!({"model_max_length": model})),
            ]);
            let declared = SentenceTransformersConfig::open(&found).expect("lengths");
            assert_eq!(declared.limit(&config), expected, "{seq} {model}");
        }
        for value in [json!(0), json!(-1), json!(1.5), json!("512"), json!([])] {
            let error = SentenceTransformersConfig::open(&files(&[(
                TRANSFORMER,
                json!({"max_seq_length": value}),
            )]));
            let error = error.expect_err("no length").to_string();
            assert!(error.contains("max_seq_length: expected 1 or more tokens, got"), "{error}");
        }
    }
}
