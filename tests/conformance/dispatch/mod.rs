//! One row for each PyTorch function: how its arguments reach Tapegrad's public API.
//!
//! Every file has one `run` that matches on the function's path and returns `None` for what it does not know. To add an
//! operation, add an arm to the file of its kind, or its name to the operations that are called alike; the machinery finds
//! it. Arguments are asked for by PyTorch's parameter
//! names, and every argument that a sample passes has to be asked for.

/// The function that has this name, if it is one of a list of functions that are called alike.
macro_rules! named {
    ($name:expr, $from:ident as $signature:ty: $($function:ident)*) => {
        match $name {
            $(stringify!($function) => Some($from::$function as $signature),)*
            _ => None,
        }
    };
}

mod activation;
mod arrange;
pub mod conv;
mod index;
mod linalg;
mod loss;
mod misc;
mod norm;
mod order;
mod pointwise;
pub mod pool;
mod reduction;
mod shape;

use super::call::Call;
use super::outcome::Outcome;

/// Runs the operation that the call names, or `None` if there is no row for it.
pub fn run(call: &Call) -> Option<Outcome> {
    let files: [fn(&Call) -> Option<Outcome>; 13] = [
        pointwise::run,
        reduction::run,
        order::run,
        shape::run,
        arrange::run,
        index::run,
        linalg::run,
        conv::run,
        pool::run,
        norm::run,
        activation::run,
        loss::run,
        misc::run,
    ];
    files.iter().find_map(|run| run(call))
}
