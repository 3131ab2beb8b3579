//! `rerank`, `multi-vector`, `fill-mask`, and `embed --late-chunking`.

use crate::kit::{arg, copy, edit, embed, fixture, jinabert, natural, run};
use jinabert::text::Tokenizer;
use serde_json::{Value, json};
use std::{fs, path::Path};

pub fn lines(bytes: &[u8]) -> Vec<Value> {
    let text = str::from_utf8(bytes).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

pub fn cases(name: &str) -> Value {
    let text = fs::read(fixture(name).join("cases.json")).expect("cases");
    serde_json::from_slice(&text).expect("JSON")
}

pub fn near(value: &Value, expected: &Value, bound: f64) {
    let value = value.as_f64().expect("f64");
    let expected = expected.as_f64().expect("f64");
    assert!((value - expected).abs() <= bound, "{value}, not {expected}");
}

#[test]
fn pairs_have_the_published_scores_best_first() {
    let fixture_name = "tiny-reranker-bpe";
    let model = fixture(fixture_name);
    let mut checked = 0;
    for case in cases(fixture_name)["cases"].as_array().expect("cases") {
        let Some(pair) = case["pair"].as_array() else { continue };
        let text = |n: usize| pair[n].as_str().expect("a text");
        let args = ["rerank", "--model", arg(&model), text(0), text(1)];
        let out = run(&mut jinabert(&args), b"").output("rerank");
        let found = lines(&out).remove(0);
        near(&found["logit"], &case["expect"]["classifier"]["logits"][0], 2e-4);
        near(&found["score"], &case["expect"]["classifier"]["sigmoid"][0], 2e-4);
        assert_eq!((&found["text"], &found["index"]), (&pair[1], &json!(0)));
        checked += 1;
    }
    assert!(checked > 2, "{checked} pairs");

    let input =
        "{\"id\": \"x\", \"text\": \"a\"}\n{\"text\": \"the cat is blue\"}\n{\"text\": \"b b\"}\n";
    let args = ["rerank", "--model", arg(&model), "a query", "--top-n", "2"];
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("documents.jsonl");
    fs::write(&path, input).expect("a file");
    let out = run(jinabert(&args).arg("--input").arg(&path), b"").output("top 2");
    let scores: Vec<f64> = lines(&out).iter().map(|l| l["logit"].as_f64().expect("f64")).collect();
    assert!(scores.len() == 2 && scores[0] >= scores[1], "{scores:?}");
    let all = run(jinabert(&args[..4]).arg("--input").arg(&path), b"").output("all");
    let all = lines(&all);
    assert_eq!(all.len(), 3);
    assert!(all.iter().any(|line| line["id"] == "x" && line["index"] == 0));
}

#[test]
fn long_documents_are_refused_or_cut() {
    let model = fixture("tiny-reranker-bpe");
    let long = "a b c d e f g ".repeat(20);
    let args = ["rerank", "--model", arg(&model), "what", "short", &long, "--max-length", "24"];
    run(&mut jinabert(&args), b"").refused("long", 65, &["text 2", "tokens, over the limit of 24"]);
    let cut = [&args[..], &["--on-long", "truncate"]].concat();
    let ran = run(&mut jinabert(&cut), b"");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("truncated 1 documents"), "{}", ran.stderr);
    assert!(lines(&ran.stdout).iter().any(|line| line["tokens"] == 24));
    let (_place, pairless) = copy("tiny-reranker-bpe");
    edit(&pairless.join("tokenizer.json"), |tokenizer| tokenizer["post_processor"] = Value::Null);
    let args = ["rerank", "--model", arg(&pairless), "q", "d"];
    run(&mut jinabert(&args), b"").refused("no pairs", 66, &["tokenizer.json joins no pairs"]);
    let query = ["rerank", "--model", arg(&model), &long, "d", "--max-length", "24"];
    run(&mut jinabert(&query), b"").refused("a long query", 65, &["query", "limit of 24"]);
    let query = [&query[..], &["--on-long", "truncate"]].concat();
    let ran = run(&mut jinabert(&query), b"");
    assert_eq!(ran.code, Some(0), "the longer of the two is cut: {}", ran.stderr);
    assert_eq!(lines(&ran.stdout).remove(0)["tokens"], 24);
}

