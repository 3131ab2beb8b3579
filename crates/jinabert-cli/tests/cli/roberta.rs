//! BERT and XLM-RoBERTa: jina-colbert-v2 and jina-reranker-v2, and what is refused.

use crate::kit::{arg, configure, copy, fixture, jinabert, run};
use crate::tasks::{cases, lines, near};
use serde_json::{Value, json};
use std::path::Path;

fn text<'a>(case: &'a Value, key: &str) -> Option<&'a str> {
    case[key].as_str()
}

#[test]
fn colbert_v2_has_its_markers_and_attends_to_the_padding_of_queries() {
    let model = fixture("v3-colbert");
    let cases = cases("v3-colbert");
    let mut checked = [0; 2];
    for case in cases["cases"].as_array().expect("cases") {
        let Some(role) = text(case, "role") else { continue };
        let of = text(case, "of").expect("a text");
        let args = ["multi-vector", "--role", role, "--model", arg(&model), "--", of];
        let found = lines(&run(&mut jinabert(&args), b"").output(of)).remove(0);
        let (ids, expected) = (&found["ids"], &case["ids"]);
        if role == "document" && ids != expected {
            // Punctuation has no vector.
            let kept = ids.as_array().expect("ids").len();
            assert!(kept < expected.as_array().expect("ids").len(), "{of}: {ids}");
            continue;
        }
        assert_eq!(ids, expected, "{of}");
        for (row, expected) in case["expect"]["colbert"]["rows"].as_object().expect("rows") {
            let row = &found["embeddings"][row.parse::<usize>().expect("a row")];
            let pairs = row.as_array().expect("a vector").iter();
            pairs.zip(expected.as_array().expect("a vector")).for_each(|(a, b)| near(a, b, 1e-4));
        }
        checked[usize::from(role == "document")] += 1;
    }
    assert!(checked[0] >= 4 && checked[1] >= 1, "{checked:?}");
}

#[test]
fn reranker_v2_scores_pairs() {
    let model = fixture("v3-reranker");
    let mut checked = 0;
    for case in cases("v3-reranker")["cases"].as_array().expect("cases") {
        let Some(pair) = case["pair"].as_array() else { continue };
        let [query, document] = [0, 1].map(|n| pair[n].as_str().expect("a text"));
        let args = ["rerank", "--model", arg(&model), "--", query, document];
        let found = lines(&run(&mut jinabert(&args), b"").output(query)).remove(0);
        near(&found["logit"], &case["expect"]["classifier"]["logits"][0], 2e-4);
        near(&found["score"], &case["expect"]["classifier"]["sigmoid"][0], 2e-4);
        checked += 1;
    }
    assert!(checked > 2, "{checked} pairs");
}

#[test]
fn info_names_the_positions() {
    let info = |name: &str, more: &[&str]| {
        let output = run(jinabert(&["info"]).arg("--model").arg(fixture(name)).args(more), b"");
        String::from_utf8(output.output(name)).expect("UTF-8")
    };
    assert!(info("v3-colbert", &[]).contains("θ = 20000"));
    assert!(info("v3-reranker", &[]).contains("a table of 512"));
    let json: Value = serde_json::from_str(&info("v3-colbert", &["--json"])).expect("JSON");
    assert_eq!(json["position_embedding_type"], "rotary");
    assert_eq!((&json["rope_theta"], &json["alibi_slopes"]), (&json!(20_000.0), &Value::Null));
}

