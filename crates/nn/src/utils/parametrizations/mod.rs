//! Parametrizations of weights (`torch.nn.utils.parametrizations`).

#[cfg(feature = "linalg")]
mod orthogonal;
mod spectral_norm;
mod weight_norm;

#[cfg(feature = "linalg")]
pub use orthogonal::{OrthogonalMap, OrthogonalOptions, orthogonal, orthogonal_with};
pub use spectral_norm::{SpectralNormOptions, spectral_norm, spectral_norm_with};
pub use weight_norm::{weight_norm, weight_norm_with};
