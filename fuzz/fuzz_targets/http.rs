//! Requests to the API: the real router over an engine on an empty database, without sockets. Each
//! request is a line of method and target, lines of headers, an empty line and a body; a line `---`
//! ends it. A host and a JSON content type are added where they are not given.
//!
//! Every answer is one that `openapi.json` has for that page and method, in the form that it says;
//! none is a 500. An error says where in the body it is. What was made is there, and is what was
//! asked for.

#![no_main]

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use futures_util::FutureExt;
use hearth_fuzz::engine;
use hearth_host::sim::{SimConfig, SimHost};
use http_body_util::BodyExt;
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use tower::ServiceExt;

/// Requests of one input.
const REQUESTS_MAX: usize = 8;
/// Pieces of a body that may have no end.
const PIECES_MAX: usize = 8;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().build().expect("a runtime is made")
});
/// The operations by path: for each method, its answers with their media types.
static OPERATIONS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
    let document: Value = serde_json::from_str(hearth_api::OPENAPI).expect("it is JSON");
    let paths = document["paths"].as_object().expect("it has paths");
    paths.iter().map(|(path, item)| (path.clone(), item.clone())).collect()
});

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    /// `None` where it has no end.
    body: Option<Vec<u8>>,
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    hearth_fuzz::mutate(data, size, max_size, seed)
});

fuzz_target!(|input: &[u8]| -> Corpus {
    let requests: Option<Vec<_>> =
        split(input).into_iter().take(REQUESTS_MAX).map(request).collect();
    let Some(requests) = requests else { return Corpus::Reject };
    RUNTIME.block_on(async {
        let host = Arc::new(SimHost::new(SimConfig::default()));
        let listen = "127.0.0.1:8088".parse().expect("an address");
        let (router, _life) = hearth_daemon::fuzzing::api(engine(), host, &listen);
        for request in requests {
            converse(&router, request).await;
        }
    });
    Corpus::Keep
});

/// The requests of an input.
fn split(input: &[u8]) -> Vec<Vec<&[u8]>> {
    let lines: Vec<&[u8]> = input.split(|&byte| byte == b'\n').collect();
    lines.split(|line| *line == b"---").map(<[&[u8]]>::to_vec).collect()
}

/// A request, where HTTP could carry it.
fn request(lines: Vec<&[u8]>) -> Option<Request<Vec<u8>>> {
    let (first, rest) = lines.split_first()?;
    let space = first.iter().position(|&byte| byte == b' ')?;
    let method = Method::from_bytes(&first[..space]).ok()?;
    let target = Uri::try_from(&first[space + 1..]).ok()?;
    let head = rest.iter().position(|line| line.is_empty()).unwrap_or(rest.len());
    let mut builder = Request::builder().method(method).uri(target);
    for line in &rest[..head] {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        builder = builder.header(name, value);
    }
    let body = rest.get(head + 1..).unwrap_or_default().join(&b'\n');
    let mut request = builder.body(body).ok()?;
    let headers = request.headers_mut();
    headers.entry(header::HOST).or_insert(HeaderValue::from_static("localhost"));
    headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    Some(request)
}

async fn converse(router: &Router, request: Request<Vec<u8>>) {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let sent = request.body().clone();
    let answer = ask(router, request).await;
    documented(&method, &path, &answer);
    if answer.status.is_client_error() || answer.status.is_server_error() {
        problem(&answer, &sent);
    } else if method == Method::POST && path.starts_with("/vms") {
        made(router, &answer).await;
    }
}

async fn ask(router: &Router, request: Request<Vec<u8>>) -> Answer {
    let answer = router.clone().oneshot(request.map(Body::from)).await;
    let (head, mut body) = answer.unwrap_or_else(|never| match never {}).into_parts();
    let mut whole = Some(Vec::new());
    for piece in 0.. {
        // Whatever has an end is there at once.
        match body.frame().now_or_never() {
            Some(Some(Ok(frame))) if piece < PIECES_MAX => {
                if let (Some(whole), Some(bytes)) = (&mut whole, frame.data_ref()) {
                    whole.extend_from_slice(bytes);
                }
            }
            Some(Some(Err(error))) => panic!("the body broke off: {error}"),
            Some(None) => break,
            Some(Some(Ok(_))) | None => {
                whole = None;
                break;
            }
        }
    }
    Answer { status: head.status, headers: head.headers, body: whole }
}

