//! Where the settings of `hearth serve` come from: a flag, else a variable, else the config file,
//! else the default.

mod file;

pub(crate) use file::{ConfigFile, Problem};

use crate::settings::{CONFIG_VARIABLE, SETTINGS, ServeArgs, Setting, Settings, default_file};
use anyhow::Context;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// This flag.
    Flag(String),
    /// This variable.
    Variable(String),
    /// This file, at this line.
    File(PathBuf, usize),
    /// The built-in default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(flag) => write!(f, "flag {flag}"),
            Source::Variable(name) => write!(f, "variable {name}"),
            Source::File(path, line) => write!(f, "{}:{line}", path.display()),
            Source::Default => f.write_str("default"),
        }
    }
}

/// All settings, and where each came from.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) settings: Settings,
    /// The config file, where there is one.
    pub(crate) file: Option<PathBuf>,
    /// In the order of [`SETTINGS`].
    pub(crate) sources: Vec<Source>,
}

/// Everything that is wrong with the settings.
#[derive(Debug)]
pub(crate) struct Problems {
    /// The file, with what is wrong in it.
    pub(crate) file: Option<ConfigFile>,
    /// What is wrong with variables. Sentences.
    pub(crate) variables: Vec<String>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_file = self.file.as_ref().map_or(0, |file| file.problems.len() + file.omitted);
        let count = in_file + self.variables.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "the settings have {count} {noun}")
    }
}

impl std::error::Error for Problems {}

/// Looks everything up.
///
/// # Errors
/// [`Problems`], all of them; or that a config file can't be read.
pub(crate) fn resolve(args: &ServeArgs) -> anyhow::Result<Resolved> {
    resolve_with(args, &variable_here)
}

/// The path of the config file that `hearth serve` would read.
///
/// # Errors
/// Where it cannot be known whether the default one exists.
pub(crate) fn found() -> anyhow::Result<Option<PathBuf>> {
    find(&ServeArgs::default(), &variable_here)
}

fn variable_here(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

fn resolve_with(args: &ServeArgs, variables: Variables<'_>) -> anyhow::Result<Resolved> {
    let file = find(args, variables)?.map(|path| ConfigFile::read(&path)).transpose()?;
    let mut resolved = Resolved {
        settings: Settings::new(),
        file: None,
        sources: Vec::with_capacity(SETTINGS.len()),
    };
    let mut wrong = Vec::new();
    for setting in SETTINGS {
        let mut source = Source::Default;
        // From the weakest to the strongest, so that every value is checked.
        let from_file = file.as_ref().and_then(|file| Some((file, file.value(setting.key)?)));
        if let Some((file, value)) = from_file
            && setting.take(&mut resolved.settings, &value.text).is_ok()
        {
            source = Source::File(file.path.clone(), value.line);
        }
        if let Some((name, value)) = variable(setting, variables) {
            match value.and_then(|text| setting.take(&mut resolved.settings, &text)) {
                Ok(()) => source = Source::Variable(name),
                Err(message) => wrong.push(format!("{name}: {message}")),
            }
        }
        if let Some(text) = args.flags.get(setting.key) {
            match setting.take(&mut resolved.settings, text) {
                Ok(()) => source = Source::Flag(setting.flag()),
                Err(message) => wrong.push(format!("{}: {message}", setting.flag())),
            }
        }
        resolved.sources.push(source);
    }
    resolved.file = file.as_ref().map(|file| file.path.clone());
    let file = file.filter(|file| !file.problems.is_empty());
    if file.is_some() || !wrong.is_empty() {
        return Err(Problems { file, variables: wrong }.into());
    }
    Ok(resolved)
}

/// The config file: the one that is named, or the default one if it exists.
fn find(args: &ServeArgs, variables: Variables<'_>) -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = args.config.clone().or_else(|| variables(CONFIG_VARIABLE).map(Into::into)) {
        return Ok(Some(path));
    }
    let path = default_file();
    let there = path.try_exists().with_context(|| format!("cannot look for {}", path.display()))?;
    Ok(there.then_some(path))
}

/// The variable of a setting that is set, and its value.
fn variable(
    setting: &Setting,
    variables: Variables<'_>,
) -> Option<(String, Result<String, String>)> {
    let names = std::iter::once(setting.variable());
    let mut names = names.chain(setting.other_variable.map(str::to_owned));
    let (name, value) = names.find_map(|name| Some((name.clone(), variables(&name)?)))?;
    Some((name, value.into_string().map_err(|value| format!("{value:?} is not UTF-8"))))
}

#[cfg(test)]
mod tests {
    use super::{Problems, resolve_with};
    use crate::settings::{SETTINGS, ServeArgs};
    use expect_test::{Expect, expect};
    use std::ffi::OsString;

