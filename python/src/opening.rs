//! Arguments for opening an embedder from Python.

use crate::call::Watch;
use jinabert::{
    Device, Dtype, Embedder, Error, Files, ModelInfo, OnLong, Options, Pooling, Prompt, Task, Tune,
    hub::{self, Revision},
};
use pyo3::{prelude::*, pybacked::PyBackedBytes};
use std::path::{Path, PathBuf};

/// Source of a model's files.
pub enum Source {
    /// Directory, or owner/name at the hub.
    Name(PathBuf),
    /// Files in memory, by name.
    Memory(Vec<(String, PyBackedBytes)>),
}

/// Keyword arguments of `Embedder`, from a dictionary.
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
    any_dimensions: bool,
    deterministic: bool,
    tune: bool,
    fallback: Option<bool>,
    revision: Option<String>,
    cache_dir: Option<PathBuf>,
}

impl Opening {
    /// Opens the embedder; a model of the hub is downloaded if it is not in the cache.
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
            device: self.device.parse::<Device>()?,
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
                Some(name) => name.parse()?,
            },
            // The Python code adds prompts to texts itself.
            prompt: Prompt::None,
            batch_tokens: self.batch_tokens,
            any_dimensions: self.any_dimensions,
            deterministic: self.deterministic,
            tune: if self.tune { Tune::Search } else { Tune::Off },
            fallback: self.fallback,
            ..Options::default()
        })
    }

    /// Task of the model: from the arguments, otherwise from its tensors.
    fn task(&self, files: &Files) -> Result<Task, Error> {
        match self.task.as_deref() {
            Some("embed") => Ok(Task::Embed),
            Some("rerank") => Ok(Task::Rerank),
            None => Ok(match ModelInfo::open(files.clone())?.task() {
                Task::Rerank | Task::MultiVector => Task::Rerank,
                _ => Task::Embed,
            }),
            Some(other) => Err(unknown("task", other, "embed and rerank")),
        }
    }

    /// Directory of the model, as for the command line: an existing path is not a hub name.
    fn directory(&self, name: &Path, watch: &Watch) -> Result<PathBuf, Error> {
        let Some(reference) = hub::meant(name)? else {
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
        let revision = self.revision.as_deref().map(str::parse::<Revision>).transpose()?;
        let (id, revision) = reference.with(revision.as_ref())?;
        hub::locate(name, &id, &revision, self.cache_dir.as_deref(), &|progress| {
            // A partial download is continued by the next call.
            watch.hear(progress.file, progress.at, progress.size)
        })
    }
}

/// Policy for texts over the limit.
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
