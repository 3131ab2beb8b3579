//! Downloads of files into the cache.

use super::{
    Progress, Watch,
    cache::{Cache, cannot, is_full, make_parent},
    client::{Client, Patience, RequestError, field},
    digest::{Digest, Sum},
    repo::{self, Listing},
};
use crate::error::Error;
use std::{
    fs,
    io::{self, Read, Seek, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};
use ureq::{
    Body,
    http::{Response, StatusCode, header},
};

/// Chunk size for reading and writing, in bytes.
const PIECE: usize = 256 << 10;

/// File of a commit, as the hub describes it.
pub(super) struct File {
    pub(super) name: String,
    etag: String,
    size: u64,
    digest: Digest,
    url: String,
}

/// Asks the hub for the sizes and hashes of these files.
pub(super) fn describe(
    client: &Client,
    listing: &Listing,
    names: Vec<String>,
) -> Result<Vec<File>, Error> {
    names.into_iter().map(|name| describe_one(client, listing, name)).collect()
}

fn describe_one(client: &Client, listing: &Listing, name: String) -> Result<File, Error> {
    let header = repo::header(client, &listing.commit, &name)?;
    let stated = listing.stated(&name);
    let digest = match (Digest::of_etag(&header.etag), stated.sha256) {
        (Digest::None, Some(sha256)) => Digest::Sha256(sha256),
        (digest, _) => digest,
    };
    let size =
        agreed_size(header.size, stated.size).map_err(|what| client.wrong_file(&name, &what))?;
    Ok(File { etag: header.etag, size, digest, url: header.url, name })
}

/// Size of a file by its header and by the list of files, or an error message.
fn agreed_size(header: Option<u64>, listed: Option<u64>) -> Result<u64, String> {
    match (header, listed) {
        (Some(size), Some(listed)) if size != listed => {
            Err(format!("{size} bytes, in the list {listed}"))
        }
        _ => header.or(listed).ok_or_else(|| "no size is stated".to_owned()),
    }
}

/// Downloads the files that are not in the cache; returns the paths of all, in order.
pub(super) fn fetch(
    client: &Client,
    cache: &Cache,
    commit: &str,
    files: &[File],
    watch: Watch<'_>,
) -> Result<Vec<PathBuf>, Error> {
    let mut following: u64 = files.iter().map(|file| file.size).sum();
    let mut blobs = Vec::new();
    for file in files {
        following -= file.size;
        let blob = file.fetch(client, cache, commit, watch).map_err(|error| match error {
            Error::Cache { path, source, missing: Some(missing) } => {
                Error::Cache { path, source, missing: Some(missing + following) }
            }
            other => other,
        });
        blobs.push(blob?);
    }
    Ok(blobs)
}

impl File {
    /// Returns the file's path in the cache, with its length and hash checked.
    fn fetch(
        &self,
        client: &Client,
        cache: &Cache,
        commit: &str,
        watch: Watch<'_>,
    ) -> Result<PathBuf, Error> {
        let _lock = cache.lock(&self.etag)?;
        let blob = cache.blob(&self.etag);
        // Without links, the cache may contain only the file of the commit, not its blob.
        let pointer = cache.pointer(commit, &self.name);
        for path in [&pointer, &blob] {
            if self.is_at(path) {
                return Ok(path.clone());
            }
        }
        make_parent(&blob)?;
        let path = cache.blob(&format!("{}.incomplete", self.etag));
        let mut partial = Partial::open(self, path)?;
        let mut old = partial.at > 0;
        loop {
            partial.complete(client, watch)?;
            match self.digest.differs(&partial.sum) {
                None => break,
                // The partial file that was there may be of other contents.
                Some(_) if old => partial.restart().map_err(cannot(&partial.path))?,
                Some(what) => {
                    partial.remove()?;
                    let endpoint = client.endpoint();
                    let name = &self.name;
                    let about = client.about();
                    return Err(Error::Network(format!(
                        "{endpoint}: `{name}` of {about} did not arrive as it was sent: {what}"
                    )));
                }
            }
            old = false;
        }
        partial.publish(&blob)?;
        Ok(blob)
    }

    /// True if a path holds this file.
    fn is_at(&self, path: &Path) -> bool {
        self.matches(path).unwrap_or(false)
    }

    fn matches(&self, path: &Path) -> io::Result<bool> {
        let mut file = fs::File::open(path)?;
        let mut sum = self.digest.start(self.size);
        let whole = file.metadata()?.len() == self.size;
        Ok(whole && hash(&mut file, &mut sum)? == self.size && self.digest.differs(&sum).is_none())
    }
}

/// Hashes the rest of a file; returns its length.
fn hash(file: &mut fs::File, sum: &mut Sum) -> io::Result<u64> {
    let mut piece = vec![0; PIECE];
    let mut length = 0;
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(length),
            Ok(n) => {
                sum.update(&piece[..n]);
                length += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Partly downloaded file.
struct Partial<'a> {
    wanted: &'a File,
    path: PathBuf,
    file: fs::File,
    at: u64,
    sum: Sum,
}

impl<'a> Partial<'a> {
    /// Opens the file, and continues from what an earlier run left.
    fn open(wanted: &'a File, path: PathBuf) -> Result<Self, Error> {
        let mut options = fs::OpenOptions::new();
        let options = options.create(true).read(true).write(true).truncate(false);
        let file = options.open(&path).map_err(cannot(&path))?;
        let sum = wanted.digest.start(wanted.size);
        let mut partial = Self { wanted, path, file, at: 0, sum };
        partial.at = hash(&mut partial.file, &mut partial.sum).map_err(cannot(&partial.path))?;
        if partial.at > wanted.size {
            partial.restart().map_err(cannot(&partial.path))?;
        }
        Ok(partial)
    }

    /// Discards all bytes.
    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.at = 0;
        self.sum = self.wanted.digest.start(self.wanted.size);
        Ok(())
    }

    /// Requests the missing bytes until the file is complete.
    fn complete(&mut self, client: &Client, watch: Watch<'_>) -> Result<(), Error> {
        let mut patience = Patience::default();
        while self.at < self.wanted.size {
            let before = self.at;
            let Err(trouble) = self.stream(client, watch) else { continue };
            if self.at > before {
                patience.renew();
            }
            patience.bear(trouble, || self.tell(watch))?;
        }
        self.tell(watch)
    }

    fn tell(&self, watch: Watch<'_>) -> Result<(), Error> {
        let file = &self.wanted.name;
        let size = self.wanted.size;
        let at = self.at;
        match watch(Progress { file, size, at }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                let [done, total] = [at, size].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
                Err(Error::Cancelled { done, total })
            }
        }
    }

    /// Makes one request for the missing bytes.
    fn stream(&mut self, client: &Client, watch: Watch<'_>) -> Result<(), RequestError> {
        let asked = Some(self.at).filter(|at| *at > 0);
        let response = client.get(&self.wanted.url, asked)?;
        let size = self.wanted.size;
        let start = start(&response, asked.unwrap_or(0), size)
            .map_err(|what| RequestError::Final(client.wrong_file(&self.wanted.name, &what)))?;
        // Some servers cannot send a range of a file.
        let kept = if start == 0 && self.at > 0 { self.restart() } else { Ok(()) };
        kept.map_err(|error| self.full(error))?;
        self.tell(watch).map_err(RequestError::Final)?;
        let mut body = response.into_body().into_reader();
        let mut piece = vec![0; PIECE];
        while self.at < size {
            let most = usize::try_from(size - self.at).unwrap_or(PIECE).min(PIECE);
            match body.read(&mut piece[..most]) {
                Ok(0) => {
                    let endpoint = client.endpoint();
                    let at = self.at;
                    let what = format!("{endpoint}: the connection ended at {at} of {size} bytes");
                    return Err(RequestError::Passing(what, None));
                }
                Ok(n) => {
                    self.write(&piece[..n])?;
                    self.tell(watch).map_err(RequestError::Final)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(client.trouble(&error.into())),
            }
        }
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), RequestError> {
        while !bytes.is_empty() {
            // A disk that fills up may accept only some of the bytes.
            match self.file.write(bytes) {
                Ok(0) => return Err(self.full(io::ErrorKind::StorageFull.into())),
                Ok(n) => {
                    self.sum.update(&bytes[..n]);
                    self.at += n as u64;
                    bytes = &bytes[n..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.full(error)),
            }
        }
        Ok(())
    }

    /// Converts an error of the file; the bytes written so far stay.
    fn full(&self, source: io::Error) -> RequestError {
        let missing = is_full(&source).then(|| self.wanted.size - self.at);
        RequestError::Final(Error::Cache { path: self.path.clone(), source, missing })
    }

    /// Moves the file to the blob's path.
    fn publish(self, blob: &Path) -> Result<(), Error> {
        self.file.sync_all().map_err(cannot(&self.path))?;
        drop(self.file);
        fs::rename(&self.path, blob).or_else(|error| {
            // If locks do not work, another process may have been first.
            if self.wanted.is_at(blob) { Ok(()) } else { Err(cannot(blob)(error)) }
        })
    }

    /// Removes the file.
    fn remove(self) -> Result<(), Error> {
        drop(self.file);
        fs::remove_file(&self.path).map_err(cannot(&self.path))
    }
}

/// Position of a response's body in a file of `size` bytes, of which those from `asked` on were
/// requested; or an error message.
fn start(response: &Response<Body>, asked: u64, size: u64) -> Result<u64, String> {
    let (start, whole) = match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = field(response, header::CONTENT_RANGE).unwrap_or_default();
            match parts(range) {
                Some((first, whole)) if first == asked => (asked, whole),
                _ => return Err(format!("Content-Range `{}`", range.escape_debug())),
            }
        }
        _ => (0, None),
    };
    let length = field(response, header::CONTENT_LENGTH).and_then(number);
    match whole.or(length.map(|length| start + length)) {
        Some(found) if found != size => Err(format!("{found} bytes instead of {size}")),
        _ => Ok(start),
    }
}

