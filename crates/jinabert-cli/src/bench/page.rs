//! HTML page about a device: one self-contained file, without scripts.

use super::{
    kernels::Row,
    plot::{self, Keys, Spreads},
    report::{Cell, ModelReport, Report},
    roof::Limit,
    stats::digits,
    table::{self, percent, rate, time},
};
use crate::svg::escape;

const STYLE: &str = include_str!("page.css");

/// Renders the page.
pub fn page(report: &Report) -> String {
    let device = escape(&table::about(&report.device));
    let faults = match report.faults() {
        0 => String::new(),
        n => format!("<p class=\"wrong\">{n} kernels are wrong: see the table.</p>\n"),
    };
    let model = report.model.as_ref().map_or(String::new(), model);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>jinabert bench: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>{}</h1>\n<p class=\"quiet\">{device}<br/>{}</p>\n{faults}{}{}{}{model}</main>\n</body>\n</html>\n",
        escape(&report.device.name),
        escape(&report.device.name),
        escape(&table::engine(report)),
        limits(report),
        figure(report),
        kernels(report),
    )
}

/// Table of the roof's figures.
fn limits(report: &Report) -> String {
    let roof = &report.roof;
    let tile = |name: &str, value: String, note: &str| {
        format!("<div><dt>{name}</dt><dd>{value}<small>{}</small></dd></div>\n", escape(note))
    };
    let limit = |name: &str, limit: &Limit, unit: &str| {
        let first = |first| format!("; measured again, at first {}", digits(first));
        let note = limit.by.clone() + &limit.first.map_or(String::new(), first);
        tile(name, format!("{} {unit}", digits(limit.giga_per_s)), &note)
    };
    let tiles = [
        limit("Compute", &roof.compute, "GFLOP/s"),
        limit("Memory", &roof.memory, "GB/s"),
        tile("Ridge", format!("{} FLOP/byte", digits(roof.ridge())), "left of it, memory decides"),
        tile("Submit", time(roof.submit_ms.median), "one small dispatch, and waiting for it"),
        tile("Dispatch", time(1e-3 * roof.dispatch_us), "each further one of the same pass"),
    ];
    format!("<dl>\n{}</dl>\n", tiles.concat())
}

/// Plot with its legend.
fn figure(report: &Report) -> String {
    let keys = Keys::new(&report.kernels);
    let item = |class: &str, tier: &str, text: &str| {
        let (mark, end) = keys.mark(class, tier, (10.0, 10.0));
        let text = escape(text);
        format!(
            "<li><svg viewBox=\"0 0 20 20\" aria-hidden=\"true\">{mark}{end}</svg>{text}</li>\n"
        )
    };
    let first = keys.tiers.first().copied().unwrap_or_default();
    let kernels = keys.kernels.iter().map(|word| item(&keys.class(word, ""), first, word));
    let tiers = keys.tiers.iter().map(|tier| item("ink", tier, tier));
    let sizes = keys.sizes.iter().map(|size| {
        let class = if keys.hollow(size) { "ink hollow" } else { "ink" };
        item(class, first, &format!("size: {size}"))
    });
    format!(
        "<figure>\n{}<ul class=\"key\">\n{}</ul>\n<figcaption>Every mark is a kernel at a size of \
         jina-embeddings-v2; point at it for its figures. The line is what this device allows: the lower \
         of its arithmetic and of its memory times the operations a byte. Bytes are counted once, so a \
         kernel whose data stay in a cache may stand above it. A kernel that only copies is in the table \
         alone. Times by {}.</figcaption>\n</figure>\n",
        plot::plot(report),
        kernels.chain(tiers).chain(sizes).collect::<String>(),
        report.clock,
    )
}

