//! How a ColBERT checkpoint has its queries, as `artifact.metadata` says.

use crate::{error::Error, files::Files};
use serde::Deserialize;
use serde_json::Value;

const FILE: &str = "artifact.metadata";

/// ColBERT pads a query with masks, each of which gets a vector that looks for what the query may
/// also mean (Khattab and Zaharia 2020, arXiv:2004.12832).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queries {
    /// Tokens of a padded query, special ones included.
    pub length: usize,
    /// Whether tokens attend to the masks, or the masks to the tokens alone.
    pub attend: bool,
}

impl Default for Queries {
    /// ColBERT's own.
    fn default() -> Self {
        Self { length: 32, attend: false }
    }
}

/// What is read of the file; the rest is about training, indexing and search.
#[derive(Deserialize)]
struct Settings {
    query_maxlen: Option<usize>,
    attend_to_mask_tokens: Option<bool>,
}

impl Queries {
    /// Reads the file of a model, if there is one.
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
        // Newer files have settings and what they were made by side by side.
        if let Some(config) = value.get_mut("config") {
            value = config.take();
        }
        let Settings { query_maxlen, attend_to_mask_tokens } = serde_json::from_value(value)?;
        let usual = Self::default();
        Ok(Self {
            length: query_maxlen.unwrap_or(usual.length),
            attend: attend_to_mask_tokens.unwrap_or(usual.attend),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_their_absence_is_none() {
        let parse = |text: &str| Queries::parse(text).map_err(|error| error.to_string());
        assert_eq!(parse("{}"), Ok(Queries { length: 32, attend: false }));
        let said = r#"{"dim": 128, "query_maxlen": 48, "attend_to_mask_tokens": true}"#;
        assert_eq!(parse(said), Ok(Queries { length: 48, attend: true }));
        let within =
            r#"{"meta": {}, "config": {"query_maxlen": 24, "attend_to_mask_tokens": null}}"#;
        assert_eq!(parse(within), Ok(Queries { length: 24, attend: false }));
        for bad in ["", "[]", r#"{"query_maxlen": -1}"#, r#"{"query_maxlen": "long"}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
