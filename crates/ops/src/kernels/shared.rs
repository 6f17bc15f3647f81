//! A slice that tasks share, each to write its own part of it.

use std::marker::PhantomData;

/// A mutable slice handed to several tasks at once.
pub(crate) struct SharedSlice<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `part`, whose callers answer for disjointness.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        SharedSlice { start: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    /// Elements `start .. start + len`.
    ///
    /// # Panics
    /// If they are not all inside the slice.
    ///
    /// # Safety
    /// While the result lives, no other task may touch these elements.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "a part has to lie inside the slice");
        // SAFETY: in bounds as checked; the caller keeps the parts apart.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}

/// The start of a matrix handed to several tasks at once, whose parts interleave: columns, or strided blocks.
pub(crate) struct SharedPointer<'a, T> {
    start: *mut T,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: the pointer is used in unsafe blocks only, which answer for disjointness.
unsafe impl<T: Send> Sync for SharedPointer<'_, T> {}

impl<'a, T> SharedPointer<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        SharedPointer { start: slice.as_mut_ptr(), owner: PhantomData }
    }

    /// The place of an element.
    #[inline(always)]
    pub(crate) fn at(&self, offset: usize) -> *mut T {
        self.start.wrapping_add(offset)
    }
}