#[test]
fn positions_that_contradict_the_files_are_refused() {
    let refused = |name: &str, damage: &dyn Fn(&Path), more: &[&str], code, says: &[&str]| {
        let (_place, dir) = copy(name);
        damage(&dir);
        let command: &[&str] =
            if name == "v3-colbert" { &["multi-vector", "a"] } else { &["rerank", "a", "b"] };
        let args = [command, more, &["--model", arg(&dir)]].concat();
        run(&mut jinabert(&args), b"").refused(name, code, says);
    };
    let set =
        |key: &'static str, value: Value| move |dir: &Path| configure(dir, key, value.clone());
    let none: &[&str] = &[];
    refused(
        "v3-reranker",
        &|_| (),
        &["--max-length", "600"],
        2,
        &["max length 600", "at most 512", "position table"],
    );
    let says = &["model_type is `deberta`", "xlm-roberta"];
    refused("v3-reranker", &set("model_type", json!("deberta")), none, 66, says);
    let says = &["position_embedding_type is `rotary`", "which has `absolute`"];
    refused("v3-reranker", &set("position_embedding_type", json!("rotary")), none, 66, says);
    let says = &["position_embeddings.weight", "514"];
    refused("v3-reranker", &set("max_position_embeddings", json!(700)), none, 66, says);
    let says = &["max_position_embeddings", "more than 2"];
    refused("v3-reranker", &set("max_position_embeddings", json!(2)), none, 66, says);
    let says = &["position_embedding_type is `alibi`", "which has `rotary`"];
    refused("v3-colbert", &set("position_embedding_type", json!("alibi")), none, 66, says);
    let says = &["rotary_emb_base 0"];
    refused("v3-colbert", &set("rotary_emb_base", json!(0)), none, 66, says);
    let says = &["a head is 4 wide", "multiples of 8"];
    refused("v3-colbert", &set("num_attention_heads", json!(16)), none, 66, says);
    let scaled = json!({"rope_type": "yarn", "rope_theta": 20000.0});
    refused("v3-colbert", &set("rope_parameters", scaled), none, 66, &["rope_type is `yarn`"]);
}

/// The `id`-th result of `rerank`, by index in the input.
fn ranked(args: &[&str]) -> Vec<Value> {
    let mut found = lines(&run(&mut jinabert(&[&["rerank"], args].concat()), b"").output("rerank"));
    let scores: Vec<f64> = found.iter().map(|line| line["score"].as_f64().expect("one")).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "best first: {scores:?}");
    found.sort_by_key(|line| line["index"].as_u64());
    found
}

#[test]
fn colbert_models_rerank_by_max_sim() {
    let model = fixture("v3-colbert");
    let all = cases("v3-colbert");
    let of = |n: usize| all["cases"][n]["of"].as_str().expect("a text");
    // This document has no punctuation that would be left out.
    let mut checked = 0;
    for pair in all["maxsim"].as_array().expect("scores").iter().filter(|pair| pair["doc"] == 15) {
        let query = of(pair["query"].as_u64().expect("a case") as usize);
        let documents = [of(15), of(7), of(9)];
        let found = ranked(&[&["--model", arg(&model), query], &documents[..]].concat());
        near(&found[0]["logit"], &pair["score"], 1e-3);
        let mean = pair["score"].as_f64().expect("a score") / 32.0;
        near(&found[0]["score"], &json!(mean), 1e-4);
        let args = ["multi-vector", "--model", arg(&model), "--query", query];
        let same = run(&mut jinabert(&[&args, &documents[..]].concat()), b"").output("the same");
        for line in lines(&same) {
            let index = line["index"].as_u64().expect("an index") as usize;
            near(&found[index]["logit"], &line["score"], 1e-4);
        }
        checked += 1;
    }
    assert!(checked >= 4, "{checked} queries");
}

