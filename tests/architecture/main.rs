//! Rules of the source tree, checked on its text; needs no GPU.
//!
//! They cover dependencies between modules, uses of third-party crates, the files of a kernel, the
//! length of files and lines, and the errors and exit codes in `ARCHITECTURE.md`.

mod package;
mod syntax;

use jinabert::{Error, kernels};
use std::{fs, io, path::Path};
use syntax::{Named, code, is_word, paths, tokens, without_literals, without_tests};

/// Top-level modules of the library, each with the modules that it may use, which are all listed
/// above it.  `lib.rs` may use all.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("adapter_files", &[]),
    ("hub", &["error", "adapter_files"]),
    ("elements", &[]),
    ("memory", &[]),
    ("gguf", &["error", "elements", "memory"]),
    ("files", &["error", "memory", "gguf"]),
    ("recording", &["error", "elements"]),
    ("activation", &[]),
    ("batch", &[]),
    ("precision", &["error", "elements"]),
    ("cache", &[]),
    ("kernels", &["activation", "elements", "recording"]),
    ("reference", &["error", "activation", "elements", "memory", "recording", "kernels"]),
    ("gpu", &["error", "elements", "recording", "cache"]),
    ("cpu", &["error", "activation", "elements", "recording", "kernels", "reference"]),
    ("text", &["error", "batch"]),
    (
        "model",
        &[
            "error",
            "adapter_files",
            "activation",
            "elements",
            "gguf",
            "files",
            "recording",
            "kernels",
            "batch",
            "reference",
        ],
    ),
    ("kernel_check", &["error", "activation", "elements", "recording", "kernels", "cpu"]),
    ("programs", &["activation", "recording", "kernels"]),
    (
        "tune",
        &[
            "error",
            "activation",
            "recording",
            "cache",
            "kernels",
            "gpu",
            "cpu",
            "model",
            "kernel_check",
        ],
    ),
    ("device", &["error", "recording", "kernels", "gpu", "cpu"]),
    (
        "embedder",
        &[
            "error",
            "files",
            "batch",
            "device",
            "gpu",
            "kernels",
            "model",
            "recording",
            "text",
            "tune",
        ],
    ),
    ("names", &["error", "embedder", "kernels", "model", "tune"]),
    ("scheduler", &["error", "batch", "embedder"]),
];

/// Modules that may use each third-party crate.  Crates listed for `src/` may be used everywhere.
const HOMES: &[(&str, &[&str])] = &[
    ("src/", &["bytemuck", "rayon", "serde", "thiserror", "tracing"]),
    ("src/cpu/simd.rs", &["pulp"]),
    ("src/elements.rs", &["half"]),
    ("src/gguf/", &["serde_json"]),
    ("src/gguf/tokenizer.rs", &["base64"]),
    ("src/gpu/", &["pollster", "wgpu"]),
    ("src/gpu/languages.rs", &["naga"]),
    ("src/hub/", &["hf_hub", "ring", "serde_json", "ureq"]),
    ("src/hub/roots.rs", &["rustls_native_certs", "webpki_root_certs"]),
    ("src/memory.rs", &["memmap2"]),
    ("src/model/", &["serde_json"]),
    ("src/model/checkpoint.rs", &["safetensors"]),
    ("src/activation.rs", &["libm"]),
    ("src/text/chunk.rs", &["unicode_segmentation"]),
    ("src/text/", &["serde_json", "tokenizers"]),
    ("src/tune/", &["serde_json"]),
    ("crates/jinabert-capi/src/", &["jinabert", "rayon"]),
    ("crates/jinabert-cli/src/", &["base64", "bytemuck", "clap", "csv", "indicatif", "jinabert"]),
    ("crates/jinabert-cli/src/", &["rayon", "serde", "serde_json", "tempfile", "thiserror"]),
    ("crates/jinabert-cli/src/", &["tracing", "tracing_subscriber"]),
    ("crates/jinabert-cli/src/completions.rs", &["clap_complete"]),
    ("crates/jinabert-cli/src/man.rs", &["clap_mangen"]),
    ("crates/jinabert-cli/src/serve/", &["axum", "jinabert_server"]),
    ("crates/jinabert-cli/src/error.rs", &["jinabert_server"]),
    ("crates/jinabert-cli/src/temporary.rs", &["ctrlc", "libc", "signal_hook"]),
    ("crates/jinabert-cli/src/otlp.rs", &["opentelemetry", "opentelemetry_http"]),
    ("crates/jinabert-cli/src/otlp.rs", &["opentelemetry_otlp", "opentelemetry_sdk"]),
    ("crates/jinabert-cli/src/otlp.rs", &["tracing_opentelemetry", "ureq"]),
    ("crates/jinabert-server/src/", &["axum", "base64", "bytemuck", "flate2", "hyper"]),
    ("crates/jinabert-server/src/", &["hyper_util", "jinabert", "metrics", "rayon", "serde"]),
    ("crates/jinabert-server/src/", &["metrics_exporter_prometheus", "serde_json", "subtle"]),
    ("crates/jinabert-server/src/", &["thiserror", "tokio", "tower_http", "tracing", "utoipa"]),
    ("crates/jinabert-server/src/", &["utoipa_swagger_ui"]),
    ("crates/jinabert-server/src/routes.rs", &["opentelemetry", "opentelemetry_http"]),
    ("crates/jinabert-server/src/routes.rs", &["tracing_opentelemetry"]),
];

