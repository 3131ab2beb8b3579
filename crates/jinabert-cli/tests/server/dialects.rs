//! Requests and responses of each dialect: vectors and scores equal those of the library.

use crate::kit::{SHIPPED, Server, embedder, fixture};
use base64::{Engine, prelude::BASE64_STANDARD};
use jinabert::{EncodeOptions, OnLong, Options, Task, text::Chunking};
use serde_json::{Value, json};
use std::{fs, path::Path};

const TEXTS: [&str; 3] = ["A blue cat", "", "Grüße 🦀 aus Ω"];

fn numbers(value: &Value) -> Vec<f32> {
    let list = value.as_array().unwrap_or_else(|| panic!("no list: {value}"));
    list.iter().map(|x| x.as_f64().expect("a number") as f32).collect()
}

/// Vectors of an OpenAI response, after checking its other fields.
fn vectors(answer: &Value) -> Vec<Vec<f32>> {
    assert_eq!(answer["object"], "list");
    let items = answer["data"].as_array().expect("items").iter().enumerate();
    let items = items.map(|(n, item)| {
        assert_eq!((&item["object"], &item["index"]), (&json!("embedding"), &json!(n)));
        numbers(&item["embedding"])
    });
    items.collect()
}

fn library(texts: &[&str]) -> Vec<Vec<f32>> {
    let vectors = embedder(SHIPPED).embed(texts).expect("vectors");
    vectors.into_iter().map(jinabert::Vector::into_inner).collect()
}

#[track_caller]
fn near(found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(found.len(), expected.len());
    for (n, (a, b)) in found.iter().zip(expected).enumerate() {
        assert_eq!(a.len(), b.len(), "components of {n}");
        let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-6, "vector {n} is off by {worst}");
    }
}

#[test]
fn embeddings_equal_the_librarys_in_every_form() {
    let server = Server::start(&[]);
    let expected = library(&TEXTS);
    let ask = |body: Value| server.post("/v1/embeddings", &body).ok();

    let answer = ask(json!({ "input": TEXTS, "model": "text-embedding-3-small" }));
    near(&vectors(&answer), &expected);
    assert_eq!(answer["model"], "jinabert-mini-en");
    let tokens: usize = embedder(SHIPPED)
        .tokenize(&TEXTS)
        .expect("tokens")
        .iter()
        .map(|text| text.tokens.len())
        .sum();
    assert_eq!(answer["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }));

    // Nulls, fields of other dialects, and unknown fields.
    let strange = json!({
        "input": TEXTS, "model": null, "encoding_format": null, "dimensions": null, "user": "x",
        "normalized": null, "truncate": null, "late_chunking": null, "task": "retrieval.passage",
        "modality": "text", "input_type": "query", "embedding_type": ["float"], "nobody": [{}]
    });
    near(&vectors(&ask(strange)), &expected);
    near(&vectors(&ask(json!({ "input": TEXTS, "dimensions": 0 }))), &expected);
    near(&vectors(&ask(json!({ "input": TEXTS, "dimensions": 384 }))), &expected);
    near(&vectors(&ask(json!({ "input": TEXTS[0] }))), &expected[..1]);
    near(&vectors(&ask(json!({ "input": { "text": TEXTS[2] } }))), &expected[2..]);
    let objects =
        json!({ "input": [{ "text": TEXTS[0], "x": 1 }, TEXTS[1], { "text": TEXTS[2] }] });
    near(&vectors(&ask(objects)), &expected);
    near(&vectors(&server.post("/embeddings", &json!({ "input": TEXTS })).ok()), &expected);

    // Token ids, with and without the special tokens.
    let tokenized = embedder(SHIPPED).tokenize(&TEXTS).expect("tokens");
    let whole: Vec<_> = tokenized.iter().map(|text| text.tokens.ids.clone()).collect();
    let own: Vec<_> = whole.iter().map(|ids| ids[1..ids.len() - 1].to_vec()).collect();
    near(&vectors(&ask(json!({ "input": whole }))), &expected);
    // A text without tokens of its own is left out: an empty list is refused (`refusals.rs`).
    let pairs = own.iter().zip(expected.iter().cloned()).filter(|(ids, _)| !ids.is_empty());
    let (some, of_some): (Vec<_>, Vec<_>) = pairs.unzip();
    assert_eq!(some.len(), own.len() - 1, "one text is empty");
    near(&vectors(&ask(json!({ "input": some }))), &of_some);
    near(&vectors(&ask(json!({ "input": own[0] }))), &expected[..1]);
}

#[test]
fn encodings_equal_numpys() {
    let server = Server::start(&[]);
    let expected = library(&TEXTS[..1]).remove(0);
    let ask = |field: &str, name: Value| {
        let body = json!({ "input": TEXTS[0], field: name });
        server.post("/v1/embeddings", &body).ok()["data"][0]["embedding"].clone()
    };
    for field in ["encoding_format", "embedding_type", "encoding_type"] {
        let text = ask(field, json!("base64"));
        let bytes = BASE64_STANDARD.decode(text.as_str().expect("text")).expect("base64");
        let floats = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("4")));
        near(&[floats.collect()], std::slice::from_ref(&expected));
        let bits = |n: usize| {
            expected[8 * n..8 * n + 8].iter().fold(0u8, |b, x| b << 1 | u8::from(*x > 0.0))
        };
        let ubinary: Vec<f32> = (0..48).map(|n| f32::from(bits(n))).collect();
        assert_eq!(numbers(&ask(field, json!("ubinary"))), ubinary);
        let binary: Vec<f32> = ubinary.iter().map(|b| b - 128.0).collect();
        assert_eq!(numbers(&ask(field, json!(["binary"]))), binary);
    }
}

