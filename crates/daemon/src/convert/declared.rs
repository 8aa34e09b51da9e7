//! Declared jobs: the body of a plan or an apply, and the answer to it.

use super::{problem_of, unfit};
use crate::desired::source_of;
use hearth_api::{ChangedJob, DrainedPool, FieldProblem, Plan, Problem, RefusedEntry, SpecChange};
use hearth_engine::{LoadPlan, PlannedChange, Why, json};
use hearth_model::{Declaration, JobId, Path, Segment, Spec, Tenant, Value, fields};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

/// The fields of the body.
pub(crate) const DECLARED_FIELDS: &[&str] = &["source", "entries", "allow_delete"];

/// What is declared, and by which file.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) source: Option<PathBuf>,
    pub(crate) jobs: Vec<DeclaredJob>,
    pub(crate) allow_delete: bool,
}

/// A job with a name.
#[derive(Debug)]
pub(crate) struct DeclaredJob {
    pub(crate) job: JobId,
    pub(crate) tenant: Option<Tenant>,
    pub(crate) spec: Arc<Spec>,
}

/// Reads the body of `POST /plan` and `POST /apply`.
pub(crate) fn declared(body: &Json) -> Result<Declared, Box<Problem>> {
    let tree = json::from_json(body);
    let Value::Map(known) = &tree else {
        let detail = format!("expected an object, found {}", tree.kind());
        return Err(unfit(vec![wrong("", detail)]));
    };
    let mut errors = Vec::new();
    for (key, _) in known.iter().filter(|(key, _)| !DECLARED_FIELDS.contains(&key.as_str())) {
        let help = match fields::suggest(key, DECLARED_FIELDS) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("known fields are {}", DECLARED_FIELDS.join(", ")),
        };
        let pointer = Path(vec![Segment::Key(key.clone())]).pointer();
        let detail = format!("unknown field `{key}`");
        errors.push(FieldProblem { pointer, detail, help: Some(help) });
    }
    let source = source(tree.get("source"), &mut errors);
    let allow_delete = match tree.get("allow_delete") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(allowed)) => *allowed,
        Some(other) => {
            let detail = format!("expected a boolean, found {}", other.kind());
            errors.push(wrong("/allow_delete", detail));
            false
        }
    };
    let jobs = match tree.get("entries") {
        Some(Value::List(entries)) => jobs(entries, &mut errors),
        None | Some(Value::Null) => {
            errors.push(wrong("/entries", "missing field `entries`"));
            Vec::new()
        }
        Some(other) => {
            errors.push(wrong("/entries", format!("expected a list, found {}", other.kind())));
            Vec::new()
        }
    };
    if errors.is_empty() { Ok(Declared { source, jobs, allow_delete }) } else { Err(unfit(errors)) }
}

fn source(value: Option<&Value>, errors: &mut Vec<FieldProblem>) -> Option<PathBuf> {
    let text = match value? {
        Value::Null => return None,
        Value::String(text) => text,
        other => {
            errors.push(wrong("/source", format!("expected a string, found {}", other.kind())));
            return None;
        }
    };
    if !text.starts_with('/') || text.contains('\0') {
        let detail = format!("{text:?} is no absolute path");
        let help = Some("leave it out where no file declares the jobs".to_owned());
        errors.push(FieldProblem { pointer: "/source".to_owned(), detail, help });
        return None;
    }
    Some(source_of(FilePath::new(text)))
}

fn jobs(entries: &[Value], errors: &mut Vec<FieldProblem>) -> Vec<DeclaredJob> {
    let mut jobs = Vec::with_capacity(entries.len());
    let mut first: BTreeMap<JobId, usize> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let at = |pointer: &str| format!("/entries/{index}{pointer}");
        let Declaration { job_id, tenant, spec } = match Declaration::read(entry) {
            Ok(declaration) => declaration,
            Err(found) => {
                errors.extend(
                    found
                        .into_iter()
                        .map(problem_of)
                        .map(|problem| FieldProblem { pointer: at(&problem.pointer), ..problem }),
                );
                continue;
            }
        };
        let Some(job) = job_id else {
            errors.push(wrong(&at("/job_id"), "missing field `job_id`"));
            continue;
        };
        if let Some(before) = first.get(&job) {
            let field = if entry.get("job_id").is_some() { "/job_id" } else { "/vm_id" };
            errors.push(FieldProblem {
                pointer: at(field),
                detail: format!("/entries/{before} declares job \"{job}\" already"),
                help: Some("keep one of them, or give it another name".to_owned()),
            });
            continue;
        }
        first.insert(job.clone(), index);
        jobs.push(DeclaredJob { job, tenant, spec: Arc::new(spec) });
    }
    jobs
}

fn wrong(pointer: &str, detail: impl Into<String>) -> FieldProblem {
    FieldProblem { pointer: pointer.to_owned(), detail: detail.into(), help: None }
}

/// What a load does, as it travels.
pub(crate) fn plan(plan: &LoadPlan) -> Plan {
    let names = |jobs: &[JobId]| jobs.iter().map(ToString::to_string).collect();
    Plan {
        create: names(&plan.create),
        replace: plan.replace.iter().map(changed).collect(),
        update: plan.update.iter().map(changed).collect(),
        delete: names(&plan.deleted),
        held: names(&plan.held),
        kept: names(&plan.kept),
        refused: refused(plan),
        unchanged: plan.unchanged,
        pools: plan
            .drained
            .iter()
            .map(|pool| DrainedPool { spec_hash: pool.hash.to_string(), drained: pool.instances })
            .collect(),
    }
}

