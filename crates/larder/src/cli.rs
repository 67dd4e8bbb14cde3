//! The command line: every command of `larder` with its flags. Help, completions and the manual page are made from it (`pages.rs`).
//!
//! Knows flags. Environment variables are read with the configuration, so that precedence stands in one place.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Diagnostic, Environment, Sources};
use crate::pages;
use crate::remote_commands::{
    Asked, DuFlags, ExplainFlags, ExportFlags, FlushFlags, GcFlags, GetFlags, ImportFlags, LsFlags,
    PutFlags, RemoteCommand, RmFlags, ScrubFlags, WarmFlags,
};

/// What follows every command's help.
const EXIT_CODES: &str = "\
Exit status:
  0  all is well: larder was asked to stop and did; `check` or `doctor` found nothing wrong; what was asked for was done
  1  larder cannot start or go on; `check` found why it would not start, `doctor` what is wrong; a command that asks a running larder
     got no answer, or a refusal, or bytes that are not those that were stated; not all that `warm` was to fetch is held; the copy that
     `migrate` was to make is not complete and verified, or something damaged was left out of it; `scrub` was cancelled, or an uploaded
     file is damaged; an archive is damaged, or something of it was left out
  2  the command line itself is wrong: an unknown flag, command or argument; `migrate` has nothing to copy to or from;
     a file that shall be read cannot be";

/// A caching artifact proxy and registry.
#[derive(Debug, Parser)]
#[command(name = "larder", version, about, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Flags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves; what plain `larder` does.
    #[command(after_help = EXIT_CODES)]
    Serve(Flags),
    /// Does what a start does short of serving, prints everything that would keep larder from it, and changes nothing.
    #[command(after_help = EXIT_CODES)]
    Check(CheckFlags),
    /// Prints configurations.
    #[command(subcommand, after_help = EXIT_CODES)]
    Config(ConfigCommand),
    /// Looks for what is wrong: upstreams, credentials, backends, disk, clocks and permissions, each with what to do; changes nothing.
    #[command(after_help = EXIT_CODES)]
    Doctor(DoctorFlags),
    /// Shows what a larder holds, or what an upstream offers.
    #[command(after_help = EXIT_CODES)]
    Ls(LsFlags),
    /// Shows how much a running larder holds, by repository.
    #[command(after_help = EXIT_CODES)]
    Du(DuFlags),
    /// Fetches a file through a running larder, and verifies it.
    #[command(after_help = EXIT_CODES)]
    Get(GetFlags),
    /// Uploads a file to a local repository of a running larder.
    #[command(after_help = EXIT_CODES)]
    Put(PutFlags),
    /// Deletes files of local repositories; of remote ones, forgets the copies of exactly these paths.
    #[command(after_help = EXIT_CODES)]
    Rm(RmFlags),
    /// Makes a running larder forget copies, so that they are fetched anew; files of local repositories stay.
    #[command(after_help = EXIT_CODES)]
    Flush(FlushFlags),
    /// Makes a running larder fetch beforehand what lock files and lists name, and waits until all of it is held.
    #[command(after_help = EXIT_CODES)]
    Warm(WarmFlags),
    /// Says why a running larder answers a path as it does, and which line of the configuration decided.
    #[command(after_help = EXIT_CODES)]
    Explain(ExplainFlags),
    /// Puts what repositories of a running larder hold into one archive, for a larder without a network; goes on where it was broken off.
    #[command(after_help = EXIT_CODES)]
    Export(ExportFlags),
    /// Reads an archive into a running larder, after all of it has been verified.
    #[command(after_help = EXIT_CODES)]
    Import(ImportFlags),
    /// Deletes what nothing refers to any more, and says how much of what; of a running larder, or in a data directory.
    #[command(after_help = EXIT_CODES)]
    Gc(GcFlags),
    /// Reads all that is stored again and compares it with its digests; what was fetched and is wrong is fetched again, what was uploaded is told.
    #[command(after_help = EXIT_CODES)]
    Scrub(ScrubFlags),
    /// Copies what larder holds to the backends that the configuration names, or back into the data directory, and verifies the copy.
    #[command(after_help = EXIT_CODES)]
    Migrate(MigrateArguments),
    /// Prints the script that completes commands and flags in a shell.
    #[command(after_help = EXIT_CODES)]
    Completions {
        /// The shell: bash, zsh or fish
        #[arg(value_name = "SHELL", value_enum, hide_possible_values = true)]
        shell: Shell,
    },
    /// Prints the manual page, in roff: `larder man | man -l -`
    #[command(after_help = EXIT_CODES)]
    Man,
}

