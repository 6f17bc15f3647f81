//! The loops behind the operations: plain slices in, plain slices out, no tape.
