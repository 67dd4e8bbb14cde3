//! Pages that are made from the command line itself, so that they say what it says: completions for shells, and the manual page.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _};
use clap_complete::{generate, shells};

use crate::cli::{Cli, Shell};

/// Variables of the commands that ask a running larder; those of `serve` stand in the guide with the keys that they replace.
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "CONFIG_PATH",
        "configuration file or directory, as --config",
    ),
    ("LARDER_DATA_DIR", "the data directory, as --data-dir"),
    (
        "LARDER_URL",
        "address of the larder that is asked, as --server",
    ),
    ("LARDER_TOKEN", "the token that is shown to it"),
    ("LARDER_TOKEN_FILE", "file with that token, as --token-file"),
    (
        "NO_COLOR, TERM",
        "no colours if NO_COLOR is set and not empty; no escapes at all if TERM is dumb",
    ),
];

/// The script that completes commands and flags.
pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    let (mut command, mut script) = (Cli::command(), Vec::new());
    match shell {
        Shell::Bash => generate(shells::Bash, &mut command, "larder", &mut script),
        Shell::Zsh => generate(shells::Zsh, &mut command, "larder", &mut script),
        Shell::Fish => generate(shells::Fish, &mut command, "larder", &mut script),
    }
    script
}

/// The manual page, in roff with the `man` macros.
pub(crate) fn manual() -> String {
    let mut command = Cli::command();
    command.build();
    let version = command.get_version().unwrap_or_default().to_owned();
    let mut page = format!(".TH LARDER 1 \"\" \"larder {version}\" \"User Commands\"\n");
    let about = said(command.get_about());
    let _ = writeln!(page, ".SH NAME\nlarder \\- {}", lower(&roff(&about)));
    page.push_str(".SH SYNOPSIS\n.B larder\n[\\fIcommand\\fR] [\\fIoption\\fR ...]\n");
    page.push_str(".SH COMMANDS\n");
    for below in commands(&command) {
        section(below, &mut page);
    }
    page.push_str(".SH OPTIONS\nThose of \\fBserve\\fR may be given without a command.\n");
    options(&command, &mut page);
    page.push_str(".SH ENVIRONMENT\n");
    for (name, meaning) in ENVIRONMENT {
        let _ = writeln!(page, ".TP\n.B {}\n{}", roff(name), roff(meaning));
    }
    page.push_str(".SH EXIT STATUS\n.nf\n");
    let codes = command.get_after_help().map(ToString::to_string);
    for line in codes.unwrap_or_default().lines().skip(1) {
        let _ = writeln!(page, "{}", roff(line));
    }
    page.push_str(".fi\n");
    page
}

/// The commands that are larder's own, in the order of its help.
fn commands(command: &Command) -> impl Iterator<Item = &Command> {
    let all = command.get_subcommands();
    all.filter(|below| below.get_name() != "help" && !below.is_hide_set())
}

fn section(command: &Command, page: &mut String) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let mut synopsis = format!("\\fB{}\\fR", roff(name));
    for argument in command.get_positionals() {
        let shown = roff(&value(argument));
        let shown = if argument.is_required_set() {
            format!(" \\fI{shown}\\fR")
        } else {
            format!(" [\\fI{shown}\\fR]")
        };
        synopsis.push_str(&shown);
    }
    let about = roff(&said(command.get_about()));
    let _ = writeln!(page, ".SS {synopsis}\n{about}");
    for argument in command.get_positionals() {
        let help = roff(&said(argument.get_help()));
        let _ = writeln!(page, ".TP\n.I {}\n{help}", roff(&value(argument)));
    }
    options(command, page);
    for below in commands(command) {
        section(below, page);
    }
}

fn options(command: &Command, page: &mut String) {
    for option in command.get_arguments().filter(|a| !a.is_positional()) {
        let mut names = Vec::new();
        names.extend(option.get_short().map(|short| format!("\\-{short}")));
        names.extend(
            option
                .get_long()
                .map(|long| format!("\\-\\-{}", roff(long))),
        );
        let names: Vec<String> = names.iter().map(|name| format!("\\fB{name}\\fR")).collect();
        let mut names = names.join(", ");
        if option.get_action().takes_values() {
            let _ = write!(names, " \\fI{}\\fR", roff(&value(option)));
        }
        let help = roff(&said(option.get_help()));
        let _ = writeln!(page, ".TP\n{names}\n{help}");
    }
}

/// What stands for an argument's value.
fn value(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    let names: Vec<&str> = names.iter().map(clap::builder::Str::as_str).collect();
    names.join(" ")
}

fn said(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// A sentence after a dash.
fn lower(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut characters = text.chars();
    let first = characters.next().map(char::to_lowercase);
    first.into_iter().flatten().chain(characters).collect()
}

/// Text as roff takes it: hyphens that can be copied, and no line that begins like a request.
fn roff(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = escaped.split('\n').map(|line| {
        if line.starts_with(['.', '\'']) {
            format!("\\&{line}")
        } else {
            line.to_owned()
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of every command and option, as users type them.
    fn names(command: &Command, found: &mut Vec<String>) {
        for option in command.get_arguments() {
            found.extend(option.get_long().map(|long| format!("--{long}")));
            found.extend(option.get_short().map(|short| format!("-{short}")));
        }
        for below in commands(command) {
            found.push(below.get_name().to_owned());
            names(below, found);
        }
    }

    #[test]
    fn every_command_and_option_stands_in_help_completions_and_manual() {
        let mut command = Cli::command();
        command.build();
        let mut all = Vec::new();
        names(&command, &mut all);
        assert!(
            all.contains(&"explain".to_owned()) && all.contains(&"--token-file".to_owned()),
            "{all:?}"
        );
        let manual = manual().replace("\\-", "-");
        let mut help = String::new();
        let mut open = vec![command];
        while let Some(mut command) = open.pop() {
            help.push_str(&command.render_long_help().to_string());
            open.extend(commands(&command).cloned());
        }
        let text = |shell| String::from_utf8(completions(shell)).unwrap();
        let fish = text(Shell::Fish);
        for (page, name) in [
            (&help, "help"),
            (&manual, "the manual page"),
            (&text(Shell::Bash), "bash"),
            (&text(Shell::Zsh), "zsh"),
        ] {
            let missing: Vec<&String> =
                all.iter().filter(|word| !page.contains(&***word)).collect();
            assert!(missing.is_empty(), "{name} lacks {missing:?}");
        }
        for word in &all {
            let form = match word.strip_prefix("--") {
                Some(long) => format!("-l {long}"),
                None => match word.strip_prefix('-') {
                    Some(short) => format!("-s {short}"),
                    None => format!("-a \"{word}\""),
                },
            };
            assert!(fish.contains(&form), "fish lacks {form}");
        }
    }

    #[test]
    fn the_manual_has_no_line_that_roff_would_take_for_a_request() {
        let known = [".TH ", ".SH ", ".SS ", ".TP", ".B ", ".I ", ".nf", ".fi"];
        for line in manual()
            .lines()
            .filter(|line| line.starts_with(['.', '\'']))
        {
            assert!(
                known.iter().any(|request| line.starts_with(request)),
                "{line}"
            );
        }
        assert_eq!(roff(".a\n'b -c \\d"), "\\&.a\n\\&'b \\-c \\ed");
    }
}
