//! Environment variables for the hub, as in Python's huggingface_hub.

use super::roots;
use crate::error::Error;
use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Default network timeout; `HF_HUB_DOWNLOAD_TIMEOUT` overrides it.
const SILENCE: Duration = Duration::from_secs(30);

/// Location of the hub and of the cache.
pub(super) struct Settings {
    /// Directory that contains `models--owner--name`.
    pub(super) cache: PathBuf,
    /// URL of the hub, without a `/` at its end.
    pub(super) endpoint: String,
    pub(super) token: Option<Token>,
    pub(super) offline: bool,
    pub(super) silence: Duration,
    /// Paths of more CAs, with the variables that name them.
    pub(super) authorities: Vec<(&'static str, PathBuf)>,
}

/// Access token.
pub(super) struct Token {
    pub(super) secret: String,
    /// Source of the token, for messages.
    pub(super) from: String,
}

impl Settings {
    pub(super) fn from_env(cache: Option<&Path>) -> Result<Self, Error> {
        Self::from_variables(cache, |name| env::var_os(name).map(PathBuf::from))
    }

    /// As [`Settings::from_env`], but for given variables.
    fn from_variables(
        cache: Option<&Path>,
        variable: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<Self, Error> {
        let variables = Variables(variable);
        let home = variables.home();
        let cache = cache
            .map(Path::to_owned)
            .or_else(|| variables.path("HF_HUB_CACHE"))
            .or_else(|| variables.path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| home.as_ref().map(|home| home.join("hub")));
        let endpoint = variables.endpoint()?;
        let silence = variables.silence()?;
        let token = variables.token(home.as_deref())?;
        Ok(Self {
            cache: cache.ok_or_else(|| {
                Error::Option("no home directory: say with HF_HOME where models are kept".into())
            })?,
            endpoint,
            token,
            offline: variables.flag("HF_HUB_OFFLINE") || variables.flag("TRANSFORMERS_OFFLINE"),
            silence,
            authorities: variables.authorities(),
        })
    }
}

/// Environment variables, from a function that looks one up.
struct Variables<F>(F);

impl<F: Fn(&str) -> Option<PathBuf>> Variables<F> {
    /// Value of a variable; an empty one counts as unset.
    fn value(&self, name: &str) -> Option<PathBuf> {
        (self.0)(name).filter(|value| !value.as_os_str().is_empty())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.value(name).map(|value| value.to_string_lossy().trim().to_owned())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(|path| expanded(path, &self.0))
    }

    fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| is_true(&value))
    }

    /// Directory of the hub's files: cache and token.
    fn home(&self) -> Option<PathBuf> {
        let cached = || self.path("XDG_CACHE_HOME").map(|dir| dir.join("huggingface"));
        self.path("HF_HOME")
            .or_else(cached)
            .or_else(|| home_dir(&self.0).map(|home| home.join(".cache/huggingface")))
    }

    fn endpoint(&self) -> Result<String, Error> {
        let endpoint = self.text("HF_ENDPOINT");
        let endpoint = endpoint.unwrap_or_else(|| "https://huggingface.co".to_owned());
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let expected = "expected an address that starts with https:// or http://";
            return Err(Error::Option(format!("HF_ENDPOINT `{endpoint}`: {expected}")));
        }
        Ok(endpoint.trim_end_matches('/').to_owned())
    }

    /// Time without any data after which a download fails.
    fn silence(&self) -> Result<Duration, Error> {
        let Some(seconds) = self.text("HF_HUB_DOWNLOAD_TIMEOUT") else { return Ok(SILENCE) };
        match seconds.parse() {
            Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
            _ => Err(Error::Option(format!(
                "expected an HF_HUB_DOWNLOAD_TIMEOUT of 1 to 86400 seconds, got `{seconds}`"
            ))),
        }
    }

    /// Access token: of a variable, else of a file, which may be in `home`.
    fn token(&self, home: Option<&Path>) -> Result<Option<Token>, Error> {
        if self.flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return Ok(None);
        }
        let names = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
        let found = names
            .iter()
            .find_map(|name| Some(Token { secret: self.text(name)?, from: (*name).to_owned() }))
            .or_else(|| {
                let path = self.path("HF_TOKEN_PATH").or_else(|| Some(home?.join("token")))?;
                let from = format!("the token in `{}`", path.display());
                let secret = fs::read_to_string(path).ok()?.trim().to_owned();
                Some(Token { secret, from })
            })
            .filter(|token| !token.secret.is_empty());
        match found {
            Some(Token { secret, from }) if !secret.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(Error::Option(format!("{from}: not what a token of the hub looks like")))
            }
            found => Ok(found),
        }
    }

    /// Files and directories of certificate authorities, with the names of their variables.
    fn authorities(&self) -> Vec<(&'static str, PathBuf)> {
        let mut authorities = Vec::new();
        for name in roots::VARIABLES {
            match self.path(name) {
                // List of paths, as OpenSSL reads it.
                Some(several) if name == "SSL_CERT_DIR" => {
                    authorities.extend(env::split_paths(&several).map(|path| (name, path)));
                }
                Some(path) => authorities.push((name, path)),
                None => {}
            }
        }
        authorities
    }
}

