//! Runs the program with a timeout; reads and edits model directories.

use crate::root::root;
use serde_json::{Map, Value, json};
use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Timeout, longer than any run here takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Exit code and output of a run.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    /// Asserts a documented refusal: exit code, one line that contains all of `says`, no output.
    pub fn refused(&self, case: &str, code: i32, says: &[&str]) {
        self.line(case, code, says);
        assert!(self.stdout.is_empty(), "{case}: {}", String::from_utf8_lossy(&self.stdout));
    }

    /// Asserts as [`Ran::refused`], but part of the output may have been written.
    pub fn line(&self, case: &str, code: i32, says: &[&str]) {
        // If devices are listed, libraries of the drivers may have written to stderr before.
        let own = if code == 69 { self.stderr.rfind("jinabert: ").unwrap_or(0) } else { 0 };
        let said = &self.stderr[own..];
        assert_eq!(self.code, Some(code), "{case}: {said}");
        assert!(!said.contains("panicked"), "{case}: {said}");
        let line = said.strip_prefix("jinabert: ").and_then(|said| said.strip_suffix('\n'));
        let line = line.unwrap_or_else(|| panic!("{case}: not a line: {said:?}"));
        assert!(!line.contains('\n'), "{case}: more than one line: {said}");
        for part in says {
            assert!(line.contains(part), "{case}: `{part}` is not in: {line}");
        }
    }

    /// Asserts success without messages; returns the output.
    pub fn output(self, case: &str) -> Vec<u8> {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{case}");
        self.stdout
    }
}

/// The program with `--quiet`, on the CPU, without the caller's variables and files of its own.
pub fn jinabert(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jinabert"));
    command.arg("--quiet").args(args).env_remove("JINABERT_MODEL");
    command.env("JINABERT_DEVICE", "cpu").env("JINABERT_CACHE", "");
    command
}

/// Runs `jinabert embed` with a model directory.
pub fn embed(model: &Path, args: &[&str], stdin: &[u8]) -> Ran {
    let mut command = jinabert(&["embed"]);
    run(command.args(args).arg("--model").arg(model), stdin)
}

/// Runs a command to its end.
pub fn run(command: &mut Command, stdin: &[u8]) -> Ran {
    let mut child = start(command, stdin);
    let stdout = drain(child.stdout.take().expect("piped"));
    let (code, stderr) = end(child);
    Ran { code, stdout: stdout.join().expect("bytes"), stderr }
}

/// Starts a command that may leave its input unread.
pub fn start(command: &mut Command, stdin: &[u8]) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a program");
    let mut sink = child.stdin.take().expect("piped");
    let bytes = stdin.to_vec();
    thread::spawn(move || sink.write_all(&bytes));
    child
}

/// Waits for a command to end; returns its exit code and standard error.
pub fn end(mut child: Child) -> (Option<i32>, String) {
    let stderr = drain(child.stderr.take().expect("piped"));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if start.elapsed() > LIMIT {
            child.kill().expect("a child");
            child.wait().expect("a child");
            panic!("hangs");
        }
        thread::sleep(Duration::from_millis(5));
    };
    let stderr = String::from_utf8(stderr.join().expect("bytes")).expect("UTF-8");
    (status.code(), stderr)
}

fn drain(mut source: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).expect("a pipe");
        bytes
    })
}

/// Directory of a fixture.
pub fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures").join(name)
}

/// One layer, hidden size 64, 400 tokens; [CLS] is 2, [SEP] 3, `a` 28; texts of up to 1024 tokens.
pub fn natural() -> PathBuf {
    fixture("tiny-natural")
}

/// Names of the files in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<_> = entries.map(|entry| name(entry.expect("an entry"))).collect();
    names.sort_unstable();
    names
}

/// A path as an argument.
pub fn arg(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Copies the files of a model.
pub fn copy_model(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a writable directory");
    for name in names(from) {
        let model = name == "config.json" || name == "tokenizer.json";
        if model || name.contains(".safetensors") {
            fs::copy(from.join(&name), to.join(&name)).expect("a copy");
        }
    }
}

/// Copies a fixture, so that a test can damage it.
pub fn copy(fixture_name: &str) -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let dir = place.path().join("model");
    copy_model(&fixture(fixture_name), &dir);
    (place, dir)
}

/// Edits a JSON file.
pub fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("a writable file");
}

/// Sets a key of `config.json`.
pub fn configure(dir: &Path, key: &str, value: Value) {
    edit(&dir.join("config.json"), |config| config[key] = value);
}

/// Weights file of a directory.
pub fn weights(dir: &Path) -> PathBuf {
    dir.join("model.safetensors")
}

/// Safetensors file in parts: the header, and the data to which its offsets refer.
pub struct Stored {
    pub header: Map<String, Value>,
    pub data: Vec<u8>,
}

impl Stored {
    pub fn open(path: &Path) -> Self {
        let bytes = fs::read(path).expect("a file");
        let (length, rest) = bytes.split_at(8);
        let length = u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
        let header = serde_json::from_slice(&rest[..length]).expect("JSON");
        Self { header, data: rest[length..].to_vec() }
    }

    pub fn write(&self, path: &Path) {
        let header = Value::Object(self.header.clone()).to_string();
        write_raw(path, header.len() as u64, header.as_bytes(), &self.data);
    }

    /// Start and end of a tensor's bytes.
    pub fn range(&self, name: &str) -> (usize, usize) {
        let offsets = self.header[name]["data_offsets"].clone();
        serde_json::from_value(offsets).expect("two offsets")
    }

    /// Adds a tensor after all others.
    pub fn push(&mut self, name: &str, dtype: &str, shape: &[u64], bytes: &[u8]) {
        let start = self.data.len();
        self.data.extend_from_slice(bytes);
        let tensor =
            json!({"dtype": dtype, "shape": shape, "data_offsets": [start, self.data.len()]});
        self.header.insert(name.to_owned(), tensor);
    }

    /// Removes a tensor and closes the gap.
    pub fn remove(&mut self, name: &str) {
        let (start, end) = self.range(name);
        self.header.remove(name);
        self.data.drain(start..end);
        for tensor in self.header.values_mut().filter_map(|t| t.get_mut("data_offsets")) {
            for offset in tensor.as_array_mut().expect("two offsets") {
                let n = offset.as_u64().expect("an offset");
                *offset = json!(if n >= end as u64 { n - (end - start) as u64 } else { n });
            }
        }
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        let tensor = self.header.remove(from).expect("a tensor");
        self.header.insert(to.to_owned(), tensor);
    }
}

/// Writes a safetensors file from its parts, valid or not.
pub fn write_raw(path: &Path, length: u64, header: &[u8], data: &[u8]) {
    fs::write(path, [&length.to_le_bytes(), header, data].concat()).expect("a writable file");
}

/// Edits the weights of a directory.
pub fn rewrite(dir: &Path, change: impl FnOnce(&mut Stored)) {
    let mut stored = Stored::open(&weights(dir));
    change(&mut stored);
    stored.write(&weights(dir));
}
