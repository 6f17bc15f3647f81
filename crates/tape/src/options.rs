//! Setters of option structs.

/// Inside an `impl` of a struct of options: `new`, and a setter for each field, those after `;` being optional.
#[doc(hidden)]
#[macro_export]
macro_rules! setters {
    ($($field:ident: $ty:ty),* $(,)? $(; $($optional:ident: $inner:ty),* $(,)? $(; $($int:ident),*)?)?) => {
        /// PyTorch's defaults.
        pub fn new() -> Self {
            Self::default()
        }

        $(
            #[doc = concat!("Sets `", stringify!($field), "`.")]
            #[must_use]
            pub fn $field(mut self, $field: $ty) -> Self {
                self.$field = $field;
                self
            }
        )*
        $($(
            #[doc = concat!("Sets `", stringify!($optional), "`.")]
            #[must_use]
            pub fn $optional(mut self, $optional: $inner) -> Self {
                self.$optional = Some($optional);
                self
            }
        )*
        $($(
            #[doc = concat!("Sets `", stringify!($int), "`.")]
            #[must_use]
            pub fn $int(mut self, $int: impl $crate::Int) -> Self {
                self.$int = Some($int.to_isize());
                self
            }
        )*)?)?
    };
}