/// Files with `unsafe` code, and the module whose arguments are C pointers.
const UNSAFE: &[&str] = &[
    "crates/jinabert-capi/src/",
    "crates/jinabert-cli/src/main.rs",
    "crates/jinabert-cli/src/temporary.rs",
    "src/cpu/widen.rs",
    "src/gpu/adapter.rs",
    "src/gpu/pipeline_cache.rs",
    "src/memory.rs",
];

/// Maximum lines of a file, and characters of a line, by extension.
const SIZES: &[(&str, usize, usize)] = &[("rs", 500, 100), ("wgsl", 250, 120)];

/// Markers of unfinished code; each has an extra hyphen here, since this file is checked, too.
const UNFINISHED: &[&str] = &["TO-DO", "FIX-ME", "todo-!", "unimplemented-!", "dbg-!"];

/// Files that each kernel must have.
const KERNEL_FILES: &[&str] =
    &["shaders/{}.wgsl", "src/kernels/{}.rs", "src/reference/{}.rs", "src/kernel_check/{}.rs"];

// ---- Reading ----

fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
}

/// Path from the root, with `/`, and text of every file below `dir` with an extension of [`SIZES`].
fn sources(dir: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let dir_path = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    for entry in fs::read_dir(dir_path).unwrap_or_else(|e| panic!("{dir}: {e}")) {
        let entry = entry.expect("a readable entry");
        let path = format!("{dir}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            found.extend(sources(&path));
        } else if SIZES.iter().any(|(extension, ..)| path.ends_with(&format!(".{extension}"))) {
            let text = read(&path).expect("a readable source");
            found.push((path, text));
        }
    }
    found
}

// ---- Rules: each returns its violations as `file:line: rule` ----

/// Modules use only the modules that [`LAYERS`] lists for them.
fn check_layers(path: &str, text: &str) -> Vec<String> {
    let module = path.split(['/', '.']).nth(1).unwrap_or_default();
    if module == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{path}:1: module `{module}` has no row in the table of layers")];
    };
    let root = path == format!("src/{module}.rs") || path == format!("src/{module}/mod.rs");
    let is_module = |name: &str| LAYERS.iter().any(|(module, _)| *module == name);
    let may = |target: &str| target == module || allowed.contains(&target);
    let code = without_tests(code(text));
    let offence = |(segments, line): Named<'_>| {
        let target = match segments[..] {
            ["super", "super", ..] => return Some(format!("{path}:{line}: no `super::super`")),
            ["crate" | "jinabert", target, ..] => target,
            ["super", target, ..] if root && is_module(target) => target,
            _ => return None,
        };
        (!may(target)).then(|| format!("{path}:{line}: `{module}` may not use `{target}`"))
    };
    paths(&tokens(&code)).into_iter().filter_map(offence).collect()
}

/// Third-party crates and `unsafe` are used only where they are allowed.
fn check_homes(path: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let mut offenders = Vec::new();
    if path.starts_with("crates/") && !path.contains("/src/") {
        return offenders;
    }
    let allowed = UNSAFE.iter().any(|home| path.starts_with(home));
    for (_, line) in tokens(&code).iter().filter(|(text, _)| *text == "unsafe" && !allowed) {
        offenders.push(format!("{path}:{line}: `unsafe` is only in {UNSAFE:?}"));
    }
    for (segments, line) in paths(&tokens(&without_tests(code))) {
        let homes = homes(segments[0]);
        if !homes.is_empty() && !homes.iter().any(|home| path.starts_with(home)) {
            offenders.push(format!("{path}:{line}: `{}` is only in {homes:?}", segments[0]));
        }
    }
    offenders
}

