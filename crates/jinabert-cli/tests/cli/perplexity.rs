//! `jinabert perplexity`: values, reports, and refusals.

use crate::kit::{Ran, arg, copy, edit, fixture, jinabert, run};
use serde_json::{Value, json};
use std::{fs, path::Path};

fn on(model: &Path, args: &[&str], stdin: &[u8]) -> Ran {
    run(jinabert(&["perplexity"]).args(args).arg("--model").arg(model), stdin)
}

fn json_of(ran: Ran) -> Value {
    serde_json::from_slice(&ran.output("JSON")).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn exact_mode_gives_the_published_pseudo_perplexities() {
    for name in ["tiny-mlm", "tiny-mlm-decoder-f16"] {
        let model = fixture(name);
        let cases = fs::read(model.join("cases.json")).expect("cases");
        let cases: Value = serde_json::from_slice(&cases).expect("JSON");
        let bound = 2.0 * number(&cases["tolerance"]["mlm_logits_max_abs"]);
        let mut checked = 0;
        let mut unknowns = 0;
        for case in cases["cases"].as_array().expect("cases") {
            let expected = &case["expect"]["mlm"];
            let (Some(text), Some(pll)) =
                (case["text"].as_str(), expected["pll_per_token"].as_array())
            else {
                continue;
            };
            let ids = case["ids"].as_array().expect("ids");
            let length = ids.len();
            let own = &ids[1..ids.len() - 1];
            assert_eq!(own.len(), pll.len(), "{name}");
            let args = ["--lengths", &length.to_string(), "--mask-every", "exact", "--json"];
            let found = json_of(on(&model, &args, text.as_bytes()));
            let at = &found["lengths"][0];
            // The fixture scores [UNK], id 1, too.
            let known: Vec<f64> = own
                .iter()
                .zip(pll)
                .filter(|(id, _)| **id != json!(1))
                .map(|(_, pll)| number(pll))
                .collect();
            let unknown = own.len() - known.len();
            assert_eq!((&found["unknown"], &found["special"]), (&json!(unknown), &json!(0)));
            assert_eq!((&at["tokens"], &at["windows"]), (&json!(known.len()), &json!(1)));
            let nll = -known.iter().sum::<f64>() / known.len() as f64;
            assert!((number(&at["nll"]) - nll).abs() <= bound, "{name} {text}: {at}, not {nll}");
            if unknown == 0 {
                let expected = number(&expected["pseudo_perplexity"]);
                let off = (number(&at["perplexity"]) - expected).abs();
                assert!(off <= bound * expected, "{name} {text}: {at}, not {expected}");
                checked += 1;
            }
            unknowns += unknown;
        }
        assert!(checked >= 1, "{name}");
        assert!(name != "tiny-mlm" || unknowns > 0, "{name}: no unknown token");
    }
}

const SENTENCE: &str = "the harbour master wrote down the name of every boat. ";

#[test]
fn tables_and_json_have_the_same_lengths() {
    let text = SENTENCE.repeat(40);
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("text.txt");
    fs::write(&path, format!("\u{feff}{text}")).expect("a file");
    let args = [arg(&path), "--lengths", "128,32", "--windows", "2"];
    let table = on(&fixture("tiny-mlm"), &args, b"").output("a table");
    let table = String::from_utf8(table).expect("UTF-8");
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    let found = json_of(on(&fixture("tiny-mlm"), &[&args[..], &["--json"]].concat(), b""));
    for (row, at) in rows[1..3].iter().zip(found["lengths"].as_array().expect("lengths")) {
        let counts = [&at["length"], &at["windows"], &at["tokens"]].map(Value::to_string);
        assert_eq!(row[..3], counts, "{table}");
        assert_eq!(row[3], format!("{:.4}", number(&at["nll"])), "{table}");
        assert_eq!(row[5], format!("{:.3}", number(&at["perplexity"])), "{table}");
        assert!((number(&at["nll"]).exp() / number(&at["perplexity"]) - 1.0).abs() < 1e-12);
    }
    assert_eq!((rows[1][0], rows[2][0]), ("32", "128"));
    assert_eq!((&found["regions"], &found["region_tokens"]), (&json!(2), &json!(126)));
    assert_eq!((&found["model"], &found["mask_every"]), (&json!("tiny-mlm"), &json!(7)));
    assert!(table.contains("2 regions of 126 tokens, one token of 7 masked at a time"), "{table}");

    // By default, all lengths up to the limit are used; a warning lists those longer than the text.
    let ran = run(
        jinabert(&["perplexity", "-", "--json", "--model"]).arg(fixture("tiny-mlm")),
        text.as_bytes(),
    );
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let short = SENTENCE.repeat(20);
    let ran = on(
        &fixture("tiny-mlm"),
        &["-", "--json", &format!("{}", path.display())],
        short.as_bytes(),
    );
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("left out 1024: no text is as long"), "{}", ran.stderr);
    assert!(ran.stderr.contains("left out 1 of 2 texts"), "{}", ran.stderr);
    let found: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    let lengths: Vec<_> =
        found["lengths"].as_array().expect("lengths").iter().map(|at| &at["length"]).collect();
    assert_eq!(lengths, [128, 256, 512]);
}

