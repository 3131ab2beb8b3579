//! Models by name: from the Hugging Face hub, through the cache that its other clients share.
//!
//! A model that is in the cache is opened without a request.  What is fetched becomes visible only
//! when it is whole: every file has its length, and its hash where the hub states one, before it is
//! a blob; the reference by which a later run finds the model is written last.
//!
//! ```no_run
//! use jinabert::{Embedder, hub};
//! use std::ops::ControlFlow;
//! let id = "jinaai/jina-embeddings-v2-base-en".parse()?;
//! let (hub, watch) = (hub::Hub::from_env(None)?, |_: hub::Progress| ControlFlow::Continue(()));
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
mod settings;

use crate::error::Error;
use cache::{Cache, Lacks};
use client::Client;
pub use names::{Id, Revision};
use settings::Settings;
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    slice,
};

/// How far a file has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Its name in the repository.
    pub file: &'a str,
    /// Its bytes.
    pub size: u64,
    /// Those that are here.
    pub at: u64,
}

/// Is told how far files have come, and may end it: what is there is fetched on the next time.
pub type Watch<'a> = &'a dyn Fn(Progress<'_>) -> ControlFlow<()>;

/// The model of the hub that a name means, if it means one: what exists is not looked for there.
pub fn meant(name: &Path) -> Option<Id> {
    if name.exists() { None } else { name.to_str()?.parse().ok() }
}

/// The directory of the model that a name means ([`meant`]), from the cache of [`Hub::from_env`],
/// otherwise pulled.
///
/// # Errors
/// As [`Hub::from_env`] and [`Hub::pull`], whose messages then say that there is no directory of
/// this name either.
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

/// The hub and its cache, as the environment says.
pub struct Hub {
    settings: Settings,
}

impl Hub {
    /// Where `HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH` and
    /// `HF_HUB_OFFLINE` say; `cache` is the directory of the cache where it is given.
    ///
    /// # Errors
    /// [`Error::Option`] for a variable that makes no sense.
    pub fn from_env(cache: Option<&Path>) -> Result<Self, Error> {
        Ok(Self { settings: Settings::from_env(cache)? })
    }

    /// The directory of a model, from the cache, otherwise pulled.
    ///
    /// # Errors
    /// As [`Hub::pull`].
    pub fn open(&self, id: &Id, revision: &Revision, watch: Watch<'_>) -> Result<PathBuf, Error> {
        let cache = Cache::new(&self.settings.cache, id);
        match cache.snapshot(revision) {
            Ok(directory) => Ok(directory),
            Err(lacks) if self.settings.offline => Err(self.offline(id, revision, &lacks)),
            Err(_) => self.fetch(&cache, id, revision, watch),
        }
    }

    /// Asks the hub which commit a revision is, fetches what the cache lacks of it, and checks what
    /// it has.
    ///
    /// # Errors
    /// [`Error::Hub`] for a model that does not exist, is not open to the caller, or has no
    /// safetensors; [`Error::Network`] where the hub cannot be reached or sends what it did not
    /// announce; [`Error::Cache`] for a cache that cannot be written; [`Error::Cancelled`], in
    /// bytes of a file, if `watch` breaks.
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
        let client = Client::new(&self.settings, id, revision);
        let listing = repo::list(&client)?;
        let commit = &listing.commit;
        tracing::info!("pulling `{id}`, commit {commit}, into `{}`", cache.root().display());
        let mut files = download::describe(&client, &listing, listing.names()?)?;
        // Weights are last; where they are in shards, a file lists these.
        if let Some(last) = files.last().filter(|file| file.name == repo::INDEX) {
            let index = download::fetch(&client, cache, commit, slice::from_ref(last), watch)?;
            let shards = listing.shards(&index[0])?;
            files.extend(download::describe(&client, &listing, shards)?);
        }
        let blobs = download::fetch(&client, cache, commit, &files, watch)?;
        for (file, blob) in files.iter().zip(&blobs) {
            cache.point(commit, &file.name, blob)?;
        }
        if !listing.has(repo::TOKENIZER) {
            cache.mark_absent(commit, repo::TOKENIZER)?;
        }
        cache.refer(revision, commit)?;
        cache.snapshot(revision).map_err(|lacks| {
            let place = cache.root().display();
            Error::Hub(format!("`{place}` was changed meanwhile: {lacks}"))
        })
    }

    fn offline(&self, id: &Id, revision: &Revision, lacks: &Lacks) -> Error {
        let place = self.settings.cache.display();
        Error::Hub(format!(
            "`{id}` (revision {revision}) is not in the cache `{place}` ({lacks}), and HF_HUB_OFFLINE \
             forbids to ask for it"
        ))
    }
}
