//! The reader against gguf-py's files, and against damaged ones.

use super::{GgufFile, header::Header};
use crate::error::Error;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).expect("a fixture")
}

/// Metadata and tensors as a file: `pairs` are keys, types and values.
fn file(version: u32, counts: [u64; 2], rest: &[u8]) -> Vec<u8> {
    let [tensors, pairs] = counts;
    [b"GGUF", &version.to_le_bytes()[..], &tensors.to_le_bytes(), &pairs.to_le_bytes(), rest]
        .concat()
}

/// A string with its length.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn refused(file: &[u8], says: &str) {
    let error = Header::read(file).expect_err(says);
    assert!(error.contains(says), "`{says}` is not in: {error}");
}

#[test]
fn blocks_have_the_values_of_gguf_py() {
    let stored = bytes("blocks.gguf");
    let header = Header::read(&stored).expect("a whole file");
    let expected = bytes("blocks.f32");
    let mut expected =
        expected.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().expect("four")));
    assert_eq!(header.tensors.len(), 8);
    for (name, entry) in &header.tensors {
        assert_eq!(name, &entry.kind.to_string());
        assert_eq!(entry.shape, [3, 256], "{name}");
        let values = entry.kind.widened(&stored[entry.bytes.clone()]).expect("blocks");
        assert!(values.iter().copied().eq(expected.by_ref().take(3 * 256)), "{name}");
    }
    assert_eq!(expected.next(), None);
}

#[test]
fn damaged_headers_are_refused() {
    refused(b"GGU", "cut off");
    refused(b"GGML....", "expected `GGUF` at its start");
    refused(&file(1, [0, 0], &[]), "version 1; supported: 2 and 3");
    refused(&file(3_u32.swap_bytes(), [0, 0], &[]), "version 3 in big-endian order");
    refused(&file(3, [1, 0], &[]), "1 tensors; the rest of the file has room for 0");
    refused(&file(3, [0, u64::MAX], &[]), "metadata values; the rest of the file has room for 0");
    let pair =
        |key: &str, kind: u32, value: &[u8]| [&text(key)[..], &kind.to_le_bytes(), value].concat();
    let one = |rest: &[u8]| file(3, [0, 1], &[rest, &[0; 8]].concat());
    refused(&one(&pair("a", 13, &[0; 16])), "`a`: metadata type 13");
    refused(&one(&pair("a", 7, &[2; 16])), "expected 0 or 1 for a boolean, got 2");
    let nested = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes()].concat();
    refused(&one(&pair("a", 9, &nested)), "an array of arrays");
    let long = [&4_u32.to_le_bytes()[..], &(1_u64 << 62).to_le_bytes()].concat();
    refused(&one(&pair("a", 9, &long)), "elements of an array; the rest of the file has room for");
    refused(&one(&pair("a", 8, &u64::MAX.to_le_bytes())), "bytes of a string");
    refused(&one(&pair("a", 8, &[&1_u64.to_le_bytes()[..], &[255]].concat())), "utf-8");
    let twice = [pair("a", 4, &[0; 4]), pair("a", 4, &[0; 4])].concat();
    refused(&file(3, [0, 2], &twice), "`a` is there twice");
    let odd = pair("general.alignment", 4, &24_u32.to_le_bytes());
    refused(&file(3, [0, 1], &odd), "general.alignment: expected a power of two");
    // A tensor: name, number of dimensions, sizes, type, offset.
    let tensor = |sizes: &[u64], kind: u32, offset: u64| {
        let sizes: Vec<u8> = sizes.iter().flat_map(|n| n.to_le_bytes()).collect();
        let dimensions = (sizes.len() as u32 / 8).to_le_bytes();
        let parts = [&text("t")[..], &dimensions, &sizes, &kind.to_le_bytes()];
        file(3, [1, 0], &[&parts.concat()[..], &offset.to_le_bytes(), &[0; 64]].concat())
    };
    Header::read(&tensor(&[8], 0, 0)).expect("eight numbers");
    refused(&tensor(&[8], 0, 64), "tensor `t`: 32 bytes at 64");
    refused(&tensor(&[8], 0, 4), "offset 4, expected a multiple of 32");
    refused(&tensor(&[1 << 40, 1 << 40], 0, 0), "overflows");
    refused(&tensor(&[1; 5], 0, 0), "5 dimensions, expected 1 to 4");
    refused(&tensor(&[8], 8, 0), "rows of 8 elements, expected whole blocks of 32");
    refused(&tensor(&[256], 10, 0), "Q2_K; supported: F32, F16, BF16, Q4_0");
    refused(&tensor(&[256], 77, 0), "type 77; supported");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// A damaged file is refused, or all that is read of it lies inside it.
    #[test]
    fn damage_never_leads_outside(
        which in 0..2_usize,
        changes in prop::collection::vec((0.0..1.0_f64, any::<u8>()), 1..4),
        cut in prop::option::of(0.0..1.0_f64),
    ) {
        let mut stored = bytes(["blocks.gguf", "tiny-natural-q4_0.gguf"][which]);
        // Half of the changes are in the first bytes, which have the counts.
        for (n, (at, byte)) in changes.into_iter().enumerate() {
            let range = if n % 2 == 0 { 64 } else { stored.len().min(20_000) };
            stored[(at * range as f64) as usize] = byte;
        }
        if let Some(cut) = cut {
            stored.truncate((cut * stored.len() as f64) as usize);
        }
        if let Ok(header) = Header::read(&stored) {
            for entry in header.tensors.values() {
                let bytes = &stored[entry.bytes.clone()];
                let (elements, size) = entry.kind.block();
                let blocks = entry.shape.iter().product::<usize>() / elements;
                prop_assert_eq!(blocks * size, bytes.len());
                entry.kind.widened(bytes);
            }
        }
    }
}

#[test]
fn metadata_become_the_files_of_a_directory() {
    let path = fixture("tiny-natural-f16.gguf");
    let file = GgufFile::open(&path, &path).expect("a fixture");
    for name in ["config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json"] {
        let text = file.text(name).unwrap_or_else(|| panic!("{name}"));
        serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    }
    assert!(file.text("README.md").is_none());
    let path = fixture("blocks.gguf");
    let error = GgufFile::open(&path, &path).expect_err("no model");
    assert!(matches!(&error, Error::Model(what) if what.contains("blocks.gguf")), "{error}");
}
