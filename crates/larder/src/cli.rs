//! The command line: `larder [serve]` and `larder check`.
//!
//! Knows flags. Environment variables are read with the configuration, so that precedence stands in one place.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Diagnostic, Environment, Settings, Severity, Sources, load};
use crate::remote_commands::{DuFlags, LsFlags, RemoteCommand};

/// A caching artifact proxy and registry.
#[derive(Debug, Parser)]
#[command(name = "larder", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves; what plain `larder` does.
    Serve(Flags),
    /// Validates the configuration, prints everything that is wrong with it, and starts nothing.
    Check(Flags),
    /// Shows how much a running larder holds, by repository.
    Du(DuFlags),
    /// Shows what a running larder holds.
    Ls(LsFlags),
}

#[derive(Debug, Clone, Args)]
struct Flags {
    /// Configuration file, or directory of *.yaml files [env: CONFIG_PATH] [default: built-in repositories]
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Address and port to listen on; may be given more than once [env: LARDER_LISTEN] [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Where files and the database live [env: LARDER_DATA_DIR] [default: $XDG_DATA_HOME/larder or ~/.local/share/larder]
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// The address under which clients reach larder; may carry a path, and be given more than once [env: LARDER_PUBLIC_URL]
    #[arg(long, value_name = "URL")]
    public_url: Vec<String>,
    /// File with the token that opens what changes state [env: LARDER_ADMIN_TOKEN holds the token itself]
    #[arg(long, value_name = "PATH")]
    admin_token_file: Option<PathBuf>,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Action {
    /// Serve with the configuration of these sources.
    Serve(Sources),
    /// Only check it.
    Check(Sources),
    /// Ask a running larder.
    Ask(RemoteCommand, Environment),
}

impl Cli {
    /// The action, with the environment added.
    pub fn into_action(self, environment: Environment) -> Action {
        let asked = environment.clone();
        let sources = |flags: Flags| Sources {
            config: flags.config,
            listen: flags.listen,
            data_dir: flags.data_dir,
            public_url: flags.public_url,
            admin_token_file: flags.admin_token_file,
            environment,
        };
        match self.command {
            None => Action::Serve(sources(self.serve)),
            Some(Command::Serve(flags)) => Action::Serve(sources(flags)),
            Some(Command::Check(flags)) => Action::Check(sources(flags)),
            Some(Command::Du(flags)) => Action::Ask(RemoteCommand::Du(flags), asked),
            Some(Command::Ls(flags)) => Action::Ask(RemoteCommand::Ls(flags), asked),
        }
    }
}

/// `larder check`: writes every finding and a summary to `out`; gives whether the configuration can be used.
///
/// # Errors
/// `out` cannot be written.
pub fn check(sources: &Sources, out: &mut impl Write) -> std::io::Result<bool> {
    let loaded = load(sources);
    let found = match &loaded {
        Ok(settings) => &settings.warnings,
        Err(found) => found,
    };
    write_findings(found, out)?;
    let count = |severity| found.iter().filter(|d| d.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    match &loaded {
        Ok(Settings { repositories, .. }) => {
            writeln!(
                out,
                "configuration is valid: {}, {}",
                counted(repositories.len(), "repository", "repositories"),
                counted(warnings, "warning", "warnings")
            )?;
        }
        Err(_) => writeln!(
            out,
            "configuration cannot be used: {}, {}",
            counted(errors, "error", "errors"),
            counted(warnings, "warning", "warnings")
        )?,
    }
    Ok(loaded.is_ok())
}

/// Writes findings, one a line.
///
/// # Errors
/// `out` cannot be written.
pub fn write_findings(found: &[Diagnostic], out: &mut impl Write) -> std::io::Result<()> {
    found.iter().try_for_each(|found| writeln!(out, "{found}"))
}

fn counted(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn action(arguments: &[&str]) -> Action {
        let arguments = std::iter::once("larder").chain(arguments.iter().copied());
        Cli::try_parse_from(arguments).unwrap().into_action(Environment::default())
    }

    #[test]
    fn plain_larder_serves() {
        Cli::command().debug_assert();
        for arguments in
            [&["--listen", "127.0.0.1:1", "--data-dir", "/d"][..], &["serve", "--listen", "127.0.0.1:1", "--data-dir", "/d"]]
        {
            let Action::Serve(sources) = action(arguments) else { panic!("{arguments:?} serves") };
            assert_eq!((sources.listen, sources.data_dir), (vec!["127.0.0.1:1".to_owned()], Some("/d".into())));
        }
        let Action::Check(sources) = action(&["check", "--config", "c.yaml"]) else { panic!("checks") };
        assert_eq!(sources.config, Some("c.yaml".into()));
    }

    #[test]
    fn unknown_flags_and_arguments_are_refused() {
        for arguments in [&["larder", "--confg", "x"][..], &["larder", "serv"], &["larder", "--listen", "a", "check"]] {
            Cli::try_parse_from(arguments.iter().copied()).expect_err("refused");
        }
    }
}
