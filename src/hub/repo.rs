//! Files of a repository, and those of them that a model needs.

use super::{
    client::{Client, RequestError, field},
    names::{is_commit, is_hex},
};
use crate::{adapter_files, error::Error};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path},
};
use ureq::{Body, http::Response};

pub(super) const CONFIG: &str = "config.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
/// File with the folders of modules; the configuration of pooling is in one of them.
pub(super) const MODULES: &str = "modules.json";
const LENGTHS: &str = "sentence_bert_config.json";
const PROMPTS: &str = "config_sentence_transformers.json";
const TOKENIZING: &str = "tokenizer_config.json";
/// File that states the licence of the model.
const CARD: &str = "README.md";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// Small files that describe a model further.
const MORE: &[&str] = &[
    TOKENIZER,
    TOKENIZING,
    "special_tokens_map.json",
    MODULES,
    LENGTHS,
    PROMPTS,
    "artifact.metadata",
    CARD,
];

/// Files that affect the result: a commit is complete only if they are present, or known not to
/// exist.
pub(super) const NEEDED: &[&str] = &[TOKENIZER, MODULES, LENGTHS, PROMPTS, TOKENIZING];

/// Files of a commit.
pub(super) struct Listing {
    pub(super) commit: String,
    files: BTreeMap<String, Stated>,
    /// Model and revision, for messages.
    about: String,
}

/// Entry of the listing for a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stated {
    pub(super) size: Option<u64>,
    pub(super) sha256: Option<String>,
}

/// Response of the hub.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

impl Sibling {
    /// Name of the file, and its entry.
    fn stated(self) -> (String, Stated) {
        let sha256 = self.lfs.and_then(|lfs| lfs.sha256).filter(|hex| is_hex(hex, 64));
        (self.rfilename, Stated { size: self.size, sha256 })
    }
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
}

/// Requests the list of files of the revision.
pub(super) fn list(client: &Client) -> Result<Listing, Error> {
    let text = client.patiently(|| {
        let mut response = client.get(&client.listing(), None)?;
        response.body_mut().read_to_string().map_err(|error| client.trouble(&error))
    })?;
    parse(&text, client.about()).map_err(|what| {
        Error::Network(format!("expected a list of files from {}: {what}", client.endpoint()))
    })
}

fn parse(text: &str, about: String) -> Result<Listing, String> {
    let answer: Answer = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if !is_commit(&answer.sha) {
        return Err(format!("commit `{}`", answer.sha.escape_debug()));
    }
    let files = answer.siblings.into_iter().map(Sibling::stated).collect();
    Ok(Listing { commit: answer.sha, files, about })
}

impl Listing {
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// Entry of the listing for a file.
    pub(super) fn stated(&self, name: &str) -> Stated {
        self.files.get(name).cloned().unwrap_or_default()
    }

    /// Files that a model needs, without the shards that an index lists.
    pub(super) fn names(&self) -> Result<Vec<String>, Error> {
        let about = &self.about;
        if !self.has(CONFIG) {
            return Err(Error::Hub(format!("{about} has no `{CONFIG}`: not a model for this")));
        }
        let Some(weights) = [WEIGHTS, INDEX].into_iter().find(|name| self.has(name)) else {
            let others = ["pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", "model.onnx"];
            let only = others
                .into_iter()
                .find(|name| self.has(name))
                .map(|name| format!(", only `{name}` and the like"))
                .unwrap_or_default();
            return Err(Error::Hub(format!("{about} has no safetensors: no `{WEIGHTS}`{only}")));
        };
        // Weights come last, so that errors in small files are found early.
        let more = MORE.iter().copied().filter(|name| self.has(name));
        Ok([CONFIG].into_iter().chain(more).chain([weights]).map(str::to_owned).collect())
    }

    /// Shards that the index at a path lists.
    pub(super) fn shards(&self, index: &Path) -> Result<Vec<String>, Error> {
        let bytes =
            fs::read(index).map_err(|source| Error::Read { path: index.to_owned(), source })?;
        let about = &self.about;
        let shards =
            shards(&bytes).map_err(|what| Error::Hub(format!("{about}: `{INDEX}`: {what}")))?;
        match shards.iter().find(|shard| !self.has(shard)) {
            None => Ok(shards),
            Some(shard) => Err(Error::Hub(format!("{about} has no `{shard}`, which it lists"))),
        }
    }
}

/// Files that name others in folders, with the functions that list those.
pub(super) const FOLDERS: &[(&str, ListFiles)] = &[(MODULES, modules), (CONFIG, adapters)];

/// Lists the files that the contents of another one name.
type ListFiles = fn(&[u8]) -> Vec<String>;

/// Keys of `config.json` that tell where adapters are.
#[derive(Default, Deserialize)]
struct ModelConfig {
    model_type: Option<String>,
    lora_adaptations: Option<Vec<String>>,
}

