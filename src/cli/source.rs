//! Which model is meant: a directory, one of the hub, or the shipped one.

use super::{Failure, args::Source, pull, shipped};
use crate::{
    Error,
    hub::{Hub, Id},
};
use std::path::{Path, PathBuf};

/// The model's directory, pulled before if it is to be.
pub fn directory(source: &Source, quiet: bool) -> Result<PathBuf, Failure> {
    let Source { model, hub } = source;
    if let (Some(path), Some(id)) = (model, id(source)) {
        let revision = hub.revision.clone().unwrap_or_default();
        let bar = pull::Bar::new(quiet);
        let open = Hub::from_env(hub.cache_dir.as_deref())
            .and_then(|hub| hub.open(&id, &revision, &|progress| bar.show(progress)));
        bar.finish();
        let neither = |what: String| format!("{what}; no directory `{}` either", path.display());
        return Ok(open.map_err(|error| match error {
            Error::Hub(what) => Error::Hub(neither(what)),
            Error::Network(what) => Error::Network(neither(what)),
            other => other,
        })?);
    }
    if let Some(revision) = &hub.revision {
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

/// The model of the hub that is meant, if one is: what exists is not looked for there.
fn id(source: &Source) -> Option<Id> {
    let path = source.model.as_ref().filter(|path| !path.exists())?;
    path.to_str()?.parse().ok()
}
