//! Failing hubs and caches: temporary faults are retried, others reported, and no bad file is kept.

use super::{
    COMMIT, EMBED, Fault, ID, Request, Server, WEIGHTS, arg, at, etag, expected, fixture,
    nothing_is_left, offline, place, program, pull, run, tiny,
};
use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    thread,
    time::Duration,
};

const LATER: Duration = Duration::from_secs(20);

/// Hub that fails once for each request for which `first` returns a fault.
fn failing(first: impl Fn(&Request) -> Option<Fault> + Send + Sync + 'static) -> Server {
    Server::with(&tiny(), None, move |request, before| first(request).filter(|_| before == 0))
}

#[test]
fn temporary_faults_are_retried() {
    let status = |code, fields| move |_: &Request| Some(Fault::Status(code, fields));
    let weights =
        |fault: Fault| move |request: &Request| request.fetches(WEIGHTS).then(|| fault.clone());
    // Faults, and the positions from which the weights are then requested.
    let cases: [(&str, Server, &[Option<usize>]); 9] = [
        ("429", failing(status(429, "Retry-After: 1")), &[None, None]),
        ("500", failing(status(500, "X-A: b")), &[None, None]),
        ("503", failing(weights(Fault::Status(503, "Retry-After: 0"))), &[None, None]),
        ("a cut", failing(weights(Fault::Cut(150_000))), &[None, Some(150_000)]),
        ("a cut at once", failing(weights(Fault::Cut(0))), &[None, None]),
        ("silence", failing(weights(Fault::Stall(70_000, LATER))), &[None, Some(70_000)]),
        ("a late answer", failing(weights(Fault::Late(LATER))), &[None, None]),
        ("a slow start", failing(|_| Some(Fault::Late(Duration::from_millis(300)))), &[None]),
        (
            "no ranges",
            Server::with(&tiny(), None, |request, before| match before {
                _ if !request.fetches(WEIGHTS) => None,
                0 => Some(Fault::Cut(200_000)),
                _ => Some(Fault::Whole),
            }),
            &[None, Some(200_000)],
        ),
    ];
    let vectors = &expected(&tiny());
    // In parallel, since most of the time is waiting.
    thread::scope(|scope| {
        for (case, server, positions) in cases {
            scope.spawn(move || {
                let home = place();
                let mut command = program(&server, home.path(), &["pull", ID]);
                run(command.env("HF_HUB_DOWNLOAD_TIMEOUT", "3"), b"").output(case);
                let fetches = server.requests().into_iter();
                let from = fetches.filter(|request| request.fetches(WEIGHTS)).map(|get| get.from);
                assert_eq!(from.collect::<Vec<_>>(), positions, "{case}");
                assert!(offline(&server, home.path(), &[]).output(case) == *vectors, "{case}");
            });
        }
    });
}

#[test]
fn retries_wait_as_long_as_retry_after_says() {
    let server = failing(|request| request.lists().then_some(Fault::Status(429, "Retry-After: 3")));
    let home = place();
    let start = std::time::Instant::now();
    pull(&server, home.path()).output("in the end");
    assert!(start.elapsed() >= Duration::from_secs(3));
}

