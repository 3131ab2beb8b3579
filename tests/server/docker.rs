//! The Dockerfile, as far as it can be held without Docker: what it names is there, and its
//! health check is asked of a real server.

use crate::kit::{Server, fixture};
use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("a file")
}

/// Its instructions, each with the stage it belongs to; lines that go on are joined.
fn instructions() -> Vec<(String, String, String)> {
    let text = read("Dockerfile").replace("\\\n", " ");
    let (mut stage, mut found) = (String::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').expect("an instruction and what it takes");
        if word == "FROM" {
            stage = rest.rsplit(' ').next().expect("a name").to_owned();
        }
        found.push((stage.clone(), word.to_owned(), rest.trim().to_owned()));
    }
    found
}

/// What instructions of this word take, in order.
fn all(word: &str) -> Vec<String> {
    let of_word = instructions().into_iter().filter(|(_, found, _)| found == word);
    of_word.map(|(.., rest)| rest).collect()
}

/// The last one, which is a list in JSON, perhaps behind options.
fn list(word: &str) -> Vec<String> {
    let last = all(word).pop().unwrap_or_else(|| panic!("no {word}"));
    serde_json::from_str(&last[last.find('[').expect("a list")..]).expect("JSON")
}

#[test]
fn what_is_copied_is_there_and_not_ignored() {
    let ignored = read(".dockerignore");
    let kept: Vec<_> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignored.lines().any(|line| line == "*"), "{ignored}");
    let mut seen = 0;
    for copy in all("COPY").iter().filter(|copy| !copy.starts_with("--from")) {
        let words: Vec<_> = copy.split_whitespace().collect();
        for source in &words[..words.len() - 1] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
            assert!(path.exists(), "COPY {source}: not there");
            let top = source.split('/').next().expect("a name");
            assert!(kept.contains(&top), "COPY {source}: .dockerignore leaves it out");
            seen += 1;
        }
    }
    assert!(seen >= 7, "{seen}");
    for path in kept {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "!{path}: not there");
    }
}

#[test]
fn stages_follow_from_one_another() {
    let stages = all("FROM");
    let names: Vec<_> = stages.iter().filter_map(|from| Some(from.split_once(" AS ")?.1)).collect();
    assert_eq!(names, ["build", "cpu", "lavapipe", "gpu"]);
    for stage in ["cpu", "lavapipe", "gpu"] {
        let instructions = instructions();
        let user = instructions.iter().rfind(|(of, word, _)| of == stage && word == "USER");
        assert_eq!(user.map(|(.., name)| name.as_str()), Some("jinabert"), "{stage}");
    }
    for copy in all("COPY").iter().filter_map(|copy| copy.strip_prefix("--from=")) {
        let from = copy.split(' ').next().expect("a stage");
        assert!(names.contains(&from), "--from={from}");
    }
}

#[test]
fn the_program_knows_what_it_is_told() {
    let program = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jinabert"));
        let output = command.args(args).output().expect("a program");
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(list("ENTRYPOINT"), ["jinabert"]);
    let command = list("CMD");
    let mut args: Vec<_> = command.iter().map(String::as_str).collect();
    args.push("--help");
    let help = program(&args) + &program(&["pull", "--help"]) + &program(&["tune", "--help"]);
    let environment = all("ENV").join(" ");
    let mut seen = 0;
    for variable in environment.split_whitespace() {
        let (name, _) = variable.split_once('=').expect("NAME=value");
        if name.starts_with("JINABERT_") || name.starts_with("HF_") {
            assert!(help.contains(name), "{name} means nothing to the program");
            seen += 1;
        }
    }
    assert!(seen >= 5, "{seen}");
    let port = environment.split_whitespace().find_map(|v| v.strip_prefix("JINABERT_PORT="));
    assert_eq!(all("EXPOSE"), [port.expect("a port")]);
}

/// In the bash of the image, Debian's.
#[cfg(target_os = "linux")]
#[test]
fn the_health_check_tells_a_server_from_none() {
    let check = list("HEALTHCHECK");
    let healthy = |port: &str| {
        let mut command = Command::new(&check[0]);
        let status = command.args(&check[1..]).env("JINABERT_PORT", port).output();
        status.expect("bash").status.success()
    };
    let server = Server::start(&["--model", &fixture("tiny-natural")]);
    let address = server.url("");
    let port = address.rsplit(':').next().expect("a port");
    let start = Instant::now();
    while !healthy(port) {
        assert!(start.elapsed().as_secs() < 60, "not healthy");
        thread::sleep(Duration::from_millis(50));
    }
    let port = port.to_owned();
    drop(server);
    assert!(!healthy(&port));
}