/// Files of the adapters that `config.json` declares, a folder for each task.  Only models in the
/// layout of jina-embeddings-v3-hf have them; others have adapters beside the weights.
fn adapters(config: &[u8]) -> Vec<String> {
    let config: ModelConfig = serde_json::from_slice(unmarked(config)).unwrap_or_default();
    if config.model_type.as_deref() != Some("jina_embeddings_v3") {
        return Vec::new();
    }
    let usual = || adapter_files::TASKS.map(str::to_owned).into();
    let tasks = config.lora_adaptations.filter(|tasks| !tasks.is_empty()).unwrap_or_else(usual);
    let folders = tasks.iter().map(|task| adapter_files::folder(task));
    let folders = folders.filter(|name| !name.is_empty() && !name.contains('/') && is_plain(name));
    let files = folders.flat_map(|name| {
        [adapter_files::CONFIG, adapter_files::WEIGHTS].map(|file| format!("{name}/{file}"))
    });
    files.collect()
}

/// Files of the modules in the folders that `modules.json` declares: the configuration of pooling,
/// of others the weights, too.  A path that is not a plain folder of the repository is left out:
/// opening the model refuses it.
fn modules(modules: &[u8]) -> Vec<String> {
    let modules: Vec<Module> = serde_json::from_slice(unmarked(modules)).unwrap_or_default();
    modules.iter().flat_map(module_files).collect()
}

/// Paths of a module's files, if it is one with files in a plain folder.
fn module_files(module: &Module) -> Vec<String> {
    let parts: Vec<&str> = module.path.split('/').filter(|part| !part.is_empty()).collect();
    let files: &[&str] = match module.kind.rsplit('.').next() {
        Some("Pooling") => &[CONFIG],
        Some("Dense" | "LayerNorm") => &[CONFIG, WEIGHTS],
        _ => &[],
    };
    let plain = !parts.is_empty() && parts.iter().all(|part| is_plain(part));
    let paths = files.iter().map(|name| format!("{}/{name}", parts.join("/")));
    paths.filter(|_| plain).collect()
}

/// True for the name of a folder that a path and a URL have as it is.
fn is_plain(folder: &str) -> bool {
    !folder.starts_with('.') && !folder.contains(['\\', ':', '?', '#', '%', '\0'])
}

/// Module in `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    path: String,
    #[serde(default, rename = "type")]
    kind: String,
}

/// Strips the byte order mark that some editors put before JSON.
fn unmarked(json: &[u8]) -> &[u8] {
    json.strip_prefix("\u{feff}".as_bytes()).unwrap_or(json)
}

/// Contents of `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Files that an index lists, without repetition.
pub(super) fn shards(index: &[u8]) -> Result<Vec<String>, String> {
    let index: Index =
        serde_json::from_slice(unmarked(index)).map_err(|error| error.to_string())?;
    let mut files: Vec<_> = index.weight_map.into_values().collect();
    files.sort_unstable();
    files.dedup();
    for file in &files {
        let mut parts = Path::new(file).components();
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        if !plain || file.contains(['\\', '/', '?', '#', '%']) || !file.ends_with(".safetensors") {
            return Err(format!("`{}` is not the name of a shard", file.escape_debug()));
        }
    }
    if files.is_empty() { Err("no shards".to_owned()) } else { Ok(files) }
}

/// Metadata of a file in the headers of the hub's response.
#[derive(Debug)]
pub(super) struct Header {
    /// Name of the blob.
    pub(super) etag: String,
    pub(super) size: Option<u64>,
    /// URL of the download: renamed repositories redirect.
    pub(super) url: String,
}

/// Requests the metadata of a file.
pub(super) fn header(client: &Client, commit: &str, name: &str) -> Result<Header, Error> {
    let first = client.file(commit, name);
    client.patiently(|| {
        let (response, url) = client.head(&first)?;
        read(&response, url, commit)
            .map_err(|what| RequestError::Final(client.wrong_file(name, &what)))
    })
}

/// Reads the metadata of a file of a commit, or returns an error message.
fn read(response: &Response<Body>, url: String, commit: &str) -> Result<Header, String> {
    if let Some(other) = trimmed(response, "x-repo-commit").filter(|other| *other != commit) {
        return Err(format!("commit {} instead of {commit}", other.escape_debug()));
    }
    let etag = trimmed(response, "x-linked-etag")
        .or_else(|| trimmed(response, "etag"))
        .ok_or("the answer has no ETag")?
        .trim_start_matches("W/")
        .trim_matches('"');
    if etag.is_empty() || etag.len() > 128 || !etag.chars().all(may_be_in_etags) {
        return Err(format!("ETag `{}`", etag.escape_debug()));
    }
    // The length of a redirect response is not that of the file.
    let length = trimmed(response, "content-length").filter(|_| response.status().is_success());
    let size = trimmed(response, "x-linked-size").or(length).and_then(|size| size.parse().ok());
    Ok(Header { etag: etag.to_owned(), size, url })
}

