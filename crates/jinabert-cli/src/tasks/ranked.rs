//! Ranked documents, as lines of JSON.

use super::kept::Kept;
use crate::item::{Fields, Item};
use serde::Serialize;
use serde_json::value::RawValue;

/// Own fields of the output for ranked texts, without `id`.
pub const RANKED_FIELDS: &[&str] = &["index", "score", "logit", "tokens"];

/// Document with its score.
#[derive(Serialize)]
pub struct Ranked<'a> {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(flatten)]
    fields: &'a Fields,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    logit: Option<f32>,
    tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

impl<'a> Ranked<'a> {
    /// Record of a text with its score, its logit if there is one, and the tokens read for it.
    pub fn new(item: &'a Item, score: f32, logit: Option<f32>, tokens: usize) -> Self {
        Self {
            index: item.index,
            id: item.id.as_deref(),
            fields: &item.fields,
            score,
            logit,
            tokens,
            text: item.text(),
        }
    }

    /// Record of a document of kept vectors with its score.
    pub fn of_kept(document: &'a Kept, score: f32) -> Self {
        Self {
            index: document.index,
            id: document.id.as_deref(),
            fields: &document.fields,
            score,
            logit: None,
            tokens: document.tokens,
            text: None,
        }
    }
}
