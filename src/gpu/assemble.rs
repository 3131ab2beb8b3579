//! Shader text from files, imports, constants and unrolled lines.  Pure: no device, no wgpu type.

use super::unroll;
use crate::recording::{Const, Program};
use std::{borrow::Cow, env, fs, path::Path};

/// A file of `shaders/lib/`, by its stem.
macro_rules! library {
    ($name:literal) => {
        ($name, include_str!(concat!("../../shaders/lib/", $name, ".wgsl")))
    };
}

/// Built-in files for `#import name`.
const LIBRARY: &[(&str, &str)] = &[
    library!("bias_alibi"),
    library!("bias_table"),
    library!("elem_bf16"),
    library!("elem_f16"),
    library!("elem_f32"),
    library!("gelu"),
    library!("identity"),
    library!("lanes_many"),
    library!("lanes_one"),
    library!("low_rank"),
    library!("page"),
    library!("product_tiled"),
    library!("product_matrix"),
    library!("product_texture"),
    library!("skip_bound"),
    library!("reduce"),
    library!("relu"),
    library!("row_norm"),
    library!("share_many"),
    library!("share_one"),
    library!("slices_many"),
    library!("slices_one"),
    library!("tile_max"),
];

/// Prefix of types beyond core WGSL, which need an enabled extension.
const MATRIX: &str = "coop_mat";

/// Texts of all importable files.
pub fn library() -> impl Iterator<Item = &'static str> {
    LIBRARY.iter().map(|(_, text)| *text)
}

/// Environment variable: a copy of `shaders/` to read at run time, for editing without rebuilding.
const OVERRIDE: &str = "JINABERT_SHADERS";

/// Complete WGSL, with the origin of each line.
#[derive(Debug)]
pub struct Assembled {
    /// The text.
    pub text: String,
    origins: Vec<(String, usize)>,
}

impl Assembled {
    /// File and line (from 1) of the origin of line `line` (from 1).
    pub fn origin(&self, line: usize) -> Option<(&str, usize)> {
        let (file, line) = self.origins.get(line.checked_sub(1)?)?;
        Some((file, *line))
    }
}

/// Expands imports, each once, and sets constants.  Every constant of the program must exist in its
/// file.
///
/// # Errors
/// Name of an import or a constant that does not exist.
pub fn assemble(program: &Program) -> Result<Assembled, String> {
    let mut assembly = Assembly {
        program,
        unset: program.constants.clone(),
        imported: Vec::new(),
        out: Assembled { text: String::new(), origins: Vec::new() },
    };
    assembly.append(program.file, &read(program.file, program.text)?)?;
    if let [(name, _), ..] = assembly.unset.as_slice() {
        return Err(format!("{}: no `const {name}` to set", program.file));
    }
    let Assembled { text, origins } = assembly.out;
    let lines: Vec<_> = text.lines().zip(origins).collect();
    let mut out = Assembled { text: String::new(), origins: Vec::new() };
    if text.contains(MATRIX) {
        for extension in ["f16", "wgpu_cooperative_matrix"] {
            out.text.push_str(&format!("enable {extension};\n"));
            out.origins.push((program.file.to_owned(), 1));
        }
    }
    for (line, origin) in unroll::expand(&lines, &program.constants)? {
        out.text.push_str(&line);
        out.text.push('\n');
        out.origins.push(origin);
    }
    Ok(out)
}

