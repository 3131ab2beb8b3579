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
