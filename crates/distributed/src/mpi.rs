//! Ranks that are processes, over MPI. The only file with `unsafe` code: MPI takes pointers to memory that it reads and writes
//! after its calls have returned, for which the scopes of the safe interface are too narrow: a call starts in one hook of the
//! backward pass and ends in another, or in the optimizer's step.

use crate::communicator::Communicator;
use crate::error::{CommError, Result};
use crate::single::{Ended, Single};
use crate::transport::{Call, Channel, Flight, Transport, chunk};
use mpi::Threading;
use mpi::environment::Universe;
use mpi::ffi;
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tapegrad_tape::{DType, Tensor, dispatch};

type Handle = Box<dyn Fn() -> Option<Communicator> + Send>;

/// The communicator of this process, while it lives.
static WORLD: Mutex<Option<Handle>> = Mutex::new(None);

pub(crate) fn world() -> Result<Communicator> {
    let fail = |reason: &str| CommError { rank: 0, call: "Communicator::world", reason: reason.into() };
    let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(comm) = world.as_ref().and_then(|upgrade| upgrade()) {
        return Ok(comm);
    }
    if world.is_some() {
        return Err(fail("MPI has ended: keep a communicator for as long as the program needs one"));
    }
    let (universe, threading) = mpi::initialize_with_threading(Threading::Serialized)
        .ok_or_else(|| fail("MPI was initialized elsewhere"))?;
    if threading < Threading::Serialized {
        return Err(fail(
            "this MPI library does not take calls from several threads (MPI_THREAD_SERIALIZED)",
        ));
    }
    let mpi = Mpi::new(universe)?;
    let comm = if mpi.size == 1 {
        Communicator::of(Alone { _mpi: mpi })
    } else {
        Communicator::of(Process(Arc::new(mpi)))
    };
    *world = Some(Box::new(comm.downgrade()));
    Ok(comm)
}

/// MPI with one process: nothing is sent.
struct Alone {
    _mpi: Mpi,
}

impl Transport for Alone {
    fn rank(&self) -> usize {
        0
    }
    fn size(&self) -> usize {
        1
    }
    fn start(&self, channel: Channel, call: Call, buffer: Tensor) -> Result<Box<dyn Flight>> {
        Single.start(channel, call, buffer)
    }
    fn announce(&self, calls: u64) -> Result<()> {
        Single.announce(calls)
    }
    fn announced(&self) -> Result<Vec<u64>> {
        Single.announced()
    }
}

/// The MPI library. It takes one call at a time.
struct Mpi {
    rank: usize,
    size: usize,
    /// One for each channel, and one for announcements.
    comms: [ffi::MPI_Comm; Channel::COUNT + 1],
    lock: Mutex<()>,
    /// The calls that each rank has announced.
    announced: Mutex<Vec<u64>>,
    /// The argument that says that the memory to send is that to receive in; rsmpi does not export it.
    in_place: usize,
    /// Ends MPI when it is dropped.
    universe: Option<Universe>,
}

// SAFETY: MPI was initialized for calls from several threads, one at a time, and `lock` is held in each.
unsafe impl Send for Mpi {}
// SAFETY: as above.
unsafe impl Sync for Mpi {}

impl Mpi {
    fn new(universe: Universe) -> Result<Mpi> {
        let mut mpi = Mpi {
            rank: 0,
            size: 1,
            comms: [world_comm(); Channel::COUNT + 1],
            lock: Mutex::new(()),
            announced: Mutex::default(),
            in_place: if mpi::environment::library_version().is_ok_and(|v| v.contains("Open MPI")) {
                1
            } else {
                usize::MAX
            },
            universe: Some(universe),
        };
        let (mut rank, mut size): (c_int, c_int) = (0, 1);
        // SAFETY: MPI is initialized; the pointers are to variables of this frame. From here on, errors are returned.
        unsafe {
            let returned = ffi::RSMPI_ERRORS_RETURN;
            mpi.check("MPI_Comm_set_errhandler", ffi::MPI_Comm_set_errhandler(world_comm(), returned))?;
            mpi.check("MPI_Comm_rank", ffi::MPI_Comm_rank(world_comm(), &mut rank))?;
            mpi.check("MPI_Comm_size", ffi::MPI_Comm_size(world_comm(), &mut size))?;
        }
        (mpi.rank, mpi.size) = (rank as usize, size as usize);
        mpi.announced = Mutex::new(vec![0; mpi.size]);
        for i in 0..mpi.comms.len() {
            let mut comm = world_comm();
            // SAFETY: as above. The copies inherit the handler of errors.
            let code = unsafe { ffi::MPI_Comm_dup(world_comm(), &mut comm) };
            mpi.check("MPI_Comm_dup", code)?;
            mpi.comms[i] = comm;
        }
        Ok(mpi)
    }