#[test]
fn vectors_are_truncated_before_normalisation() {
    let server = Server::start(&[]);
    let body = json!({ "input": TEXTS[0], "dimensions": 100, "normalized": false });
    let raw = vectors(&server.post("/v1/embeddings", &body).ok()).remove(0);
    let body = json!({ "input": TEXTS[0], "dimensions": 100 });
    let unit = vectors(&server.post("/v1/embeddings", &body).ok()).remove(0);
    let norm = raw.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    assert!((norm - 1.0).abs() > 0.1, "norm {norm} of a vector that is not normalised");
    let scaled: Vec<f32> = raw.iter().map(|x| (f64::from(*x) / norm) as f32).collect();
    near(&[scaled], std::slice::from_ref(&unit));
    let tei = server.post("/embed", &json!({ "inputs": TEXTS[0], "dimensions": 100 })).ok();
    near(&[numbers(&tei[0])], &[unit]);
    let tei = json!({ "inputs": TEXTS[0], "normalize": false, "dimensions": 100 });
    near(&[numbers(&server.post("/embed", &tei).ok()[0])], &[raw]);
}

#[test]
fn late_chunking_reads_the_texts_as_one() {
    let server = Server::start(&[]);
    let chunks =
        ["Berlin is the capital of Germany.", "It has 3.8 million people. ", "The city is old."];
    let body = json!({ "input": chunks, "late_chunking": true });
    let answer = server.post("/v1/embeddings", &body).ok();
    let document = "Berlin is the capital of Germany. It has 3.8 million people. The city is old.";
    let chunking = Chunking::Spans(vec![0..33, 34..61, 61..77]);
    let expected =
        embedder(SHIPPED).embed_chunks(&[document], &chunking).expect("chunks").remove(0);
    let tokens = expected.tokens;
    let expected: Vec<_> = expected.chunks.into_iter().map(|c| c.vector.into_inner()).collect();
    near(&vectors(&answer), &expected);
    assert_eq!(answer["usage"]["total_tokens"], tokens);
    // Late chunks differ from the texts embedded alone.
    let alone = library(&chunks);
    assert!(alone[1].iter().zip(&expected[1]).any(|(a, b)| (a - b).abs() > 1e-3));

    // A document over the limit is read in windows, or refused.
    let server = Server::start(&["--max-length", "64"]);
    let long = vec!["The city of Berlin is old, and the river runs through it."; 20];
    let options = Options {
        device: jinabert::Device::Cpu,
        max_length: Some(64),
        overlap: 63,
        on_long: OnLong::Window,
        ..Options::default()
    };
    let library = jinabert::Embedder::open_with(Path::new(SHIPPED), options).expect("a model");
    let document = long.join(" ");
    let spans = (0..20).map(|n| n * 58..n * 58 + 57).collect();
    let chunks =
        library.embed_chunks(&[document], &Chunking::Spans(spans)).expect("chunks").remove(0);
    let expected: Vec<_> = chunks.chunks.into_iter().map(|c| c.vector.into_inner()).collect();
    let body = json!({ "input": long, "late_chunking": true });
    near(&vectors(&server.post("/v1/embeddings", &body).ok()), &expected);
    let body = json!({ "input": long, "late_chunking": true, "truncate": false });
    assert_eq!(server.post("/v1/embeddings", &body).status, 400);
}