/// A shell whose completions are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

/// Where a migration leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MigrateTo {
    /// PostgreSQL (DBHOST) and the S3 store (MINIO_ENDPOINT), or the one of them that is configured
    Backends,
    /// SQLite and files in the data directory
    Embedded,
}

/// What of it, where not everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MigrateOnly {
    /// The database alone
    Database,
    /// The blobs alone
    Blobs,
}

/// How a copy is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MigrateVerify {
    /// All rows are compared; all blobs are there, with their lengths
    Sizes,
    /// And the bytes of all blobs are read again and compared with their digests
    Full,
}

/// What `larder migrate` does beside the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct MigrateFlags {
    /// Where to copy what is held
    #[arg(long, value_name = "WHERE")]
    pub to: MigrateTo,
    /// Copy this only [default: what the configuration names]
    #[arg(long, value_name = "WHAT")]
    pub only: Option<MigrateOnly>,
    /// Say what would be copied, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How the copy is verified
    #[arg(long, value_name = "HOW", default_value = "sizes")]
    pub verify: MigrateVerify,
    /// Go on although other sessions use the PostgreSQL database that is copied from
    #[arg(long)]
    pub yes: bool,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
struct MigrateArguments {
    #[command(flatten)]
    flags: MigrateFlags,
    /// Configuration file, or directory of *.yaml files [env: CONFIG_PATH] [default: built-in repositories]
    #[arg(short, long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Where files and the database are, or shall be [env: LARDER_DATA_DIR] [default: $XDG_DATA_HOME/larder or ~/.local/share/larder]
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// What is logged [env: LARDER_LOG] [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// The form of log lines: json or text [env: LARDER_LOG_FORMAT] [default: text on a terminal, else json]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Prints the built-in repositories as a configuration file.
    #[command(after_help = EXIT_CODES)]
    Default,
}

#[derive(Debug, Clone, Args)]
struct CheckFlags {
    /// The same as --config
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

/// `larder doctor`: what a start reads, and which running larder is asked besides.
#[derive(Debug, Clone, Args)]
struct DoctorFlags {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Debug, Clone, Args)]
struct Flags {
    /// Configuration file, or directory of *.yaml files [env: CONFIG_PATH] [default: built-in repositories]
    #[arg(short, long, value_name = "PATH")]
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
    /// What is logged: error, warn, info, debug, trace or off; MODULE=LEVEL for one module [env: LARDER_LOG] [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// The form of log lines: json or text [env: LARDER_LOG_FORMAT] [default: text on a terminal, else json]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Action {
    /// Serve with the configuration of these sources.
    Serve(Sources),
    /// Only check it.
    Check(Sources),
    /// Look for what is wrong; a running larder is asked too if one is named.
    Diagnose(Sources, Asked),
    /// Print the built-in repositories as a configuration file.
    PrintDefault,
    /// Print this: a page that is made from the command line itself.
    Print(Vec<u8>),
    /// Ask a running larder.
    Ask(RemoteCommand, Environment),
    /// Copy what is held to other stores.
    Migrate(MigrateFlags, Sources),
    /// Ask one that is started for this command, with the configuration of these sources.
    AskOwn(RemoteCommand, Sources),
}

/// A command that asks a running larder, unless it is for a data directory.
fn asked(command: RemoteCommand, environment: Environment) -> Action {
    let target = command.target();
    let Some(directory) = target.data_dir() else {
        return Action::Ask(command, environment);
    };
    let sources = Sources {
        config: target.config().map(Path::to_path_buf),
        data_dir: Some(directory.to_path_buf()),
        // Whatever it is to listen on when it serves.
        listen: vec!["127.0.0.1:0".to_owned()],
        environment,
        ..Sources::default()
    };
    Action::AskOwn(command, sources)
}

