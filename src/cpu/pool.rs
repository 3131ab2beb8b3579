use rayon::prelude::*;

/// Tokens and columns in one unit of work: the sums of a unit fit into a core's cache.
const TOKENS: usize = 256;

/// [`reference::pool`](crate::reference::pool) on all cores, along the rows.
pub fn pool(x: &[f32], spans: &[[u32; 2]], d: usize, dims: usize, normalize: bool, y: &mut [f32]) {
    spans.par_iter().zip(y.par_chunks_exact_mut(dims)).for_each(|(&[start, end], y)| {
        let x = &x[start as usize * d..end as usize * d];
        let partial_sums = x.par_chunks(TOKENS * d).map(|x| {
            let mut sums = vec![0.0; dims];
            for row in x.chunks_exact(d) {
                sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
            }
            sums
        });
        let sums: Vec<Vec<f64>> = partial_sums.collect();
        let count = (x.len() / d) as f64;
        let mean: Vec<f64> =
            (0..dims).map(|i| sums.iter().map(|sums| sums[i]).sum::<f64>() / count).collect();
        let norm = mean.iter().map(|e| e * e).sum::<f64>().sqrt();
        let scale = if normalize { 1.0 / norm.max(1e-12) } else { 1.0 };
        y.iter_mut().zip(mean).for_each(|(y, e)| *y = (e * scale) as f32);
    });
}
