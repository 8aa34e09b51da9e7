//! What the document of the API says that is not said beside a handler: the whole, the headers that
//! changes take, and the answers that many handlers share. `openapi.json` is made of it.

use crate::limits;
use hearth_api::{PROBLEM_JSON, Problem, document::Create};
use hearth_model::Selector;
use hearth_model::selector::{Condition, Values};
use std::collections::BTreeMap;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::link::{Link, LinkBuilder};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{
    ArrayBuilder, ContentBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Schema,
    Type,
};
use utoipa::{IntoParams, IntoResponses, Modify, OpenApi, openapi};

/// The document before its routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hearth",
        description = "Keeps Firecracker microVMs running, and keeps spare ones warm. An accepted \
            change is on disk before it is answered. Times are RFC 3339 UTC.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(
        Problem,
        Create,
        hearth_api::Job,
        hearth_api::LogLine,
        hearth_api::LogRecord,
        hearth_api::Heartbeat,
        hearth_api::Page<hearth_api::Job>
    )),
    modifiers(&Links)
)]
pub(super) struct Whole;

/// The job that a path names.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct OfJob {
    /// The job.
    #[param(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    #[allow(dead_code, reason = "only its shape is used")]
    job_id: String,
}

/// What a POST hangs on.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "only their shape is used")]
pub(super) struct Keyed {
    /// Makes the request repeatable for 24 h: a repeat changes nothing and is answered with the
    /// status of the first and the job as it is now. The key of another request is 422.
    #[param(rename = "Idempotency-Key", value_type = String, required = false,
        pattern = "^[!-~]{1,255}$")]
    key: Option<String>,
}

/// What a change hangs on.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "only their shape is used")]
pub(super) struct Conditional {
    /// Change the job only at this generation, as `ETag` gives it; `*` for any. Else 412.
    #[param(rename = "If-Match", value_type = String, required = false,
        pattern = r#"^(\*|[0-9]{1,19}|"[0-9]{1,19}")$"#)]
    generation: Option<String>,
}

/// What selects jobs of a list: the conditions of a [`Selector`].
pub(super) struct Selecting;

impl IntoParams for Selecting {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        Selector::CONDITIONS.iter().map(parameter).collect()
    }
}

fn parameter(condition: &Condition) -> Parameter {
    let value = ObjectBuilder::new().schema_type(Type::String);
    let value = match condition.values {
        Values::Pattern(pattern) => value.pattern(Some(pattern)),
        Values::OneOf(words) => value.enum_values(Some(words.iter().copied())),
    };
    let schema: RefOr<Schema> = match condition.is_repeatable {
        true => ArrayBuilder::new().items(value).into(),
        false => value.into(),
    };
    ParameterBuilder::new()
        .name(condition.name)
        .parameter_in(ParameterIn::Query)
        .description(Some(condition.doc))
        .schema(Some(schema))
        .build()
}

/// A change was accepted.
pub(super) struct Changed<const STATUS: u16>;

impl<const STATUS: u16> IntoResponses for Changed<STATUS> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let description = match STATUS {
            200 => "It is so already.",
            201 => "A warm microVM was claimed for it.",
            _ => "It will be so.",
        };
        let job = ContentBuilder::new().schema(Some(Ref::from_schema_name("Job"))).build();
        let repeated = header("`true`: this request was carried out before.");
        let response = ResponseBuilder::new()
            .description(description)
            .content("application/json", job)
            .header("Location", header("The job."))
            .header("ETag", header("The job's generation in quotes, for `If-Match`."))
            .header("Idempotency-Repeated", repeated);
        BTreeMap::from([(STATUS.to_string(), linked(response).build().into())])
    }
}

/// The job as it is.
pub(super) struct Shown;

impl IntoResponses for Shown {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let job = ContentBuilder::new().schema(Some(Ref::from_schema_name("Job"))).build();
        let response = ResponseBuilder::new()
            .description("The job.")
            .content("application/json", job)
            .header("ETag", header("Its generation in quotes, for `If-Match`."));
        BTreeMap::from([("200".to_owned(), linked(response).build().into())])
    }
}

/// A page of jobs, with links that lead on from the first.
pub(super) struct Listed;

impl IntoResponses for Listed {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let page = ContentBuilder::new().schema(Some(Ref::from_schema_name("Page_Job"))).build();
        let response =
            ResponseBuilder::new().description("A page of jobs.").content("application/json", page);
        let names = PAGES_OF_JOB.into_iter().chain(CHANGES_OF_JOB).map(of_first);
        BTreeMap::from([("200".to_owned(), refer(response, names).build().into())])
    }
}

/// What can be asked about a job once an answer has named it.
const PAGES_OF_JOB: [&str; 4] = ["getJob", "readLog", "listJobEvents", "connectPort"];
/// What can be done with it, at any generation or at this one alone.
const CHANGES_OF_JOB: [&str; 4] = ["stopJob", "startJob", "restartJob", "deleteJob"];