/// Element names in order of their opening tags; panics unless they are properly nested.
fn elements(svg: &str) -> Vec<String> {
    let mut open = Vec::new();
    let mut all = Vec::new();
    for part in svg.split('<').skip(1) {
        let (tag, text) = part.split_once('>').expect("a tag ends");
        assert!(!text.contains('>'), "{text}");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "{tag}");
            continue;
        }
        let name = tag.split([' ', '/']).next().expect("a name").to_owned();
        if !tag.ends_with('/') {
            open.push(name.clone());
        }
        all.push(name);
    }
    assert!(open.is_empty(), "left open: {open:?}");
    all
}

#[test]
fn svgs_are_well_formed() {
    let text = SENTENCE.repeat(60);
    let args = ["--lengths", "16,64,256", "--svg", "-"];
    let svg = on(&fixture("tiny-mlm"), &args, text.as_bytes()).output("an SVG");
    let svg = String::from_utf8(svg).expect("UTF-8");
    let all = elements(&svg);
    let count = |name: &str| all.iter().filter(|element| *element == name).count();
    assert_eq!((count("svg"), count("circle"), count("polyline")), (1, 3, 1), "{svg}");
    assert_eq!(svg.matches("class=\"error\"").count(), 3, "{svg}");
    for what in ["tiny-mlm", ">16<", ">64<", ">256<", "prefers-color-scheme: dark"] {
        assert!(svg.contains(what), "{what} is not in {svg}");
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");

    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("curve.svg");
    let file = [&args[..3], &[arg(&path)]].concat();
    let table = on(&fixture("tiny-mlm"), &file, text.as_bytes()).output("a file");
    assert!(table.starts_with(b" length"));
    assert_eq!(fs::read_to_string(&path).expect("a file"), svg);
    let both = [&args[..], &["--json"]].concat();
    let says = ["only one of --json and --svg"];
    on(&fixture("tiny-mlm"), &both, text.as_bytes()).refused("both", 2, &says);
    let nowhere = place.path().join("none/curve.svg");
    let nowhere = [&args[..3], &[arg(&nowhere)]].concat();
    on(&fixture("tiny-mlm"), &nowhere, text.as_bytes()).refused("nowhere", 73, &["curve.svg"]);
}

#[test]
fn unusable_texts_models_and_options_are_refused() {
    let model = fixture("tiny-mlm");
    let text = SENTENCE.repeat(20);
    let refused = |args: &[&str], stdin: &[u8], code: i32, says: &[&str]| {
        on(&model, args, stdin).refused(&args.join(" "), code, says);
    };
    let lengths = |lengths: &str, says: &[&str]| {
        refused(&["--lengths", lengths], text.as_bytes(), 2, says);
    };
    lengths("0", &["expected a length of at least 3"]);
    lengths("64,2", &["expected a length of at least 3, 2 special tokens"]);
    lengths("128,2000", &["length 2000 is over the limit of 1024 tokens"]);
    let usage = on(&model, &["--lengths", "long"], b"");
    assert!(usage.code == Some(2) && usage.stderr.contains("'long'"), "{}", usage.stderr);
    let usage = on(&model, &["--mask-every", "1"], b"");
    assert!(usage.code == Some(2) && usage.stderr.contains("2 or more"), "{}", usage.stderr);
    let more = ["--lengths", "128,2000", "--max-length", "2000"];
    let ran = on(&model, &more, text.as_bytes());
    assert!(ran.code == Some(0) && ran.stderr.contains("left out 2000"), "{}", ran.stderr);
    for (option, value, says) in [
        ("--stride", "0", "expected a stride of at least 1, got 0"),
        ("--stride", "63", "stride 63 skips tokens: windows of 64 tokens have 62"),
        ("--windows", "0", "expected at least 1 window, got 0"),
    ] {
        refused(&["--lengths", "64", option, value], text.as_bytes(), 2, &[says]);
    }

    refused(&[], b"the cat", 65, &["`-`: ", "tokens, 2 special ones included, under 128"]);
    refused(&["--lengths", "3"], b" \n\t", 65, &["`-`: 2 tokens"]);
    refused(&[], b"", 65, &["`-`: empty"]);
    refused(&[], b"a \xff", 65, &["`-`: not UTF-8 at byte 2"]);
    let chinese = "\u{9f98}".repeat(8);
    refused(&["--lengths", "10"], chinese.as_bytes(), 65, &["none of its 8 tokens can be scored"]);
    let missing = ["none/text.txt"];
    refused(&missing, b"", 66, &["cannot read `none/text.txt`"]);

    let says = ["an encoder without a head", "for embed, not for perplexity"];
    on(&fixture("tiny-natural"), &[], text.as_bytes()).refused("no head", 66, &says);
    let (_place, unmasked) = copy("tiny-mlm");
    edit(&unmasked.join("tokenizer.json"), |tokenizer| {
        let text = tokenizer.to_string().replace("[MASK]", "[MOSK]");
        *tokenizer = serde_json::from_str(&text).expect("JSON");
    });
    on(&unmasked, &[], text.as_bytes()).refused("no mask", 66, &["no mask token"]);
}
