use super::{Rule, run};
use jinabert::{
    kernel_check::{AttentionCase, KernelCase, compare},
    kernels::{
        KernelVariant, Tier,
        attention::{self, SKIP_EPS},
        key_norm, work_list,
    },
    recording::{Engine, Format, Recording, Shape, Tensor},
};
use libtest_mimic::Failed;

pub const INVARIANTS: &[(&str, Rule)] = &[
    ("every tile agrees with the reference", tiles),
    ("weights sum to 1", weights),
    ("skipping stays within its bound", skipping),
    ("query-only tokens do not change other tokens", query_only),
];

/// Compares every tile that a search may choose with the reference.
fn tiles(engine: &mut dyn Engine, variant: KernelVariant) -> Result<(), Failed> {
    for (lengths, query_only, e) in
        [(vec![70, 9, 1], 0, 64), (vec![200, 130], 20, 64), (vec![65], 0, 32)]
    {
        let usual = AttentionCase::new(&lengths, 2, e);
        let case = AttentionCase { query_only, sharpness: 2.0, ..usual };
        let mut reference = jinabert::cpu::Engine::new(Tier::Reference);
        let expected =
            case.record(&mut reference, KernelVariant { tier: Tier::Reference, ..variant }, 5)?;
        let expected = run(&mut reference, &expected.recording, &expected.output)?;
        let recorded = case.record(engine, variant, 5)?;
        for tile in attention::Spec::candidates(variant.tier, e) {
            let mut recording = recorded.recording.clone();
            let command = recording.commands.pop().expect("attention comes last");
            let params: attention::Params = command.params();
            let keys = vec![attention::TILE; params.tiles as usize]; // nothing is split here
            let spec = attention::Spec { tile, ..attention::Spec::new(variant, e) };
            let kernel = attention::kernel(spec);
            let args = attention::Args::from(&command);
            attention::record(&mut recording, &kernel, args, [params.scale, params.skip], &keys);
            let found = run(engine, &recording, &recorded.output)?;
            let checked = compare(&found, &expected, case.tolerance(variant));
            if checked.wrong > 0 {
                return Err(format!("{case}, {tile}: {checked}").into());
            }
        }
    }
    Ok(())
}

/// Attention case with given inputs, in the order q, k, v; dense and with skipping.
struct Own {
    tokens: u32,
    /// Number of key tokens, which come first.
    keys: u32,
    heads: u32,
    e: u32,
    qkv: Vec<f32>,
    slopes: Vec<f32>,
}

impl Own {
    fn context(
        &self,
        engine: &mut dyn Engine,
        variant: KernelVariant,
        skip_eps: f32,
    ) -> Result<Vec<f32>, Failed> {
        let t = self.tokens;
        let d = self.heads * self.e;
        let qkv = engine.upload([t, 3 * d].into(), variant.wide(), self.qkv[..].into())?;
        let [q, k, v] = [0, d, 2 * d].map(|first| qkv.columns(first..first + d));
        let slopes = engine.upload([self.heads].into(), Format::F32, self.slopes[..].into())?;
        let list = work_list::tiles(&[0, t], &[self.keys], attention::TILE);
        let n = list.len() as u32;
        let mut integers = |shape: Shape, data: &[u32]| -> Result<Tensor, Failed> {
            let tensor = engine.alloc(shape, Format::F32)?;
            engine.write(&tensor, data)?;
            Ok(tensor)
        };
        let tiles = integers([n, 4].into(), list.as_flattened())?;
        let norms = engine.alloc([n, self.heads].into(), Format::F32)?;
        let context = engine.alloc([t, d].into(), variant.wide())?;
        let mut rec = Recording::new();
        let kernel = key_norm::kernel(key_norm::Spec::new(variant, self.e));
        let tiles = &tiles;
        let norms = &norms;
        key_norm::record(&mut rec, &kernel, key_norm::Args { k: &k, tiles, norms });
        let kernel = attention::kernel(attention::Spec::new(variant, self.e));
        let args = attention::Args {
            q: &q,
            k: &k,
            v: &v,
            biases: &slopes,
            tiles,
            norms,
            context: &context,
        };
        let keys = work_list::tile_keys(&list);
        let scores = [attention::scale(self.e), attention::skip(skip_eps)];
        attention::record(&mut rec, &kernel, args, scores, &keys);
        run(engine, &rec, &context)
    }
}

/// Bound |skipped - dense| ≤ 2·eps·max|v| plus rounding, for adversarial inputs: huge scores, a
/// distant key that outweighs all others, slopes near and at zero, and a large eps so that much is
/// skipped.
fn skipping(engine: &mut dyn Engine, variant: KernelVariant) -> Result<(), Failed> {
    [8, 64].into_iter().try_for_each(|e| skipping_at(engine, variant, e))
}