struct Assembly<'a> {
    program: &'a Program,
    unset: Vec<(&'static str, Const)>,
    /// Files with their aliases.
    imported: Vec<(&'static str, String)>,
    out: Assembled,
}

impl Assembly<'_> {
    fn append(&mut self, file: &str, text: &str) -> Result<(), String> {
        for (number, line) in text.lines().enumerate() {
            if let Some(import) = line.strip_prefix("#import ") {
                let (name, alias) = import.split_once(" as ").unwrap_or((import, ""));
                self.import(file, name.trim(), alias.trim())?;
                continue;
            }
            if let Some(name) = line.trim_start().strip_prefix("#paste ") {
                let (name, text) = self.library(file, name.trim())?;
                let pasted = format!("lib/{name}.wgsl");
                self.append(&pasted, &read(&pasted, text)?)?;
                continue;
            }
            match self.take_constant(file, line) {
                Some(set) => self.out.text.push_str(&set),
                None => self.out.text.push_str(line),
            }
            self.out.text.push('\n');
            self.out.origins.push((file.to_owned(), number + 1));
        }
        Ok(())
    }

    fn library(&self, file: &str, name: &str) -> Result<(&'static str, &'static str), String> {
        let name = self.program.import(name).unwrap_or(name);
        let found = LIBRARY.iter().find(|(known, _)| *known == name);
        found.copied().ok_or_else(|| format!("{file}: unknown import `{name}`"))
    }

    /// Imports a file.  With an alias, its declarations get the alias as a suffix, and the host may
    /// select another file for it than for the plain name.
    fn import(&mut self, file: &str, name: &str, alias: &str) -> Result<(), String> {
        let (name, text) = self.library(file, self.program.import(alias).unwrap_or(name))?;
        let key = (name, alias.to_owned());
        if self.imported.contains(&key) {
            return Ok(());
        }
        self.imported.push(key);
        let file = format!("lib/{name}.wgsl");
        let text = read(&file, text)?;
        if alias.is_empty() {
            self.append(&file, &text)
        } else {
            self.append(&file, &suffixed(&text, alias))
        }
    }

    /// Returns `const WG: u32 = 128u; // why` with the program's value for WG, if it has one.
    fn take_constant(&mut self, file: &str, line: &str) -> Option<String> {
        if file != self.program.file {
            return None;
        }
        let (name, rest) = line.strip_prefix("const ")?.split_once(':')?;
        let (kind, _) = rest.split_once('=')?;
        let at = self.unset.iter().position(|(known, _)| *known == name)?;
        let (_, value) = self.unset.remove(at);
        Some(format!("const {name}:{kind}= {value};"))
    }
}

/// Appends a suffix to every name declared in the text.
fn suffixed(text: &str, suffix: &str) -> String {
    let names: Vec<_> = text.lines().filter_map(declared).collect();
    let mut out = String::new();
    for word in text.split_inclusive(|c| !word_char(c)) {
        let name = word.trim_end_matches(|c| !word_char(c));
        out.push_str(name);
        if names.contains(&name) {
            out.push('_');
            out.push_str(suffix);
        }
        out.push_str(&word[name.len()..]);
    }
    out
}

/// Name that a line declares.
fn declared(line: &str) -> Option<&str> {
    let rest = ["fn ", "alias ", "const "].iter().find_map(|word| line.strip_prefix(word))?;
    rest.split(|c| !word_char(c)).next()
}

fn word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn read(file: &str, built_in: &'static str) -> Result<Cow<'static, str>, String> {
    match env::var_os(OVERRIDE).filter(|dir| !dir.is_empty()) {
        None => Ok(built_in.into()),
        Some(dir) => {
            let path = Path::new(&dir).join(file);
            let text = fs::read_to_string(&path);
            text.map(Cow::from)
                .map_err(|e| format!("{OVERRIDE}: cannot read `{}`: {e}", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::KernelId;

    fn program(text: &'static str, constants: Vec<(&'static str, Const)>) -> Program {
        Program {
            kernel: KernelId::Copy,
            file: "k.wgsl",
            text,
            imports: vec![("elem", "elem_f32")],
            constants,
            bindings: Vec::new(),
            params_bytes: 0,
        }
    }

    #[test]
    fn constants_are_set_and_imports_come_once() {
        let text = "#import elem\n#import elem\nconst D: u32 = 1u; // width\nfn k() {}\n";
        let out = assemble(&program(text, vec![("D", Const::U32(7))])).expect("good text");
        assert!(out.text.ends_with("const D: u32 = 7u;\nfn k() {}\n"), "{}", out.text);
        assert_eq!(out.text.matches("alias Elem4").count(), 1);
        let last = out.text.lines().count();
        assert_eq!(out.origin(last), Some(("k.wgsl", 4)));
        assert_eq!(out.origin(1), Some(("lib/elem_f32.wgsl", 1)));
    }

    #[test]
    fn aliases_are_suffixes_and_may_stand_for_another_file() {
        let mut program = program("#import elem as x\n#import elem as w\nfn k() {}\n", vec![]);
        program.imports.push(("w", "elem_f16"));
        let text = assemble(&program).expect("good text").text;
        for line in [
            "alias Elem4_x = vec4<f32>;",
            "alias Elem4_w = vec2<u32>;",
            "fn load4_w(stored: Elem4_w) -> vec4<f32> {",
            "fn store4_x(value: vec4<f32>) -> Elem4_x {",
        ] {
            assert!(text.contains(line), "`{line}` in {text}");
        }
    }

    #[test]
    fn missing_imports_and_constants_are_named() {
        let error = |text, constants| assemble(&program(text, constants)).expect_err("refused");
        assert!(error("#import nowhere\n", vec![]).contains("unknown import `nowhere`"));
        assert!(error("fn k() {}\n", vec![("WG", Const::U32(1))]).contains("no `const WG`"));
    }
}
