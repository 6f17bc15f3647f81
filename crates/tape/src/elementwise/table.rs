//! What functions of one operand have in common: [`Pointwise`], and the macro that makes it.

use crate::dtype::DType;
use crate::grad_mode::is_grad_enabled;
use crate::kernels::strided;
use crate::node::{Cotangent, RecordOptions, record_with};
use crate::tensor::Tensor;
use crate::var::Var;

/// The parameters of a pointwise function by position, such as the slope of a leaky ReLU.
pub type Params = [f64; 4];

/// A function of one operand and its derivative, as loops over dense slices: one row of a
/// [`pointwise!`](crate::pointwise) table.
#[derive(Clone, Copy)]
pub struct Pointwise {
    /// The operation's name on the tape.
    pub name: &'static str,
    /// What the derivative is a function of: the result (`true`) or the operand.
    pub of_output: bool,
    /// The loops for F32.
    pub f32: Rows<f32>,
    /// The loops for F64.
    pub f64: Rows<f64>,
    /// The gradient in differentiable operations: of the operand or result, the incoming gradient and the parameters.
    pub rule: fn(&Var, &Var, &Params) -> Var,
    /// The fewest elements in a block for a thread.
    pub grain: usize,
    /// The range from which tests draw operands, and the parameters.
    pub domain: (f64, f64, Params),
}

/// Loops over dense slices of equal length.
#[derive(Clone, Copy)]
pub struct Rows<T: 'static> {
    /// The results from the operands.
    pub value: fn(&mut [T], &[T], &Params),
    /// The gradient from the operand or result, and the incoming gradient.
    pub gradient: fn(&mut [T], &[T], &[T], &Params),
}

impl Pointwise {
    /// Applies the function to each element. Integers are converted to F32; F16 and BF16 are computed in F32.
    #[track_caller]
    pub fn apply(&'static self, x: &Var, p: Params) -> Var {
        match x.dtype() {
            DType::F32 | DType::F64 => self.enter(x, self.value(&x.tensor(), &p), p),
            DType::F16 | DType::BF16 => self.apply(&x.cast(DType::F32), p).cast(x.dtype()),
            _ => self.apply(&x.cast(DType::F32), p),
        }
    }

    /// Like [`Pointwise::apply`], in the operand's memory if it is not shared.
    ///
    /// This saves memory only if the derivative is a function of the result.
    #[track_caller]
    pub fn apply_owned(&'static self, mut x: Var, p: Params) -> Var {
        if !self.of_output || !matches!(x.dtype(), DType::F32 | DType::F64) {
            return self.apply(&x, p);
        }
        let value = match x.take_value() {
            Some(value) => value,
            None => return self.apply(&x, p),
        };
        let value = match value.dtype() {
            DType::F32 => {
                strided::map_rows_owned::<f32>(value, self.grain, &|o, a| (self.f32.value)(o, a, &p))
            }
            _ => strided::map_rows_owned::<f64>(value, self.grain, &|o, a| (self.f64.value)(o, a, &p)),
        };
        self.enter(&x, value, p)
    }

    fn value(&self, x: &Tensor, p: &Params) -> Tensor {
        match x.dtype() {
            DType::F32 => strided::map_rows::<f32, f32>(x, self.grain, &|o, a| (self.f32.value)(o, a, p)),
            _ => strided::map_rows::<f64, f64>(x, self.grain, &|o, a| (self.f64.value)(o, a, p)),
        }
    }

    #[track_caller]
    fn enter(&'static self, x: &Var, value: Tensor, p: Params) -> Var {
        if self.of_output {
            let options = RecordOptions::new().pointwise().keep_output(true);
            return record_with(self.name, [x], value, options, move |c| {
                [Some(self.backward(&c.output(), c.grad(), &p))]
            });
        }
        if !(is_grad_enabled() && x.requires_grad()) {
            return Var::from(value);
        }
        let saved = x.saved();
        let rule = move |c: Cotangent| [Some(self.backward(&saved, c.grad(), &p))];
        record_with(self.name, [x], value, RecordOptions::new().pointwise(), rule)
    }

    fn backward(&self, s: &Var, g: &Var, p: &Params) -> Var {
        if is_grad_enabled() && (s.requires_grad() || g.requires_grad()) {
            return (self.rule)(s, g, p);
        }
        Var::from(self.gradient(&s.tensor(), &g.tensor(), p))
    }

    /// The gradient by the fused loop.
    fn gradient(&self, s: &Tensor, g: &Tensor, p: &Params) -> Tensor {
        let g = g.cast(s.dtype());
        match s.dtype() {
            DType::F32 => strided::zip_rows::<f32, f32, f32>(s.shape(), s, &g, self.grain, &|o, s, g| {
                (self.f32.gradient)(o, s, g, p);
            }),
            _ => strided::zip_rows::<f64, f64, f64>(s.shape(), s, &g, self.grain, &|o, s, g| {
                (self.f64.gradient)(o, s, g, p);
            }),
        }
    }

