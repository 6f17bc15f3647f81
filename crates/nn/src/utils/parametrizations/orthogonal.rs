//! `orthogonal`.

use crate::fields::{Buffer, Field, Module};
use crate::utils::parametrize::{Parametrization, Parametrized};
use tapegrad_ops::linalg::{TriangularOptions, matrix_exp, qr, solve, solve_triangular};
use tapegrad_ops::matmul;
use tapegrad_tape::{DType, Tensor, Var, cat, setters, with_default_generator};

/// How an orthogonal matrix is computed from any matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrthogonalMap {
    /// The exponential of a skew-symmetric matrix.
    MatrixExp,
    /// `(I + A/2) (I - A/2)^-1` of a skew-symmetric matrix `A`.
    Cayley,
    /// A product of reflections, one for each column: the cheapest for matrices that are far from square.
    Householder,
}

impl Field for OrthogonalMap {}

/// The options of [`orthogonal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrthogonalOptions {
    /// How matrices are computed: by default the exponential if they are square, otherwise by reflections.
    pub orthogonal_map: Option<OrthogonalMap>,
    /// Whether the matrix is relative to a fixed one, that with which training began (Lezcano Casado 2019).
    pub use_trivialization: bool,
}

impl Default for OrthogonalOptions {
    fn default() -> OrthogonalOptions {
        OrthogonalOptions { orthogonal_map: None, use_trivialization: true }
    }
}

impl OrthogonalOptions {
    setters! { use_trivialization: bool; orthogonal_map: OrthogonalMap }
}

crate::module! {
    /// Matrices with orthonormal columns, or rows where there are more columns.
    struct Orthogonal {
        /// The fixed matrices, `[..., n, n]`.
        base: Option<Buffer>,
        map: OrthogonalMap,
    }
}

fn t(x: &Var) -> Var {
    x.transpose(-2, -1)
}

fn eye(n: usize, dtype: DType) -> Var {
    Var::from(Tensor::eye(n).cast(dtype))
}

/// With at least as many rows as columns, and whether it was transposed for that.
fn tall(x: &Var) -> (Var, bool) {
    let wide = x.size(-2) < x.size(-1);
    (if wide { t(x) } else { x.clone() }, wide)
}

impl Orthogonal {
    fn new(weight: &Var, map: OrthogonalMap, use_trivialization: bool) -> Orthogonal {
        let (batch, [rows, columns]) = weight.shape().split_last_chunk::<2>().expect("two dimensions");
        let n = *rows.max(columns);
        let base = || Buffer::new(Tensor::zeros_with(&[batch, &[n, n]].concat(), weight.dtype()));
        Orthogonal { base: use_trivialization.then(base), map }
    }

    /// A function of a skew-symmetric matrix that is made of a triangle of `x`.
    fn of_skew_symmetric(&self, x: &Var) -> Var {
        let (n, k) = (x.size(-2), x.size(-1));
        let mut a = x.tril();
        if n != k {
            let shape = [&x.shape()[..x.ndim() - 1], &[n - k]].concat();
            a = cat(&[a, Var::from(Tensor::zeros_with(&shape, x.dtype()))], -1);
        }
        let a = &a - t(&a);
        let q = match self.map {
            OrthogonalMap::MatrixExp => matrix_exp(&a),
            _ => {
                let one = eye(n, a.dtype());
                solve(&(&one - &a * 0.5), &(&one + &a * 0.5))
            }
        };
        q.narrow(-1, 0, k)
    }
}

/// The first columns of the product of the reflections along the columns of `x` below its diagonal, with ones on it
/// (`torch.linalg.householder_product`), and the signs of its diagonal.
///
/// With the vectors as columns of `V`, the product is `I - V T V^T`, where the inverse of `T` is the upper triangle of
/// `V^T V` with half of its diagonal (Joffrin & Low 1989).
fn reflections(x: &Var) -> Var {
    let k = x.size(-1);
    let first = Var::from(eye(x.size(-2), x.dtype()).narrow(-1, 0, k).tensor());
    let v = x.tril_with(-1) + &first;
    let gram = matmul(&t(&v), &v);
    let inverse = gram.triu_with(1) + gram.diagonal_with(0, -2, -1).unsqueeze(-1) * 0.5 * eye(k, x.dtype());
    let top = t(&v.narrow(-2, 0, k));
    let q = &first - matmul(&v, &solve_triangular(&inverse, &top, TriangularOptions::new(true)));
    q * x.detach().diagonal_with(0, -2, -1).trunc().unsqueeze(-2)
}