fn home_dir(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let home = variable("HOME").filter(|home| cfg!(unix) && !home.as_os_str().is_empty());
    home.or_else(env::home_dir)
}

/// Expands `~`, `$NAME` and `${NAME}` in a path, as Python's `os.path.expanduser` and
/// `os.path.expandvars` do: a variable that no shell has set contains them as they are.  Names
/// without a value are kept.
fn expanded(path: PathBuf, variable: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    let Some(text) = path.to_str() else { return path };
    let home = || Some(home_dir(&variable)?.to_str()?.to_owned());
    let text = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            home().map_or(text.to_owned(), |home| home.trim_end_matches('/').to_owned() + rest)
        }
        _ => text.to_owned(),
    };
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let of_name = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
        let (name, end) = match rest.strip_prefix('{').and_then(|rest| rest.find('}')) {
            Some(length) => (&rest[1..=length], length + 2),
            None => {
                let end = rest.find(of_name).unwrap_or(rest.len());
                (&rest[..end], end)
            }
        };
        match variable(name).and_then(|value| value.to_str().map(str::to_owned)) {
            Some(value) if !name.is_empty() => out.push_str(&value),
            _ => {
                out.push('$');
                out.push_str(&rest[..end]);
            }
        }
        rest = &rest[end..];
    }
    PathBuf::from(out + rest)
}

