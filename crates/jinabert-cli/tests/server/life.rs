//! Life of the server from start to end, and disconnecting clients.

use crate::kit::{SHIPPED, Server, fixture};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

fn bulk() -> serde_json::Value {
    json!({ "input": vec!["the city of Berlin is old ".repeat(40); 300], "encoding_format": "base64" })
}

#[cfg(unix)]
#[test]
fn accepted_requests_complete_after_sigterm() {
    let mut server = Server::start(&[]);
    let address = server.address.clone();
    thread::scope(|scope| {
        let asked = scope.spawn(|| server.post("/v1/embeddings", &bulk()));
        while server.metric("te_queue_size") < 1.0 {
            thread::sleep(Duration::from_millis(2));
        }
        server.signal("-TERM");
        let answer = asked.join().expect("an answer").ok();
        assert_eq!(answer["data"].as_array().map(Vec::len), Some(300));
    });
    assert_eq!(server.ended(), Some(0));
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[cfg(unix)]
#[test]
fn the_second_signal_ends_the_server_immediately() {
    let mut server = Server::start(&[]);
    // An idle client keeps its connection open.
    let mut stream = TcpStream::connect(&server.address).expect("a connection");
    stream.write_all(b"POST /embed HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n").expect("sent");
    thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    server.signal("-INT");
    thread::sleep(Duration::from_millis(200));
    server.signal("-INT");
    assert_eq!(server.ended(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn requests_of_disconnected_clients_are_cancelled() {
    let server = Server::start(&["--max-concurrent-requests", "20"]);
    let body = bulk().to_string();
    let start = Instant::now();
    server.post("/v1/embeddings", &bulk()).ok();
    let alone = start.elapsed();
    let start = Instant::now();
    for _ in 0..15 {
        let mut stream = TcpStream::connect(&server.address).expect("a connection");
        let head = format!(
            "POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        // Wait until the request is read, then disconnect.
        thread::sleep(Duration::from_millis(30));
    }
    let answer = server.post("/v1/embeddings", &json!({ "input": "a" })).ok();
    assert_eq!(answer["data"].as_array().map(Vec::len), Some(1));
    while server.metric("te_request_success{method=\"embed\"}") < 2.0 {
        thread::sleep(Duration::from_millis(5));
    }
    // Fifteen full computations would take fifteen times as long: they were cancelled.
    let all = start.elapsed();
    assert!(server.metric("te_request_success{method=\"embed\"}") <= 4.0);
    assert!(all < 12 * alone + Duration::from_secs(2), "{all:?}, one alone {alone:?}");
}

/// Client that half-closes its connection after the request, as `nc -N` does.
#[test]
fn half_closed_connections_get_their_responses() {
    let server = Server::start(&[]);
    for texts in [1, 200] {
        let text = "the city of Berlin is old ".repeat(40);
        let body = json!({ "input": vec![text; texts], "encoding_format": "base64" }).to_string();
        for version in ["1.1", "1.0"] {
            let mut stream = TcpStream::connect(&server.address).expect("a connection");
            let head = format!(
                "POST /v1/embeddings HTTP/{version}\r\nhost: a\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(head.as_bytes()).expect("sent");
            stream.shutdown(Shutdown::Write).expect("open");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            let answer = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&answer);
            let (head, answer) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with(&format!("HTTP/{version} 200")), "{head}");
            let answer: serde_json::Value = serde_json::from_str(answer).expect("JSON");
            assert_eq!(answer["data"].as_array().map(Vec::len), Some(texts));
        }
    }
}

#[test]
fn a_query_overtakes_a_bulk_request() {
    let server = Server::start(&["--model", SHIPPED]);
    thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let answer = server.post("/v1/embeddings", &bulk());
            (answer.ok(), Instant::now())
        });
        while server.metric("te_queue_size") < 1.0 {
            thread::sleep(Duration::from_millis(2));
        }
        for _ in 0..3 {
            server.post("/v1/embeddings", &json!({ "input": "A blue cat" })).ok();
        }
        let queries = Instant::now();
        let (answer, ended) = asked.join().expect("an answer");
        assert!(queries < ended, "three queries were answered before the bulk request");
        assert_eq!(answer["data"].as_array().map(Vec::len), Some(300));
    });
}

