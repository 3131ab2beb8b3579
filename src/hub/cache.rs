//! Cache on disk, in the layout of huggingface_hub:
//!
//! ```text
//! models--owner--name/blobs/HASH               the bytes, by their ETag
//! models--owner--name/blobs/HASH.incomplete    what has come of them
//! models--owner--name/refs/main                the commit that a revision was
//! models--owner--name/snapshots/COMMIT/NAME    links to blobs
//! models--owner--name/.no_exist/COMMIT/NAME    names that a commit lacks
//! .locks/models--owner--name/HASH.lock         held while a blob is fetched
//! ```

use super::{
    names::{Id, Revision, is_commit},
    repo,
};
use crate::error::Error;
use hf_hub::{CacheRepo, Repo, RepoType};
use std::{
    fmt, fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

/// Poll interval for a lock that another process holds.
const POLL: Duration = Duration::from_millis(100);

/// Cache directory of one model.
pub(super) struct Cache {
    /// `models--owner--name`
    root: PathBuf,
    locks: PathBuf,
    repo: CacheRepo,
}

/// Reason why a cached model cannot be opened.
#[derive(Debug)]
pub(super) enum CacheMiss {
    /// The revision is unknown.
    Revision,
    /// This file is missing.
    File(String),
}

impl fmt::Display for CacheMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revision => f.write_str("no such revision"),
            Self::File(name) => write!(f, "`{name}` is missing"),
        }
    }
}

impl Cache {
    pub(super) fn new(cache: &Path, id: &Id) -> Self {
        let repo = Repo::new(id.as_str().to_owned(), RepoType::Model);
        let folder = repo.folder_name();
        Self {
            root: cache.join(&folder),
            locks: cache.join(".locks").join(folder),
            repo: hf_hub::Cache::new(cache.to_owned()).repo(repo),
        }
    }

    /// Directory of the model.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Path of a blob, which need not exist.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// Path of a file of a commit, which need not exist.
    pub(super) fn pointer(&self, commit: &str, name: &str) -> PathBuf {
        self.repo.pointer_path(commit).join(name)
    }

    /// Snapshot directory of a revision with all files that a model needs.
    pub(super) fn snapshot(&self, revision: &Revision) -> Result<PathBuf, CacheMiss> {
        let commit = if is_commit(revision.as_str()) {
            revision.as_str().to_owned()
        } else {
            let path = self.root.join("refs").join(revision.as_str());
            let text = fs::read_to_string(path).map_err(|_| CacheMiss::Revision)?;
            text.trim().to_owned()
        };
        let directory = self.repo.pointer_path(&commit);
        if !is_commit(&commit) || !directory.is_dir() {
            return Err(CacheMiss::Revision);
        }
        let there = |name: &str| directory.join(name).is_file();
        let needs =
            |name: &str| if there(name) { Ok(()) } else { Err(CacheMiss::File(name.to_owned())) };
        needs(repo::CONFIG)?;
        if !there(repo::WEIGHTS) {
            let index = fs::read(directory.join(repo::INDEX));
            let index = index.map_err(|_| CacheMiss::File(repo::WEIGHTS.to_owned()))?;
            let shards =
                repo::shards(&index).map_err(|_| CacheMiss::File(repo::INDEX.to_owned()))?;
            shards.iter().try_for_each(|shard| needs(shard))?;
        }
        let known =
            |name: &str| if self.absent(&commit, name).exists() { Ok(()) } else { needs(name) };
        known(repo::TOKENIZER)?;
        for (name, named) in repo::FOLDERS {
            if let Ok(text) = fs::read(directory.join(name)) {
                named(&text).iter().try_for_each(|name| known(name))?;
            }
        }
        Ok(directory)
    }

