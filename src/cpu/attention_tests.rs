use super::*;
use crate::reference;

/// Half of ε = 2⁻²⁴.
const SKIP: f32 = -25.0;

/// Draws q, k and v side by side; `change` gets \[row, part, element\] and the drawn value.
fn draw(tokens: usize, d: usize, change: impl Fn([usize; 3], f32) -> f32) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    let all = (0..tokens * 3 * d).map(|n| [n / (3 * d), n / d % 3, n % d]);
    all.map(|at| change(at, next())).collect()
}

fn sequences(cu_seqlens: &[u32]) -> Vec<Sequence> {
    let ranges = cu_seqlens.windows(2).map(|range| range[0] as usize..range[1] as usize);
    ranges.map(|keys| Sequence { queries: keys.clone(), keys }).collect()
}

/// The context, and the share of visited pairs.
fn run(qkv: &[f32], slopes: &[f32], cu_seqlens: &[u32], skip: f32) -> (Vec<f32>, f64) {
    let tokens = cu_seqlens[cu_seqlens.len() - 1] as usize;
    let d = qkv.len() / (3 * tokens);
    let rows = [0, d, 2 * d].map(|column| Rows { data: &qkv[column..], step: 3 * d });
    let heads = Heads { count: slopes.len(), scale: 0.25 };
    let mut context = vec![f32::NAN; tokens * d];
    let biases = Biases::Slopes(slopes);
    let kept = attention(rows, biases, &sequences(cu_seqlens), heads, skip, &mut context);
    (context, kept)
}

/// Compares with the dense run to 2·ε·max |v| and rounding, and that with the reference.
fn check(qkv: &[f32], slopes: &[f32], cu_seqlens: &[u32]) {
    let [skipped, dense] =
        [SKIP, f32::NEG_INFINITY].map(|skip| run(qkv, slopes, cu_seqlens, skip).0);
    let tokens = cu_seqlens[cu_seqlens.len() - 1] as usize;
    let d = qkv.len() / (3 * tokens);
    let column = |n: usize| -> Vec<f32> {
        qkv.chunks_exact(d).skip(n).step_by(3).flatten().copied().collect()
    };
    let [q, k, v] = [column(0), column(1), column(2)];
    let largest = v.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    for (n, (a, b)) in skipped.iter().zip(&dense).enumerate() {
        let bound = (2.0 * 2f32.powi(-24) + 1e-6) * largest;
        assert!((a - b).abs() <= bound, "element {n}: {a}, dense {b}");
    }
    let mut expected = vec![0.0; tokens * d];
    let heads = Heads { count: slopes.len(), scale: 0.25 };
    let biases = Biases::Slopes(slopes);
    reference::attention(&q, &k, &v, biases, &sequences(cu_seqlens), heads, &mut expected);
    for (n, (a, b)) in skipped.iter().zip(&expected).enumerate() {
        assert!((a - b).abs() <= 2e-4 * largest, "element {n}: {a}, reference {b}");
    }
}

#[test]
fn skipped_keys_do_not_matter() {
    // The steepest heads, the flattest, and no slope; lengths near a block's, and one token.
    let slopes = [0.5, 0.02, 1e-7, 0.0];
    check(&draw(450, 48, |_, x| x), &slopes, &[0, 1, 2, 450]);
    check(&draw(321, 20, |_, x| 3.0 * x), &slopes, &[0, 64, 129, 321]);
}

#[test]
fn large_scores_are_seen() {
    let qkv = draw(300, 32, |[_, part, _], x| if part < 2 { 12.0 * x } else { x });
    check(&qkv, &[0.5, 0.1], &[0, 300]);
}

#[test]
fn a_far_key_that_outweighs_all_is_seen() {
    // Key 399 is 40 times the others, and in the direction of every query.
    let far = |[i, part, e]: [usize; 3], x: f32| match part {
        0 => 1.0 + x / 8.0 + e as f32 / 64.0,
        1 if i == 399 => 40.0,
        _ => x,
    };
    let qkv = draw(400, 32, far);
    check(&qkv, &[0.5, 0.25], &[0, 400]);
    let (context, _) = run(&qkv, &[0.25, 0.25], &[0, 400], SKIP);
    let v = &qkv[399 * 96 + 64..][..32];
    assert!(context[..32].iter().zip(v).all(|(c, v)| (c - v).abs() < 1e-3), "token 0 sees 399");
}

#[test]
fn a_shift_of_all_keys_neither_counts_nor_costs() {
    let qkv = draw(400, 32, |[_, part, _], x| x + f32::from(part == 1) * 5.0);
    check(&qkv, &[0.5, 0.1], &[0, 400]);
}

