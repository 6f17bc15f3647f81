//! Operations that treat each element by itself.
//!
//! Most are rows of a table: [`pointwise!`](crate::pointwise) turns a function of one operand, its derivative and its
//! rule into a documented method of [`Var`](crate::Var); `binary!` does so for two, and comparisons have theirs.

#[macro_use]
mod table;

mod arithmetic;
mod binary;
mod cast;
mod clamp;
mod compare;
mod pow;
mod rounding;
mod select;
mod special;
mod ternary;
mod unary;

pub use arithmetic::RoundingMode;
pub(crate) use arithmetic::borrowed;
pub use binary::{xlog1py, xlogy};
pub use pow::{float_power, pow};
pub use select::where_;
pub use table::{Params, Pointwise, Rows};

#[cfg(test)]
mod tests;