/// The refused entries of a load, as they travel.
pub(crate) fn refused(plan: &LoadPlan) -> Vec<RefusedEntry> {
    let entry = |(job, reason): &(JobId, String)| RefusedEntry {
        job_id: job.to_string(),
        reason: reason.clone(),
    };
    plan.refused.iter().map(entry).collect()
}

fn changed(change: &PlannedChange) -> ChangedJob {
    let reason = match change.why {
        Why::Spec => None,
        Why::Images => Some("its images are others by now"),
        Why::Stopped => Some("it was stopped"),
        Why::BeingDeleted => Some("it was being deleted"),
        Why::Finished => Some("it had finished"),
    };
    let mut changes = Vec::new();
    let (before, after) = (json::spec_to_json(&change.before), json::spec_to_json(&change.after));
    compare(&Path::default(), Some(&before), Some(&after), &mut changes);
    ChangedJob { job_id: change.job.to_string(), reason: reason.map(str::to_owned), changes }
}

/// Every value that is another, objects gone through by their fields. A list is one value: what
/// moved within it can't be told from what was exchanged.
fn compare(
    path: &Path,
    before: Option<&Json>,
    after: Option<&Json>,
    changes: &mut Vec<SpecChange>,
) {
    if before == after {
        return;
    }
    let fields = |value: Option<&'_ Json>| value.and_then(Json::as_object).cloned();
    match (fields(before), fields(after)) {
        (None, None) => changes.push(SpecChange {
            path: path.pointer(),
            from: before.cloned().unwrap_or_default(),
            to: after.cloned().unwrap_or_default(),
        }),
        (before, after) => compare_fields(path, before, after, changes),
    }
}

fn compare_fields(
    path: &Path,
    before: Option<Map<String, Json>>,
    after: Option<Map<String, Json>>,
    changes: &mut Vec<SpecChange>,
) {
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    let added = after.keys().filter(|key| !before.contains_key(*key));
    for key in before.keys().chain(added) {
        let mut below = path.clone();
        below.0.push(Segment::Key(key.clone()));
        compare(&below, before.get(key), after.get(key), changes);
    }
}

#[cfg(test)]
mod tests {
    use super::{compare, declared};
    use expect_test::{Expect, expect};
    use hearth_model::Path;
    use serde_json::{Value, json};

    fn check_body(body: &Value, expected: Expect) {
        let problem = declared(body).expect_err("it has problems");
        let lines = problem.errors.iter().map(|error| {
            let help = error.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
            format!("{}: {}{help}\n", error.pointer, error.detail)
        });
        expected.assert_eq(&lines.collect::<String>());
    }

    fn check_changes(before: &Value, after: &Value, expected: Expect) {
        let mut changes = Vec::new();
        compare(&Path::default(), Some(before), Some(after), &mut changes);
        let lines = changes.iter().map(|c| format!("{}: {} -> {}\n", c.path, c.from, c.to));
        expected.assert_eq(&lines.collect::<String>());
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_place() {
        let spec = json!({
            "rootfs": "r", "kernel": "k", "cmd": ["/a"], "lifecycle": "service",
            "resources": {"vcpu": 1, "mem_mb": 128}
        });
        let mut no_cmd = spec.clone();
        no_cmd["cmd"] = json!(7);
        check_body(
            &json!({
                "source": "vms.exs", "allow_delet": true, "allow_delete": "yes",
                "entries": [
                    {"job_id": "a", "spec": spec}, {"spec": spec}, {"job_id": "a", "spec": spec},
                    {"job_id": "b", "spec": no_cmd}, {"vm_id": "a", "spec": spec}, 5
                ]
            }),
            expect![[r#"
                /allow_delet: unknown field `allow_delet` (did you mean `allow_delete`?)
                /source: "vms.exs" is no absolute path (leave it out where no file declares the jobs)
                /allow_delete: expected a boolean, found a string
                /entries/1/job_id: missing field `job_id`
                /entries/2/job_id: /entries/0 declares job "a" already (keep one of them, or give it another name)
                /entries/3/spec/cmd: expected a list of strings, found an integer
                /entries/4/vm_id: /entries/0 declares job "a" already (keep one of them, or give it another name)
                /entries/5: expected a map, found an integer
            "#]],
        );
        check_body(
            &json!([]),
            expect![[r#"
            : expected an object, found a list
        "#]],
        );
        check_body(
            &json!({"source": 5}),
            expect![[r#"
            /source: expected a string, found an integer
            /entries: missing field `entries`
        "#]],
        );
        check_body(
            &json!({"entries": {}}),
            expect![[r#"
            /entries: expected a list, found a map
        "#]],
        );
    }

    #[test]
    fn a_source_is_one_however_it_is_written() {
        let body = json!({"source": "/etc/./hearth/../vms.exs", "entries": []});
        let source = declared(&body).expect("it is right").source;
        assert_eq!(source.as_deref(), Some(std::path::Path::new("/etc/vms.exs")));
    }

    #[test]
    fn changes_are_told_by_field() {
        check_changes(
            &json!({"cmd": ["/a"], "env": {"A": "1", "a/b": "2"}, "warm_pool": {"min": 1}}),
            &json!({"cmd": ["/a", "-x"], "env": {"A": "2"}, "retries": 3, "warm_pool": {"min": 1}}),
            expect![[r#"
                /cmd: ["/a"] -> ["/a","-x"]
                /env/A: "1" -> "2"
                /env/a~1b: "2" -> null
                /retries: null -> 3
            "#]],
        );
        check_changes(&json!({"a": {"b": 1}}), &json!({"a": {"b": 1}}), expect![[""]]);
    }
}
