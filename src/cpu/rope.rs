use super::skip_bound::Rows;
use rayon::prelude::*;

/// Rows in one unit of work.
const ROWS: usize = 16;

/// [`reference::rope`](crate::reference::rope) on all cores, in f32.
pub fn rope(x: Rows, table: &[f32], positions: &[u32], [d, e]: [usize; 2], y: &mut [f32]) {
    let rows = y.par_chunks_exact_mut(d).zip(positions).enumerate().with_min_len(ROWS);
    rows.for_each(|(t, (y, &position))| {
        let (cos, sin) = table[position as usize * e..][..e].split_at(e / 2);
        let x = &x.from(t, 0).data[..d];
        for (x, y) in x.chunks_exact(e).zip(y.chunks_exact_mut(e)) {
            let (x1, x2) = x.split_at(e / 2);
            let (y1, y2) = y.split_at_mut(e / 2);
            for j in 0..e / 2 {
                y1[j] = x1[j] * cos[j] - x2[j] * sin[j];
                y2[j] = x2[j] * cos[j] + x1[j] * sin[j];
            }
        }
    });
}