fn homes(name: &str) -> Vec<&str> {
    HOMES.iter().filter(|(_, crates)| crates.contains(&name)).map(|(home, _)| *home).collect()
}

/// Every dependency of a manifest is listed in [`HOMES`] for its package.
fn check_dependencies(path: &str, manifest: &str) -> Vec<String> {
    let sources = path.replace("Cargo.toml", "src/");
    let lines = (1..).zip(manifest.lines());
    let section = lines.skip_while(|(_, line)| *line != "[dependencies]").skip(1);
    section
        .take_while(|(_, line)| !line.starts_with('['))
        .filter_map(|(number, line)| Some((number, line.split([' ', '.']).next()?, line)))
        .filter(|(_, _, line)| line.contains(" = "))
        .map(|(number, name, _)| (number, name.replace('-', "_")))
        .filter(|(_, name)| !homes(name).iter().any(|home| home.starts_with(&sources)))
        .map(|(number, name)| format!("{path}:{number}: `{name}` has no row in the homes"))
        .collect()
}

/// A kernel has all its files, and a row in the table of shaders.
fn check_kernel(kernel: &str, exists: impl Fn(&str) -> bool, table: &str) -> Vec<String> {
    let files = KERNEL_FILES.iter().map(|file| file.replace("{}", kernel));
    let missing = files.filter(|file| !exists(file));
    let mut offenders: Vec<_> =
        missing.map(|file| format!("{file}:1: kernel `{kernel}` lacks this file")).collect();
    if !table.lines().any(|line| line.starts_with(&format!("| [{kernel}]({kernel}.wgsl)"))) {
        offenders.push(format!("shaders/README.md:1: kernel `{kernel}` has no row"));
    }
    offenders
}

/// Files and lines are short, and nothing is unfinished.  A literal or a URL may make a line long.
fn check_size(path: &str, text: &str) -> Vec<String> {
    let extension = path.rsplit('.').next().unwrap_or_default();
    let &(_, max_lines, max_width) =
        SIZES.iter().find(|(known, ..)| *known == extension).expect("a size for the extension");
    let mut offenders = Vec::new();
    let lines = text.lines().count();
    if lines > max_lines {
        offenders.push(format!("{path}:{lines}: {lines} lines, over {max_lines}"));
    }
    let plain = without_literals(text);
    for (number, (line, plain)) in (1..).zip(text.lines().zip(plain.lines())) {
        if plain.chars().count() > max_width && !plain.contains("://") {
            let width = line.chars().count();
            offenders.push(format!("{path}:{number}: {width} characters, over {max_width}"));
        }
        let unfinished = UNFINISHED.iter().map(|word| word.replace('-', ""));
        for word in unfinished.filter(|word| line.contains(word)) {
            offenders.push(format!("{path}:{number}: `{word}` is left"));
        }
    }
    offenders
}

/// One error of each variant.
fn errors() -> [Error; 16] {
    [
        Error::Read { path: "x".into(), source: io::ErrorKind::NotFound.into() },
        Error::Model(String::new()),
        Error::Option(String::new()),
        Error::Input { index: 0, what: String::new() },
        Error::TooLong { index: 0, tokens: 2, limit: 1 },
        Error::QueryTooLong { tokens: 2, limit: 1 },
        Error::Query { what: String::new() },
        Error::NoGpu { needs: String::new() },
        Error::Gpu(String::new()),
        Error::Compile { kernel: "", message: String::new() },
        Error::Memory(String::new()),
        Error::NotFinite(String::new()),
        Error::Cancelled { done: 0, total: 0 },
        Error::Hub(String::new()),
        Error::Network(String::new()),
        Error::Cache {
            path: "x".into(),
            source: io::ErrorKind::StorageFull.into(),
            missing: Some(1),
        },
    ]
}

