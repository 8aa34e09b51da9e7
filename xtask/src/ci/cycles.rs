//! Files of a crate that import each other, directly or through others: none of them can be read alone.
//!
//! Imports are `crate::` and `super::` paths. What a file declares, and the crate's root, import nothing
//! in this sense.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How many files of a crate may be in a cycle, if any: bounds that only fall.
const FILES_MAX: [(&str, usize); 1] = [("planner", 2)];

/// Modules by their paths, such as `output::plan`, with the modules that they import.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn files_do_not_import_each_other() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut files_count = 0;
    for entry in std::fs::read_dir(crates).unwrap() {
        let dir = entry.unwrap().path();
        let name = dir.file_name().unwrap().to_str().unwrap();
        let known = FILES_MAX.iter().find(|(known, _)| *known == name);
        let files_max = known.map_or(0, |(_, files_max)| *files_max);
        let mut files = BTreeMap::new();
        read(&dir.join("src"), "", &mut files);
        files_count += files.len();
        let cycles = cycles(&imports(&files));
        assert!(
            cycles.len() <= files_max,
            "{} files of crates/{name} are in a cycle, {files_max} are tolerated: {cycles:#?}",
            cycles.len()
        );
    }
    assert!(files_count > 100, "only {files_count} files were found");
}

#[test]
fn cycle_is_found_through_groups_children_and_other_files() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let files = BTreeMap::from([
        file(
            "a",
            "use crate::{b::{self as x, B}, c::C};\n#[cfg(test)]\nmod tests { use crate::t::T; }",
        ),
        file("b", "// crate::a::A\nfn b() { crate::c::d::D::new(); }"),
        file("c", "mod d;"),
        file("c::d", "use super::super::a::A;\nuse super::C;"),
        file("t", "use crate::a::A;\nuse crate::Root;"),
    ]);
    let imports = imports(&files);
    let of = |name: &str| imports[name].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!((of("a"), of("b")), (vec!["b", "c"], vec!["c::d"]));
    assert_eq!((of("c::d"), of("t")), (vec!["a", "c"], vec!["a"]));
    let in_cycles = cycles(&imports);
    assert_eq!(in_cycles.keys().collect::<Vec<_>>(), ["a", "b", "c::d"]);
}

/// The files below `dir` by the paths of their modules, without the crate's root.
fn read(dir: &Path, module: &str, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let module = match (module, name) {
            ("", "lib" | "main") => continue,
            ("", name) => name.to_owned(),
            (parent, "mod") => parent.to_owned(),
            (parent, name) => format!("{parent}::{name}"),
        };
        if path.is_dir() {
            read(&path, &module, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.insert(module, std::fs::read_to_string(&path).unwrap());
        }
    }
}

fn imports(files: &BTreeMap<String, String>) -> Imports {
    let of = |(module, text): (&String, &String)| {
        let (code, _) = text.split_once("#[cfg(test)]\nmod tests").unwrap_or((text, ""));
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code = lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
        let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
        let mut paths = Vec::new();
        for (at, _) in code.match_indices("crate::") {
            expand("", &code[at + "crate::".len()..], &mut paths);
        }
        for (at, _) in code.match_indices("super::").filter(|(at, _)| !code[..*at].ends_with("::"))
        {
            let (mut parent, mut rest) = (parent, &code[at + "super::".len()..]);
            while let Some(next) = rest.strip_prefix("super::") {
                (parent, rest) = (parent.rsplit_once("::").map_or("", |(up, _)| up), next);
            }
            expand(parent, rest, &mut paths);
        }
        let imported = paths.iter().filter_map(|path| file_of(path, files));
        (module.clone(), imported.filter(|file| file != module).collect())
    };
    files.iter().map(of).collect()
}

/// The paths of a tree of imports that `code` begins with; returns what follows it.
fn expand<'a>(prefix: &str, code: &'a str, paths: &mut Vec<String>) -> &'a str {
    if let Some(mut rest) = code.strip_prefix('{') {
        while !rest.is_empty() && !rest.starts_with(['}', ';']) {
            rest = expand(prefix, rest.trim_start(), paths).trim_start_matches([',', ' ']);
        }
        return rest.strip_prefix('}').unwrap_or(rest);
    }
    let length = code.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(code.len());
    let (name, rest) = code.split_at(length);
    let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}::{name}") };
    match rest.strip_prefix("::") {
        Some(rest) => expand(&path, rest, paths),
        None => {
            paths.push(path);
            // A renaming, or `*`.
            rest.trim_start_matches(|c| !matches!(c, ',' | '}' | ';'))
        }
    }
}

/// The file that has what a path names, if that is not the crate's root.
fn file_of(path: &str, files: &BTreeMap<String, String>) -> Option<String> {
    let mut path = path;
    loop {
        if files.contains_key(path) {
            return Some(path.to_owned());
        }
        (path, _) = path.rsplit_once("::")?;
    }
}

/// The modules that import themselves through others, with those of their imports that do so too.
fn cycles(imports: &Imports) -> Imports {
    let reached = |from: &str| {
        let mut reached = BTreeSet::new();
        let mut open = vec![from];
        while let Some(module) = open.pop() {
            open.extend(
                imports[module].iter().filter(|next| reached.insert(*next)).map(|next| &**next),
            );
        }
        reached.into_iter().cloned().collect::<BTreeSet<String>>()
    };
    let reached: Imports = imports.keys().map(|from| (from.clone(), reached(from))).collect();
    let back = |from: &str, to: &str| reached[to].contains(from);
    let in_cycles = imports.iter().filter(|(from, _)| back(from, from));
    let within = |from: &str, to: &BTreeSet<String>| {
        to.iter().filter(|to| back(from, to)).cloned().collect()
    };
    in_cycles.map(|(from, to)| (from.clone(), within(from, to))).collect()
}
