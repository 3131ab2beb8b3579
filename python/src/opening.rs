//! What an embedder is opened with, in Python's words.

use crate::call::Watch;
use jinabert::{
    Device, Embedder, Error, Files, OnLong, Options, Pooling, Task, Tune,
    hub::{self, Revision},
    kernels::Dtype,
    model::Inspection,
};
use pyo3::{prelude::*, pybacked::PyBackedBytes};
use std::path::{Path, PathBuf};

/// Where a model's files are.
pub enum Source {
    /// A directory, or owner/name at the hub.
    Name(PathBuf),
    /// In memory, by name.
    Memory(Vec<(String, PyBackedBytes)>),
}

/// A dictionary of the keyword arguments of `Embedder`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Opening {
    task: Option<String>,
    device: String,
    dtype: String,
    max_length: Option<usize>,
    on_long: String,
    overlap: usize,
    pooling: Option<String>,
    batch_tokens: Option<usize>,
    deterministic: bool,
    tune: bool,
    fallback: Option<bool>,
    revision: Option<String>,
    cache_dir: Option<PathBuf>,
}

impl Opening {
    /// Opens it; a model of the hub is pulled if it is not in the cache.
    pub fn open(self, source: Source, watch: &Watch) -> Result<Embedder, Error> {
        let options = self.options()?;
        let files = match source {
            Source::Memory(_) if self.revision.is_some() => {
                return Err(bad("revision", "for models of the hub, not for files in memory"));
            }
            Source::Memory(files) => {
                files.into_iter().fold(Files::memory(), |all, (name, bytes)| all.with(name, bytes))
            }
            Source::Name(name) => Files::directory(self.directory(&name, watch)?),
        };
        let task = self.task(&files)?;
        Embedder::open_with(files, Options { task, ..options })
    }

    fn options(&self) -> Result<Options, Error> {
        Ok(Options {
            device: self.device.parse::<Device>().map_err(Error::Option)?,
            dtype: match &self.dtype[..] {
                "f32" | "float32" => Dtype::F32,
                "f16" | "float16" => Dtype::F16,
                other => return Err(unknown("dtype", other, "float32 and float16")),
            },
            max_length: self.max_length,
            on_long: on_long(&self.on_long)?,
            overlap: self.overlap,
            pooling: match self.pooling.as_deref() {
                None => Pooling::Auto,
                Some("mean") => Pooling::Mean,
                Some("cls") => Pooling::Cls,
                Some(other) => return Err(unknown("pooling", other, "mean and cls")),
            },
            batch_tokens: self.batch_tokens,
            deterministic: self.deterministic,
            tune: if self.tune { Tune::Search } else { Tune::Off },
            fallback: self.fallback,
            ..Options::default()
        })
    }

    /// What the model is for: as the caller says, otherwise what its tensors say.
    fn task(&self, files: &Files) -> Result<Task, Error> {
        match self.task.as_deref() {
            Some("embed") => Ok(Task::Embed),
            Some("rerank") => Ok(Task::Rerank),
            None => Ok(match Inspection::open(files.clone())?.task() {
                Task::Rerank => Task::Rerank,
                _ => Task::Embed,
            }),
            Some(other) => Err(unknown("task", other, "embed and rerank")),
        }
    }

    /// As the command line finds it: what exists is not looked for at the hub.
    fn directory(&self, name: &Path, watch: &Watch) -> Result<PathBuf, Error> {
        let Some(id) = hub::meant(name) else {
            return match &self.revision {
                None => Ok(name.to_owned()),
                Some(revision) => {
                    let name = name.display();
                    Err(bad(
                        "revision",
                        &format!("{revision} is for models of the hub, `{name}` is none"),
                    ))
                }
            };
        };
        let revision = match &self.revision {
            Some(revision) => revision.parse()?,
            None => Revision::default(),
        };
        hub::locate(name, &id, &revision, self.cache_dir.as_deref(), &|progress| {
            // A file that is left half fetched is fetched on by the next call.
            watch.hear(progress.file, progress.at, progress.size)
        })
    }
}

/// What happens to a text over the limit.
pub fn on_long(name: &str) -> Result<OnLong, Error> {
    match name {
        "error" => Ok(OnLong::Error),
        "truncate" => Ok(OnLong::Truncate),
        "window" => Ok(OnLong::Window),
        other => Err(unknown("on_long", other, "error, truncate and window")),
    }
}

fn unknown(option: &str, value: &str, known: &str) -> Error {
    Error::Option(format!("{option} `{value}`: {known} are known"))
}

fn bad(option: &str, what: &str) -> Error {
    Error::Option(format!("{option}: {what}"))
}