/// Table with a header; the columns from `numbers` on are numeric.
fn framed(caption: &str, columns: &[&str], numbers: usize, rows: &str) -> String {
    let head: String = (0..)
        .zip(columns)
        .map(|(n, name)| {
            let class = if n >= numbers { " class=\"n\"" } else { "" };
            format!("<th scope=\"col\"{class}>{name}</th>")
        })
        .collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\">\n<table>\n\
         <caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n\
         </table>\n</div>\n"
    )
}

/// Table of the kernels.
fn kernels(report: &Report) -> String {
    let columns = [
        "kernel",
        "tier",
        "size",
        "shape",
        "T",
        "median",
        "GFLOP/s",
        "GB/s",
        "FLOP/byte",
        "bound",
        "% of bound",
        "fastest",
        "slowest",
        "runs",
        "max |Δ|",
    ];
    let rows: String = report.kernels.iter().map(kernel).collect();
    let caption = "Every kernel; max |Δ| is its largest difference from the CPU reference.";
    format!("<h2>Kernels</h2>\n{}", framed(caption, &columns, 4, &rows))
}

/// Row of a kernel.
fn kernel(row: &Row) -> String {
    let Row { kernel, tier, size, shape, tokens, check, .. } = row;
    let cells = [tier, size, shape].map(|text| format!("<td>{}</td>", escape(text))).concat();
    let start = format!("<tr><th scope=\"row\">{}</th>{cells}{}", escape(kernel), number(tokens));
    let Some(timing) = row.timing else {
        let fault = escape(check.fault.as_deref().unwrap_or_default());
        return format!("{start}<td class=\"wrong\" colspan=\"10\">{fault}</td></tr>\n");
    };
    let Spreads { median, min, max } = Spreads::of(&timing);
    let [gflops, gbps] = [timing.gflops, timing.gbps].map(rate);
    let intensity = digits(timing.intensity);
    let bound = timing.bound.to_string();
    let before = [median, gflops, gbps, intensity, bound].map(number).concat();
    let after = [min, max, timing.ms.runs.to_string(), table::difference(check.error)];
    format!("{start}{before}{}{}</tr>\n", share(timing.percent), after.map(number).concat())
}

/// Table cell of a number.
fn number(text: impl std::fmt::Display) -> String {
    format!("<td class=\"n\">{text}</td>")
}

/// Percentage with a bar.
fn share(value: Option<f64>) -> String {
    let width = value.unwrap_or(0.0).clamp(0.0, 100.0);
    format!(
        "<td class=\"n\">{}<span class=\"bar\" aria-hidden=\"true\"><i style=\"width:{width:.0}%\"></i></span></td>",
        percent(value)
    )
}

/// Table of a model.
fn model(model: &ModelReport) -> String {
    let ModelReport { name, layers, hidden, error, cells } = model;
    let error = error.map_or(String::new(), |_| {
        format!(" Largest difference from the CPU device: {}.", table::difference(*error))
    });
    let caption = format!(
        "{}: {layers} layers, {hidden} wide; from token ids to vectors.{error}",
        escape(name)
    );
    let columns =
        ["sequences × length", "tokens", "median", "first", "runs", "tokens/s", "GFLOP/s"];
    let columns = [&columns[..], &["% of compute"]].concat();
    let rows: String = cells.iter().map(cell).collect();
    format!("<h2>Model</h2>\n{}", framed(&caption, &columns, 1, &rows))
}