    fn locked(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of a call, with MPI's words.
    fn check(&self, call: &'static str, code: c_int) -> Result<()> {
        if code == ffi::MPI_SUCCESS as c_int {
            return Ok(());
        }
        let mut text = [0u8; ffi::MPI_MAX_ERROR_STRING as usize + 1];
        let mut len: c_int = 0;
        // SAFETY: the text has as many bytes as MPI may write.
        unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &mut len) };
        let reason = String::from_utf8_lossy(&text[..(len.max(0) as usize).min(text.len())]).into_owned();
        Err(CommError { rank: self.rank, call, reason })
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if std::thread::panicking() && self.size > 1 {
            eprintln!("rank {} of {} has panicked: all ranks end", self.rank, self.size);
            // SAFETY: MPI is initialized, and this is the last handle.
            unsafe { ffi::MPI_Abort(world_comm(), 101) };
        }
        drop(self.universe.take());
    }
}

fn world_comm() -> ffi::MPI_Comm {
    // SAFETY: a constant of the library.
    unsafe { ffi::RSMPI_COMM_WORLD }
}

fn element(dtype: DType) -> ffi::MPI_Datatype {
    // SAFETY: constants of the library.
    unsafe {
        match dtype {
            DType::F32 => ffi::RSMPI_FLOAT,
            DType::F64 => ffi::RSMPI_DOUBLE,
            DType::I64 => ffi::RSMPI_INT64_T,
            DType::F16 | DType::BF16 => ffi::RSMPI_UINT16_T,
            DType::U8 | DType::Bool => ffi::RSMPI_UINT8_T,
        }
    }
}

fn pointer(t: &mut Tensor) -> *mut c_void {
    dispatch!(all: t.dtype(), "mpi", T => t.data_mut::<T>().as_mut_ptr().cast::<c_void>())
}

/// The processes.
struct Process(Arc<Mpi>);

impl Process {
    fn count(&self, call: Call, n: usize) -> Result<c_int> {
        c_int::try_from(n).map_err(|_| CommError {
            rank: self.0.rank,
            call: call.name(),
            reason: format!("{n} elements are more than MPI takes at once"),
        })
    }
}

impl Transport for Process {
    fn rank(&self) -> usize {
        self.0.rank
    }
    fn size(&self) -> usize {
        self.0.size
    }

    fn start(&self, channel: Channel, call: Call, mut buffer: Tensor) -> Result<Box<dyn Flight>> {
        let mpi = &self.0;
        let n = buffer.numel();
        if n == 0 && call != Call::Barrier {
            let received = (call == Call::AllToAll).then(|| buffer.clone());
            return Ok(Box::new(Ended(Some((buffer, received)))));
        }
        let (count, kind, comm) =
            (self.count(call, n)?, element(buffer.dtype()), mpi.comms[channel as usize]);
        let counts = counts(mpi, call, n);
        let list = |i: usize| counts[i].as_ptr();
        let own = chunk(n, mpi.size, mpi.rank).len();
        let mut received =
            (call == Call::AllToAll).then(|| Tensor::uninit(&[own * (mpi.size - 1)], buffer.dtype()));
        let into = received.as_mut().map_or(std::ptr::null_mut(), pointer);
        let memory = pointer(&mut buffer);
        let in_place: *const c_void = std::ptr::without_provenance(mpi.in_place);
        // SAFETY: a constant of the library.
        let mut request = unsafe { ffi::RSMPI_REQUEST_NULL };
        let r = &mut request;
        let guard = mpi.locked();
        // SAFETY: the pointers are to memory of `count` elements of this type, which nothing else refers to, and to the lists
        // of counts; the flight that is returned owns all of it until the call has ended, and leaks it if dropped before.
        // The memory of a tensor and of a list does not move with it.
        let (name, code) = unsafe {
            match call {
                Call::Barrier => ("MPI_Ibarrier", ffi::MPI_Ibarrier(comm, r)),
                Call::Broadcast { root } => {
                    ("MPI_Ibcast", ffi::MPI_Ibcast(memory, count, kind, root as c_int, comm, r))
                }
                Call::AllReduce => {
                    let sum = ffi::RSMPI_SUM;
                    ("MPI_Iallreduce", ffi::MPI_Iallreduce(in_place, memory, count, kind, sum, comm, r))
                }
                Call::AllToAll => {
                    let (send, from, get, to) = (list(0), list(1), list(2), list(3));
                    let code = ffi::MPI_Ialltoallv(memory, send, from, kind, into, get, to, kind, comm, r);
                    ("MPI_Ialltoallv", code)
                }
                Call::AllGather => {
                    let code =
                        ffi::MPI_Iallgatherv(in_place, 0, kind, memory, list(0), list(1), kind, comm, r);
                    ("MPI_Iallgatherv", code)
                }
            }
        };
        drop(guard);
        mpi.check(name, code)?;
        let memory = Some(Memory { buffer, received, counts });
        Ok(Box::new(Request { mpi: mpi.clone(), name, request, memory, ended: false }))
    }

