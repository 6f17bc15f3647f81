//! Lists whose length depends on a caller's arguments.

use crate::storage::{OutOfMemoryError, empty_cache};

/// The values of `f` at `0..len`.
///
/// The standard library aborts the process if there is no memory for a list. Here the cached buffers are freed first,
/// and if that is not enough, it is a panic.
///
/// # Panics
/// If there is not enough memory, with the operation's name.
#[track_caller]
pub fn list_for<T>(op: &str, len: usize, f: impl FnMut(usize) -> T) -> Vec<T> {
    let mut list = reserved(op, len);
    list.extend((0..len).map(f));
    list
}

/// A copy of a slice, which may be as large as a tensor.
///
/// # Panics
/// If there is not enough memory.
#[track_caller]
pub(crate) fn copy_of<T: Copy>(op: &str, values: &[T]) -> Vec<T> {
    let mut list = reserved(op, values.len());
    list.extend_from_slice(values);
    list
}

#[track_caller]
fn reserved<T>(op: &str, len: usize) -> Vec<T> {
    let mut list = Vec::new();
    if list.try_reserve_exact(len).is_err() {
        empty_cache();
        if list.try_reserve_exact(len).is_err() {
            panic!("{op}: {}", OutOfMemoryError { bytes: len.saturating_mul(size_of::<T>()) });
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(list_for("test", 3, |i| i * i), [0, 1, 4]);
        assert_eq!(copy_of("test", &[1u8, 2]), [1, 2]);
    }

    #[test]
    #[should_panic(expected = "arange: out of memory: 9223372036854775800 bytes cannot be allocated")]
    fn too_many() {
        list_for("arange", isize::MAX as usize / 8, |i| i);
    }
}