/// Row of a batch.
fn cell(cell: &Cell) -> String {
    let Cell { sequences, length, timing } = cell;
    let tokens = number(sequences * length);
    let start = format!("<tr><th scope=\"row\">{sequences} × {length}</th>{tokens}");
    let Some(timing) = timing else {
        return format!("{start}<td class=\"quiet\" colspan=\"6\">would take too long</td></tr>\n");
    };
    let [median, first] = [timing.ms.median, timing.first_ms].map(time);
    let [tokens, gflops] = [timing.tokens_per_s, timing.gflops].map(rate);
    let numbers = [median, first, timing.ms.runs.to_string(), tokens, gflops].map(number).concat();
    format!("{start}{numbers}{}</tr>\n", share(timing.percent))
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::report, *};

    /// Checks that every element is closed, in order, and every attribute quoted.
    fn well_formed(text: &str) -> Result<(), String> {
        let mut open: Vec<&str> = Vec::new();
        let text = text.strip_prefix("<!DOCTYPE html>\n").ok_or("no document type")?;
        for part in text.split('<').skip(1) {
            let (tag, after) = part.split_once('>').ok_or(format!("`<{part}` does not end"))?;
            if after.contains('>') && open.last() != Some(&"style") && !tag.starts_with("style") {
                return Err(format!("`>` after <{tag}>"));
            }
            if tag.matches('"').count() % 2 != 0 || tag.contains("=\"\"\"") {
                return Err(format!("quotes of <{tag}>"));
            }
            if let Some(name) = tag.strip_prefix('/') {
                if open.pop() != Some(name) {
                    return Err(format!("</{name}> closes another"));
                }
            } else if !tag.ends_with('/') {
                open.push(tag.split([' ', '\n']).next().unwrap_or_default());
            }
        }
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?} are left open")) }
    }

    #[test]
    fn the_page_is_well_formed() {
        let page = page(&report());
        assert_eq!(well_formed(&page), Ok(()));
        assert!(page.contains("Card &lt;9&gt; &amp; &quot;sons&quot;") && !page.contains("<9>"));
        assert!(
            page.contains("where 1.0 is &lt;meant&gt;") && page.contains("1 kernels are wrong")
        );
        assert!(
            page.contains("would take too long") && page.contains("<td class=\"n\">64000</td>")
        );
        let mut bare = report();
        bare.kernels.clear();
        bare.model = None;
        assert_eq!(well_formed(&super::page(&bare)), Ok(()));
    }

    #[test]
    fn every_kernel_has_its_row() {
        let mut report = report();
        report.kernels = super::super::kernels::tests::rows();
        // Timing without a rate: the clock did not move.
        let timing = report.kernels[0].timing.as_mut().expect("a timing");
        timing.gflops = None;
        timing.gbps = None;
        timing.percent = None;
        report.roof.compute.first = Some(90.0);
        let page = page(&report);
        assert_eq!(well_formed(&page), Ok(()));
        for kernel in jinabert::kernels::ALL {
            let row = format!("<tr><th scope=\"row\">{}</th>", kernel.name());
            assert!(page.contains(&row), "{}", kernel.name());
        }
        for word in ["NaN", "inf<", "inf ", "null"] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("<td class=\"n\">–<span"), "no rate, no percentage");
        assert!(page.contains("hand; measured again, at first 90.0</small>"));
        // A page has some tens of thousands of bytes, in any layout of its rows.
        assert!(page.len() < 200_000, "{} bytes", page.len());
    }

    #[test]
    fn broken_pages_are_noticed() {
        for broken in ["<p>", "<p></b></p>", "<a b=\"></a>", "<p>a > b</p>", "<p"] {
            let page = format!("<!DOCTYPE html>\n{broken}");
            assert!(well_formed(&page).is_err(), "{broken}");
        }
    }

    #[test]
    fn the_page_has_both_color_schemes_and_fetches_nothing() {
        let page = page(&report());
        let (light, dark) =
            page.split_once("@media (prefers-color-scheme: dark)").expect("a dark scheme");
        for name in ["ground", "panel", "ink", "quiet", "line", "shade"] {
            assert!([light, dark].iter().all(|part| part.contains(&format!("--{name}: #"))));
        }
        for n in 0..plot::COLOURS {
            assert!([light, dark].iter().all(|part| part.contains(&format!("--c{n}: #"))));
            assert!(page.contains(&format!(".c{n} {{")));
        }
        let outside = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        for word in ["http:", "https:", "//", "url(", "@import", "<script", "src=", "href="] {
            assert!(!outside.contains(word), "{word}");
        }
    }
}