    fn announce(&self, calls: u64) -> Result<()> {
        let (mpi, comm) = (&self.0, self.0.comms[Channel::COUNT]);
        // Never freed, since a rank that hangs may receive it at any time: a few bytes for each long wait.
        let number: &'static i64 = Box::leak(Box::new(calls as i64));
        let memory = std::ptr::from_ref(number).cast::<c_void>();
        for rank in (0..mpi.size).filter(|&r| r != mpi.rank) {
            let guard = mpi.locked();
            // SAFETY: one element of this type, which nothing changes or frees. The request is given up at once; the
            // message is sent all the same.
            let code = unsafe {
                let mut request = ffi::RSMPI_REQUEST_NULL;
                match ffi::MPI_Isend(memory, 1, ffi::RSMPI_INT64_T, rank as c_int, 0, comm, &mut request) {
                    code if code == ffi::MPI_SUCCESS as c_int => ffi::MPI_Request_free(&mut request),
                    code => code,
                }
            };
            drop(guard);
            mpi.check("MPI_Isend", code)?;
        }
        Ok(())
    }

    fn announced(&self) -> Result<Vec<u64>> {
        let (mpi, comm) = (&self.0, self.0.comms[Channel::COUNT]);
        let mut announced = mpi.announced.lock().unwrap_or_else(PoisonError::into_inner);
        for rank in (0..mpi.size).filter(|&r| r != mpi.rank) {
            loop {
                let (mut flag, mut number): (c_int, i64) = (0, 0);
                let (from, memory) = (rank as c_int, std::ptr::from_mut(&mut number).cast::<c_void>());
                let guard = mpi.locked();
                // SAFETY: the pointers are to variables of this frame, the second for one element of this type; the message
                // is there, so that receiving it does not wait.
                let code = unsafe {
                    let ignore = ffi::RSMPI_STATUS_IGNORE;
                    match ffi::MPI_Iprobe(from, 0, comm, &mut flag, ignore) {
                        code if code == ffi::MPI_SUCCESS as c_int && flag != 0 => {
                            ffi::MPI_Recv(memory, 1, ffi::RSMPI_INT64_T, from, 0, comm, ignore)
                        }
                        code => code,
                    }
                };
                drop(guard);
                mpi.check("MPI_Iprobe", code)?;
                if flag == 0 {
                    break;
                }
                announced[rank] = announced[rank].max(number as u64);
            }
        }
        Ok(announced.clone())
    }
}

/// The lists of a call that divides `n` elements into chunks: how many go to and come from each rank, each with the places
/// where they begin.
fn counts(mpi: &Mpi, call: Call, n: usize) -> Vec<Vec<c_int>> {
    let chunks = || (0..mpi.size).map(|r| chunk(n, mpi.size, r));
    let divided: [Vec<c_int>; 2] =
        [chunks().map(|c| c.len() as c_int).collect(), chunks().map(|c| c.start as c_int).collect()];
    match call {
        Call::AllToAll => {
            // This rank's own chunk stays where it is: a copy of it would cost as much as one that is received.
            let [mut send, from] = divided;
            let own = std::mem::take(&mut send[mpi.rank]);
            let mut get = vec![own; mpi.size];
            get[mpi.rank] = 0;
            let to = (0..mpi.size).map(|r| (r - usize::from(r > mpi.rank)) as c_int * own).collect();
            vec![send, from, get, to]
        }
        Call::AllGather => divided.into(),
        _ => Vec::new(),
    }
}

/// What a call under way reads and writes.
struct Memory {
    buffer: Tensor,
    received: Option<Tensor>,
    counts: Vec<Vec<c_int>>,
}

struct Request {
    mpi: Arc<Mpi>,
    name: &'static str,
    request: ffi::MPI_Request,
    memory: Option<Memory>,
    ended: bool,
}

// SAFETY: a request may be tested on any thread, one call at a time, which the lock of `mpi` ensures.
unsafe impl Send for Request {}

impl Flight for Request {
    fn test(&mut self) -> Result<bool> {
        if self.ended {
            return Ok(true);
        }
        let mut flag: c_int = 0;
        let guard = self.mpi.locked();
        // SAFETY: the request is under way, and its memory is owned here.
        let code = unsafe { ffi::MPI_Test(&mut self.request, &mut flag, ffi::RSMPI_STATUS_IGNORE) };
        drop(guard);
        self.mpi.check(self.name, code)?;
        self.ended = flag != 0;
        Ok(self.ended)
    }

    fn take(&mut self) -> (Tensor, Option<Tensor>) {
        assert!(self.ended, "a call under way keeps its memory");
        let Memory { buffer, received, counts } = self.memory.take().expect("taken once");
        drop(counts);
        (buffer, received)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.ended
            && let Some(memory) = self.memory.take()
        {
            // MPI may still write there.
            std::mem::forget(memory);
        }
    }
}
