//! How models and their versions are named.

use crate::error::Error;
use std::{fmt, str::FromStr};

/// A model at the hub: `owner/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id(String);

impl Id {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Id {
    type Err = Error;

    /// The hub's own rules: letters, digits, `-`, `_` and `.`, at most 96 characters.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |what: &str| Error::Option(format!("`{text}` is no model of the hub: {what}"));
        let Some((owner, name)) = text.split_once('/') else {
            return Err(bad("owner/name is meant"));
        };
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        for part in [owner, name] {
            if part.is_empty() || !part.chars().all(known) {
                return Err(bad("owner/name of letters, digits, `-`, `_` and `.` is meant"));
            }
            if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
                return Err(bad("`-` and `.` are inside names only"));
            }
        }
        if text.contains("--") || text.contains("..") || text.ends_with(".git") {
            return Err(bad("no `--`, no `..` and no `.git` at the end"));
        }
        match text.len() {
            ..=96 => Ok(Self(text.to_owned())),
            length => Err(bad(&format!("{length} characters, over 96"))),
        }
    }
}

/// A branch, a tag, or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a part of a URL.
    pub(super) fn escaped(&self) -> String {
        let escape = |byte: u8| match byte {
            b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        };
        self.0.bytes().map(escape).collect()
    }
}

impl Default for Revision {
    fn default() -> Self {
        Self("main".to_owned())
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Revision {
    type Err = Error;

    /// Git's rules for names, as far as they keep a name inside its directory.
    fn from_str(text: &str) -> Result<Self, Error> {
        let odd = |c: char| c.is_whitespace() || c.is_control() || "~^:?*[\\\"<>|".contains(c);
        let part = |part: &str| part.is_empty() || part.starts_with(['.', '-']);
        if text.split('/').any(part) || text.contains("..") || text.contains(odd) {
            let meant = "the name of a branch or a tag, or a commit, is meant";
            return Err(Error::Option(format!("revision `{text}`: {meant}")));
        }
        match text.len() {
            ..=200 => Ok(Self(text.to_owned())),
            length => Err(Error::Option(format!("revision: {length} characters, over 200"))),
        }
    }
}

/// Whether it is the full name of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

/// Whether it is so many lower-case hexadecimal digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_owner_and_name() {
        for id in ["jinaai/jina-embeddings-v2-base-en", "a/b", "A_1/b.c_d-e"] {
            assert_eq!(id.parse::<Id>().expect("an id").as_str(), id);
        }
        let long = format!("a/{}", "b".repeat(95));
        let bad = [
            "", "a", "a/", "/b", "a/b/c", "./b", "../b", "a/..", "a/b.git", "a--b/c", "a/b c",
            "a/-b", "a/b\n", "a/ü", "a\\b", "~/b", &long,
        ];
        for id in bad {
            assert_eq!(id.parse::<Id>().expect_err(id).exit_code(), 2, "{id}");
        }
        assert!(long[..97].len() == 97 && long[..96].parse::<Id>().is_ok());
    }

    #[test]
    fn revisions_stay_in_their_directory() {
        for revision in ["main", "refs/pr/1", "v1.0", "0123abc", "a+b"] {
            assert_eq!(revision.parse::<Revision>().expect("one").as_str(), revision);
        }
        for revision in ["", "/a", "a/", "a//b", "../a", "a/..", ".a", "a b", "a\\b", "C:a", "-a"] {
            assert_eq!(revision.parse::<Revision>().expect_err(revision).exit_code(), 2);
        }
        let revision = "refs/pr/1+ü".parse::<Revision>().expect("one");
        assert_eq!(revision.escaped(), "refs%2Fpr%2F1%2B%C3%BC");
        assert_eq!(Revision::default().escaped(), "main");
    }
}