/// Parses a boolean as huggingface_hub does.
fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(cache: Option<&str>, variables: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::from_variables(cache.map(Path::new), |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| PathBuf::from(value))
        })
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        type Case = (Option<&'static str>, &'static [(&'static str, &'static str)], &'static str);
        const CASES: &[Case] = &[
            (None, &[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (None, &[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")], "/h/hub"),
            (None, &[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/g")], "/g"),
            (None, &[("HF_HUB_CACHE", "/c"), ("HUGGINGFACE_HUB_CACHE", "/g")], "/c"),
            (Some("/d"), &[("HF_HUB_CACHE", "/c")], "/d"),
            (None, &[("HF_HUB_CACHE", ""), ("HF_HOME", "/h")], "/h/hub"),
        ];
        for &(cache, variables, expected) in CASES {
            let found = settings(cache, variables).expect("settings").cache;
            assert_eq!(found, Path::new(expected), "{variables:?}");
        }
    }

    #[test]
    fn homes_and_variables_in_paths_are_expanded() {
        let home = [("HOME", "/u"), ("DATA", "/d"), ("A_1", "x"), ("NAME", "n"), ("EMPTY", "")];
        let found = |more: &[(&str, &str)]| settings(None, &[&home[..], more].concat());
        for (path, expected) in [
            ("/plain", "/plain"),
            ("$DATA/${A_1}y$A_1/$NAME", "/d/xyx/n"),
            ("/a/~/$NONE/${NONE}/$", "/a/~/$NONE/${NONE}/$"),
            ("$${A_1", "$${A_1"),
            ("${}/$-/x$EMPTY", "${}/$-/x"),
        ] {
            let cache = found(&[("HF_HUB_CACHE", path)]).expect("settings").cache;
            assert_eq!(cache, Path::new(expected), "{path}");
        }
        let hub = |more: &[(&str, &str)]| found(more).expect("settings").cache;
        assert_eq!(hub(&[("HF_HOME", "${DATA}/hf")]), Path::new("/d/hf/hub"));
        assert_eq!(hub(&[("HUGGINGFACE_HUB_CACHE", "$DATA")]), Path::new("/d"));
        assert_eq!(hub(&[("XDG_CACHE_HOME", "$DATA/c")]), Path::new("/d/c/huggingface/hub"));
        if cfg!(unix) {
            assert_eq!(hub(&[("HF_HOME", "~/models")]), Path::new("/u/models/hub"));
            assert_eq!(hub(&[("HF_HUB_CACHE", "~")]), Path::new("/u"));
            assert_eq!(hub(&[("HF_HUB_CACHE", "~root/$NAME")]), Path::new("~root/n"));
            assert_eq!(hub(&[]), Path::new("/u/.cache/huggingface/hub"));
            let dirs = [("SSL_CERT_DIR", "/a:$DATA"), ("REQUESTS_CA_BUNDLE", "~/ca.pem")];
            let expected = [("SSL_CERT_DIR", "/a"), ("SSL_CERT_DIR", "/d")];
            let expected = [&expected[..], &[("REQUESTS_CA_BUNDLE", "/u/ca.pem")]].concat();
            let expected: Vec<_> =
                expected.into_iter().map(|(name, path)| (name, PathBuf::from(path))).collect();
            assert_eq!(found(&dirs).expect("settings").authorities, expected);
        }
        let place = tempfile::tempdir().expect("a directory");
        fs::write(place.path().join("token"), "hf_there").expect("writable");
        let dir = place.path().to_str().expect("UTF-8");
        let token =
            found(&[("DIR", dir), ("HF_TOKEN_PATH", "$DIR/token")]).expect("settings").token;
        assert_eq!(token.expect("a token").secret, "hf_there");
    }

    #[test]
    fn switches_and_addresses_are_read() {
        let plain = settings(Some("/c"), &[("HF_HOME", "/none")]).expect("settings");
        assert!(!plain.offline && plain.token.is_none() && plain.silence == SILENCE);
        assert_eq!(plain.endpoint, "https://huggingface.co");
        for (value, offline) in [("1", true), ("true", true), ("Yes", true), ("0", false)] {
            let found = settings(Some("/c"), &[("HF_HUB_OFFLINE", value)]).expect("settings");
            assert_eq!(found.offline, offline, "{value}");
        }
        let mirror = [("HF_ENDPOINT", "http://m:1/"), ("HF_HUB_DOWNLOAD_TIMEOUT", "7")];
        let mirror = settings(Some("/c"), &mirror).expect("settings");
        assert_eq!((&*mirror.endpoint, mirror.silence.as_secs()), ("http://m:1", 7));
        for (name, value) in [("HF_ENDPOINT", "m"), ("HF_HUB_DOWNLOAD_TIMEOUT", "0")] {
            let error = settings(Some("/c"), &[(name, value)]).err().expect(name);
            assert!(error.exit_code() == 2 && error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn tokens_are_found_and_not_shown() {
        let home = tempfile::tempdir().expect("a directory");
        fs::write(home.path().join("token"), "hf_home\n").expect("writable");
        fs::write(home.path().join("other"), "hf_other").expect("writable");
        let other = home.path().join("other");
        let dir = home.path().to_str().expect("UTF-8");
        let other = other.to_str().expect("UTF-8");
        let found = |more: &[(&str, &str)]| {
            let variables = [&[("HF_HOME", dir)], more].concat();
            settings(None, &variables).expect("settings").token.map(|token| token.secret)
        };
        assert_eq!(found(&[]).as_deref(), Some("hf_home"));
        assert_eq!(found(&[("HF_TOKEN_PATH", other)]).as_deref(), Some("hf_other"));
        assert_eq!(found(&[("HF_TOKEN", " hf_x\n")]).as_deref(), Some("hf_x"));
        assert_eq!(found(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"), ("HF_TOKEN", "x")]), None);
        let error = settings(None, &[("HF_HOME", dir), ("HF_TOKEN", "se cret")]).err();
        let error = error.expect("refused").to_string();
        assert!(error.contains("HF_TOKEN") && !error.contains("cret"), "{error}");
    }
}
