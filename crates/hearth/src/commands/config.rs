//! `hearth config`: shows the settings of `hearth serve` and checks them.

use crate::config::{self, ConfigFile, Problem, Problems, Resolved, Source};
use crate::exit;
use crate::output::{Output, Tone, Word, counted, json_line};
use crate::settings::{Kind, SETTINGS, ServeArgs, Setting, default_file};
use anyhow::bail;
use clap::Subcommand;
use serde_json::json;
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// What is done about settings.
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

/// Carries out `hearth config`. Returns the exit code.
///
/// # Errors
/// Where the settings have problems, or a file can't be read.
pub(crate) fn run(command: ConfigCommand, output: &Output) -> anyhow::Result<u8> {
    match command {
        ConfigCommand::Show(args) => print_settings(&config::resolve(&args)?, output),
        ConfigCommand::Check { file } => return check(file.as_deref(), output),
    }
    Ok(exit::DONE)
}

fn check(path: Option<&Path>, output: &Output) -> anyhow::Result<u8> {
    let found = match path {
        Some(path) => Some(path.to_owned()),
        None => config::found()?,
    };
    let Some(path) = found else {
        bail!("there is no {}; name a file to check", default_file().display())
    };
    let file = ConfigFile::read(&path)?;
    print_checked(&file, output);
    Ok(if file.problems.is_empty() { exit::DONE } else { exit::ERROR })
}

/// What `hearth config show` found.
fn print_settings(resolved: &Resolved, output: &Output) {
    let rows = SETTINGS.iter().zip(&resolved.sources);
    let value = |setting: &Setting| setting.value(&resolved.settings);
    if output.for_programs() {
        let settings: Vec<_> = rows
            .map(|(setting, source)| {
                json!({
                    "setting": setting.key,
                    "value": typed(setting, &value(setting)),
                    "from": source.to_string(),
                    "flag": setting.flag(),
                    "variable": setting.variable(),
                })
            })
            .collect();
        output.printed(&json!({ "file": resolved.file, "settings": settings }));
        return;
    }
    let words = |setting: &Setting, source: &Source| {
        [setting.key.into(), value(setting).into(), Word::from(source.to_string())]
    };
    if output.is_wide() {
        let rows = rows.map(|(setting, source)| {
            let [key, value, from] = words(setting, source);
            [key, value, from, setting.flag().into(), setting.variable().into()]
        });
        return output.rows(["SETTING", "VALUE", "FROM", "FLAG", "VARIABLE"], rows);
    }
    output.rows(["SETTING", "VALUE", "FROM"], rows.map(|(setting, source)| words(setting, source)));
}

/// What `hearth config check` found.
fn print_checked(file: &ConfigFile, output: &Output) {
    if output.printed(&file_problems(file)) {
        return;
    }
    let label = file.path.display();
    if file.problems.is_empty() {
        let count = counted(file.count(), "setting");
        return output.line(format_args!("{label}: {count}, no problems"));
    }
    output.drawn(&file.render(output.colours_errors()));
    let problems = counted(file.problems.len() + file.omitted, "problem");
    output.remark(&output.begin_remark().text(format_args!("\nhearth: {label} has {problems}")));
}

/// Shows everything that is wrong with the settings.
pub(crate) fn print_problems(problems: &Problems, output: &Output) {
    if output.for_programs() {
        let in_file = problems.file.as_ref().map(file_problems);
        let variables = &problems.variables;
        let all = json!({ "error": problems.to_string(), "file": in_file, "variables": variables });
        return output.remark(&output.begin_remark().text(json_line(&all)));
    }
    if let Some(file) = &problems.file {
        output.drawn(&file.render(output.colours_errors()));
        output.remark(&output.begin_remark());
    }
    let problem = |word: &str, sentence: &dyn Display| {
        let line = output.begin_remark().toned(word, Tone::Bad);
        output.remark(&line.text(format_args!(" {sentence}")));
    };
    problems.variables.iter().for_each(|sentence| problem("error:", sentence));
    problem("hearth:", problems);
}

fn file_problems(file: &ConfigFile) -> serde_json::Value {
    let problem = |problem: &Problem| {
        json!({
            "line": problem.line,
            "column": problem.column,
            "message": problem.message,
            "help": problem.help,
        })
    };
    let problems: Vec<_> = file.problems.iter().map(problem).collect();
    let omitted = file.omitted;
    json!({ "file": file.path, "settings": file.count(), "problems": problems, "omitted": omitted })
}

/// The value of a setting as JSON writes it.
fn typed(setting: &Setting, value: &str) -> serde_json::Value {
    match setting.kind {
        Kind::Number | Kind::Switch => value.parse().unwrap_or_else(|_| value.into()),
        Kind::Text | Kind::Path | Kind::Choice(_) => value.into(),
    }
}
