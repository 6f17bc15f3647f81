//! `Communicator`.

use crate::engine::{Engine, Patience, Sum, Target, Watch};
use crate::error::{CommError, Result};
use crate::single::Single;
use crate::sum::{Reduce, combine_into};
use crate::threads;
use crate::transport::{Call, Channel, Transport, chunk};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tapegrad_tape::{DType, Tensor};

/// Variables that launchers set for the processes that they start.
const LAUNCHERS: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "MPI_LOCALNRANKS"];

/// How long a call waits for the other ranks by default: longer than a checkpoint takes to write.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The processes (ranks) that train together, and their collective calls. All ranks make the same calls in the same order,
/// with tensors of the same size and type.
///
/// A tensor is passed by value: its memory is used in place if nothing else shares it. Sums are computed in a fixed order,
/// so they have the same bits in every run.
///
/// ```
/// use tapegrad_distributed::{Communicator, Reduce};
/// use tapegrad_tape::Tensor;
/// // Under mpirun this is `Communicator::world()?`; here two ranks are threads.
/// std::thread::scope(|scope| {
///     for comm in Communicator::threads(2) {
///         scope.spawn(move || {
///             let mine = Tensor::full(&[3], 1.0 + comm.rank() as f64);
///             let sum = comm.all_reduce(mine, Reduce::Sum).unwrap();
///             assert_eq!(sum.to_vec::<f32>(), [3.0; 3]);
///         });
///     }
/// });
/// ```
#[derive(Clone)]
pub struct Communicator {
    inner: Arc<Inner>,
}

struct Inner {
    // Before the transport: calls under way end first.
    engine: Mutex<Engine>,
    transport: Box<dyn Transport>,
    timeout: AtomicU64,
}

/// What a communicator has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CommStats {
    /// The bytes that this rank has sent, without those that the transport adds.
    pub sent_bytes: u64,
    /// The time that this rank has waited for others.
    pub waited: Duration,
}

impl Communicator {
    pub(crate) fn of(transport: impl Transport + 'static) -> Communicator {
        let inner = Inner {
            engine: Mutex::default(),
            transport: Box::new(transport),
            timeout: AtomicU64::new(TIMEOUT.as_millis() as u64),
        };
        Communicator { inner: Arc::new(inner) }
    }

    /// One process, for which every call ends at once: programs run unchanged without MPI.
    ///
    /// ```
    /// let comm = tapegrad_distributed::Communicator::single();
    /// assert_eq!((comm.rank(), comm.size()), (0, 1));
    /// ```
    pub fn single() -> Communicator {
        Communicator::of(Single)
    }

    /// The ranks of `size` threads of this process, for tests and for trying things out: each thread takes one.
    ///
    /// # Panics
    /// If `size` is zero.
    #[track_caller]
    pub fn threads(size: usize) -> Vec<Communicator> {
        assert!(size > 0, "Communicator::threads: there is at least one rank");
        threads::ranks(size).into_iter().map(Communicator::of).collect()
    }

    /// All processes that `mpirun` or `srun` has started. Without the feature `mpi`, or in a program that was started
    /// directly, it is this process alone.
    ///
    /// The first call initializes MPI, later ones return the same communicator; MPI ends when the last is dropped. A rank
    /// that panics ends all others.
    ///
    /// # Errors
    /// If several processes were started but the program was built without the feature `mpi`, or if MPI has ended.
    pub fn world() -> Result<Communicator> {
        #[cfg(feature = "mpi")]
        return if Communicator::is_launched() { crate::mpi::world() } else { Ok(Communicator::single()) };
        #[cfg(not(feature = "mpi"))]
        {
            let number = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok();
            let size = number("OMPI_COMM_WORLD_SIZE").or_else(|| number("PMI_SIZE")).unwrap_or(1);
            if size > 1 {
                return Err(CommError {
                    rank: number("OMPI_COMM_WORLD_RANK").or_else(|| number("PMI_RANK")).unwrap_or(0),
                    call: "Communicator::world",
                    reason: format!(
                        "{size} processes were started, but the program was built without the feature `mpi`"
                    ),
                });
            }
            Ok(Communicator::single())
        }
    }

