//! Search: embeds the paragraphs of text files and folders, and answers a question with the
//! nearest: `cargo run --release --example search -- "How are kernels tested?" README.md docs`

use jinabert::{Embedder, OnLong, Options};
use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

/// Collects a file, or the `.md` and `.txt` files of a folder and of its subfolders.
fn files(path: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let text = path.extension().is_some_and(|end| end == "md" || end == "txt");
        if text || path.is_dir() {
            files(&path, found)?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let Some(question) = arguments.next() else {
        return Err("usage: search QUESTION FILE|FOLDER...".into());
    };
    let mut paths = Vec::new();
    for path in arguments {
        files(Path::new(&path), &mut paths).map_err(|e| format!("`{path}`: {e}"))?;
    }
    let mut paragraphs = Vec::new();
    for path in paths {
        let file = path.display().to_string();
        let text = fs::read_to_string(&path).map_err(|e| format!("`{file}`: {e}"))?;
        let found = text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
        paragraphs.extend(found.map(|paragraph| (file.clone(), paragraph.to_owned())));
    }

    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/jinabert-mini-en");
    let options = Options { on_long: OnLong::Truncate, ..Options::default() };
    let embedder = Embedder::open_with(model, options)?;
    let texts: Vec<&str> = paragraphs.iter().map(|(_, text)| text.as_str()).collect();
    let vectors = embedder.embed(&texts)?;
    let question = &embedder.embed(&[question])?[0];

    let mut ranked: Vec<_> = vectors.iter().map(|v| v.dot(question)).zip(&paragraphs).collect();
    ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    for (cosine, (file, paragraph)) in ranked.into_iter().take(3) {
        println!("{cosine:.3}  {file}\n{paragraph}\n");
    }
    Ok(())
}
