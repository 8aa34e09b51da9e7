//! `hearth port-forward`: a port on 127.0.0.1 for a port of a guest.

use crate::exit;
use crate::output::Output;
use anyhow::{Context, bail};
use clap::Args as ClapArgs;
use hearth_api::{Client, JobStatus};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::ctrl_c;
use tokio::task::JoinSet;

/// The command line of `hearth port-forward`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ForwardArgs {
    /// The job's id
    job: String,
    /// LOCAL:GUEST, or one port for both; LOCAL 0 picks a free port
    ports: PortPair,
}

/// Two TCP ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortPair {
    /// On 127.0.0.1.
    local: u16,
    /// On the guest's loopback.
    guest: u16,
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

/// Connections at once: as many as a browser and a load test open, far below the daemon's limit.
const CONNECTIONS_MAX: usize = 256;

/// Forwards until Ctrl-C.
///
/// # Errors
/// If the job does not exist or the local port is taken.
pub(crate) async fn forward(
    ForwardArgs { job, ports }: ForwardArgs,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    let job = &job;
    let shown = client.job(job).await?;
    if shown.vm_id.is_none() && shown.status.is_final() {
        bail!("cannot forward to job {job}: it is {}, without a microVM", shown.status);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.local))
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{}", ports.local))?;
    print_forwarding(listener.local_addr()?, job, ports.guest, output);
    if shown.status != JobStatus::Running {
        output.note(&format!("job {job} is {}; connections work once it runs", shown.status));
    }
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Every arm is cancel safe.
            biased;
            _ = ctrl_c() => return Ok(exit::DONE),
            Some(ended) = connections.join_next() => if let Ok(Err(error)) = ended {
                output.error(&error);
            },
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                let (local, _) = accepted.context("cannot accept a connection")?;
                connections.spawn(carry(local, client.clone(), job.clone(), ports.guest));
            }
        }
    }
}

async fn carry(mut local: TcpStream, client: Client, job: String, port: u16) -> anyhow::Result<()> {
    let mut guest = client.connect_port(&job, port).await?;
    // A side that breaks off is how many connections end.
    let _ = tokio::io::copy_bidirectional(&mut local, &mut guest).await;
    Ok(())
}

fn print_forwarding(local: SocketAddr, job: &str, guest: u16, output: &Output) {
    let printed =
        output.printed(&json!({ "local": local.to_string(), "job_id": job, "guest_port": guest }));
    if !printed {
        output.line(format_args!("forwarding {local} to port {guest} of {job}; Ctrl-C ends it"));
    }
}
