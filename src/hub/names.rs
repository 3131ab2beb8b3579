//! Names of models and of their revisions.

use crate::error::Error;
use std::{env, fmt, str::FromStr};

/// Hosts of the Hugging Face hub's pages.
const HOSTS: [&str; 3] = ["huggingface.co", "www.huggingface.co", "hf.co"];

/// Model at the hub: `owner/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id(String);

impl Id {
    /// The id as text.
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

    /// Checks the hub's own rules: letters, digits, `-`, `_` and `.`, at most 96 characters.
    fn from_str(text: &str) -> Result<Self, Error> {
        let Some((owner, name)) = text.split_once('/') else {
            return Err(no_model(text, "expected owner/name"));
        };
        for part in [owner, name] {
            if part.is_empty() || !part.chars().all(may_be_in_names) {
                let what = "expected owner/name of letters, digits, `-`, `_` and `.`";
                return Err(no_model(text, what));
            }
            if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
                return Err(no_model(text, "`-` and `.` are inside names only"));
            }
        }
        if text.contains("--") || text.contains("..") || text.ends_with(".git") {
            return Err(no_model(text, "no `--`, no `..` and no `.git` at the end"));
        }
        match text.len() {
            ..=96 => Ok(Self(text.to_owned())),
            length => Err(no_model(text, &format!("{length} characters, over 96"))),
        }
    }
}

fn may_be_in_names(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Error for a text that does not name a model.
fn no_model(text: &str, what: &str) -> Error {
    Error::Option(format!("`{text}` is no model of the hub: {what}"))
}

/// Model at the hub as a user may write it: `owner/name`, `owner/name@revision`,
/// `hf://owner/name@revision`, or its URL `https://huggingface.co/owner/name`, also below
/// `HF_ENDPOINT`, with `/tree/revision` for a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reference {
    /// The model.
    pub id: Id,
    /// Revision, if one is named.
    pub revision: Option<Revision>,
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let endpoint = env::var("HF_ENDPOINT").unwrap_or_default();
        Self::parse(text, &endpoint)
    }
}

impl Reference {
    /// Model, and the revision that is named here or by the caller.
    ///
    /// # Errors
    /// [`Error::Option`] for two different revisions.
    pub fn with(self, revision: Option<&Revision>) -> Result<(Id, Revision), Error> {
        match (self.revision, revision) {
            (Some(own), Some(other)) if own != *other => Err(Error::Option(format!(
                "expected one revision of `{}`, got {own} in its name and {other} as the option",
                self.id
            ))),
            (own, other) => Ok((self.id, own.or(other.cloned()).unwrap_or_default())),
        }
    }

    /// True if a text can only be a URL.
    pub(super) fn is_address(text: &str) -> bool {
        text.contains("://")
    }

    fn parse(text: &str, endpoint: &str) -> Result<Self, Error> {
        let endpoint = endpoint.trim().trim_end_matches('/');
        let page = text.strip_prefix(endpoint).filter(|_| !endpoint.is_empty());
        if let Some(page) = page.and_then(|page| page.strip_prefix('/')) {
            return Self::of_page(text, page);
        }
        if let Some(path) = text.strip_prefix("hf://") {
            return Self::of_name(path.strip_prefix("models/").unwrap_or(path));
        }
        let scheme = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let (host, page) = scheme.unwrap_or(text).split_once('/').unwrap_or_default();
        if HOSTS.contains(&&*host.to_ascii_lowercase()) {
            return Self::of_page(text, page);
        }
        if Self::is_address(text) {
            let what = format!("expected an address of {} or of HF_ENDPOINT", HOSTS[0]);
            return Err(no_model(text, &what));
        }
        Self::of_name(text)
    }

    /// `owner/name` or `owner/name@revision`
    fn of_name(text: &str) -> Result<Self, Error> {
        match text.split_once('@') {
            None => Ok(Self { id: text.parse()?, revision: None }),
            Some((id, revision)) => Ok(Self { id: id.parse()?, revision: Some(revision.parse()?) }),
        }
    }

    /// Parses the path in the URL of a page or of a file.
    fn of_page(text: &str, page: &str) -> Result<Self, Error> {
        let path = page.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        let parts: Vec<&str> = path.split('/').collect();
        if let ["datasets" | "spaces" | "collections" | "papers", ..] = parts[..] {
            let what = format!("expected owner/name, got a page of {}", parts[0]);
            return Err(no_model(text, &what));
        }
        let [owner, name, rest @ ..] = &parts[..] else {
            return Err(no_model(text, "expected owner/name in the address"));
        };
        let id = format!("{owner}/{name}").parse()?;
        let (kind, rest) = match rest {
            [] => return Ok(Self { id, revision: None }),
            [kind @ ("tree" | "blob" | "resolve" | "commit"), rest @ ..] => (*kind, rest),
            [other, ..] => {
                let what = format!("expected /tree/REVISION, got /{other}");
                return Err(no_model(text, &what));
            }
        };
        // Revisions of pull requests and conversions have three parts.
        let length = if rest.first() == Some(&"refs") { 3 } else { 1 }.min(rest.len());
        let (revision, file) = rest.split_at(length);
        if !file.is_empty() && !matches!(kind, "blob" | "resolve") {
            let what = format!("expected the whole model, got its folder {}", file.join("/"));
            return Err(no_model(text, &what));
        }
        let name =
            unescaped(&revision.join("/")).ok_or_else(|| no_model(text, "a bad escape with %"))?;
        Ok(Self { id, revision: Some(name.parse()?) })
    }
}

