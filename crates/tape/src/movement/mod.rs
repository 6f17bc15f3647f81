//! Operations that move elements: shapes, views, concatenation.

mod cat;
mod expand;
mod flip;
mod pad;
mod part;
mod permute;
mod repeat;
mod reshape;
mod slice;
mod split;
mod squeeze;
mod triangle;
mod windows;

pub use cat::{cat, stack};
pub use pad::PadMode;
pub(crate) use slice::place;
pub use slice::{Position, Slice};
