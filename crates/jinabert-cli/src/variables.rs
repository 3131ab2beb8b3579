//! Options from environment variables: an empty variable counts as unset, and messages about a
//! value name the variable that it came from.

use clap::{
    Arg, ArgMatches, Command, Error,
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};
use std::{env, ffi::OsStr};

/// Removes the variables that `out` selects from the command and its subcommands.
fn without(command: Command, out: &impl Fn(&OsStr) -> bool) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    let command = names
        .into_iter()
        .fold(command, |command, name| command.mut_subcommand(name, |below| without(below, out)));
    command.mut_args(|arg| {
        if arg.get_env().is_some_and(out) { arg.env(None::<&'static str>) } else { arg }
    })
}

/// Parses the arguments, and the environment variables that are not empty.
pub fn parse(command: Command) -> Result<ArgMatches, Error> {
    let empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    let command = without(command, &empty);
    command.clone().try_get_matches().map_err(|error| named(error, command))
}

/// Adds the name of the variable to an error, if the invalid value came from one.
fn named(mut error: Error, command: Command) -> Error {
    let Some(option) = option_of(&error) else { return error };
    let mut built = command.clone();
    built.build(); // only then options know how messages have them
    let variables = variables_of(&built, &option);
    let Some(variable) = variables.into_iter().find(|name| env::var_os(name).is_some()) else {
        return error;
    };
    // If the variable caused the error, then without it this option has no error.
    let again = without(command, &|name| name == OsStr::new(&variable)).try_get_matches();
    if again.err().as_ref().and_then(option_of).as_deref() != Some(&option) {
        let option = ContextValue::String(format!("{option} ({variable})"));
        error.insert(ContextKind::InvalidArg, option);
    }
    error
}

/// Option that an error is about, in the notation of messages: `--port <PORT>`.
fn option_of(error: &Error) -> Option<String> {
    match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(option) => Some(option.clone()),
        _ => None,
    }
}

/// Environment variables of an option, in any subcommand.
fn variables_of(command: &Command, option: &str) -> Vec<String> {
    let own = command.get_arguments().filter(|arg| arg.to_string() == option);
    let own = own.filter_map(variable).collect::<Vec<_>>().into_iter();
    own.chain(command.get_subcommands().flat_map(|below| variables_of(below, option))).collect()
}

fn variable(arg: &Arg) -> Option<String> {
    Some(arg.get_env()?.to_str()?.to_owned())
}

/// Variables that set an option, with their values; secrets are left out.
pub fn used(command: &Command, matches: &ArgMatches) -> Vec<(String, String)> {
    let from_variable = |arg: &&Arg| {
        let id = arg.get_id().as_str();
        matches.value_source(id) == Some(ValueSource::EnvVariable) && !arg.is_hide_env_values_set()
    };
    let own = command.get_arguments().filter(from_variable).filter_map(variable);
    let own = own.filter_map(|name| Some((name.clone(), env::var(name).ok()?)));
    let mut used: Vec<_> = own.collect();
    if let Some((name, matches)) = matches.subcommand() {
        let below = command.find_subcommand(name);
        used.extend(below.map(|below| self::used(below, matches)).unwrap_or_default());
    }
    used
}

/// True if a message contains a value that is not a part of a longer word.
fn contains_whole(message: &str, value: &str) -> bool {
    fn is_word(c: char) -> bool {
        c.is_alphanumeric() || c == '_'
    }
    message.match_indices(value).any(|(at, _)| {
        !message[..at].ends_with(is_word) && !message[at + value.len()..].starts_with(is_word)
    })
}

/// Addition to a message: ` (JINABERT_MODEL is set to …)` for each variable whose value the message
/// contains.
pub fn note(message: &str, used: &[(String, String)]) -> String {
    // A list may have one invalid element.
    let says = |value: &str| {
        let parts = value.split(',').map(|part| part.trim().trim_end_matches('/'));
        parts.filter(|part| !part.is_empty()).any(|part| contains_whole(message, part))
    };
    let named = used.iter().filter(|(_, value)| says(value));
    named.map(|(name, value)| format!(" ({name} is set to `{value}`)")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_name_the_variable_of_a_value() {
        let used = [
            ("JINABERT_MODEL", "no/such"),
            ("JINABERT_DEVICE", "9"),
            ("JINABERT_CORS_ALLOW_ORIGIN", "http://a, b.c"),
        ];
        let used = used.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let noted = |message| note(message, &used);
        let model = " (JINABERT_MODEL is set to `no/such`)";
        assert_eq!(noted("cannot read `no/such/config.json`: no such file"), model);
        assert_eq!(noted("there is no adapter 9"), " (JINABERT_DEVICE is set to `9`)");
        let origins = " (JINABERT_CORS_ALLOW_ORIGIN is set to `http://a, b.c`)";
        assert_eq!(noted("`b.c` is no origin"), origins);
        assert_eq!(noted("there is no adapter 99 in no/sucht"), "");
    }
}
