//! Calls that are under way, advanced in the order in which they were started.

use crate::error::Result;
use crate::sum::{Reduce, combine_own, scale};
use crate::transport::{Call, Channel, Flight, Transport, chunk};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tapegrad_tape::Tensor;

/// What becomes of the sums of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Every rank gets all of them.
    All,
    /// Every rank keeps its own: the rest of the memory stays as it was.
    Own,
}

/// A sum over a balanced tree of ranks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sum {
    pub(crate) how: Reduce,
    pub(crate) target: Target,
    /// The sums are multiplied by it.
    pub(crate) factor: f64,
}

enum Job {
    /// One call of the transport.
    Call(Box<dyn Flight>),
    /// Chunks are on their way to their owners.
    Scattering(Box<dyn Flight>, Sum),
    /// Sums of chunks are on their way to all.
    Gathering(Box<dyn Flight>),
    Done(Tensor),
}

/// The calls of one rank.
#[derive(Default)]
pub(crate) struct Engine {
    jobs: BTreeMap<u64, Job>,
    /// The number of calls started so far: on all ranks the same, at the same place of the program.
    pub(crate) next: u64,
    /// The time spent waiting for others.
    pub(crate) waited: Duration,
    /// The bytes that this rank has sent.
    pub(crate) sent: u64,
}

impl Engine {
    fn add(&mut self, job: Job) -> u64 {
        self.next += 1;
        self.jobs.insert(self.next, job);
        self.next
    }

    pub(crate) fn start(
        &mut self,
        t: &dyn Transport,
        channel: Channel,
        call: Call,
        buffer: Tensor,
    ) -> Result<u64> {
        let (n, size) = (buffer.bytes() as u64, t.size() as u64);
        self.sent += match call {
            Call::Barrier => 0,
            Call::Broadcast { root } => {
                if root == t.rank() {
                    n * (size - 1)
                } else {
                    0
                }
            }
            Call::AllReduce => 2 * n * (size - 1) / size,
            Call::AllToAll | Call::AllGather => n * (size - 1) / size,
        };
        let flight = t.start(channel, call, buffer)?;
        Ok(self.add(Job::Call(flight)))
    }

    /// Starts a sum in a fixed order, in place.
    pub(crate) fn start_sum(&mut self, t: &dyn Transport, mut buffer: Tensor, sum: Sum) -> Result<u64> {
        if t.size() == 1 || buffer.numel() == 0 {
            scale(&mut buffer, sum.factor);
            return Ok(self.add(Job::Done(buffer)));
        }
        self.sent += buffer.bytes() as u64 * (t.size() as u64 - 1) / t.size() as u64;
        let flight = t.start(Channel::Scatter, Call::AllToAll, buffer)?;
        Ok(self.add(Job::Scattering(flight, sum)))
    }

    /// Advances all calls as far as they can without waiting.
    pub(crate) fn poll(&mut self, t: &dyn Transport) -> Result<()> {
        // The second halves are matched among ranks by their order, so none may overtake another.
        let mut may_gather = true;
        for job in self.jobs.values_mut() {
            match job {
                Job::Call(flight) | Job::Gathering(flight) => {
                    if flight.test()? {
                        *job = Job::Done(flight.take().0);
                    }
                }
                Job::Scattering(flight, sum) => {
                    if !may_gather || !flight.test()? {
                        may_gather = false;
                        continue;
                    }
                    let (mut buffer, received) = flight.take();
                    let received = received.expect("of an all-to-all");
                    let own = chunk(buffer.numel(), t.size(), t.rank());
                    if !own.is_empty() {
                        combine_own(&mut buffer, own.start, &received, (t.rank(), t.size()), *sum);
                    }
                    *job = if sum.target == Target::Own {
                        Job::Done(buffer)
                    } else {
                        self.sent += buffer.bytes() as u64 * (t.size() as u64 - 1) / t.size() as u64;
                        Job::Gathering(t.start(Channel::Gather, Call::AllGather, buffer)?)
                    };
                }
                Job::Done(_) => {}
            }
        }
        Ok(())
    }

    pub(crate) fn is_done(&self, ticket: u64) -> bool {
        matches!(self.jobs.get(&ticket), Some(Job::Done(_)) | None)
    }

    pub(crate) fn take(&mut self, ticket: u64) -> Option<Tensor> {
        match self.jobs.remove(&ticket) {
            Some(Job::Done(t)) => Some(t),
            Some(job) => {
                self.jobs.insert(ticket, job);
                None
            }
            None => None,
        }
    }
}

/// Finds out which ranks are late. A rank that has waited for half the time, or sees that another one has, announces the call
/// that it waits for; those that have not announced it when the time is over have not come.
pub(crate) struct Watch {
    timeout: Duration,
    next: Duration,
    announced: bool,
}

impl Watch {
    /// The number of looks at the other ranks within the time.
    const LOOKS: u32 = 32;

    pub(crate) fn new(timeout: Duration) -> Watch {
        Watch { timeout, next: timeout / Watch::LOOKS, announced: false }
    }

    /// Waits on, having waited so long for the call `ticket`, of `calls` started ones. `Err` is why the wait is over.
    pub(crate) fn look(
        &mut self,
        t: &dyn Transport,
        waited: Duration,
        ticket: u64,
        calls: u64,
    ) -> Result<std::result::Result<(), String>> {
        let over = waited > self.timeout;
        if waited < self.next && !over {
            return Ok(Ok(()));
        }
        self.next = waited + self.timeout / Watch::LOOKS;
        let announced = t.announced()?;
        let late = |rank: usize| rank != t.rank() && announced[rank] < ticket;
        if !self.announced && (waited > self.timeout / 2 || announced.iter().any(|n| *n >= ticket)) {
            t.announce(calls)?;
            self.announced = true;
        }
        let missing: Vec<String> = (0..t.size()).filter(|&r| late(r)).map(|r| r.to_string()).collect();
        let timeout = self.timeout;
        Ok(match &missing[..] {
            _ if !over => Ok(()),
            [] => Err(format!("all ranks have come, but the call has not ended within {timeout:?}")),
            [one] => Err(format!("rank {one} has not come within {timeout:?}")),
            _ => Err(format!("ranks {} have not come within {timeout:?}", missing.join(", "))),
        })
    }
}

/// Waits between two tests: first only for other threads, later for a moment, so that ranks may outnumber cores.
pub(crate) struct Patience {
    begin: Instant,
    turns: u32,
}

impl Patience {
    pub(crate) fn new() -> Patience {
        Patience { begin: Instant::now(), turns: 0 }
    }

    /// The time so far.
    pub(crate) fn wait(&mut self) -> Duration {
        self.turns += 1;
        if self.turns < 2000 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(50));
        }
        self.begin.elapsed()
    }
}