/// Names of the variants of `enum Error`, as written.
fn variants(text: &str) -> Vec<&str> {
    text.lines()
        .skip_while(|line| !line.starts_with("pub enum Error {"))
        .take_while(|line| !line.starts_with('}'))
        .filter_map(|line| line.strip_prefix("    ")?.split([' ', '(', '{', ',']).next())
        .filter(|word| word.starts_with(char::is_uppercase))
        .collect()
}

/// Rows such as ``| `Read` | 66 |``: exactly one for each error, with its exit code.
fn check_exit_codes(document: &str, codes: &[(String, u8)]) -> Vec<String> {
    let row = |line: &str| -> Option<(String, u8)> {
        let (name, rest) = line.strip_prefix("| `")?.split_once('`')?;
        Some((name.to_owned(), rest.split('|').nth(1)?.trim().parse().ok()?))
    };
    let lines = (1..).zip(document.lines());
    let rows: Vec<_> = lines.filter_map(|(number, line)| Some((number, row(line)?))).collect();
    let wrong =
        rows.iter().filter(|(_, row)| !codes.contains(row)).map(|(number, (name, code))| {
            format!("ARCHITECTURE.md:{number}: no error `{name}` exits with {code}")
        });
    let missing = codes.iter().filter(|code| rows.iter().all(|(_, row)| row != *code));
    let missing =
        missing.map(|(name, code)| format!("ARCHITECTURE.md:1: no row | `{name}` | {code} |"));
    wrong.chain(missing).collect()
}

// ---- The tree follows the rules ----

/// Violations of a rule in all files below `dir`.
fn held(dir: &str, rule: fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let sources = sources(dir);
    assert!(!sources.is_empty(), "nothing to read in `{dir}`");
    sources.iter().flat_map(|(path, text)| rule(path, text)).collect()
}

fn report(mut offenders: Vec<String>) {
    offenders.dedup();
    assert!(offenders.is_empty(), "{} offenders:\n{}", offenders.len(), offenders.join("\n"));
}

#[test]
fn modules_use_only_their_listed_layers() {
    report(held("src", check_layers));
    for (n, (module, allowed)) in LAYERS.iter().enumerate() {
        let above: Vec<_> = LAYERS[..n].iter().map(|(above, _)| above).collect();
        assert!(
            allowed.iter().all(|name| above.contains(&name)),
            "`{module}` uses what is below it"
        );
    }
}

#[test]
fn crates_and_unsafe_are_used_only_where_allowed() {
    let mut offenders = held("src", check_homes);
    offenders.extend(held("crates", check_homes));
    for package in ["", "crates/jinabert-capi/", "crates/jinabert-cli/", "crates/jinabert-server/"]
    {
        let path = format!("{package}Cargo.toml");
        offenders.extend(check_dependencies(&path, &read(&path).expect("a manifest")));
    }
    report(offenders);
}

#[test]
fn every_kernel_has_its_files() {
    let table = read("shaders/README.md").unwrap_or_default();
    let exists = |path: &str| read(path).is_ok();
    let names = kernels::ALL.iter().map(|interface| interface.name());
    report(names.flat_map(|name| check_kernel(name, exists, &table)).collect());
}

#[test]
fn files_are_short_and_finished() {
    let dirs = ["src", "crates", "shaders", "tests", "benches", "examples", "python/src"];
    report(dirs.iter().flat_map(|dir| held(dir, check_size)).collect());
}

#[test]
fn every_error_has_a_row_with_its_exit_code() {
    let name = |error: &Error| -> String {
        format!("{error:?}").chars().take_while(|&c| is_word(c)).collect()
    };
    let codes: Vec<_> = errors().iter().map(|error| (name(error), error.exit_code())).collect();
    let names: Vec<_> = codes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(variants(&read("src/error.rs").expect("error.rs")), names, "errors() lacks one");
    report(check_exit_codes(&read("ARCHITECTURE.md").unwrap_or_default(), &codes));
}

// ---- The rules detect violations ----

/// Asserts that the violations start with these texts, one each.
#[track_caller]
fn assert_caught(offenders: Vec<String>, expected: &[&str]) {
    let same = offenders.iter().zip(expected).all(|(found, start)| found.starts_with(start));
    assert!(same && offenders.len() == expected.len(), "{offenders:#?}, not {expected:#?}");
}

#[test]
fn text_is_not_code() {
    let text = "/* crate::a */ b'x' \"\\\"a::b\" r#\"\"a::c\"# // crate::d\n'\\'' 'a fn r#x";
    let words: Vec<_> = code(text).split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["b", "'a", "fn", "r#x"]);
    assert_eq!(code(text).lines().count(), 2);
}