    /// Checks the derivatives of the function on a tensor from its domain: first and second derivatives against finite
    /// differences, and the fused gradient against the composed rule. For tests.
    ///
    /// # Panics
    /// If they differ.
    pub fn check(&'static self, unit: &Tensor) {
        let (low, high, p) = self.domain;
        let x = (Var::from(unit) * (high - low) + low).tensor();
        let f = |v: &[Var]| self.apply(&v[0], p);
        let leaf = [Var::parameter(x.clone())];
        crate::gradcheck(f, &leaf).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        crate::gradgradcheck(f, &leaf).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 2e-4)] {
            let x = Var::from(x.cast(dtype));
            let s = if self.of_output { self.apply(&x, p) } else { x };
            let g = (Var::from(unit) * 3.0 - 1.0).cast(dtype);
            let fused = self.gradient(&s.tensor(), &g.tensor(), &p).to_vec::<f64>();
            let composed = (self.rule)(&s, &g, &p).to_vec::<f64>();
            for (a, b) in fused.iter().zip(&composed) {
                assert!(
                    (a - b).abs() <= tolerance * (1.0 + b.abs()),
                    "{}: the fused gradient is {a}, the composed one {b} ({dtype})",
                    self.name
                );
            }
        }
    }
}

/// Makes a table of functions of one operand: fused loops, derivative rule, documented method or function.
///
/// The head names the module for the table, and how the F32 loops are compiled: `simd` for every instruction
/// set, `scalar` once, for functions that do not vectorize. A row then says, in this order:
///
/// - `method`, `function` or `hidden`: what to make of it; `x.f()`, `f(&x)`, or only the entry in the table;
/// - the name, the operand and the parameters, which are `f64` in the signature and in the rule;
/// - the function, in which `T` is the element type (a [`Float`](crate::Float)), and after `f32` the loop for F32, or that and
///   the one for its gradient, where there are kernels of their own;
/// - what the derivative is a function of, `input(x, g)` or `output(y, g)`, and the gradient as one fused
///   expression of it and the incoming gradient;
/// - `rule`: the same in differentiable operations on variables, used when the gradient is itself recorded;
/// - `on`: the range, and the parameters, with which tests check these against each other.
///
/// ```
/// tapegrad_tape::pointwise! {
///     mod table: simd;
///     /// The cube of each element.
///     function cube(x) = x * x * x; input(x, g) fused g * T::c(3.0) * x * x; rule g * 3.0 * x * x; on -2.0, 2.0;
/// }
/// # fn main() {
/// let x = tapegrad_tape::Var::parameter(tapegrad_tape::Tensor::scalar(2.0));
/// cube(&x).backward();
/// assert_eq!(x.grad().unwrap().item(), 12.0);
/// # }
/// ```
#[macro_export]
macro_rules! pointwise {
    (mod $table:ident: $speed:ident; $($(#[$meta:meta])* $kind:ident $name:ident($x:ident $(, $p:ident)*) = $f:expr
        $(, f32 $values:expr $(, $gradients:expr)?)?; $of:ident($s:ident, $g:ident) fused $fused:expr; rule $rule:expr; on $low:expr, $high:expr $(, $v:expr)*;)*) => {
        #[allow(non_upper_case_globals, unused_variables, unused_imports, unreachable_pub, dead_code)]
        pub(crate) mod $table {
            use super::*;
            use $crate::{Float, Params, Pointwise};
            $(pub(crate) static $name: Pointwise = {
                #[inline(always)]
                fn value<T: Float>($x: T, p: &Params) -> T {
                    let [$($p,)* ..] = *p;
                    $(let $p = T::c($p);)*
                    $f
                }
                #[inline(always)]
                fn gradient<T: Float>($s: T, $g: T, p: &Params) -> T {
                    let [$($p,)* ..] = *p;
                    $(let $p = T::c($p);)*
                    $fused
                }
                fn rule($s: &$crate::Var, $g: &$crate::Var, p: &Params) -> $crate::Var {
                    let [$($p,)* ..] = *p;
                    $rule
                }
                Pointwise {
                    name: stringify!($name),
                    of_output: $crate::pointwise!(@output $of),
                    f32: $crate::pointwise!(@f32 $speed value gradient $(, $values $(, $gradients)?)?),
                    f64: $crate::pointwise!(@rows scalar f64 value gradient),
                    rule,
                    grain: $crate::pointwise!(@grain $speed),
                    domain: $crate::pointwise!(@domain $low, $high $(, $v)*),
                }
            };)*
            /// All rows, for tests.
            pub(crate) static ALL: &[&Pointwise] = &[$(&$name),*];
        }
        $($crate::pointwise!(@$kind $table $(#[$meta])* $name $($p)*);)*
    };
    (@output input) => { false };
    (@output output) => { true };
    (@grain simd) => { $crate::kernels::strided::GRAIN };
    (@grain scalar) => { $crate::kernels::strided::GRAIN / 8 };
    (@domain $low:expr, $high:expr) => { ($low, $high, [0.0; 4]) };
    (@domain $low:expr, $high:expr, $a:expr) => { ($low, $high, [$a, 0.0, 0.0, 0.0]) };
    (@domain $low:expr, $high:expr, $a:expr, $b:expr) => { ($low, $high, [$a, $b, 0.0, 0.0]) };
    (@f32 $speed:ident $value:ident $gradient:ident) => { $crate::pointwise!(@rows $speed f32 $value $gradient) };
    (@f32 $speed:ident $value:ident $gradient:ident, $values:expr) => {
        $crate::Rows { value: $values, ..$crate::pointwise!(@rows $speed f32 $value $gradient) }
    };
    (@f32 $speed:ident $value:ident $gradient:ident, $values:expr, $gradients:expr) => {
        $crate::Rows { value: $values, gradient: $gradients }
    };
    (@rows simd $T:ident $value:ident $gradient:ident) => {{
        $crate::multiversion! {
            fn values(out: &mut [$T], a: &[$T], p: &$crate::Params) {
                for (o, &a) in out.iter_mut().zip(a) {
                    *o = $value(a, p);
                }
            }
        }
        $crate::multiversion! {
            fn gradients(out: &mut [$T], s: &[$T], g: &[$T], p: &$crate::Params) {
                for ((o, &s), &g) in out.iter_mut().zip(s).zip(g) {
                    *o = $gradient(s, g, p);
                }
            }
        }
        $crate::Rows { value: values, gradient: gradients }
    }};
    (@rows scalar $T:ident $value:ident $gradient:ident) => {{
        fn values(out: &mut [$T], a: &[$T], p: &$crate::Params) {
            for (o, &a) in out.iter_mut().zip(a) {
                *o = $value(a, p);
            }
        }
        fn gradients(out: &mut [$T], s: &[$T], g: &[$T], p: &$crate::Params) {
            for ((o, &s), &g) in out.iter_mut().zip(s).zip(g) {
                *o = $gradient(s, g, p);
            }
        }
        $crate::Rows { value: values, gradient: gradients }
    }};
    (@hidden $table:ident $(#[$meta:meta])* $name:ident $($p:ident)*) => {};
    (@method $table:ident $(#[$meta:meta])* $name:ident $($p:ident)*) => {
        impl $crate::Var {
            $(#[$meta])*
            #[track_caller]
            pub fn $name(&self $(, $p: f64)*) -> $crate::Var {
                $table::$name.apply(self, $crate::pointwise!(@params $($p)*))
            }
        }
    };
    (@function $table:ident $(#[$meta:meta])* $name:ident $($p:ident)*) => {
        $(#[$meta])*
        #[track_caller]
        pub fn $name(x: &$crate::Var $(, $p: f64)*) -> $crate::Var {
            $table::$name.apply(x, $crate::pointwise!(@params $($p)*))
        }
    };
    (@params) => { [0.0; 4] };
    (@params $a:ident) => { [$a, 0.0, 0.0, 0.0] };
    (@params $a:ident $b:ident) => { [$a, $b, 0.0, 0.0] };
    (@params $a:ident $b:ident $c:ident) => { [$a, $b, $c, 0.0] };
}

/// An operation on integers and booleans that keeps their type, if `x` has one.
pub(crate) fn on_integers(x: &Var, f: fn(i64) -> i64) -> Option<Var> {
    let dtype = x.dtype();
    (!dtype.is_float()).then(|| {
        let row = |out: &mut [i64], a: &[i64]| out.iter_mut().zip(a).for_each(|(o, &a)| *o = f(a));
        let wide = x.tensor().cast(DType::I64);
        Var::from(strided::map_rows(&wide, strided::GRAIN, &row).cast(dtype))
    })
}

/// The value of a binary operation: operands promoted, cast and broadcast. The group (`number`, `float` or `all`) says
/// for which types the expression is compiled.
macro_rules! binary_value {
    ($group:ident, $dtype:expr, $op:expr, $a:expr, $b:expr, |$x:ident: $T:ident, $y:ident| -> $O:ty { $f:expr }) => {{
        let (a, b): ($crate::promote::Side, $crate::promote::Side) = ($a.into(), $b.into());
        let shape = $crate::promote::broadcast_sides($op, a, b);
        let dtype: $crate::DType = $dtype;
        let (a, b) = (a.tensor(dtype), b.tensor(dtype));
        $crate::dispatch!($group: dtype, $op, $T => {
            $crate::kernels::strided::zip::<$T, $T, $O>(&shape, &a, &b, |$x: $T, $y: $T| $f)
        })
    }};
}
