//! The Dockerfile, as far as it can be tested without Docker: the files it names exist and are all
//! that a build needs, and its health check runs against a real server.

use crate::kit::{Server, fixture};
use crate::root::root;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).expect("a file")
}

/// Instructions, each with its build stage; continuation lines are joined.
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

/// Arguments of all instructions with this keyword, in order.
fn all(word: &str) -> Vec<String> {
    let of_word = instructions().into_iter().filter(|(_, found, _)| found == word);
    of_word.map(|(.., rest)| rest).collect()
}

/// Last instruction with this keyword; its argument is a JSON list, maybe after options.
fn list(word: &str) -> Vec<String> {
    let last = all(word).pop().unwrap_or_else(|| panic!("no {word}"));
    serde_json::from_str(&last[last.find('[').expect("a list")..]).expect("JSON")
}

/// Stage, sources and destination of each COPY from the build context.
fn copies() -> Vec<(String, Vec<String>, String)> {
    let mut found = Vec::new();
    for (stage, word, rest) in instructions() {
        if word == "COPY" && !rest.starts_with("--from") {
            let mut paths: Vec<_> = rest.split_whitespace().map(str::to_owned).collect();
            let destination = paths.pop().expect("a destination");
            found.push((stage, paths, destination));
        }
    }
    found
}

/// True if `.dockerignore` leaves a path out: the last rule that matches it decides.
fn is_ignored(rules: &str, path: &str) -> bool {
    let mut ignored = false;
    for rule in rules.lines().filter(|rule| !rule.is_empty() && !rule.starts_with('#')) {
        let (pattern, verdict) = match rule.strip_prefix('!') {
            Some(pattern) => (pattern, false),
            None => (rule, true),
        };
        let matches = match pattern.strip_prefix("**/") {
            Some(name) => path.split('/').any(|part| part == name),
            None => {
                let below = path.strip_prefix(pattern);
                pattern == "*" || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        };
        if matches {
            ignored = verdict;
        }
    }
    ignored
}

/// Copies a file, or a directory without the paths that `.dockerignore` leaves out.
fn copy(rules: &str, path: &str, to: &Path) {
    let from = root().join(path);
    if is_ignored(rules, path) {
        return;
    }
    if from.is_dir() {
        for entry in fs::read_dir(&from).expect("a directory") {
            let name = entry.expect("an entry").file_name();
            copy(rules, &format!("{path}/{}", name.to_string_lossy()), to);
        }
        return;
    }
    let target = to.join(path);
    fs::create_dir_all(target.parent().expect("a directory")).expect("a writable directory");
    fs::copy(&from, &target).expect("a copy");
}

#[test]
fn what_is_copied_is_there_and_not_ignored() {
    let rules = read(".dockerignore");
    assert!(is_ignored(&rules, "target") && is_ignored(&rules, "python/tests"), "{rules}");
    let sources: Vec<_> = copies().into_iter().flat_map(|(_, sources, _)| sources).collect();
    assert!(sources.len() >= 7, "{sources:?}");
    for source in &sources {
        assert!(root().join(source).exists(), "COPY {source}: not there");
        assert!(!is_ignored(&rules, source), "COPY {source}: .dockerignore leaves it out");
    }
    for path in rules.lines().filter_map(|rule| rule.strip_prefix('!')) {
        assert!(root().join(path).exists(), "!{path}: not there");
        let copied = sources.iter().any(|source| Path::new(source).starts_with(path));
        assert!(copied, "!{path}: not copied");
    }
}

/// Cargo reads the manifests of all packages before it builds one: in the build stage all are
/// there, and the files of all targets that they name.
#[test]
fn the_build_has_every_package() {
    let (rules, place) = (read(".dockerignore"), tempfile::tempdir().expect("a directory"));
    for (_, sources, destination) in copies().iter().filter(|(stage, ..)| stage == "build") {
        for source in sources {
            // Files keep their place, so the packages do.
            let directory = root().join(source).is_dir();
            let kept = if directory { Some(Path::new(source)) } else { Path::new(source).parent() };
            let destination = Path::new(destination.trim_start_matches("./"));
            assert_eq!(kept, Some(destination), "COPY {source}");
            copy(&rules, source, place.path());
        }
    }
    let metadata = |directory: &Path| {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]);
        let output = cargo.current_dir(directory).output().expect("cargo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).expect("JSON")
    };
    let names = |metadata: &Value| -> BTreeSet<_> {
        let packages = metadata["packages"].as_array().expect("packages");
        packages.iter().map(|package| package["name"].to_string()).collect()
    };
    let found = metadata(place.path());
    assert_eq!(names(&found), names(&metadata(root())));
    let packages = found["packages"].as_array().expect("packages");
    for target in packages.iter().flat_map(|package| package["targets"].as_array()).flatten() {
        let path = target["src_path"].as_str().expect("a path");
        assert!(Path::new(path).is_file(), "{path}: not copied");
    }
    assert!(names(&found).contains("\"jinabert-cli\""), "{:?}", names(&found));
    assert!(all("RUN")[0].contains("cargo build --release --locked -p jinabert-cli"));
}

