//! Completions and manual pages, as read by the shells and `man`.

use crate::kit::{arg, end, jinabert, names, run};
use std::{
    fs,
    io::{self, Write},
    process::{Command, Stdio},
};

/// Subcommands in `jinabert --help`, or in the help of a command.
fn commands(above: &[&str]) -> Vec<String> {
    let help = text(&[above, &["--help"]].concat());
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let list = list.take_while(|line| !line.is_empty());
    let names = list.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn text(args: &[&str]) -> String {
    let output = run(&mut jinabert(args), b"").output(&args.join(" "));
    String::from_utf8(output).expect("UTF-8")
}

/// Runs a system program on a text; prints a note to the terminal if it is not installed.
fn tool(program: &str, args: &[&str], stdin: &str) -> Option<String> {
    let found = Command::new(program).arg("--version").output();
    if found.is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        // Not eprintln, whose output is captured if a test passes.
        writeln!(io::stderr(), "NOT RUN: no {program}").expect("a place for it");
        return None;
    }
    let ran = run(Command::new(program).args(args), stdin.as_bytes());
    Some(String::from_utf8(ran.output(program)).expect("UTF-8"))
}

#[test]
fn bash_completes_commands_options_and_values() {
    let script = text(&["completions", "bash"]);
    for (words, expected) in [
        (&["jinabert", "per"][..], "perplexity"),
        (&["jinabert", "bench", "comp"], "compare"),
        (&["jinabert", "embed", "--late"], "--late-chunking"),
        (&["jinabert", "serve", "--payl"], "--payload-limit"),
        (&["jinabert", "embed", "--precision", "ub"], "ubinary"),
        (&["jinabert", "embed", "--no-such"], ""),
    ] {
        let [.., before, last] = words else { unreachable!("two words or more") };
        // As bash calls a completion: with all words, and the index of the one to complete.
        let ask = format!(
            "{script}\nCOMP_WORDS=({}); COMP_CWORD={}\n_jinabert jinabert '{last}' '{before}'\n\
             printf '%s' \"${{COMPREPLY[*]}}\"\n",
            words.join(" "),
            words.len() - 1
        );
        let Some(reply) = tool("bash", &["--norc", "-s"], &ask) else { return };
        assert_eq!(reply, expected, "{words:?}");
    }
    tool("bash", &["-n"], &script);
}

#[test]
fn every_shell_gets_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = text(&["completions", shell]);
        let names = commands(&[]);
        assert!(names.iter().any(|name| name == "multi-vector"), "{names:?}");
        for name in names {
            assert!(script.contains(&name), "{shell}: no {name}");
        }
        assert!(script.contains("late-chunking"), "{shell}");
    }
    tool("zsh", &["-n"], &text(&["completions", "zsh"]));
    tool("fish", &["--no-execute", "/dev/stdin"], &text(&["completions", "fish"]));
    let unknown = run(&mut jinabert(&["completions", "tcsh"]), b"");
    assert_eq!(unknown.code, Some(2), "{}", unknown.stderr);
    assert!(unknown.stderr.contains("'tcsh'") && unknown.stderr.contains("powershell"));
}

#[test]
fn there_is_a_page_for_every_command() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let dir = place.path().join("share/man1");
    assert_eq!(text(&["man", "--dir", arg(&dir)]), "");
    let bench = ["all", "compare", "model"];
    assert_eq!(commands(&["bench"]).len(), bench.len() + 1, "and help");
    let top: Vec<_> = commands(&[]).into_iter().filter(|name| name != "help").collect();
    let mut paths = vec![vec![]];
    paths.extend(top.iter().map(|name| vec![name.as_str()]));
    paths.extend(bench.map(|name| vec!["bench", name]));
    let title = |path: &[&str]| [&["jinabert"], path].concat().join("-");
    let mut expected: Vec<_> = paths.iter().map(|path| title(path) + ".1").collect();
    expected.sort_unstable();
    assert_eq!(names(&dir), expected);

    // The page on standard output is the same.
    for path in &paths {
        let title = title(path);
        let page = fs::read_to_string(dir.join(format!("{title}.1"))).expect("a page");
        assert!(page.contains(&format!("\n.TH {title} 1 \"\" \"jinabert ")), "{page}");
        assert_eq!(text(&[&["man"], &path[..]].concat()), page, "{title}");
    }
    let program = text(&["man"]);
    for name in &top {
        let page = format!("jinabert\\-{}(1)", name.replace('-', "\\-"));
        assert!(program.contains(&page), "no {page}");
    }
    assert!(program.contains("\n.SH EXAMPLES\n.nf\n  jinabert embed \"A blue cat\""), "{program}");
    assert!(program.contains("\n.SH \"EXIT CODES\"\n.nf\n   0  success"), "{program}");

    let missing = run(&mut jinabert(&["man", "bench", "cat"]), b"");
    missing.refused("no such command", 2, &["`bench cat`"]);
    let file = place.path().join("file");
    fs::write(&file, "").expect("a file");
    run(&mut jinabert(&["man", "--dir", arg(&file)]), b"").refused("a file", 73, &[arg(&file)]);
}

#[test]
fn formatters_find_nothing_wrong_with_the_pages() {
    let place = tempfile::tempdir().expect("a temporary directory");
    text(&["man", "--dir", arg(place.path())]);
    // groff's warnings go to standard error, where nothing is expected; its type is plain, since
    // bold would be overstruck.
    let groff = &["-man", "-ww", "-K", "utf8", "-T", "utf8", "-P-c", "-P-b", "-P-u"][..];
    for (program, args) in [("mandoc", &["-T", "lint", "-W", "error"][..]), ("groff", groff)] {
        for name in names(place.path()) {
            let page = fs::read_to_string(place.path().join(&name)).expect("a page");
            let Some(said) = tool(program, args, &page) else { break };
            match program {
                "mandoc" => assert_eq!(said, "", "{name}"),
                _ => assert!(said.contains("SYNOPSIS") && said.contains("OPTIONS"), "{name}"),
            }
        }
    }
}

#[test]
fn a_closed_pipe_is_no_panic() {
    for args in [&["completions", "bash"][..], &["completions", "zsh"], &["man"], &["man", "serve"]]
    {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let mut command = jinabert(args);
        command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
        let child = command.spawn().expect("a program");
        drop(command); // closes its end of the pipe
        let (code, stderr) = end(child);
        assert_eq!(code, Some(74), "{args:?}: {stderr}");
        let one = stderr.starts_with("jinabert: writing failed: ") && stderr.lines().count() == 1;
        assert!(one, "{args:?}: {stderr}");
    }
}
