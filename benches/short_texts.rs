//! The benchmark of `tools/native/short_texts.c`, through the Rust API instead of the C API:
//!
//! `cargo bench --bench short_texts -- MODEL DEVICE SENTENCES TEXTS AT_ONCE TURNS`

use jinabert::{Embedder, Options};
use std::{env, error::Error, fs, time::Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).filter(|a| a != "--bench").collect();
    let [model, device, sentences, texts, at_once, turns] = &arguments[..] else {
        eprintln!("usage: MODEL DEVICE SENTENCES TEXTS AT_ONCE TURNS");
        return Ok(());
    };
    let sentences = fs::read_to_string(sentences)?;
    let lines: Vec<&str> = sentences.lines().collect();
    let texts: usize = texts.parse()?;
    let at_once: usize = at_once.parse()?;
    let turns = turns.parse()?;
    let device = device.parse()?;
    let mut seconds = 0.0;
    let mut sum = 0.0;
    let mut done = 0;
    for turn in 0..turns {
        let options = Options { device, ..Options::default() };
        let embedder = Embedder::open_with(model, options)?;
        let start = Instant::now();
        let end = texts / turns * (turn + 1);
        while done < end {
            let some = at_once.min(end - done);
            let batch: Vec<_> = (done..done + some).map(|n| lines[n % lines.len()]).collect();
            sum += f64::from(embedder.embed(&batch)?[0][0]);
            done += some;
        }
        seconds += start.elapsed().as_secs_f64();
    }
    println!("{done} texts, {seconds:.6} seconds, sum {sum:.6}");
    Ok(())
}
