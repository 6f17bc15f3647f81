//! The published weights of GPT-2 for a [`Gpt`].

use super::{Gpt, GptConfig};
use crate::{IncompatibleKeys, Module, StateDict, StateDictError};

/// The size of a head in all published GPT-2.
const HEAD: usize = 64;

impl GptConfig {
    /// The sizes of the GPT-2 that a state dict with the published names belongs to, whose heads are 64 wide; `None` if it is
    /// no GPT-2.
    pub fn of_gpt2(state: &StateDict) -> Option<GptConfig> {
        let shape = |name: &str| get(state, name).map(|t| <[usize; 2]>::try_from(t.shape()).ok());
        let ([vocab, embd], [block, _]) = (shape("wte.weight")??, shape("wpe.weight")??);
        let layers = (0..).take_while(|i| get(state, &format!("h.{i}.ln_1.weight")).is_some()).count();
        let fits = layers > 0 && embd > 0 && embd.is_multiple_of(HEAD);
        fits.then_some(GptConfig { vocab, block, layers, heads: embd / HEAD, embd })
    }
}

/// A tensor by its published name: some files have all names below `transformer`.
fn get<'a>(state: &'a StateDict, name: &str) -> Option<&'a tapegrad_tape::Tensor> {
    state.get(name).or_else(|| state.get(&format!("transformer.{name}")))
}

/// The name that a tensor has in a [`Gpt`], and whether it is a matrix that GPT-2 stores as `[in, out]`. `None` for the
/// causal masks, which some files hold.
fn renamed(key: &str) -> Option<(String, bool)> {
    let key = key.strip_prefix("transformer.").unwrap_or(key);
    let masks = key.ends_with(".attn.bias") || key.ends_with(".attn.masked_bias");
    let name = key.replace(".attn.", ".").replace(".mlp.c_fc.", ".c_fc.").replace(".mlp.c_proj.", ".c_out.");
    let transposed = name != key && key.ends_with(".weight");
    (!masks).then_some((name, transposed))
}

impl Gpt {
    /// Sets the weights from a state dict with the names of the published GPT-2 (`wte.weight`, `h.0.attn.c_attn.weight`, ...,
    /// with or without `transformer.` before them), whose matrices are transposed. Without `lm_head.weight` the head gets
    /// the token embeddings, as GPT-2 has it.
    ///
    /// # Errors
    /// As of [`Module::load_state_dict`] with `strict`, with the names of this model. Then nothing is changed.
    ///
    /// ```
    /// use tapegrad_nn::{Module, StateDict, models::{Gpt, GptConfig}};
    /// let model = Gpt::new(GptConfig { vocab: 10, block: 8, layers: 1, heads: 2, embd: 12 });
    /// let other = StateDict::from_iter([("wte.weight".to_string(), model.state_dict().get("wte.weight").unwrap().clone())]);
    /// assert!(model.load_gpt2(&other).unwrap_err().missing.contains(&"h.0.c_attn.weight".to_string()));
    /// ```
    pub fn load_gpt2(&self, state: &StateDict) -> Result<IncompatibleKeys, StateDictError> {
        let mut own = StateDict::new();
        for (key, t) in state.iter() {
            if let Some((name, transposed)) = renamed(key) {
                let t = if transposed && t.ndim() == 2 { t.transpose(0, 1) } else { t.clone() };
                own.insert(name, t);
            }
        }
        if let (None, Some(tokens)) = (own.get("lm_head.weight"), own.get("wte.weight")) {
            own.insert("lm_head.weight", tokens.clone());
        }
        self.load_state_dict(&own)
    }

    /// This model with the token embeddings as the weight of its head, one parameter for both, as GPT-2 is trained.
    ///
    /// ```
    /// use tapegrad_nn::{Module, models::{Gpt, GptConfig}};
    /// let config = GptConfig { vocab: 10, block: 8, layers: 1, heads: 2, embd: 12 };
    /// let (two, one) = (Gpt::new(config), Gpt::new(config).tie_weights());
    /// assert_eq!(two.num_parameters() - one.num_parameters(), 120);
    /// ```
    pub fn tie_weights(mut self) -> Gpt {
        self.lm_head.weight = self.wte.weight.clone();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapegrad_tape::{DType, Tensor};

    #[test]
    fn published_names() {
        let name = |key: &str| renamed(key).map(|(name, transposed)| format!("{name} {transposed}"));
        for (key, want) in [
            ("wte.weight", "wte.weight false"),
            ("transformer.h.3.ln_1.weight", "h.3.ln_1.weight false"),
            ("h.0.attn.c_attn.weight", "h.0.c_attn.weight true"),
            ("h.0.attn.c_attn.bias", "h.0.c_attn.bias false"),
            ("h.0.attn.c_proj.weight", "h.0.c_proj.weight true"),
            ("h.11.mlp.c_fc.weight", "h.11.c_fc.weight true"),
            ("h.11.mlp.c_proj.bias", "h.11.c_out.bias false"),
            ("lm_head.weight", "lm_head.weight false"),
        ] {
            assert_eq!(name(key).as_deref(), Some(want), "{key}");
        }
        assert_eq!(name("h.0.attn.bias").or(name("transformer.h.0.attn.masked_bias")), None);
    }

    #[test]
    fn sizes_from_shapes() {
        let zeros = |shape: &[usize]| Tensor::zeros_with(shape, DType::F32);
        let mut state = StateDict::new();
        state.insert("transformer.wte.weight", zeros(&[50, 128]));
        state.insert("transformer.wpe.weight", zeros(&[16, 128]));
        assert_eq!(GptConfig::of_gpt2(&state), None, "no layers");
        for i in 0..3 {
            state.insert(format!("transformer.h.{i}.ln_1.weight"), zeros(&[128]));
        }
        let want = GptConfig { vocab: 50, block: 16, layers: 3, heads: 2, embd: 128 };
        assert_eq!(GptConfig::of_gpt2(&state), Some(want));
        state.insert("transformer.wte.weight", zeros(&[50]));
        assert_eq!(GptConfig::of_gpt2(&state), None, "another shape");
    }
}