#[test]
fn long_texts_are_cut_or_refused() {
    let server = Server::start(&["--max-length", "16"]);
    let text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen";
    let options = Options {
        device: jinabert::Device::Cpu,
        max_length: Some(16),
        on_long: OnLong::Truncate,
        ..Options::default()
    };
    let library = jinabert::Embedder::open_with(Path::new(SHIPPED), options).expect("a model");
    let cut = library.embed(&[text]).expect("a vector").remove(0).into_inner();
    let answer = server.post("/v1/embeddings", &json!({ "input": ["short", text] }));
    assert_eq!(answer.header("x-truncated-inputs"), "1");
    near(&vectors(&answer.ok())[1..], std::slice::from_ref(&cut));
    let refused =
        server.post("/v1/embeddings", &json!({ "input": ["short", text], "truncate": false }));
    let message = refused.json()["error"]["message"].as_str().expect("a message").to_owned();
    assert!(message.contains("input 1: ") && message.contains("limit of 16"), "{message}");
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (400, &json!("context_length_exceeded"))
    );
    let refused = server.post("/embed", &json!({ "inputs": ["short", text], "truncate": false }));
    assert_eq!((refused.status, &refused.json()["error_type"]), (413, &json!("Validation")));

    let wanted = EncodeOptions {
        truncation_side: jinabert::TruncationSide::Left,
        ..library.encode_options()
    };
    let tail =
        library.compute(library.jobs().texts(&[text], wanted).expect("tokens")).expect("a vector");
    let tail = tail[0].vector.to_vec();
    assert!(tail.iter().zip(&cut).any(|(a, b)| (a - b).abs() > 1e-3));
    for side in ["Left", "left"] {
        let body = json!({ "inputs": text, "truncate": true, "truncation_direction": side });
        near(&[numbers(&server.post("/embed", &body).ok()[0])], std::slice::from_ref(&tail));
    }
    let server = Server::start(&["--max-length", "16", "--auto-truncate", "false"]);
    assert_eq!(server.post("/v1/embeddings", &json!({ "input": text })).status, 400);
    assert_eq!(
        server.post("/v1/embeddings", &json!({ "input": text, "truncate": true })).status,
        200
    );
}