#[test]
fn token_vectors_are_the_published_ones() {
    let name = "tiny-colbert";
    let model = fixture(name);
    let cases = cases(name);
    let case = cases["cases"].as_array().expect("cases").iter().find(|case| case["text"] == "a");
    let text = case.map_or("a", |case| case["text"].as_str().expect("a text"));
    let case = case.expect("a case of one letter");
    let args = ["multi-vector", "--model", arg(&model), text];
    let found = lines(&run(&mut jinabert(&args), b"").output("plain")).remove(0);
    assert_eq!(found["ids"], case["ids"]);
    for (row, expected) in case["expect"]["colbert"]["rows"].as_object().expect("rows") {
        let row: usize = row.parse().expect("a row");
        let pairs = found["embeddings"][row].as_array().expect("a vector").iter();
        pairs.zip(expected.as_array().expect("a vector")).for_each(|(a, b)| near(a, b, 2e-4));
    }
}

#[test]
fn roles_add_markers_and_documents_lose_punctuation() {
    let model = fixture("tiny-colbert");
    let run_on = |model: &Path, args: &[&str]| {
        run(jinabert(&["multi-vector"]).args(args).arg("--model").arg(model), b"")
    };
    let (_place, unmarked) = copy("tiny-colbert");
    edit(&unmarked.join("tokenizer.json"), |tokenizer| {
        let text = tokenizer.to_string().replace("[unused", "[other");
        *tokenizer = serde_json::from_str(&text).expect("JSON");
    });
    let says = ["`[unused0]`", "Query"];
    run_on(&unmarked, &["--role", "query", "a"]).refused("no marker", 66, &says);
    let tokenizer = Tokenizer::open(&model.join("tokenizer.json")).expect("a tokenizer");
    let [q, d] = ["[unused0]", "[unused1]"].map(|marker| tokenizer.id_of(marker));
    let ids = |args: &[&str]| lines(&run_on(&model, args).output("ids"))[0]["ids"].clone();
    let plain = ids(&["a b."]);
    let plain = plain.as_array().expect("ids");
    let query = ids(&["--role", "query", "--query-length", "0", "a b."]);
    assert_eq!(query.as_array().expect("ids").len(), plain.len() + 1);
    assert_eq!((&query[0], &query[1], &query[2]), (&plain[0], &json!(q), &plain[1]));
    let document = ids(&["--role", "document", "a b."]);
    assert_eq!(document[1], json!(d));
    assert_eq!(document.as_array().expect("ids").len(), plain.len(), "a mark more, a dot less");
    let ranked = run_on(&model, &["--query", "a", "b b", "a"]).output("ranked");
    let ranked = lines(&ranked);
    assert!(ranked[0]["score"].as_f64() >= ranked[1]["score"].as_f64());
}

