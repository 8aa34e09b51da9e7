//! A port of a guest: the connection is upgraded and carries raw bytes from then on.

use super::App;
use super::document::{OfJob, Refuses};
use super::problem::Refused;
use super::read::{JobPath, PortPath};
use crate::limits;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hearth_host::{Duplex, HostError};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// The tunnels that are open; they end with the daemon.
#[derive(Debug, Default)]
pub(crate) struct Tunnels(Mutex<JoinSet<()>>);

/// No room for another tunnel.
#[derive(Debug)]
struct Full;

impl Tunnels {
    fn open(&self, tunnel: impl Future<Output = ()> + Send + 'static) -> Result<(), Full> {
        let mut tunnels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tunnels.try_join_next().is_some() {}
        if tunnels.len() >= limits::TUNNELS_MAX {
            return Err(Full);
        }
        tunnels.spawn(tunnel);
        Ok(())
    }
}

/// `GET /vms/{job_id}/ports/{port}` with `Connection: Upgrade` and `Upgrade: tcp`: 101, and then a
/// TCP connection to that port of the guest's loopback.
#[utoipa::path(get, path = "/vms/{job_id}/ports/{port}", operation_id = "connectPort", summary = "A TCP connection to the guest's loopback, on an upgraded connection (`Connection: Upgrade`, `Upgrade: tcp`).",
    params(OfJob, ("port" = u16, Path, description = "The port.", minimum = 1, maximum = 65535)),
    responses((status = 101, description = "From here on raw bytes."), Refuses<403>, Refuses<404>, Refuses<409>, Refuses<426>, Refuses<502>, Refuses<503>))]
pub(super) async fn connect(
    State(app): State<Arc<App>>,
    JobPath(job): JobPath,
    PortPath(port): PortPath,
    mut request: Request,
) -> Result<Response, Refused> {
    let view = app.engine.job(&job)?;
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let Some(on_upgrade) = on_upgrade.filter(|_| asks_for_tcp(request.headers())) else {
        let detail = "this endpoint requires an upgraded connection";
        return Err(Refused::new(426, "upgrade-required", "Upgrade required", detail)
            .help("use hearth port-forward, or send Connection: Upgrade and Upgrade: tcp"));
    };
    let Some(instance) = view.instance.clone() else {
        let detail = format!("job {job} has no microVM: it is {}", view.status.as_str());
        return Err(Refused::new(409, "no-vm", "No microVM", detail));
    };
    let deadline = limits::CONNECT_DEADLINE * app.host.facts().time_factor.max(1);
    let guest = match timeout(deadline, app.host.connect(&instance, port)).await {
        Ok(Ok(guest)) => guest,
        Ok(Err(error)) => return Err(not_connected(&error)),
        Err(_) => {
            return Err(unreachable(format!(
                "port {port} of job {job} did not answer within {} s",
                deadline.as_secs()
            )));
        }
    };
    app.tunnels.open(carry(on_upgrade, guest)).map_err(|Full| {
        let detail = format!("{} ports are forwarded already", limits::TUNNELS_MAX);
        Refused::new(503, "unavailable", "Unavailable", detail)
    })?;
    let mut response = (StatusCode::SWITCHING_PROTOCOLS, Body::empty()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    Ok(response)
}

/// A guest may listen a moment later; one without a forwarder never has ports.
fn not_connected(error: &HostError) -> Refused {
    match error.is_transient() {
        true => unreachable(error.sentence()),
        false => Refused::new(409, "no-forwarder", "No forwarder", error.sentence()),
    }
}

fn unreachable(detail: String) -> Refused {
    Refused::new(502, "unreachable", "Guest unreachable", detail)
}

fn asks_for_tcp(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
    upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case("tcp"))
}

/// Bytes both ways until both sides are done. A side that breaks ends the other; there is no
/// deadline, since a quiet connection may be meant.
async fn carry(on_upgrade: OnUpgrade, mut guest: Box<dyn Duplex>) {
    let Ok(upgraded) = on_upgrade.await else { return };
    let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut guest).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_that_never_has_ports_is_not_called_unreachable() {
        assert_eq!(not_connected(&HostError::transient("no answer")).status(), 502);
        assert_eq!(not_connected(&HostError::permanent("no forwarder")).status(), 409);
    }
}
