//! Addresses: names with slashes, path prefixes of proxies, non-ASCII keys.

use crate::kit::{Server, fixture};
use serde_json::json;

#[test]
fn models_are_found_by_names_with_slashes() {
    let model = fixture("tiny-natural");
    let server = Server::start(&["--model", &model, "--served-model-name", "owner/Some.Name"]);
    for path in [
        "/v1/models/owner/Some.Name",
        "/v1/models/owner%2FSome.Name",
        "/v1/models/owner/Some.Name/",
        "/v1/models/owner%2fsome.name",
        "/models/owner/Some.Name",
    ] {
        assert_eq!(server.get(path, &[]).ok()["id"], "owner/Some.Name", "{path}");
    }
    for path in ["/v1/models/owner", "/v1/models/Some", "/v1/models/owner%2F"] {
        assert_eq!(server.get(path, &[]).status, 404, "{path}");
    }
    let list = server.get("/v1/models", &[]).ok();
    for path in ["/v1/models/", "/models/", "/models"] {
        assert_eq!(server.get(path, &[]).ok(), list, "{path}");
    }
    for path in ["/health/", "/info/", "/metrics/", "/docs/", "/docs", "/ping?x=/"] {
        assert_eq!(server.get(path, &[]).status, 200, "{path}");
    }
    for path in ["/v1/embeddings/", "/embed/", "/v1/embeddings/?a=b"] {
        let body = json!({ "input": "a", "inputs": "a" });
        assert_eq!(server.post(path, &body).status, 200, "{path}");
    }
    assert_eq!(server.get("/nowhere/", &[]).status, 404);
}

/// Links in the page and the description are relative, and work with or without the prefix.
#[test]
fn routes_work_with_and_without_the_path_prefix() {
    let server = Server::start(&["--model", &fixture("tiny-natural"), "--base-path", "/a/emb/"]);
    for prefix in ["", "/a/emb"] {
        let at = |path: &str| format!("{prefix}{path}");
        let page = server.get(&at("/"), &[]);
        assert!(page.status == 200 && page.text.contains("href=\"docs/\""), "{}", page.text);
        for absolute in ["href=\"/", "(\"/", "\"/v1", "origin}"] {
            assert!(!page.text.contains(absolute), "{absolute} in the page");
        }
        for path in ["/docs", "/docs/", "/health", "/v1/models", "/v1/models/"] {
            assert_eq!(server.get(&at(path), &[]).status, 200, "{prefix}{path}");
        }
        let config = server.get(&at("/docs/swagger-initializer.js"), &[]);
        assert!(config.text.contains("\"../api-doc/openapi.json\""), "{}", config.text);
        let description = server.get(&at("/api-doc/openapi.json"), &[]).ok();
        assert_eq!(description["servers"][0]["url"], "..");
        assert!(description["security"].is_null(), "{}", description["security"]);
        server.post(&at("/v1/embeddings"), &json!({ "input": "a" })).ok();
        server.post(&at("/"), &json!({ "inputs": "a" })).ok();
    }
    server.post("/a/emb", &json!({ "inputs": "a" })).ok();
    assert_eq!(server.get("/a/emb", &[]).text, server.get("/", &[]).text);
    for path in ["/a", "/a/embx", "/a/emb/nowhere", "/emb/health"] {
        assert_eq!(server.get(path, &[]).status, 404, "{path}");
    }
}

#[test]
fn api_keys_are_compared_as_bytes() {
    let server = Server::start(&["--model", &fixture("tiny-natural"), "--api-key", "grün"]);
    let raw = |key: &[u8]| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&server.address).expect("a connection");
        let head = b"GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: ";
        stream.write_all(&[&head[..], key, b"\r\n\r\n"].concat()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer[..12].to_owned()
    };
    for key in ["Bearer grün", "bearer  grün ", "grün"] {
        assert_eq!(raw(key.as_bytes()), "HTTP/1.1 200", "{key}");
    }
    for key in [&b"Bearer gr\xfcn"[..], b"Bearer gr", b"Bearer", b""] {
        assert_eq!(raw(key), "HTTP/1.1 401", "{key:?}");
    }
    // The description contains the scheme of the key, and the routes that need none.
    let description = server.get("/api-doc/openapi.json", &[]).ok();
    let scheme = &description["components"]["securitySchemes"]["bearer"];
    assert_eq!((&scheme["type"], &scheme["scheme"]), (&json!("http"), &json!("bearer")));
    assert_eq!(description["security"], json!([{ "bearer": [] }]));
    assert_eq!(description["paths"]["/health"]["get"]["security"], json!([{}]));
    assert!(description["paths"]["/v1/embeddings"]["post"]["security"].is_null());
}