#[test]
fn failed_starts_give_an_exit_code_and_a_message() {
    let start = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jinabert"));
        command.args(["serve", "--device", "cpu"]).args(args);
        let ran = command.output().expect("a program");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        (ran.status.code(), said.lines().last().unwrap_or_default().to_owned())
    };
    let server = Server::start(&[]);
    let port = server.address.rsplit(':').next().expect("a port");
    let (code, said) = start(&["--port", port]);
    assert!(code == Some(69) && said.contains("cannot listen on 127.0.0.1"), "{code:?} {said}");
    let bare = tempfile::tempdir().expect("a directory");
    for file in ["config.json", "model.safetensors"] {
        let from = std::path::Path::new(&fixture("tiny-natural")).join(file);
        std::fs::copy(from, bare.path().join(file)).expect("a copy");
    }
    let bare = bare.path().to_str().expect("UTF-8").to_owned();
    let cases: [(&[&str], i32, &str); 11] = [
        (&["--port", "0", "--api-key", "a\nb"], 2, "control characters"),
        (&["--port", "0", "--base-path", "/a b"], 2, "expected a path such as /emb, got `/a b`"),
        (&["--port", "0", "--model", &bare], 66, "tokenizer.json"),
        (&["--port", "0", "--cors-allow-origin", "https://a.example/"], 2, "scheme://host"),
        (&["--port", "0", "--cors-allow-origin", "a.example"], 2, "scheme://host"),
        (&["--port", "0", "--model", "/nowhere"], 66, "/nowhere"),
        (&["--port", "0", "--host", "no such host"], 2, "no such host"),
        (&["--port", "0", "--api-key", ""], 2, "empty key"),
        (&["--port", "0", "--model", SHIPPED, "--model", SHIPPED], 2, "two models are called"),
        (&["--port", "0", "--served-model-name", "a", "--served-model-name", "b"], 2, "2 names"),
        (&["--port", "0", "--cors-allow-origin", "a\nb"], 2, "no origin"),
    ];
    for (args, expected, says) in cases {
        let (code, said) = start(args);
        assert!(code == Some(expected) && said.contains(says), "{args:?}: {code:?} {said}");
    }
}

#[test]
fn flags_are_environment_variables_too() {
    let start = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jinabert"));
        command.args(["serve", "--model", "/nowhere"]).envs(variables.iter().copied());
        String::from_utf8_lossy(&command.output().expect("a program").stderr).into_owned()
    };
    let good = [
        ("JINABERT_PORT", "tcp://10.0.0.1:8080"), // a variable that Kubernetes sets for a service
        ("JINABERT_AUTO_TRUNCATE", "0"),
        ("JINABERT_DETERMINISTIC", "yes"),
        ("JINABERT_TRUST_TOKEN_IDS", "1"),
        ("JINABERT_JSON_OUTPUT", "off"),
        ("JINABERT_API_KEY", "a, b"),
        ("JINABERT_PAYLOAD_LIMIT", "1000"),
    ];
    let said = start(&good);
    assert!(said.contains("/nowhere"), "{said}");
    for bad in [("JINABERT_PORT", "http"), ("JINABERT_AUTO_TRUNCATE", "maybe")] {
        let said = start(&[bad]);
        assert!(said.contains(bad.1) && !said.contains("/nowhere"), "{said}");
    }
}

#[test]
fn a_public_address_without_a_key_gives_a_warning() {
    use std::{
        io::{BufRead, BufReader},
        process::Stdio,
    };
    for (args, warned) in [(&[][..], true), (&["--api-key", "secret"], false)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jinabert"));
        command.args([
            "serve",
            "--device",
            "cpu",
            "--host",
            "0.0.0.0",
            "--port",
            "0",
            "--json-output",
        ]);
        let mut child = command.args(args).stderr(Stdio::piped()).spawn().expect("a program");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut said = Vec::new();
        for line in lines {
            let line = line.expect("UTF-8");
            let event: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
            let message = event["fields"]["message"].as_str().expect("a message").to_owned();
            let end = message.contains("listening on");
            said.push(message);
            if end {
                break;
            }
        }
        child.kill().expect("running");
        child.wait().expect("a child");
        assert_eq!(said.iter().any(|line| line.contains("no --api-key")), warned, "{said:?}");
        assert!(said.iter().all(|line| !line.contains("secret")), "{said:?}");
    }
}
