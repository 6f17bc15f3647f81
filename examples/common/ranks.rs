//! The processes of `mpirun`, with the feature `mpi`; otherwise this process alone.

use super::open_folder;
#[cfg(feature = "mpi")]
use super::or_fail;
use std::ops::Range;
use std::path::Path;
use tapegrad::datasets::{Loader, Prepare};
use tapegrad::nn::train::Trainer;
use tapegrad::nn::{Module, RunFolder};
use tapegrad::prelude::*;

/// This process among those that train together. All run the same program; the first one prints and writes the results.
pub(crate) struct Ranks {
    #[cfg(feature = "mpi")]
    comm: Option<tapegrad::distributed::Communicator>,
    /// Where the others write: it is removed with them.
    scratch: Option<tempfile::TempDir>,
}

impl Ranks {
    /// Joins the other processes, if the program was started by `mpirun` or `srun`, and divides the cores among those of this
    /// machine.
    #[cfg(feature = "mpi")]
    pub(crate) fn join(threads: Option<usize>) -> Ranks {
        use tapegrad::distributed::Communicator;
        let comm = Communicator::is_launched().then(|| or_fail(Communicator::world()));
        let shared = comm.as_ref().filter(|c| c.size() > 1);
        if let Some(n) = threads.or(shared.map(|_| Communicator::cores())) {
            set_num_threads(n);
        }
        let is_first = comm.as_ref().is_none_or(|c| c.rank() == 0);
        super::output::set_silent(!is_first);
        let scratch = (!is_first).then(|| or_fail(tempfile::tempdir()));
        Ranks { comm, scratch }
    }

    /// Without the feature `mpi`, this process alone.
    #[cfg(not(feature = "mpi"))]
    pub(crate) fn join(threads: Option<usize>) -> Ranks {
        if let Some(n) = threads {
            set_num_threads(n);
        }
        Ranks { scratch: None }
    }

    /// The number of this process and of all.
    pub(crate) fn place(&self) -> (usize, usize) {
        #[cfg(feature = "mpi")]
        if let Some(comm) = &self.comm {
            return (comm.rank(), comm.size());
        }
        (0, 1)
    }

    /// The folder for the results.
    pub(crate) fn folder(&self, path: &Path) -> RunFolder {
        open_folder(self.scratch.as_ref().map_or(path, tempfile::TempDir::path))
    }

    /// The loader of this process's part of each batch.
    pub(crate) fn loader<R: Prepare>(&self, loader: Loader<R>) -> Loader<R> {
        let (rank, size) = self.place();
        loader.distributed(rank, size)
    }

    /// The trainer, together with those of the other processes.
    pub(crate) fn trainer<'a>(&self, trainer: Trainer<'a>, model: &dyn Forward) -> Trainer<'a> {
        #[cfg(feature = "mpi")]
        if let Some(comm) = &self.comm {
            return trainer.distributed(replica(comm, model));
        }
        let _ = model;
        trainer
    }

    /// For a training loop of one's own: the model's copies.
    pub(crate) fn copies<M: Module>(&self, model: &M) -> Copies {
        #[cfg(feature = "mpi")]
        return Copies { replica: self.comm.as_ref().map(|comm| replica(comm, model)) };
        #[cfg(not(feature = "mpi"))]
        {
            let _ = model;
            Copies {}
        }
    }

    /// Whether this is so in any process.
    pub(crate) fn any(&self, flag: bool) -> bool {
        #[cfg(feature = "mpi")]
        if let Some(comm) = &self.comm {
            let all = or_fail(comm.all_gather_numbers(&[f64::from(u8::from(flag))]));
            return all.iter().any(|n| n[0] != 0.0);
        }
        flag
    }

    /// After training, the first process goes on alone.
    pub(crate) fn leave(self) -> Ranks {
        if self.place().0 > 0 {
            drop(self);
            std::process::exit(0);
        }
        self
    }
}

#[cfg(feature = "mpi")]
fn replica<M: Module + ?Sized>(
    comm: &tapegrad::distributed::Communicator,
    model: &M,
) -> tapegrad::distributed::Replica {
    use tapegrad::distributed::{DdpOptions, Replica};
    or_fail(Replica::new(model, comm, DdpOptions::new()))
}

/// The copies of a model in all processes.
pub(crate) struct Copies {
    #[cfg(feature = "mpi")]
    replica: Option<tapegrad::distributed::Replica>,
}

impl Copies {
    /// The gradients of the mean loss of a batch of so many samples, of which this process takes its block: `loss` is that of
    /// a range of them. Returns the mean.
    pub(crate) fn backward(&self, samples: usize, loss: impl Fn(Range<usize>) -> Var) -> f64 {
        #[cfg(feature = "mpi")]
        if let Some(replica) = &self.replica {
            let comm = replica.communicator();
            let bound = |r: usize| (r * samples).div_ceil(comm.size());
            let (start, end) = (bound(comm.rank()), bound(comm.rank() + 1));
            let own = |part: Range<usize>| loss(start + part.start..start + part.end);
            return or_fail(replica.backward(end - start, own));
        }
        let loss = loss(0..samples);
        loss.backward();
        loss.item()
    }
}
