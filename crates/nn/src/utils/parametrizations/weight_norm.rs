//! `weight_norm`.

use crate::fields::Module;
use crate::utils::parametrize::{Parametrization, Parametrized};
use tapegrad_tape::{OptionalInt, Var};

crate::module! {
    /// A magnitude times a direction.
    struct WeightNorm {
        /// The dimension that has a magnitude for each index; none for one magnitude.
        dim: Option<usize>,
    }
}

impl WeightNorm {
    fn norm(&self, v: &Var) -> Var {
        match self.dim {
            None => v.norm(),
            Some(_) if v.ndim() == 1 => v.abs(),
            Some(dim) => {
                let others: Vec<usize> = (0..v.ndim()).filter(|d| *d != dim).collect();
                v.vector_norm_with(2.0, others, true)
            }
        }
    }
}

impl Parametrization for WeightNorm {
    fn compute(&self, originals: &[Var]) -> Var {
        let [g, v] = originals else { unreachable!("the originals that right_inverse gives") };
        v * (g / self.norm(v))
    }

    fn right_inverse(&self, value: &Var) -> Vec<Var> {
        vec![self.norm(value), value.clone()]
    }
}

/// Trains a parameter as a magnitude and a direction, `w = g v / |v|`, with a magnitude for each index of the first
/// dimension: each output of a layer (`torch.nn.utils.parametrizations.weight_norm`; Salimans & Kingma 2016). `g` is
/// `parametrizations.weight.original0`, `v` is `original1`.
///
/// # Panics
/// If there is no such parameter, it belongs to several modules, or is pruned.
///
/// ```
/// use tapegrad_nn::{Linear, Module, utils::{parametrizations::weight_norm, parametrize::Parametrized}};
/// let mut layer = Parametrized::new(Linear::new(20, 40));
/// weight_norm(&mut layer, "weight");
/// let shapes: Vec<Vec<usize>> = layer.parameters().iter().map(|p| p.shape().to_vec()).collect();
/// assert_eq!(shapes, [vec![40], vec![40, 1], vec![40, 20]]);
/// ```
#[track_caller]
pub fn weight_norm<M: Module>(model: &mut Parametrized<M>, name: &str) {
    weight_norm_with(model, name, 0);
}

/// [`weight_norm`] with magnitudes for the indices of another dimension, or a single one with `None`.
///
/// # Panics
/// As [`weight_norm`], or if there is no such dimension.
#[track_caller]
pub fn weight_norm_with<M: Module>(model: &mut Parametrized<M>, name: &str, dim: impl OptionalInt) {
    let op = "weight_norm";
    let leaf = model.place(op, name).leaf;
    let dim = dim.to_option().map(|dim| tapegrad_tape::shape::dim(op, dim, leaf.ndim()));
    model.register_parametrization(name, WeightNorm { dim });
}