/// Unescapes a part of a URL; `None` for an invalid escape.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                rest = &rest[2..];
                let hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
                u8::from_str_radix(digits, 16).ok().filter(|_| hex)?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Branch, tag, or commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// The revision as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Escapes the revision for a URL.
    pub(super) fn escaped(&self) -> String {
        self.0.bytes().map(escaped).collect()
    }
}

/// Escapes a byte for a URL, if it needs it.
fn escaped(byte: u8) -> String {
    match byte {
        b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
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

    /// Checks Git's rules for names, as far as they keep a path inside its directory.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad_part = text.split('/').any(|part| part.is_empty() || part.starts_with(['.', '-']));
        if bad_part || text.contains("..") || text.contains(is_refused) {
            let expected = "expected the name of a branch or a tag, or a commit";
            return Err(Error::Option(format!("revision `{text}`: {expected}")));
        }
        match text.len() {
            ..=200 => Ok(Self(text.to_owned())),
            length => Err(Error::Option(format!("revision: {length} characters, over 200"))),
        }
    }
}

/// True for a character that no revision has.
fn is_refused(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "~^:?*[\\\"<>|".contains(c)
}

/// True for a full commit hash.
pub(super) fn is_commit(text: &str) -> bool {
    is_hex(text, 40)
}

/// True for exactly `digits` lower-case hexadecimal digits.
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
    fn models_are_named_as_people_paste_them() {
        const MIRROR: &str = "http://mirror:8080/hf/";
        for (text, expected) in [
            ("a/b", "a/b"),
            ("a/b@v1.0", "a/b@v1.0"),
            ("a/b@refs/pr/1", "a/b@refs/pr/1"),
            ("hf://a/b", "a/b"),
            ("hf://models/a/b@v1", "a/b@v1"),
            ("https://huggingface.co/a/b", "a/b"),
            ("HTTPS://huggingface.co/a/b", ""),
            ("http://HuggingFace.co/a/b/", "a/b"),
            ("https://hf.co/a/b?library=x#usage", "a/b"),
            ("huggingface.co/a/b/tree/v1.0", "a/b@v1.0"),
            ("https://huggingface.co/a/b/tree/main/", "a/b@main"),
            ("https://huggingface.co/a/b/tree/refs%2Fpr%2F1", "a/b@refs/pr/1"),
            ("https://huggingface.co/a/b/tree/refs/pr/1", "a/b@refs/pr/1"),
            ("https://huggingface.co/a/b/blob/main/config.json", "a/b@main"),
            ("https://huggingface.co/a/b/resolve/main/1_Pooling/config.json", "a/b@main"),
            ("http://mirror:8080/hf/a/b/tree/x", "a/b@x"),
            // Invalid references.
            ("https://huggingface.co", ""),
            ("https://huggingface.co/a", ""),
            ("https://huggingface.co/datasets/a/b", ""),
            ("https://huggingface.co/spaces/a/b", ""),
            ("https://huggingface.co/a/b/discussions/1", ""),
            ("https://huggingface.co/a/b/tree/main/onnx", ""),
            ("https://huggingface.co/a/b/tree", ""),
            ("https://huggingface.co/a/b/tree/..%2Fx", ""),
            ("https://huggingface.co/a/b/tree/%zz", ""),
            ("https://huggingface.co/a/b/tree/%+1", ""),
            ("https://example.org/a/b", ""),
            ("http://mirror:8080/a/b", ""),
            ("ftp://huggingface.co/a/b", ""),
            ("hf://a", ""),
            ("hf://a/b/c", ""),
            ("a/b@", ""),
            ("a/b@../x", ""),
            ("a@b", ""),
        ] {
            let found = Reference::parse(text, MIRROR);
            let said = found.as_ref().ok().map(|Reference { id, revision }| match revision {
                None => id.to_string(),
                Some(revision) => format!("{id}@{revision}"),
            });
            assert_eq!(said.unwrap_or_default(), expected, "{text}");
            if let Err(error) = found {
                assert_eq!(error.exit_code(), 2, "{text}");
            }
        }
        let v1 = "v1".parse().expect("one");
        let v2 = "v2".parse::<Revision>().expect("one");
        let named = || "a/b@v1".parse::<Reference>().expect("a model");
        assert_eq!(named().with(Some(&v1)).expect("the same").1, v1);
        assert_eq!(named().with(None).expect("its own").1, v1);
        let error = named().with(Some(&v2)).expect_err("two").to_string();
        assert!(error.contains("got v1 in its name and v2"), "{error}");
        let plain = "a/b".parse::<Reference>().expect("a model");
        assert_eq!(plain.clone().with(Some(&v2)).expect("the caller's").1, v2);
        assert_eq!(plain.with(None).expect("the default").1, Revision::default());
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
