//! A desired-state file on its way to jobs. The first line is the file's name, the rest the file.
//!
//! What is wrong with a file is told in places that are in it, and can be drawn. What is right is
//! read back the same from every format, from the database's form, and from the API's, and does
//! exactly what was planned for it, once.

#![no_main]

use hearth_desired_file::{
    Declared, Diagnostics, File, Format, Kind, Node, PROBLEMS_MAX, Span, Styling, parse, parse_as,
    parse_tree, write,
};
use hearth_engine::{
    ApplyFile, Deletions, DiffBase, EntryDigest, FileEntry, FileLoad, LoadPlan, PlanFile,
};
use hearth_fuzz::{ask, engine, is_tame, resolution};
use hearth_model::{Spec, hash};
use hearth_store::json::SpecForm;
use libfuzzer_sys::{Corpus, fuzz_target};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some(end) = input.iter().position(|&byte| byte == b'\n') else { return Corpus::Reject };
    let (label, bytes) = (&input[..end], &input[end + 1..]);
    let Some(label) = str::from_utf8(label).ok().filter(|label| is_tame(label)) else {
        return Corpus::Reject;
    };
    match parse(label, bytes) {
        Ok(file) => right(&file, bytes.len()),
        Err(diagnostics) => wrong(&diagnostics, bytes),
    }
    if let Ok(text) = str::from_utf8(bytes)
        && Format::of(label) == Ok(Format::Elixir)
        && let Ok(tree) = parse_tree(label, text)
    {
        nested(&tree, Span::new(0, text.len()));
    }
    Corpus::Keep
});

fn right(file: &File, len: usize) {
    let names: BTreeSet<_> = file.jobs.iter().map(|job| &job.job_id).collect();
    assert_eq!(names.len(), file.jobs.len(), "two jobs have one name");
    let mut behind = 0;
    for job in &file.jobs {
        assert!(behind <= job.span.start && job.span.start < job.span.end && job.span.end <= len);
        behind = job.span.end;
        let spec = &job.spec;
        assert_eq!(Spec::read(&spec.write()).as_ref(), Ok(spec));
        let row = serde_json::to_string(&SpecForm(Arc::new(spec.clone()))).expect("it is JSON");
        let read: SpecForm = serde_json::from_str(&row).expect("it was written just now");
        assert_eq!(*read.0, *spec);
    }
    for format in Format::ALL {
        let text = write(format, &file.jobs);
        let again = parse_as(format, "again", &text);
        let again = again.unwrap_or_else(|wrong| panic!("{format}: {wrong}\nis wrong in\n{text}"));
        let same = |(left, right): (&Declared, &Declared)| {
            (&left.job_id, &left.tenant, &left.spec) == (&right.job_id, &right.tenant, &right.spec)
        };
        assert_eq!(again.jobs.len(), file.jobs.len());
        assert!(
            again.jobs.iter().zip(&file.jobs).all(same),
            "{format} says something else\n{text}"
        );
    }
    if file.jobs.len() <= 20 {
        applied(file);
    }
}

/// What the daemon does with it: what is planned is what is done, and there is nothing left to do.
fn applied(file: &File) {
    let entry = |job: &Declared| {
        let resolution = resolution(&job.spec);
        if let hearth_model::Resolution::Known { images, hash } = &resolution {
            assert_eq!(*hash, hash::spec_hash(&job.spec, images));
        }
        let spec = Arc::new(job.spec.clone());
        let tenant = job.tenant.clone();
        let digest = EntryDigest::of(tenant.as_ref(), &spec);
        FileEntry { job: job.job_id.clone(), tenant, spec, digest, resolution }
    };
    let load = || FileLoad {
        path: Some(PathBuf::from("/etc/vms.exs")),
        entries: file.jobs.iter().map(entry).collect(),
        deletions: Deletions::Few,
        against: DiffBase::LastApplied,
    };
    let mut engine = engine();
    let planned = ask(&mut engine, 0, PlanFile(load())).expect("a plan is not refused");
    let done = ask(&mut engine, 1, ApplyFile(load())).expect("memory takes it");
    assert_eq!(planned, done);
    assert_eq!(done.create.len() + done.refused.len(), file.jobs.len());
    assert_eq!(engine.fleet().jobs().len(), done.create.len());
    engine.audit().expect("memory and database are one");
    let again = ask(&mut engine, 2, ApplyFile(load())).expect("memory takes it");
    let nothing = LoadPlan {
        unchanged: done.create.len(),
        refused: done.refused.clone(),
        ..LoadPlan::default()
    };
    assert_eq!(again, nothing);
}

fn wrong(diagnostics: &Diagnostics, bytes: &[u8]) {
    let shown = String::from_utf8_lossy(bytes);
    let kept = diagnostics.iter().count();
    assert!((1..=PROBLEMS_MAX).contains(&kept));
    assert_eq!(diagnostics.count(), kept + diagnostics.omitted());
    assert!(diagnostics.omitted() == 0 || kept == PROBLEMS_MAX);
    let mut behind = 0;
    for diagnostic in diagnostics {
        let Span { start, end } = diagnostic.span;
        assert!(behind <= start && start <= end && end <= shown.len(), "{diagnostic:?}");
        behind = start;
        one_line(&shown, diagnostic.span, diagnostic.line);
        let before = &shown[shown[..start].rfind('\n').map_or(0, |at| at + 1)..start];
        let column = before.chars().filter(|c| *c != '\u{feff}').count() + 1;
        assert_eq!(diagnostic.column, column, "{diagnostic:?}");
        assert_eq!(diagnostic.end_column, column + shown[start..end].chars().count());
        let said = [Some(&diagnostic.message), diagnostic.label.as_ref(), diagnostic.help.as_ref()];
        for text in said.into_iter().flatten() {
            assert!(!text.is_empty() && is_tame(text), "{text:?}");
            // 400 characters and an ellipsis, each of them an escape at worst.
            assert!(text.chars().count() <= 400 * "\\u{202e}".len() + 1, "{text:?}");
        }
        for related in &diagnostic.related {
            one_line(&shown, related.span, related.line);
            assert!(is_tame(&related.label));
        }
        if let Some(pointer) = &diagnostic.pointer {
            assert!(pointer.is_empty() || pointer.starts_with('/'), "{pointer:?}");
        }
    }
    let drawn = diagnostics.render(Styling::Plain);
    assert!(!drawn.contains('\u{1b}'), "{drawn:?}");
    assert!(drawn.contains(&*hearth_model::text::plain(diagnostics.label())));
    let coloured = diagnostics.render(Styling::Ansi);
    assert!(coloured.len() >= drawn.len());
}

fn one_line(text: &str, span: Span, line: usize) {
    let marked = &text[span.start..span.end];
    assert!(!marked.contains(['\n', '\r']), "{marked:?}");
    assert_eq!(line, text[..span.start].matches('\n').count() + 1);
}

/// Every value lies within that of which it is a part.
fn nested(node: &Node, within: Span) {
    let Span { start, end } = node.span;
    assert!(within.start <= start && start <= end && end <= within.end, "{node:?} in {within:?}");
    match &node.kind {
        Kind::List(items) | Kind::Tuple(items) => {
            items.iter().for_each(|item| nested(item, node.span));
        }
        Kind::Map(entries) => {
            for entry in entries {
                nested(&entry.key, node.span);
                nested(&entry.value, node.span);
            }
        }
        Kind::Invalid => panic!("a tree without problems has a hole"),
        _ => {}
    }
}
