use super::{Suite, run};
use jinabert::{
    batch,
    kernels::{
        Version,
        attention::{self, SKIP_EPS},
        key_norm,
    },
    probe::Problem,
    recording::{Engine, Format, Recording, Shape, Tensor},
};
use libtest_mimic::Failed;
use proptest::{collection::vec, prelude::*, sample::select};

pub fn suite() -> Suite {
    let problem = |(lengths, heads, e, sharpness): (&[u32], u32, u32, f32)| Problem::Attention {
        lengths: lengths.to_vec(),
        heads,
        e,
        sharpness,
        skip_eps: SKIP_EPS,
    };
    Suite {
        hard: [
            (&[1][..], 1, 64, 1.0),
            (&[1, 2, 31, 32, 33, 63, 64, 65], 12, 8, 1.0),
            (&[129, 1, 7], 3, 64, 1.0),
            (&[300], 8, 48, 1.0),
            (&[257, 65], 2, 32, 30.0), // scores far apart: softmax is nearly a maximum
            (&[100, 28], 2, 16, 100.0),
            (&[70, 5], 1, 128, 1.0),
            (&[1; 700], 3, 8, 1.0),
            (&[1000, 200], 4, 8, 0.1), // most tiles of the steep heads are left out
        ]
        .map(problem)
        .into(),
        any: (
            vec(1..140u32, 1..6),
            1..5u32,
            select(vec![4u32, 8, 20, 48, 64, 128]),
            0.0..40f32,
            select(vec![0.0, SKIP_EPS]),
        )
            .prop_map(|(lengths, heads, e, sharpness, skip_eps)| Problem::Attention {
                lengths,
                heads,
                e,
                sharpness,
                skip_eps,
            })
            .boxed(),
        invariants: vec![
            ("weights sum to 1", weights),
            ("skipping stays within its bound", skipping),
        ],
    }
}

/// An attention problem with inputs of the test's own, in the order q, k, v; dense and skipping.
struct Own {
    tokens: u32,
    heads: u32,
    e: u32,
    qkv: Vec<f32>,
    slopes: Vec<f32>,
}

impl Own {
    fn context(
        &self,
        engine: &mut dyn Engine,
        version: Version,
        skip_eps: f32,
    ) -> Result<Vec<f32>, Failed> {
        let (t, d) = (self.tokens, self.heads * self.e);
        let qkv = engine.upload([t, 3 * d].into(), version.wide(), self.qkv[..].into())?;
        let [q, k, v] = [0, d, 2 * d].map(|first| qkv.columns(first..first + d));
        let slopes = engine.upload([self.heads].into(), Format::F32, self.slopes[..].into())?;
        let list = batch::tiles(&[0, t], attention::TILE);
        let n = list.len() as u32;
        let mut integers = |shape: Shape, data: &[u32]| -> Result<Tensor, Failed> {
            let tensor = engine.alloc(shape, Format::F32)?;
            engine.write(&tensor, data);
            Ok(tensor)
        };
        let tiles = integers([n, 2].into(), list.as_flattened())?;
        let cu_seqlens = integers([2].into(), &[0, t])?;
        let norms = engine.alloc([n, self.heads].into(), Format::F32)?;
        let context = engine.alloc([t, d].into(), version.wide())?;
        let mut rec = Recording::new();
        let kernel = key_norm::kernel(key_norm::Spec::new(version, self.e));
        let (cu_seqlens, tiles, norms) = (&cu_seqlens, &tiles, &norms);
        key_norm::record(&mut rec, &kernel, key_norm::Args { k: &k, cu_seqlens, tiles, norms });
        let kernel = attention::kernel(attention::Spec::new(version, self.e));
        let args = attention::Args {
            q: &q,
            k: &k,
            v: &v,
            slopes: &slopes,
            cu_seqlens,
            tiles,
            norms,
            context: &context,
        };
        let keys = vec![t; n as usize];
        attention::record(&mut rec, &kernel, args, attention::skip(skip_eps), &keys);
        run(engine, &rec, &context)
    }
}

/// |skipped - dense| ≤ 2·eps·max|v| and rounding, on inputs made to break it: huge scores, a key
/// far away that outweighs all others, slopes near and at zero, and a large eps so that much is
/// left out.
fn skipping(engine: &mut dyn Engine, version: Version) -> Result<(), Failed> {
    [8, 64].into_iter().try_for_each(|e| skipping_at(engine, version, e))
}

fn skipping_at(engine: &mut dyn Engine, version: Version, e: u32) -> Result<(), Failed> {
    let (tokens, heads) = (700u32, 3u32);
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
            let own = Own { tokens, heads, e, qkv: qkv.clone(), slopes: slopes.clone() };
            let dense = own.context(engine, version, 0.0)?;
            for eps in [SKIP_EPS, 1e-3] {
                let skipped = own.context(engine, version, eps)?;
                // In f16 both are rounded.
                let rounding = if version.wide().half() { 1.7 / 1024.0 } else { 5e-6 };
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

/// Where every value is 1, so is every context.
fn weights(engine: &mut dyn Engine, version: Version) -> Result<(), Failed> {
    let (lengths, skip_eps) = (vec![150, 3], SKIP_EPS);
    let problem = Problem::Attention { lengths, heads: 3, e: 16, sharpness: 5.0, skip_eps };
    let recorded = problem.record(engine, version, 3)?;
    let ones = engine.upload([153, 48].into(), version.wide(), (&[1.0; 153 * 48]).into())?;
    let mut recording = recorded.recording.clone();
    let command = recording.commands.pop().expect("attention comes last");
    let args = attention::Args::from(&command);
    let kernel = attention::kernel(attention::Spec::new(version, 16));
    let skip = attention::skip(skip_eps);
    let args = attention::Args { v: &ones, ..args };
    attention::record(&mut recording, &kernel, args, skip, &[150, 150, 150, 3]);
    let context = run(engine, &recording, &recorded.output)?;
    match context.iter().find(|c| c.is_nan() || (**c - 1.0).abs() > 2e-6) {
        None => Ok(()),
        Some(c) => Err(format!("a context of {c}").into()),
    }
}