/// First byte in a Content-Range, and the size of the whole file, if it has one.
fn parts(range: &str) -> Option<(u64, Option<u64>)> {
    let (bytes, whole) = range.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = bytes.split_once('-')?;
    Some((number(first)?, number(whole)))
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// File with these bytes.
    fn file(bytes: &[u8]) -> File {
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        File {
            name: "hello".to_owned(),
            etag: sha256.to_owned(),
            size: bytes.len() as u64,
            digest: Digest::of_etag(sha256),
            url: String::new(),
        }
    }

    #[test]
    fn two_downloads_without_a_lock_leave_one_file() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("x.incomplete");
        let blob = place.path().join("x");
        let bytes = b"hello\n";
        let file = file(bytes);
        let mut partials = [(); 2].map(|()| Partial::open(&file, path.clone()).expect("writable"));
        for partial in &mut partials {
            partial.write(&bytes[..2]).expect("written");
        }
        for partial in &mut partials {
            partial.write(&bytes[2..]).expect("written");
            assert_eq!(file.digest.differs(&partial.sum), None);
        }
        for partial in partials {
            partial.publish(&blob).expect("published");
            assert!(file.is_at(&blob));
        }
        fs::write(&blob, "hellO\n").expect("writable");
        assert!(!file.is_at(&blob));
        let partial = Partial::open(&file, path.clone()).expect("writable");
        fs::remove_file(&path).expect("it");
        assert!(partial.publish(&blob).is_err());
    }

    #[test]
    fn partial_files_of_earlier_runs_are_resumed() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("x.incomplete");
        let file = file(b"hello\n");
        for (left, at) in [("", 0), ("hel", 3), ("hello\n", 6), ("hello\n\n", 0)] {
            fs::write(&path, left).expect("writable");
            let mut partial = Partial::open(&file, path.clone()).expect("writable");
            assert_eq!(partial.at, at, "{left}");
            partial.write(&b"hello\n"[at as usize..]).expect("written");
            assert_eq!(fs::read(&path).expect("a file"), b"hello\n");
            assert_eq!(file.digest.differs(&partial.sum), None);
        }
    }

    #[test]
    fn wrong_ranges_and_lengths_are_refused() {
        let start = |status: u16, fields: &[(&str, &str)]| {
            let mut answer = Response::builder().status(status);
            for (name, value) in fields {
                answer = answer.header(*name, *value);
            }
            let answer = answer.body(Body::builder().data("")).expect("an answer");
            super::start(&answer, 10, 30)
        };
        assert_eq!(start(206, &[("content-range", "bytes 10-29/30")]), Ok(10));
        assert_eq!(start(206, &[("content-range", "bytes 10-29/*")]), Ok(10));
        assert_eq!(start(200, &[("content-length", "30")]), Ok(0));
        assert_eq!(start(200, &[]), Ok(0));
        for (status, field) in [
            (206, ("content-range", "bytes 9-29/30")),
            (206, ("content-range", "bytes 10-39/40")),
            (206, ("content-range", "10-29")),
            (206, ("content-length", "20")),
            (200, ("content-length", "20")),
        ] {
            assert!(start(status, &[field]).is_err(), "{field:?}");
        }
    }
}