    /// Whether `mpirun`, `srun` or another launcher has started this process.
    pub fn is_launched() -> bool {
        LAUNCHERS.iter().any(|name| std::env::var_os(name).is_some())
    }

    /// The cores of this machine that each of its processes may use: those that the launcher has bound it to, or an equal
    /// share of all.
    pub fn cores() -> usize {
        let bound = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let list = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        let online: usize = (list.trim().split(','))
            .filter_map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                Some(last.parse::<usize>().ok()? - first.parse::<usize>().ok()? + 1)
            })
            .sum();
        let local = ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS", "SLURM_NTASKS_PER_NODE"];
        let processes = local.iter().find_map(|name| std::env::var(name).ok()?.parse::<usize>().ok());
        if bound < online { bound } else { (bound / processes.unwrap_or(1).max(1)).max(1) }
    }

    /// A weak handle, from which the same communicator can be had again.
    #[cfg(feature = "mpi")]
    pub(crate) fn downgrade(&self) -> impl Fn() -> Option<Communicator> + Send + use<> {
        let weak = Arc::downgrade(&self.inner);
        move || weak.upgrade().map(|inner| Communicator { inner })
    }

    /// This communicator, whose calls fail if they wait for longer than this; ten minutes by default. It is that of all
    /// its clones. The error names the ranks that have not come: those that hang, or make another call.
    pub fn timeout(self, timeout: Duration) -> Communicator {
        self.inner.timeout.store(timeout.as_millis() as u64, Ordering::Relaxed);
        self
    }

    /// The number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.inner.transport.rank()
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.inner.transport.size()
    }

    /// What this rank has sent, and how long it has waited.
    pub fn stats(&self) -> CommStats {
        let engine = self.engine();
        CommStats { sent_bytes: engine.sent, waited: engine.waited }
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.inner.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transport(&self) -> &dyn Transport {
        &*self.inner.transport
    }

    /// An error of this rank.
    pub(crate) fn error(&self, call: &'static str, reason: impl Into<String>) -> CommError {
        CommError { rank: self.rank(), call, reason: reason.into() }
    }

    /// Lets communication that is under way go on. MPI libraries do this within their calls only.
    ///
    /// # Errors
    /// If a call under way has failed.
    pub fn progress(&self) -> Result<()> {
        self.engine().poll(self.transport())
    }

    pub(crate) fn start(&self, channel: Channel, call: Call, buffer: Tensor) -> Result<Pending> {
        let ticket = self.engine().start(self.transport(), channel, call, buffer)?;
        Ok(Pending { comm: self.clone(), call: call.name(), ticket })
    }

    pub(crate) fn start_sum(&self, buffer: Tensor, sum: Sum) -> Result<Pending> {
        let ticket = self.engine().start_sum(self.transport(), buffer, sum)?;
        Ok(Pending { comm: self.clone(), call: "all_reduce", ticket })
    }

    /// Waits until all ranks have come here.
    ///
    /// # Errors
    /// If a rank has ended, or the time is over.
    pub fn barrier(&self) -> Result<()> {
        self.start_barrier()?.wait().map(drop)
    }

    /// [`barrier`](Self::barrier), not waiting.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_barrier(&self) -> Result<Pending> {
        self.start(Channel::Control, Call::Barrier, Tensor::zeros_with(&[0], DType::U8))
    }

    /// The tensor of rank `root`, on all ranks (`torch.distributed.broadcast`).
    ///
    /// # Errors
    /// If a rank has ended, or the time is over.
    ///
    /// # Panics
    /// If there is no such rank.
    #[track_caller]
    pub fn broadcast(&self, t: Tensor, root: usize) -> Result<Tensor> {
        self.start_broadcast(t, root)?.wait()
    }

    /// [`broadcast`](Self::broadcast), not waiting.
    ///
    /// # Errors
    /// If it cannot be started.
    ///
    /// # Panics
    /// If there is no such rank.
    #[track_caller]
    pub fn start_broadcast(&self, t: Tensor, root: usize) -> Result<Pending> {
        assert!(root < self.size(), "broadcast: there is no rank {root} of {}", self.size());
        self.start(Channel::Control, Call::Broadcast { root }, own(t))
    }

    /// The elements of all ranks combined, on all ranks (`torch.distributed.all_reduce`): of F32, F64, BF16 or I64.
    ///
    /// # Errors
    /// If a rank has ended, or the time is over.
    ///
    /// # Panics
    /// For other types.
    #[track_caller]
    pub fn all_reduce(&self, t: Tensor, how: Reduce) -> Result<Tensor> {
        self.start_all_reduce(t, how)?.wait()
    }

    /// [`all_reduce`](Self::all_reduce), not waiting.
    ///
    /// # Errors
    /// If it cannot be started.
    ///
    /// # Panics
    /// For other types.
    #[track_caller]
    pub fn start_all_reduce(&self, t: Tensor, how: Reduce) -> Result<Pending> {
        check_type("all_reduce", &t);
        if how == Reduce::SumAnyOrder && matches!(t.dtype(), DType::F32 | DType::F64) {
            return self.start(Channel::Control, Call::AllReduce, own(t));
        }
        self.start_sum(own(t), Sum { how, target: Target::All, factor: 1.0 })
    }

    /// The elements of all ranks combined, of which each rank gets its share: a list of elements, those of rank `r` being
    /// the `r`-th part of the tensor in row-major order. If they cannot be divided evenly, the last ranks have fewer.
    ///
    /// # Errors
    /// If a rank has ended, or the time is over.
    ///
    /// # Panics
    /// For other types than those of [`all_reduce`](Self::all_reduce).
    #[track_caller]
    pub fn reduce_scatter(&self, t: Tensor, how: Reduce) -> Result<Tensor> {
        let own = chunk(t.numel(), self.size(), self.rank());
        let all = self.start_reduce_scatter(t, how)?.wait()?;
        Ok(all.reshape(&[all.numel()]).narrow(0, own.start, own.len()))
    }

    /// [`reduce_scatter`](Self::reduce_scatter), not waiting: what it ends with has the shape of the tensor, and only this
    /// rank's share is combined.
    ///
    /// # Errors
    /// If it cannot be started.
    ///
    /// # Panics
    /// For other types than those of [`all_reduce`](Self::all_reduce).
    #[track_caller]
    pub fn start_reduce_scatter(&self, t: Tensor, how: Reduce) -> Result<Pending> {
        check_type("reduce_scatter", &t);
        self.start_sum(own(t), Sum { how, target: Target::Own, factor: 1.0 })
    }

    /// The tensors of all ranks, one after another in a new first dimension.
    ///
    /// # Errors
    /// If a rank has ended, or the time is over.
    pub fn all_gather(&self, t: &Tensor) -> Result<Tensor> {
        self.start_all_gather(t)?.wait()
    }

    /// [`all_gather`](Self::all_gather), not waiting.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_all_gather(&self, t: &Tensor) -> Result<Pending> {
        self.start_all_gather_on(Channel::Control, t)
    }

    pub(crate) fn start_all_gather_on(&self, channel: Channel, t: &Tensor) -> Result<Pending> {
        let shape: Vec<usize> = [&[self.size()], t.shape()].concat();
        let mut all = Tensor::zeros_with(&shape, t.dtype());
        let (n, t) = (t.numel(), t.contiguous());
        tapegrad_tape::dispatch!(all: t.dtype(), "all_gather", T => {
            all.data_mut::<T>()[self.rank() * n..][..n].copy_from_slice(t.as_slice::<T>().expect("contiguous"));
        });
        self.start(channel, Call::AllGather, all)
    }

    /// The sum of small tensors, within a forward or a backward pass.
    pub(crate) fn inner_sum(&self, t: &Tensor) -> Result<Tensor> {
        if self.size() == 1 {
            return Ok(t.clone());
        }
        let all = self.start_all_gather_on(Channel::Inner, t)?.wait()?;
        let mut sum = Tensor::uninit(t.shape(), t.dtype());
        combine_into(&mut sum, 0, &all, self.size(), Reduce::Sum);
        Ok(sum)
    }

    /// The numbers of all ranks, in order of rank; as many from each.
    ///
    /// # Errors
    /// If a rank has ended, or the time is over.
    pub fn all_gather_numbers(&self, numbers: &[f64]) -> Result<Vec<Vec<f64>>> {
        if self.size() == 1 {
            return Ok(vec![numbers.to_vec()]);
        }
        let all = self.all_gather(&Tensor::from_slice(numbers, &[numbers.len()]))?.to_vec::<f64>();
        Ok((0..self.size()).map(|r| all[r * numbers.len()..(r + 1) * numbers.len()].to_vec()).collect())
    }

    /// The bytes of all ranks, in order of rank; of any length.
    ///
    /// # Errors
    /// If a rank has ended, or the time is over.
    pub fn all_gather_bytes(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let lengths: Vec<usize> =
            self.all_gather_numbers(&[bytes.len() as f64])?.iter().map(|n| n[0] as usize).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut padded = bytes.to_vec();
        padded.resize(longest, 0);
        let all = self.all_gather(&Tensor::from_vec(padded, &[longest]))?.to_vec::<u8>();
        Ok(lengths.iter().enumerate().map(|(r, &n)| all[r * longest..][..n].to_vec()).collect())
    }

    /// The bytes of rank 0, on all ranks.
    ///
    /// # Errors
    /// If a rank has ended, or the time is over.
    pub fn broadcast_bytes(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        if self.size() == 1 {
            return Ok(bytes.to_vec());
        }
        let n = self.broadcast(Tensor::scalar(bytes.len() as i64), 0)?.item::<i64>() as usize;
        let own = if self.rank() == 0 {
            Tensor::from_slice(bytes, &[n])
        } else {
            Tensor::zeros_with(&[n], DType::U8)
        };
        Ok(self.broadcast(own, 0)?.to_vec::<u8>())
    }
}

