//! Heads after the encoder, against the float64 fixtures, on every device: late chunks, rerankers,
//! ColBERT, masked language models.

#[path = "common/checkpoint.rs"]
#[allow(dead_code, reason = "each test target uses a part")]
mod checkpoint;
#[allow(dead_code, reason = "each test target uses a part")]
mod common;

use checkpoint::{flash_sizes, write_flash};
use common::Device;
use jinabert::{
    Task,
    batch::{PackedBatch, Tokens},
    kernels::{Dtype, KernelVariant, Tier},
    model::{Model, ModelOptions, Output},
};
use libtest_mimic::{Arguments, Trial};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

#[derive(Deserialize)]
struct Fixture {
    special_ids: Special,
    tolerance: Tolerance,
    measured: Measured,
    cases: Vec<Case>,
    #[serde(default)]
    maxsim: Vec<MaxSim>,
    /// Read from a separate file.
    #[serde(default)]
    queries: Vec<Query>,
}

/// ColBERT query, with its marker and masks.
#[derive(Deserialize)]
struct Query {
    name: String,
    ids: Vec<u32>,
    query_only: usize,
    colbert: Colbert,
    maxsim: Vec<Scored>,
}

#[derive(Deserialize)]
struct Scored {
    doc: usize,
    score: f64,
}

// T5 has a padding token only.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Special {
    pad: u32,
    cls: u32,
    sep: u32,
    mask: u32,
}

/// Largest errors of other implementations.
#[derive(Deserialize)]
struct Measured {
    f16_weights_f16_activations: Tolerance,
}

#[derive(Clone, Copy, Deserialize)]
struct Tolerance {
    pooled_max_abs: f64,
    mlm_logits_max_abs: Option<f64>,
    classifier_logits_max_abs: Option<f64>,
    colbert_max_abs: Option<f64>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    task: Option<String>,
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    expect: Expect,
}

#[derive(Deserialize)]
struct Expect {
    late_chunks: Option<LateChunks>,
    mlm: Option<Mlm>,
    classifier: Option<Classifier>,
    colbert: Option<Colbert>,
}

