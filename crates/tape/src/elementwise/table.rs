//! The shapes that many elementwise operations share.

/// Makes methods of `Var` from functions of one floating-point number; integers are converted first.
///
/// A row names what the derivative is a function of: `input x` keeps the operand, `output y` the result.
/// Then follow the function, the gradient as one fused expression of it and the incoming gradient `g`
/// (used when nothing is recorded), and the same as differentiable operations on variables.
macro_rules! unary {
    ($($(#[$meta:meta])* $name:ident($x:ident) = $f:expr; $of:ident ($s:ident, $g:ident) fused $fused:expr; rule $rule:expr;)*) => {
        impl $crate::Var {$(
            $(#[$meta])*
            #[track_caller]
            pub fn $name(&self) -> $crate::Var {
                use $crate::kernels::strided;
                let input = self.to_float();
                let value = input.tensor();
                let out = $crate::dispatch!(float: value.dtype(), stringify!($name), T => strided::map::<T, T>(&value, |$x: T| $f));
                drop(value);
                unary!(@record $of, stringify!($name), input, out, |$s, $g| {
                    if $crate::is_grad_enabled() {
                        $rule
                    } else {
                        let (s, g) = ($s.tensor(), $g.tensor());
                        $crate::Var::from($crate::dispatch!(float: g.dtype(), stringify!($name), T => {
                            strided::zip::<T, T, T>(g.shape(), &s, &g, |$s: T, $g: T| $fused)
                        }))
                    }
                })
            }
        )*}
    };
    (@record input, $op:expr, $input:ident, $out:ident, |$s:ident, $g:ident| $body:block) => {{
        let saved = $input.saved();
        $crate::record($op, [&$input], $out, move |c| {
            let ($s, $g) = (&saved, c.grad());
            [Some($body)]
        })
    }};
    (@record output, $op:expr, $input:ident, $out:ident, |$s:ident, $g:ident| $body:block) => {
        $crate::record_with_output($op, [&$input], $out, move |c| {
            let ($s, $g) = (&c.output(), c.grad());
            [Some($body)]
        })
    };
}

/// The value of a binary operation: operands promoted, cast and broadcast. The group (`number`, `float` or
/// `all`) tells for which types the expression is compiled.
macro_rules! binary_value {
    ($group:ident, $dtype:expr, $op:expr, $a:expr, $b:expr, |$x:ident: $T:ident, $y:ident| -> $O:ty { $f:expr }) => {{
        let (a, b): (&$crate::promote::Operand, &$crate::promote::Operand) = ($a, $b);
        let shape = $crate::promote::broadcast_operands($op, &[a, b]);
        let dtype: $crate::DType = $dtype;
        let (a, b) = (a.tensor(dtype), b.tensor(dtype));
        $crate::dispatch!($group: dtype, $op, $T => {
            $crate::kernels::strided::zip::<$T, $T, $O>(&shape, &a, &b, |$x: $T, $y: $T| $f)
        })
    }};
}