    /// What `keys` come to with this file, these variables and these flags.
    fn check(
        file: &str,
        variables: &[(&str, &str)],
        flags: &[(&'static str, &str)],
        keys: &[&str],
        expected: Expect,
    ) {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("hearth.toml");
        std::fs::write(&path, file).expect("a file");
        let args = ServeArgs {
            config: Some(path),
            flags: flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect(),
        };
        let look = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let shown = match resolve_with(&args, &look) {
            Ok(resolved) => SETTINGS
                .iter()
                .zip(&resolved.sources)
                .filter(|(setting, _)| keys.contains(&setting.key))
                .map(|(setting, source)| {
                    let value = setting.value(&resolved.settings);
                    format!("{} = {value} ({source})\n", setting.key)
                })
                .collect(),
            Err(error) => {
                let problems = error.downcast_ref::<Problems>().expect("problems");
                let file = problems.file.as_ref().map(|file| file.render(false));
                format!(
                    "{problems}\n{}\n{}",
                    problems.variables.join("\n"),
                    file.unwrap_or_default()
                )
            }
        };
        expected.assert_eq(&shown.replace(&directory.path().display().to_string(), "DIR"));
    }

    #[test]
    fn problems_of_a_file_beyond_the_bound_are_counted() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("hearth.toml");
        let text: String = (0..150).map(|at| format!("key{at} = 1\n")).collect();
        std::fs::write(&path, text).expect("a file");
        let args = ServeArgs { config: Some(path), flags: std::iter::empty().collect() };
        let error = resolve_with(&args, &|_| None).expect_err("it has problems");
        let problems = error.downcast_ref::<Problems>().expect("problems");
        assert_eq!(problems.to_string(), "the settings have 150 problems");
        let drawn = problems.file.as_ref().map(|file| file.render(false)).unwrap_or_default();
        assert_eq!(drawn.matches("there is no setting").count(), 100);
        assert!(drawn.ends_with("and 50 more problems"), "{drawn}");
    }

    #[test]
    fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
        check(
            "listen = \"127.0.0.1:1\"\nsim_boot_ms = 1\nvcpus_per_cpu = 1\nallow_delete = true\n",
            &[("HEARTH_SIM_BOOT_MS", "2"), ("HEARTH_VCPUS_PER_CPU", "2")],
            &[("vcpus_per_cpu", "3"), ("allow_delete", "false")],
            &["listen", "sim_boot_ms", "vcpus_per_cpu", "allow_delete", "memory_reserve_mb"],
            expect![[r#"
                listen = 127.0.0.1:1 (DIR/hearth.toml:1)
                sim_boot_ms = 2 (variable HEARTH_SIM_BOOT_MS)
                allow_delete = false (flag --allow-delete)
                vcpus_per_cpu = 3 (flag --vcpus-per-cpu)
                memory_reserve_mb = 512 (default)
            "#]],
        );
    }

    #[test]
    fn paths_in_a_file_begin_at_the_file() {
        check(
            "images = \"images\"\nstate_dir = \"/state\"\n",
            &[("HEARTH_FIRECRACKER", "bin/firecracker")],
            &[],
            &["images", "state_dir", "firecracker"],
            expect![[r#"
                state_dir = /state (DIR/hearth.toml:2)
                images = DIR/images (DIR/hearth.toml:1)
                firecracker = bin/firecracker (variable HEARTH_FIRECRACKER)
            "#]],
        );
    }

    #[test]
    fn the_seeds_variable_counts_behind_hearths_own() {
        let seed = ("FC_EX_CP_DESIRED_VMS_CONFIG", "seed.exs");
        check(
            "",
            &[seed],
            &[],
            &["desired"],
            expect![[r#"
            desired = seed.exs (variable FC_EX_CP_DESIRED_VMS_CONFIG)
        "#]],
        );
        check(
            "",
            &[seed, ("HEARTH_DESIRED", "own.exs")],
            &[],
            &["desired"],
            expect![[r#"
            desired = own.exs (variable HEARTH_DESIRED)
        "#]],
        );
    }

    #[test]
    fn every_problem_is_reported_with_its_place_and_remedy() {
        check(
            "lissten = \"127.0.0.1:1\"\nlisten = 8088\nimages = \"\"\nvcpus_per_cpu = 0\n\
             allow_delete = \"yes\"\nhost = \"windows\"\n[serve]\nlog = 1\n",
            &[("HEARTH_SIM_BOOT_MS", "soon"), ("HEARTH_LOG", "a=b=c")],
            &[],
            &[],
            expect![[r#"
                the settings have 9 problems
                HEARTH_SIM_BOOT_MS: "soon" is not a whole number, or far too large
                HEARTH_LOG: "a=b=c" is not a log filter; write info, or warn,hearth_daemon=debug
                error: there is no setting `lissten`
                 --> DIR/hearth.toml:1:1
                  |
                1 | lissten = "127.0.0.1:1"
                  | ^^^^^^^
                  |
                  = help: did you mean `listen`?

                error: `listen` takes a text in quotes, and this is an integer
                 --> DIR/hearth.toml:2:10
                  |
                2 | listen = 8088
                  |          ^^^^
                  |
                  = help: write listen = "…"

                error: `images`: a path can't be empty
                 --> DIR/hearth.toml:3:10
                  |
                3 | images = ""
                  |          ^^

                error: `vcpus_per_cpu`: 0 is out of range: at least 1
                 --> DIR/hearth.toml:4:17
                  |
                4 | vcpus_per_cpu = 0
                  |                 ^

                error: `allow_delete` takes true or false, and this is a string
                 --> DIR/hearth.toml:5:16
                  |
                5 | allow_delete = "yes"
                  |                ^^^^^
                  |
                  = help: write allow_delete = true

                error: `host`: "windows" is none of linux, sim
                 --> DIR/hearth.toml:6:8
                  |
                6 | host = "windows"
                  |        ^^^^^^^^^

                error: there is no setting `serve`
                 --> DIR/hearth.toml:7:2
                  |
                7 | [serve]
                  |  ^^^^^
                  |
                  = help: settings have no sections: write them at the top"#]],
        );
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_where() {
        check(
            "listen = \nhost = sim\nhost = \"sim\"\n",
            &[],
            &[],
            &[],
            expect![[r#"
            the settings have 3 problems

            error: string values must be quoted, expected literal string
             --> DIR/hearth.toml:1:10
              |
            1 | listen = 
              |          ^

            error: string values must be quoted, expected literal string
             --> DIR/hearth.toml:2:8
              |
            2 | host = sim
              |        ^^^

            error: duplicate key
             --> DIR/hearth.toml:3:1
              |
            3 | host = "sim"
              | ^^^^"#]],
        );
    }
}
