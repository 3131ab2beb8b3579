//! Compiled kernels on disk: the output is the same for any contents of the cache.

use super::kit::{arg, end, jinabert, names, natural, run, start};
use jinabert::gpu::{Backend, native_adapters};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Indices of the adapters whose drivers export compiled kernels.
fn adapters() -> Vec<String> {
    let found = native_adapters().into_iter().enumerate();
    let vulkan = found.filter(|(_, adapter)| adapter.backend == Backend::Vulkan);
    vulkan.map(|(index, _)| index.to_string()).collect()
}

/// `jinabert embed` on an adapter, with a cache directory.
fn embed(adapter: &str, cache: &Path) -> Command {
    let model = natural();
    let args = ["embed", "--no-tune", "--device", adapter, "--model", arg(&model), "a"];
    let mut command = jinabert(&args);
    command.env("JINABERT_CACHE", cache);
    command
}

fn output(adapter: &str, cache: &Path, case: &str) -> Vec<u8> {
    run(&mut embed(adapter, cache), b"").output(case)
}

/// The only file of a cache.
fn file(cache: &Path) -> PathBuf {
    let dir = cache.join("pipelines");
    let [name] = &names(&dir)[..] else { panic!("one file in {:?}", names(&dir)) };
    dir.join(name)
}

#[test]
fn damaged_files_are_replaced() {
    for adapter in adapters() {
        let cache = tempfile::tempdir().expect("a directory");
        let first = output(&adapter, cache.path(), "none yet");
        let path = file(cache.path());
        let good = fs::read(&path).expect("written");
        assert!(output(&adapter, cache.path(), "as it was left") == first);

        let mut changed = good.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        let damages = [&changed[..], &good[..middle], b"", b"jinabert 3 0000000000000000\nabc"];
        for (n, damage) in damages.into_iter().enumerate() {
            fs::write(&path, damage).expect("writable");
            assert!(output(&adapter, cache.path(), "damaged") == first, "damage {n}");
            assert!(file(cache.path()) == path && fs::read(&path).expect("there") != damage);
        }
    }
}

#[test]
fn unwritable_cache_directories_are_no_error() {
    for adapter in adapters() {
        let place = tempfile::tempdir().expect("a directory");
        let occupied = place.path().join("occupied");
        fs::write(&occupied, "not a directory").expect("writable");
        let first = output(&adapter, &occupied, "a file in its place");

        let mut none = embed(&adapter, Path::new(""));
        let home = place.path().join("home");
        fs::create_dir(&home).expect("writable");
        none.env("HOME", &home).env("LOCALAPPDATA", &home).env_remove("XDG_CACHE_HOME");
        assert!(run(&mut none, b"").output("none wanted") == first);
        assert!(!home.join(".cache/jinabert").exists() && !home.join("jinabert").exists());
    }
}

#[test]
fn concurrent_processes_share_a_file() {
    for adapter in adapters() {
        let cache = tempfile::tempdir().expect("a directory");
        let running = [(); 2].map(|()| start(&mut embed(&adapter, cache.path()), b""));
        for child in running {
            assert_eq!(end(child), (Some(0), String::new()));
        }
        file(cache.path());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_default_cache_is_below_the_users_directory() {
    for adapter in adapters() {
        let home = tempfile::tempdir().expect("a directory");
        let mut command = embed(&adapter, Path::new(""));
        command.env_remove("JINABERT_CACHE").env("XDG_CACHE_HOME", home.path());
        run(&mut command, b"").output("the system's place");
        file(&home.path().join("jinabert"));
    }
}
