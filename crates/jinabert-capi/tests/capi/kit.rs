//! Compilers, and the programs that they build.

use super::{cargo::remove_test_variables, common::root};
use libtest_mimic::Failed;
use std::{
    env, fmt, fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Directory of cargo's build output.
fn built_dir() -> PathBuf {
    let test = env::current_exe().expect("this program's path");
    test.parent().and_then(Path::parent).expect("below deps/").to_owned()
}

/// Program of another package, which cargo builds for `cargo test --workspace`.
pub fn built(program: &str) -> Result<PathBuf, Failed> {
    let path = built_dir().join(program);
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("{} is not there: run cargo build", path.display()).into())
    }
}

/// Directory where the library is installed for these tests, on first use.
#[derive(Default)]
pub struct Installed(OnceLock<Result<PathBuf, String>>);

impl Installed {
    pub fn prefix(&self) -> Result<PathBuf, Failed> {
        let install = || {
            let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi");
            let mut command = Command::new("packaging/install-capi");
            command.arg(&prefix);
            match env::var_os("JINABERT_SLOW") {
                Some(_) => command.args(["--profile", "dev"]),
                None => command.arg("--built").arg(built_dir().join("deps")),
            };
            remove_test_variables(&mut command);
            output(&mut command, "")
                .map(|_| prefix)
                .map_err(|e| e.message().unwrap_or("").to_owned())
        };
        self.0.get_or_init(install).clone().map_err(Failed::from)
    }
}

/// Method of linking and running a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Shared library.
    Plain,
    /// Static library.
    Static,
    /// Static library, under AddressSanitizer with its leak detector.
    Address,
    /// Static library, under valgrind.
    Valgrind,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "shared",
            Self::Static => "static",
            Self::Address => "address_sanitizer",
            Self::Valgrind => "valgrind",
        })
    }
}

/// Compiled program.
pub struct Program {
    path: PathBuf,
    kind: Kind,
    prefix: PathBuf,
}

impl Program {
    pub fn compile(
        installed: &Installed,
        source: &str,
        language: &str,
        kind: Kind,
    ) -> Result<Self, Failed> {
        let prefix = installed.prefix()?;
        let path = scratch("programs")?.join("program");
        let (compiler, standard) =
            if language == "c" { ("cc", "-std=c11") } else { ("c++", "-std=c++17") };
        let mut command = Command::new(compiler);
        command.args([standard, "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic"]);
        command.args(["-D_POSIX_C_SOURCE=200809L", "-pthread", "-x", language, source]);
        command.args(["-x", "none"]).arg("-I").arg(prefix.join("include"));
        if kind == Kind::Address {
            // kit.h defines `dlclose` in the program, and libraries must be able to find it.
            command.args(["-fsanitize=address", "-fno-omit-frame-pointer", "-rdynamic"]);
        }
        match kind {
            Kind::Plain => command.arg("-L").arg(prefix.join("lib")).arg("-ljinabert"),
            _ => command.arg(prefix.join("lib/libjinabert.a")).args(private(&prefix)?),
        };
        command.args(["-lm", "-o"]).arg(&path);
        output(&mut command, "")?;
        Ok(Self { path, kind, prefix })
    }

    /// Runs the program; returns its standard output.
    pub fn run(&self, arguments: &[&str], input: &str) -> Result<String, Failed> {
        let mut command = match self.kind {
            Kind::Valgrind => {
                let mut command = Command::new("valgrind");
                command.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]);
                command.args(["--errors-for-leak-kinds=definite", "--show-leak-kinds=definite"]);
                command.arg(&self.path);
                command
            }
            _ => Command::new(&self.path),
        };
        command.args(arguments).env("JINABERT_CACHE", "");
        if self.kind == Kind::Plain {
            command.env("LD_LIBRARY_PATH", self.prefix.join("lib"));
        }
        if self.kind == Kind::Address {
            let options = "detect_leaks=1:detect_stack_use_after_return=1";
            command.env("ASAN_OPTIONS", options);
        }
        // The system's loader reads past the end of a driver's run path, which valgrind reports.
        if self.kind == Kind::Valgrind {
            command.env("VK_DRIVER_FILES", "/nonexistent");
        }
        within(&mut command, input, Duration::from_secs(600))
    }
}

/// System libraries that programs with the static library need.
fn private(prefix: &Path) -> Result<Vec<String>, Failed> {
    let described = fs::read_to_string(prefix.join("lib/pkgconfig/jinabert.pc"))?;
    let line = described.lines().find_map(|line| line.strip_prefix("Libs.private: "));
    Ok(line.unwrap_or_default().split_whitespace().map(str::to_owned).collect())
}

/// True if the program is installed.
pub fn have(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// New directory for the caller.
pub fn scratch(name: &str) -> io::Result<PathBuf> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("capi-{name}-{number}"));
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Runs a command in the root of the sources, asserts success; returns its standard output.
pub fn output(command: &mut Command, input: &str) -> Result<String, Failed> {
    within(command, input, Duration::from_secs(3600))
}

/// Runs a command as [`output`], with a timeout.
fn within(command: &mut Command, input: &str, limit: Duration) -> Result<String, Failed> {
    command.current_dir(root());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    thread::spawn(move || stdin.write_all(input.as_bytes())); // it may end before reading all
    let stdout = drain(child.stdout.take().expect("piped"));
    let stderr = drain(child.stderr.take().expect("piped"));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Err(format!("{command:?}: no end after {limit:?}").into());
        }
        thread::sleep(Duration::from_millis(10));
    };
    let said = |thread: JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
    };
    let stdout = said(stdout);
    let stderr = said(stderr);
    if status.success() {
        Ok(stdout)
    } else {
        Err(format!("{command:?}: {status}\n{stdout}{stderr}").into())
    }
}

fn drain(mut source: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = source.read_to_end(&mut bytes); // the bytes read so far are reported
        bytes
    })
}
