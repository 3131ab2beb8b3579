//! Options from environment variables.

use crate::kit::{arg, embed, fixture, jinabert, natural, run};
use std::process::Command;

/// Runs the program without the caller's variables.
fn bare(args: &[&str]) -> Command {
    let mut command = jinabert(args);
    command.env_remove("JINABERT_DEVICE");
    command
}

#[test]
fn empty_variables_are_not_set() {
    let expected = embed(&natural(), &["a"], b"").output("an option");
    let mut command = bare(&["embed", "a", "--device", "cpu", "--model", arg(&natural())]);
    command.env("JINABERT_MODEL", "").env("JINABERT_DEVICE", "");
    assert_eq!(run(&mut command, b"").output("options win"), expected);
    let mut command = bare(&["info", "--json"]);
    let shipped = run(&mut command, b"").output("the shipped model");
    command.env("JINABERT_MODEL", "");
    assert_eq!(run(&mut command, b"").output("no model named"), shipped);
    // An option that is given with an empty value is still an error.
    let ran = run(&mut bare(&["embed", "a", "--device", ""]), b"");
    assert!(ran.code == Some(2) && ran.stderr.contains("--device"), "{}", ran.stderr);
}

/// Sets every variable in the help to empty: the run fails only because the model is missing.
#[cfg(feature = "server")]
#[test]
fn every_variable_of_serve_may_be_empty() {
    let help = run(&mut bare(&["serve", "--help"]), b"").output("help");
    let help = String::from_utf8(help).expect("UTF-8");
    let named = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
    let named: Vec<&str> = named.collect();
    assert!(named.len() > 15 && named.contains(&"JINABERT_API_KEY"), "{named:?}");
    let mut command = bare(&["serve", "--model", "/nowhere/model"]);
    command.envs(named.iter().map(|name| (name, "")));
    let ran = run(&mut command, b"");
    ran.refused("all empty", 66, &["/nowhere/model"]);
    assert!(!ran.stderr.contains("JINABERT_"), "{}", ran.stderr);
}

#[cfg(feature = "server")]
#[test]
fn bad_values_name_their_variable() {
    for (name, value) in [
        ("JINABERT_PORT", "http"),
        ("JINABERT_DEVICE", "gpu"),
        ("JINABERT_DTYPE", "f64"),
        ("JINABERT_DETERMINISTIC", "maybe"),
        ("JINABERT_AUTO_TRUNCATE", "maybe"),
        ("JINABERT_PAYLOAD_LIMIT", "0"),
        ("JINABERT_MAX_LENGTH", "-1"),
        ("JINABERT_REVISION", "../x"),
    ] {
        let ran = run(bare(&["serve", "--model", "/nowhere/model"]).env(name, value), b"");
        assert_eq!(ran.code, Some(2), "{name}: {}", ran.stderr);
        let said = format!("invalid value '{value}' for '--");
        assert!(ran.stderr.contains(&said), "{name}: {}", ran.stderr);
        assert!(ran.stderr.contains(&format!("({name})")), "{name}: {}", ran.stderr);
    }
    // A message about a typed value does not name the variable.
    let mut typed = bare(&["serve", "--port", "http"]);
    let ran = run(typed.env("JINABERT_PORT", "8080"), b"");
    assert!(ran.code == Some(2) && ran.stderr.contains("'http' for '--port"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("JINABERT_PORT"), "{}", ran.stderr);
    let mut host = bare(&["serve", "--model", arg(&natural()), "--device", "cpu"]);
    let ran = run(host.env("JINABERT_HOST", "not a host"), b"");
    ran.refused("host", 2, &["--host not a host", "(JINABERT_HOST is set to `not a host`)"]);
}

#[test]
fn values_that_fail_later_name_their_variable() {
    let mut command = bare(&["embed", "a", "--device", "cpu"]);
    let says = ["cannot read `no/such/", "(JINABERT_MODEL is set to `no/such`)"];
    run(command.env("JINABERT_MODEL", "no/such/"), b"").refused(
        "a model",
        66,
        &["cannot read `no/such/", "(JINABERT_MODEL is set to `no/such/`)"],
    );
    let mut typed = bare(&["embed", "a", "--device", "cpu", "--model", "no/such/"]);
    let ran = run(typed.env("JINABERT_MODEL", "no/other"), b"");
    ran.refused("typed", 66, &says[..1]);
    assert!(!ran.stderr.contains("JINABERT_MODEL"), "{}", ran.stderr);
    let mut device = bare(&["embed", "a", "--model", arg(&fixture("tiny-natural"))]);
    let says = ["99", "(JINABERT_DEVICE is set to `99`)"];
    run(device.env("JINABERT_DEVICE", "99"), b"").refused("a device", 69, &says);
}

/// libwayland, which Mesa asks for the desktop's device, prints an error if there is no session.
#[test]
fn a_missing_desktop_session_gives_no_message() {
    for directory in [None, Some(""), Some("relative")] {
        for command in [&["embed", "a", "--device", "auto", "--no-tune"][..], &["devices"]] {
            let mut command = bare(command);
            if command.get_args().any(|arg| arg == "embed") {
                command.arg("--model").arg(natural());
            }
            command
                .env_remove("XDG_RUNTIME_DIR")
                .envs(directory.map(|dir| ("XDG_RUNTIME_DIR", dir)));
            command.env_remove("WAYLAND_DISPLAY").env_remove("DISPLAY");
            run(&mut command, b"").output("no session directory");
        }
    }
}
