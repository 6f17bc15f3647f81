//! Operations that move elements: shapes, views, concatenation.

mod cat;
mod diag;
mod expand;
mod flip;
mod grid;
mod pad;
mod part;
mod permute;
mod repeat;
mod reshape;
mod slice;
mod split;
mod squeeze;
mod stack;
mod triangle;
mod windows;

pub use cat::{cat, stack};
pub use grid::{Indexing, broadcast_tensors, cartesian_prod, meshgrid, meshgrid_with};
pub use pad::PadMode;
pub(crate) use slice::place;
pub use slice::{Position, Slice};
pub use split::Sections;
pub use stack::{block_diag, column_stack, dstack, hstack, vstack};