impl std::fmt::Debug for Communicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Communicator(rank {} of {})", self.rank(), self.size())
    }
}

/// The tensor in row-major memory. `t.contiguous()` alone would share the memory with `t` for as long as that lives.
pub(crate) fn contiguous(t: Tensor) -> Tensor {
    if t.is_contiguous() { t } else { t.contiguous() }
}

/// The tensor in row-major memory of its own: its present one, if nothing else shares it.
pub(crate) fn own(t: Tensor) -> Tensor {
    let mut t = contiguous(t);
    tapegrad_tape::dispatch!(all: t.dtype(), "communicate", T => { t.make_mut::<T>(); });
    t
}

#[track_caller]
fn check_type(call: &str, t: &Tensor) {
    assert!(
        matches!(t.dtype(), DType::F32 | DType::F64 | DType::BF16 | DType::I64),
        "{call}: not defined for {}; it takes float32, float64, bfloat16 or int64",
        t.dtype()
    );
}

/// A call under way, which owns the memory that it works on. If it is dropped, the call goes on, since the other ranks
/// wait for it.
#[must_use = "its result is that of `wait`"]
pub struct Pending {
    comm: Communicator,
    call: &'static str,
    ticket: u64,
}

impl Pending {
    /// Whether it has ended; lets it go on.
    ///
    /// # Errors
    /// If it has failed.
    pub fn is_done(&self) -> Result<bool> {
        let mut engine = self.comm.engine();
        engine.poll(self.comm.transport())?;
        Ok(engine.is_done(self.ticket))
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// If a rank has ended, or the time is over.
    pub fn wait(self) -> Result<Tensor> {
        let timeout = Duration::from_millis(self.comm.inner.timeout.load(Ordering::Relaxed));
        let (begin, mut patience, mut watch) = (Instant::now(), Patience::new(), Watch::new(timeout));
        loop {
            let mut engine = self.comm.engine();
            engine.poll(self.comm.transport())?;
            if let Some(t) = engine.take(self.ticket) {
                engine.waited += begin.elapsed();
                return Ok(t);
            }
            let calls = engine.next;
            drop(engine);
            if let Err(reason) = watch.look(self.comm.transport(), patience.wait(), self.ticket, calls)? {
                return Err(self.comm.error(self.call, reason));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_nothing_shares_is_not_copied() {
        let address = |t: &Tensor| t.as_slice::<f32>().expect("contiguous").as_ptr();
        let t = Tensor::ones(&[100]);
        let before = address(&t);
        let t = own(t);
        assert_eq!(address(&t), before);
        assert_ne!(address(&own(t.clone())), before);
    }
}
