//! Effect of each precision on the shipped model's ranking.

use jinabert::{
    Device, Embedder, Options, Vector,
    precision::{Precision, Quantized, Quantizer, Ranges},
};

/// 336 captions: many similar ones, so that a ranking is easily changed.
fn texts() -> Vec<String> {
    let who =
        ["A man", "A young woman", "Two dogs", "The black cat", "A group of children", "Nobody"];
    let does =
        ["is playing", "sleeps", "is running", "eats", "looks for food", "waits", "is swimming"];
    let place = ["in the garden", "at the station", "on a boat", "in the kitchen"];
    let time = ["", " in the rain"];
    let mut texts = Vec::new();
    for who in who {
        for does in does {
            for place in place {
                texts.extend(time.map(|time| format!("{who} {does} {place}{time}.")));
            }
        }
    }
    texts
}

/// Dequantizes: codes of one symmetric range are relative to its middle; bits are 1 and -1.
fn read_back(precision: Precision, quantized: &Quantized, dims: usize) -> Vec<f64> {
    let bytes = quantized.to_le_bytes();
    let bits = |flip: u8| -> Vec<f64> {
        let bit = |n: usize| (bytes[n / 8] ^ flip) >> (7 - n % 8) & 1;
        (0..dims).map(|n| 2.0 * f64::from(bit(n)) - 1.0).collect()
    };
    let numbers = || {
        quantized.to_decimals().into_iter().map(|x| f64::from(x.parse::<f32>().expect("a number")))
    };
    match precision {
        Precision::Binary => bits(0x80),
        Precision::Ubinary => bits(0),
        Precision::Uint8 => numbers().map(|x| x - 127.0).collect(),
        _ => numbers().collect(),
    }
}

fn cosines(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let norms: Vec<_> = rows.iter().map(|row| dot(row, row).sqrt()).collect();
    let row =
        |i: usize| (0..rows.len()).map(|j| dot(&rows[i], &rows[j]) / norms[i] / norms[j]).collect();
    (0..rows.len()).map(row).collect()
}

/// Ten nearest neighbours of each text, without itself.
fn nearest(cosines: &[Vec<f64>]) -> Vec<Vec<usize>> {
    let ten = |(i, row): (usize, &Vec<f64>)| {
        let mut order: Vec<usize> = (0..row.len()).filter(|&j| j != i).collect();
        order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        order.truncate(10);
        order
    };
    cosines.iter().enumerate().map(ten).collect()
}

#[test]
fn vectors_are_calibrated_stored_and_compared() {
    let calibration = [vec![-1.0, 0.0], vec![1.0, 4.0]].map(Vector::from);
    let ranges = Ranges::of(&calibration).expect("two different vectors");
    assert_eq!(ranges.outside(&[0.0, 5.0]), 1);
    let quantizer = Quantizer::with_ranges(Precision::Uint8, ranges);
    let quantized = quantizer.quantize(&calibration[1]).expect("components within f16");
    let codes =
        |quantized| matches!(quantized, Quantized::Uint8(codes) if codes.iter().all(|&c| c > 253));
    assert!(codes(quantized));
    let stored: Vec<f32> = calibration[0].clone().into();
    let read = Vector::from(stored);
    assert_eq!((read.dot(&calibration[1]), read.as_ref()), (-1.0, &[-1.0, 0.0][..]));
}

#[test]
fn rankings_survive_quantization() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/models/jinabert-mini-en");
    let options = Options { device: Device::Cpu, ..Options::default() };
    let embedder = Embedder::open_with(dir, options).expect("the shipped model");
    let vectors = embedder.embed(&texts()).expect("vectors");
    let wide = |row: &[f32]| row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let expected = cosines(&vectors.iter().map(|row| wide(row)).collect::<Vec<_>>());
    let ten = nearest(&expected);
    for (precision, least, most) in [
        (Precision::Float32, 1.0, 1e-12),
        (Precision::Float16, 0.995, 2e-4),
        (Precision::Int8, 0.98, 0.01),
        (Precision::Uint8, 0.985, 0.006),
        (Precision::Binary, 0.8, 0.5),
        (Precision::Ubinary, 0.8, 0.5),
    ] {
        let quantizer = Quantizer::new(precision, embedder.dim());
        let read = |row: &[f32]| {
            read_back(precision, &quantizer.quantize(row).expect("a vector"), row.len())
        };
        let found = cosines(&vectors.iter().map(|row| read(row)).collect::<Vec<_>>());
        let pairs = found.as_slice().iter().flatten().zip(expected.iter().flatten());
        let moved = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let kept = ten.iter().zip(nearest(&found));
        let kept: usize = kept.map(|(a, b)| a.iter().filter(|n| b.contains(n)).count()).sum();
        let kept = kept as f64 / (10 * vectors.len()) as f64;
        println!(
            "{precision}: {kept:.3} of the ten nearest kept, a cosine moves {moved:.5} at most"
        );
        assert!(kept >= least && moved <= most, "{precision}: {kept} kept, moved {moved}");
        let outside: usize = vectors.iter().map(|row| quantizer.outside(row)).sum();
        assert_eq!(outside, 0, "{precision}");
    }
}
