//! `hearth port-forward`: a port on 127.0.0.1 for a port of a guest.

use crate::args::PortPair;
use crate::output::Output;
use anyhow::{Context, bail};
use hearth_api::{Client, JobStatus};
use std::net::Ipv4Addr;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::ctrl_c;
use tokio::task::JoinSet;

/// Connections at once: as many as a browser and a load test open, far below the daemon's limit.
const CONNECTIONS_MAX: usize = 256;

/// Forwards until Ctrl-C.
///
/// # Errors
/// If the job does not exist or the local port is taken.
pub(crate) async fn forward(
    job: &str,
    ports: PortPair,
    client: &Client,
    output: &Output,
) -> anyhow::Result<()> {
    let shown = client.job(job).await?;
    if shown.vm_id.is_none() && shown.status.is_final() {
        bail!("cannot forward to job {job}: it is {}, without a microVM", shown.status);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports.local))
        .await
        .with_context(|| format!("cannot listen on 127.0.0.1:{}", ports.local))?;
    output.forwarding(listener.local_addr()?, job, ports.guest);
    if shown.status != JobStatus::Running {
        output.note(&format!("job {job} is {}; connections work once it runs", shown.status));
    }
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // Every arm is cancel safe.
            biased;
            _ = ctrl_c() => return Ok(()),
            Some(ended) = connections.join_next() => if let Ok(Err(error)) = ended {
                output.error(&error);
            },
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                let (local, _) = accepted.context("cannot accept a connection")?;
                connections.spawn(carry(local, client.clone(), job.to_owned(), ports.guest));
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
