//! The C API: its header, and programs in C and C++ that use and misuse the installed library,
//! plain, under AddressSanitizer and under valgrind.
//!
//! `packaging/install-capi` installs the library that cargo built with these tests; with
//! `JINABERT_SLOW=1` it builds the library itself, without the features of other packages.

#[path = "../../../../tests/common/cargo.rs"]
mod cargo;
#[path = "../../../../tests/common/mod.rs"]
#[allow(dead_code, reason = "each test target uses a part")]
mod common;
mod header;
mod kit;

use common::ignored;
use kit::{Installed, Kind, Program, have};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use std::{path::Path, process::Command, sync::Arc};

/// Source file: the languages to compile it in, the ways to run it, and the expected output.
struct Source {
    name: &'static str,
    path: &'static str,
    arguments: &'static [&'static str],
    says: &'static str,
}

const MODEL: &str = "tests/fixtures/tiny-natural";
const RERANKER: &str = "tests/fixtures/tiny-reranker-bpe";
const TASKS: &str = "tests/fixtures/v3-original";

const SOURCES: &[Source] = &[
    Source {
        name: "smoke",
        path: "crates/jinabert-capi/tests/capi/smoke.c",
        arguments: &[MODEL, RERANKER, TASKS, "cpu"],
        says: "all as it should be",
    },
    Source {
        name: "threads",
        path: "crates/jinabert-capi/tests/capi/threads.c",
        arguments: &[MODEL, "cpu"],
        says: "all as it should be",
    },
    Source {
        name: "example",
        path: "examples/embed.c",
        arguments: &["models/jinabert-mini-en", "cpu"],
        says: "cosine 0.",
    },
    Source {
        name: "example",
        path: "examples/embed.cpp",
        arguments: &["models/jinabert-mini-en", "cpu"],
        says: "text 1: `texts[1]` is not UTF-8 from byte 0 on: 0xff",
    },
];

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = header::trials();
    let missing = ["cc", "c++"].into_iter().find(|tool| !have(tool));
    match (cfg!(unix), missing) {
        (false, _) => {
            trials.push(ignored("programs", "NOT RUN: packaging/install-capi is for Unix"))
        }
        (_, Some(tool)) => trials.push(ignored("programs", &format!("NOT RUN: no {tool}"))),
        // The library is not built if only the names are listed.
        _ => trials.extend(programs(&Arc::new(Installed::default()))),
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn programs(installed: &Arc<Installed>) -> Vec<Trial> {
    let mut trials = Vec::new();
    let mut push =
        |name: String, tool: &str, run: Box<dyn FnOnce() -> Result<(), Failed> + Send>| {
            trials.push(if have(tool) {
                Trial::test(name, run)
            } else {
                ignored(&name, &format!("NOT RUN: no {tool}"))
            });
        };
    for source in SOURCES {
        let languages: &[&str] = match source.path {
            path if path.ends_with(".cpp") => &["c++"],
            path if path.starts_with("crates/") => &["c", "c++"],
            _ => &["c"],
        };
        for &language in languages {
            for kind in [Kind::Plain, Kind::Static, Kind::Address, Kind::Valgrind] {
                let tool = if kind == Kind::Valgrind { "valgrind" } else { "cc" };
                let name = source.name;
                let installed = installed.clone();
                let run = move || {
                    let program = Program::compile(&installed, source.path, language, kind)?;
                    let said = program.run(source.arguments, "")?;
                    if said.contains(source.says) {
                        Ok(())
                    } else {
                        Err(format!("`{}` is not in: {said}", source.says).into())
                    }
                };
                push(format!("{kind}/{name}/{language}"), tool, Box::new(run));
            }
        }
    }
    for kind in [Kind::Address, Kind::Valgrind] {
        let tool = if kind == Kind::Valgrind { "valgrind" } else { "cc" };
        let faults = match kind {
            Kind::Valgrind => [("leak", "definitely lost"), ("overrun", "Invalid write")],
            _ => [("leak", "detected memory leaks"), ("overrun", "heap-buffer-overflow")],
        };
        for (fault, says) in faults {
            let installed = installed.clone();
            let run = move || {
                let program = Program::compile(
                    &installed,
                    "crates/jinabert-capi/tests/capi/faulty.c",
                    "c",
                    kind,
                )?;
                match program.run(&[MODEL, fault], "") {
                    Err(found) if found.message().is_some_and(|found| found.contains(says)) => {
                        Ok(())
                    }
                    other => Err(format!("the {fault} was not found: {other:?}").into()),
                }
            };
            push(format!("{kind}/finds_a_fault/{fault}"), tool, Box::new(run));
        }
    }
    let (vulkan, _) = common::devices();
    let vulkan = vulkan.iter().any(|(name, _)| name.starts_with("vulkan"));
    for device in ["cpu", "vulkan"] {
        let name = format!("same_as_the_command_line/{device}");
        if device == "vulkan" && !vulkan {
            trials.push(ignored(&name, "NOT RUN: no such device"));
            continue;
        }
        let installed = installed.clone();
        trials.push(Trial::test(name, move || same_as_the_command_line(&installed, device)));
    }
    for (name, tool, run) in [
        ("fork", "cc", fork as fn(&Installed) -> Result<(), Failed>),
        ("exports", "nm", exports),
        ("pkg_config", "pkg-config", pkg_config),
        ("cmake", "cmake", cmake),
    ] {
        let installed = installed.clone();
        trials.push(if have(tool) {
            Trial::test(name, move || run(&installed))
        } else {
            ignored(name, &format!("NOT RUN: no {tool}"))
        });
    }
    trials
}

const TEXTS: &str = "a\nA blue cat\nA cat that is blue\nTaxes are due in April, and nobody likes it.\n\
                     日本語 and ünïcödé\n1 2 3 4 5 6 7 8 9 10\n";

/// A C program gets the same results as the command line, on the same device.
fn same_as_the_command_line(installed: &Installed, device: &str) -> Result<(), Failed> {
    let model = "models/jinabert-mini-en";
    let program =
        Program::compile(installed, "crates/jinabert-capi/tests/capi/vectors.c", "c", Kind::Plain)?;
    let said = program.run(&[model, device], TEXTS)?;
    let program = kit::built("jinabert")?;
    let mut command = Command::new(program);
    command.args(["--quiet", "embed", "--no-tune", "--model", model, "--device", device]);
    command.env("JINABERT_CACHE", "").env_remove("JINABERT_MODEL");
    let expected = kit::output(&mut command, TEXTS)?;
    let row = |line: &str| -> Result<Vec<f64>, Failed> {
        line.split(' ').map(|x| x.parse().map_err(|e| format!("{x}: {e}").into())).collect()
    };
    let ours: Vec<_> = said.lines().map(row).collect::<Result<_, _>>()?;
    let theirs: Vec<Vec<f64>> = expected.lines().map(components).collect();
    let sizes = |rows: &[Vec<f64>]| rows.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(&ours), sizes(&theirs));
    assert_eq!(ours.len(), TEXTS.lines().count());
    let pairs = ours.iter().flatten().zip(theirs.iter().flatten());
    let furthest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    if furthest <= 1e-6 {
        Ok(())
    } else {
        Err(format!("{furthest:e} between a program in C and the command line").into())
    }
}

