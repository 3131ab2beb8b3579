//! Tuning for a GPU: configurations are stored, and vectors are the same with any of them.

use super::kit::{arg, jinabert, names, natural, run};
use jinabert::gpu::{Backend, native_adapters};
use serde_json::Value;
use std::{fs, path::Path};

/// Indices of the Vulkan adapters.
fn adapters() -> Vec<String> {
    let found = native_adapters().into_iter().enumerate();
    let vulkan = found.filter(|(_, adapter)| adapter.backend == Backend::Vulkan);
    vulkan.map(|(index, _)| index.to_string()).collect()
}

fn output(args: &[&str], cache: &Path) -> String {
    let mut command = jinabert(args);
    let said = run(command.env("JINABERT_CACHE", cache), b"").output(&args.join(" "));
    String::from_utf8(said).expect("UTF-8")
}

/// Components of one embedding.
fn vector(args: &[&str], cache: &Path) -> Vec<f64> {
    let line: Value = serde_json::from_str(&output(args, cache)).expect("a line of JSON");
    let components = line["embedding"].as_array().expect("a vector").iter();
    components.map(|component| component.as_f64().expect("a number")).collect()
}

fn kept(cache: &Path) -> Vec<String> {
    if cache.join("tune").exists() { names(&cache.join("tune")) } else { vec![] }
}

#[test]
fn configurations_are_stored_and_do_not_change_vectors() {
    let model = natural();
    for adapter in adapters() {
        let embed = ["embed", "--device", &adapter, "--model", arg(&model), "a b a"];
        let cache = tempfile::tempdir().expect("a directory");
        let cache = cache.path();
        let usual = vector(&[&embed[..], &["--no-tune"]].concat(), cache);
        assert_eq!(kept(cache), [""; 0], "--no-tune keeps nothing");

        let args = ["tune", "--device", &adapter, "--model", arg(&model), "--seconds", "1"];
        let said = output(&args, cache);
        for part in ["linear_geglu", "attention", "fastest: ", "more rows", "kept in "] {
            assert!(said.contains(part), "`{part}` is not in\n{said}");
        }
        let [name] = &kept(cache)[..] else { panic!("one file in {:?}", kept(cache)) };
        let path = cache.join("tune").join(name);
        let good = fs::read(&path).expect("written");
        for (n, text) in [&good[..], &good[..good.len() / 2], b""].into_iter().enumerate() {
            fs::write(&path, text).expect("writable");
            let fitted = vector(&embed, cache);
            let off = fitted.iter().zip(&usual).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(fitted.len() == usual.len() && off < 1e-5, "file {n}: {off}");
            // A damaged configuration is replaced by a new search.
            assert!(fs::metadata(&path).expect("there").len() > 100, "file {n}");
        }
    }
}

#[test]
fn tuning_the_cpu_is_refused() {
    let model = natural();
    let args = ["tune", "--device", "cpu", "--model", arg(&model)];
    run(&mut jinabert(&args), b"").refused("cpu", 2, &["CPU", "tune"]);
    let args = ["tune", "--device", "99", "--model", arg(&model)];
    run(&mut jinabert(&args), b"").refused("no such adapter", 69, &["99"]);
}

#[test]
fn tiers_that_the_device_lacks_are_refused() {
    let model = natural();
    let embed = |tier| jinabert(&["embed", "--tier", tier, "--model", arg(&model), "a"]);
    let usual = run(&mut jinabert(&["embed", "--model", arg(&model), "a"]), b"").output("usual");
    assert!(run(&mut embed("blocked"), b"").output("blocked") == usual);
    run(&mut embed("reference"), b"").output("reference");
    run(&mut embed("twin"), b"").output("twin"); // the former name
    run(&mut embed("tiled"), b"").refused("tiled", 2, &["tiled", "reference, blocked"]);
}
