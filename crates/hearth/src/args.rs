//! What can be said on the command line.

use crate::output::Purpose;
use crate::ps::PsArgs;
use crate::run::RunArgs;
use crate::settings::ServeArgs;
use crate::{exit, span};
use anstream::ColorChoice;
use clap::builder::Styles;
use clap::{Args as ClapArgs, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use hearth_api::Endpoint;
use hearth_model::text::plain;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

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
            Command::Logs { .. } | Command::Events { follow: true, .. } => Purpose::Follow,
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

/// What is shown instead of a command's output.
#[derive(Debug)]
pub(crate) struct Usage {
    pub(crate) color: ColorChoice,
    /// The exit code.
    pub(crate) code: u8,
    /// Whether somebody asked for it, so that it belongs on stdout.
    pub(crate) is_asked_for: bool,
    /// With its colours, unless the command line has escape sequences of its own.
    pub(crate) styled: Option<String>,
    /// Without colours, and with what the command line has.
    pub(crate) bare: String,
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

/// How things are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For people with wide screens
    Wide,
    /// For programs: the API's JSON, one value a line
    Json,
    /// The same as YAML, one document a value
    Yaml,
}

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl From<Color> for ColorChoice {
    fn from(color: Color) -> ColorChoice {
        match color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        }
    }
}

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
    Get {
        /// Its id
        job: String,
    },
    /// Show the status of the daemon, its jobs, its pools and the desired-state file on one screen
    ///
    /// Exits with 0 if the daemon is ready, and with 1 if it is not or can't be reached.
    Status,
    /// Show the jobs and the warm pools
    Stats,
    /// Show the output of a job
    Logs {
        /// Its id
        job: String,
        /// Continue with new lines until the job has ended
        #[arg(short, long)]
        follow: bool,
        /// Only the last N lines
        #[arg(short = 'n', long, value_name = "N")]
        tail: Option<usize>,
        /// Only output since a time such as 2026-01-31T12:00:00Z, or how long ago, as in 10m
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
    },
    /// Delete jobs
    #[command(aliases = ["delete", "remove"])]
    Rm {
        /// Their ids
        #[arg(required_unless_present = "all", value_name = "JOB")]
        jobs: Vec<String>,
        /// All jobs there are
        #[arg(long, conflicts_with = "jobs")]
        all: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Stop the microVMs of jobs and keep the jobs; this cancels a running `job`
    ///
    /// A stopped job is not started again by Hearth, only by `hearth start`. One of the lifecycle
    /// `job` ends as stopped, whatever its command returns, and is not retried.
    Stop {
        /// Their ids
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Start stopped jobs, or run finished ones again
    Start {
        /// Their ids
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Restart jobs: a new generation of the same spec, with its images looked up again
    ///
    /// A service starts beside its old microVM, a daemon or a job after it. A finished or
    /// stopped job runs again.
    Restart {
        /// Their ids
        #[arg(required = true, value_name = "JOB")]
        jobs: Vec<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Show the events of one job or of all
    Events {
        /// The job's id
        job: Option<String>,
        /// Only the newest LIMIT events
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Continue with each event as it happens, over restarts of the daemon
        #[arg(short, long)]
        follow: bool,
    },
    /// Make a TCP port of a guest reachable on 127.0.0.1
    ///
    /// Every local user can connect to it while it is open; the guest does not see who.
    PortForward {
        /// The job's id
        job: String,
        /// LOCAL:GUEST, or one port for both; LOCAL 0 picks a free port
        ports: PortPair,
    },
    /// Copy the database to a file, while the daemon runs or not
    ///
    /// The copy is a consistent snapshot, checked and on disk when this exits. It holds the
    /// environments of the jobs; its mode is 0600.
    Backup {
        /// Output file; must not exist
        file: PathBuf,
        #[command(flatten)]
        state: StateArgs,
    },
    /// Restore the database from a backup
    ///
    /// A running daemon restarts in its own process and does not answer for a moment. No microVM
    /// stops: one that runs as the backup wants it is adopted, one that differs is replaced, and one
    /// that the backup does not know is shown and left alone. The previous database is kept beside
    /// it.
    Restore {
        /// The backup
        file: PathBuf,
        #[command(flatten)]
        state: StateArgs,
    },
    /// Check the machine, the state directory and the database, and show what is left over
    ///
    /// It changes nothing without --repair, and never ends a microVM.
    #[command(after_help = "Exit codes: 0 all is well, or was repaired; 1 something is not.")]
    Doctor {
        /// Make the repairs that it suggests; the daemon must not run
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        state: StateArgs,
    },
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
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Write the manual: a page for each command
    Man {
        /// Output directory; created if absent
        directory: PathBuf,
    },
}

/// How long a job lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Lifecycle {
    /// Kept running; a new version starts beside the old one
    Service,
    /// Kept running; the old version stops first
    Daemon,
    /// Runs once
    Job,
}

impl Lifecycle {
    /// The word on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Lifecycle::Service => "service",
            Lifecycle::Daemon => "daemon",
            Lifecycle::Job => "job",
        }
    }
}

