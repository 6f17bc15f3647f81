//! The elements of a tensor in a memory format.

use tapegrad_tape::{Element, MemoryFormat, Tensor};

/// All elements in the order of memory.
pub(crate) fn slice<T: Element>(t: &Tensor, format: MemoryFormat) -> &[T] {
    match format {
        MemoryFormat::Contiguous => t.as_slice::<T>(),
        MemoryFormat::ChannelsLast => t.as_channels_last_slice::<T>(),
    }
    .expect("arranged in this format")
}

/// All elements with the channels last.
pub(crate) fn nhwc<T: Element>(t: &Tensor) -> &[T] {
    slice(t, MemoryFormat::ChannelsLast)
}