#[test]
fn routes_of_text_embeddings_inference_are_served() {
    let server = Server::start(&[]);
    let expected = library(&TEXTS);
    for path in ["/embed", "/"] {
        let answer = server.post(path, &json!({ "inputs": TEXTS }));
        assert_eq!(answer.header("x-compute-characters"), "23");
        assert_eq!(answer.header("x-compute-type"), "cpu");
        assert!(answer.header("x-compute-tokens").parse::<u32>().expect("a number") > 6);
        let rows: Vec<_> = answer.ok().as_array().expect("rows").iter().map(numbers).collect();
        near(&rows, &expected);
    }
    let object = json!({ "inputs": { "text": "the source_sentence" } });
    assert_eq!(server.post("/", &object).ok().as_array().map(Vec::len), Some(1));
    let one = server.post("/embed", &json!({ "inputs": TEXTS[0], "prompt_name": null })).ok();
    near(&[numbers(&one[0])], &expected[..1]);

    let all = server.post("/embed_all", &json!({ "inputs": &TEXTS[..2] })).ok();
    let library = embedder(SHIPPED);
    let tokens = library.tokenize(&TEXTS[..2]).expect("tokens");
    let tokens: Vec<_> = tokens.iter().map(|text| &text.tokens).collect();
    for (n, hidden) in library.tokens().each_token(&tokens).expect("rows").iter().enumerate() {
        let rows: Vec<_> = all[n].as_array().expect("rows").iter().map(numbers).collect();
        near(&rows, &hidden.chunks(384).map(<[f32]>::to_vec).collect::<Vec<_>>());
    }

    let inputs =
        json!({ "source_sentence": TEXTS[0], "sentences": ["A cat that is blue", "Taxes"] });
    for path in ["/similarity", "/"] {
        let cosines = server.post(path, &json!({ "inputs": inputs, "parameters": {} })).ok();
        let of = self::library(&[TEXTS[0], "A cat that is blue", "Taxes"]);
        let dot = |n: usize| of[0].iter().zip(&of[n]).map(|(a, b)| a * b).sum::<f32>();
        near(&[numbers(&cosines)], &[vec![dot(1), dot(2)]]);
    }

    let tokens = server
        .post("/tokenize", &json!({ "inputs": ["Grüße 🦀"], "add_special_tokens": false }))
        .ok();
    let tokens = tokens[0].as_array().expect("tokens").clone();
    let text: String = tokens.iter().map(|t| t["text"].as_str().expect("text")).collect();
    assert_eq!(text, "Grüße🦀");
    assert_eq!(tokens.last().expect("tokens")["stop"], 7);
    let special = server.post("/tokenize", &json!({ "inputs": "a" })).ok();
    assert_eq!((&special[0][0]["special"], &special[0][0]["start"]), (&json!(true), &Value::Null));
    let ids: Vec<_> =
        special[0].as_array().expect("tokens").iter().map(|t| t["id"].clone()).collect();
    assert_eq!(server.post("/decode", &json!({ "ids": ids })).ok(), json!(["a"]));
    let whole = json!({ "ids": [ids], "skip_special_tokens": false });
    assert!(server.post("/decode", &whole).text.contains("[CLS]"));

    let info = server.get("/info", &[]).ok();
    assert_eq!(info["model_type"], json!({ "embedding": { "pooling": "mean" } }));
    assert_eq!((&info["max_input_length"], &info["auto_truncate"]), (&json!(8192), &json!(true)));
    assert_eq!(server.get("/v1/models", &[]).ok()["data"][0]["id"], "jinabert-mini-en");
    assert_eq!(server.get("/v1/models/jinabert-mini-en", &[]).ok()["object"], "model");
    for path in ["/health", "/ping"] {
        assert_eq!(server.get(path, &[]).status, 200);
    }
    assert!(server.metric("te_embed_success") >= 10.0);
    assert!(server.metric("te_request_success{method=\"similarity\"}") >= 1.0);
    assert!(server.get("/api-doc/openapi.json", &[]).ok()["paths"]["/v1/embeddings"].is_object());
    assert!(server.get("/docs/", &[]).text.contains("swagger"));
    assert!(server.get("/", &[]).text.contains("<title>jinabert"));
}

/// Text pair of a reranker's fixture, and its logit.
fn pair(name: &str) -> (String, String, f32) {
    let text = fs::read_to_string(Path::new(&fixture(name)).join("cases.json")).expect("cases");
    let cases: Value = serde_json::from_str(&text).expect("JSON");
    let mut cases = cases["cases"].as_array().expect("cases").iter();
    let case = cases.find(|case| case["name"] == "pair-1").expect("a pair");
    let text = |n: usize| case["pair"][n].as_str().expect("a text").to_owned();
    let logit = case["expect"]["classifier"]["logits"][0].as_f64().expect("a logit");
    (text(0), text(1), logit as f32)
}

