//! Which model is meant: a directory, one of the hub, or the shipped one.

use super::{Failure, args::Source, pull, shipped};
use crate::hub::{self, Id};
use std::path::{Path, PathBuf};

/// The model's directory, pulled before if it is to be.
pub fn directory(source: &Source, quiet: bool) -> Result<PathBuf, Failure> {
    let Source { model, hub: choice } = source;
    if let (Some(path), Some(id)) = (model, id(source)) {
        let revision = choice.revision.clone().unwrap_or_default();
        let bar = pull::Bar::new(quiet);
        let cache = choice.cache_dir.as_deref();
        let found = hub::locate(path, &id, &revision, cache, &|progress| bar.show(progress));
        bar.finish();
        return Ok(found?);
    }
    if let Some(revision) = &choice.revision {
        let what = model
            .as_ref()
            .map_or("the shipped model".into(), |path| format!("`{}`", path.display()));
        let message = format!("--revision {revision} is for models of the hub, {what} is none");
        return Err(Failure::Usage(message));
    }
    model.clone().map_or_else(shipped::directory, Ok)
}

/// What a model is called: its name at the hub, or its directory's.
pub fn name(source: &Source, dir: &Path) -> String {
    let path = match id(source) {
        Some(id) => PathBuf::from(id.as_str()),
        None => dir.canonicalize().unwrap_or_else(|_| dir.to_owned()),
    };
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The model of the hub that is meant, if one is.
fn id(source: &Source) -> Option<Id> {
    hub::meant(source.model.as_ref()?)
}
