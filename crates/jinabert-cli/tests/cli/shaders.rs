//! `jinabert shaders`: programs in the languages of the drivers.

use crate::kit::{arg, jinabert, names, run};
use crate::root::root;
use serde_json::Value;
use std::{collections::HashSet, fs, path::Path};

fn shaders(args: &[&str]) -> crate::kit::Ran {
    run(&mut jinabert(&[&["shaders"][..], args].concat()), b"")
}

/// List that is written with the files.
fn list(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("programs.json")).expect("a list");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn every_language_has_its_files_and_a_list_of_them() {
    for (language, extension, says) in [
        ("wgsl", "wgsl", "@compute @workgroup_size(WG)"),
        ("hlsl", "hlsl", "[numthreads("),
        ("hlsl6", "hlsl", "[numthreads("),
        ("msl", "metal", "kernel void "),
        ("glsl", "comp", "#version 310 es"),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let args = [arg(dir.path()), "--as", language, "--kernel", "pool", "--width", "768"];
        assert!(shaders(&args).output(language).is_empty(), "{language}");
        let rows = list(dir.path());
        assert_eq!(rows.len(), 2, "{language}: buffers and textures");
        for row in &rows {
            let file = row["file"].as_str().expect("a name");
            assert!(file.ends_with(&format!(".{extension}")), "{file}");
            let text = fs::read_to_string(dir.path().join(file)).expect("a file");
            assert!(text.contains(says), "{language}: {text}");
            let entry = row["entry"].as_str().expect("a name");
            assert!(entry == "main" || text.contains(&format!(" {entry}(")), "{language}: {entry}");
            assert_eq!((&row["kernel"], &row["constants"]["D"]), (&"pool".into(), &768.into()));
        }
        assert_eq!(names(dir.path()).len(), 3, "{language}");
    }
}

#[test]
fn spirv_is_little_endian_of_version_1_6() {
    let dir = tempfile::tempdir().expect("a directory");
    let args = [arg(dir.path()), "--as", "spirv", "--kernel", "gather", "--tier", "texture"];
    shaders(&args).output("spirv");
    let rows = list(dir.path());
    assert!(!rows.is_empty());
    for row in rows {
        let file = row["file"].as_str().expect("a name");
        let bytes = fs::read(dir.path().join(file)).expect("a file");
        assert_eq!(bytes[..8], [3, 2, 0x23, 7, 0, 6, 1, 0], "{file}: magic number, version 1.6");
        assert_eq!(bytes.len() % 4, 0, "{file}");
    }
}

#[test]
fn programs_that_a_language_cannot_express_are_left_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let args = [arg(dir.path()), "--as", "hlsl", "--kernel", "linear"];
    shaders(&args).output("hlsl");
    let rows = list(dir.path());
    let left_out = |tier: &str| -> HashSet<_> {
        let rows = rows.iter().filter(|row| row["tier"] == tier);
        rows.map(|row| row["left_out"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(left_out("matrix"), ["the language has no matrices of that size".to_owned()].into());
    assert_eq!(left_out("subgroup"), ["the language has no subgroups".to_owned()].into());
    for tier in ["naive", "tiled", "texture"] {
        assert_eq!(left_out(tier), [String::new()].into(), "{tier}");
    }
}

#[test]
fn the_list_is_lines_of_json() {
    let listed = |args: &[&str]| -> Vec<Value> {
        let output = shaders(&[&["--list"][..], args].concat()).output("--list");
        let text = String::from_utf8(output).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let all = listed(&[]);
    let tiers: HashSet<_> = all.iter().filter_map(|row| row["tier"].as_str()).collect();
    assert_eq!(tiers, ["naive", "tiled", "texture", "subgroup", "matrix"].into());
    let dtypes: HashSet<_> = all.iter().filter_map(|row| row["dtype"].as_str()).collect();
    assert_eq!(dtypes, ["f32", "f16"].into());
    let naive = listed(&["--tier", "naive", "--kernel", "attention", "--head-width", "64"]);
    let names: Vec<_> = naive.iter().filter_map(|row| row["name"].as_str()).collect();
    let alibi = "attention-naive-f32-wg64-e64";
    assert_eq!(names, [alibi, &format!("{alibi}-reach91")]);
    assert_eq!(naive[0]["shader"], "naive/attention.wgsl");
}

#[test]
fn unknown_programs_and_unwritable_places_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("a file");
    let none = ["--list", "--kernel", "pool", "--width", "7"];
    shaders(&none).refused("width", 2, &["expected", "7"]);
    let below = file.join("below");
    shaders(&[arg(&below)]).refused("a file is no directory", 73, &["cannot write", "below"]);
}

/// Errors in edited shaders name the file.
#[test]
fn errors_in_edited_shaders_name_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("lib")).expect("a directory");
    let source = root().join("shaders");
    for part in ["", "lib"] {
        for name in names(&source.join(part)).iter().filter(|name| name.ends_with(".wgsl")) {
            let at = Path::new(part).join(name);
            fs::copy(source.join(&at), dir.path().join(at)).expect("a copy");
        }
    }
    let gather = dir.path().join("gather.wgsl");
    let text =
        fs::read_to_string(&gather).expect("a shader") + "\nfn odd() -> f32 { return 1u; }\n";
    fs::write(&gather, text).expect("a shader");
    let out = dir.path().join("out");
    let args = ["shaders", arg(&out), "--as", "msl", "--kernel", "gather", "--tier", "tiled"];
    let mut command = jinabert(&args);
    let ran = run(command.env("JINABERT_SHADERS", dir.path()), b"");
    assert_eq!(ran.code, Some(69), "{}", ran.stderr);
    assert!(ran.stderr.contains("shaders/gather.wgsl") && !ran.stderr.contains("panicked"));
}