fn trimmed<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    field(response, name).map(str::trim)
}

/// True for a character of an ETag that may be the name of a blob.
fn may_be_in_etags(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "0123456789012345678901234567890123456789";

    fn listing(names: &[&str]) -> Listing {
        let siblings: Vec<_> =
            names.iter().map(|name| serde_json::json!({"rfilename": name})).collect();
        let text = serde_json::json!({"sha": SHA, "siblings": siblings}).to_string();
        parse(&text, "`a/b`".to_owned()).expect("a listing")
    }

    #[test]
    fn only_what_is_needed_is_chosen() {
        let noise = ["LICENSE", "pytorch_model.bin", "onnx/model.onnx", "model.safetensors.x"];
        let of = |names: &[&str]| listing(&[&noise[..], names].concat()).names();
        let names = of(&["config.json", "model.safetensors", INDEX, "tokenizer.json"]);
        assert_eq!(names.expect("a model"), ["config.json", "tokenizer.json", "model.safetensors"]);
        let names = of(&["1_Pooling/config.json", INDEX, CARD, "config.json"]).expect("a model");
        assert_eq!(names, ["config.json", CARD, INDEX]);
        for names in [&["config.json"][..], &["model.safetensors"][..]] {
            assert_eq!(of(names).expect_err("no model").exit_code(), 66);
        }
        let error = of(&["config.json"]).expect_err("no weights").to_string();
        assert!(error.contains("safetensors") && error.contains("pytorch_model.bin"), "{error}");
    }

    #[test]
    fn adapters_are_in_folders_named_after_their_tasks() {
        let of = |text: &str| adapters(text.as_bytes());
        let native =
            r#"{"model_type": "jina_embeddings_v3", "lora_adaptations": ["text-matching"]}"#;
        let files =
            ["text_matching/adapter_config.json", "text_matching/adapter_model.safetensors"];
        assert_eq!(of(native), files);
        let all = of(r#"{"model_type": "jina_embeddings_v3"}"#);
        assert_eq!((all.len(), &*all[0]), (10, "retrieval_query/adapter_config.json"));
        assert!(
            of(r#"{"model_type": "xlm-roberta", "lora_adaptations": ["separation"]}"#).is_empty()
        );
        let outside = native.replace("text-matching", "../x");
        assert!(of(&outside).iter().all(|name| !name.contains("..")), "{:?}", of(&outside));
        assert!(of("<html>").is_empty());
    }

    #[test]
    fn modules_are_in_the_folders_that_are_declared() {
        let module = |kind: &str, path: &str| serde_json::json!({"type": kind, "path": path});
        let pooling = |path| module("sentence_transformers.models.Pooling", path);
        let of = |list: &[serde_json::Value]| {
            let text = serde_json::json!(list).to_string();
            let marked = format!("\u{feff}{text}");
            assert_eq!(modules(text.as_bytes()), modules(marked.as_bytes()));
            modules(text.as_bytes())
        };
        let all = [
            module("sentence_transformers.models.Transformer", ""),
            pooling("2_Pooling/"),
            module("sentence_transformers.models.Dense", "3_Dense"),
            module("a.Pooling", "x/y"),
        ];
        let files = [
            "2_Pooling/config.json",
            "3_Dense/config.json",
            "3_Dense/model.safetensors",
            "x/y/config.json",
        ];
        assert_eq!(of(&all), files);
        for path in ["", "..", "../x", "a/../..", ".x", "a\\b", "a?b", "a#b", "%2e", "c:"] {
            assert!(of(&[pooling(path)]).is_empty(), "{path}");
        }
        assert!(modules(b"{}").is_empty() && modules(b"<html>").is_empty());
    }

    #[test]
    fn invalid_listings_are_refused() {
        let bad = ["", "<html>", "{}", "[]", r#"{"sha": "../x", "siblings": []}"#];
        assert!(bad.iter().all(|text| parse(text, String::new()).is_err()));
        let text = format!(
            r#"{{"sha": "{SHA}", "siblings": [{{"rfilename": "a", "size": 7, "lfs": {{"sha256": "x"}}}}]}}"#
        );
        let stated = parse(&text, String::new()).expect("a listing").stated("a");
        assert_eq!(stated, Stated { size: Some(7), sha256: None });
    }

    #[test]
    fn shards_are_names_beside_the_index() {
        let index = |file: &str| {
            let map =
                serde_json::json!({"weight_map": {"a": file, "b": file, "c": "c.safetensors"}});
            shards(map.to_string().as_bytes())
        };
        assert_eq!(index("a.safetensors").expect("shards"), ["a.safetensors", "c.safetensors"]);
        for file in ["../a.safetensors", "/a.safetensors", "b/a.safetensors", "a.bin", ""] {
            assert!(index(file).is_err(), "{file}");
        }
        assert!(shards(b"{\"weight_map\": {}}").is_err() && shards(b"x").is_err());
    }
}
