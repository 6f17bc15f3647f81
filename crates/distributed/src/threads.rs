//! Ranks that are threads of one process.

use crate::error::{CommError, Result};
use crate::sum::{Reduce, combine};
use crate::transport::{Call, Channel, Flight, Transport, chunk};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tapegrad_tape::{DType, Tensor, dispatch};

/// One of the ranks. When it is dropped, calls that wait for it fail.
pub(crate) struct Thread {
    rank: usize,
    board: Arc<Board>,
    /// The number of calls that were started on each channel.
    counts: Mutex<HashMap<Channel, u64>>,
}

/// What the ranks have posted.
struct Board {
    size: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: HashMap<(Channel, u64), Slot>,
    /// The ranks that have ended.
    left: Vec<usize>,
    /// The calls that ranks have announced.
    announced: HashMap<usize, u64>,
}

struct Slot {
    posted: Vec<Option<(Call, Tensor)>>,
    taken: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ranks, for as many threads.
pub(crate) fn ranks(size: usize) -> Vec<Thread> {
    let board = Arc::new(Board { size, state: Mutex::default() });
    (0..size).map(|rank| Thread { rank, board: board.clone(), counts: Mutex::default() }).collect()
}

impl Drop for Thread {
    fn drop(&mut self) {
        lock(&self.board.state).left.push(self.rank);
    }
}

impl Transport for Thread {
    fn rank(&self) -> usize {
        self.rank
    }
    fn size(&self) -> usize {
        self.board.size
    }
    fn start(&self, channel: Channel, call: Call, buffer: Tensor) -> Result<Box<dyn Flight>> {
        let mut counts = lock(&self.counts);
        let count = counts.entry(channel).or_default();
        let key = (channel, *count);
        *count += 1;
        drop(counts);
        let mut state = lock(&self.board.state);
        let empty = || Slot { posted: vec![None; self.board.size], taken: 0 };
        state.slots.entry(key).or_insert_with(empty).posted[self.rank] = Some((call, buffer));
        Ok(Box::new(Posted { rank: self.rank, board: self.board.clone(), key, call, result: None }))
    }
    fn announce(&self, calls: u64) -> Result<()> {
        lock(&self.board.state).announced.insert(self.rank, calls);
        Ok(())
    }
    fn announced(&self) -> Result<Vec<u64>> {
        let state = lock(&self.board.state);
        let of = |rank| state.announced.get(&rank).copied().unwrap_or(0);
        Ok((0..self.board.size).map(of).collect())
    }
}

struct Posted {
    rank: usize,
    board: Arc<Board>,
    key: (Channel, u64),
    call: Call,
    result: Option<(Tensor, Option<Tensor>)>,
}

impl Posted {
    fn fail<T>(&self, reason: String) -> Result<T> {
        Err(CommError { rank: self.rank, call: self.call.name(), reason })
    }

    /// What this rank gets once all have posted.
    fn result(&self, posted: &[(Call, Tensor)]) -> Result<(Tensor, Option<Tensor>)> {
        let (call, own) = &posted[self.rank];
        for (rank, (other, theirs)) in posted.iter().enumerate() {
            if other != call || theirs.numel() != own.numel() || theirs.dtype() != own.dtype() {
                return self.fail(format!(
                    "rank {rank} calls {} with {} of shape {:?}, rank {} with {} of shape {:?}",
                    other.name(),
                    theirs.dtype(),
                    theirs.shape(),
                    self.rank,
                    own.dtype(),
                    own.shape()
                ));
            }
        }
        let size = self.board.size;
        Ok(match *call {
            Call::Barrier => (own.clone(), None),
            Call::Broadcast { root } => (copy(&posted[root].1), None),
            Call::AllReduce => {
                let rows: Vec<&Tensor> = posted.iter().map(|(_, t)| t).collect();
                let mut out = Tensor::uninit(own.shape(), own.dtype());
                dispatch!(float: own.dtype(), "all_reduce", T => {
                    let rows: Vec<&[T]> = rows.iter().map(|t| t.as_slice::<T>().expect("contiguous")).collect();
                    combine(&rows, out.data_mut::<T>(), Reduce::Sum);
                });
                (out, None)
            }
            Call::AllToAll => {
                let range = chunk(own.numel(), size, self.rank);
                let of = |rank: usize| if rank == self.rank { 0..0 } else { range.clone() };
                (copy(own), Some(joined(posted, of, own.dtype())))
            }
            Call::AllGather => {
                let all = joined(posted, |rank| chunk(own.numel(), size, rank), own.dtype());
                (all.reshape(own.shape()), None)
            }
        })
    }
}

/// A copy in memory of its own: what was posted is shared until all have taken it.
fn copy(t: &Tensor) -> Tensor {
    let mut t = t.clone();
    dispatch!(all: t.dtype(), "threads", T => { t.make_mut::<T>(); });
    t
}

/// The given elements of every rank's memory, one after another.
fn joined(
    posted: &[(Call, Tensor)],
    range: impl Fn(usize) -> std::ops::Range<usize>,
    dtype: DType,
) -> Tensor {
    dispatch!(all: dtype, "threads", T => {
        let part = |(rank, (_, t)): (usize, &(Call, Tensor))| {
            t.as_slice::<T>().expect("contiguous")[range(rank)].to_vec()
        };
        let all: Vec<T> = posted.iter().enumerate().flat_map(part).collect();
        let n = all.len();
        Tensor::from_vec(all, &[n])
    })
}

impl Flight for Posted {
    fn test(&mut self) -> Result<bool> {
        if self.result.is_some() {
            return Ok(true);
        }
        let mut state = lock(&self.board.state);
        let slot = state.slots.get_mut(&self.key).expect("posted, and not yet taken by all");
        let posted: Option<Vec<(Call, Tensor)>> = slot.posted.iter().cloned().collect();
        let Some(posted) = posted else {
            let missing: Vec<usize> = (0..self.board.size).filter(|&r| slot.posted[r].is_none()).collect();
            let gone = missing.into_iter().find(|r| state.left.contains(r));
            drop(state);
            return match gone {
                Some(rank) => self.fail(format!("rank {rank} has ended")),
                None => Ok(false),
            };
        };
        slot.taken += 1;
        if slot.taken == self.board.size {
            state.slots.remove(&self.key);
        }
        drop(state);
        self.result = Some(self.result(&posted)?);
        Ok(true)
    }

    fn take(&mut self) -> (Tensor, Option<Tensor>) {
        self.result.take().expect("taken once, at the end")
    }
}
