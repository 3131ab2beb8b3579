//! Query settings of a ColBERT checkpoint, from `artifact.metadata`.

use super::config::plain;
use crate::{error::Error, files::Files};
use serde::Deserialize;
use serde_json::Value;

const FILE: &str = "artifact.metadata";

/// Query padding.  ColBERT pads a query with masks; the vector of each one stands for further
/// meanings of the query (Khattab and Zaharia 2020, arXiv:2004.12832).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColbertConfig {
    /// Length of a padded query in tokens, special tokens included.
    pub length: usize,
    /// True if tokens attend to the masks; if false, no token attends to a mask; none if the
    /// checkpoint does not say.
    pub attend: Option<bool>,
}

impl Default for ColbertConfig {
    /// ColBERT's defaults.
    fn default() -> Self {
        Self { length: 32, attend: None }
    }
}

/// Keys that are read; the others are about training, indexing and search.
#[derive(Deserialize)]
struct Settings {
    query_maxlen: Option<usize>,
    attend_to_mask_tokens: Option<bool>,
}

impl ColbertConfig {
    /// Reads the file of a model, if it exists.
    ///
    /// # Errors
    /// [`Error::Read`] and [`Error::Model`] for the file.
    pub fn open(files: &Files) -> Result<Self, Error> {
        if !files.has(FILE) {
            return Ok(Self::default());
        }
        let path = files.path(FILE);
        Self::parse(&files.text(FILE)?)
            .map_err(|e| Error::Model(format!("`{}`: {e}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let mut value: Value = serde_json::from_str(text)?;
        // Newer files keep settings and provenance side by side.
        if let Some(config) = value.get_mut("config") {
            value = config.take();
        }
        if let Some(keys) = value.as_object_mut() {
            plain(keys);
        }
        let Settings { query_maxlen, attend_to_mask_tokens } = serde_json::from_value(value)?;
        let usual = Self::default();
        Ok(Self { length: query_maxlen.unwrap_or(usual.length), attend: attend_to_mask_tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_their_absence_is_none() {
        let parse = |text: &str| ColbertConfig::parse(text).map_err(|error| error.to_string());
        assert_eq!(parse("{}"), Ok(ColbertConfig { length: 32, attend: None }));
        let said = r#"{"dim": 128, "query_maxlen": 48, "attend_to_mask_tokens": true}"#;
        assert_eq!(parse(said), Ok(ColbertConfig { length: 48, attend: Some(true) }));
        let within =
            r#"{"meta": {}, "config": {"query_maxlen": 24, "attend_to_mask_tokens": null}}"#;
        assert_eq!(parse(within), Ok(ColbertConfig { length: 24, attend: None }));
        assert_eq!(
            parse(r#"{"query_maxlen": 48.0}"#),
            Ok(ColbertConfig { length: 48, attend: None })
        );
        for bad in ["", "[]", r#"{"query_maxlen": -1}"#, r#"{"query_maxlen": "long"}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
