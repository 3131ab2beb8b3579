//! Files that configure the embedding of texts are downloaded from wherever a repository has them.

use super::{
    COMMIT, EMBED, ID, Server, at, expected, fixture, kit, offline, place, program, pull, run,
    snapshot, tiny,
};
use serde_json::json;
use std::{fs, net::TcpListener, path::Path, process::Command};

const POOLING: &str = "2_Pooling/config.json";

/// Hub whose model declares CLS pooling, in a folder with another name.
fn by_the_first_token() -> Server {
    let server = Server::start(&tiny());
    server.change(|files| {
        files.remove("1_Pooling/config.json");
        let config = json!({"embedding_dimension": 64, "pooling_mode": "cls"});
        files.insert(POOLING.to_owned(), config.to_string().into_bytes());
        let modules = json!([
            {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "path": "2_Pooling", "type": "sentence_transformers.models.Pooling"},
        ]);
        files.insert("modules.json".to_owned(), modules.to_string().into_bytes());
    });
    server
}

fn cls() -> Vec<u8> {
    kit::embed(&tiny(), &["A blue cat", "b", "--pooling", "cls"], b"").output("by hand")
}

#[test]
fn pooling_is_fetched_from_the_declared_folder() {
    let server = by_the_first_token();
    let home = place();
    pull(&server, home.path()).output("pull");
    assert!(snapshot(home.path()).join(POOLING).is_file());
    assert!(offline(&server, home.path(), &[]).output("pulled") == cls());
    let server = by_the_first_token();
    let home = place();
    let opened = run(&mut program(&server, home.path(), EMBED), b"");
    assert!(opened.output("by name") == cls());
    server.requests();
    assert!(run(&mut program(&server, home.path(), EMBED), b"").output("kept") == cls());
    assert!(server.requests().is_empty());

    // Cache filled by an older version, or by hand.
    fs::remove_file(snapshot(home.path()).join(POOLING)).expect("a file");
    let says = &[ID, &*format!("`{POOLING}` is missing")];
    offline(&server, home.path(), &[]).refused("lost", 66, says);
    assert!(run(&mut program(&server, home.path(), EMBED), b"").output("found") == cls());

    // File that the repository does not have either.
    let server = by_the_first_token();
    let home = place();
    server.change(|files| drop(files.remove(POOLING)));
    pull(&server, home.path()).output("as the hub has it");
    let refused = offline(&server, home.path(), &[]);
    refused.refused("declared and absent", 66, &["cannot read", POOLING]);
}

#[test]
fn files_missing_from_the_cache_are_requested_once() {
    let server = by_the_first_token();
    let home = place();
    pull(&server, home.path()).output("pull");
    // As after a download by transformers: without the files for sentence-transformers.
    let strip = || {
        let dir = snapshot(home.path());
        for name in ["modules.json", "sentence_bert_config.json", POOLING] {
            let _ = fs::remove_file(dir.join(name));
        }
        let notes = home.path().join("hub/models--owner--tiny/.no_exist");
        let _ = fs::remove_dir_all(notes.join(COMMIT));
    };
    strip();
    let mean = expected(&tiny());
    assert!(offline(&server, home.path(), &[]).output("nothing is known") == mean);

    // If the hub cannot be reached, the cache is used as it is, with a warning.
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", port.local_addr().expect("bound"));
    drop(port);
    let mut command = program(&server, home.path(), EMBED);
    let ran = run(command.env("HF_ENDPOINT", &address), b"");
    assert!(ran.code == Some(0) && ran.stdout == mean, "{}", ran.stderr);
    assert!(ran.stderr.contains("without its `modules.json`"), "{}", ran.stderr);

    server.commit("ffeeddccbbaa99887766554433221100ffeeddcc");
    server.requests();
    strip();
    // The missing file is taken from the commit in the cache, not from the newest.
    let ran = run(&mut program(&server, home.path(), EMBED), b"");
    assert!(ran.code == Some(0) && ran.stdout == mean, "{}", ran.stderr);
    assert!(server.requests().iter().all(|request| request.path.contains(COMMIT)));
    server.commit(COMMIT);
    let found = run(&mut program(&server, home.path(), EMBED), b"").output("asked for");
    assert!(found == cls());
    let requests = server.requests();
    assert!(!requests.iter().any(|request| request.cdn), "{requests:?}");
    assert!(run(&mut program(&server, home.path(), EMBED), b"").output("known") == cls());
    assert!(server.requests().is_empty());
    // A copy of a complete repository needs no request.
    strip();
    fs::write(snapshot(home.path()).join(".gitattributes"), "").expect("writable");
    assert!(run(&mut program(&server, home.path(), EMBED), b"").output("all") == mean);
    assert!(server.requests().is_empty());
}

#[test]
fn prompts_are_downloaded_with_the_model() {
    let server = Server::start(&tiny());
    let home = place();
    server.change(|files| {
        let prompts = json!({"prompts": {"query": "query: "}, "default_prompt_name": "query"});
        let name = "config_sentence_transformers.json".to_owned();
        files.insert(name, prompts.to_string().into_bytes());
    });
    let whole = kit::embed(&tiny(), &["query: A blue cat", "query: b"], b"").output("by hand");
    let found = run(&mut program(&server, home.path(), EMBED), b"").output("by name");
    assert!(found == whole);
    assert!(offline(&server, home.path(), &["--no-prompt"]).output("none") == expected(&tiny()));
}

