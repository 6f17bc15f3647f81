//! What an optimizer is defined by.

/// Defines an optimizer: its options with their defaults, a builder method for each, and [`Optimizer`](super::Optimizer).
macro_rules! optimizer {
    (
        $(#[$meta:meta])*
        $name:ident, $options:ident {
            $(#[$lr_meta:meta])* lr: f64 = $lr:expr,
            $($(#[$field_meta:meta])* $field:ident: $ty:ty = $default:expr,)*
        }
        momentum: $momentum:tt;
    ) => {
        #[doc = concat!("The options of [`", stringify!($name), "`].")]
        #[derive(Clone, Debug)]
        pub struct $options {
            $(#[$lr_meta])*
            pub lr: f64,
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        impl Default for $options {
            fn default() -> Self {
                $options { lr: $lr, $($field: $default,)* }
            }
        }

        impl $options {
            tapegrad_tape::setters! { lr: f64, $($field: $ty),* }

            fn save_options(&self) -> Vec<(&'static str, Vec<f64>)> {
                use $crate::optim::core::Hyper;
                vec![("lr", self.lr.to_numbers()), $((stringify!($field), self.$field.to_numbers()),)*]
            }
            fn restore_option(&mut self, name: &str, numbers: &[f64]) -> bool {
                use $crate::optim::core::Hyper;
                match name {
                    "lr" => f64::from_numbers(numbers).map(|x| self.lr = x),
                    $(stringify!($field) => <$ty>::from_numbers(numbers).map(|x| self.$field = x),)*
                    _ => None,
                }
                .is_some()
            }
            fn get_momentum(&self) -> Option<f64> {
                optimizer!(@get self, $momentum)
            }
            fn put_momentum(&mut self, momentum: f64) {
                let _ = momentum;
                optimizer!(@set self, $momentum, momentum);
            }
        }

        $(#[$meta])*
        pub struct $name {
            core: $crate::optim::core::Core<$options>,
        }

        impl $name {
            /// An optimizer for these parameters, in one group, with defaults for the other options.
            ///
            /// # Panics
            /// If the list is empty, or contains anything but floating-point parameters, or an option is outside its
            /// range.
            #[track_caller]
            pub fn new(params: impl IntoIterator<Item = tapegrad_tape::Var>, lr: f64) -> $name {
                $name::with_options(params, $options { lr, ..Default::default() })
            }

            /// An optimizer for these parameters, in one group, with all options given.
            ///
            /// # Panics
            /// If the list is empty, or contains anything but floating-point parameters, or an option is outside its
            /// range.
            #[track_caller]
            pub fn with_options(params: impl IntoIterator<Item = tapegrad_tape::Var>, options: $options) -> $name {
                $name { core: $crate::optim::core::Core::new(params.into_iter().collect(), options) }
            }

            /// This optimizer with one more group of parameters, which has its own options.
            ///
            /// # Panics
            /// If the list is empty, or contains anything but floating-point parameters or one of another group, or
            /// an option is outside its range.
            #[track_caller]
            pub fn group(mut self, params: impl IntoIterator<Item = tapegrad_tape::Var>, options: $options) -> $name {
                self.core.add_group(params.into_iter().collect(), options);
                self
            }

            /// The groups of parameters.
            pub fn groups(&self) -> &[$crate::optim::ParamGroup<$options>] {
                &self.core.groups
            }

            /// The options of a group, mutable.
            ///
            /// # Panics
            /// If there is no such group.
            #[track_caller]
            pub fn options_mut(&mut self, group: usize) -> &mut $options {
                &mut self.core.groups[group].options
            }

            $(
                #[doc = concat!("This optimizer with the option `", stringify!($field), "` set in all its groups.")]
                ///
                $(#[$field_meta])*
                ///
                /// # Panics
                /// If it is outside its range.
                #[track_caller]
                pub fn $field(mut self, $field: $ty) -> $name {
                    let numbers = $crate::optim::core::Hyper::to_numbers($field);
                    if let Err(e) = $crate::optim::core::check_option(stringify!($name), stringify!($field), &numbers) {
                        panic!("{e}");
                    }
                    self.core.groups.iter_mut().for_each(|g| g.options.$field = $field);
                    self
                }
            )*
        }

        impl $crate::optim::Optimizer for $name {
            #[track_caller]
            fn step(&mut self) {
                self.core.step(1.0);
            }
            #[track_caller]
            fn step_scaled(&mut self, factor: f64) {
                self.core.step(factor);
            }
            fn parameters(&self) -> Vec<tapegrad_tape::Var> {
                self.core.parameters()
            }
            fn num_groups(&self) -> usize {
                self.core.groups.len()
            }
            fn lr(&self, group: usize) -> f64 {
                self.core.groups[group].options.lr
            }
            fn set_lr(&mut self, group: usize, lr: f64) {
                self.core.groups[group].options.lr = lr;
            }
            fn momentum(&self, group: usize) -> Option<f64> {
                self.core.groups[group].options.get_momentum()
            }
            fn set_momentum(&mut self, group: usize, momentum: f64) {
                self.core.groups[group].options.put_momentum(momentum);
            }
            fn set_training(&mut self, training: bool) {
                self.core.set_training(training);
            }
            fn switches(&self) -> bool {
                self.core.switches()
            }
            fn state_dict(&self) -> $crate::StateDict {
                self.core.save()
            }
            fn load_state_dict(
                &mut self,
                state: &$crate::StateDict,
            ) -> Result<(), $crate::optim::OptimizerStateError> {
                self.core.load(state)
            }
        }
    };
    (@get $self:ident, none) => { None };
    (@get $self:ident, momentum) => { Some($self.momentum) };
    (@get $self:ident, betas) => { Some($self.betas.0) };
    (@set $self:ident, none, $x:expr) => {};
    (@set $self:ident, momentum, $x:expr) => { $self.momentum = $x };
    (@set $self:ident, betas, $x:expr) => { $self.betas.0 = $x };
}

/// The part of [`Rule`] that follows from the table of options.
macro_rules! rule_options {
    ($name:literal) => {
        const NAME: &'static str = $name;
        const SCALES_GRADIENT: bool = true;
        fn save(&self) -> Vec<(&'static str, Vec<f64>)> {
            self.save_options()
        }
        fn restore(&mut self, name: &str, numbers: &[f64]) -> bool {
            self.restore_option(name, numbers)
        }
    };
}
