use super::{Suite, solve};
use jinabert::kernel_check::{KernelCase, sequences};
use proptest::{collection::vec, prelude::*};

pub fn suite() -> Suite {
    let case = |(lengths, d, dims, normalize): (Vec<u32>, u32, u32, bool)| {
        let t = lengths.iter().sum();
        let spans = sequences(&lengths);
        KernelCase::Pool { t, spans, d, dims, normalize }
    };
    // Spans that overlap, repeat, or leave tokens out; of one token; of all tokens.
    let spans = vec![[0, 70], [60, 131], [60, 131], [255, 256], [0, 256], [3, 5]];
    let chunks = KernelCase::Pool { t: 256, spans, d: 384, dims: 384, normalize: false };
    Suite {
        hard: [
            (vec![1], 32, 32, true),
            (vec![5, 1, 300, 64, 65], 768, 768, true),
            (vec![7, 3], 384, 129, true),
            (vec![2, 9, 4000], 64, 1, false),
            (vec![1; 70_001], 32, 7, true),
        ]
        .map(case)
        .into_iter()
        .chain([chunks])
        .collect(),
        any: (vec(1..200u32, 1..20), 1..100u32, any::<u32>(), any::<bool>())
            .prop_map(move |(lengths, d4, cut, normalize)| {
                case((lengths, 4 * d4, cut % (4 * d4) + 1, normalize))
            })
            .boxed(),
        invariants: vec![("vectors have unit length", |engine, variant| {
            let dims = 129;
            let lengths = [3, 900, 1];
            let t = 904;
            let spans = sequences(&lengths);
            let case = KernelCase::Pool { t, spans, d: 384, dims, normalize: true };
            let y = solve(&case, engine, variant)?;
            for vector in y.chunks_exact(dims as usize) {
                let norm = vector.iter().map(|y| f64::from(*y).powi(2)).sum::<f64>().sqrt();
                if (norm - 1.0).abs() > 1e-6 {
                    return Err(format!("norm {norm}").into());
                }
            }
            Ok(())
        })],
    }
}
