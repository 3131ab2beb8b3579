//! Resolution of a model: a directory, a model of the hub, or the shipped model.

use crate::{
    error::CliError,
    options::{ModelArgs, Source},
    progress::DownloadBar,
    shipped,
};
use jinabert::{
    Embedder, Error, Options, Task,
    hub::{self, Reference},
    model::{HeadKind, ModelInfo},
};
use std::path::{Path, PathBuf};

/// Checks that a model is given, for a command that the shipped model does not support.
pub fn named(source: &Source, command: &str, kind: &str) -> Result<(), CliError> {
    match source.model {
        Some(_) => Ok(()),
        None => Err(CliError::Usage(format!(
            "{command} needs {kind}, and the shipped model is none: name one with --model"
        ))),
    }
}

/// Opens the model for a command; returns also its directory.
pub fn open(
    args: &ModelArgs,
    options: Options,
    command: &str,
    quiet: bool,
) -> Result<(Embedder, PathBuf), CliError> {
    let dir = directory(&args.source, quiet)?;
    let task = options.task;
    let embedder = Embedder::open_with(&dir, options).map_err(|error| match error {
        Error::Model(_) => unfit(&dir, task, command).unwrap_or(error),
        other => other,
    })?;
    match (task, embedder.tokens().classes()) {
        // A ColBERT model has no class.
        (Task::Rerank, labels) if labels > 1 => Err(classifier(labels, command).into()),
        _ => Ok((embedder, dir)),
    }
}

/// Error that names the model's actual task; `None` if it was refused for another reason.
fn unfit(dir: &Path, task: Task, command: &str) -> Option<Error> {
    let found = ModelInfo::open(dir).ok()?;
    task.head(found.head).err()?;
    Some(match found.head {
        Some(HeadKind::Classifier) if found.labels() != 1 => classifier(found.labels(), command),
        Some(head) => {
            let also = if head == HeadKind::MaskedLm { ", perplexity and embed" } else { "" };
            let own = head.task();
            Error::Model(format!("this is {head}: it is for {own}{also}, not for {command}"))
        }
        None => Error::Model(format!(
            "this is an encoder without a head: it is for {}, not for {command}",
            Task::Embed
        )),
    })
}

fn classifier(labels: usize, command: &str) -> Error {
    Error::Model(format!(
        "this is a classifier of {labels} labels, and a reranker has 1: it is for `jinabert serve`, \
         which gives its classes (POST /predict), not for {command}"
    ))
}

/// Directory of the model, after a download if requested.
pub fn directory(source: &Source, quiet: bool) -> Result<PathBuf, CliError> {
    let Source { model, hub: choice } = source;
    if let Some(path) = model
        && let Some(reference) = reference(source)?
    {
        let (id, revision) = reference.with(choice.revision.as_ref())?;
        let bar = DownloadBar::new(quiet);
        let cache = choice.cache_dir.as_deref();
        let found = hub::locate(path, &id, &revision, cache, &|progress| bar.show(progress));
        bar.finish();
        return Ok(found?);
    }
    if let Some(revision) = &choice.revision {
        let what = match model {
            Some(path) => format!("the directory `{}`", path.display()),
            None => "the shipped model".to_owned(),
        };
        let message = format!("--revision {revision}: expected a model of the hub, got {what}");
        return Err(CliError::Usage(message));
    }
    model.clone().map_or_else(shipped::directory, Ok)
}

/// Name of a model: its name at the hub, or that of its directory.
pub fn name(source: &Source, dir: &Path) -> String {
    let path = match hub_name(source) {
        Some(name) => PathBuf::from(name),
        None => dir.canonicalize().unwrap_or_else(|_| dir.to_owned()),
    };
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Full name of a model of the hub.
pub fn hub_name(source: &Source) -> Option<String> {
    Some(reference(source).ok()??.id.to_string())
}

/// Reference to a model of the hub, if one is given.
fn reference(source: &Source) -> Result<Option<Reference>, Error> {
    source.model.as_ref().map_or(Ok(None), |model| hub::meant(model))
}