/// Whether to wait until what was asked for has happened.
#[derive(Clone, Copy, Debug, ClapArgs)]
pub(crate) struct WaitArgs {
    /// Wait until the jobs run and are ready, have stopped, or are gone
    #[arg(short, long)]
    pub(crate) wait: bool,
    /// With --wait: give up after so long, as in 30s or 5m, and exit with 124 [default: never]
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = span::span)]
    pub(crate) timeout: Option<Duration>,
}

/// A desired-state file and its format.
#[derive(Debug, ClapArgs)]
pub(crate) struct SourceArgs {
    /// The file; - reads stdin
    pub(crate) file: PathBuf,
    /// Its format [default: by its extension]
    #[arg(long, value_enum, value_name = "FORMAT", required_if_eq("file", "-"))]
    pub(crate) input_format: Option<FileFormat>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ApplyArgs {
    /// The file; - reads stdin, which deletes nothing
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Its format [default: by its extension]
    #[arg(long, value_enum, value_name = "FORMAT", required_if_eq("file", "-"))]
    pub(crate) input_format: Option<FileFormat>,
    /// Delete even more than half of the file's jobs
    #[arg(long)]
    pub(crate) allow_delete: bool,
    /// Only show what would be done, as hearth plan does
    #[arg(long, conflicts_with = "wait")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// A format of desired-state files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// Elixir's data literals
    Exs,
    /// TOML
    Toml,
    /// YAML
    #[value(alias = "yml")]
    Yaml,
    /// JSON
    Json,
}

impl From<FileFormat> for hearth_desired_file::Format {
    fn from(format: FileFormat) -> hearth_desired_file::Format {
        match format {
            FileFormat::Exs => hearth_desired_file::Format::Elixir,
            FileFormat::Toml => hearth_desired_file::Format::Toml,
            FileFormat::Yaml => hearth_desired_file::Format::Yaml,
            FileFormat::Json => hearth_desired_file::Format::Json,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// How to show the problems; the same as --output
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ConvertArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// The format to write [default: by the extension of --into]
    #[arg(long, value_enum, value_name = "FORMAT", required_unless_present = "into")]
    pub(crate) to: Option<FileFormat>,
    /// A new file to write to [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub(crate) into: Option<PathBuf>,
}

/// Whose state; what is not said is taken as hearth serve takes it.
#[derive(Debug, ClapArgs)]
pub(crate) struct StateArgs {
    /// The state directory [default: the daemon's, as hearth config show says]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
    /// The daemon's config file [default: the one that hearth serve would read]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl From<StateArgs> for ServeArgs {
    fn from(StateArgs { state_dir, config }: StateArgs) -> ServeArgs {
        let flags = state_dir.into_iter().map(|dir| ("state_dir", dir)).collect();
        ServeArgs { config, flags }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show each setting with its value and where it came from: flag, variable, file or default
    Show(ServeArgs),
    /// Check a config file: every problem in one run
    Check {
        /// The file [default: the one that hearth serve would read]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List the copies: size, and whether a job or a microVM uses them
    Ls,
    /// Remove copies that no job and no microVM uses
    ///
    /// Without --all those that the settings keep_image_hours and keep_images_gb no longer keep, which the
    /// daemon removes by itself once an hour. Your own files in the images directory stay.
    Prune {
        /// Remove every unused copy, whatever its age
        #[arg(long)]
        all: bool,
        /// Only show what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Import a distribution's kernel: the ELF image and the modules that guests need
    Import(ImportArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ImportArgs {
    /// From a Debian package [default: Debian's current kernel, by apt]
    #[arg(long, value_name = "FILE", conflicts_with = "vmlinuz")]
    pub(crate) from_deb: Option<PathBuf>,
    /// From a kernel file
    #[arg(long, value_name = "FILE", requires = "modules")]
    pub(crate) vmlinuz: Option<PathBuf>,
    /// Its modules: a directory such as /lib/modules/VERSION
    #[arg(long, value_name = "DIR", requires = "vmlinuz")]
    pub(crate) modules: Option<PathBuf>,
    /// Output directory [default: the daemon's images directory, as hearth config show says]
    #[arg(long, value_name = "DIR")]
    pub(crate) images: Option<PathBuf>,
    /// Its name there
    #[arg(long, default_value = "vmlinux")]
    pub(crate) name: String,
}

/// Two TCP ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortPair {
    /// On 127.0.0.1.
    pub(crate) local: u16,
    /// On the guest's loopback.
    pub(crate) guest: u16,
}

impl std::str::FromStr for PortPair {
    type Err = String;

    fn from_str(text: &str) -> Result<PortPair, String> {
        let port = |text: &str| {
            text.parse::<u16>().map_err(|_| format!("{text:?} is not a port; write LOCAL:GUEST"))
        };
        let (local, guest) = text.split_once(':').unwrap_or((text, text));
        match (port(local)?, port(guest)?) {
            (_, 0) => Err("the guest's port can't be 0".to_owned()),
            (local, guest) => Ok(PortPair { local, guest }),
        }
    }
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
