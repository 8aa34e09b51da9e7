//! What can be said on the command line.

use crate::commands::change::{ChangeArgs, RemoveArgs};
use crate::commands::config::ConfigCommand;
use crate::commands::convert::ConvertArgs;
use crate::commands::declare::ApplyArgs;
use crate::commands::events::EventsArgs;
use crate::commands::forward::ForwardArgs;
use crate::commands::get::GetArgs;
use crate::commands::images::ImageCommand;
use crate::commands::kernel::KernelCommand;
use crate::commands::logs::LogsArgs;
use crate::commands::pages::{CompletionsArgs, ManArgs};
use crate::commands::ps::PsArgs;
use crate::commands::run::RunArgs;
use crate::commands::state::{BackupArgs, DoctorArgs, RestoreArgs};
use crate::commands::validate::ValidateArgs;
use crate::exit;
use crate::output::{Color, Format, Purpose, Usage};
use crate::settings::ServeArgs;
use crate::source::SourceArgs;
use anstream::ColorChoice;
use clap::builder::Styles;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use hearth_api::Endpoint;
use hearth_model::text::plain;
use std::ffi::OsString;

/// The heading of what every command takes.
const EVERYWHERE: &str = "Options of every command";

/// Keeps Firecracker microVMs running, and keeps spare ones warm.
#[derive(Debug, Parser)]
#[command(name = "hearth", version, after_help = exit::HELP, max_term_width = 100)]
pub(crate) struct Args {
    /// The daemon to talk to: http://HOST:PORT or unix:///PATH
    #[arg(long, global = true, help_heading = EVERYWHERE, env = "HEARTH_URL", hide_env_values = true,
          default_value = hearth_api::DEFAULT_URL)]
    pub(crate) url: Endpoint,
    /// How to show things
    #[arg(short, long, global = true, help_heading = EVERYWHERE, value_enum, value_name = "FORMAT",
          default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// Whether to use colours; auto: on a terminal, unless NO_COLOR or CLICOLOR=0 is set
    #[arg(long, global = true, help_heading = EVERYWHERE, value_enum, value_name = "WHEN",
          default_value_t = Color::Auto)]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// How things are to be shown.
    pub(crate) fn format(&self) -> Format {
        match &self.command {
            Command::Validate(options) => options.format.unwrap_or(self.output),
            _ => self.output,
        }
    }

    /// What the command's output is for.
    pub(crate) fn purpose(&self) -> Purpose {
        match &self.command {
            Command::Serve(_) => Purpose::Daemon,
            Command::Logs(_) | Command::Events(EventsArgs { follow: true, .. }) => Purpose::Follow,
            _ => Purpose::Result,
        }
    }

    /// Reads the command line.
    ///
    /// # Errors
    /// What is to be shown instead: the help, the version, or what is wrong with it.
    pub(crate) fn read() -> Result<Args, Usage> {
        let parse = |command: clap::Command| {
            let matches = command.try_get_matches_from(std::env::args_os())?;
            Args::from_arg_matches(&matches)
        };
        parse(Args::command()).map_err(|error| {
            let styled = error.render().ansi().to_string();
            // Without the styles what is left of escape sequences is the user's.
            let bare = parse(Args::command().styles(Styles::plain())).err();
            let bare = bare.map_or_else(String::new, |error| error.render().ansi().to_string());
            Usage {
                color: asked_color(std::env::args_os()),
                code: error.exit_code().try_into().unwrap_or(exit::ERROR),
                is_asked_for: !error.use_stderr(),
                styled: Some(styled).filter(|_| plain(&bare) == bare),
                bare,
            }
        })
    }
}

/// What `--color` says on a command line that may be wrong elsewhere.
fn asked_color(args: impl Iterator<Item = OsString>) -> ColorChoice {
    let mut words =
        args.take_while(|arg| arg != "--").map(|arg| arg.to_string_lossy().into_owned());
    let mut asked = ColorChoice::Auto;
    while let Some(word) = words.next() {
        let value = match word.strip_prefix("--color") {
            Some("") => words.next(),
            Some(rest) => rest.strip_prefix('=').map(str::to_owned),
            None => None,
        };
        match value.as_deref() {
            Some("always") => asked = ColorChoice::Always,
            Some("never") => asked = ColorChoice::Never,
            _ => {}
        }
    }
    asked
}

/// A command and its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon
    ///
    /// Each setting is taken from its flag, else its variable, else the config file, else it has its
    /// default; `hearth config show` says which.
    Serve(ServeArgs),
    /// Check a desired-state file: every problem in one run
    #[command(after_help = "Exit codes: 0 no problems; 1 problems; 2 the file can't be read.")]
    Validate(ValidateArgs),
    /// Write a desired-state file in another format; comments are not kept
    #[command(after_help = "Exit codes: 0 done; 1 problems; 2 the file can't be read.")]
    Convert(ConvertArgs),
    /// Show what applying a desired-state file would do, and change nothing
    ///
    /// Marks: + created, ~ changed, - deleted, ! held or refused, = kept though no longer declared.
    #[command(after_help = "Exit codes: 0 nothing to do; 2 something to do; 1 an error.")]
    Plan(SourceArgs),
    /// Apply a desired-state file
    ///
    /// Jobs that were changed, stopped or deleted by other means are restored. A `job` that has
    /// finished does not run again unless its entry changes. A job that an earlier apply of the same
    /// file declared and this one does not is deleted. --wait waits until services and daemons run and
    /// are ready, jobs have completed, and deleted jobs are gone.
    #[command(after_help = "Exit codes: 0 done; 1 an error, an entry that is refused, a deletion \
