//! Catches panics: a failing sample must not end the run.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};

use super::call::Unwritable;

/// Why an attempt did not return.
pub enum Caught {
    /// The call cannot be written with Rust's types.
    Unwritable(String),
    /// It panicked with this message.
    Panic {
        /// The message.
        message: String,
        /// Where, as `file:line`.
        place: String,
    },
}

impl Caught {
    /// One line for the report.
    pub fn describe(&self) -> String {
        match self {
            Caught::Unwritable(reason) => format!("not expressible: {reason}"),
            Caught::Panic { message, place } => format!("panicked at {place}: {message}"),
        }
    }
}

thread_local! {
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Silences panics from here on; their location is kept for the message.
pub fn quiet() {
    set_hook(Box::new(|info| {
        let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
        PLACE.with(|p| *p.borrow_mut() = place);
    }));
}

/// Runs `f` and catches its panic.
pub fn attempt<T>(f: impl FnOnce() -> T) -> Result<T, Caught> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| match payload.downcast::<Unwritable>() {
        Ok(unwritable) => Caught::Unwritable(unwritable.0),
        Err(payload) => {
            let message = payload
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| payload.downcast_ref::<&str>().map(|s| s.to_string()))
                .unwrap_or_else(|| "a panic without a message".to_string());
            Caught::Panic { message, place: PLACE.with(|p| p.borrow().clone()) }
        }
    })
}
