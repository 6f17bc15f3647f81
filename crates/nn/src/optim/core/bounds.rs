//! The ranges of options: PyTorch's, without infinities, with which no optimizer could step.

/// Checks the values of an option against its range.
pub(crate) fn check_option(optimizer: &str, name: &str, numbers: &[f64]) -> Result<(), String> {
    let (fits, range): (fn(&[f64]) -> bool, &str) = match name {
        "lr"
        | "eps"
        | "weight_decay"
        | "momentum"
        | "lr_decay"
        | "initial_accumulator_value"
        | "lambd"
        | "alpha"
        | "momentum_decay" => (|v| v.iter().all(|x| *x >= 0.0 && x.is_finite()), "finite and at least 0"),
        "betas" => (|v| v.iter().all(|x| (0.0..1.0).contains(x)), "in [0, 1)"),
        "rho" => (|v| v.iter().all(|x| (0.0..=1.0).contains(x)), "in [0, 1]"),
        "etas" => (
            |v| 0.0 < v[0] && v[0] < 1.0 && 1.0 < v[1] && v[1].is_finite(),
            "in (0, 1) and above 1, respectively",
        ),
        "step_sizes" => (|v| 0.0 <= v[0] && v[0] <= v[1], "two values of at least 0, the smaller one first"),
        "beta2_decay" => (|v| v[0] <= 0.0 && v[0].is_finite(), "finite and at most 0"),
        "d" => (|v| v[0] >= 1.0, "at least 1"),
        "ns_steps" => (|v| v[0] < 100.0, "below 100"),
        // All other options may be any number but NaN.
        _ => (|v| !v.iter().any(|x| x.is_nan()), "a number"),
    };
    if fits(numbers) {
        return Ok(());
    }
    let given = match numbers {
        [one] => one.to_string(),
        several => format!("{several:?}"),
    };
    Err(format!("{optimizer}: {name} is {given}, but must be {range}"))
}

#[cfg(test)]
mod tests {
    use crate::optim::*;
    use tapegrad_tape::{DType, Tensor, Var};

    fn w() -> [Var; 1] {
        [Var::parameter(Tensor::ones_with(&[2, 2], DType::F32))]
    }

    fn refused(make: impl FnOnce(), message: &str) {
        let error = std::panic::catch_unwind(std::panic::AssertUnwindSafe(make)).unwrap_err();
        let text = error.downcast::<String>().expect("a message");
        assert!(text.contains(message), "{text}");
    }