fn skipping_at(engine: &mut dyn Engine, variant: KernelVariant, e: u32) -> Result<(), Failed> {
    let tokens = 700u32;
    let heads = 3u32;
    let d = (heads * e) as usize;
    let wave = |n: usize| ((n * 7919 % 1000) as f32 / 500.0 - 1.0) * 1.7;
    let mild: Vec<f32> = (0..tokens as usize * 3 * d).map(wave).collect();
    let mut outlier = mild.clone();
    for column in d..2 * d {
        outlier[650 * 3 * d + column] *= 400.0;
    }
    let huge = mild.iter().enumerate().map(|(n, x)| if n % (3 * d) < d { 60.0 * x } else { *x });
    let slopes = [vec![0.5, 0.06, 0.004], vec![1e-4, 1e-7, 0.0], vec![2.0, 0.7, 0.3]];
    for (name, qkv) in [("mild", mild.clone()), ("outlier", outlier), ("huge", huge.collect())] {
        for slopes in &slopes {
            let qkv = qkv.clone();
            let own = Own { tokens, keys: tokens, heads, e, qkv, slopes: slopes.clone() };
            let dense = own.context(engine, variant, 0.0)?;
            for eps in [SKIP_EPS, 1e-3] {
                let skipped = own.context(engine, variant, eps)?;
                // In f16 both results are rounded.
                let rounding = if variant.wide().half() { 1.7 / 1024.0 } else { 5e-6 };
                let bound = 2.0 * eps * 1.7 + rounding;
                let pairs = dense.iter().zip(&skipped);
                let error = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                if error.is_nan() || error > bound {
                    let what = format!("{name}, slopes {slopes:?}, eps {eps:e}");
                    return Err(format!("{what}: {error:e}, over {bound:e}").into());
                }
            }
        }
    }
    Ok(())
}

/// Query-only tokens do not change the results of the first tokens, bit for bit; their own results
/// equal the defining sum.
fn query_only(engine: &mut dyn Engine, variant: KernelVariant) -> Result<(), Failed> {
    for (e, [keys, tokens], skip_eps) in [
        (64, [5, 32], SKIP_EPS),
        (8, [60, 64], SKIP_EPS),
        (16, [64, 65], SKIP_EPS),
        (64, [130, 190], 0.0),
        (8, [63, 300], 0.0),
        (64, [1, 140], SKIP_EPS),
    ] {
        let heads = 3u32;
        let d = 3 * e as usize;
        let wave = |n: usize| half((n * 7919 % 1000) as f32 / 500.0 - 1.0);
        let mut qkv: Vec<f32> = (0..tokens as usize * 3 * d).map(wave).collect();
        // If the query-only tokens were used as keys, they would dominate the result.
        let rows = qkv.chunks_exact_mut(3 * d).skip(keys as usize);
        rows.for_each(|row| row[d..].iter_mut().for_each(|x| *x *= 1024.0));
        let seen = qkv[..keys as usize * 3 * d].to_vec();
        let slopes = vec![0.5, 0.06, 0.004];
        let all = Own { tokens, keys, heads, e, qkv, slopes: slopes.clone() };
        let alone = Own { tokens: keys, keys, heads, e, qkv: seen, slopes };
        let what = format!("{keys} of {tokens} tokens, E{e}");
        let context = all.context(engine, variant, skip_eps)?;
        let alone = alone.context(engine, variant, skip_eps)?;
        if context[..alone.len()] != alone {
            return Err(
                format!("{what}: the keys' own rows are not those of the keys alone").into()
            );
        }
        // Far from its keys a row's scores are near -100, which f32 rounds to 4e-6.
        let rounding = if variant.wide().half() { 1.0 / 1024.0 } else { 2e-5 };
        for i in keys as usize..tokens as usize {
            for h in 0..heads as usize {
                let expected = all.brute(i, h);
                let found = &context[i * d + h * e as usize..][..e as usize];
                let errors = found.iter().zip(expected).map(|(c, e)| (f64::from(*c) - e).abs());
                let error = errors.fold(0.0, f64::max);
                if error.is_nan() || error > rounding {
                    return Err(format!("{what}: row {i}, head {h} is off by {error:e}").into());
                }
            }
        }
    }
    Ok(())
}

/// Rounds to a multiple of 1/256, which is exact in f16.
fn half(x: f32) -> f32 {
    (x * 256.0).round() / 256.0
}

impl Own {
    /// Computes `Σ_j exp(q·k_j/√E - m·|i - j|)·v_j`, divided by the same sum without `v_j`, in f64.
    fn brute(&self, i: usize, h: usize) -> Vec<f64> {
        let d = (self.heads * self.e) as usize;
        let e = self.e as usize;
        let at = |row: usize, part: usize| {
            self.qkv[(3 * row + part) * d + h * e..][..e].iter().map(|&x| f64::from(x))
        };
        let keys = 0..self.keys as usize;
        let weight = |j: usize| {
            let dot: f64 = at(i, 0).zip(at(j, 1)).map(|(q, k)| q * k).sum();
            (dot / (e as f64).sqrt() - f64::from(self.slopes[h]) * (i - j) as f64).exp()
        };
        let mut o = vec![0.0; e];
        for j in keys.clone() {
            o.iter_mut().zip(at(j, 2)).for_each(|(o, v)| *o += weight(j) * v);
        }
        let sum: f64 = keys.map(weight).sum();
        o.iter().map(|o| o / sum).collect()
    }
}

/// If every value is 1, every output is 1.
fn weights(engine: &mut dyn Engine, variant: KernelVariant) -> Result<(), Failed> {
    let case = AttentionCase { sharpness: 5.0, ..AttentionCase::new(&[150, 3], 3, 16) };
    let recorded = case.record(engine, variant, 3)?;
    let ones = engine.upload([153, 48].into(), variant.wide(), (&[1.0; 153 * 48]).into())?;
    let mut recording = recorded.recording.clone();
    let command = recording.commands.pop().expect("attention comes last");
    let args = attention::Args::from(&command);
    let kernel = attention::kernel(attention::Spec::new(variant, 16));
    let scores = [attention::scale(16), attention::skip(SKIP_EPS)];
    let args = attention::Args { v: &ones, ..args };
    attention::record(&mut recording, &kernel, args, scores, &[150, 150, 150, 3]);
    let context = run(engine, &recording, &recorded.output)?;
    match context.iter().find(|c| c.is_nan() || (**c - 1.0).abs() > 2e-6) {
        None => Ok(()),
        Some(c) => Err(format!("a context of {c}").into()),
    }
}