#[test]
fn uses_of_other_modules_are_caught() {
    let text = "//! [`crate::cli`]\nuse crate::{\n    error::Error,\n    cpu::{self, X as Y},\n};\n\
                fn f() { let x = 0..crate::kernel_check::N; }\n";
    let refused = ["4: `gpu` may not use `cpu`", "4: ", "6: `gpu` may not use `kernel_check`"];
    let refused = refused.map(|rule| format!("src/gpu/mod.rs:{rule}"));
    assert_caught(check_layers("src/gpu/mod.rs", text), &refused.each_ref().map(String::as_str));
    assert_caught(check_layers("src/lib.rs", text), &[]);
    assert_caught(check_layers("src/attic.rs", text), &["src/attic.rs:1: module `attic`"]);

    let test = "#[cfg(test)]\nmod tests {\n    use crate::tune;\n}\nuse super::super::x;\n";
    assert_caught(check_layers("src/cpu/a.rs", test), &["src/cpu/a.rs:5: no `super::super`"]);
    assert_caught(check_layers("src/batch.rs", "use super::gpu;"), &["src/batch.rs:1: `batch`"]);
    assert_caught(check_layers("src/gpu/a.rs", "use super::device;"), &[]);
    assert_caught(check_layers("src/gpu/a.rs", "use crate::Embedder;"), &["src/gpu/a.rs:1: "]);
    assert_caught(check_layers("src/gpu/a.rs", "use crate::*;"), &["src/gpu/a.rs:1: "]);
}

#[test]
fn crates_and_unsafe_in_other_modules_are_caught() {
    let text = "use ::wgpu;\nfn f(x: wgpu::Buffer) {\n    unsafe {}\n}\n// unsafe wgpu::\n";
    let refused = ["src/cpu/mod.rs:3: `unsafe`", "src/cpu/mod.rs:1: `wgpu`", "src/cpu/mod.rs:2: "];
    assert_caught(check_homes("src/cpu/mod.rs", text), &refused);
    assert_caught(check_homes("src/gpu/mod.rs", text), &["src/gpu/mod.rs:3: `unsafe`"]);
    assert_caught(check_homes("src/cpu/a.rs", "use super::simd::run;"), &[]);
    let manifest = "[dependencies]\nwgpu = \"3\"\nwarp-drive = \"1\"\n[features]\ndefault = []\n";
    assert_caught(check_dependencies("Cargo.toml", manifest), &["Cargo.toml:3: `warp_drive`"]);
}

#[test]
fn missing_files_and_long_ones_are_caught() {
    let exists = |path: &str| !path.starts_with("src/reference/");
    let refused = ["src/reference/k.rs:1: kernel `k`", "shaders/README.md:1: kernel `k`"];
    assert_caught(check_kernel("k", exists, "| [kk](kk.wgsl) | a row |"), &refused);

    let long = "x".repeat(101);
    assert_caught(check_size("a.rs", &format!("\n{long}")), &["a.rs:2: 101 characters, over"]);
    assert_caught(check_size("a.wgsl", &long), &[]);
    assert_caught(check_size("a.rs", &format!("f(\"{long}\")\n// https://{long}")), &[]);
    assert_caught(check_size("a.wgsl", &"\n".repeat(251)), &["a.wgsl:251: 251 lines, over"]);
    let left = format!("fn f() {{\n    {}()\n}}", UNFINISHED[2].replace('-', ""));
    assert_caught(check_size("a.rs", &left), &["a.rs:2: `"]);
}

#[test]
fn wrong_exit_codes_are_caught() {
    let codes = [("Read".to_owned(), 66), ("Gpu".to_owned(), 69)];
    let rows =
        "|---|---|\n| `Read` | 65 | x |\n| `Busy` | 75 |\n| `T` | tokens |\n| `Gpu` | 69 |\n";
    let refused =
        ["ARCHITECTURE.md:2: no error", "ARCHITECTURE.md:3: ", "ARCHITECTURE.md:1: no row"];
    assert_caught(check_exit_codes(rows, &codes), &refused);
    let text =
        "pub enum Error {\n    /// A\n    #[x]\n    Read {\n        B: C,\n    },\n    Gpu(D),\n}";
    assert_eq!(variants(text), ["Read", "Gpu"]);
}
