//! Models by name, from a hub on this machine.

mod declared;
mod faults;
mod server;
mod tls;

use super::kit::{self, Ran, arg, copy_model, end, fixture, jinabert, names, run, start};
use server::{COMMIT, Fault, ID, Request, Server, etag};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const WEIGHTS: &str = "model.safetensors";
const OTHER: &str = "ffeeddccbbaa99887766554433221100ffeeddcc";

fn tiny() -> PathBuf {
    fixture("tiny-geglu-4h")
}

fn place() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Command with its own home for models, and no other hub variables in its environment.
fn program(server: &Server, home: &Path, args: &[&str]) -> Command {
    at(jinabert(args), server, home)
}

/// Sets this hub as the only one in the command's environment.
fn at(mut command: Command, server: &Server, home: &Path) -> Command {
    for name in std::env::vars_os().map(|(name, _)| name) {
        let text = name.to_string_lossy().to_ascii_uppercase();
        let authorities = text.starts_with("SSL_CERT_") || text.ends_with("_CA_BUNDLE");
        let hub = text.starts_with("HF_") || text.starts_with("HUGGING");
        if hub || authorities || text.ends_with("_PROXY") {
            command.env_remove(name);
        }
    }
    command.env("HF_ENDPOINT", &server.endpoint).env("HF_HOME", home);
    command.env_remove("TRANSFORMERS_OFFLINE");
    command
}

fn pull(server: &Server, home: &Path) -> Ran {
    run(&mut program(server, home, &["pull", ID]), b"")
}

const EMBED: &[&str] = &["embed", "--model", ID, "A blue cat", "b"];

/// Runs the cached model on two texts, without the hub.
fn offline(server: &Server, home: &Path, more: &[&str]) -> Ran {
    let mut command = program(server, home, &[EMBED, more].concat());
    run(command.env("HF_HUB_OFFLINE", "1"), b"")
}

/// Output of a directory's model for the two texts.
fn expected(dir: &Path) -> Vec<u8> {
    kit::embed(dir, &["A blue cat", "b"], b"").output("the directory")
}

/// Checks that no model can be opened, and that no blob has the name of its weights.
#[track_caller]
fn nothing_is_left(server: &Server, home: &Path, case: &str) {
    let ran = offline(server, home, &[]);
    ran.refused(case, 66, &[ID, "not in the cache", "HF_HUB_OFFLINE"]);
    let blobs = home.join("hub/models--owner--tiny/blobs");
    let blob = blobs.join(etag(WEIGHTS, &server.file(WEIGHTS)));
    assert!(!blob.exists(), "{case}: {blob:?}");
}

/// Directory of the model in the cache.
fn snapshot(home: &Path) -> PathBuf {
    home.join("hub/models--owner--tiny/snapshots").join(COMMIT)
}

#[test]
fn a_pulled_model_equals_the_directory() {
    for fixture_name in ["tiny-geglu-4h", "tiny-sharded"] {
        let server = Server::start(&fixture(fixture_name));
        let home = place();
        let said = pull(&server, home.path()).output("pull");
        let dir = String::from_utf8(said).expect("UTF-8");
        assert_eq!(Path::new(dir.trim_end()), snapshot(home.path()));
        let requests = server.requests();
        assert_eq!(requests.iter().filter(|request| request.lists()).count(), 1);
        let noise = |request: &Request| {
            ["LICENSE", ".bin", ".onnx", "recipe.json"]
                .iter()
                .any(|end| request.path.ends_with(end))
        };
        assert!(!requests.iter().any(noise), "{requests:?}");

        let vectors = expected(&fixture(fixture_name));
        let ran = offline(&server, home.path(), &[]);
        assert!(ran.output(fixture_name) == vectors);
        // A complete cache needs no requests, even if they are allowed.
        let online = run(&mut program(&server, home.path(), EMBED), b"");
        assert!(online.output(fixture_name) == vectors);
        assert!(server.requests().is_empty());
        kit::embed(Path::new(dir.trim_end()), &["b"], b"").output("the printed directory");
    }
}