#[test]
fn embedding_models_rerank_by_max_sim_if_asked() {
    let model = fixture("tiny-natural");
    let texts = ["the cat", "a", "the dog and the cat"];
    let args = ["embed", "--pooling", "none", "--model", arg(&model)];
    let states = lines(&run(&mut jinabert(&[&args, &texts[..]].concat()), b"").output("states"));
    let unit = |text: usize| -> Vec<Vec<f64>> {
        let rows: Vec<Vec<f64>> =
            serde_json::from_value(states[text]["embeddings"].clone()).expect("rows");
        let unit = |row: Vec<f64>| {
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.into_iter().map(|x| x / norm).collect()
        };
        rows.into_iter().map(unit).collect()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let found = ranked(&["--by", "maxsim", "--model", arg(&model), texts[0], texts[1], texts[2]]);
    for document in [1, 2] {
        let (query, document_rows) = (unit(0), unit(document));
        let best = |q: &Vec<f64>| document_rows.iter().map(|d| dot(q, d)).fold(-1.0, f64::max);
        let sum: f64 = query.iter().map(best).sum();
        near(&found[document - 1]["logit"], &json!(sum), 1e-4);
        near(&found[document - 1]["score"], &json!(sum / query.len() as f64), 1e-5);
    }
    let refused = |args: &[&str], code, says: &[&str]| {
        run(&mut jinabert(&[&["rerank"], args, &["a", "b"]].concat()), b"")
            .refused(says[0], code, says);
    };
    refused(&["--model", arg(&model)], 66, &["encoder without a head"]);
    let reranker = fixture("v3-reranker");
    let says = &["--by maxsim", "got a reranker"];
    refused(&["--by", "maxsim", "--model", arg(&reranker)], 2, says);
}

#[test]
fn long_documents_are_reranked_in_windows() {
    let model = fixture("v3-reranker");
    let base = ["--model", arg(&model)];
    let short = "Prune apple trees in late winter.";
    let long = format!("{} {short} {}", "The old bridge. ".repeat(60), "A red boat. ".repeat(60));
    let query = "how do I prune an apple tree?";
    let plain = ranked(&[&base[..], &[query, short]].concat());
    let windows = ["--on-long", "window", "--max-length", "64"];
    let found = ranked(&[&base[..], &windows, &[query, short, &long]].concat());
    assert_eq!(found[0]["logit"], plain[0]["logit"], "one window is the pair itself");
    let refused = [&["rerank"], &base[..], &["--max-length", "64", query, &long]].concat();
    run(&mut jinabert(&refused), b"").refused("too long", 65, &["64"]);
    let args = ["--on-long", "truncate", "--max-length", "64", query, &long];
    let cut = run(&mut jinabert(&[&["rerank"], &base[..], &args].concat()), b"");
    let cut = lines(&cut.stdout);
    assert_ne!(found[1]["logit"], cut[0]["logit"]);

    // A query may have half of the limit.
    let query = query.repeat(20);
    let args = [&["rerank"], &base[..], &windows, &[&query, short]].concat();
    let said = run(&mut jinabert(&args), b"").stderr;
    assert!(said.contains("truncated the query to half of the limit of 64 tokens"), "{said}");
}

#[test]
fn long_texts_are_ranked_by_maxsim_as_asked() {
    let model = fixture("v3-colbert");
    let args = ["--model", arg(&model), "--max-length", "64", "--on-long"];
    let tell = |long: &str, texts: &[&str]| {
        run(&mut jinabert(&[&["rerank"], &args[..], &[long], texts].concat()), b"")
    };
    let query = "where is the old bridge?";
    let long = "The old bridge stands above the town. ".repeat(60);
    tell("error", &[query, "short", &long]).refused("too long", 65, &["text 2", "limit of 64"]);
    tell("error", &[&long, "short"]).refused("query", 65, &["the query has", "limit of 64"]);
    tell("window", &[&long, "short"]).refused("query", 65, &["the query has", "limit of 64"]);

    let windows = lines(&tell("window", &[query, "short", &long]).output("windows"));
    assert_eq!(windows.len(), 2);
    let cut = tell("truncate", &[query, &long]);
    let says = "truncated the query, or 1 of 1 documents, to 64 tokens";
    assert!(cut.stderr.contains(says), "{}", cut.stderr);
    let score = |lines: &[Value]| lines[0]["logit"].as_f64().expect("a score");
    assert!(score(&windows) > score(&lines(&cut.stdout)), "more tokens to choose from");
    let cut = tell("truncate", &[&long, "short"]);
    assert!(cut.stderr.contains(says), "{}", cut.stderr);
}

#[test]
fn the_marker_of_a_document_counts_towards_the_limit() {
    let model = fixture("v3-colbert");
    let words = ["bridge"; 40];
    // Tokens with the marker, of a text under any limit.
    let tokens = |count: usize| {
        let text = words[..count].join(" ");
        ranked(&["--model", arg(&model), "bridge", &text])[0]["tokens"].as_u64().expect("a count")
    };
    let full = tokens(40);
    let limit = full.to_string();
    let text = words.join(" ");
    let args = ["--model", arg(&model), "--max-length", &limit, "bridge", &text];
    assert_eq!(ranked(&args)[0]["tokens"], full);
    let less = (full - 1).to_string();
    let args = ["rerank", "--model", arg(&model), "--max-length", &less, "bridge", &text];
    let says = format!("{full} tokens, over the limit of {less}");
    run(&mut jinabert(&args), b"").refused("too long", 65, &[&says]);
    let args = [&args[..], &["--on-long", "truncate"]].concat();
    let cut = run(&mut jinabert(&args), b"");
    assert_eq!(lines(&cut.stdout)[0]["tokens"], full - 1);
    assert!(cut.stderr.contains("or 1 of 1 documents"), "{}", cut.stderr);
    let args = ["rerank", "--model", arg(&model), "--max-length", "3", "bridge", "a"];
    run(&mut jinabert(&args), b"").refused("no room", 2, &["max length 3", "no room", "marker"]);
}