#[derive(Deserialize)]
struct LateChunks {
    spans: Vec<[u32; 2]>,
    pooled: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Mlm {
    masked_ids: Vec<u32>,
    positions: Vec<u32>,
    labels: Vec<i64>,
    top5: Vec<Vec<(usize, f64)>>,
    logsumexp: Vec<f64>,
    logits_first_16: Vec<Vec<f64>>,
    cross_entropy: f64,
    ce_all_positions_unmasked: f64,
    pll_per_token: Option<Vec<f64>>,
    pseudo_perplexity: Option<f64>,
}

#[derive(Deserialize)]
struct Classifier {
    logits: Vec<f64>,
    sigmoid: Vec<f64>,
}

#[derive(Deserialize)]
struct Colbert {
    rows: BTreeMap<String, Vec<f64>>,
    sum_over_tokens: Vec<f64>,
}

#[derive(Deserialize)]
struct MaxSim {
    query: usize,
    doc: usize,
    score: f64,
}

type Check = fn(&Fixture, &mut Model, &[Tokens]) -> Result<usize, Box<dyn Error>>;

/// Checks, with the task that the model must support.
const CHECKS: [(&str, Task, Check); 5] = [
    ("late chunks", Task::Encode, late_chunks),
    ("masked lm", Task::FillMask, masked_lm),
    ("classifier", Task::Rerank, classifier),
    ("colbert", Task::MultiVector, colbert),
    ("padded queries", Task::MultiVector, padded_queries),
];

fn main() {
    let arguments = Arguments::from_args();
    let (devices, mut trials) = common::devices();
    for dir in fixtures() {
        let name = dir.file_name().expect("a directory").to_string_lossy().into_owned();
        let fixture = open(&dir).expect("a fixture");
        for (device_name, device) in &devices {
            let all = KernelVariant::of(&device.caps()).into_iter();
            for variant in all.filter(|variant| !matches!(variant.tier, Tier::Matrix { .. })) {
                for (what, task, check) in CHECKS {
                    // Late chunks test only the pool kernel: one variant for each device is enough.
                    let own = variant == device.tier().into();
                    if !fixture.has(what) || (task == Task::Encode && !own) {
                        continue;
                    }
                    if task == Task::FillMask && own {
                        let dir = dir.clone();
                        let device = device.clone();
                        let name = format!("{device_name}/{name} flash/{what}/{variant}");
                        trials.push(Trial::test(name, move || Ok(flash(&dir, &device, variant)?)));
                    }
                    let dir = dir.clone();
                    let device = device.clone();
                    let name = format!("{device_name}/{name}/{what}/{variant}");
                    let run = move || Ok(run(&dir, &device, variant, task, check)?);
                    trials.push(Trial::test(name, run));
                }
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// Fixtures whose weights are stored.
fn fixtures() -> Vec<PathBuf> {
    let root = common::root().join("tests/fixtures");
    let entries = fs::read_dir(root).expect("the fixtures").map(|e| e.expect("an entry").path());
    let weights = ["model.safetensors", "model.safetensors.index.json"];
    let whole = |dir: &PathBuf| weights.iter().any(|file| dir.join(file).exists());
    let mut found: Vec<_> = entries.filter(whole).collect();
    found.sort();
    assert!(found.len() >= 17, "fixtures are missing: {found:?}");
    found
}

fn open(dir: &Path) -> Result<Fixture, Box<dyn Error>> {
    let mut fixture: Fixture = serde_json::from_str(&fs::read_to_string(dir.join("cases.json"))?)?;
    let queries = dir.join("queries.json");
    if queries.exists() {
        let mut value: Value = serde_json::from_str(&fs::read_to_string(queries)?)?;
        fixture.queries = serde_json::from_value(value["queries"].take())?;
    }
    Ok(fixture)
}

fn run(
    dir: &Path,
    device: &Device,
    variant: KernelVariant,
    task: Task,
    check: Check,
) -> Result<(), Box<dyn Error>> {
    let mut fixture = open(dir)?;
    if variant.dtype == Dtype::F16 {
        fixture.tolerance = fixture.measured.f16_weights_f16_activations.thrice();
    }
    let choices = ModelOptions { task, ..ModelOptions::default() };
    let mut model = Model::open_with(dir, device.open(variant.tier), variant, choices)?;
    let cases = fixture.cases.iter().map(|case| {
        let adapter = case.task.as_ref().map(|task| model.adapter(task)).transpose()?;
        Ok::<_, Box<dyn Error>>(Tokens { adapter, ..case.tokens() })
    });
    let cases = cases.collect::<Result<Vec<_>, _>>()?;
    match check(&fixture, &mut model, &cases)? {
        0 => Err("no case has an expectation".into()),
        _ => Ok(()),
    }
}

/// The flash layout of a language model gives bit-identical results.
fn flash(dir: &Path, device: &Device, variant: KernelVariant) -> Result<(), Box<dyn Error>> {
    let made = tempfile::tempdir()?;
    let mut config = flash_sizes(dir);
    config.insert("mlp_type".to_owned(), json!("glu"));
    write_flash(dir, made.path(), "", &Value::Object(config));
    let tokens: Vec<Tokens> = open(dir)?.cases.iter().map(Case::tokens).collect();
    let batch = PackedBatch::new(&tokens[..8]);
    let rows: Vec<u32> = (0..batch.tokens()).collect();
    let logits = |dir: &Path| -> Result<Vec<u32>, Box<dyn Error>> {
        let choices = ModelOptions { task: Task::FillMask, ..ModelOptions::default() };
        let mut model = Model::open_with(dir, device.open(variant.tier), variant, choices)?;
        assert_eq!(model.architecture().name == "jina-bert-flash", dir == made.path());
        Ok(model.logits(&batch, &rows)?.into_iter().map(f32::to_bits).collect())
    };
    if logits(dir)? == logits(made.path())? {
        Ok(())
    } else {
        Err("other bits than the plain layout".into())
    }
}

impl Fixture {
    fn has(&self, what: &str) -> bool {
        if what == "padded queries" {
            return !self.queries.is_empty();
        }
        self.cases.iter().any(|Case { expect, .. }| match what {
            "late chunks" => expect.late_chunks.is_some(),
            "masked lm" => expect.mlm.is_some(),
            "classifier" => expect.classifier.is_some(),
            _ => expect.colbert.is_some(),
        })
    }
}

impl Case {
    fn tokens(&self) -> Tokens {
        Tokens { type_ids: self.type_ids.clone(), ..Tokens::new(self.ids.clone()) }
    }
}

impl Tolerance {
    /// Tolerance for rounding at other places than in the measured implementations.
    fn thrice(self) -> Self {
        let thrice = |bound: Option<f64>| bound.map(|bound| 3.0 * bound);
        Self {
            pooled_max_abs: 3.0 * self.pooled_max_abs,
            mlm_logits_max_abs: thrice(self.mlm_logits_max_abs),
            classifier_logits_max_abs: thrice(self.classifier_logits_max_abs),
            colbert_max_abs: thrice(self.colbert_max_abs),
        }
    }
}

/// Means over spans of documents, with all documents in one batch.
fn late_chunks(
    fixture: &Fixture,
    model: &mut Model,
    cases: &[Tokens],
) -> Result<usize, Box<dyn Error>> {
    let d = model.config().hidden;
    let chunked = fixture.cases.iter().zip(cases);
    let chunked: Vec<_> =
        chunked.filter_map(|(c, t)| Some((c, t, c.expect.late_chunks.as_ref()?))).collect();
    let spans: Vec<Vec<Range<u32>>> = chunked
        .iter()
        .map(|(_, _, chunks)| chunks.spans.iter().map(|&[start, end]| start..end).collect())
        .collect();
    let batch = PackedBatch::new(chunked.iter().map(|(_, tokens, _)| *tokens))
        .with_spans(spans.iter().map(Vec::as_slice));
    let vectors = model.forward(&batch, Output::Vectors { dims: d, normalize: false })?;
    let expected = chunked.iter().flat_map(|(case, _, chunks)| {
        chunks.pooled.iter().map(move |pooled| (case.name.as_str(), pooled))
    });
    let expected: Vec<_> = expected.collect();
    assert_eq!(vectors.len(), expected.len() * d as usize);
    for (vector, (name, pooled)) in vectors.chunks_exact(d as usize).zip(&expected) {
        near(name, vector, pooled, fixture.tolerance.pooled_max_abs)?;
    }
    Ok(expected.len())
}

fn classifier(
    fixture: &Fixture,
    model: &mut Model,
    cases: &[Tokens],
) -> Result<usize, Box<dyn Error>> {
    let tolerance = fixture.tolerance.classifier_logits_max_abs.ok_or("no tolerance")?;
    let batch = PackedBatch::new(cases);
    let first: &[Range<u32>] = std::slice::from_ref(&(0..1));
    let batch = batch.with_spans(std::iter::repeat_n(first, cases.len()));
    let output = Output::Vectors { dims: model.config().hidden, normalize: false };
    let rows = model.forward(&batch, output)?;
    let logits = model.head().classify(&rows);
    let labels = model.head().labels();
    let mut checked = 0;
    for (case, logits) in fixture.cases.iter().zip(logits.chunks_exact(labels)) {
        let Some(expected) = &case.expect.classifier else { continue };
        near(&case.name, logits, &expected.logits, tolerance)?;
        for (logit, score) in logits.iter().zip(&expected.sigmoid) {
            let found = 1.0 / (1.0 + (-f64::from(*logit)).exp());
            close(&case.name, found, *score, tolerance)?;
        }
        checked += 1;
    }
    Ok(checked)
}

fn colbert(
    fixture: &Fixture,
    model: &mut Model,
    cases: &[Tokens],
) -> Result<usize, Box<dyn Error>> {
    let tolerance = fixture.tolerance.colbert_max_abs.ok_or("no tolerance")?;
    let vectors = projected(model, cases)?;
    let mut checked = 0;
    for (case, vectors) in fixture.cases.iter().zip(&vectors) {
        let Some(expected) = &case.expect.colbert else { continue };
        expected.compare(&case.name, vectors, tolerance)?;
        checked += 1;
    }
    for MaxSim { query, doc, score } in &fixture.maxsim {
        max_sim("maxsim", &vectors[*query], &vectors[*doc], *score, tolerance)?;
    }
    Ok(checked)
}

/// Queries with query-only masks, which attend to all tokens before them, and with normal masks.
fn padded_queries(
    fixture: &Fixture,
    model: &mut Model,
    cases: &[Tokens],
) -> Result<usize, Box<dyn Error>> {
    let tolerance = fixture.tolerance.colbert_max_abs.ok_or("no tolerance")?;
    let queries = fixture.queries.iter();
    let queries =
        queries.map(|q| Tokens { query_only: q.query_only, ..Tokens::new(q.ids.clone()) });
    // One batch, together with sequences without masks.
    let all: Vec<Tokens> = cases.iter().cloned().chain(queries).collect();
    let vectors = projected(model, &all)?;
    let (documents, queries) = vectors.split_at(cases.len());
    for (Query { name, colbert, maxsim, .. }, vectors) in fixture.queries.iter().zip(queries) {
        colbert.compare(name, vectors, tolerance)?;
        for Scored { doc, score } in maxsim {
            max_sim(name, vectors, &documents[*doc], *score, tolerance)?;
        }
    }
    Ok(queries.len())
}

/// Unit vectors of the tokens of each list.
fn projected(model: &mut Model, lists: &[Tokens]) -> Result<Vec<Vec<Vec<f32>>>, Box<dyn Error>> {
    let batch = PackedBatch::new(lists);
    let rows = model.forward(&batch, Output::Projected)?;
    let rows = rows.chunks_exact(model.head().projected() as usize).map(|row| {
        let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        row.iter().map(|x| (f64::from(*x) / norm) as f32).collect()
    });
    let rows: Vec<Vec<f32>> = rows.collect();
    let lists = batch.cu_seqlens.windows(2);
    Ok(lists.map(|range| rows[range[0] as usize..range[1] as usize].to_vec()).collect())
}

impl Colbert {
    fn compare(&self, name: &str, rows: &[Vec<f32>], bound: f64) -> Result<(), Box<dyn Error>> {
        for (row, values) in &self.rows {
            near(&format!("{name} row {row}"), &rows[row.parse::<usize>()?], values, bound)?;
        }
        let column = |i: usize| rows.iter().map(|row| row[i]).sum::<f32>();
        let sums: Vec<f32> = (0..rows[0].len()).map(column).collect();
        near(&format!("{name} sum"), &sums, &self.sum_over_tokens, bound * rows.len() as f64)
    }
}

fn max_sim(
    name: &str,
    query: &[Vec<f32>],
    document: &[Vec<f32>],
    score: f64,
    tolerance: f64,
) -> Result<(), Box<dyn Error>> {
    let best = query.iter().map(|q| {
        let dots = document.iter().map(|d| q.iter().zip(d).map(|(q, d)| q * d).sum());
        f64::from(dots.fold(f32::MIN, f32::max))
    });
    close(name, best.sum(), score, 3.0 * tolerance * query.len() as f64)
}

fn masked_lm(fixture: &Fixture, model: &mut Model, _: &[Tokens]) -> Result<usize, Box<dyn Error>> {
    let tolerance = fixture.tolerance.mlm_logits_max_abs.ok_or("no tolerance")?;
    let v = model.config().vocabulary as usize;
    let mut checked = 0;
    for case in &fixture.cases {
        let Some(expected) = &case.expect.mlm else { continue };
        let name = &case.name;
        let masked = Tokens { ids: expected.masked_ids.clone(), ..case.tokens() };
        let logits = model.logits(&PackedBatch::new([&masked]), &expected.positions)?;
        let mut losses = Vec::new();
        for (n, logits) in logits.chunks_exact(v).enumerate() {
            near(name, &logits[..16], &expected.logits_first_16[n], tolerance)?;
            for &(id, logit) in &expected.top5[n] {
                close(name, f64::from(logits[id]), logit, tolerance)?;
                let above = logits.iter().filter(|l| f64::from(**l) > logit + tolerance).count();
                assert!(above < 5, "{name}: {above} ids are above {id} of the first five");
            }
            close(name, log_sum_exp(logits), expected.logsumexp[n], tolerance)?;
            let label = expected.labels[expected.positions[n] as usize];
            losses.push(log_sum_exp(logits) - f64::from(logits[usize::try_from(label)?]));
        }
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        close(name, mean, expected.cross_entropy, 2.0 * tolerance)?;

        // All positions, nothing masked: several batches of rows in one call.
        let all: Vec<u32> = (0..case.ids.len() as u32).collect();
        let logits = model.logits(&PackedBatch::new([&case.tokens()]), &all)?;
        let losses = logits.chunks_exact(v).zip(&case.ids);
        let losses = losses.map(|(l, &id)| log_sum_exp(l) - f64::from(l[id as usize]));
        let mean = losses.sum::<f64>() / case.ids.len() as f64;
        close(name, mean, expected.ce_all_positions_unmasked, 2.0 * tolerance)?;

        if let (Some(pll), Some(ppl)) = (&expected.pll_per_token, expected.pseudo_perplexity) {
            let Special { pad, cls, sep, mask } = fixture.special_ids;
            let ordinary = |n: &usize| ![pad, cls, sep].contains(&case.ids[*n]);
            let places: Vec<usize> = (0..case.ids.len()).filter(ordinary).collect();
            let copies: Vec<Tokens> = places
                .iter()
                .map(|&n| {
                    let mut tokens = case.tokens();
                    tokens.ids[n] = mask;
                    tokens
                })
                .collect();
            let batch = PackedBatch::new(&copies);
            let starts = batch.cu_seqlens.iter().zip(&places);
            let rows: Vec<u32> = starts.map(|(start, &n)| start + n as u32).collect();
            let logits = model.logits(&batch, &rows)?;
            let found: Vec<f64> = logits
                .chunks_exact(v)
                .zip(&places)
                .map(|(l, &n)| f64::from(l[case.ids[n] as usize]) - log_sum_exp(l))
                .collect();
            assert_eq!(found.len(), pll.len(), "{name}");
            for (found, expected) in found.iter().zip(pll) {
                close(name, *found, *expected, 2.0 * tolerance)?;
            }
            let mean = found.iter().sum::<f64>() / found.len() as f64;
            close(name, (-mean).exp(), ppl, 2.0 * tolerance * ppl)?;
        }
        checked += 1;
    }
    Ok(checked)
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = f64::from(logits.iter().copied().fold(f32::MIN, f32::max));
    most + logits.iter().map(|l| (f64::from(*l) - most).exp()).sum::<f64>().ln()
}

fn near(what: &str, actual: &[f32], expected: &[f64], bound: f64) -> Result<(), Box<dyn Error>> {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let mut pairs = actual.iter().zip(expected).enumerate();
    pairs.try_for_each(|(n, (a, e))| close(&format!("{what}[{n}]"), f64::from(*a), *e, bound))
}

fn close(what: &str, actual: f64, expected: f64, bound: f64) -> Result<(), Box<dyn Error>> {
    let off = (actual - expected).abs();
    if off.is_nan() || off > bound {
        return Err(format!("{what}: expected {expected}, got {actual}, over {bound:e}").into());
    }
    Ok(())
}