that needs --allow-delete, or with --wait a job that failed; 124 --timeout ran out.")]
    Apply(ApplyArgs),
    /// Run one job
    Run(Box<RunArgs>),
    /// List the jobs
    #[command(visible_alias = "list")]
    Ps(PsArgs),
    /// Show one job
    #[command(aliases = ["describe", "inspect"])]
    Get(GetArgs),
    /// Show the status of the daemon, its jobs, its pools and the desired-state file on one screen
    ///
    /// Exits with 0 if the daemon is ready, and with 1 if it is not or can't be reached.
    Status,
    /// Show the jobs and the warm pools
    Stats,
    /// Show the output of a job
    Logs(LogsArgs),
    /// Delete jobs
    #[command(aliases = ["delete", "remove"])]
    Rm(RemoveArgs),
    /// Stop the microVMs of jobs and keep the jobs; this cancels a running `job`
    ///
    /// A stopped job is not started again by Hearth, only by `hearth start`. One of the lifecycle
    /// `job` ends as stopped, whatever its command returns, and is not retried.
    Stop(ChangeArgs),
    /// Start stopped jobs, or run finished ones again
    Start(ChangeArgs),
    /// Restart jobs: a new generation of the same spec, with its images looked up again
    ///
    /// A service starts beside its old microVM, a daemon or a job after it. A finished or
    /// stopped job runs again.
    Restart(ChangeArgs),
    /// Show the events of one job or of all
    Events(EventsArgs),
    /// Make a TCP port of a guest reachable on 127.0.0.1
    ///
    /// Every local user can connect to it while it is open; the guest does not see who.
    PortForward(ForwardArgs),
    /// Copy the database to a file, while the daemon runs or not
    ///
    /// The copy is a consistent snapshot, checked and on disk when this exits. It holds the
    /// environments of the jobs; its mode is 0600.
    Backup(BackupArgs),
    /// Restore the database from a backup
    ///
    /// A running daemon restarts in its own process and does not answer for a moment. No microVM
    /// stops: one that runs as the backup wants it is adopted, one that differs is replaced, and one
    /// that the backup does not know is shown and left alone. The previous database is kept beside
    /// it.
    Restore(RestoreArgs),
    /// Check the machine, the state directory and the database, and show what is left over
    ///
    /// It changes nothing without --repair, and never ends a microVM.
    #[command(after_help = "Exit codes: 0 all is well, or was repaired; 1 something is not.")]
    Doctor(DoctorArgs),
    /// Copies of images that the daemon keeps
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Kernels for guests
    Kernel {
        #[command(subcommand)]
        command: KernelCommand,
    },
    /// The settings of the daemon
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Show the versions of this program and of the daemon
    Version,
    /// Print a completion script for a shell
    ///
    /// bash: hearth completions bash > ~/.local/share/bash-completion/completions/hearth;
    /// zsh: hearth completions zsh > a file _hearth in a directory of $fpath;
    /// fish: hearth completions fish > ~/.config/fish/completions/hearth.fish
    Completions(CompletionsArgs),
    /// Write the manual: a page for each command
    Man(ManArgs),
}

#[cfg(test)]
mod tests {
    use super::{Args, asked_color};
    use anstream::ColorChoice;
    use clap::{Command, CommandFactory};

    /// The commands beneath one, as they are written.
    fn paths(command: &Command, path: &str) -> Vec<String> {
        let mut found = vec![path.to_owned()];
        for below in command.get_subcommands() {
            found.extend(paths(below, &format!("{path} {}", below.get_name())));
        }
        found
    }

    #[test]
    fn the_colour_is_known_before_the_command_line_is_right() {
        let asked = |line: &str| asked_color(line.split(' ').map(Into::into));
        assert_eq!(asked("hearth --color never pss"), ColorChoice::Never);
        assert_eq!(asked("hearth pss --color=always"), ColorChoice::Always);
        assert_eq!(asked("hearth run -- app --color never"), ColorChoice::Auto);
        assert_eq!(asked("hearth ps --color"), ColorChoice::Auto);
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_help_of_every_command_is_in_the_transcript() {
        let transcript = include_str!("../tests/cmd/help.trycmd");
        for path in paths(&Args::command(), "hearth") {
            assert!(transcript.contains(&format!("$ {path} --help\n")), "{path} is missing");
        }
    }

    #[test]
    fn documentation_lists_every_command() {
        let page = include_str!("../../../docs/cli.md");
        for path in paths(&Args::command(), "hearth").iter().skip(1) {
            let name = path.strip_prefix("hearth ").unwrap_or(path);
            let listed = page.contains(&format!("`{path}")) || page.contains(&format!("`{name}"));
            assert!(listed, "{path} is missing");
        }
    }
}