/// Numbers in a line of `jinabert embed`.
fn components(line: &str) -> Vec<f64> {
    let line: Value = serde_json::from_str(line).expect("JSON");
    let line = line.get("embedding").unwrap_or(&line);
    let numbers = line.as_array().expect("a list of numbers");
    numbers.iter().map(|x| x.as_f64().expect("a number")).collect()
}

/// A call in a fork is refused instead of waiting forever.
fn fork(installed: &Installed) -> Result<(), Failed> {
    let program =
        Program::compile(installed, "crates/jinabert-capi/tests/capi/fork.c", "c", Kind::Plain)?;
    let said = program.run(&[MODEL, "cpu"], "")?;
    assert!(said.contains("all as it should be"), "{said}");
    Ok(())
}

/// The shared library exports the functions of the header, and no other symbols of this crate.
fn exports(installed: &Installed) -> Result<(), Failed> {
    let library = installed.prefix()?.join("lib/libjinabert.so");
    let symbols = kit::output(Command::new("nm").args(["-D", "--defined-only"]).arg(library), "")?;
    let mut found: Vec<_> =
        symbols.lines().filter_map(|line| line.split(' ').next_back()).collect();
    found.sort_unstable();
    let mut declared = header::functions();
    declared.sort_unstable();
    assert_eq!(found, declared);
    Ok(())
}