#[test]
fn rerankers_speak_both_dialects() {
    let dir = fixture("tiny-reranker-bpe");
    let server = Server::start(&["--model", &dir, "--served-model-name", "judge"]);
    let (query, document, logit) = pair("tiny-reranker-bpe");
    let options =
        Options { device: jinabert::Device::Cpu, task: Task::Rerank, ..Options::default() };
    let library = jinabert::Embedder::open_with(Path::new(&dir), options).expect("a model");
    let documents = ["The city is old.".to_owned(), document, String::new()];
    let scores = library.rerank(&query, &documents).expect("scores");
    let found = scores.iter().find(|score| score.index == 1).expect("a score").logit;
    assert!((found - logit).abs() <= 2e-4, "{found}, not {logit}");
    let order: Vec<usize> = scores.iter().map(|score| score.index).collect();
    let near = |value: &Value, expected: f32| {
        let value = value.as_f64().expect("a score") as f32;
        assert!((value - expected).abs() <= 1e-6, "{value}, not {expected}");
    };

    for path in ["/rerank", "/v1/rerank", "/v2/rerank"] {
        let body = json!({ "query": query, "documents": documents, "model": "x", "top_n": null });
        let answer = server.post(path, &body).ok();
        let bare = path == "/rerank"; // infinity's dialect
        let object = if bare { "rerank" } else { "list" };
        assert_eq!((&answer["model"], &answer["object"]), (&json!("judge"), &json!(object)));
        assert!(
            answer["usage"]["total_tokens"].as_u64().expect("tokens") > 0
                && answer["id"].is_string()
        );
        let results = answer["results"].as_array().expect("results");
        assert_eq!(results.len(), documents.len());
        for (result, score) in results.iter().zip(&scores) {
            assert_eq!(result["index"], score.index);
            let text = if bare { &result["document"] } else { &result["document"]["text"] };
            assert_eq!(text, &json!(documents[score.index]));
            near(&result["relevance_score"], score.score);
        }
    }
    let body = json!({
        "query": { "text": query }, "documents": documents.each_ref().map(|d| json!({ "text": d })),
        "top_n": 1, "return_documents": false
    });
    let answer = server.post("/v1/rerank", &body).ok();
    assert_eq!(answer["results"].as_array().expect("results").len(), 1);
    assert_eq!(
        (&answer["results"][0]["index"], &answer["results"][0]["document"]),
        (&json!(order[0]), &Value::Null)
    );

    let raw = json!({ "query": query, "documents": documents, "raw_scores": true });
    near(&server.post("/rerank", &raw).ok()["results"][0]["relevance_score"], scores[0].logit);
    let body =
        json!({ "query": query, "texts": documents, "raw_scores": true, "return_text": true });
    let answer = server.post("/rerank", &body).ok();
    for (rank, score) in answer.as_array().expect("ranks").iter().zip(&scores) {
        assert_eq!(
            (&rank["index"], &rank["text"]),
            (&json!(score.index), &json!(documents[score.index]))
        );
        near(&rank["score"], score.logit);
    }
    let plain = server.post("/rerank", &json!({ "query": query, "texts": documents })).ok();
    near(&plain[0]["score"], scores[0].score);
    assert_eq!(plain[0]["text"], Value::Null);

    let pairs: Vec<_> = documents.iter().map(|d| json!([query, d])).collect();
    let each = server.post("/predict", &json!({ "inputs": pairs, "raw_scores": true })).ok();
    for score in &scores {
        near(&each[score.index][0]["score"], score.logit);
    }
    let one = server.post("/predict", &json!({ "inputs": [query, documents[0]] })).ok();
    let score = scores.iter().find(|s| s.index == 0).expect("a score").score;
    near(&one[0]["score"], score);
    assert_eq!(server.get("/info", &[]).ok()["model_type"]["reranker"]["id2label"]["0"], "LABEL_0");
}

#[test]
fn predict_gives_a_score_for_every_label() {
    let server = Server::start(&["--model", &fixture("tiny-reranker-wordpiece")]);
    let answer = server.post("/predict", &json!({ "inputs": ["a", "b"] })).ok();
    let scores: Vec<f64> = answer
        .as_array()
        .expect("classes")
        .iter()
        .map(|c| c["score"].as_f64().expect("a score"))
        .collect();
    assert_eq!(scores.len(), 3);
    assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-6 && scores.is_sorted_by(|a, b| a >= b));
    let refused = server.post("/rerank", &json!({ "query": "a", "documents": ["b"] }));
    assert!(refused.text.contains("3 labels"), "{}", refused.text);
    let labels = &server.get("/info", &[]).ok()["model_type"]["classifier"]["id2label"];
    assert_eq!(labels.as_object().map(serde_json::Map::len), Some(3));
}

