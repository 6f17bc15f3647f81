//! Whether the ranks agree, before the first step.

use crate::communicator::Communicator;
use crate::error::Result;
use crate::options::DdpOptions;
use tapegrad_tape::Var;

/// Compares lines of text of all ranks with those of rank 0.
///
/// # Errors
/// If they differ: with the first lines that do, and the ranks.
pub(crate) fn on_lines(comm: &Communicator, call: &'static str, lines: &[String]) -> Result<()> {
    if comm.size() == 1 {
        return Ok(());
    }
    let all = comm.all_gather_bytes(lines.join("\n").as_bytes())?;
    let texts: Vec<String> = all.iter().map(|b| String::from_utf8_lossy(b).into_owned()).collect();
    let first: Vec<&str> = texts[0].lines().collect();
    let differs = texts.iter().position(|t| *t != texts[0]);
    let Some(rank) = differs else { return Ok(()) };
    let other: Vec<&str> = texts[rank].lines().collect();
    let at = (0..first.len().max(other.len())).find(|&i| first.get(i) != other.get(i)).unwrap_or(0);
    let shown = |lines: &[&str]| lines.get(at).copied().unwrap_or("nothing more").to_string();
    let reason = format!("the ranks differ: rank 0 has {}, rank {rank} has {}", shown(&first), shown(&other));
    Err(comm.error(call, reason))
}

/// Compares version, options, parameters and buffers.
pub(crate) fn on_model(
    comm: &Communicator,
    options: &DdpOptions,
    params: &[(String, Var)],
    buffers: &[(String, Var)],
) -> Result<()> {
    let mut lines = vec![format!("version {}", env!("CARGO_PKG_VERSION")), format!("{options:?}")];
    for (kind, list) in [("parameter", params), ("buffer", buffers)] {
        for (name, v) in list {
            let frozen = if kind == "parameter" && !v.requires_grad() { ", frozen" } else { "" };
            lines.push(format!("the {kind} {name} of shape {:?} and type {}{frozen}", v.shape(), v.dtype()));
        }
    }
    on_lines(comm, "DistributedDataParallel", &lines)
}
