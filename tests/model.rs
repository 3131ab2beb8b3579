//! The whole model against an independent float64 implementation, on every device.
//!
//! One trial per device × fixture of `tests/fixtures`: hidden rows, pooled and normalised vectors
//! within the fixture's own tolerance, each case alone and in the fixture's batches.
//! `tests/fixtures/MUTATIONS.md` lists 44 plausible bugs, each of which exceeds these tolerances.

#[path = "common/checkpoint.rs"]
#[allow(dead_code, reason = "each test target uses a part")]
mod checkpoint;
#[allow(dead_code, reason = "each test target uses a part")]
mod common;

use checkpoint::{ModelType, Recipe, flash_sizes, write_flash, write_transformers};
use common::Device;
use jinabert::{
    batch::{PackedBatch, Tokens},
    kernels::{Dtype, KernelVariant, Tier},
    model::{Model, Output},
    text::Tokenizer,
};
use libtest_mimic::{Arguments, Trial};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs,
    path::{Path, PathBuf},
};

#[derive(Deserialize)]
struct Fixture {
    tolerance: Tolerance,
    measured: Measured,
    batches: Vec<Vec<usize>>,
    /// Text before each text of a task.
    #[serde(default)]
    instructions: BTreeMap<String, String>,
    cases: Vec<Case>,
}

/// Largest errors of other implementations.
#[derive(Deserialize)]
struct Measured {
    f16_weights_f16_activations: Tolerance,
}

#[derive(Clone, Copy, Deserialize)]
struct Tolerance {
    hidden_max_abs: f64,
    pooled_max_abs: f64,
    normalized_max_abs: f64,
    cosine_distance: f64,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    text: Option<String>,
    pair: Option<[String; 2]>,
    task: Option<String>,
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    expect: Expect,
}

#[derive(Deserialize)]
struct Expect {
    #[serde(default)]
    hidden_rows: BTreeMap<String, Vec<f64>>,
    hidden_l2: Option<f64>,
    pooled: Vec<f64>,
    normalized: Option<Vec<f64>>,
}

impl Expect {
    fn normalized(&self) -> Vec<f64> {
        self.normalized.clone().unwrap_or_else(|| {
            let norm = self.pooled.iter().map(|x| x * x).sum::<f64>().sqrt();
            self.pooled.iter().map(|x| x / norm).collect()
        })
    }
}

