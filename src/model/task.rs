//! What a checkpoint is for, by the names of its tensors.

use crate::error::Error;
use std::fmt;

/// Of a masked language model, unless it is tied to the word embeddings.
pub(super) const DECODER: &str = "cls.predictions.decoder.weight";

/// What a checkpoint is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// One vector per text, from a model that was made for it.
    #[default]
    Embed,
    /// A score for a pair of texts.
    Rerank,
    /// A short vector per token.
    MultiVector,
    /// What a masked token may be.
    FillMask,
    /// What the encoder of any model returns.
    Encode,
}

/// What may follow the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// Pooler and classifier of the first token.
    Classifier,
    /// ColBERT's projection of every token.
    Projection,
    /// Transform and decoder of a masked language model.
    MaskedLm,
}

impl HeadKind {
    /// Which one is there, by the names of its tensors.
    pub fn detect<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<Self> {
        names.find_map(|name| match name {
            "classifier.weight" => Some(Self::Classifier),
            "linear.weight" => Some(Self::Projection),
            "cls.predictions.transform.dense.weight" => Some(Self::MaskedLm),
            _ => None,
        })
    }

    /// Whether it reads a tensor, one of those that its checkpoint `has`.
    pub fn reads(self, name: &str, has: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Classifier => {
                ["pooler.dense.", "classifier."].iter().any(|p| name.starts_with(p))
            }
            Self::Projection => name == "linear.weight",
            Self::MaskedLm => match name {
                DECODER | "cls.predictions.bias" => true,
                "cls.predictions.decoder.bias" => !has("cls.predictions.bias"),
                _ => name.starts_with("cls.predictions.transform."),
            },
        }
    }

    /// What it is for.
    pub fn task(self) -> Task {
        match self {
            Self::Classifier => Task::Rerank,
            Self::Projection => Task::MultiVector,
            Self::MaskedLm => Task::FillMask,
        }
    }
}

impl fmt::Display for HeadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Classifier => "a reranker (pooler and classifier)",
            Self::Projection => "a ColBERT model (a projection of every token)",
            Self::MaskedLm => "a masked language model (transform and decoder)",
        })
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embed => "embed",
            Self::Rerank => "rerank",
            Self::MultiVector => "multi-vector",
            Self::FillMask => "fill-mask",
            Self::Encode => "encode",
        })
    }
}

impl Task {
    /// The head to load, if what the checkpoint has fits.
    ///
    /// # Errors
    /// [`Error::Model`] that says what the checkpoint is for.
    pub fn head(self, found: Option<HeadKind>) -> Result<Option<HeadKind>, Error> {
        match (self, found) {
            (Self::Encode, _) | (Self::Embed, None | Some(HeadKind::MaskedLm)) => Ok(None),
            (task, Some(kind)) if kind.task() == task => Ok(Some(kind)),
            (task, Some(kind)) => Err(Error::Model(format!(
                "this is {kind}: it is for {}, not for {task}",
                kind.task()
            ))),
            (task, None) => Err(Error::Model(format!(
                "this is an encoder without a head: it is for {}, not for {task}",
                Self::Embed
            ))),
        }
    }
}