/// Compiles the example with the command in its first lines.
fn pkg_config(installed: &Installed) -> Result<(), Failed> {
    let prefix = installed.prefix()?;
    let dir = kit::scratch("pkg_config")?;
    let mut command = Command::new("sh");
    let line = "cc examples/embed.c $(pkg-config --cflags --libs jinabert) -o \"$0/embed\" && \
                cc -x c examples/embed.c $(pkg-config --static --cflags jinabert) -x none \
                $(pkg-config --variable=libdir jinabert)/libjinabert.a \
                $(pkg-config --static --libs-only-l jinabert | sed s/-ljinabert//) -o \"$0/static\" && \
                LD_LIBRARY_PATH=$(pkg-config --variable=libdir jinabert) \
                \"$0/embed\" models/jinabert-mini-en cpu && \"$0/static\" models/jinabert-mini-en cpu";
    command.arg("-ec").arg(line).arg(&dir);
    command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let said = kit::output(&mut command, "")?;
    assert_eq!(said.matches("cosine 0.").count(), 2, "{said}");
    Ok(())
}

fn cmake(installed: &Installed) -> Result<(), Failed> {
    let prefix = installed.prefix()?;
    for fixed in ["OFF", "ON"] {
        let dir = kit::scratch(&format!("cmake-{fixed}"))?;
        let mut configure = Command::new("cmake");
        let module = prefix.join("share/jinabert/cmake");
        configure.args(["-S", "crates/jinabert-capi/tests/capi/cmake", "-B"]).arg(&dir);
        configure.arg(format!("-DCMAKE_MODULE_PATH={}", module.display()));
        configure.arg(format!("-DEXPECTED_ABI={}", jinabert_capi::ABI_VERSION));
        configure.arg(format!("-DJINABERT_STATIC={fixed}"));
        kit::output(&mut configure, "")?;
        kit::output(Command::new("cmake").arg("--build").arg(&dir), "")?;
        for program in ["embed_c", "embed_cpp"] {
            let mut run = Command::new(dir.join(program));
            let said = kit::output(run.args(["models/jinabert-mini-en", "cpu"]), "")?;
            assert!(said.contains("cosine 0."), "{program}: {said}");
        }
    }
    cmake_versions(&prefix)
}

/// Other versions are refused, by the find module and by the package's own files.
fn cmake_versions(prefix: &Path) -> Result<(), Failed> {
    let version = env!("CARGO_PKG_VERSION");
    let [major, minor, patch]: [u32; 3] = version
        .splitn(3, '.')
        .map(|number| number.parse().expect("a number"))
        .collect::<Vec<_>>()
        .try_into()
        .expect("three numbers");
    let later = format!("{major}.{minor}.{}", patch + 1);
    let next = format!("{major}.{}", minor + 1);
    let accepted = [
        format!("{major}.{minor}"),
        version.to_owned(),
        format!("{version} EXACT"),
        format!("{major}.{minor}...{}.0", major + 1),
    ];
    let refused = [
        format!("{}.0", major + 7),
        later,
        next.clone(),
        format!("{next} EXACT"),
        format!("{next}...{}.0", major + 1),
        format!("{}", major + 1),
    ];
    let dir = kit::scratch("cmake-versions")?;
    let mut configure = Command::new("cmake");
    configure.args(["-S", "crates/jinabert-capi/tests/capi/cmake/versions", "-B"]).arg(&dir);
    let module = prefix.join("share/jinabert/cmake");
    configure.arg(format!("-DCMAKE_MODULE_PATH={}", module.display()));
    configure.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()));
    configure.arg(format!("-DACCEPTED={}", accepted.join(";")));
    configure.arg(format!("-DREFUSED={}", refused.join(";")));
    configure.arg(format!("-DEXPECTED={version}"));
    kit::output(&mut configure, "")?;
    Ok(())
}
