//! Cosine similarity of two sentences: `cargo run --release --example embed`

fn main() -> Result<(), jinabert::Error> {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/jinabert-mini-en");
    let embedder = jinabert::Embedder::open(model)?;
    let vectors = embedder.embed(&["A blue cat", "A cat that is blue"])?;
    println!("{} components on {}", embedder.dim(), embedder.device());
    println!("cosine {:.3}", vectors[0].dot(&vectors[1]));
    Ok(())
}
