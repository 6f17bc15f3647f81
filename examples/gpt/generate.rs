//! Text from a model, one token after the other.

use tapegrad::nn::models::{Gpt, KeyValues};
use tapegrad::prelude::*;

/// How a token is drawn from its logits.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Sampling {
    /// Divides the logits: below 1 likely tokens become more likely; 0 always takes the likeliest
    #[arg(long, default_value_t = 0.8, value_parser = not_negative)]
    pub(crate) temperature: f64,
    /// Draw from so many of the likeliest tokens only
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) top_k: Option<u64>,
    /// Draw from the likeliest tokens that together have this probability
    #[arg(long, value_parser = share)]
    pub(crate) top_p: Option<f64>,
}

fn not_negative(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0);
    number.ok_or_else(|| "must be finite and at least 0".into())
}

fn share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|x: &f64| *x > 0.0 && *x <= 1.0)
        .ok_or_else(|| "must be above 0 and at most 1".into())
}

impl Sampling {
    /// The index of a token.
    fn pick(&self, logits: &[f64], generator: &mut Generator) -> usize {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        if self.temperature == 0.0 {
            return order[0];
        }
        let k = self.top_k.map_or(usize::MAX, |k| k as usize);
        order.truncate(k);
        let weights: Vec<f64> =
            order.iter().map(|&i| ((logits[i] - logits[order[0]]) / self.temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        // The fewest tokens that reach the share; the first one always counts.
        let mut kept = 0.0;
        let count = weights.iter().take_while(|&&w| {
            let more = kept < self.top_p.unwrap_or(1.0) * total;
            kept += w;
            more
        });
        let weights = &weights[..count.count().max(1)];
        let mut rest = generator.next_f64() * weights.iter().sum::<f64>();
        for (&i, w) in order.iter().zip(weights) {
            rest -= w;
            if rest < 0.0 {
                return i;
            }
        }
        order[weights.len() - 1]
    }
}

/// Continues a text by `count` tokens. The keys and values of the tokens so far are kept: each step computes one token.
/// Where the longest sequence ends, it starts again from its second half.
pub(crate) fn generate(
    model: &Gpt,
    prompt: &[i64],
    count: usize,
    sampling: Sampling,
    generator: &mut Generator,
) -> Vec<i64> {
    let block = model.block();
    let mut tokens = prompt.to_vec();
    let mut past: Vec<KeyValues> = Vec::new();
    no_grad(|| {
        for _ in 0..count {
            let known = past.first().map_or(0, KeyValues::len);
            let new = if known == 0 || known == block {
                past.clear();
                let keep = if known == 0 { block } else { block.div_ceil(2) };
                &tokens[tokens.len().saturating_sub(keep)..]
            } else {
                &tokens[tokens.len() - 1..]
            };
            let logits = model.next(&Var::from_vec(new.to_vec(), (1, new.len())), &mut past);
            let last = logits.select(1, -1).to_vec::<f64>();
            tokens.push(sampling.pick(&last, generator) as i64);
        }
    });
    tokens
}