#[cfg(unix)]
#[test]
fn the_cache_has_the_layout_of_huggingface_hub() {
    let server = Server::start(&tiny());
    let home = place();
    pull(&server, home.path()).output("pull");
    let root = home.path().join("hub/models--owner--tiny");
    assert_eq!(names(&root), [".no_exist", "blobs", "refs", "snapshots"]);
    let absent = names(&root.join(".no_exist").join(COMMIT));
    assert_eq!(absent, ["config_sentence_transformers.json"]);
    assert_eq!(fs::read_to_string(root.join("refs/main")).expect("a reference"), COMMIT);
    let mut blobs = Vec::new();
    let files = [
        "1_Pooling/config.json",
        "README.md",
        "config.json",
        WEIGHTS,
        "modules.json",
        "sentence_bert_config.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    for name in files {
        let up = if name.contains('/') { "../../../blobs" } else { "../../blobs" };
        let link = fs::read_link(snapshot(home.path()).join(name)).expect("a link");
        let blob = etag(name, &server.file(name));
        assert_eq!(link, Path::new(up).join(&blob));
        blobs.push(blob);
    }
    blobs.sort_unstable();
    assert_eq!(names(&root.join("blobs")), blobs);
    let top = files.iter().map(|name| name.split('/').next().expect("a part").to_owned());
    assert_eq!(names(&snapshot(home.path())), top.collect::<Vec<_>>());
}