#[test]
fn addresses_and_revisions_name_models() {
    let server = Server::start(&tiny());
    let home = place();
    let vectors = expected(&tiny());
    let page = format!("{}/{ID}/tree/v1.0", server.endpoint);
    let embed = |model: &str, more: &[&str]| {
        let args = [&["embed", "--model", model, "A blue cat", "b"], more].concat();
        run(&mut program(&server, home.path(), &args), b"")
    };
    for (model, revision) in [
        (&*page, "v1.0"),
        ("owner/tiny@refs/pr/1", "refs/pr/1"),
        ("https://huggingface.co/owner/tiny", "main"),
        ("hf://owner/tiny", "main"),
        ("huggingface.co/owner/tiny/tree/main", "main"),
    ] {
        assert!(embed(model, &[]).output(model) == vectors);
        let refs = home.path().join("hub/models--owner--tiny/refs").join(revision);
        assert_eq!(fs::read_to_string(refs).expect("a reference"), COMMIT, "{model}");
    }
    let mut pull = program(&server, home.path(), &["pull", &page]);
    let said = run(&mut pull, b"").output("pull");
    assert_eq!(Path::new(String::from_utf8(said).expect("UTF-8").trim()), snapshot(home.path()));
    let mut info = program(&server, home.path(), &["info", "--model", &page]);
    let text = String::from_utf8(run(&mut info, b"").output("info")).expect("UTF-8");
    assert!(text.starts_with("model        tiny\n"), "{text}");
    assert!(embed("owner/tiny@v1.0", &["--revision", "v1.0"]).output("twice the same") == vectors);

    server.requests();
    for (model, more, says) in [
        ("https://example.org/owner/tiny", &[][..], "expected an address of huggingface.co"),
        ("https://huggingface.co/datasets/a/b", &[], "got a page of datasets"),
        ("https://huggingface.co/owner/tiny/tree/main/onnx", &[], "got its folder onnx"),
        ("https://huggingface.co/tiny", &[], "expected owner/name in the address"),
        ("owner/tiny@../x", &[], "revision `../x`"),
        ("owner/tiny@v1.0", &["--revision", "main"], "got v1.0 in its name and main"),
    ] {
        embed(model, more).refused(model, 2, &[says]);
    }
    // A name that is not valid at the hub is a directory's.
    embed("a@b", &[]).refused("a directory", 66, &["cannot read", "a@b"]);
    assert!(server.requests().is_empty());
}

/// Variables may come from files that no shell reads, and so be unexpanded.
#[cfg(unix)]
#[test]
fn homes_and_variables_are_expanded_as_python_does() {
    let server = Server::start(&tiny());
    for (name, value, cache) in [
        ("HF_HOME", "~/models", "models/hub"),
        ("HF_HOME", "${HOME}/models", "models/hub"),
        ("HF_HUB_CACHE", "$HOME/models/x", "models/x"),
        ("HUGGINGFACE_HUB_CACHE", "~/y", "y"),
        ("XDG_CACHE_HOME", "~/c", "c/huggingface/hub"),
    ] {
        let home = place();
        let here = place();
        let mut command: Command = at(kit::jinabert(&["pull", ID]), &server, home.path());
        command.env_remove("HF_HOME").env_remove("XDG_CACHE_HOME");
        command.env("HOME", home.path()).env(name, value).current_dir(here.path());
        let said = String::from_utf8(run(&mut command, b"").output(name)).expect("UTF-8");
        let expected = home.path().join(cache).join("models--owner--tiny");
        assert!(Path::new(said.trim()).starts_with(&expected), "{name}={value}: {said}");
        assert!(kit::names(here.path()).is_empty(), "{name}={value}");
    }
    const TOKEN: &str = "hf_right";
    let gated = Server::with(&fixture("tiny-geglu-4h"), Some(TOKEN), |_, _| None);
    let home = place();
    fs::write(home.path().join("token"), TOKEN).expect("writable");
    let mut command = program(&gated, &home.path().join("x"), &["pull", ID]);
    command.env("HOME", home.path()).env("HF_TOKEN_PATH", "$HOME/token");
    run(&mut command, b"").output("a token");
}

#[test]
fn adapters_are_fetched_from_the_folders_of_their_tasks() {
    let server = Server::start(&fixture("v3-native"));
    let home = place();
    pull(&server, home.path()).output("pull");
    let task: &[&str] = &["--task", "text-matching"];
    let by_directory =
        kit::embed(&fixture("v3-native"), &["A blue cat", "b", task[0], task[1]], b"");
    let by_directory = by_directory.output("by hand");
    assert!(offline(&server, home.path(), task).output("pulled") == by_directory);
    // Cache of a program that reads the base only.
    fs::remove_dir_all(snapshot(home.path()).join("text_matching")).expect("a folder");
    let says = &[ID, "`text_matching/adapter_config.json` is missing"];
    offline(&server, home.path(), task).refused("base only", 66, says);
    let args = [EMBED, task].concat();
    assert!(run(&mut program(&server, home.path(), &args), b"").output("found") == by_directory);
}
