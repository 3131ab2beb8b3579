//! Matrix products, by the `gemm` crate.

// The crate takes raw pointers and strides; the only function here checks every extent before it
// calls.
#![allow(unsafe_code)]

use gemm::Parallelism;

/// A matrix within a slice: element (r, c) is `data[r * row_step + c * col_step]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_step: usize,
    col_step: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `cols` elements that start every `step` elements.
    pub fn new(data: &'a [f32], rows: usize, cols: usize, step: usize) -> Self {
        Self { data, rows, cols, row_step: step, col_step: 1 }
    }

    /// The same elements, rows as columns.
    pub fn transposed(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_step: self.col_step,
            col_step: self.row_step,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    fn last(&self) -> Option<usize> {
        let (r, c) = (self.rows.checked_sub(1)?, self.cols.checked_sub(1)?);
        Some(r * self.row_step + c * self.col_step)
    }
}

/// `y ← keep·y + factor·(a·b)`, y row-major and dense; on `threads` threads of the current rayon
/// pool.
pub fn multiply_add(
    a: Matrix,
    b: Matrix,
    factor: f32,
    keep: Option<f32>,
    y: &mut [f32],
    threads: usize,
) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    assert_eq!(k, b.rows, "inner sizes");
    assert_eq!(y.len(), m * n, "result size");
    assert!(a.last().is_none_or(|last| last < a.data.len()), "left operand");
    assert!(b.last().is_none_or(|last| last < b.data.len()), "right operand");
    if m == 0 || n == 0 {
        return;
    }
    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
    // SAFETY: the asserts above keep the last element of a, b and y, hence every element, within
    // its slice; y is borrowed mutably, so it overlaps neither operand; f32 has no invalid bit
    // patterns.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            n as isize,
            keep.is_some(),
            a.data.as_ptr(),
            a.col_step as isize,
            a.row_step as isize,
            b.data.as_ptr(),
            b.col_step as isize,
            b.row_step as isize,
            keep.unwrap_or(0.0),
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let (x, w) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
        let mut y = [1.0; 4];
        let w = Matrix::new(&w, 2, 2, 2).transposed();
        multiply_add(Matrix::new(&x, 2, 2, 2), w, 2.0, Some(0.5), &mut y, 1);
        assert_eq!(y, [34.5, 46.5, 78.5, 106.5]);
        multiply_add(Matrix::new(&x, 2, 2, 2), w, 1.0, None, &mut y, 2);
        assert_eq!(y, [17.0, 23.0, 39.0, 53.0]);
    }

    #[test]
    #[should_panic(expected = "left operand")]
    fn a_short_operand_is_refused() {
        multiply_add(
            Matrix::new(&[1.0; 3], 2, 2, 2),
            Matrix::new(&[1.0; 4], 2, 2, 2),
            1.0,
            None,
            &mut [0.0; 4],
            1,
        );
    }
}
