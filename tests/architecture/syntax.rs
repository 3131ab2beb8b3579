//! Parser for the part of Rust's syntax that the rules need: code, and the paths in it.

/// Kind of text that a character belongs to.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Code,
    Comment,
    Literal,
}

pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Characters of Rust text, each with its kind.
pub fn kinds(text: &str) -> Vec<(char, Kind)> {
    let mut kinds = Vec::new();
    let chars: Vec<char> = text.chars().collect();
    while let Some(rest) = chars.get(kinds.len()..).filter(|rest| !rest.is_empty()) {
        let (length, kind) = piece(rest);
        kinds.extend(rest.iter().take(length).map(|&c| (c, kind)));
    }
    kinds
}

/// Length and kind of the comment, literal, word or sign at the start of `rest`.
pub fn piece(rest: &[char]) -> (usize, Kind) {
    match rest {
        ['/', '/', ..] => (rest.iter().take_while(|&&c| c != '\n').count(), Kind::Comment),
        ['/', '*', ..] => {
            let end = rest.windows(2).skip(2).position(|end| end == ['*', '/']);
            (end.map_or(rest.len(), |end| end + 4), Kind::Comment)
        }
        ['"', ..] | ['\'', '\\', ..] | ['\'', _, '\'', ..] => (quoted(rest), Kind::Literal),
        _ => {
            let word = rest.iter().take_while(|&&c| is_word(c)).count();
            match raw_string(rest, word) {
                Some(length) => (length, Kind::Literal),
                None => (word.max(1), Kind::Code),
            }
        }
    }
}

/// Length of a literal up to its closing quote, the same character as its first.
pub fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != rest[0] {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// Length of a raw string that begins with a word of `word` characters.
pub fn raw_string(rest: &[char], word: usize) -> Option<usize> {
    if !matches!(rest[..word], ['r'] | ['b' | 'c', 'r']) {
        return None;
    }
    let hashes = rest[word..].iter().take_while(|&&c| c == '#').count();
    let open = word + hashes + 1;
    if rest.get(open - 1) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = format!("\"{}", "#".repeat(hashes)).chars().collect();
    let inner = rest[open..].windows(close.len()).position(|end| end == close)?;
    Some(open + inner + close.len())
}

/// Text with everything but code blanked; lines keep their numbers.
pub fn code(text: &str) -> String {
    let blank = |(c, kind)| if kind == Kind::Code || c == '\n' { c } else { ' ' };
    kinds(text).into_iter().map(blank).collect()
}

/// Text without literals; lines keep their numbers.
pub fn without_literals(text: &str) -> String {
    let kept = |&(c, kind): &(char, Kind)| kind != Kind::Literal || c == '\n';
    kinds(text).into_iter().filter(kept).map(|(c, _)| c).collect()
}

/// Code without its `#[cfg(test)]` items; lines keep their numbers.
pub fn without_tests(mut code: String) -> String {
    while let Some(start) = code.find("#[cfg(test)]") {
        let mut depth = 0;
        let end = code[start..].find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0 && (c == '}' || c == ';')
        });
        let end = end.map_or(code.len(), |end| start + end + 1);
        let lines = code[start..end].matches('\n').count();
        code.replace_range(start..end, &"\n".repeat(lines));
    }
    code
}

/// Words, `::`, and other signs, each with its line from 1.
pub fn tokens(code: &str) -> Vec<(&str, usize)> {
    let mut tokens = Vec::new();
    for (number, line) in (1..).zip(code.lines()) {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match rest.find(|c| !is_word(c)).unwrap_or(rest.len()) {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                word => word,
            };
            tokens.push((&rest[..length], number));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Segments of a path, and its line.
pub type Named<'a> = (Vec<&'a str>, usize);

/// All imports, and all other paths of two or more segments.
pub fn paths<'a>(tokens: &[(&'a str, usize)]) -> Vec<Named<'a>> {
    let mut found = Vec::new();
    let mut path = Vec::new();
    let mut prefixes = Vec::<Vec<&str>>::new();
    let mut import = false;
    let mut before = "";
    let mut at = 0;
    for &(text, line) in tokens {
        let word = text == "*" || text.starts_with(is_word);
        match text {
            "use" => (import, path) = (true, Vec::new()),
            "::" => {}
            "{" if import => prefixes.push(path.clone()),
            _ if import && [text, before].contains(&"as") => {}
            _ if word && (import || before == "::") => {
                path.push(text);
                at = line;
            }
            _ => {
                if path.len() > 1 || import && !path.is_empty() {
                    found.push((path, at));
                }
                if text == "}" {
                    prefixes.pop();
                }
                import &= text != ";";
                path = if word { vec![text] } else { Vec::new() };
                path.extend(prefixes.last().filter(|_| import).into_iter().flatten());
                at = line;
            }
        }
        before = text;
    }
    found
}