/// Whether the document has such an answer.
fn documented(method: &Method, path: &str, answer: &Answer) {
    let status = answer.status.as_u16();
    let media = answer.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = media.unwrap_or_default().split(';').next().unwrap_or_default();
    let item = OPERATIONS.iter().find(|(template, _)| fits(template, path)).map(|(_, item)| item);
    let asked = match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "post",
        Method::DELETE => "delete",
        _ => "another",
    };
    let Some(operation) = item.and_then(|item| item.get(asked)) else {
        assert!(matches!(status, 403 | 404 | 405), "{method} {path} answers {status}");
        return;
    };
    let Some(response) = operation["responses"].get(status.to_string()) else {
        panic!("{method} {path} answers {status}, which is not documented: {answer:?}");
    };
    match response.get("content").and_then(Value::as_object) {
        Some(content) => assert!(content.contains_key(media), "{method} {path}: {status} {media}"),
        None => assert!(answer.body.as_ref().is_none_or(Vec::is_empty), "{method} {path}"),
    }
    if media == "application/json" && method != Method::HEAD {
        json(answer);
    }
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/'), path.split('/'));
    template.clone().count() == path.clone().count()
        && template.zip(path).all(|(part, given)| {
            if part.starts_with('{') { !given.is_empty() } else { part == given }
        })
}

fn json(answer: &Answer) -> Value {
    let body = answer.body.as_deref().unwrap_or_else(|| panic!("JSON has an end: {answer:?}"));
    // What was compressed is left alone.
    if answer.headers.contains_key(header::CONTENT_ENCODING) {
        return Value::Null;
    }
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// An error says what it is, and of which parts of the body.
fn problem(answer: &Answer, sent: &[u8]) {
    let status = answer.status.as_u16();
    assert!(status < 500 || matches!(status, 502 | 503 | 507), "{answer:?}");
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json");
    if answer.body.as_ref().is_some_and(Vec::is_empty) {
        return; // to HEAD
    }
    let problem = json(answer);
    if problem.is_null() {
        return;
    }
    assert_eq!(problem["status"], status, "{problem}");
    for field in ["type", "title", "detail"] {
        assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
    }
    let errors = problem.get("errors").and_then(Value::as_array);
    assert!(status != 422 || errors.is_some_and(|e| !e.is_empty()) || sent_key(&problem));
    let Ok(sent) = serde_json::from_slice::<Value>(sent) else { return };
    // Of a key that is there twice, serde_json has the last value, and the daemon looks at the first.
    let is_twice =
        |error: &Value| error["detail"].as_str().is_some_and(|d| d.starts_with("duplicate key"));
    if errors.is_some_and(|errors| errors.iter().any(is_twice)) {
        return;
    }
    for error in errors.into_iter().flatten() {
        let pointer = error["pointer"].as_str().unwrap_or_else(|| panic!("{problem}"));
        // The last step may be to what is lacking.
        let above = pointer.rsplit_once('/').map_or("", |(above, _)| above);
        assert!(sent.pointer(pointer).or(sent.pointer(above)).is_some(), "{pointer}: {problem}");
    }
}

fn sent_key(problem: &Value) -> bool {
    problem["type"] == "urn:hearth:problem:key-reused"
}

/// What a change made is found where it says.
async fn made(router: &Router, answer: &Answer) {
    let Some(location) = answer.headers.get(header::LOCATION) else {
        panic!("it does not say where it is: {answer:?}")
    };
    let location = location.to_str().expect("it is a path");
    let get = Request::get(location).header(header::HOST, "localhost").body(Vec::new());
    let found = ask(router, get.expect("it is a path")).await;
    assert_eq!(found.status, StatusCode::OK);
    assert_eq!(found.headers.get(header::ETAG), answer.headers.get(header::ETAG));
    let (made, found) = (json(answer), json(&found));
    if !made.is_null() && !found.is_null() {
        assert_eq!(made["job_id"], found["job_id"]);
        assert_eq!(made["spec"], found["spec"]);
        assert_eq!(made["generation"], found["generation"]);
        let job = found["job_id"].as_str().unwrap_or_default();
        assert_eq!(location, format!("/vms/{job}"));
    }
}