    /// Name of a file for which the cache does not record if the commit has it.
    pub(super) fn unknown(&self, directory: &Path) -> Option<&'static str> {
        let commit = commit(directory)?;
        // A snapshot with this file, which no program needs, is a complete download.
        let all = directory.join(".gitattributes").is_file();
        let known = |name: &&&str| {
            all || directory.join(name).is_file() || self.absent(commit, name).exists()
        };
        repo::NEEDED.iter().copied().find(|name| !known(&name))
    }

    /// Path of the record that a commit does not have a file.
    fn absent(&self, commit: &str, name: &str) -> PathBuf {
        self.root.join(".no_exist").join(commit).join(name)
    }

    pub(super) fn mark_absent(&self, commit: &str, name: &str) -> Result<(), Error> {
        let path = self.absent(commit, name);
        make_parent(&path)?;
        fs::write(&path, "").map_err(cannot(&path))
    }

    /// Locks a blob, so that other processes do not download it, until the file is closed.
    pub(super) fn lock(&self, etag: &str) -> Result<fs::File, Error> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let mut options = fs::OpenOptions::new();
        let file = options.create(true).append(true).open(&path).map_err(cannot(&path))?;
        let mut waits = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::WouldBlock) => {
                    if !waits {
                        tracing::info!("another process is fetching `{etag}`: waiting for it");
                    }
                    waits = true;
                    thread::sleep(POLL);
                }
                Err(fs::TryLockError::Error(source)) => return Err(cannot(&path)(source)),
            }
        }
    }

    /// Makes a blob available as a file of a commit.
    pub(super) fn point(&self, commit: &str, name: &str, blob: &Path) -> Result<(), Error> {
        self.point_by(WAYS, commit, name, blob)
    }

    fn point_by(&self, ways: &[Way], commit: &str, name: &str, blob: &Path) -> Result<(), Error> {
        let path = self.pointer(commit, name);
        if path == blob {
            return Ok(());
        }
        make_parent(&path)?;
        let up = name.split('/').fold(PathBuf::from(".."), |up, _| up.join(".."));
        let target = up.join("blobs").join(blob.file_name().unwrap_or_default());
        let make = |temporary: &Path| {
            let mut made = Err(ErrorKind::Unsupported.into());
            for way in ways {
                made = made.or_else(|_: io::Error| way(&target, blob, temporary));
            }
            made
        };
        replace(&path, make).map_err(cannot(&path))
    }

    /// Records the commit of a revision.
    pub(super) fn refer(&self, revision: &Revision, commit: &str) -> Result<(), Error> {
        if revision.as_str() == commit {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision.as_str());
        make_parent(&path)?;
        replace(&path, |temporary| fs::write(temporary, commit)).map_err(cannot(&path))
    }
}

/// Commit of a snapshot.
pub(super) fn commit(directory: &Path) -> Option<&str> {
    directory.file_name()?.to_str()
}

/// Method of making a file of a commit: from the blob's path relative to it, the blob, its path.
type Way = fn(&Path, &Path, &Path) -> io::Result<()>;

/// Symbolic links first; not every system, and not every user of Windows, has them.
const WAYS: &[Way] = &[
    |target, _, path| symlink(target, path),
    |_, blob, path| fs::hard_link(blob, path),
    |_, blob, path| fs::copy(blob, path).map(|_| ()),
];

/// Converts an I/O error at a path.
pub(super) fn cannot(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Cache { path: path.clone(), source, missing: None }
}

/// Creates the parent directory of a file.
pub(super) fn make_parent(path: &Path) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(cannot(parent))
}

