//! Operations that treat each element by itself.
//!
//! Most are rows of a table: [`unary!`] and [`binary!`] turn a function, its derivative and its rule
//! into a documented method of [`Var`](crate::Var).

#[macro_use]
mod table;

mod arithmetic;
mod cast;
mod unary;

pub(crate) use arithmetic::scalar_first;