#[test]
fn steep_heads_skip_far_keys() {
    // Skipped values may be anything: NaN in the far half of v never shows up.
    let qkv = draw(1024, 16, |[i, part, _], x| if part == 2 && i >= 512 { f32::NAN } else { x });
    let (context, _) = run(&qkv, &[0.5], &[0, 1024], SKIP);
    assert!(context[..256 * 16].iter().all(|c| c.is_finite()), "keys 512.. are skipped");
    let (dense, _) = run(&qkv, &[0.5], &[0, 1024], f32::NEG_INFINITY);
    assert!(dense[..256 * 16].iter().all(|c| c.is_nan()));
}

#[test]
fn computed_scores_are_counted() {
    // With equal keys scores fall only with distance, and the bound is the series itself.
    let draw = |d| draw(4096, d, |[_, part, _], x| if part == 1 { 0.5 } else { x });
    let count = |qkv: &[f32], slopes: &[f32], skip| run(qkv, slopes, &[0, 4096], skip).1;
    let [one, two] = [16, 32].map(draw);
    for slope in [0.5f32, 0.05] {
        let kept = count(&one, &[slope], SKIP);
        let m = f64::from(slope);
        let series = -(1.0 - (-m).exp()).log2();
        // A query's sum of weights, relative to the largest, is at least 1 and at most this.
        let sum = (1.0 + (-m).exp()) / (1.0 - (-m).exp());
        let [near, far] = [sum.log2(), 0.0]
            .map(|mass| (f64::from(-SKIP) + series - mass) / (m * f64::from(LOG2_E)));
        // The ends of the sequence have one side; a tile visits whole blocks of keys.
        let least = (2.0 * near - near * near / 4096.0) / 4096.0;
        let most = (2.0 * far + 3.0 * KEYS as f64) / 4096.0;
        assert!((least..=most).contains(&kept), "{kept}, not {least} to {most}");
        assert_eq!(count(&one, &[slope], f32::NEG_INFINITY), 1.0);
        assert_eq!(count(&two, &[slope, 0.0], SKIP), (kept + 1.0) / 2.0, "and a flat head");
    }
    assert_eq!(run(&one[..128 * 48], &[0.5], &[0, 128], SKIP).1, 1.0, "few keys");
    let none = [Rows { data: &[], step: 48 }; 3];
    let heads = Heads { count: 1, scale: 1.0 };
    assert_eq!(
        attention(none, Biases::Slopes(&[0.5]), &[], heads, SKIP, &mut []),
        1.0,
        "no queries"
    );
}

#[test]
fn a_sequence_does_not_depend_on_its_place() {
    let alone = draw(130, 32, |_, x| x);
    let mut batch = draw(77, 32, |_, x| -x);
    batch.extend(&alone);
    let run = |qkv, cu_seqlens| run(qkv, &[0.3, 0.01], cu_seqlens, SKIP).0;
    assert_eq!(run(&alone, &[0, 130]), run(&batch, &[0, 77, 207])[77 * 32..]);
}

#[test]
fn a_table_equals_the_reference() {
    // Lengths beyond the reach on both sides, and more queries than the widest vectors hold.
    for (reach, tokens) in [(1, 5), (7, 130), (91, 400)] {
        let width = 2 * reach + 1;
        let table: Vec<f32> = (0..2 * width).map(|n| (n as f32 * 0.9).sin() * 2.0).collect();
        let biases = Biases::Table(&table, reach);
        let qkv = draw(tokens, 32, |_, x| x);
        let rows = [0, 32, 64].map(|column| Rows { data: &qkv[column..], step: 96 });
        let heads = Heads { count: 2, scale: 0.25 };
        let sequences = sequences(&[0, tokens as u32 / 3, tokens as u32]);
        let [mut found, mut expected] = [vec![f32::NAN; tokens * 32], vec![0.0; tokens * 32]];
        attention(rows, biases, &sequences, heads, f32::NEG_INFINITY, &mut found);
        let column = |n: usize| -> Vec<f32> {
            qkv.chunks_exact(32).skip(n).step_by(3).flatten().copied().collect()
        };
        let [q, k, v] = [column(0), column(1), column(2)];
        reference::attention(&q, &k, &v, biases, &sequences, heads, &mut expected);
        for (n, (a, b)) in found.iter().zip(&expected).enumerate() {
            assert!((a - b).abs() <= 1e-5, "reach {reach}, element {n}: {a}, reference {b}");
        }
    }
}
