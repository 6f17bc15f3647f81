//! `spectral_norm`.

use crate::fields::{Buffer, Module, Training};
use crate::utils::parametrize::{Parametrization, Parametrized};
use crate::{ConvTranspose1d, ConvTranspose2d, ConvTranspose3d};
use std::any::TypeId;
use tapegrad_ops::{dot, mv};
use tapegrad_tape::{Int, Var, setters, with_default_generator};

/// The options of [`spectral_norm`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpectralNormOptions {
    /// The number of power iterations in each forward pass in training mode.
    pub n_power_iterations: usize,
    /// The lower bound of norms that are divided by.
    pub eps: f64,
    /// The dimension of the outputs, 0 by default, and 1 for transposed convolutions.
    pub dim: Option<isize>,
}

impl Default for SpectralNormOptions {
    fn default() -> SpectralNormOptions {
        SpectralNormOptions { n_power_iterations: 1, eps: 1e-12, dim: None }
    }
}

impl SpectralNormOptions {
    setters! { n_power_iterations: usize, eps: f64 }

    /// Sets `dim`.
    #[must_use]
    pub fn dim(mut self, dim: impl Int) -> Self {
        self.dim = Some(dim.to_isize());
        self
    }
}

crate::module! {
    /// A weight divided by an estimate of its largest singular value.
    struct SpectralNorm {
        /// The estimate of the left singular vector; absent for a vector.
        _u: Option<Buffer>,
        /// The estimate of the right one.
        _v: Option<Buffer>,
        dim: usize,
        n_power_iterations: usize,
        eps: f64,
        training: Training,
    }
}

impl SpectralNorm {
    fn new(weight: &Var, dim: usize, options: SpectralNormOptions) -> SpectralNorm {
        let SpectralNormOptions { n_power_iterations, eps, .. } = options;
        let mut norm =
            SpectralNorm { _u: None, _v: None, dim, n_power_iterations, eps, training: Training::default() };
        if weight.ndim() > 1 {
            let matrix = norm.matrix(&weight.detach());
            let start = |n: usize| {
                let drawn = Var::from(with_default_generator(|g| g.normal(&[n], 0.0, 1.0)));
                Some(Buffer::new(norm.normalized(&drawn.cast(matrix.dtype())).tensor()))
            };
            let (u, v) = (start(matrix.size(0)), start(matrix.size(1)));
            (norm._u, norm._v) = (u, v);
            norm.iterate(&matrix, 15);
        }
        norm
    }

    /// The outputs as rows.
    fn matrix(&self, weight: &Var) -> Var {
        weight.transpose_to_front(self.dim).flatten(1)
    }

    fn normalized(&self, x: &Var) -> Var {
        x / x.norm().clamp_min(self.eps)
    }

    /// The power method, which brings both vectors closer to the singular ones.
    fn iterate(&self, matrix: &Var, times: usize) {
        let (Some(u), Some(v)) = (&self._u, &self._v) else { return };
        tapegrad_tape::no_grad(|| {
            let (matrix, transposed) = (matrix.detach(), matrix.detach().transpose(0, 1));
            for _ in 0..times {
                u.set_value(self.normalized(&mv(&matrix, &v.detach())).tensor());
                v.set_value(self.normalized(&mv(&transposed, &u.detach())).tensor());
            }
        });
    }
}

trait Front {
    fn transpose_to_front(&self, dim: usize) -> Var;
}

impl Front for Var {
    /// With this dimension first and the others in their order.
    fn transpose_to_front(&self, dim: usize) -> Var {
        let order: Vec<usize> = std::iter::once(dim).chain((0..self.ndim()).filter(|d| *d != dim)).collect();
        self.permute(order)
    }
}

impl Parametrization for SpectralNorm {
    fn compute(&self, originals: &[Var]) -> Var {
        let weight = &originals[0];
        let (Some(u), Some(v)) = (&self._u, &self._v) else { return self.normalized(weight) };
        let matrix = self.matrix(weight);
        if self.training.get() {
            self.iterate(&matrix, self.n_power_iterations);
        }
        weight / dot(&u.detach(), &mv(&matrix, &v.detach()))
    }
}

/// Divides a parameter by an estimate of its largest singular value, seen as a matrix with a row for each output: a layer
/// then amplifies no input (`torch.nn.utils.parametrizations.spectral_norm`; Miyato et al. 2018). A vector is divided by its
/// norm. The estimate is a step of the power method better after each forward pass in training mode.
///
/// # Panics
/// If there is no such parameter, it belongs to several modules, or is pruned.
///
/// ```
/// use tapegrad_nn::{Linear, Module, init, utils::{parametrizations::spectral_norm, parametrize::Parametrized}};
/// let layer = Linear::new(2, 2);
/// init::eye_(&layer.weight);
/// layer.weight.update(|w| w.make_mut::<f32>()[0] = 4.0);
/// let mut layer = Parametrized::new(layer);
/// spectral_norm(&mut layer, "weight");
/// let weight = layer.tensor("weight").to_vec::<f32>();
/// assert!((weight[0] - 1.0).abs() < 1e-4 && (weight[3] - 0.25).abs() < 1e-4);
/// ```
#[track_caller]
pub fn spectral_norm<M: Module>(model: &mut Parametrized<M>, name: &str) {
    spectral_norm_with(model, name, SpectralNormOptions::new());
}

/// [`spectral_norm`] with options.
///
/// # Panics
/// As [`spectral_norm`], or if there are no iterations or no such dimension.
#[track_caller]
pub fn spectral_norm_with<M: Module>(model: &mut Parametrized<M>, name: &str, options: SpectralNormOptions) {
    let op = "spectral_norm";
    let place = model.place(op, name);
    assert!(options.n_power_iterations > 0, "{op}: n_power_iterations must be positive");
    let transposed =
        [TypeId::of::<ConvTranspose1d>(), TypeId::of::<ConvTranspose2d>(), TypeId::of::<ConvTranspose3d>()];
    let outputs = isize::from(transposed.contains(&place.owner) && place.leaf.ndim() > 1);
    let dim = tapegrad_tape::shape::dim(op, options.dim.unwrap_or(outputs), place.leaf.ndim());
    model.register_parametrization(name, SpectralNorm::new(&place.leaf, dim, options));
}