impl Parametrization for Orthogonal {
    fn compute(&self, originals: &[Var]) -> Var {
        let (x, wide) = tall(&originals[0]);
        let mut q = match self.map {
            OrthogonalMap::Householder => reflections(&x),
            _ => self.of_skew_symmetric(&x),
        };
        if let Some(base) = &self.base {
            q = matmul(&base.detach(), &q);
        }
        if wide { t(&q) } else { q }
    }

    fn right_inverse(&self, value: &Var) -> Vec<Var> {
        let (x, wide) = tall(value);
        let (n, k) = (x.size(-2), x.size(-1));
        let Some(base) = &self.base else {
            let a = reflectors(&x);
            return vec![Var::from((if wide { t(&a) } else { a }).tensor().contiguous())];
        };
        if n != k {
            // Any columns that complete it.
            let shape = [&x.shape()[..x.ndim() - 1], &[n - k]].concat();
            let drawn = Var::from(with_default_generator(|g| g.normal(&shape, 0.0, 1.0)));
            base.set_value(qr(&cat(&[x, drawn.cast(value.dtype())], -1)).0.tensor());
        } else if is_orthogonal(&x) {
            base.set_value(x.tensor());
        } else {
            base.set_value(qr(&x).0.tensor());
        }
        // Reflections begin at the identity there, and so do the other maps.
        let minus = eye(n, value.dtype()).narrow(-1, 0, k) * -1.0;
        let minus = if wide { t(&minus) } else { minus };
        vec![Var::from(minus.expand(value.shape()).tensor().contiguous())]
    }
}

fn is_orthogonal(x: &Var) -> bool {
    let n = x.size(-1);
    let epsilon = if x.dtype() == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) };
    let one = eye(n, x.dtype());
    let off = (matmul(&t(x), x) - &one).abs() - one * 1e-5;
    off.numel() == 0 || off.max_all().item() <= 10.0 * n as f64 * epsilon
}

/// The vectors of the reflections of a QR factorization below the diagonal, which has the signs of that of `R`.
fn reflectors(x: &Var) -> Var {
    let (n, k) = (x.size(-2), x.size(-1));
    let mut values = x.to_vec::<f64>();
    for a in values.chunks_mut((n * k).max(1)) {
        for j in 0..k {
            let below: f64 = (j + 1..n).map(|i| a[i * k + j] * a[i * k + j]).sum();
            let alpha = a[j * k + j];
            if below == 0.0 {
                // A column that needs no reflection gets one along its axis, which changes its sign.
                a[j * k + j] = if alpha > 0.0 { -1.0 } else { f64::from(u8::from(alpha < 0.0)) };
                continue;
            }
            let beta = -alpha.signum() * (alpha * alpha + below).sqrt();
            let tau = (beta - alpha) / beta;
            for i in j + 1..n {
                a[i * k + j] /= alpha - beta;
            }
            for c in j + 1..k {
                let product: f64 = (j + 1..n).map(|i| a[i * k + j] * a[i * k + c]).sum();
                let share = tau * (a[j * k + c] + product);
                a[j * k + c] -= share;
                for i in j + 1..n {
                    a[i * k + c] -= share * a[i * k + j];
                }
            }
            a[j * k + j] = beta.signum();
        }
    }
    Var::from(Tensor::from_vec(values, x.shape()).cast(x.dtype()))
}

/// Keeps a parameter orthogonal: its columns, or its rows if there are fewer, are orthonormal
/// (`torch.nn.utils.parametrizations.orthogonal`). A tensor of more than two dimensions is a batch of matrices. It begins as
/// the orthogonal matrix of the parameter's QR factorization.
///
/// # Panics
/// If there is no such parameter, it has fewer than two dimensions, belongs to several modules, or is pruned.
///
/// ```
/// use tapegrad_nn::{Linear, utils::{parametrizations::orthogonal, parametrize::Parametrized}};
/// use tapegrad_tape::{Tensor, Var, assert_close};
/// let mut layer = Parametrized::new(Linear::new(20, 40));
/// orthogonal(&mut layer, "weight");
/// let q = layer.tensor("weight");
/// assert_close(&tapegrad_ops::matmul(&q.transpose(0, 1), &q), &Var::from(Tensor::eye(20)));
/// ```
#[track_caller]
pub fn orthogonal<M: Module>(model: &mut Parametrized<M>, name: &str) {
    orthogonal_with(model, name, OrthogonalOptions::new());
}