fn main() {
    let arguments = Arguments::from_args();
    let (devices, mut trials) = common::devices();
    for dir in fixtures() {
        let name = dir.file_name().expect("a directory").to_string_lossy().into_owned();
        if dir.join("tokenizer.json").exists() {
            let dir = dir.clone();
            trials.push(Trial::test(format!("tokens/{name}"), move || Ok(tokens(&dir)?)));
        }
        for (device_name, device) in &devices {
            let flashed = format!("{name} flash");
            let flashes = if name == "tiny-geglu-4h" {
                variants(device, device_name, &flashed)
            } else {
                vec![]
            };
            for variant in flashes {
                let dir = dir.clone();
                let device = device.clone();
                let name = format!("{device_name}/{flashed}/{variant}");
                trials.push(Trial::test(name, move || Ok(flash(&dir, &device, variant)?)));
            }
            for model_type in [ModelType::XlmRoberta, ModelType::Bert] {
                if name != "v3-reranker" {
                    continue;
                }
                let dir = dir.clone();
                let device = device.clone();
                let trial_name = format!("{device_name}/{name} as {model_type:?}");
                trials.push(Trial::test(trial_name, move || {
                    Ok(transformers(&dir, &device, model_type)?)
                }));
            }
            for variant in variants(device, device_name, &name) {
                let dir = dir.clone();
                let device = device.clone();
                let trial_name = format!("{device_name}/{name}/{variant}");
                // SwiftShader takes a minute; lavapipe covers the same variant.
                let slow = is_wide(&name) && device_name.ends_with("swiftshader");
                trials.push(if slow && !is_slow_run() {
                    common::ignored(&trial_name, "JINABERT_SLOW is not set")
                } else {
                    Trial::test(trial_name, move || Ok(encoder(&dir, &device, variant)?))
                });
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// Fixtures that use the same kernels as others: their weights are stored differently, or there are
/// more of them.  They run in the device's own tier, and few of their cases alone, unless
/// `JINABERT_SLOW` is set.  `tests/heads.rs` runs the heads of some in every tier.
const STORED: &[&str] = &[
    "t5-plain",
    "tiny-bf16",
    "tiny-colbert",
    "tiny-extra-tensors",
    "tiny-f16",
    "tiny-geglu-4h flash",
    "tiny-mlm",
    "tiny-mlm-decoder-f16",
    "tiny-natural",
    "tiny-reranker-bpe",
    "tiny-reranker-wordpiece",
    "tiny-sharded",
    "v3-bf16",
    "v3-native",
    "v3-original",
    "v3-reranker",
];

/// Cases of [`STORED`] that run alone; all run in batches.
const SOME: usize = 8;

fn is_slow_run() -> bool {
    std::env::var_os("JINABERT_SLOW").is_some()
}

/// True for the one fixture of base width.
fn is_wide(fixture: &str) -> bool {
    fixture.starts_with("base-768")
}

/// All variants of the device; only the device's own for the wide fixture, for which plain variants
/// take minutes, and, unless `JINABERT_SLOW` is set, for [`STORED`] and on SwiftShader, where
/// `tests/kernels` runs each kernel of each variant.
fn variants(device: &Device, device_name: &str, fixture: &str) -> Vec<KernelVariant> {
    let wide = is_wide(fixture);
    let few = STORED.contains(&fixture) || device_name.ends_with("swiftshader");
    let stored = few && !is_slow_run();
    let own = |variant: &KernelVariant| variant.tier == device.tier();
    let suits = |variant: &KernelVariant| match (wide, stored) {
        (true, _) => own(variant) && variant.tier != Tier::Naive,
        (false, true) => own(variant),
        (false, false) => true,
    };
    KernelVariant::of(&device.experimental_caps()).into_iter().filter(suits).collect()
}

fn fixtures() -> Vec<PathBuf> {
    let root = common::root().join("tests/fixtures");
    let entries = fs::read_dir(root).expect("the fixtures").map(|e| e.expect("an entry").path());
    let mut found: Vec<_> = entries.filter(|dir| dir.join("cases.json").exists()).collect();
    found.sort();
    assert!(found.len() >= 18, "fixtures are missing: {found:?}");
    found
}

fn open(dir: &Path) -> Result<Fixture, Box<dyn Error>> {
    let text = fs::read_to_string(dir.join("cases.json"))?;
    Ok(serde_json::from_str(&text)?)
}

/// Checks that the tokenizer gives the fixture's ids.
fn tokens(dir: &Path) -> Result<(), Box<dyn Error>> {
    let tokenizer = Tokenizer::open(&dir.join("tokenizer.json"))?;
    let mut compared = 0;
    let fixture = open(dir)?;
    for case in fixture.cases {
        let instruction = case.task.as_ref().and_then(|task| fixture.instructions.get(task));
        let found = match (&case.text, &case.pair) {
            (Some(text), _) => {
                let text = instruction.cloned().unwrap_or_default() + text;
                tokenizer.encode(&[text], None)?.remove(0).tokens
            }
            (_, Some([first, second])) => tokenizer.encode_pair(first, second)?,
            (None, None) => continue,
        };
        if found.ids != case.ids || found.type_ids != case.type_ids {
            return Err(format!("{}: expected {:?}, got {found:?}", case.name, case.ids).into());
        }
        compared += 1;
    }
    if compared == 0 { Err("no case has a text".into()) } else { Ok(()) }
}

/// Checks every case alone and in the given batches.
fn encoder(dir: &Path, device: &Device, variant: KernelVariant) -> Result<(), Box<dyn Error>> {
    // One fixture stores a recipe for its weights instead of the weights.
    let made = tempfile::tempdir()?;
    let weights = if dir.join("model.safetensors").exists()
        || dir.join("model.safetensors.index.json").exists()
    {
        dir
    } else {
        Recipe::open(&dir.join("recipe.json")).write(made.path());
        made.path()
    };
    let mut model = Model::open(weights, device.open(variant.tier), variant)?;
    check(dir, &mut model, variant)
}

/// Checks the flash layout of a fixture: within the tolerance, and bit-identical.  Once as
/// jina-clip's text tower, once as a separate model.
fn flash(dir: &Path, device: &Device, variant: KernelVariant) -> Result<(), Box<dyn Error>> {
    let mut sizes = flash_sizes(dir);
    let clip = json!({"model_type": "jina_clip", "add_projections": false, "text_config": {
        "embed_dim": 64, "hf_model_name_or_path": "jinaai/jina-bert-flash-implementation",
        "hf_model_config_kwargs": sizes, "pooler_type": "mean_pooler", "proj_type": null}});
    sizes.extend([("mlp_type".to_owned(), json!("glu")), ("window_size".into(), json!([-1, -1]))]);
    let fixture = open(dir)?;
    let tokens: Vec<Tokens> = fixture.cases.iter().map(Case::tokens).collect();
    let batch = PackedBatch::new(&tokens[..12]);
    let mut plain = Model::open(dir, device.open(variant.tier), variant)?;
    let expected = plain.forward(&batch, Output::Tokens)?;
    for (prefix, config) in [("text_model.transformer.", clip), ("", Value::Object(sizes))] {
        let made = tempfile::tempdir()?;
        write_flash(dir, made.path(), prefix, &config);
        let mut model = Model::open(made.path(), device.open(variant.tier), variant)?;
        assert_eq!(model.architecture().name, "jina-bert-flash");
        let found = model.forward(&batch, Output::Tokens)?;
        if found.iter().zip(&expected).any(|(a, b)| a.to_bits() != b.to_bits()) {
            return Err(format!("prefix `{prefix}`: other bits than the plain layout").into());
        }
        if !prefix.is_empty() {
            check(dir, &mut model, variant)?;
        }
    }
    Ok(())
}

/// Checks transformers' layout of a fixture with a position table: bit-identical.
fn transformers(dir: &Path, device: &Device, model_type: ModelType) -> Result<(), Box<dyn Error>> {
    let tokens: Vec<Tokens> = open(dir)?.cases.iter().map(Case::tokens).collect();
    let made = tempfile::tempdir()?;
    write_transformers(dir, made.path(), model_type);
    let tier = device.tier();
    let mut flash = Model::open(dir, device.open(tier), tier)?;
    let mut model = Model::open(made.path(), device.open(tier), tier)?;
    assert_eq!(model.architecture().name, "bert");
    let expected = flash.forward(&PackedBatch::new(&tokens), Output::Tokens)?;
    let found = if model_type == ModelType::Bert {
        // Both types have the same rows.
        let typed = tokens.iter().map(|tokens| {
            let type_ids = (0..tokens.len() as u32).map(|n| n % 2).collect();
            Tokens { type_ids, ..tokens.clone() }
        });
        model.forward(&PackedBatch::new(&typed.collect::<Vec<_>>()), Output::Tokens)?
    } else {
        model.forward(&PackedBatch::new(&tokens), Output::Tokens)?
    };
    if found.iter().zip(&expected).any(|(a, b)| a.to_bits() != b.to_bits()) {
        return Err("other bits than FlashAttention's layout".into());
    }
    Ok(())
}

/// Checks a model against a fixture's expected values.
fn check(dir: &Path, model: &mut Model, variant: KernelVariant) -> Result<(), Box<dyn Error>> {
    let mut fixture = open(dir)?;
    if variant.dtype == Dtype::F16 || matches!(variant.tier, Tier::Matrix { .. }) {
        fixture.tolerance = fixture.measured.f16_weights_f16_activations.thrice();
    }
    let cases: Vec<Tokens> = fixture.adapted(model)?;
    let name = dir.file_name().expect("a directory").to_string_lossy();
    let stored = STORED.contains(&&*name) && !is_slow_run();
    let alone = if stored { SOME } else { usize::MAX };
    for (n, tokens) in cases.iter().enumerate().take(alone) {
        let alone = PackedBatch::new([tokens]);
        fixture.check(model, &alone, &[n], true).map_err(|e| format!("alone: {e}"))?;
    }
    let tasks: BTreeSet<_> = fixture.cases.iter().map(|case| &case.task).collect();
    // The fixture's batches have one task each.
    let mixed = (tasks.len() > 1).then(|| {
        let short = |n: &usize| cases[*n].len() < 100;
        (0..cases.len()).rev().filter(short).collect::<Vec<_>>()
    });
    for members in fixture.batches.iter().chain(&mixed) {
        let batch = PackedBatch::new(members.iter().map(|&n| &cases[n]));
        let checked = fixture.check(model, &batch, members, false);
        checked.map_err(|e| format!("in batch {members:?}: {e}"))?;
    }
    Ok(())
}

impl Tolerance {
    /// Tolerance for rounding at other places than measured; the cosine stays at least 0.9999.
    fn thrice(self) -> Self {
        Self {
            hidden_max_abs: 3.0 * self.hidden_max_abs,
            pooled_max_abs: 3.0 * self.pooled_max_abs,
            normalized_max_abs: 3.0 * self.normalized_max_abs,
            cosine_distance: 1e-4,
        }
    }
}

impl Case {
    fn tokens(&self) -> Tokens {
        Tokens { type_ids: self.type_ids.clone(), ..Tokens::new(self.ids.clone()) }
    }
}

impl Fixture {
    /// Tokens of the cases, with the adapters of their tasks.
    fn adapted(&self, model: &Model) -> Result<Vec<Tokens>, Box<dyn Error>> {
        let tokens = self.cases.iter().map(|case| {
            let adapter = case.task.as_ref().map(|task| model.adapter(task)).transpose()?;
            Ok(Tokens { adapter, ..case.tokens() })
        });
        tokens.collect()
    }

    fn check(
        &self,
        model: &mut Model,
        batch: &PackedBatch,
        members: &[usize],
        normalize: bool,
    ) -> Result<(), Box<dyn Error>> {
        let d = model.config().hidden as usize;
        let vectors = model.forward(batch, Output::Vectors { dims: d as u32, normalize })?;
        let hidden = model.last_hidden()?;
        for (n, range) in batch.cu_seqlens.windows(2).enumerate() {
            let case = &self.cases[members[n]];
            let hidden = &hidden[range[0] as usize * d..range[1] as usize * d];
            self.check_hidden(case, hidden, d).map_err(|e| format!("{}: {e}", case.name))?;
            let vector = &vectors[n * d..][..d];
            let (expected, tolerance) = if normalize {
                (case.expect.normalized(), self.tolerance.normalized_max_abs)
            } else {
                (case.expect.pooled.clone(), self.tolerance.pooled_max_abs)
            };
            near("vector", vector, &expected, tolerance)
                .map_err(|e| format!("{}: {e}", case.name))?;
            let distance = cosine_distance(vector, &case.expect.pooled);
            if distance.is_nan() || distance > self.tolerance.cosine_distance {
                return Err(format!("{}: cosine distance {distance:e}", case.name).into());
            }
        }
        Ok(())
    }

    fn check_hidden(&self, case: &Case, hidden: &[f32], d: usize) -> Result<(), Box<dyn Error>> {
        let tolerance = self.tolerance.hidden_max_abs;
        for (row, expected) in &case.expect.hidden_rows {
            let at = row.parse::<usize>()? * d;
            near(&format!("hidden row {row}"), &hidden[at..at + d], expected, tolerance)?;
        }
        let Some(expected) = case.expect.hidden_l2 else { return Ok(()) };
        let norm = hidden.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let off = (norm - expected).abs();
        let bound = tolerance * (hidden.len() as f64).sqrt();
        if off.is_nan() || off > bound {
            return Err(format!("norm of all rows off by {off:e}, over {bound:e}").into());
        }
        Ok(())
    }
}

fn near(
    what: &str,
    actual: &[f32],
    expected: &[f64],
    tolerance: f64,
) -> Result<(), Box<dyn Error>> {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (n, (a, e)) in actual.iter().zip(expected).enumerate() {
        let off = (f64::from(*a) - e).abs();
        if off.is_nan() || off > tolerance {
            return Err(format!("{what}[{n}]: expected {e}, got {a}, over {tolerance:e}").into());
        }
    }
    Ok(())
}

fn cosine_distance(a: &[f32], b: &[f64]) -> f64 {
    let dot = |x: &mut dyn Iterator<Item = (f64, f64)>| x.map(|(x, y)| x * y).sum::<f64>();
    let a = || a.iter().map(|x| f64::from(*x));
    let b = || b.iter().copied();
    let norms = dot(&mut a().zip(a())).sqrt() * dot(&mut b().zip(b())).sqrt();
    1.0 - dot(&mut a().zip(b())) / norms
}
