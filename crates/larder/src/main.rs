//! The `larder` program: reads the command line, loads the configuration, and hands over to [`wire`].

#![cfg_attr(not(test), warn(clippy::too_many_lines))]

mod blobs;
mod check;
mod cluster;
mod descriptors;
mod doctor;
mod memory;
mod metadata;
mod migrate;
mod own_larder;
mod prepare;
mod reload;
mod stop;
mod traces;
mod wire;

use std::process::ExitCode;

use check::check;
use clap::Parser as _;
use larder::cli::{Action, Cli, write_findings};
use larder::config::{Environment, Settings, Severity, Sources, built_in, load};
use larder::{logging, remote_commands};

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| misused(&error));
    match cli.into_action(Environment::of_process()) {
        Action::Check(sources) => match check(&sources, &mut std::io::stdout().lock()) {
            Ok(true) => ExitCode::SUCCESS,
            // Also when standard output cannot be written: nobody has read the verdict.
            Ok(false) | Err(_) => ExitCode::FAILURE,
        },
        Action::Diagnose(sources, asked) => doctor::run(&sources, &asked),
        Action::PrintDefault => print(built_in().as_bytes()),
        Action::Print(page) => print(&page),
        Action::Ask(command, environment) => {
            let (mut out, mut err) = (
                std::io::BufWriter::new(std::io::stdout().lock()),
                std::io::stderr().lock(),
            );
            ExitCode::from(remote_commands::run(
                &command,
                &environment,
                None,
                &mut out,
                &mut err,
            ))
        }
        Action::Migrate(flags, sources) => migrate::run(flags, &sources),
        Action::AskOwn(command, sources) => own_larder::run(&command, &sources),
        Action::Serve(sources) => serve(sources),
    }
}

/// Ends with what is wrong with the command line, or with the help that was asked for. Whoever reads JSON gets some.
fn misused(error: &clap::Error) -> ! {
    use std::io::Write as _;
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let has = |words: &[&str]| {
        arguments
            .iter()
            .any(|one| words.iter().any(|word| one == word))
    };
    // There it is a file's bytes that standard output is for.
    let is_bytes =
        arguments.first().is_some_and(|first| first == "get") && has(&["-", "-o-", "--output=-"]);
    if error.use_stderr() && has(&["--json"]) && !is_bytes {
        let message = error.to_string();
        // What follows is how to use it.
        let message = message.split("\n\n").next().unwrap_or_default();
        let told = serde_json::json!({"error": message.trim_start_matches("error: ").trim_end()});
        let _ = writeln!(std::io::stdout(), "{told}");
    }
    error.exit()
}

fn print(page: &[u8]) -> ExitCode {
    use std::io::Write as _;
    match std::io::stdout().lock().write_all(page) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(sources: Sources) -> ExitCode {
    if let Err(error) = logging::start(&sources) {
        return fail(&error.to_string());
    }
    let settings = match load(&sources) {
        Ok(settings) => settings,
        Err(found) => {
            // Standard error is the last resort: if it cannot be written, the exit code still tells.
            let _ = write_findings(&found, &mut std::io::stderr().lock());
            return fail(
                "the configuration cannot be used; `larder check` says the same without starting",
            );
        }
    };
    log_warnings(&settings);
    if let Err(error) = migrate::refuse_unfinished_files(&settings) {
        return fail(&error);
    }
    match wire::run(settings, sources) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn log_warnings(settings: &Settings) {
    for found in &settings.warnings {
        match found.severity {
            Severity::Note => tracing::info!("{found}"),
            Severity::Warning | Severity::Error => tracing::warn!("{found}"),
        }
    }
}

fn fail(message: &str) -> ExitCode {
    use std::io::Write as _;
    // As above: the exit code tells if standard error cannot be written.
    let _ = writeln!(std::io::stderr(), "larder: {message}");
    ExitCode::FAILURE
}