impl Cli {
    /// The action, with the environment added.
    pub fn into_action(self, environment: Environment) -> Action {
        let own = environment.clone();
        let ask = |command| asked(command, own.clone());
        let sources = |flags: Flags| Sources {
            config: flags.config,
            listen: flags.listen,
            data_dir: flags.data_dir,
            public_url: flags.public_url,
            admin_token_file: flags.admin_token_file,
            log: flags.log,
            log_format: flags.log_format,
            environment,
        };
        match self.command {
            None => Action::Serve(sources(self.serve)),
            Some(Command::Serve(flags)) => Action::Serve(sources(flags)),
            Some(Command::Check(CheckFlags { file, flags })) => {
                let config = flags.config.clone().or(file);
                Action::Check(sources(Flags { config, ..flags }))
            }
            Some(Command::Config(ConfigCommand::Default)) => Action::PrintDefault,
            Some(Command::Doctor(found)) => Action::Diagnose(sources(found.flags), found.asked),
            Some(Command::Ls(flags)) => ask(RemoteCommand::Ls(flags)),
            Some(Command::Du(flags)) => ask(RemoteCommand::Du(flags)),
            Some(Command::Get(flags)) => ask(RemoteCommand::Get(flags)),
            Some(Command::Put(flags)) => ask(RemoteCommand::Put(flags)),
            Some(Command::Rm(flags)) => ask(RemoteCommand::Rm(flags)),
            Some(Command::Flush(flags)) => ask(RemoteCommand::Flush(flags)),
            Some(Command::Warm(flags)) => ask(RemoteCommand::Warm(flags)),
            Some(Command::Explain(flags)) => ask(RemoteCommand::Explain(flags)),
            Some(Command::Gc(flags)) => ask(RemoteCommand::Gc(flags)),
            Some(Command::Scrub(flags)) => ask(RemoteCommand::Scrub(flags)),
            Some(Command::Export(flags)) => ask(RemoteCommand::Export(flags)),
            Some(Command::Import(flags)) => ask(RemoteCommand::Import(flags)),
            Some(Command::Completions { shell }) => Action::Print(pages::completions(shell)),
            Some(Command::Man) => Action::Print(pages::manual().into_bytes()),
            Some(Command::Migrate(arguments)) => Action::Migrate(
                arguments.flags,
                Sources {
                    config: arguments.config,
                    data_dir: arguments.data_dir,
                    log: arguments.log,
                    log_format: arguments.log_format,
                    environment: own.clone(),
                    ..Sources::default()
                },
            ),
        }
    }
}

/// Writes findings, one a line.
///
/// # Errors
/// `out` cannot be written.
pub fn write_findings(found: &[Diagnostic], out: &mut impl Write) -> std::io::Result<()> {
    found.iter().try_for_each(|found| writeln!(out, "{found}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn action(arguments: &[&str]) -> Action {
        let arguments = std::iter::once("larder").chain(arguments.iter().copied());
        Cli::try_parse_from(arguments)
            .unwrap()
            .into_action(Environment::default())
    }

    #[test]
    fn plain_larder_serves() {
        Cli::command().debug_assert();
        for arguments in [
            &["--listen", "127.0.0.1:1", "--data-dir", "/d"][..],
            &["serve", "--listen", "127.0.0.1:1", "--data-dir", "/d"],
        ] {
            let Action::Serve(sources) = action(arguments) else {
                panic!("{arguments:?} serves")
            };
            assert_eq!(
                (sources.listen, sources.data_dir),
                (vec!["127.0.0.1:1".to_owned()], Some("/d".into()))
            );
        }
        assert!(matches!(
            action(&["config", "default"]),
            Action::PrintDefault
        ));
    }

    #[test]
    fn check_takes_its_file_in_three_spellings() {
        for arguments in [
            &["check", "c.yaml"][..],
            &["check", "-c", "c.yaml"],
            &["check", "--config", "c.yaml"],
        ] {
            let Action::Check(sources) = action(arguments) else {
                panic!("{arguments:?} checks")
            };
            assert_eq!(sources.config, Some("c.yaml".into()), "{arguments:?}");
        }
    }

    #[test]
    fn every_command_says_its_exit_status() {
        let mut open = vec![Cli::command()];
        while let Some(mut command) = open.pop() {
            let help = command.render_long_help().to_string();
            assert!(
                help.contains("Exit status:"),
                "{}: {help}",
                command.get_name()
            );
            open.extend(
                command
                    .get_subcommands()
                    .filter(|command| command.get_name() != "help")
                    .cloned(),
            );
        }
    }

    #[test]
    fn unknown_flags_and_arguments_are_refused() {
        for arguments in [
            &["larder", "--confg", "x"][..],
            &["larder", "serv"],
            &["larder", "--listen", "a", "check"],
            &["larder", "check", "a.yaml", "--config", "b.yaml"],
            &["larder", "check", "a.yaml", "b.yaml"],
            &["larder", "config"],
        ] {
            Cli::try_parse_from(arguments.iter().copied()).expect_err("refused");
        }
    }
}
