//! Task of a checkpoint, detected from its tensor names.

use crate::error::Error;
use std::fmt;

/// Decoder of a masked language model, unless it is tied to the word embeddings.
pub(super) const DECODER: &str = "cls.predictions.decoder.weight";

/// True if a matrix is f32 on every device: a small one that is in no product, or only in a product
/// on the host.
pub(super) fn in_f32(name: &str) -> bool {
    let names = [
        "embeddings.token_type_embeddings.",
        "embeddings.position_embeddings.",
        "pooler.dense.",
        "classifier.",
    ];
    names.iter().any(|start| name.starts_with(start))
}

/// Task of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// One vector per text, from an embedding model.
    #[default]
    Embed,
    /// A score for a pair of texts, by a classifier, or by ColBERT's MaxSim.
    Rerank,
    /// A short vector per token (ColBERT).
    MultiVector,
    /// Candidates for masked tokens.
    FillMask,
    /// Encoder output of any model.
    Encode,
}

/// Head after the encoder.
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
    /// Detects the head from the tensor names.
    pub fn detect<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<Self> {
        names.find_map(|name| match name {
            "classifier.weight" | "classifier.out_proj.weight" => Some(Self::Classifier),
            "linear.weight" => Some(Self::Projection),
            "cls.predictions.transform.dense.weight" => Some(Self::MaskedLm),
            _ => None,
        })
    }

    /// True if the head reads a tensor; `has` tests for tensors of the checkpoint.
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

    /// Task of the head.
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
    /// Head to load for the task, if the checkpoint has a suitable one.
    ///
    /// # Errors
    /// [`Error::Model`], naming the task of the checkpoint.
    pub fn head(self, found: Option<HeadKind>) -> Result<Option<HeadKind>, Error> {
        match (self, found) {
            (Self::Encode, _) | (Self::Embed, None | Some(HeadKind::MaskedLm)) => Ok(None),
            (task, Some(kind)) if kind.task() == task => Ok(Some(kind)),
            // MaxSim ranks, too.
            (Self::Rerank, Some(HeadKind::Projection)) => Ok(found),
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
