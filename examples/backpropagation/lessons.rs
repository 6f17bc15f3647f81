//! Gradients in closed form, computed by plain loops, next to those of the tape.

use tapegrad::nn::optim::SGD;
use tapegrad::ops::{BatchNormOptions, CrossEntropyOptions, Reduction};
use tapegrad::prelude::*;

/// A loss, and for each gradient (and other compared value) its name, its closed form and the tape's.
pub(crate) struct Lesson {
    pub(crate) title: &'static str,
    pub(crate) loss: Var,
    pub(crate) gradients: Vec<(&'static str, Var, Var)>,
}

impl Lesson {
    fn new(title: &'static str, loss: Var, closed: Vec<(&'static str, &Var, Matrix)>) -> Lesson {
        let inputs: Vec<&Var> = closed.iter().map(|(_, v, _)| *v).collect();
        let tape = grad_with(&[&loss], &inputs, tapegrad::tape::GradOptions::new());
        let pair = |((name, v, m), t): ((&'static str, &Var, Matrix), Option<Var>)| {
            (name, m.shaped(v), t.expect("the loss depends on it"))
        };
        Lesson { title, gradients: closed.into_iter().zip(tape).map(pair).collect(), loss }
    }
}

/// The last two dimensions of a variable, as plain numbers.
struct Matrix {
    rows: usize,
    cols: usize,
    values: Vec<f64>,
}

impl Matrix {
    fn new(rows: usize, cols: usize, f: impl Fn(usize, usize) -> f64) -> Matrix {
        Matrix { rows, cols, values: (0..rows * cols).map(|i| f(i / cols, i % cols)).collect() }
    }

    fn of(v: &Var) -> Matrix {
        let cols = v.size(-1);
        Matrix { rows: v.numel() / cols, cols, values: v.to_vec() }
    }

    fn shaped(self, like: &Var) -> Var {
        Var::from_vec(self.values, like.shape())
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        self.values[i * self.cols + j]
    }

    /// Each element mapped by a function of its value and its position.
    fn map(&self, f: impl Fn(f64, usize, usize) -> f64) -> Matrix {
        Matrix::new(self.rows, self.cols, |i, j| f(self.at(i, j), i, j))
    }

    fn times(&self, other: &Matrix) -> Matrix {
        let dot = |i, j| (0..self.cols).map(|k| self.at(i, k) * other.at(k, j)).sum();
        Matrix::new(self.rows, other.cols, dot)
    }

    /// A linear layer on the rows of this matrix.
    fn layer(&self, weight: &Var, bias: &Var) -> Matrix {
        let bias = Matrix::of(bias);
        self.times(&Matrix::of(weight).t()).map(|z, _, j| z + bias.at(0, j))
    }

    fn t(&self) -> Matrix {
        Matrix::new(self.cols, self.rows, |i, j| self.at(j, i))
    }

    /// The sum of each column, as one row.
    fn column_sums(&self) -> Matrix {
        Matrix::new(1, self.cols, |_, j| (0..self.rows).map(|i| self.at(i, j)).sum())
    }

    /// `exp` of each element over the sum of its row.
    fn softmax(&self) -> Matrix {
        let sum = |i| (0..self.cols).map(|j| self.at(i, j).exp()).sum::<f64>();
        self.map(|v, i, _| v.exp() / sum(i))
    }