#[test]
fn models_are_listed_with_their_types() {
    let names = ["tiny-reranker-wordpiece", "tiny-natural", "tiny-reranker-bpe"];
    let [classes, embeds, judge] = names.map(fixture);
    let server = Server::start(&["--model", &classes, "--model", &embeds, "--model", &judge]);
    let models = server.get("/v1/models", &[]).ok();
    let models = models["data"].as_array().expect("models").iter();
    let listed: Vec<_> = models
        .map(|m| (m["id"].clone(), m["model_type"].clone(), m["dimensions"].clone()))
        .collect();
    let expected = [
        (json!(names[0]), json!("classifier"), Value::Null),
        (json!(names[1]), json!("embedding"), json!(64)),
        (json!(names[2]), json!("reranker"), Value::Null),
    ];
    assert_eq!(listed, expected);
    // The classifier comes first, but is no reranker; it predicts classes.
    let rank = json!({ "query": "a", "documents": ["b"] });
    assert_eq!(server.post("/v1/rerank", &rank).ok()["model"], names[2]);
    let classes = server.post("/predict", &json!({ "inputs": "a" })).ok();
    assert_eq!(classes.as_array().map(Vec::len), Some(3));
}

#[test]
fn an_environment_variable_names_several_models() {
    let place = tempfile::tempdir().expect("a directory");
    let odd = place.path().join("one, two; three");
    fs::create_dir(&odd).expect("a directory");
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let from = Path::new(&fixture("tiny-natural")).join(file);
        fs::copy(from, odd.join(file)).expect("a copy");
    }
    let odd = odd.to_str().expect("UTF-8");
    let ids = |args: &[&str], variables: &[(&str, &str)]| {
        let models = Server::start_with("cpu", args, variables).get("/v1/models", &[]).ok();
        let models = models["data"].as_array().expect("models").iter();
        models.map(|model| model["id"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    let several = format!("{}, {}", fixture("tiny-natural"), fixture("tiny-reranker-bpe"));
    let names = ("JINABERT_SERVED_MODEL_NAME", "first,second");
    assert_eq!(ids(&[], &[("JINABERT_MODEL", &several)]), ["tiny-natural", "tiny-reranker-bpe"]);
    assert_eq!(ids(&[], &[("JINABERT_MODEL", &several), names]), ["first", "second"]);
    // The variable's path is one model, whatever characters it has; a flag is never split.
    assert_eq!(ids(&[], &[("JINABERT_MODEL", odd)]), ["one, two; three"]);
    let flags = ["--model", odd, "--served-model-name", "a,b"];
    assert_eq!(ids(&flags, &[("JINABERT_MODEL", &several), names]), ["a,b"]);
}

#[test]
fn requests_select_a_model_by_name() {
    let other = fixture("tiny-natural");
    let judge = fixture("tiny-reranker-bpe");
    let args = ["--model", SHIPPED, "--model", &other, "--model", &judge];
    let server = Server::start(&args);
    let dims = |model: Value| {
        let answer = server.post("/v1/embeddings", &json!({ "input": "a", "model": model }));
        (answer.status, answer.json()["data"][0]["embedding"].as_array().map_or(0, Vec::len))
    };
    assert_eq!(dims(json!("jinabert-mini-en")), (200, 384));
    assert_eq!(dims(json!("tiny-natural")), (200, 64));
    assert_eq!(dims(json!("Owner/Tiny-Natural")), (200, 64));
    assert_eq!(dims(Value::Null), (200, 384));
    assert_eq!(dims(json!("text-embedding-3-large")), (200, 384));
    assert_eq!(dims(json!("nobody")), (404, 0));
    assert_eq!(dims(json!("tiny-reranker-bpe")), (404, 0));
    let rank = json!({ "query": "a", "documents": ["b"], "model": "jina-reranker-v2" });
    assert_eq!(server.post("/v1/rerank", &rank).ok()["model"], "tiny-reranker-bpe");
    assert_eq!(server.get("/v1/models", &[]).ok()["data"].as_array().expect("models").len(), 3);
}
