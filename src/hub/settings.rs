//! What the environment says about the hub: the variables of Python's huggingface_hub.

use crate::error::Error;
use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest silence of the hub, unless `HF_HUB_DOWNLOAD_TIMEOUT` says another.
const SILENCE: Duration = Duration::from_secs(30);

/// Where models come from and where they are kept.
pub(super) struct Settings {
    /// The directory with `models--owner--name` in it.
    pub(super) cache: PathBuf,
    /// Without a `/` at its end.
    pub(super) endpoint: String,
    pub(super) token: Option<Token>,
    pub(super) offline: bool,
    pub(super) silence: Duration,
}

/// What says who asks.
pub(super) struct Token {
    pub(super) secret: String,
    /// Where it is from, for people.
    pub(super) from: String,
}

impl Settings {
    pub(super) fn from_env(cache: Option<&Path>) -> Result<Self, Error> {
        Self::from_variables(cache, |name| env::var_os(name).map(PathBuf::from))
    }

    /// As [`Settings::from_env`], of other variables.
    fn from_variables(
        cache: Option<&Path>,
        variable: impl Fn(&str) -> Option<PathBuf>,
    ) -> Result<Self, Error> {
        let path = |name: &str| variable(name).filter(|value| !value.as_os_str().is_empty());
        let text = |name: &str| path(name).map(|value| value.to_string_lossy().trim().to_owned());
        let flag = |name: &str| text(name).is_some_and(|value| is_true(&value));
        let user = || {
            let cached = path("XDG_CACHE_HOME").map(|dir| dir.join("huggingface"));
            cached.or_else(|| env::home_dir().map(|home| home.join(".cache/huggingface")))
        };
        let home = path("HF_HOME").or_else(user);
        let cache = cache.map(Path::to_owned);
        let cache =
            cache.or_else(|| path("HF_HUB_CACHE")).or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let cache = cache.or_else(|| home.as_ref().map(|home| home.join("hub")));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let meant = "an address that starts with https:// or http:// is meant";
            return Err(Error::Option(format!("HF_ENDPOINT `{endpoint}`: {meant}")));
        }
        let silence = match text("HF_HUB_DOWNLOAD_TIMEOUT") {
            None => SILENCE,
            Some(seconds) => match seconds.parse() {
                Ok(seconds @ 1..=86_400) => Duration::from_secs(seconds),
                _ => {
                    let message = format!(
                        "HF_HUB_DOWNLOAD_TIMEOUT `{seconds}`: 1 to 86400 seconds are meant"
                    );
                    return Err(Error::Option(message));
                }
            },
        };
        let token = match flag("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            true => None,
            false => ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
                .iter()
                .find_map(|name| Some((text(name)?, (*name).to_owned())))
                .or_else(|| {
                    let file = path("HF_TOKEN_PATH").or_else(|| Some(home?.join("token")))?;
                    let from = format!("the token in `{}`", file.display());
                    Some((fs::read_to_string(file).ok()?.trim().to_owned(), from))
                })
                .filter(|(secret, _)| !secret.is_empty()),
        };
        let token = token.map(|(secret, from)| Token { secret, from });
        if let Some(Token { from, .. }) =
            token.as_ref().filter(|token| !token.secret.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(Error::Option(format!("{from}: not what a token of the hub looks like")));
        }
        Ok(Self {
            cache: cache.ok_or_else(|| {
                Error::Option("no home directory: say with HF_HOME where models are kept".into())
            })?,
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token,
            offline: flag("HF_HUB_OFFLINE") || flag("TRANSFORMERS_OFFLINE"),
            silence,
        })
    }
}

/// As huggingface_hub reads switches.
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
        let (dir, other) = (home.path().to_str().expect("UTF-8"), other.to_str().expect("UTF-8"));
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
