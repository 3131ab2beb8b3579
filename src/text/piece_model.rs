//! The library's tokenizer, with a model that is quick to open.

use super::unigram::{Unigram, UnigramFile};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::value::RawValue;
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};
use tokenizers::{
    DecoderWrapper, Model, ModelWrapper, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, Result, Token, TokenizerImpl,
    models::{TrainerWrapper, unigram::UnigramTrainer},
};

/// Tokenizer of the library.
pub type Library = TokenizerImpl<
    PieceModel,
    NormalizerWrapper,
    PreTokenizerWrapper,
    PostProcessorWrapper,
    DecoderWrapper,
>;

/// Model of a tokenizer: from a word to its pieces.
pub enum PieceModel {
    /// One of the library's.
    Library(ModelWrapper),
    /// Unigram language model.
    Unigram(Unigram),
}

impl<'de> Deserialize<'de> for PieceModel {
    fn deserialize<D: Deserializer<'de>>(json: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Kind {
            r#type: Option<String>,
        }
        let json = Box::<RawValue>::deserialize(json)?;
        let kind: Kind = serde_json::from_str(json.get()).map_err(D::Error::custom)?;
        if kind.r#type.as_deref() == Some("Unigram") {
            let file: UnigramFile = serde_json::from_str(json.get()).map_err(D::Error::custom)?;
            return Unigram::try_from(file).map(Self::Unigram).map_err(D::Error::custom);
        }
        serde_json::from_str(json.get()).map(Self::Library).map_err(D::Error::custom)
    }
}

impl Model for PieceModel {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, text: &str) -> Result<Vec<Token>> {
        match self {
            Self::Library(model) => model.tokenize(text),
            Self::Unigram(model) => model.tokenize(text),
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        match self {
            Self::Library(model) => model.token_to_id(token),
            Self::Unigram(model) => model.id(token),
        }
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            Self::Library(model) => model.id_to_token(id),
            Self::Unigram(model) => model.piece(id).map(str::to_owned),
        }
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        match self {
            Self::Library(model) => model.get_vocab(),
            Self::Unigram(model) => model.pieces(),
        }
    }

    fn get_vocab_size(&self) -> usize {
        match self {
            Self::Library(model) => model.get_vocab_size(),
            Self::Unigram(model) => model.size(),
        }
    }

    fn save(&self, folder: &Path, prefix: Option<&str>) -> Result<Vec<PathBuf>> {
        match self {
            Self::Library(model) => model.save(folder, prefix),
            Self::Unigram(_) => Err("a unigram model is only read, from tokenizer.json".into()),
        }
    }

    fn get_trainer(&self) -> TrainerWrapper {
        match self {
            Self::Library(model) => model.get_trainer(),
            Self::Unigram(_) => UnigramTrainer::default().into(),
        }
    }
}

/// Reads the library's tokenizer, or returns an error message.
pub fn read(bytes: &[u8]) -> std::result::Result<Library, String> {
    let json = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    // The library panics in some places if this is not JSON, or JSON of another kind.
    serde_json::from_slice::<serde::de::IgnoredAny>(json).map_err(|e| e.to_string())?;
    let mut inner = catch_unwind(|| Library::from_bytes(json))
        .map_err(|_| "not a tokenizer, though JSON")?
        .map_err(|e| e.to_string())?;
    inner.with_padding(None);
    inner.with_truncation(None).map_err(|e| e.to_string())?;
    // It also panics on any text if a post-processor names a token that does not exist.
    catch_unwind(AssertUnwindSafe(|| {
        (inner.encode("a", true).is_ok(), inner.encode(("a", "b"), true).is_ok())
    }))
    .map_err(|_| "its post-processor contradicts itself")?;
    Ok(inner)
}
