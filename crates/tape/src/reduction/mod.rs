//! Operations that take many elements to one.

mod sum;
