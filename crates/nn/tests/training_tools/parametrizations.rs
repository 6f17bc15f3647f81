//! `torch.nn.utils.parametrizations`: keys, outputs, gradients, and what the pass changes.

use crate::{close, get, samples};
#[cfg(feature = "linalg")]
use tapegrad_nn::utils::parametrizations::{OrthogonalMap, OrthogonalOptions, orthogonal_with};
use tapegrad_nn::utils::parametrizations::{
    SpectralNormOptions, spectral_norm, spectral_norm_with, weight_norm, weight_norm_with,
};
use tapegrad_nn::utils::parametrize::Parametrized;
use tapegrad_nn::{Conv2d, ConvTranspose2d, Forward, Linear, Module};
use tapegrad_tape::{DType, Tensor, Var};

fn check<M: Forward>(name: &str, layer: M, training: bool, add: impl FnOnce(&mut Parametrized<M>)) {
    let samples = samples(&format!("parametrized.{name}"));
    layer.to_dtype(DType::F64);
    let mut layer = Parametrized::new(layer);
    add(&mut layer);
    layer.set_training(training);
    layer.load_state_dict(&samples.part("before")).unwrap();
    let y = layer.forward(&Var::from(get(&samples, "x")));
    close(&y.tensor(), get(&samples, "y"), name);
    let weights = (0..y.numel()).map(|i| (i as f64).cos()).collect();
    (&y * Var::from(Tensor::from_vec(weights, y.shape()))).sum_all().backward();
    let grads = samples.part("grad");
    let parameters = layer.named_parameters();
    assert_eq!(parameters.len(), grads.len());
    for (key, p) in parameters {
        close(&p.grad().unwrap().tensor(), get(&grads, &key), &format!("{name}: gradient of {key}"));
    }
    let (after, want) = (layer.state_dict(), samples.part("after"));
    assert_eq!(after.len(), want.len());
    want.iter().for_each(|(key, want)| close(get(&after, key), want, &format!("{name}: {key} afterward")));
}

#[test]
fn weight_norms() {
    check("weight_norm_linear", Linear::new(5, 4), true, |l| weight_norm(l, "weight"));
    check("weight_norm_columns", Linear::new(5, 4), true, |l| weight_norm_with(l, "weight", 1));
    check("weight_norm_whole", Linear::new(5, 4), true, |l| weight_norm_with(l, "weight", None));
    check("weight_norm_conv", Conv2d::new(3, 4, (3, 2)), true, |l| weight_norm(l, "weight"));
    check("weight_norm_bias", Linear::new(5, 4), true, |l| weight_norm(l, "bias"));
}

#[test]
fn spectral_norms() {
    check("spectral_norm_linear", Linear::new(5, 4), true, |l| spectral_norm(l, "weight"));
    check("spectral_norm_eval", Linear::new(5, 4), false, |l| spectral_norm(l, "weight"));
    check("spectral_norm_conv", Conv2d::new(3, 4, (3, 2)), true, |l| {
        spectral_norm_with(l, "weight", SpectralNormOptions::new().n_power_iterations(3))
    });
    let transposed = ConvTranspose2d::new(3, 4, (3, 2));
    check("spectral_norm_transposed", transposed, true, |l| spectral_norm(l, "weight"));
    check("spectral_norm_bias", Linear::new(5, 4), true, |l| spectral_norm(l, "bias"));
}

#[cfg(feature = "linalg")]
#[test]
fn orthogonal() {
    let maps = [
        ("matrix_exp", OrthogonalMap::MatrixExp),
        ("cayley", OrthogonalMap::Cayley),
        ("householder", OrthogonalMap::Householder),
    ];
    for (name, map) in maps {
        for outputs in [5, 4, 7] {
            let options = OrthogonalOptions::new().orthogonal_map(map);
            check(&format!("orthogonal_{name}_{outputs}_5"), Linear::new(5, outputs), true, |l| {
                orthogonal_with(l, "weight", options)
            });
        }
    }
    let options = OrthogonalOptions::new().orthogonal_map(OrthogonalMap::Householder);
    let plain = options.use_trivialization(false);
    check("orthogonal_plain", Linear::new(5, 4), true, |l| orthogonal_with(l, "weight", plain));
}
