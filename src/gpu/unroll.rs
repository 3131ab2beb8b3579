//! Unrolling of text lines: `#unroll n COUNT` … `#end`.
//!
//! Drivers do not unroll loops by default, WGSL has no hint for it, and an array indexed by a loop
//! variable lives in memory (16 GFLOP/s instead of 84 on lavapipe).  So the text is unrolled here.
//! Within the lines, `{expression}` is replaced by its value: numbers, the variables of the
//! enclosing `#unroll`s and the program's constants, with `+ * / %`, the last three with higher
//! precedence.

use crate::recording::Const;

/// A line with its origin.
type Line<'a, O> = (&'a str, O);

/// Expands every `#unroll`.
///
/// # Errors
/// An unpaired `#unroll` or `#end`, or a count or expression without a value.
pub(super) fn expand<O: Clone>(
    lines: &[Line<O>],
    constants: &[(&'static str, Const)],
) -> Result<Vec<(String, O)>, String> {
    let mut scope: Vec<(&str, u32)> = Vec::new();
    for (name, value) in constants {
        match value {
            Const::U32(value) => scope.push((name, *value)),
            Const::Bool(value) => scope.push((name, (*value).into())),
        }
    }
    let mut out = Vec::new();
    block(lines, &mut scope, &mut out)?;
    Ok(out)
}

fn block<'a, O: Clone>(
    lines: &[Line<'a, O>],
    scope: &mut Vec<(&'a str, u32)>,
    out: &mut Vec<(String, O)>,
) -> Result<(), String> {
    let mut at = 0;
    while let Some((line, origin)) = lines.get(at) {
        at += 1;
        let Some(header) = line.trim_start().strip_prefix("#unroll ") else {
            if line.trim() == "#end" {
                return Err("`#end` without `#unroll`".to_owned());
            }
            out.push((substitute(line, scope)?, origin.clone()));
            continue;
        };
        let (name, count) =
            header.trim().split_once(' ').ok_or_else(|| format!("`{line}` has no count"))?;
        let count = value(count, scope).ok_or_else(|| format!("no value for `{count}`"))?;
        let body = &lines[at..at + end(&lines[at..]).ok_or("`#unroll` without `#end`")?];
        for n in 0..count {
            scope.push((name, n));
            block(body, scope, out)?;
            scope.pop();
        }
        at += body.len() + 1;
    }
    Ok(())
}

/// Number of lines before the `#end` that closes the block.
fn end<O>(lines: &[Line<O>]) -> Option<usize> {
    let mut open = 1;
    lines.iter().position(|(line, _)| {
        let line = line.trim_start();
        open += i32::from(line.starts_with("#unroll ")) - i32::from(line.trim() == "#end");
        open == 0
    })
}

/// Replaces each `{expression}`.  Other braces, followed by nothing or a space, stay.
fn substitute(line: &str, scope: &[(&str, u32)]) -> Result<String, String> {
    let (code, comment) = line.split_once("//").unwrap_or((line, ""));
    let mut out = String::new();
    let mut rest = code;
    while let Some(open) = rest.find('{') {
        let inner = &rest[open + 1..];
        out.push_str(&rest[..open]);
        match inner.find('}') {
            Some(close) if !inner.starts_with([' ', '}']) => {
                let expression = &inner[..close];
                let value = value(expression, scope)
                    .ok_or_else(|| format!("no value for `{expression}` in `{line}`"))?;
                out.push_str(&value.to_string());
                rest = &inner[close + 1..];
            }
            _ => {
                out.push('{');
                rest = inner;
            }
        }
    }
    out.push_str(rest);
    if code.len() < line.len() {
        out.push_str("//");
        out.push_str(comment);
    }
    Ok(out)
}

/// Evaluates sums of products, left to right; `None` for an unknown name or a division by zero.
fn value(expression: &str, scope: &[(&str, u32)]) -> Option<u32> {
    expression.split('+').try_fold(0u32, |sum, term| sum.checked_add(product(term, scope)?))
}

fn product(term: &str, scope: &[(&str, u32)]) -> Option<u32> {
    let mut value = 1;
    let mut operator = '*';
    let mut rest = term;
    loop {
        let at = rest.find(['*', '/', '%']).unwrap_or(rest.len());
        let factor = atom(rest[..at].trim(), scope)?;
        value = match operator {
            '*' => u32::checked_mul(value, factor)?,
            '/' => value.checked_div(factor)?,
            _ => value.checked_rem(factor)?,
        };
        let Some(next) = rest[at..].chars().next() else { return Some(value) };
        operator = next;
        rest = &rest[at + 1..];
    }
}

fn atom(word: &str, scope: &[(&str, u32)]) -> Option<u32> {
    let known = scope.iter().rev().find(|(name, _)| *name == word);
    known.map(|(_, value)| *value).or_else(|| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        let lines: Vec<_> = text.lines().zip(1..).collect();
        let lines = expand(&lines, &[("TN", Const::U32(8)), ("S", Const::U32(4))])?;
        Ok(lines.into_iter().map(|(line, _)| line).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn nested_lines_and_expressions() {
        let text = "#unroll n TN/4\n  #unroll j 2\nlet a{n}_{4*n+j} = b{j%2+n/S};\n  #end\n#end\nfn f() {}";
        let lines = ["let a0_0 = b0;", "let a0_1 = b1;", "let a1_4 = b0;", "let a1_5 = b1;"];
        assert_eq!(
            expanded(text).expect("good text"),
            format!("{}\nfn f() {{}}", lines.join("\n"))
        );
    }

    #[test]
    fn origins_follow_their_lines() {
        let lines = [("a", 1), ("#unroll n 2", 2), ("b{n}", 3), ("#end", 4), ("if x { y }", 5)];
        let out = expand(&lines, &[]).expect("good text");
        let meant = [("a", 1), ("b0", 3), ("b1", 3), ("if x { y }", 5)];
        assert_eq!(out, meant.map(|(line, origin)| (line.to_owned(), origin)));
    }

    #[test]
    fn invalid_counts_and_names_are_named() {
        assert!(expanded("#unroll n XY\n#end").expect_err("count").contains("`XY`"));
        assert!(expanded("a{z}").expect_err("name").contains("`z`"));
        assert!(expanded("#end").is_err() && expanded("#unroll n 2").is_err());
    }
}
