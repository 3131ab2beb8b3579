//! Errors for invalid requests, and their messages; no request may end the server.

use crate::kit::{SHIPPED, Server, fixture};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Checks an error: OpenAI's object, Jina's `detail` and a `message`; TEI's string and type.
#[track_caller]
fn check(server: &Server, path: &str, body: &[u8], status: u16, says: &str) {
    let answer = server.send(path, &[JSON], body);
    let begin: String = String::from_utf8_lossy(body).chars().take(100).collect();
    let case = format!("{path} {begin}: {}", answer.text);
    assert_eq!(answer.status, status, "{case}");
    assert_eq!(answer.header("content-type"), "application/json", "{case}");
    let error = answer.json();
    assert!(error["message"].as_str().is_some_and(|message| message.contains(says)), "{case}");
    let tei = ["/embed", "/embed_all", "/similarity", "/predict", "/tokenize", "/decode", "/"];
    if tei.contains(&path) {
        assert_eq!(error["error"], error["message"], "{case}");
        assert!(error["error_type"].is_string(), "{case}");
    } else {
        assert_eq!(error["error"]["message"], error["message"], "{case}");
        assert_eq!(error["detail"], error["message"], "{case}");
        assert!(error["error"]["type"].is_string(), "{case}");
    }
}

#[test]
fn invalid_requests_get_error_messages() {
    let server = Server::start(&["--max-client-batch-size", "3", "--payload-limit", "100000"]);
    let deep = format!("{{\"input\": \"a\", \"x\": {}", "[".repeat(50_000));
    let many = json!({ "input": ["a", "b", "c", "d"] }).to_string();
    let long = json!({ "input": "a ".repeat(60_000) }).to_string();
    let embeddings: &[(&str, u16, &str)] = &[
        ("", 400, "EOF"),
        ("{", 400, "EOF"),
        ("[]", 422, "expected an object, got a list"),
        (r#"["first text", "second text"]"#, 422, "expected an object, got a list"),
        ("7", 422, "expected an object"),
        (r#"{"input": [[]]}"#, 400, "`input`[0]: expected token ids, got an empty list"),
        (r#"{"input": [[5, 6], []]}"#, 400, "`input`[1]"),
        ("{}", 422, "missing field `input`"),
        (r#"{"input": null}"#, 422, "null"),
        (r#"{"input": []}"#, 400, "`input` is empty"),
        (r#"{"input": 1.5}"#, 422, "1.5"),
        (r#"{"input": [1, -2]}"#, 422, "input[1]"),
        (r#"{"input": [99999999999]}"#, 422, "99999999999"),
        (r#"{"input": [[[1]]]}"#, 422, "input[0]"),
        (r#"{"input": "a", "late_chunking": true, "dimensions": 4}x"#, 400, "trailing"),
        (r#"{"input": ["a", 7]}"#, 422, "a mixture"),
        (r#"{"input": ["a", null]}"#, 422, "input[1]"),
        (r#"{"input": [{"image": "https://a.b/c.png"}]}"#, 422, "only texts"),
        (r#"{"input": "a", "input": "b"}"#, 422, "duplicate field"),
        (r#"{"input": "a", "encoding_format": "int4"}"#, 422, "int4"),
        (r#"{"input": "a", "encoding_format": ["float", "base64"]}"#, 422, "one encoding"),
        (r#"{"input": "a", "encoding_format": "float", "encoding_type": "binary"}"#, 400, "differ"),
        (r#"{"input": "a", "dimensions": 385}"#, 400, "1 to 384"),
        (r#"{"input": "a", "dimensions": -1}"#, 422, "-1"),
        (r#"{"input": "a", "dimensions": 1e99}"#, 422, "floating point"),
        (r#"{"input": "a", "truncate": "yes"}"#, 422, "boolean"),
        (r#"{"input": "\ud800"}"#, 400, "escape"),
        (r#"{"input": [[100257, 1]]}"#, 400, "check_embedding_ctx_length"),
        (r#"{"input": [[2, 2, 2, 43]]}"#, 400, "token ids"),
        (r#"{"input": [1, 2], "late_chunking": true}"#, 400, "expected texts, got token ids"),
        (r#"{"input": ["a", " "], "late_chunking": true}"#, 400, "input 1"),
        (r#"{"input": ["abc", "\u200b"], "late_chunking": true}"#, 400, "input 1"),
        (&deep, 400, "EOF"),
        (&many, 413, "limit of 3"),
        (&long, 413, "limit of 100000 bytes"),
    ];
    for (body, status, says) in embeddings {
        check(&server, "/v1/embeddings", body.as_bytes(), *status, says);
    }
    check(&server, "/v1/embeddings", b"{\"input\": \"\xff\"}", 400, "unicode");
    let tei: &[(&str, &str, u16, &str)] = &[
        ("/embed", r#"{"inputs": []}"#, 400, "`inputs` is empty"),
        ("/embed", r#"{"inputs": "a", "prompt_name": "query"}"#, 400, "no prompts"),
        ("/embed", r#"{"inputs": "a", "truncation_direction": "up"}"#, 422, "up"),
        ("/embed", r#"{"inputs": ["a", "b", "c", "d"]}"#, 413, "limit of 3"),
        ("/similarity", r#"{"inputs": {"source_sentence": "a", "sentences": []}}"#, 400, "empty"),
        ("/similarity", r#"{"inputs": "a"}"#, 422, "expected an object"),
        ("/similarity", r#"{"inputs": ["a", ["b"]]}"#, 422, "expected an object, got a list"),
        (
            "/similarity",
            r#"{"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": [true]}"#,
            422,
            "expected an object, got a list",
        ),
        (
            "/",
            r#"{"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": []}"#,
            422,
            "expected an object, got a list",
        ),
        (
            "/embed",
            r#"{"inputs": [[]]}"#,
            400,
            "`inputs`[0]: expected token ids, got an empty list",
        ),
        ("/", r#"{"inputs": {"source_sentence": "a"}}"#, 422, "missing field `sentences`"),
        ("/", r#"{"inputs": {"source_sentence": "a", "sentences": []}}"#, 400, "empty"),
        ("/", r#"{"inputs": {"sentences": ["a"]}}"#, 422, "`source_sentence`"),
        ("/", r#"{"inputs": ["a", 1]}"#, 422, "a mixture"),
        ("/", r#"{"inputs": "a", "prompt_name": "query"}"#, 400, "no prompts"),
        ("/", r#"{"inputs": 1}"#, 422, "source_sentence"),
        ("/tokenize", r#"{"inputs": [1]}"#, 400, "/decode"),
        ("/decode", r#"{"ids": "a"}"#, 400, "token ids"),
        ("/decode", r#"{"ids": []}"#, 400, "empty"),
        ("/decode", r#"{"ids": [[1], [1], [1], [1]]}"#, 413, "limit of 3"),
        ("/predict", r#"{"inputs": ["a", "b", "c"]}"#, 422, "one pair"),
        ("/predict", r#"{"inputs": [0]}"#, 422, "one or two"),
        ("/predict", r#"{"inputs": []}"#, 400, "empty"),
        ("/predict", r#"{"inputs": "a"}"#, 404, "no reranker"),
        ("/predict", r#"{"inputs": [["a", "b", "c"]]}"#, 422, "one or two"),
        ("/v1/rerank", r#"{"query": "a", "documents": ["b"]}"#, 404, "no reranker"),
        ("/v1/rerank", r#"{"query": "a"}"#, 400, "`texts`"),
        ("/v1/rerank", r#"{"query": "a", "documents": []}"#, 400, "empty"),
        ("/v1/rerank", r#"{"query": "a", "documents": ["b"], "top_n": 0}"#, 400, "at least 1"),
        ("/v1/rerank", r#"{"query": "a", "documents": [7]}"#, 422, "document"),
    ];
    for (path, body, status, says) in tei {
        check(&server, path, body.as_bytes(), *status, says);
    }

    let fields = r#"["a", ["b"], null, null, null, null, null, null, null, null]"#.as_bytes();
    for path in [
        "/",
        "/embed",
        "/embed_all",
        "/similarity",
        "/predict",
        "/tokenize",
        "/decode",
        "/embeddings",
        "/v1/embeddings",
        "/rerank",
        "/v1/rerank",
        "/v2/rerank",
    ] {
        check(&server, path, fields, 422, "expected an object, got a list");
    }

    let both = server.post("/rerank", &json!({ "query": "a", "documents": ["b"], "texts": ["b"] }));
    assert_eq!((both.status, &both.json()["error_type"]), (400, &json!("Validation")));
    let none = server.post("/rerank", &json!({ "query": "a", "texts": [] }));
    assert_eq!((none.status, &none.json()["error_type"]), (400, &json!("Empty")));

    let body = br#"{"input": "a"}"#;
    for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let answer = server.send("/v1/embeddings", &[("content-type", kind)], body);
        assert_eq!(answer.status, 415, "{kind}: {}", answer.text);
    }
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.a+json"] {
        let answer = server.send("/v1/embeddings", &[("content-type", kind)], body);
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text);
    }
    assert_eq!(server.get("/nowhere", &[]).status, 404);
    assert_eq!(server.get("/v1/embeddings", &[]).status, 405);
    assert_eq!(server.get("/v1/models/nobody", &[]).status, 404);
    assert!(server.metric("te_request_failure{err=\"validation\"}") > 30.0);
}

#[test]
fn a_reranker_alone_refuses_embedding_requests() {
    let server = Server::start(&["--model", &fixture("tiny-reranker-bpe")]);
    check(&server, "/v1/embeddings", br#"{"input": "a"}"#, 404, "rerankers");
    check(&server, "/embed", br#"{"inputs": "a"}"#, 404, "rerankers");
    let server = Server::start(&["--model", &fixture("tiny-reranker-wordpiece")]);
    let body = br#"{"query": "a", "documents": ["b"]}"#;
    check(&server, "/v1/rerank", body, 404, "a classifier of 3 labels");
}

#[test]
fn answers_for_every_token_have_a_limit() {
    let server = Server::start(&["--payload-limit", "1000000"]);
    let text = "a ".repeat(8000);
    let body = json!({ "inputs": vec![text; 6] }).to_string();
    check(&server, "/embed_all", body.as_bytes(), 413, "numbers");
    // A million tokens would give a response as long; half a million must fit in its limit.
    let text = "a ".repeat(200_000);
    let start = std::time::Instant::now();
    let body = json!({ "inputs": text });
    assert_eq!(server.post("/tokenize", &body).ok()[0].as_array().map(Vec::len), Some(200_002));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn requests_need_the_api_key() {
    let origin = "https://example.org";
    let server = Server::start(&["--api-key", "first, second", "--cors-allow-origin", origin]);
    let body = br#"{"input": "a"}"#;
    let status = |header: (&str, &str)| server.send("/v1/embeddings", &[JSON, header], body).status;
    for key in ["Bearer first", "bearer second", "Bearer  first", "first"] {
        assert_eq!(status(("authorization", key)), 200, "{key}");
    }
    assert_eq!(status(("x-api-key", "second")), 200);
    // A proxy's own credentials do not hide the key.
    let both = [JSON, ("authorization", "Basic eDp5"), ("api-key", "first")];
    assert_eq!(server.send("/v1/embeddings", &both, body).status, 200);
    // The connection stays open until an early refusal has arrived.
    let large = vec![b' '; 20 << 20];
    for _ in 0..3 {
        assert_eq!(server.send("/v1/embeddings", &[JSON], &large).status, 401);
    }
    for path in ["/v1/embeddings/", "/embeddings//"] {
        assert_eq!(server.send(path, &[JSON, ("api-key", "first")], body).status, 200, "{path}");
    }
    for key in ["Bearer third", "Bearer", "", "Bearer first,second", "firs", "first1"] {
        assert_eq!(status(("authorization", key)), 401, "{key}");
    }
    let answer = server.send("/v1/embeddings", &[JSON], body);
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"));
    assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
    assert!(!answer.text.contains("first"));
    assert_eq!(server.get("/v1/models", &[]).status, 401);
    assert_eq!(server.get("/info", &[]).status, 401);
    for path in ["/", "/health", "/ping", "/metrics", "/docs/", "/api-doc/openapi.json"] {
        assert_eq!(server.get(path, &[]).status, 200, "{path}");
    }
    // A browser sends a preflight request first, without a key.
    let head = format!(
        "OPTIONS /v1/embeddings HTTP/1.1\r\nhost: a\r\norigin: {origin}\r\nconnection: close\r\n\
         access-control-request-method: POST\r\naccess-control-request-headers: authorization\r\n\r\n"
    );
    let answer = raw(&server, head.as_bytes()).to_lowercase();
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(answer.contains(&format!("access-control-allow-origin: {origin}")), "{answer}");
    assert!(answer.contains("access-control-allow-headers: authorization"), "{answer}");
    let from = [JSON, ("authorization", "first"), ("origin", origin)];
    let answer = server.send("/v1/embeddings", &from, body);
    assert!(answer.header("access-control-expose-headers").contains("x-truncated-inputs"));
    let other = raw(&server, head.replace("example", "evil").as_bytes()).to_lowercase();
    assert!(!other.contains("access-control-allow-origin"), "{other}");
}

/// Rerank dialects truncate the longer text of a pair if allowed, else they name the query.
#[test]
fn rerank_queries_over_the_limit_are_truncated_or_refused() {
    let server = Server::start(&["--model", &fixture("tiny-reranker-bpe"), "--max-length", "64"]);
    let long = "cat ".repeat(200);
    for (path, field) in
        [("/v1/rerank", "documents"), ("/v2/rerank", "documents"), ("/rerank", "texts")]
    {
        for documents in [json!(["a dog"]), json!(["a dog", long])] {
            let mut body = json!({ "query": long, "truncate": true });
            body[field] = documents.clone();
            let count = documents.as_array().map(Vec::len);
            let answer = server.post(path, &body).ok();
            let results = answer.as_array().or_else(|| answer["results"].as_array());
            assert_eq!(results.map(Vec::len), count, "{path}: {answer}");
        }
        let mut body = json!({ "query": long, "truncate": false });
        body[field] = json!(["a dog"]);
        let answer = server.post(path, &body);
        let error = answer.json();
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains("the query has") && message.contains("limit of 64"), "{error}");
        if field == "documents" {
            assert_eq!((answer.status, &error["error"]["param"]), (400, &json!("query")));
        } else {
            assert_eq!(answer.status, 413, "{error}");
        }
        // If only the pair as a whole is too long, the error names the document.
        let half = "cat ".repeat(15);
        let mut body = json!({ "query": half, "truncate": false });
        body[field] = json!(["a dog", half.repeat(2)]);
        let error = server.post(path, &body).json();
        assert!(error["message"].as_str().is_some_and(|m| m.starts_with("input 1: ")), "{error}");
    }
    let body = json!({ "inputs": [[long, "a dog"]], "truncate": false });
    let error = server.post("/predict", &body).json();
    assert!(error["message"].as_str().is_some_and(|m| m.starts_with("input 0: ")), "{error}");
}

/// A text of megabytes, of which a few tokens are read, does not need gigabytes.
#[cfg(target_os = "linux")]
#[test]
fn a_long_text_takes_little_memory() {
    let server = Server::start(&["--max-length", "64"]);
    let peak = || {
        let path = format!("/proc/{}/status", server.child.id());
        let status = std::fs::read_to_string(path).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") >> 10
    };
    let before = peak();
    for input in [".,".repeat(4 << 20), "a".repeat(8 << 20), "das Haus ".repeat(1 << 20)] {
        let cut = server.post("/v1/embeddings", &json!({ "input": input, "dimensions": 2 }));
        assert_eq!(cut.ok()["usage"]["total_tokens"], if input.starts_with("aa") { 3 } else { 64 });
        let refused = server.post("/embed", &json!({ "inputs": input, "truncate": false }));
        assert_eq!(refused.status, if input.starts_with("aa") { 200 } else { 413 });
    }
    let grown = peak() - before;
    assert!(grown < 250, "{grown} MiB more");
}

#[test]
fn compressed_bodies_are_accepted() {
    use flate2::{
        Compression,
        write::{GzEncoder, ZlibEncoder},
    };
    let server = Server::start(&["--payload-limit", "100000"]);
    let send = |encoding: &str, body: &[u8]| {
        server.send("/v1/embeddings", &[JSON, ("content-encoding", encoding)], body)
    };
    let gzip = |body: &[u8]| {
        let mut to = GzEncoder::new(Vec::new(), Compression::default());
        to.write_all(body).and_then(|()| to.finish()).expect("packed")
    };
    let body = br#"{"input": ["a", "b"]}"#;
    let plain = server.send("/v1/embeddings", &[JSON], body).ok()["data"].clone();
    assert_eq!(send("gzip", &gzip(body)).ok()["data"], plain);
    assert_eq!(send("X-GZIP", &gzip(body)).ok()["data"], plain);
    assert_eq!(send("identity", body).ok()["data"], plain);
    // Two gzip members form one body.
    let parts = [gzip(&body[..7]), gzip(&body[7..])].concat();
    assert_eq!(send("gzip", &parts).ok()["data"], plain);
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(body).expect("packed");
    assert_eq!(send("deflate", &zlib.finish().expect("packed")).ok()["data"], plain);

    let refused = |encoding: &str, body: &[u8], status: u16, says: &str| {
        let answer = send(encoding, body);
        assert!(answer.status == status && answer.text.contains(says), "{says}: {}", answer.text);
    };
    refused("br", body, 415, "deflate or identity, got `br`");
    refused("gzip, gzip", body, 415, "got `gzip, gzip`");
    refused("gzip", body, 400, "does not match its `content-encoding`");
    let packed = gzip(body);
    refused("gzip", &packed[..packed.len() - 9], 400, "does not match");
    refused("gzip", b"", 400, "");
    // The body is a thousand times as large when decompressed.
    let bomb = gzip(&vec![b' '; 50_000_000]);
    assert!(bomb.len() < 100_000);
    refused("gzip", &bomb, 413, "limit of 100000 bytes");
    assert_eq!(send("gzip", &gzip(body)).ok()["data"], plain);
}

/// Response to raw bytes.
fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(&server.address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream.write_all(bytes).expect("sent");
    let mut answer = String::new();
    // The connection may be reset after an error.
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn malformed_http_does_not_stop_the_server() {
    let server = Server::start(&[]);
    let head = "POST /v1/embeddings HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let cases = [
        "\0\0\0\0\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        format!("{head}content-length: -5\r\n\r\n"),
        format!("{head}content-length: 5\r\ncontent-length: 6\r\n\r\nhello"),
        format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n"),
        format!("{head}{}\r\n", "x-a: b\r\n".repeat(5000)),
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20)),
    ];
    for case in cases {
        let answer = raw(&server, case.as_bytes());
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    // The request is refused while it is sent: the response must still arrive.
    let many = vec![b' '; 40 << 20];
    for _ in 0..3 {
        let answer = server.send("/v1/embeddings", &[JSON], &many);
        assert_eq!(answer.status, 413, "{}", answer.text);
    }
    // The announced length is over the limit: the request is refused before the body is sent.
    let answer = raw(&server, format!("{head}content-length: 104857600\r\n\r\n{{").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let answer = server.post("/v1/embeddings", &json!({ "input": "a" }));
    assert_eq!(answer.ok()["data"].as_array().map(Vec::len), Some(1));
}

#[test]
fn announced_body_lengths_reserve_nothing() {
    let server = Server::start(&[]);
    let head = "POST /embed HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                content-length: 33000000\r\n\r\n{";
    let idle = (0..40).map(|_| {
        let mut stream = TcpStream::connect(&server.address).expect("a connection");
        stream.write_all(head.as_bytes()).expect("sent");
        stream
    });
    let idle: Vec<_> = idle.collect();
    std::thread::sleep(Duration::from_millis(200));
    server.post("/v1/embeddings", &json!({ "input": "a" })).ok();
    drop(idle);
}

#[test]
fn requests_over_the_limit_get_429_and_retry_after() {
    let server = Server::start(&["--max-concurrent-requests", "1", "--model", SHIPPED]);
    let many: Value = json!({ "input": vec!["the city of Berlin is old ".repeat(40); 300] });
    std::thread::scope(|scope| {
        // The bulk request may be refused while the other one is served; then it is retried.
        let bulk = || (0..1000).any(|_| server.post("/v1/embeddings", &many).status == 200);
        let bulk = scope.spawn(bulk);
        let mut refused = Vec::new();
        while !bulk.is_finished() {
            let answer = server.post("/v1/embeddings", &json!({ "input": "a" }));
            refused.extend((answer.status != 200).then_some(answer));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(bulk.join().expect("answers"), "the bulk request was never accepted");
        let refused = refused.first().expect("a refusal while the other was computed");
        let after: u64 = refused.header("retry-after").parse().expect("seconds");
        assert!(refused.status == 429 && (1..=60).contains(&after), "{after} s");
        assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    });
    server.post("/v1/embeddings", &json!({ "input": "a" })).ok();
}
