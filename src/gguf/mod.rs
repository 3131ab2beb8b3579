//! GGUF: models of llama.cpp and Ollama in one file, read as the files of a Hugging Face directory.
//!
//! The metadata become `config.json`, `tokenizer.json` and `modules.json`; the tensors get the
//! names that transformers gives them, and blocks of small integers become f32 as they are read.

mod config;
mod header;
mod names;
mod quants;
#[cfg(test)]
mod tests;
mod tokenizer;

use crate::{error::Error, memory::Mapped};
use header::Header;
pub(crate) use header::TensorEntry;
use names::Names;
pub(crate) use quants::GgmlType;
use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

/// A model in a GGUF file.
pub(crate) struct GgufFile {
    path: PathBuf,
    bytes: Mapped,
    header: Header,
    /// Files of a directory, made from the metadata.
    texts: BTreeMap<&'static str, String>,
    /// Tensors of the file, by transformers' names.
    names: Names,
}

impl GgufFile {
    /// True for the path of such a file.
    pub(crate) fn is(path: &Path) -> bool {
        path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
    }

    /// Maps a file and reads its header.  `given` is its path for messages.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Model`] for a damaged file, or an architecture or a tokenizer that
    /// is not supported.
    pub(crate) fn open(given: &Path, path: &Path) -> Result<Self, Error> {
        let bad = |what: String| Error::Model(format!("`{}`: {what}", given.display()));
        let bytes = Mapped::open(path);
        let bytes = bytes.map_err(|source| Error::Read { path: given.to_owned(), source })?;
        let header = Header::read(&bytes).map_err(bad)?;
        let names = Names::of(&header).map_err(bad)?;
        let mut texts = BTreeMap::new();
        let config = config::config(&header, &names).map_err(bad)?;
        texts.insert("config.json", config.to_string());
        if let Some(tokenizer) = tokenizer::tokenizer(&header).map_err(bad)? {
            texts.insert("tokenizer.json", tokenizer.to_string());
        }
        for (name, value) in config::pooling(&header).map_err(bad)? {
            texts.insert(name, value.to_string());
        }
        Ok(Self { path: given.to_owned(), bytes, header, texts, names })
    }

    /// Text of a file of a model's directory.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// The file's path, as given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Tensors by transformers' names: one, or several below each other, with their own names.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (&str, Vec<(&str, &TensorEntry)>)> {
        self.names.parts.iter().map(|(name, stored)| {
            let parts = stored.iter().map(|name| (name.as_str(), &self.header.tensors[name]));
            (name.as_str(), parts.collect())
        })
    }
}

impl fmt::Debug for GgufFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}
