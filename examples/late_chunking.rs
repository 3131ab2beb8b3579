//! Retrieval of an answer in long documents, compared for three methods: chunks embedded
//! separately, late chunks, and vectors of whole documents.
//! `cargo run --release --example late_chunking [-- MODEL]`
//!
//! Forty invented towns have a document each, of twelve paragraphs.  Only the first names the town;
//! the others say "the town", as articles do.  A question is about a town and a topic, whose
//! paragraph comes second, seventh or last.

use jinabert::{Embedder, Options, Prompt, Vector, text::Chunking};
use std::{env, error::Error, ops::Range};

const STARTS: [&str; 8] = ["Ard", "Bel", "Cor", "Dun", "Elm", "Fal", "Gren", "Hol"];
const ENDS: [&str; 5] = ["enfeld", "minster", "abruck", "ovia", "holm"];

/// Questions, with the paragraphs that answer them; `#` is a number specific to the town.
const TOPICS: [(&str, &str); 11] = [
    (
        "How many people live in",
        "About # thousand people live there today. A century ago there were half as many, and most of \
         them worked on farms. The number has grown since the war, because young families find cheap \
         homes there, and because the town has kept its schools and shops.",
    ),
    (
        "Which river flows through",
        "A slow river runs through the middle of the town, # metres wide, and five bridges cross it. In \
         spring the water often rises over the lower streets. Boats bring visitors from the sea in \
         summer, and anglers stand on the banks all year.",
    ),
    (
        "What is made in the factories of",
        "The largest employer is a factory with # workers that makes engines for ships. Two smaller works \
         make glass and paper. The smoke of the old chimneys is gone, but the brick halls still stand \
         beside the railway.",
    ),
    (
        "What can one study in",
        "The university was founded # years ago by a bishop. It teaches medicine and law, and its library \
         has one of the oldest collections of maps in the country. Students make up a tenth of all \
         inhabitants.",
    ),
    (
        "Which festival is held in",
        "Every autumn a festival of lanterns is held for # days. Children carry lights through the narrow \
         streets, musicians play on the square, and bakers sell a sweet bread with almonds that is made \
         at no other time.",
    ),
    (
        "How good is the football club of",
        "The football club has won the cup # times and plays in a small stadium by the park. Its supporters \
         wear green scarves. In the last season it lost the final match to a neighbour, which nobody \
         there has forgotten.",
    ),
    (
        "What does the museum show in",
        "A museum in the former town hall shows # paintings of winter landscapes by one family of painters. \
         Upstairs there are old clocks. Entry is free on Sundays, when retired teachers guide visitors \
         through the rooms.",
    ),
    (
        "Who is the mayor of",
        "The mayor is a former doctor who was elected with # percent of the votes. She has promised to build \
         a new hospital and to plant trees along all main roads. Her party holds most seats of the council.",
    ),
    (
        "How does one get by train to",
        "Trains leave for the capital every # minutes and need about two hours. The station is a fine \
         building of iron and glass. A tram line connects it with the harbour and with the hills in the \
         north.",
    ),
    (
        "What is the weather like in",
        "Winters are mild and wet, with snow on # days a year at most, and summers are rarely hot. Wind from \
         the west brings most of the rain. Fog is common in November, when the valley is often grey for a \
         week.",
    ),
    (
        "What do people eat in",
        "The best known dish is a stew of beans and smoked fish that cooks for # hours. It is eaten with dark \
         bread. Several restaurants on the market square serve it, and each claims to have the oldest \
         recipe.",
    ),
];

const PLACES: [(&str, usize); 3] = [("beginning", 0), ("middle", 5), ("end", 10)];

struct Document {
    text: String,
    /// Character ranges of the paragraphs.
    paragraphs: Vec<Range<usize>>,
}

/// Document of a town, with the paragraph on `topic` at index `place`.
fn document(town: usize, topic: usize, place: usize) -> Document {
    let mut order: Vec<usize> = (0..TOPICS.len()).map(|n| (n + town) % TOPICS.len()).collect();
    order.retain(|&n| n != topic);
    order.insert(place, topic);
    let first = format!(
        "{} is a town in the north of the country. It lies in a wide valley between wooded hills.",
        name(town)
    );
    let others =
        order.iter().map(|&n| TOPICS[n].1.replace('#', &(town * 7 % 53 + n + 3).to_string()));
    let (mut text, mut paragraphs) = (String::new(), Vec::new());
    for paragraph in std::iter::once(first).chain(others) {
        let start = text.chars().count();
        text += &paragraph;
        paragraphs.push(start..text.chars().count());
        text += "\n\n";
    }
    Document { text, paragraphs }
}

fn name(town: usize) -> String {
    format!("{}{}", STARTS[town % 8], ENDS[town / 8])
}

/// Indices of the nearest document and chunk for each question.
fn nearest(questions: &[Vector], chunks: &[Vec<Vector>]) -> Vec<(usize, usize)> {
    let all = || chunks.iter().enumerate().flat_map(|(d, c)| (0..c.len()).map(move |n| (d, n)));
    let best = |question: &Vector| {
        let cosine = |&(d, n): &(usize, usize)| question.dot(&chunks[d][n]);
        all().max_by(|a, b| cosine(a).total_cmp(&cosine(b))).expect("chunks")
    };
    questions.iter().map(best).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/models/jinabert-mini-en");
    let model = env::args().nth(1).unwrap_or(shipped.to_owned());
    let embedder = Embedder::open_with(&model, Options::default())?;
    let towns = STARTS.len() * ENDS.len();
    println!("right document, right paragraph of it, of {towns} questions");
    println!("{:<12}{:>16}{:>16}{:>12}", "answer at", "naive chunks", "late chunks", "whole");
    for (place, at) in PLACES {
        let topic = |town: usize| town * 3 % TOPICS.len();
        let documents: Vec<_> = (0..towns).map(|town| document(town, topic(town), at)).collect();
        let questions: Vec<_> =
            (0..towns).map(|town| format!("{} {}?", TOPICS[topic(town)].0, name(town))).collect();
        let questions = embedder.embed(&questions)?;
        let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();

        let mut naive = Vec::new();
        for document in &documents {
            let chars: Vec<char> = document.text.chars().collect();
            let paragraphs = document.paragraphs.iter().cloned();
            let alone: Vec<String> = paragraphs.map(|p| chars[p].iter().collect()).collect();
            naive.push(embedder.embed(&alone)?);
        }
        let spans: Vec<_> =
            documents.iter().map(|d| Chunking::Spans(d.paragraphs.clone())).collect();
        let spans: Vec<_> = spans.iter().collect();
        let options = embedder.encode_options();
        let late =
            embedder.compute(embedder.jobs().chunks(&texts, &spans, &Prompt::Auto, options)?)?;
        let late: Vec<Vec<Vector>> =
            late.into_iter().map(|d| d.chunks.into_iter().map(|c| c.vector).collect()).collect();
        let whole: Vec<_> = embedder.embed(&texts)?.into_iter().map(|v| vec![v]).collect();

        let share = |chunks: &[Vec<Vector>]| {
            let found = nearest(&questions, chunks);
            let documents = (0..towns).filter(|&town| found[town].0 == town).count();
            let exact = (0..towns).filter(|&town| found[town] == (town, at + 1)).count();
            (documents, exact)
        };
        let (naive, late, whole) = (share(&naive), share(&late), share(&whole));
        println!(
            "{place:<12}{:>10}, {:>4}{:>10}, {:>4}{:>12}",
            naive.0, naive.1, late.0, late.1, whole.0
        );
    }
    Ok(())
}
