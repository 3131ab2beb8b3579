//! Hashes by which the hub names files.

use super::names::is_hex;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use std::fmt::Write;

/// Expected hash of a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Digest {
    /// SHA-256 of the bytes: for large files.
    Sha256(String),
    /// Git's blob name, the SHA-1 of a header and the bytes: for all other files.
    Git(String),
    /// The hub states no hash.
    None,
}

impl Digest {
    /// Hash in an ETag of the hub.
    pub(super) fn of_etag(etag: &str) -> Self {
        match etag {
            _ if is_hex(etag, 64) => Self::Sha256(etag.to_owned()),
            _ if is_hex(etag, 40) => Self::Git(etag.to_owned()),
            _ => Self::None,
        }
    }

    /// Starts a hash for a file of `size` bytes.
    pub(super) fn start(&self, size: u64) -> Sum {
        let context = match self {
            Self::Sha256(_) => Some(Context::new(&SHA256)),
            Self::Git(_) => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {size}\0").as_bytes());
                Some(context)
            }
            Self::None => None,
        };
        Sum(context)
    }

    /// Actual hash of the bytes, if it differs from the expected one.
    pub(super) fn differs(&self, sum: &Sum) -> Option<String> {
        let hash = sum.0.clone()?.finish();
        let found = hash.as_ref().iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string grows");
            hex
        });
        match self {
            Self::Sha256(wanted) | Self::Git(wanted) if *wanted != found => {
                Some(format!("hash {found} instead of {wanted}"))
            }
            _ => None,
        }
    }
}

/// Running hash of the bytes.
pub(super) struct Sum(Option<Context>);

impl Sum {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Some(context) = &mut self.0 {
            context.update(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_sha256sum() {
        // From `git hash-object` and `sha256sum` for "hello\n".
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for (etag, kind) in [(git, Digest::Git(git.into())), (sha, Digest::Sha256(sha.into()))] {
            let digest = Digest::of_etag(etag);
            assert_eq!(digest, kind);
            let mut sum = digest.start(6);
            sum.update(b"hel");
            assert!(digest.differs(&sum).is_some_and(|what| what.contains(etag)));
            sum.update(b"lo\n");
            assert_eq!(digest.differs(&sum), None);
        }
        for etag in ["", "abc", &sha.to_uppercase(), &git[1..]] {
            assert_eq!(Digest::of_etag(etag), Digest::None);
        }
    }
}