    /// Element `(a, b)` is the sum of `self[a + u, b + v] kernel[u, v]`: a filter slides over this matrix.
    fn filtered(&self, kernel: &Matrix) -> Matrix {
        let window = |a, b| {
            let term = |u, v| self.at(a + u, b + v) * kernel.at(u, v);
            (0..kernel.rows).map(|u| (0..kernel.cols).map(|v| term(u, v)).sum::<f64>()).sum()
        };
        Matrix::new(self.rows - kernel.rows + 1, self.cols - kernel.cols + 1, window)
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn cross_entropy(logits: &Var, target: &Var) -> Var {
    let options = CrossEntropyOptions::new().reduction(Reduction::Sum);
    ops::cross_entropy_with(logits, target, options)
}

/// One-hot rows of class indices.
fn one_hot(labels: &Var, classes: usize) -> Matrix {
    let labels = labels.to_vec::<i64>();
    Matrix::new(labels.len(), classes, |i, j| f64::from(labels[i] == j as i64))
}

/// `dL/dz = o - y` for the outputs `o = softmax(z)` and targets `y`, which are probabilities.
pub(crate) fn softmax_cross_entropy(z: &Var, y: &Var) -> Lesson {
    let loss = cross_entropy(z, y);
    let (o, y) = (Matrix::of(z).softmax(), Matrix::of(y));
    Lesson::new("Softmax and cross-entropy", loss, vec![("dL/dz", z, o.map(|o, i, j| o - y.at(i, j)))])
}

/// `h = sigmoid(x W1' + b1)`, `z = h W2' + b2`: the gradient for the input, and those for the weights.
pub(crate) fn two_layers(x: &Var, layers: [(&Var, &Var); 2], labels: &Var) -> Lesson {
    let [(w1, b1), (w2, b2)] = layers;
    let h = ops::linear(x, w1, Some(b1)).sigmoid();
    let z = ops::linear(&h, w2, Some(b2));
    let loss = cross_entropy(&z, labels);

    let (y, x_) = (one_hot(labels, z.size(1)), Matrix::of(x));
    let h = x_.layer(w1, b1).map(|a, _, _| sigmoid(a));
    let dz = h.layer(w2, b2).softmax().map(|o, i, j| o - y.at(i, j));
    let dh = dz.times(&Matrix::of(w2));
    let da = dh.map(|d, i, j| d * h.at(i, j) * (1.0 - h.at(i, j)));
    let closed = vec![
        ("dL/dx", x, da.times(&Matrix::of(w1))),
        ("dL/dW1", w1, da.t().times(&x_)),
        ("dL/db1", b1, da.column_sums()),
        ("dL/dW2", w2, dz.t().times(&h)),
        ("dL/db2", b2, dz.column_sums()),
    ];
    Lesson::new("A network of two layers", loss, closed)
}

/// One step of gradient descent on the weights of `softmax(W x)`, with all intermediate values. The given weights are not
/// changed.
pub(crate) fn one_step(x: &Var, w: &Var, label: &Var, rate: f64) -> Lesson {
    let w = Var::parameter(w.tensor());
    let z = ops::linear(x, &w, None);
    let loss = cross_entropy(&z, label);

    let (y, x_) = (one_hot(label, z.size(1)), Matrix::of(x));
    let sums = |w: &Matrix| x_.times(&w.t());
    let sum = sums(&Matrix::of(&w));
    let o = sum.softmax();
    let dz = o.map(|o, i, j| o - y.at(i, j));
    let dw = dz.t().times(&x_);
    let next = Matrix::of(&w).map(|w, i, j| w - rate * dw.at(i, j));
    let o_next = sums(&next).softmax();
    let terms = o_next.map(|o, i, j| -y.at(i, j) * o.ln());

    let mut lesson =
        Lesson::new("One step of a softmax network", loss, vec![("dL/dz", &z, dz), ("dL/dW", &w, dw)]);
    w.set_grad(Some(lesson.gradients[1].2.clone()));
    let before = [("z", sum.shaped(&z), z.detach()), ("o", o.shaped(&z), z.softmax(1).detach())];
    SGD::new([w.clone()], rate).step();
    let z = ops::linear(x, &w, None);
    let after = [
        ("W next", next.shaped(&w), w.detach()),
        ("o next", o_next.shaped(&z), z.softmax(1).detach()),
        (
            "L next",
            Var::from_vec(vec![terms.values.iter().sum::<f64>()], ()),
            cross_entropy(&z, label).detach(),
        ),
    ];
    lesson.gradients.splice(0..0, before);
    lesson.gradients.extend(after);
    lesson
}

/// `C = X filtered with K`, `S = sigmoid(C)`, `P` the means of 2x2 squares of `S`, and `L = sum(G P)`: the layers
/// above pass down `dL/dP = G`.
pub(crate) fn convolution_and_pooling(x: &Var, k: &Var, g: &Var) -> Lesson {
    let c = ops::conv2d(x, k, None);
    let s = c.sigmoid();
    let p = ops::avg_pool2d(&s, 2);
    let loss = (&p * g).sum_all();

    let (g, x) = (Matrix::of(g), Matrix::of(x));
    let s_ = x.filtered(&Matrix::of(k)).map(|c, _, _| sigmoid(c));
    // An odd last row or column is not part of a square.
    let inside = |i: usize, j: usize| i / 2 < g.rows && j / 2 < g.cols;
    let ds = s_.map(|_, i, j| if inside(i, j) { g.at(i / 2, j / 2) / 4.0 } else { 0.0 });
    let dc = s_.map(|s, i, j| ds.at(i, j) * s * (1.0 - s));
    let dk = x.filtered(&dc);
    let closed = vec![("dL/dS", &s, ds), ("dL/dC", &c, dc), ("dL/dK", k, dk)];
    Lesson::new("Convolution, sigmoid, 2x2 average pooling", loss, closed)
}

/// The full convolution `Y[i, j] = sum X[i - u, j - v] W[u, v]`, with `L = sum(G Y)`, so that `dL/dY = G`: the
/// gradients are `G` filtered with the other factor.
pub(crate) fn full_convolution(x: &Var, w: &Var, g: &Var) -> Lesson {
    let y = ops::conv_transpose2d(x, w, None);
    let loss = (&y * g).sum_all();
    let (x_, w_, g) = (Matrix::of(x), Matrix::of(w), Matrix::of(g));
    let closed = vec![("dL/dX", x, g.filtered(&w_)), ("dL/dW", w, g.filtered(&x_))];
    let mut lesson = Lesson::new("The full convolution", loss, closed);

    let value = Matrix::new(g.rows, g.cols, |i, j| {
        let term = |a: usize, b: usize| match (i.checked_sub(a), j.checked_sub(b)) {
            (Some(u), Some(v)) if u < w_.rows && v < w_.cols => x_.at(a, b) * w_.at(u, v),
            _ => 0.0,
        };
        (0..x_.rows).map(|a| (0..x_.cols).map(|b| term(a, b)).sum::<f64>()).sum()
    });
    lesson.gradients.push(("Y itself", value.shaped(&y), y));
    lesson
}

/// Batch norm of `[N, C]` by the batch's own statistics, with `L = sum(G Y)`, so that `dL/dY = G`.
pub(crate) fn batch_norm(x: &Var, gamma: &Var, beta: &Var, g: &Var) -> Lesson {
    let options = BatchNormOptions::new().training(true);
    let y = ops::batch_norm_with(x, None, Some(gamma), Some(beta), options);
    let loss = (&y * g).sum_all();

    let (x_, g, gamma_) = (Matrix::of(x), Matrix::of(g), Matrix::of(gamma));
    let n = x_.rows as f64;
    let mean = x_.column_sums().map(|s, _, _| s / n);
    let centered = x_.map(|x, _, j| x - mean.at(0, j));
    let sigma = centered.map(|c, _, _| c * c).column_sums().map(|s, _, _| (s / n + options.eps).sqrt());
    let normal = centered.map(|c, _, j| c / sigma.at(0, j));
    let d_beta = g.column_sums();
    let d_gamma = g.map(|g, i, j| g * normal.at(i, j)).column_sums();
    let dx = g.map(|g, i, j| {
        let along = d_beta.at(0, j) + normal.at(i, j) * d_gamma.at(0, j);
        gamma_.at(0, j) / sigma.at(0, j) * (g - along / n)
    });
    let closed = vec![("dL/dX", x, dx), ("dL/dgamma", gamma, d_gamma), ("dL/dbeta", beta, d_beta)];
    Lesson::new("Batch norm", loss, closed)
}

/// All of them, on small random numbers.
pub(crate) fn samples(seed: u64) -> Vec<Lesson> {
    let mut generator = Generator::manual_seed(seed);
    let mut random = |shape: &[usize]| Var::parameter(generator.normal(shape, 0.0, 1.0).cast(DType::F64));
    let labels = Var::from_vec(vec![1i64, 0, 2], 3);
    let exercise = [vec![1.0, 2.0], vec![0.5, -0.5, -1.0, 1.0]];
    vec![
        softmax_cross_entropy(&random(&[3, 4]), &random(&[3, 4]).softmax(1).detach()),
        two_layers(
            &random(&[3, 4]),
            [(&random(&[5, 4]), &random(&[5])), (&random(&[3, 5]), &random(&[3]))],
            &labels,
        ),
        one_step(
            &Var::from_vec(exercise[0].clone(), (1, 2)),
            &Var::from_vec(exercise[1].clone(), (2, 2)),
            &Var::from_vec(vec![0i64], 1),
            0.5,
        ),
        convolution_and_pooling(
            &random(&[1, 1, 9, 8]),
            &random(&[1, 1, 3, 3]),
            &random(&[1, 1, 3, 3]).detach(),
        ),
        full_convolution(&random(&[1, 1, 4, 5]), &random(&[1, 1, 3, 2]), &random(&[1, 1, 6, 6]).detach()),
        batch_norm(&random(&[6, 3]), &random(&[3]), &random(&[3]), &random(&[6, 3]).detach()),
    ]
}
