//! Models by name: from the Hugging Face hub, through the cache that its other clients share.
//!
//! A cached model is opened without a request.  Downloads become visible only when complete: every
//! file's length, and its hash if the hub states one, are checked before it becomes a blob; the
//! reference by which a later run finds the model is written last.
//!
//! ```no_run
//! use jinabert::{Embedder, hub};
//! use std::ops::ControlFlow;
//! let id = "jinaai/jina-embeddings-v2-base-en".parse()?;
//! let hub = hub::Hub::from_env(None)?;
//! let watch = |_: hub::Progress| ControlFlow::Continue(());
//! let directory = hub.open(&id, &hub::Revision::default(), &watch)?;
//! let embedder = Embedder::open(directory)?;
//! # Ok::<(), jinabert::Error>(())
//! ```

mod cache;
mod client;
mod digest;
mod download;
mod names;
mod repo;
mod roots;
mod settings;

use crate::error::Error;
use cache::{Cache, CacheMiss};
use client::Client;
pub use names::{Id, Reference, Revision};
use settings::Settings;
use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    slice,
};

/// Progress of a download.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Name of the file in the repository.
    pub file: &'a str,
    /// Size of the file in bytes.
    pub size: u64,
    /// Bytes present so far.
    pub at: u64,
}

/// Callback for progress that may cancel the download; the next run continues it.
pub type Watch<'a> = &'a dyn Fn(Progress<'_>) -> ControlFlow<()>;

/// Parses a name as a model of the hub; `None` for an existing path, and for a name that does not
/// look like a [`Reference`].
///
/// # Errors
/// [`Error::Option`] for an address, or a model with a revision, that is not valid at the hub.
pub fn meant(name: &Path) -> Result<Option<Reference>, Error> {
    let Some(text) = name.to_str().filter(|_| !name.exists()) else { return Ok(None) };
    let model = text.split_once('@').is_some_and(|(id, _)| id.parse::<Id>().is_ok());
    match text.parse() {
        Ok(reference) => Ok(Some(reference)),
        Err(error) if Reference::is_address(text) || model => Err(error),
        Err(_) => Ok(None),
    }
}

/// Directory of the model for a name (see [`meant`]), from the cache of [`Hub::from_env`],
/// otherwise downloaded.
///
/// # Errors
/// As [`Hub::from_env`] and [`Hub::pull`]; the messages add that no directory of this name exists
/// either.
pub fn locate(
    name: &Path,
    id: &Id,
    revision: &Revision,
    cache: Option<&Path>,
    watch: Watch<'_>,
) -> Result<PathBuf, Error> {
    let neither = |what: String| format!("{what}; no directory `{}` either", name.display());
    let found = Hub::from_env(cache).and_then(|hub| hub.open(id, revision, watch));
    found.map_err(|error| match error {
        Error::Hub(what) => Error::Hub(neither(what)),
        Error::Network(what) => Error::Network(neither(what)),
        other => other,
    })
}

/// The hub and its cache, configured by the environment.
pub struct Hub {
    settings: Settings,
}

impl Hub {
    /// Configures the hub from `HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`,
    /// `HF_TOKEN_PATH` and `HF_HUB_OFFLINE`; `cache` overrides the directory of the cache.  Trusted
    /// CAs are Mozilla's, the system's, and those of `SSL_CERT_FILE`, `SSL_CERT_DIR`,
    /// `REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE`.
    ///
    /// # Errors
    /// [`Error::Option`] for a variable with an invalid value.
    pub fn from_env(cache: Option<&Path>) -> Result<Self, Error> {
        Ok(Self { settings: Settings::from_env(cache)? })
    }

    /// Directory of a model, from the cache, otherwise downloaded.
    ///
    /// # Errors
    /// As [`Hub::pull`].
    pub fn open(&self, id: &Id, revision: &Revision, watch: Watch<'_>) -> Result<PathBuf, Error> {
        let cache = Cache::new(&self.settings.cache, id);
        let directory = match cache.snapshot(revision) {
            Ok(directory) => directory,
            Err(lacks) if self.settings.offline => return Err(self.offline(id, revision, &lacks)),
            Err(_) => return self.fetch(&cache, id, revision, watch),
        };
        let unknown = cache.unknown(&directory);
        let (Some(name), Some(commit)) = (unknown, cache::commit(&directory)) else {
            return Ok(directory);
        };
        if self.settings.offline {
            return Ok(directory);
        }
        // Other clients download only files they need; a missing one may configure pooling.
        match self.fetch(&cache, id, &commit.parse()?, watch) {
            Err(error @ (Error::Hub(_) | Error::Network(_) | Error::Cache { .. })) => {
                let without = format!("without its `{name}`, if it has one");
                tracing::warn!("{error}; `{id}` is opened from the cache, {without}");
                Ok(directory)
            }
            other => other,
        }
    }

    /// Asks the hub for the commit of a revision, downloads the files that the cache lacks, and
    /// checks those that it has.
    ///
    /// # Errors
    /// [`Error::Hub`] for a model that does not exist, is not accessible to the caller, or has no
    /// safetensors; [`Error::Network`] if the hub cannot be reached or sends other data than
    /// announced; [`Error::Cache`] if the cache cannot be written; [`Error::Cancelled`], in bytes
    /// of a file, if `watch` breaks.
    pub fn pull(&self, id: &Id, revision: &Revision, watch: Watch<'_>) -> Result<PathBuf, Error> {
        let cache = Cache::new(&self.settings.cache, id);
        if self.settings.offline {
            let cached = cache.snapshot(revision);
            return cached.map_err(|lacks| self.offline(id, revision, &lacks));
        }
        self.fetch(&cache, id, revision, watch)
    }

    fn fetch(
        &self,
        cache: &Cache,
        id: &Id,
        revision: &Revision,
        watch: Watch<'_>,
    ) -> Result<PathBuf, Error> {
        let client = Client::new(&self.settings, id, revision)?;
        let listing = repo::list(&client)?;
        let commit = &listing.commit;
        tracing::info!("pulling `{id}`, commit {commit}, into `{}`", cache.root().display());
        let mut files = download::describe(&client, &listing, listing.names()?)?;
        let mut absent: Vec<String> = repo::NEEDED.iter().map(|name| (*name).to_owned()).collect();
        absent.retain(|name| !listing.has(name));
        // Files name the folders of modules and of adapters.
        for (name, named) in repo::FOLDERS {
            let Some(file) = files.iter().find(|file| file.name == *name) else { continue };
            let blob = download::fetch(&client, cache, commit, slice::from_ref(file), watch)?;
            let text = fs::read(&blob[0]).map_err(cache::cannot(&blob[0]))?;
            let (there, lacking) = named(&text).into_iter().partition(|name| listing.has(name));
            absent.extend::<Vec<_>>(lacking);
            let weights = files.len() - 1;
            files.splice(weights..weights, download::describe(&client, &listing, there)?);
        }
        // Weights are last; if they are sharded, an index file lists the shards.
        if let Some(last) = files.last().filter(|file| file.name == repo::INDEX) {
            let index = download::fetch(&client, cache, commit, slice::from_ref(last), watch)?;
            let shards = listing.shards(&index[0])?;
            files.extend(download::describe(&client, &listing, shards)?);
        }
        let blobs = download::fetch(&client, cache, commit, &files, watch)?;
        for (file, blob) in files.iter().zip(&blobs) {
            cache.point(commit, &file.name, blob)?;
        }
        for name in &absent {
            cache.mark_absent(commit, name)?;
        }
        cache.refer(revision, commit)?;
        cache.snapshot(revision).map_err(|lacks| {
            let place = cache.root().display();
            Error::Hub(format!("`{place}` was changed meanwhile: {lacks}"))
        })
    }

    fn offline(&self, id: &Id, revision: &Revision, lacks: &CacheMiss) -> Error {
        let place = self.settings.cache.display();
        Error::Hub(format!(
            "`{id}` (revision {revision}) is not in the cache `{place}` ({lacks}), and HF_HUB_OFFLINE \
             forbids to ask for it"
        ))
    }
}