/// Creates a file or link under a temporary name, then renames it.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}-{count}.tmp", process::id()));
    let made = make(&temporary).and_then(|()| fs::rename(&temporary, path));
    // Left after an error, and after a rename onto a link to the same file, a no-op.
    let _ = fs::remove_file(&temporary);
    made
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// True if the error means that no space is left.
pub(super) fn is_full(error: &io::Error) -> bool {
    use ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789012345678901234567890123456789";

    /// Cache with a snapshot of these files.
    fn cache(names: &[&str]) -> (tempfile::TempDir, Cache) {
        let place = tempfile::tempdir().expect("a directory");
        let cache = Cache::new(place.path(), &"a/b".parse().expect("an id"));
        for name in names {
            let path = cache.pointer(COMMIT, name);
            make_parent(&path).expect("writable");
            fs::write(path, r#"{"weight_map": {"t": "x.safetensors"}}"#).expect("writable");
        }
        (place, cache)
    }

    #[test]
    fn half_a_model_is_not_found() {
        let all = [repo::CONFIG, repo::TOKENIZER, repo::WEIGHTS];
        let sharded = [repo::CONFIG, repo::TOKENIZER, repo::INDEX, "x.safetensors"];
        for names in [&all[..], &sharded[..]] {
            let main = Revision::default();
            for n in 0..names.len() {
                let some = [&names[..n], &names[n + 1..]].concat();
                let (_place, cache) = cache(&some);
                cache.refer(&main, COMMIT).expect("writable");
                assert!(matches!(cache.snapshot(&main), Err(CacheMiss::File(_))), "{some:?}");
            }
            let (place, cache) = cache(names);
            assert!(matches!(cache.snapshot(&main), Err(CacheMiss::Revision)));
            let commit = COMMIT.parse().expect("a revision");
            let directory = place.path().join("models--a--b/snapshots").join(COMMIT);
            assert_eq!(cache.snapshot(&commit).expect("whole"), directory);
            for (text, found) in [("", false), ("../../x", false), (COMMIT, true)] {
                cache.refer(&main, text).expect("writable");
                assert_eq!(cache.snapshot(&main).is_ok(), found, "{text}");
            }
        }
    }

    #[test]
    fn declared_files_must_exist_or_be_known_to_be_absent() {
        const POOLING: &str = "2_Pooling/config.json";
        let (_place, cache) = cache(&[repo::CONFIG, repo::TOKENIZER, repo::WEIGHTS]);
        let revision = COMMIT.parse().expect("a revision");
        let directory = cache.snapshot(&revision).expect("whole");
        assert_eq!(cache.unknown(&directory), Some(repo::MODULES));
        let modules = r#"[{"type": "a.Pooling", "path": "2_Pooling"}]"#;
        fs::write(directory.join(repo::MODULES), modules).expect("writable");
        let lacks = cache.snapshot(&revision).expect_err("no pooling");
        assert!(matches!(&lacks, CacheMiss::File(name) if name == POOLING), "{lacks}");
        cache.mark_absent(COMMIT, POOLING).expect("writable");
        cache.snapshot(&revision).expect("known to be absent");
        assert!(cache.unknown(&directory).is_some());
        for name in repo::NEEDED {
            cache.mark_absent(COMMIT, name).expect("writable");
        }
        assert_eq!(cache.unknown(&directory), None);
        let (_place, all) = self::cache(&[repo::CONFIG, repo::WEIGHTS, ".gitattributes"]);
        assert_eq!(all.unknown(&all.pointer(COMMIT, "")), None);
    }

    #[test]
    fn a_commit_without_a_tokenizer_is_whole() {
        let (_place, cache) = cache(&[repo::CONFIG, repo::WEIGHTS]);
        let commit = COMMIT.parse().expect("a revision");
        assert!(cache.snapshot(&commit).is_err());
        cache.mark_absent(COMMIT, repo::TOKENIZER).expect("writable");
        assert!(cache.snapshot(&commit).is_ok());
    }

    #[test]
    fn pointers_lead_to_blobs() {
        for n in 0..WAYS.len() {
            let (_place, cache) = cache(&["x"]);
            let blob = cache.blob("abc");
            make_parent(&blob).expect("writable");
            fs::write(&blob, "bytes").expect("writable");
            // One replaces another file, one is a directory deeper; then both exist already.
            for name in ["x", "1_Pooling/config.json", "x", "1_Pooling/config.json"] {
                cache.point_by(&WAYS[n..], COMMIT, name, &blob).expect("writable");
                let pointer = cache.pointer(COMMIT, name);
                assert_eq!(fs::read_to_string(&pointer).expect("a file"), "bytes");
                let link = fs::symlink_metadata(&pointer).expect("a file").is_symlink();
                assert!(link == (n == 0) || cfg!(windows), "way {n}");
            }
            let left = fs::read_dir(cache.pointer(COMMIT, "")).expect("a directory").count();
            assert_eq!(left, 2, "temporary files are left");
            assert!(cache.point_by(&[], COMMIT, "y", &blob).is_err());
        }
    }
}
