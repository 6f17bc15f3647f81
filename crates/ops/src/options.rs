//! Setters of option structs.

pub(crate) use tapegrad_tape::setters;

/// Inside an `impl` of a struct of options for `D` dimensions: a setter for each field of sizes.
macro_rules! size_setters {
    ($($field:ident),*) => {
        $(
            #[doc = concat!("Sets `", stringify!($field), "`: a number for all dimensions, or one for each.")]
            #[must_use]
            pub fn $field(mut self, $field: impl Into<Size<D>>) -> Self {
                self.$field = $field.into().0;
                self
            }
        )*
    };
}
pub(crate) use size_setters;