#[test]
fn stages_follow_from_one_another() {
    let stages = all("FROM");
    let names: Vec<_> = stages.iter().filter_map(|from| Some(from.split_once(" AS ")?.1)).collect();
    assert_eq!(names, ["build", "cpu", "lavapipe", "gpu"]);
    for stage in ["cpu", "lavapipe", "gpu"] {
        let instructions = instructions();
        // A numeric user other than root, and the group of OpenShift's users.
        let user = instructions.iter().rfind(|(of, word, _)| of == stage && word == "USER");
        let (user, group) = user.and_then(|(.., name)| name.split_once(':')).expect("UID:GID");
        assert!(user.parse::<u32>().is_ok_and(|id| id > 0) && group == "0", "{stage}: {user}");
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

/// Directories in the variables are writable by any user of group 0, as OpenShift requires.
#[test]
fn directories_belong_to_group_0() {
    let run = all("RUN").join(" && ");
    let made = run.split("&&").find(|part| part.contains("install -d")).expect("directories");
    let words: Vec<_> = made.split_whitespace().collect();
    assert!(words.windows(2).any(|two| two == ["-g", "0"]), "{made}");
    assert!(words.windows(2).any(|two| two == ["-m", "0775"]), "{made}");
    let environment = all("ENV").join(" ");
    for name in ["HF_HUB_CACHE=", "JINABERT_CACHE="] {
        let value = environment.split_whitespace().find_map(|v| v.strip_prefix(name));
        assert!(words.contains(&value.expect(name)), "{name} is not made by {made}");
    }
}

/// The build stages and the final image use the same release of Debian.
#[test]
fn stages_have_one_debian() {
    let of = |image: &str| {
        let from = all("FROM").into_iter().find(|from| from.starts_with(image)).expect(image);
        from[image.len()..].split([' ', '-']).next().unwrap_or_default().to_owned()
    };
    assert_eq!((of("rust:1-"), of("debian:")), ("trixie".into(), "trixie".into()));
}

/// Runs in bash from Debian, as in the image.
#[cfg(target_os = "linux")]
#[test]
fn the_health_check_tells_a_server_from_none() {
    let check = list("HEALTHCHECK");
    let place = tempfile::tempdir().expect("a directory");
    // Command line of process 1 of the container.
    let words = place.path().join("cmdline");
    let asked = |port: &str, command_line: &[&str]| {
        fs::write(&words, command_line.join("\0") + "\0").expect("a writable directory");
        let file = words.to_str().expect("UTF-8");
        let script = check[2].replace("/proc/1/cmdline", file);
        assert!(script.contains(file), "{script}");
        let mut command = Command::new(&check[0]);
        let status = command.arg(&check[1]).arg(script).env("JINABERT_PORT", port).output();
        status.expect("bash").status.success()
    };
    let healthy = |port: &str| asked(port, &["jinabert", "serve"]);
    let server = Server::start(&["--model", &fixture("tiny-natural")]);
    let address = server.url("");
    let port = address.rsplit(':').next().expect("a port");
    let start = Instant::now();
    while !healthy(port) {
        assert!(start.elapsed().as_secs() < 60, "not healthy");
        thread::sleep(Duration::from_millis(50));
    }
    let port = port.to_owned();
    // If both name a port, the command line has precedence.
    let (long, short) = (format!("--port={port}"), format!("-p{port}"));
    for option in [vec!["--port", &port], vec!["-p", &port], vec![&long], vec![&short]] {
        let start = vec!["docker-init", "--", "jinabert", "serve"];
        let line = [start, option, vec!["--quiet"]].concat();
        assert!(asked("1", &line), "{line:?}");
    }
    assert!(!asked(&port, &["jinabert", "serve", "--port", "1"]));
    drop(server);
    assert!(!healthy(&port));
}