#[test]
fn kept_vectors_are_scored_as_their_texts_are() {
    let model = fixture("tiny-colbert");
    let place = tempfile::tempdir().expect("a directory");
    let kept = place.path().join("kept.jsonl");
    let documents = place.path().join("documents.jsonl");
    let text = r#"{"text": "a cat.", "id": 1.50, "year": 1e3}
{"text": "the dog, and the cat"}
{"text": "a"}"#;
    fs::write(&documents, text).expect("writable");
    let args = |args: &[&str]| {
        let base = ["multi-vector", "--model", arg(&model)];
        run(&mut jinabert(&[&base[..], args].concat()), b"")
    };
    let input = ["--input", arg(&documents), "--keep-fields"];
    let out = ["--role", "document", "--output", arg(&kept)];
    assert_eq!(args(&[&input[..], &out].concat()).output("kept"), b"");
    let query = ["--query", "the cat"];
    let now = args(&[&query[..], &input].concat()).output("ranked");
    let later = args(&[&query[..], &["--vectors", arg(&kept)]].concat()).output("kept");
    let (now, later) = (lines(&now), lines(&later));
    assert_eq!((now.len(), later.len()), (3, 3));
    for (now, later) in now.iter().zip(&later) {
        for field in ["index", "id", "year", "tokens"] {
            assert_eq!(now[field], later[field]);
        }
        near(&later["score"], &now["score"], 1e-5);
    }
    let best = [&query[..], &["--vectors", arg(&kept), "--top-n", "1"]].concat();
    let best = String::from_utf8(args(&best).output("the best")).expect("text");
    assert_eq!(lines(best.as_bytes()), later[..1]);
    let first = args(&[&query[..], &["--vectors", arg(&kept)]].concat()).output("kept");
    let first = String::from_utf8(first).expect("text");
    assert!(first.contains(r#""id":1.50,"year":1e3"#), "as it was written: {first}");

    let kept_text = fs::read_to_string(&kept).expect("text");
    let second = kept_text.lines().nth(1).expect("a line");
    let mut line: Value = serde_json::from_str(second).expect("JSON");
    let mut refused = |change: &dyn Fn(&mut Value), says: &[&str]| {
        let before = line.clone();
        change(&mut line);
        let bad = place.path().join("bad.jsonl");
        fs::write(&bad, format!("\n{second}\n{line}\n")).expect("writable");
        line = before;
        let at = format!("{}:3: ", bad.display());
        let says = [&[&at[..]], says].concat();
        args(&[&query[..], &["--vectors", arg(&bad)]].concat()).refused(says[1], 65, &says);
    };
    refused(&|line| line["embeddings"][1] = json!([0.5]), &["vector 1", "got 1"]);
    refused(&|line| line["embeddings"] = json!([[0.5]]), &["expected a vector for each of"]);
    refused(&|line| line["embeddings"][0][0] = json!(1e39), &["vector 0: expected finite"]);
    refused(&|line| line["ids"] = json!("a"), &["ids: invalid type"]);
    refused(&|line| *line = json!({"text": "a"}), &["got none named `index`"]);
    refused(&|line| *line = json!([1]), &["expected an object"]);
    let narrow = |line: &mut Value| {
        line["embeddings"] = json!([[1.0, 0.0], [0.0, 1.0]]);
        line["ids"] = json!([1, 2]);
    };
    refused(&narrow, &["as the query's, got 2"]);
    let args = |more: &[&str]| args(&[&["--vectors", "x"], more].concat());
    let usage = |more: &[&str], says: &str| {
        let told = args(more);
        assert_eq!(told.code, Some(2), "{}", told.stderr);
        assert!(told.stderr.contains(says), "{}", told.stderr);
    };
    usage(&[], "--query <QUERY>");
    usage(&["--query", "a", "text"], "cannot be used with");
    args(&["--query", "a"]).refused("no file", 66, &["cannot read `x`"]);
}

#[test]
fn queries_are_padded_with_masks() {
    let published = fs::read(fixture("tiny-colbert").join("queries.json")).expect("queries");
    let published: Value = serde_json::from_slice(&published).expect("JSON");
    let (_place, model) = copy("tiny-colbert");
    let metadata = "artifact.metadata";
    fs::copy(fixture("tiny-colbert").join(metadata), model.join(metadata)).expect("a copy");
    let vectors = |args: &[&str]| {
        let args = [&["multi-vector", "--role", "query", "--model", arg(&model)], args].concat();
        lines(&run(&mut jinabert(&args), b"").output("a query")).remove(0)
    };
    let mut checked = 0;
    for query in published["queries"].as_array().expect("queries") {
        let Some(text) = query["text"].as_str() else { continue };
        edit(&model.join(metadata), |said| {
            said["query_maxlen"] = query["length"].clone();
            said["attend_to_mask_tokens"] = query["attend"].clone();
        });
        let found = vectors(&[text]);
        assert_eq!(found["ids"], query["ids"], "{}", query["name"]);
        for (row, expected) in query["colbert"]["rows"].as_object().expect("rows") {
            let row: usize = row.parse().expect("a row");
            let pairs = found["embeddings"][row].as_array().expect("a vector").iter();
            pairs.zip(expected.as_array().expect("a vector")).for_each(|(a, b)| near(a, b, 2e-4));
        }
        checked += 1;
    }
    assert!(checked >= 6, "{checked} queries");

    let count = |args: &[&str]| vectors(args)["ids"].as_array().expect("ids").len();
    assert_eq!(count(&["--query-length", "20", "a"]), 20);
    assert_eq!(count(&["--query-length", "0", "a"]), 4);
    assert_eq!(count(&["--query-length", "20", "--max-length", "10", "a"]), 10);
    fs::remove_file(model.join(metadata)).expect("a file");
    assert_eq!(count(&["a"]), 32, "ColBERT's own");
    let scored = |length: &str| {
        let args = ["multi-vector", "--query", "a", "--query-length", length, "b a", "--model"];
        let args = [&args[..], &[arg(&model)]].concat();
        let line = lines(&run(&mut jinabert(&args), b"").output("a score")).remove(0);
        line["score"].as_f64().expect("a score")
    };
    assert!(scored("32") > 4.0 && scored("0") <= 4.0, "masks count");
    fs::write(model.join(metadata), "no JSON").expect("a file");
    let args = ["multi-vector", "--role", "query", "a", "--model", arg(&model)];
    run(&mut jinabert(&args), b"").refused("damaged", 66, &[metadata]);
}

#[test]
fn masks_are_filled_with_the_published_tokens() {
    let name = "tiny-mlm";
    let model = fixture(name);
    let cases = cases(name);
    let ran = run(&mut jinabert(&["fill-mask", "--model", arg(&model), "the [MASK] is a"]), b"");
    let found = lines(&ran.output("filled"));
    assert_eq!(found.len(), 5);
    let scores: Vec<f64> = found.iter().map(|line| line["score"].as_f64().expect("f64")).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores.iter().sum::<f64>() < 1.0, "{scores:?}");
    // The fixture has the result for this text: its tokens are words, here joined by spaces.
    let case = &cases["cases"][2];
    assert!(case["expect"]["mlm"].is_object(), "{case}");
    let all = run(
        &mut jinabert(&["fill-mask", "--model", arg(&model), "--top-k", "400", "[MASK] [MASK]"]),
        b"",
    );
    let all = lines(&all.output("all"));
    assert_eq!(all.len(), 800);
    let sum: f64 = all[..400].iter().map(|line| line["score"].as_f64().expect("f64")).sum();
    assert!((sum - 1.0).abs() < 1e-4, "{sum}");

    let none = ["fill-mask", "--model", arg(&model), "no mask"];
    run(&mut jinabert(&none), b"").refused("no mask", 65, &["text 1", "no [MASK] in it"]);
    let (_place, model) = copy(name);
    edit(&model.join("tokenizer.json"), |tokenizer| {
        let text = tokenizer.to_string().replace("[MASK]", "[MOSK]");
        *tokenizer = serde_json::from_str(&text).expect("JSON");
    });
    run(&mut jinabert(&["fill-mask", "--model", arg(&model), "a [MASK]"]), b"").refused(
        "no mask token",
        66,
        &["no mask token, neither [MASK] nor <mask>"],
    );
}

#[test]
fn a_command_for_another_kind_of_model_is_named() {
    let says = |model: &str, command: &[&str], parts: &[&str]| {
        let case = format!("{model} {command:?}");
        let mut command = jinabert(command);
        run(command.arg("--model").arg(fixture(model)), b"").refused(&case, 66, parts);
    };
    says("tiny-reranker-bpe", &["embed", "a"], &["a reranker", "for rerank, not for embed"]);
    says("tiny-colbert", &["similarity", "a", "b"], &["a ColBERT model", "for multi-vector"]);
    says("tiny-mlm", &["rerank", "q", "d"], &["a masked language model", "for fill-mask"]);
    says("tiny-geglu-4h", &["rerank", "q", "d"], &["an encoder without a head", "for embed"]);
    says("tiny-geglu-4h", &["fill-mask", "[MASK]"], &["an encoder without a head"]);
    let classifier =
        ["a classifier of 3 labels", "a reranker has 1", "`jinabert serve`", "/predict"];
    for command in [
        &["rerank", "q", "d"][..],
        &["embed", "a"],
        &["similarity", "a", "b"],
        &["multi-vector", "a"],
        &["fill-mask", "[MASK]"],
        &["perplexity", concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")],
    ] {
        says("tiny-reranker-wordpiece", command, &classifier);
        says("tiny-reranker-wordpiece", command, &[&format!("not for {}", command[0])]);
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    says("tiny-colbert", &["perplexity", file], &["for multi-vector, not for perplexity"]);
    says("tiny-mlm", &["multi-vector", "a"], &["for fill-mask, perplexity and embed"]);
    // A checkpoint of a masked language model can be used as an encoder, too.
    let dump = run(jinabert(&["embed", "a"]).arg("--model").arg(fixture("tiny-mlm")), b"");
    assert_eq!(lines(&dump.output("an MLM embeds")).len(), 1);
}

/// The shipped model is an encoder; the error comes before anything is read or opened.
#[test]
fn commands_that_the_shipped_model_cannot_serve_ask_for_another() {
    for (command, kind) in [
        (&["rerank", "q", "--input", "no/such"][..], "a reranker"),
        (&["multi-vector", "--input", "no/such"], "a ColBERT model"),
        (&["fill-mask", "--input", "no/such"], "a masked language model"),
        (&["perplexity", "no/such"], "a masked language model"),
    ] {
        let says = format!("{} needs {kind}, and the shipped model is none", command[0]);
        run(&mut jinabert(command), b"").refused(command[0], 2, &[&says, "--model"]);
    }
}

#[test]
fn help_has_no_backslashes() {
    let help = |args: &[&str]| {
        let out = run(&mut jinabert(&[args, &["--help"]].concat()), b"").output("help");
        String::from_utf8(out).expect("UTF-8")
    };
    let all = help(&[]);
    let commands = all.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').find(|word| !word.is_empty()))
        .filter(|word| *word != "help" && all.contains(&format!("\n  {word} ")))
        .collect();
    assert!(commands.contains(&"rerank") && commands.contains(&"man"), "{commands:?}");
    for command in commands {
        let text = help(&[command]);
        assert!(!text.contains('\\'), "{command}: {text}");
    }
}

#[test]
fn chunks_come_with_their_text() {
    let text = "Hällo wörld. A second one!\n";
    let args = ["--late-chunking", "--chunk", "sentences:1"];
    let found = lines(&embed(&natural(), &args, text.as_bytes()).output("sentences"));
    let part = |n: usize| {
        let line = &found[n];
        (line["chunk"].clone(), line["start"].clone(), line["end"].clone(), line["text"].clone())
    };
    assert_eq!(found.len(), 2);
    assert_eq!(part(0), (json!(0), json!(0), json!(13), json!("Hällo wörld. ")));
    assert_eq!(part(1), (json!(1), json!(13), json!(26), json!("A second one!")));

    let jsonl = "{\"id\": 7, \"text\": \"Hällo wörld.\", \"spans\": [[0, 5], [6, 11]]}\n";
    let args =
        ["--late-chunking", "--input-format", "jsonl", "--format", "csv", "--dimensions", "1"];
    let csv = embed(&natural(), &args, jsonl.as_bytes()).output("spans");
    let csv = String::from_utf8(csv).expect("UTF-8");
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows[0], "index,id,chunk,start,end,text,tokens,0");
    assert!(rows[1].starts_with("0,7,0,0,5,Hällo,") && rows[2].starts_with("0,7,1,6,11,wörld,"));

    let refused = |args: &[&str], stdin: &str, code: i32, says: &[&str]| {
        embed(&natural(), args, stdin.as_bytes()).refused(&args.join(" "), code, says);
    };
    let spans = |spans: &str| format!("{{\"text\": \"Hello\", \"spans\": {spans}}}\n");
    let late = ["--late-chunking", "--input-format", "jsonl"];
    refused(&late, &spans("[[3, 9]]"), 65, &["line 1: span 0, 3..9", "5 characters"]);
    refused(&late, &spans("[[3, 1]]"), 65, &["line 1: span 0, 3..1: runs backwards"]);
    refused(&late, &spans("[[0, 3], [2, 5]]"), 65, &["line 1: span 1, 2..5", "ends, at 3"]);
    refused(&late, "{\"text\": \"a\"}\n", 65, &["line 1: no \"spans\", and no --chunk"]);
    refused(&late, "{\"ids\": [2, 3]}\n", 65, &["line 1: chunks are of a text"]);
    refused(&late[1..], &spans("[[0, 5]]"), 65, &["line 1: \"spans\" are for --late-chunking"]);
    refused(&["--chunk", "tokens:2"], "a\n", 2, &["--chunk is for --late-chunking"]);
}

#[test]
fn long_texts_are_read_in_windows() {
    let text = "a b c d e f g h i j k l m n o p q r s t u v w x y z\n".as_bytes();
    let long = ["--max-length", "20"];
    let refused = embed(&natural(), &long, text);
    refused.refused("long", 65, &["28 tokens, over the limit of 20", "window reads all"]);
    let window = ["--max-length", "20", "--on-long", "window", "--overlap", "4"];
    let found = lines(&embed(&natural(), &window, text).output("windows"));
    assert_eq!(found[0]["tokens"], 28);
    let overlap = ["--max-length", "20", "--on-long", "window"];
    let says = ["overlap 256 leaves no room in windows of 20 tokens"];
    embed(&natural(), &overlap, text).refused("overlap", 2, &says);
}

#[test]
fn pooling_none_gives_a_vector_for_every_token() {
    let texts = b"a\n\nthe cat\n";
    let found = lines(&embed(&natural(), &["--pooling", "none"], texts).output("none"));
    assert_eq!(found.len(), 3);
    let rows = |line: &Value| -> Vec<Vec<f64>> {
        serde_json::from_value(line["embeddings"].clone()).expect("rows")
    };
    let mean = lines(&embed(&natural(), &["--no-normalize"], texts).output("mean"));
    let cls = ["--no-normalize", "--pooling", "cls"];
    let cls = lines(&embed(&natural(), &cls, texts).output("cls"));
    for ((tokens, mean), cls) in found.iter().zip(&mean).zip(&cls) {
        let rows = rows(tokens);
        assert_eq!(json!(rows.len()), mean["tokens"]);
        for (i, (mean, first)) in
            mean["embedding"].as_array().expect("a vector").iter().zip(&rows[0]).enumerate()
        {
            let sum: f64 = rows.iter().map(|row| row[i]).sum();
            near(mean, &json!(sum / rows.len() as f64), 1e-5);
            near(&cls["embedding"][i], &json!(first), 1e-6);
        }
    }

    let place = tempfile::tempdir().expect("a directory");
    let out = place.path().join("vectors");
    let args = ["--pooling", "none", "--output", arg(&out)];
    embed(&natural(), &args, texts).output("npy");
    let files = crate::kit::names(&out);
    assert_eq!(files, ["000000.npy", "000001.npy", "000002.npy"]);
    let bytes = fs::read(out.join("000002.npy")).expect("a file");
    let values: Vec<f32> =
        bytes[128..].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let expected = rows(&found[2]).concat();
    assert_eq!(values.len(), expected.len());
    assert!(values.iter().zip(&expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6));
    let shape = format!("({}, 64)", rows(&found[2]).len());
    assert!(str::from_utf8(&bytes[10..128]).expect("ASCII").contains(&shape), "{shape}");

    for (args, says) in [
        (&["--dimensions", "3"][..], "--dimensions"),
        (&["--precision", "int8"], "--precision"),
        (&["--encoding", "base64"], "--encoding"),
        (&["--format", "csv"], "such format"),
        (&["--format", "npy"], "a directory"),
        (&["--late-chunking", "--chunk", "tokens:1"], "chunks"),
    ] {
        let args = [&["--pooling", "none"], args].concat();
        embed(&natural(), &args, texts).refused(&args.join(" "), 2, &["--pooling none", says]);
    }
}
