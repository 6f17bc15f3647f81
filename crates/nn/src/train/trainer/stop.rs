//! `StopHandle`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stops a [`Trainer`](super::Trainer) from elsewhere: another thread, or the handler of a signal. The trainer finishes
/// its step, writes the checkpoint and returns; when resumed, it continues with the same bits.
///
/// ```
/// use tapegrad_nn::train::StopHandle;
/// use std::sync::{Arc, atomic::AtomicBool};
/// // With the crate signal-hook: signal_hook::flag::register(signal_hook::consts::SIGTERM, flag.clone())
/// let flag = Arc::new(AtomicBool::new(false));
/// let stop = StopHandle::from(flag);
/// stop.stop();
/// assert!(stop.clone().is_stopped());
/// ```
#[derive(Clone, Debug, Default)]
pub struct StopHandle(Arc<AtomicBool>);

impl StopHandle {
    /// A handle in the running state.
    pub fn new() -> StopHandle {
        StopHandle::default()
    }

    /// Stops the trainer that uses it.
    pub fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// True once it is stopped.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl From<Arc<AtomicBool>> for StopHandle {
    /// A handle backed by a flag.
    fn from(flag: Arc<AtomicBool>) -> StopHandle {
        StopHandle(flag)
    }
}
