//! Attention in F32 takes memory that is linear in the lengths. Alone in its process, since the pool's counters are
//! those of the whole program.

use tapegrad_ops::{AttentionOptions, scaled_dot_product_attention_with};
use tapegrad_tape::{Tensor, Var, pool_stats};

/// Bytes that the pool hands out for a forward and a backward pass of one head.
fn bytes(l: usize, options: AttentionOptions) -> usize {
    let inputs = [3, 5, 7].map(|by| {
        let values = (0..l * 16).map(|i| (i * by % 11) as f32 / 11.0).collect();
        Var::parameter(Tensor::from_vec(values, &[l, 16]))
    });
    let before = pool_stats().allocated_bytes;
    let y = scaled_dot_product_attention_with(&inputs[0], &inputs[1], &inputs[2], options);
    y.sum_all().backward();
    assert!(inputs.iter().all(|x| x.grad().is_some_and(|g| g.to_vec::<f32>().iter().all(|g| g.is_finite()))));
    pool_stats().allocated_bytes - before
}

#[test]
fn memory_is_linear() {
    for l in [128, 512, 2048, 8192] {
        for is_causal in [false, true] {
            let used = bytes(l, AttentionOptions::new().is_causal(is_causal).dropout_p(0.1));
            // The result and four gradients of 16 numbers for each query, and what is rounded up.
            assert!(used <= 8 * 16 * 4 * l, "{l} queries take {used} bytes");
        }
        let padding = Var::from_vec((0..l).map(|i| i < l / 2).collect::<Vec<bool>>(), &[1, l]);
        let used = bytes(l, AttentionOptions::new().attn_mask(&padding));
        assert!(used <= 8 * 16 * 4 * l, "{l} queries with a mask take {used} bytes");
    }
}