    /// What PyTorch 2.15 answers with a ValueError, and rates that are not finite.
    #[test]
    fn ranges_are_those_of_pytorch() {
        for lr in [-1.0, f64::NAN, f64::INFINITY] {
            let named = |name: &str| format!("{name}: lr is {lr}, but must be finite and at least 0");
            refused(|| drop(SGD::new(w(), lr)), &named("SGD"));
            refused(|| drop(Adam::new(w(), lr)), &named("Adam"));
            refused(|| drop(AdamW::new(w(), lr)), &named("AdamW"));
            refused(|| drop(Adamax::new(w(), lr)), &named("Adamax"));
            refused(|| drop(NAdam::new(w(), lr)), &named("NAdam"));
            refused(|| drop(RAdam::new(w(), lr)), &named("RAdam"));
            refused(|| drop(Adadelta::new(w(), lr)), &named("Adadelta"));
            refused(|| drop(Adagrad::new(w(), lr)), &named("Adagrad"));
            refused(|| drop(RMSprop::new(w(), lr)), &named("RMSprop"));
            refused(|| drop(Rprop::new(w(), lr)), &named("Rprop"));
            refused(|| drop(ASGD::new(w(), lr)), &named("ASGD"));
            refused(|| drop(Muon::new(w(), lr)), &named("Muon"));
            refused(|| drop(LBFGS::new(w(), lr)), &named("LBFGS"));
        }
        refused(
            || drop(SGD::new(w(), 0.1).momentum(-1.0)),
            "SGD: momentum is -1, but must be finite and at least 0",
        );
        refused(|| drop(SGD::new(w(), 0.1).weight_decay(-1.0)), "SGD: weight_decay is -1");
        refused(|| drop(SGD::new(w(), 0.1).dampening(f64::NAN)), "SGD: dampening is NaN");
        refused(
            || drop(Adam::new(w(), 0.1).betas((0.9, 1.0))),
            "Adam: betas is [0.9, 1.0], but must be in [0, 1)",
        );
        refused(|| drop(Adam::new(w(), 0.1).betas((-0.1, 0.9))), "Adam: betas is [-0.1, 0.9]");
        refused(|| drop(Adam::new(w(), 0.1).eps(-1e-8)), "Adam: eps is");
        refused(|| drop(NAdam::new(w(), 0.1).momentum_decay(-1.0)), "NAdam: momentum_decay is -1");
        refused(|| drop(Adadelta::new(w(), 0.1).rho(1.5)), "Adadelta: rho is 1.5, but must be in [0, 1]");
        refused(|| drop(Adagrad::new(w(), 0.1).lr_decay(-1.0)), "Adagrad: lr_decay is -1");
        refused(
            || drop(Adagrad::new(w(), 0.1).initial_accumulator_value(-1.0)),
            "Adagrad: initial_accumulator_value",
        );
        refused(|| drop(RMSprop::new(w(), 0.1).alpha(-1.0)), "RMSprop: alpha is -1");
        refused(|| drop(RMSprop::new(w(), 0.1).momentum(-1.0)), "RMSprop: momentum is -1");
        refused(
            || drop(Rprop::new(w(), 0.1).etas((1.2, 0.5))),
            "Rprop: etas is [1.2, 0.5], but must be in (0, 1) and above 1",
        );
        refused(|| drop(Rprop::new(w(), 0.1).step_sizes((2.0, 1.0))), "Rprop: step_sizes is [2.0, 1.0]");
        refused(|| drop(ASGD::new(w(), 0.1).lambd(-1.0)), "ASGD: lambd is -1");
        refused(|| drop(Adafactor::new(w(), 0.1).beta2_decay(0.1)), "Adafactor: beta2_decay is 0.1");
        refused(|| drop(Adafactor::new(w(), 0.1).d(0.5)), "Adafactor: d is 0.5, but must be at least 1");
        refused(|| drop(Adafactor::new(w(), 0.1).eps((Some(-1.0), 0.0))), "Adafactor: eps is [-1.0, 0.0]");
        refused(|| drop(Lion::new(w(), 0.1).betas((0.9, 1.0))), "Lion: betas is [0.9, 1.0]");
        refused(|| drop(Muon::new(w(), 0.1).ns_steps(100)), "Muon: ns_steps is 100, but must be below 100");
        let group = SGDOptions { momentum: f64::NAN, ..Default::default() };
        refused(|| drop(SGD::new(w(), 0.1).group(w(), group)), "SGD: momentum is NaN");
        let w = w();
        refused(
            || drop(SGD::new(w.clone(), 0.1).group(w.clone(), Default::default())),
            "SGD: a parameter of shape [2, 2] is in more than one group",
        );
        // Zero is in every range that has no lower bound above it.
        drop(SGD::new(w.clone(), 0.0).momentum(0.0));
        drop(Adam::new(w, 0.0).betas((0.0, 0.0)).eps(0.0));
    }

    #[test]
    fn a_type_that_cannot_be_stepped_is_refused_when_the_optimizer_is_made() {
        let w = [Var::buffer(Tensor::ones_with(&[3], DType::I64))];
        let message = "parameter 0 of shape [3] is int64; optimizers step floating-point types";
        refused(|| drop(SGD::new(w.clone(), 0.1)), &format!("SGD: {message}"));
        let w = [Var::parameter(Tensor::ones_with(&[3], DType::BF16))];
        let message = "LBFGS: parameter 0 of shape [3] is bfloat16; LBFGS steps float32 and float64";
        refused(|| drop(LBFGS::new(w.clone(), 0.1)), message);
    }

    #[test]
    fn a_saved_option_outside_its_range_is_refused_and_nothing_is_changed() {
        let mut sgd = SGD::new(w(), 0.1);
        let mut state = sgd.state_dict();
        state.insert("group.0.lr", Tensor::from_vec(vec![f64::NAN], &[1]));
        let error = sgd.load_state_dict(&state).unwrap_err();
        assert_eq!(error.key, "group.0.lr");
        assert_eq!(sgd.lr(0), 0.1);
    }

    #[test]
    fn nesterov_without_momentum_changes_no_group() {
        let [a, b] = [w(), w()];
        let mut sgd = SGD::new(a.clone(), 0.1).group(b, SGDOptions { nesterov: true, ..Default::default() });
        a[0].set_grad(Some(Var::from(Tensor::ones_with(&[2, 2], DType::F32))));
        refused(|| sgd.step(), "SGD: Nesterov momentum requires a momentum and zero dampening");
        assert_eq!(a[0].to_vec::<f32>(), [1.0; 4]);
    }
}