/// The name of a link that holds at the generation of the answer alone.
fn unchanged(operation: &str) -> String {
    format!("{operation}Unchanged")
}

/// The name of a link from a page of jobs.
fn of_first(operation: &str) -> String {
    format!("{operation}OfFirst")
}

/// An answer with links to the operations on its job.
fn linked(response: ResponseBuilder) -> ResponseBuilder {
    let names = PAGES_OF_JOB.into_iter().chain(CHANGES_OF_JOB).map(str::to_owned);
    refer(response, names.chain(CHANGES_OF_JOB.map(unchanged)))
}

fn refer(response: ResponseBuilder, names: impl Iterator<Item = String>) -> ResponseBuilder {
    names.fold(response, |response, name| {
        let link = Ref::new(format!("#/components/links/{name}"));
        response.link(name, RefOr::<Link>::Ref(link))
    })
}

/// Puts the links where the answers refer to.
struct Links;

impl Modify for Links {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let links = &mut document.components.get_or_insert_default().links;
        let link = |operation: &str, job: &str| {
            LinkBuilder::new().operation_id(operation).parameter("job_id", job)
        };
        let (named, first) = ("$response.body#/job_id", "$response.body#/items/0/job_id");
        for operation in PAGES_OF_JOB.into_iter().chain(CHANGES_OF_JOB) {
            links.insert(operation.to_owned(), link(operation, named).build().into());
            links.insert(of_first(operation), link(operation, first).build().into());
        }
        for operation in CHANGES_OF_JOB {
            let link = link(operation, named).parameter("If-Match", "$response.header.ETag");
            links.insert(unchanged(operation), link.build().into());
        }
    }
}

/// A request was refused; nothing was changed.
pub(super) struct Refuses<const STATUS: u16>;

impl<const STATUS: u16> IntoResponses for Refuses<STATUS> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let mut response =
            ResponseBuilder::new().description(why(STATUS)).content(PROBLEM_JSON, problem);
        if STATUS == 503 {
            response = response.header("Retry-After", header("Seconds."));
        }
        BTreeMap::from([(STATUS.to_string(), response.build().into())])
    }
}

fn why(status: u16) -> String {
    let why = match status {
        400 => "The query, a header or the body can't be read.",
        403 => {
            "The caller is not admitted, or the request is for another host or from the page of one."
        }
        404 => "There is no such job.",
        408 => return format!("The body did not come within {:?}.", limits::BODY_DEADLINE),
        409 => {
            "The job does not allow it: it is another tenant's, or has no microVM or none with ports."
        }
        412 => "The job is at another generation than `If-Match` says, or not there.",
        413 => "The body is too large.",
        415 => "The body's type is not JSON.",
        422 => {
            "Fields of the body are wrong, each with its pointer; or the key is another request's."
        }
        426 => "The connection was not to be upgraded.",
        502 => "The guest can't be reached.",
        503 => "The database, the host or the daemon can't serve just now.",
        _ => "The disk is full.",
    };
    why.to_owned()
}

fn header(description: &str) -> Header {
    let text = ObjectBuilder::new().schema_type(Type::String).build();
    HeaderBuilder::new().schema(Some(text)).description(Some(description)).build()
}

#[cfg(test)]
mod tests {
    use super::super::routes;
    use hearth_model::fields;
    use serde_json::Value;

    fn document() -> Value {
        let (_, document) = routes().split_for_parts();
        serde_json::to_value(document).unwrap()
    }

    #[test]
    fn the_document_in_the_repository_is_what_the_code_says() {
        let text = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        // UPDATE_EXPECT=1 brings it up to date.
        expect_test::expect_file!["../../../api/openapi.json"].assert_eq(&text);
    }

    #[test]
    fn the_documented_fields_are_those_that_are_read() {
        let document = document();
        let known = |schema: &str| -> Vec<String> {
            let schema = &document["components"]["schemas"][schema];
            assert_eq!(schema["additionalProperties"], false, "{schema}");
            schema["properties"].as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(known("Spec"), fields::SPEC_FIELDS);
        assert_eq!(known("CreateVm"), hearth_model::fields::DECLARATION_FIELDS);
        assert_eq!(known("DeclaredJob"), hearth_model::fields::DECLARATION_FIELDS);
        assert_eq!(known("Declared"), hearth_desired_file::DECLARED_FIELDS);
        let spec = &document["components"]["schemas"]["Spec"]["properties"];
        assert_eq!(spec["cmd"]["maxItems"], fields::CMD_ARGS_MAX);
        assert_eq!(spec["disk_mb"]["maximum"], fields::MEM_MIB_MAX);
        let of = |schema: &str, field: &str| {
            document["components"]["schemas"][schema]["properties"][field]["maximum"].clone()
        };
        assert_eq!(of("Resources", "vcpu"), fields::VCPU_MAX);
        assert_eq!(of("Resources", "mem_mb"), fields::MEM_MIB_MAX);
        assert_eq!(of("WarmPool", "max"), fields::POOL_MAX);
    }
}
