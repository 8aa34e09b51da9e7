//! The endpoints: from a request to what is done and what is answered.

use crate::shared::Shared;
use crate::vm::{BootSource, Drive, Entropy, MachineConfig, Refused, Vm, Vsock};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::sync::Arc;

pub(crate) const VERSION: &str = "1.12.1";

/// A request with its body.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum ActionType {
    FlushMetrics,
    InstanceStart,
    SendCtrlAltDel,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Action {
    action_type: ActionType,
}

impl Answer {
    pub(crate) fn fault(status: u16, message: &str) -> Answer {
        Answer { status, body: Some(json!({ "fault_message": message }).to_string()) }
    }

    /// What the HTTP server says by itself, before an endpoint is asked.
    pub(crate) fn error(message: &str) -> Answer {
        let text = format!("{message}\nAll previous unanswered requests will be dropped.");
        Answer { status: 400, body: Some(format!("{{ \"error\": \"{text}\" }}")) }
    }
}

impl Request {
    /// Its name in scripts and records.
    pub(crate) fn name(&self) -> String {
        match serde_json::from_slice::<Action>(&self.body) {
            Ok(action) if self.path == "/actions" => format!("{:?}", action.action_type),
            _ => format!("{} {}", self.method, self.path),
        }
    }
}

/// Does what is asked for.
pub(crate) fn handle(shared: &Arc<Shared>, vm: &mut Vm, request: &Request) -> Answer {
    let answered = match request.method.as_str() {
        "GET" => get(vm, request),
        "PUT" => put(shared, vm, request).map(|()| Answer { status: 204, body: None }),
        _ => Err(no_such(request)),
    };
    answered.unwrap_or_else(|refused| {
        shared
            .log
            .line(&format!("Received Error. Status code: 400 Bad Request. Message: {refused}"));
        Answer::fault(400, &refused)
    })
}

fn get(vm: &Vm, request: &Request) -> Result<Answer, Refused> {
    if !request.body.is_empty() {
        return Err("GET request cannot have a body.".to_owned());
    }
    let body = match request.path.as_str() {
        "/" => {
            let state = if vm.started { "Running" } else { "Not started" };
            json!({"id": vm.id, "state": state, "vmm_version": VERSION, "app_name": "Firecracker"})
                .to_string()
        }
        "/version" => json!({ "firecracker_version": VERSION }).to_string(),
        "/machine-config" => serde_json::to_string(&vm.machine).unwrap_or_default(),
        _ => return Err(no_such(request)),
    };
    Ok(Answer { status: 200, body: Some(body) })
}

fn put(shared: &Arc<Shared>, vm: &mut Vm, request: &Request) -> Result<(), Refused> {
    if request.body.is_empty() {
        return Err("Empty PUT request.".to_owned());
    }
    let mut segments = request.path.trim_start_matches('/').split('/');
    match segments.next().unwrap_or_default() {
        "machine-config" => vm.set_machine(read::<MachineConfig>(request)?),
        "boot-source" => vm.set_boot(read::<BootSource>(request)?),
        "drives" => {
            let id = drive_id(segments.next().unwrap_or_default())?;
            let drive = read::<Drive>(request)?;
            if drive.drive_id != id {
                return Err("The id from the path does not match the id from the body!".to_owned());
            }
            vm.set_drive(drive)
        }
        "vsock" => vm.set_vsock(read::<Vsock>(request)?),
        "entropy" => vm.set_entropy(read::<Entropy>(request)?),
        "actions" => match read::<Action>(request)?.action_type {
            ActionType::InstanceStart => vm.start(shared),
            ActionType::SendCtrlAltDel => vm.press_ctrl_alt_del(),
            ActionType::FlushMetrics => vm.flush_metrics(),
        },
        _ => Err(no_such(request)),
    }
}

fn drive_id(id: &str) -> Result<&str, Refused> {
    if id.is_empty() {
        return Err("The ID cannot be empty.".to_owned());
    }
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(
            "API Resource IDs can only contain alphanumeric characters and underscores.".to_owned()
        );
    }
    Ok(id)
}

fn no_such(request: &Request) -> Refused {
    let path = request.path.trim_start_matches('/');
    format!("Invalid request method and/or path: {} {path}.", request.method)
}

fn read<T: DeserializeOwned>(request: &Request) -> Result<T, Refused> {
    serde_json::from_slice(&request.body).map_err(|error| {
        format!("An error occurred when deserializing the json body of a request: {error}.")
    })
}