#[test]
fn the_model_card_is_downloaded_if_it_exists() {
    for (card, licence) in [(true, "apache-2.0\n"), (false, "unknown: no README.md here\n")] {
        let server = Server::start(&tiny());
        let home = place();
        if !card {
            server.change(|files| drop(files.remove("README.md")));
        }
        pull(&server, home.path()).output("pull");
        let mut info = program(&server, home.path(), &["info", "--model", ID]);
        let text = run(info.env("HF_HUB_OFFLINE", "1"), b"").output("info");
        let text = String::from_utf8(text).expect("UTF-8");
        assert!(text.contains(&format!("licence      {licence}")), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn a_cache_filled_by_python_is_used() {
    use std::os::unix::fs::symlink;
    let server = Server::start(&tiny());
    let home = place();
    let root = home.path().join("hub/models--owner--tiny");
    let dir = snapshot(home.path());
    for part in [&root.join("refs"), &root.join("blobs"), &dir] {
        fs::create_dir_all(part).expect("writable");
    }
    fs::write(root.join("refs/main"), COMMIT).expect("writable");
    let add = |name: &str| {
        let bytes = server.file(name);
        let blob = etag(name, &bytes);
        fs::write(root.join("blobs").join(&blob), bytes).expect("writable");
        symlink(Path::new("../../blobs").join(blob), dir.join(name)).expect("writable");
    };
    add("config.json");
    offline(&server, home.path(), &[]).refused("config alone", 66, &["`model.safetensors`"]);
    add(WEIGHTS);
    offline(&server, home.path(), &[]).refused("no tokenizer", 66, &["`tokenizer.json`"]);
    assert!(server.requests().is_empty());
    // Only missing files are downloaded.
    let vectors = expected(&tiny());
    assert!(run(&mut program(&server, home.path(), EMBED), b"").output("the rest") == vectors);
    let requests = server.requests();
    assert!(requests.iter().any(|request| request.fetches("tokenizer.json")));
    assert!(!requests.iter().any(|request| request.fetches(WEIGHTS) || request.cdn));
    assert!(offline(&server, home.path(), &[]).output("all") == vectors);
}

#[test]
fn a_name_is_pulled_once_and_kept_by_revision() {
    let server = Server::start(&tiny());
    let home = place();
    let vectors = expected(&tiny());
    let revisions: [&[&str]; 3] = [&["--revision", "refs/pr/1"], &[], &["--revision", "v1.0"]];
    for (n, revision) in revisions.iter().enumerate() {
        offline(&server, home.path(), revision).refused("not yet", 66, &["no such revision"]);
        let mut command = program(&server, home.path(), &[EMBED, revision].concat());
        assert!(run(&mut command, b"").output("pulled") == vectors);
        let requests = server.requests();
        // Equal bytes are not downloaded again.
        assert_eq!(requests.iter().any(|request| request.fetches(WEIGHTS)), n == 0);
        assert!(run(&mut command, b"").output("kept") == vectors);
        assert!(server.requests().is_empty());
    }
    let commit = ["--revision", COMMIT];
    assert!(offline(&server, home.path(), &commit).output("by its commit") == vectors);

    let cache = place();
    let args = [EMBED, &["--cache-dir", arg(cache.path())]].concat();
    let mut elsewhere = program(&server, home.path(), &args);
    assert!(run(&mut elsewhere, b"").output("another cache") == vectors);
    assert_eq!(names(cache.path()), [".locks", "models--owner--tiny"]);
    let mut variable = program(&server, Path::new("/nowhere"), EMBED);
    let variable = variable.env("HF_HUB_CACHE", cache.path()).env("HF_HUB_OFFLINE", "1");
    assert!(run(variable, b"").output("by HF_HUB_CACHE") == vectors);
}

#[test]
fn every_command_takes_a_name() {
    let server = Server::start(&tiny());
    let home = place();
    let ids = home.path().join("W.txt");
    fs::write(&ids, "2 5 3\n").expect("writable");
    let commands: [&[&str]; 2] = [
        &["similarity", "a", "b", "--model", ID],
        &["bench", "model", "--runs", "1", "--json", "--ids", arg(&ids), "--model", ID],
    ];
    for args in commands {
        let out = run(&mut program(&server, home.path(), args), b"").output(args[0]);
        let named = String::from_utf8(out).expect("UTF-8").contains("\"model\":\"tiny\"");
        assert_eq!(named, args[0] == "bench");
    }
    let mut tune = program(&server, home.path(), &["tune", "--device", "cpu", "--model", ID]);
    run(&mut tune, b"").refused("tune", 2, &["GPU"]);
    assert_eq!(server.requests().iter().filter(|request| request.lists()).count(), 1);
}

#[test]
fn a_directory_wins_over_the_hub() {
    let server = Server::start(&tiny());
    let home = place();
    let here = place();
    copy_model(&fixture("tiny-natural"), &here.path().join(ID));
    let mut command = program(&server, home.path(), EMBED);
    let found = run(command.current_dir(here.path()), b"").output("the directory");
    assert!(found == expected(&fixture("tiny-natural")));
    let mut command = program(&server, home.path(), &[EMBED, &["--revision", "main"]].concat());
    let ran = run(command.current_dir(here.path()), b"");
    ran.refused("its revision", 2, &["--revision main", ID]);
    for no_id in ["owner/tiny/model", "tiny", "./owner/tiny", "owner/ti--ny"] {
        let mut command = program(&server, home.path(), &["embed", "--model", no_id, "a"]);
        run(&mut command, b"").refused(no_id, 66, &["cannot read", no_id, "config.json"]);
    }
    assert!(server.requests().is_empty());
}

#[test]
fn pull_updates_to_a_newer_commit() {
    let broken = |request: &Request, _: usize| {
        let other = request.path.contains(OTHER) && request.fetches("config.json");
        (other && request.token.is_none()).then_some(Fault::Body(b"{}".to_vec()))
    };
    let server = Server::with(&tiny(), None, broken);
    let home = place();
    pull(&server, home.path()).output("the first");
    let before = offline(&server, home.path(), &[]).output("the first");
    server.commit(OTHER);
    // A larger LayerNorm epsilon changes the result.
    server.change(|files| {
        let config = String::from_utf8(files["config.json"].clone()).expect("UTF-8");
        let config = config.replace("\"layer_norm_eps\": 1e-12", "\"layer_norm_eps\": 1e-2");
        files.insert("config.json".to_owned(), config.into_bytes());
    });
    server.requests();
    // A failed update leaves the old model usable.
    pull(&server, home.path()).refused("half", 69, &["config.json", "2 bytes"]);
    assert!(offline(&server, home.path(), &[]).output("the old one") == before);
    server.requests();
    let mut command = program(&server, home.path(), &["pull", ID]);
    run(command.env("HF_TOKEN", "hf_x"), b"").output("the second");
    let fetched: Vec<_> = server.requests().into_iter().filter(|r| r.method == "GET").collect();
    let paths: Vec<_> = fetched.iter().map(|request| &*request.path).collect();
    assert!(paths.len() == 2 && paths[1].ends_with("/config.json"), "{paths:?}");
    assert!(offline(&server, home.path(), &[]).output("the new one") != before);
    let old = ["--revision", COMMIT];
    assert!(offline(&server, home.path(), &old).output("the old one, by name") == before);
}

#[test]
fn concurrent_pulls_download_once() {
    let slow = |request: &Request, _: usize| {
        request.fetches(WEIGHTS).then_some(Fault::Late(Duration::from_millis(700)))
    };
    let server = Server::with(&tiny(), None, slow);
    let home = place();
    let running = [(); 3].map(|()| start(&mut program(&server, home.path(), &["pull", ID]), b""));
    for child in running {
        assert_eq!(end(child), (Some(0), String::new()));
    }
    let requests = server.requests();
    assert_eq!(requests.iter().filter(|request| request.fetches(WEIGHTS)).count(), 1);
    assert_eq!(requests.iter().filter(|request| request.fetches("config.json")).count(), 1);
    assert!(offline(&server, home.path(), &[]).output("one whole model") == expected(&tiny()));
}

#[test]
fn a_killed_pull_is_resumed() {
    const AT: usize = 300_000;
    let stall = |request: &Request, before: usize| {
        let first = request.fetches(WEIGHTS) && before == 0;
        first.then_some(Fault::Stall(AT, Duration::from_secs(50)))
    };
    let server = Server::with(&tiny(), None, stall);
    let home = place();
    let mut child = start(&mut program(&server, home.path(), &["pull", ID]), b"");
    let blob = home.path().join("hub/models--owner--tiny/blobs");
    let blob = blob.join(etag(WEIGHTS, &server.file(WEIGHTS)));
    let partial = blob.with_extension("incomplete");
    let begun = Instant::now();
    while fs::metadata(&partial).map_or(0, |file| file.len()) < AT as u64 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing arrives");
        thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("a child");
    child.wait().expect("a child");
    nothing_is_left(&server, home.path(), "killed");

    pull(&server, home.path()).output("the rest");
    let fetches = server.requests().into_iter().filter(|request| request.fetches(WEIGHTS));
    assert_eq!(fetches.map(|request| request.from).collect::<Vec<_>>(), [None, Some(AT)]);
    assert!(blob.exists() && !partial.exists());
    assert!(offline(&server, home.path(), &[]).output("whole") == expected(&tiny()));
}

#[test]
fn a_renamed_model_is_found() {
    let moved = |request: &Request, _: usize| {
        request.path.contains("owner/old/").then_some(Fault::Moved("owner/old/", "owner/tiny/"))
    };
    let server = Server::with(&tiny(), Some("hf_x"), moved);
    let home = place();
    let args = ["embed", "--model", "owner/old", "A blue cat", "b"];
    let mut command = program(&server, home.path(), &args);
    let found = run(command.env("HF_TOKEN", "hf_x"), b"").output("by its old name");
    assert!(found == expected(&tiny()));
    assert!(server.requests().iter().all(|request| request.cdn || request.token.is_some()));
    assert!(home.path().join("hub/models--owner--old/refs/main").exists());
}

#[test]
fn damage_on_disk_is_repaired() {
    let server = Server::start(&tiny());
    let home = place();
    pull(&server, home.path()).output("pull");
    for (name, keep) in [(WEIGHTS, 1000), ("tokenizer.json", 10_211)] {
        let path = snapshot(home.path()).join(name);
        let mut bytes = fs::read(&path).expect("a file");
        bytes[500] ^= 1;
        fs::write(path, &bytes[..keep]).expect("writable");
    }
    server.requests();
    pull(&server, home.path()).output("again");
    let requests = server.requests();
    assert_eq!(requests.iter().filter(|request| request.fetches(WEIGHTS)).count(), 1);
    assert_eq!(requests.iter().filter(|request| request.fetches("config.json")).count(), 0);
    assert!(offline(&server, home.path(), &[]).output("repaired") == expected(&tiny()));
}

#[test]
fn no_progress_is_drawn_without_a_terminal() {
    let server = Server::start(&tiny());
    let home = place();
    let mut command = Command::new(env!("CARGO_BIN_EXE_jinabert"));
    command.args(["pull", ID]);
    let ran = run(&mut at(command, &server, home.path()), b"");
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(0), 1), "{}", ran.stderr);
    assert!(
        ran.stderr.starts_with("pulling `owner/tiny`") && !ran.stderr.contains(['\r', '\u{1b}'])
    );
}