/// Hub with a permanent fault: its name, the fault, the exit code, and parts of the message.
type Case = (&'static str, fn(&Request) -> Option<Fault>, i32, &'static [&'static str]);

fn fetch_weights(request: &Request, fault: impl Fn(usize) -> Fault) -> Option<Fault> {
    request.fetches(WEIGHTS).then(|| fault(439_240))
}

#[test]
fn permanent_faults_are_reported_and_leave_nothing() {
    const LISTED: &[u8] = br#"{"sha": "../../../../../../../../../../../../../", "siblings": []}"#;
    let cases: &[Case] = &[
        ("500", |_| Some(Fault::Status(500, "X-A: b")), 69, &["127.0.0.1", "500", "5 times"]),
        (
            "a long wait",
            |_| Some(Fault::Status(429, "Retry-After: 3600")),
            69,
            &["429", "3600 s", "120"],
        ),
        ("a teapot", |_| Some(Fault::Status(418, "X-A: b")), 69, &["418", ID]),
        (
            "private or none",
            |_| Some(Fault::Status(401, "X-Error-Code: RepoNotFound")),
            66,
            &[ID, "revision main", "401", "HF_TOKEN"],
        ),
        (
            "a login page",
            |request| request.lists().then(|| Fault::Body(b"<html>".to_vec())),
            69,
            &["expected a list of files"],
        ),
        (
            "a commit that is a path",
            |request| request.lists().then(|| Fault::Body(LISTED.to_vec())),
            69,
            &["commit `../"],
        ),
        (
            "redirects without end",
            |request| request.lists().then_some(Fault::Status(302, "Location: /api/x")),
            69,
            &["redirects"],
        ),
        (
            "a blob that is a path",
            |request| {
                let head = request.method == "HEAD" && request.path.ends_with("/config.json");
                head.then_some(Fault::Header("ETag: \"../../../x\""))
            },
            69,
            &["config.json", "ETag `../../../x`"],
        ),
        (
            "another commit",
            |request| {
                let head = request.method == "HEAD" && request.path.ends_with("/tokenizer.json");
                head.then_some(Fault::Header("X-Repo-Commit: abc"))
            },
            69,
            &["tokenizer.json", "commit abc instead of", COMMIT],
        ),
        (
            "another size in the header",
            |request| (request.method == "HEAD").then_some(Fault::Header("X-Linked-Size: 5")),
            69,
            &["config.json", "5 bytes, in the list 1171"],
        ),
        (
            "a short body",
            |request| fetch_weights(request, |size| Fault::Body(vec![7; size - 1])),
            69,
            &[WEIGHTS, "439239 bytes instead of 439240"],
        ),
        (
            "a long body",
            |request| fetch_weights(request, |size| Fault::Body(vec![7; size + 1])),
            69,
            &[WEIGHTS, "439241 bytes instead of 439240"],
        ),
        (
            "wrong bytes",
            |request| fetch_weights(request, |size| Fault::Body(vec![7; size])),
            69,
            &[WEIGHTS, "hash", "instead of"],
        ),
        (
            "wrong bytes of a small file",
            |request| request.fetches("config.json").then(|| Fault::Body(vec![b' '; 1171])),
            69,
            &["config.json", "hash", "instead of"],
        ),
        (
            "cut for good",
            |request| {
                let cut = if request.from.is_none() { Fault::Cut(1000) } else { Fault::Cut(0) };
                request.fetches(WEIGHTS).then_some(cut)
            },
            69,
            &["5 times in a row"],
        ),
    ];
    thread::scope(|scope| {
        for &(case, fault, code, says) in cases {
            scope.spawn(move || {
                let server = Server::with(&tiny(), None, move |request, _| fault(request));
                let home = place();
                pull(&server, home.path()).refused(case, code, says);
                nothing_is_left(&server, home.path(), case);
                let refs = home.path().join("hub/models--owner--tiny/refs");
                assert!(!refs.exists(), "{case}");
            });
        }
    });
}

#[test]
fn wrong_partial_files_are_downloaded_again() {
    let wrong = |request: &Request, before: usize| match before {
        _ if !request.fetches(WEIGHTS) => None,
        0 => Some(Fault::Body(vec![7; 439_240])),
        _ => None,
    };
    let server = Server::with(&tiny(), None, wrong);
    let home = place();
    pull(&server, home.path()).refused("wrong bytes", 69, &["hash"]);
    pull(&server, home.path()).output("right ones");
    let fetches = server.requests().into_iter().filter(|request| request.fetches(WEIGHTS));
    assert_eq!(fetches.map(|request| request.from).collect::<Vec<_>>(), [None, None]);

    // A partial file of another program may be wrong, or too long.
    for left in [vec![7; 1000], vec![7; 439_240], vec![7; 500_000]] {
        let server = Server::start(&tiny());
        let home = place();
        let blobs = home.path().join("hub/models--owner--tiny/blobs");
        fs::create_dir_all(&blobs).expect("writable");
        let name = format!("{}.incomplete", etag(WEIGHTS, &server.file(WEIGHTS)));
        fs::write(blobs.join(name), left).expect("writable");
        pull(&server, home.path()).output("right in the end");
        assert!(offline(&server, home.path(), &[]).output("right") == expected(&tiny()));
    }
}

#[test]
fn models_that_do_not_exist_are_named() {
    let server = Server::start(&tiny());
    let home = place();
    let there_is_none = ["there is no `owner/none` (revision main)", &server.endpoint];
    let none = |args: &[&str]| run(&mut program(&server, home.path(), args), b"");
    none(&["pull", "owner/none"]).refused("no such model", 66, &there_is_none);
    let neither = [&there_is_none[..], &["no directory `owner/none`"]].concat();
    none(&["embed", "--model", "owner/none", "a"]).refused("neither", 66, &neither);
    let revision = none(&["pull", ID, "--revision", "v9"]);
    revision.refused("no such revision", 66, &["`owner/tiny` has no revision v9"]);
    for args in [&["pull", "tiny"][..], &["pull", "a/b/c"], &["pull", ID, "--revision", "../x"]] {
        let ran = none(args);
        assert!(ran.code == Some(2) && ran.stderr.contains(args[args.len() - 1]), "{}", ran.stderr);
    }
    server.requests();
    offline(&server, home.path(), &[]).refused("offline", 66, &[ID, "HF_HUB_OFFLINE"]);
    let mut command = program(&server, home.path(), &["pull", ID]);
    let ran = run(command.env("HF_HUB_OFFLINE", "1"), b"");
    ran.refused("pull offline", 66, &[ID, "HF_HUB_OFFLINE"]);
    assert!(server.requests().is_empty() && !home.path().join("hub").exists());
}

#[test]
fn repositories_without_a_model_are_refused() {
    let cases: [(&str, &[&str]); 4] = [
        (WEIGHTS, &["has no safetensors", "pytorch_model.bin"]),
        ("config.json", &["has no `config.json`"]),
        ("model-00002-of-00003.safetensors", &["no `model-00002-of-00003.safetensors`"]),
        ("model.safetensors.index.json", &["`model.safetensors.index.json`", "not the name"]),
    ];
    for (n, (name, says)) in cases.into_iter().enumerate() {
        let model = fixture(if n < 2 { "tiny-geglu-4h" } else { "tiny-sharded" });
        let server = Server::start(&model);
        let home = place();
        server.change(|files| match n {
            3 => {
                let index = br#"{"weight_map": {"a": "../a.safetensors"}}"#;
                files.insert(name.to_owned(), index.to_vec());
            }
            _ => drop(files.remove(name)),
        });
        pull(&server, home.path()).refused(name, 66, says);
        offline(&server, home.path(), &[]).refused(name, 66, &["not in the cache"]);
    }
}

#[test]
fn a_model_without_a_tokenizer_is_opened_without_requests() {
    let server = Server::start(&tiny());
    let home = place();
    server.change(|files| drop(files.remove("tokenizer.json")));
    pull(&server, home.path()).output("pull");
    server.requests();
    let says = &["no tokenizer.json"];
    run(&mut program(&server, home.path(), EMBED), b"").refused("a text", 2, says);
    assert!(server.requests().is_empty());
}

#[test]
fn gated_models_need_a_token() {
    const TOKEN: &str = "hf_right";
    let server = Server::with(&tiny(), Some(TOKEN), |_, _| None);
    let home = place();
    let says = &[ID, "401", "set HF_TOKEN"];
    pull(&server, home.path()).refused("no token", 66, says);
    nothing_is_left(&server, home.path(), "no token");
    let mut command = program(&server, home.path(), &["pull", ID]);
    let ran = run(command.env("HF_TOKEN", "hf_wrong"), b"");
    let page = format!("{}/{ID}", server.endpoint);
    ran.refused("a wrong token", 66, &["403", "HF_TOKEN has no access", &page]);
    assert!(!ran.stderr.contains("hf_wrong"));
    nothing_is_left(&server, home.path(), "a wrong token");

    // Token from a file, sent only to the hub itself.
    fs::write(home.path().join("token"), format!("{TOKEN}\n")).expect("writable");
    server.requests();
    pull(&server, home.path()).output("a token in a file");
    let requests = server.requests();
    assert!(requests.iter().any(|request| request.cdn));
    for request in requests {
        let token = Some(format!("Bearer {TOKEN}")).filter(|_| !request.cdn);
        assert_eq!(request.token, token, "{}", request.path);
    }
    assert!(offline(&server, home.path(), &[]).output("pulled") == expected(&tiny()));
}

#[test]
fn an_unreachable_hub_is_named() {
    let mut server = Server::start(&tiny());
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("bound");
    drop(port);
    server.endpoint = format!("http://{address}");
    let home = place();
    let says = [&*server.endpoint, "2 times"];
    pull(&server, home.path()).refused("nobody listens", 69, &says);
    let both = [&says[..], &["no directory `owner/tiny`"]].concat();
    run(&mut program(&server, home.path(), EMBED), b"").refused("by name", 69, &both);
    server.endpoint = "http://name.invalid".to_owned();
    pull(&server, home.path()).refused("no such host", 69, &["http://name.invalid"]);
    server.endpoint = "name.invalid".to_owned();
    pull(&server, home.path()).refused("no address", 2, &["HF_ENDPOINT", "https://"]);
}

/// The fault is permanent, so it is not retried.
#[test]
fn a_hub_without_tls_is_named_without_retries() {
    let plain = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut server = Server::start(&tiny());
    server.endpoint = format!("https://{}", plain.local_addr().expect("bound"));
    thread::spawn(move || {
        for mut stream in plain.incoming().flatten() {
            let mut hello = [0; 64];
            let _ = stream.read(&mut hello);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
            let _ = stream.read(&mut hello);
        }
    });
    let ran = pull(&server, place().path());
    ran.refused("no TLS", 69, &[&server.endpoint, "corrupt"]);
    assert!(!ran.stderr.contains("in a row"), "{}", ran.stderr);
}

#[test]
fn caches_that_cannot_be_written_are_named() {
    let server = Server::start(&tiny());
    let home = place();
    let hub = home.path().join("hub");
    fs::write(&hub, "not a directory").expect("writable");
    pull(&server, home.path()).refused("a file", 73, &["cannot write", arg(&hub)]);
    fs::remove_file(&hub).expect("it");
    let locks = hub.join(".locks/models--owner--tiny");
    for part in [&locks, &hub.join("models--owner--tiny")] {
        fs::create_dir_all(part).expect("writable");
    }
    let blobs = hub.join("models--owner--tiny/blobs");
    fs::write(&blobs, "not a directory").expect("writable");
    pull(&server, home.path()).refused("blobs", 73, &["cannot write", arg(&blobs)]);
}

/// The limit on the size of files simulates a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_is_named_and_the_partial_file_is_kept() {
    let server = Server::start(&tiny());
    let home = place();
    let mut shell = std::process::Command::new("sh");
    let limited = "trap '' XFSZ; ulimit -f 200; exec \"$0\" --quiet pull owner/tiny";
    shell.args(["-c", limited, env!("CARGO_BIN_EXE_jinabert")]);
    let ran = run(&mut at(shell, &server, home.path()), b"");
    let blobs = home.path().join("hub/models--owner--tiny/blobs");
    let partial = blobs.join(format!("{}.incomplete", etag(WEIGHTS, &server.file(WEIGHTS))));
    let kept = fs::metadata(&partial).expect("what came").len();
    assert!(kept > 0 && kept < 439_240);
    let missing = format!("{} bytes are missing", 439_240 - kept);
    ran.refused("a full disk", 73, &["cannot write", arg(&blobs), &missing]);
    nothing_is_left(&server, home.path(), "a full disk");
    server.requests();
    pull(&server, home.path()).output("room again");
    let fetches = server.requests().into_iter().filter(|request| request.fetches(WEIGHTS));
    let from = Some(kept as usize);
    assert_eq!(fetches.map(|request| request.from).collect::<Vec<_>>(), [from]);
    assert!(offline(&server, home.path(), &[]).output("whole") == expected(&tiny()));
    assert!(Path::new(&partial).metadata().is_err());
}