/// [`orthogonal`] with options. Without a fixed matrix, the parameter's value can be kept by
/// [`OrthogonalMap::Householder`] only.
///
/// # Panics
/// As [`orthogonal`], or for another map without a fixed matrix.
#[track_caller]
pub fn orthogonal_with<M: Module>(model: &mut Parametrized<M>, name: &str, options: OrthogonalOptions) {
    let op = "orthogonal";
    let leaf = model.place(op, name).leaf;
    assert!(leaf.ndim() >= 2, "{op}: expected a matrix or a batch of matrices, got shape {:?}", leaf.shape());
    let square = leaf.size(-2) == leaf.size(-1);
    let map = options.orthogonal_map.unwrap_or(if square {
        OrthogonalMap::MatrixExp
    } else {
        OrthogonalMap::Householder
    });
    assert!(
        options.use_trivialization || map == OrthogonalMap::Householder,
        "{op}: {map:?} cannot give the parameter's value without use_trivialization"
    );
    model.register_parametrization(name, Orthogonal::new(&leaf, map, options.use_trivialization));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Forward, Linear};

    fn is_orthonormal(q: &Var) {
        let (q, _) = tall(q);
        tapegrad_tape::assert_close(&matmul(&t(&q), &q), &eye(q.size(-1), q.dtype()));
    }

    #[test]
    fn weights_start_at_their_qr_factor_and_stay_orthogonal() {
        for map in [OrthogonalMap::MatrixExp, OrthogonalMap::Cayley, OrthogonalMap::Householder] {
            for (inputs, outputs) in [(4, 4), (3, 5), (5, 3)] {
                let layer = Linear::new(inputs, outputs);
                layer.to_dtype(DType::F64);
                let start = layer.weight.detach();
                let (start, wide) = tall(&start);
                let start = qr(&start).0;
                let mut layer = Parametrized::new(layer);
                orthogonal_with(&mut layer, "weight", OrthogonalOptions::new().orthogonal_map(map));
                let q = layer.tensor("weight");
                tapegrad_tape::assert_close(&if wide { t(&q) } else { q }, &start);
                let x = Var::from(Tensor::ones_with(&[2, inputs], DType::F64));
                for _ in 0..3 {
                    layer.zero_grad();
                    layer.forward(&x).exp().sum_all().backward();
                    for p in layer.parameters() {
                        p.set_value((p.detach() - p.grad().unwrap() * 0.1).tensor());
                    }
                }
                is_orthonormal(&layer.tensor("weight"));
                assert!(
                    (layer.tensor("weight") - &if wide { t(&start) } else { start }).abs().max_all().item()
                        > 1e-3
                );
            }
        }
    }

    #[test]
    fn reflections_without_a_base_keep_an_orthogonal_value() {
        for (inputs, outputs) in [(4, 4), (3, 5), (5, 3)] {
            let layer = Linear::new(inputs, outputs);
            layer.to_dtype(DType::F64);
            let (start, wide) = tall(&layer.weight.detach());
            let start = qr(&start).0;
            layer.weight.set_value(if wide { t(&start) } else { start }.tensor().contiguous());
            let before = layer.weight.detach();
            let mut layer = Parametrized::new(layer);
            let options = OrthogonalOptions::new().orthogonal_map(OrthogonalMap::Householder);
            orthogonal_with(&mut layer, "weight", options.use_trivialization(false));
            tapegrad_tape::assert_close(&layer.tensor("weight"), &before);
        }
    }

    #[test]
    fn derivatives_by_finite_differences() {
        for map in [OrthogonalMap::MatrixExp, OrthogonalMap::Cayley, OrthogonalMap::Householder] {
            let x = tapegrad_tape::Generator::manual_seed(2).normal(&[2, 4, 3], 0.0, 1.0).cast(DType::F64);
            let x = Var::parameter(x);
            // The diagonal of reflections has no derivative.
            let sign = eye(4, DType::F64).narrow(-1, 0, 3);
            let p = Orthogonal::new(&x, map, false);
            let f = |v: &[Var]| p.compute(&[v[0].tril_with(-1) - &sign]);
            tapegrad_tape::gradcheck(f, std::slice::from_ref(&x)).unwrap();
            tapegrad_tape::gradgradcheck(f, &[x]).unwrap();
        }
    }

    #[test]
    #[should_panic(expected = "orthogonal: expected a matrix or a batch of matrices, got shape [3]")]
    fn vectors_are_refused() {
        orthogonal(&mut Parametrized::new(Linear::new(2, 3)), "bias");
    }
}
