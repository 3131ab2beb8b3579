//! Runs ended by a signal: their exit status shows it, and no files are left.

use crate::kit::{arg, end, jinabert, names, natural};
use std::{
    fs,
    io::Write,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Run that waits for more input and has begun its output.
fn waiting(mut command: Command, dir: &Path, files: usize) -> (Child, ChildStdin) {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a program");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"the cat\n").expect("a pipe");
    let start = Instant::now();
    while names(dir).len() < files {
        assert!(start.elapsed() < Duration::from_secs(60), "no output is begun");
        thread::sleep(Duration::from_millis(5));
    }
    (child, stdin)
}

fn send(signal: &str, child: &Child) {
    let mut kill = Command::new("kill");
    let sent = kill.args(["-s", signal, &child.id().to_string()]).status().expect("kill");
    assert!(sent.success(), "{signal}");
}

fn embed(out: &Path) -> Command {
    jinabert(&["embed", "--model", arg(&natural()), "--output", arg(out)])
}

/// True if this process ignores a signal, as under `nohup`: its children would, too.
fn is_ignored(number: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}

#[test]
fn signals_leave_no_temporary_files() {
    for (signal, number) in [("TERM", 15), ("INT", 2), ("HUP", 1)] {
        if is_ignored(number) {
            eprintln!("NOT RUN: SIG{signal}, which this process ignores");
            continue;
        }
        for name in ["v.npy", "v.jsonl"] {
            let place = tempfile::tempdir().expect("a temporary directory");
            let out = place.path().join(name);
            fs::write(&out, "old").expect("a writable directory");
            let (mut child, _stdin) = waiting(embed(&out), place.path(), 2);
            send(signal, &child);
            let status = child.wait().expect("a child");
            assert_eq!(status.signal(), Some(number), "{signal} {name}: {status}");
            assert_eq!(names(place.path()), [name], "{signal}");
            assert_eq!(fs::read(&out).expect("a file"), b"old", "{signal}");
        }
    }
}

/// `nohup` and background jobs of scripts make programs ignore signals.
#[test]
fn ignored_signals_stay_ignored() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let out = place.path().join("v.jsonl");
    let program = embed(&out);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\""]).arg(program.get_program());
    shell.args(program.get_args()).env("JINABERT_DEVICE", "cpu").env("JINABERT_CACHE", "");
    let (child, stdin) = waiting(shell, place.path(), 1);
    send("HUP", &child);
    send("INT", &child);
    drop(stdin);
    assert_eq!(end(child), (Some(0), String::new()));
    assert_eq!(names(place.path()), ["v.jsonl"]);
}
