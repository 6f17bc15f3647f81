//! The numbers of the coursework programs that have one right answer.

use tapegrad::nn::models::{LeNet5, ResNet, Vgg};
use tapegrad::prelude::*;

#[path = "../examples/conv1d/naive.rs"]
mod conv1d;
#[path = "../examples/descent/paths.rs"]
#[allow(dead_code)]
mod descent;

#[path = "../examples/logic_gates/gates.rs"]
#[allow(dead_code)]
mod logic_gates;

#[path = "../examples/modular_networks/measures.rs"]
mod measures;

#[track_caller]
fn close(got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance, "{got} is not {want}: off by {:e}", (got - want).abs());
}

/// `w_1` to `w_167` in plain numbers, with a gradient derived by hand.
fn recurrence(gradient: fn(f64) -> f64, w_1: f64, dw_1: f64) -> Vec<f64> {
    let (mut path, mut dw) = (vec![w_1], dw_1);
    for k in 1..167 {
        let w = path[k - 1];
        dw = 0.9 * dw - 0.1 * gradient(w);
        path.push(w + dw);
    }
    path
}

#[test]
fn momentum_takes_the_steps_of_the_recurrence() {
    let relu = |w: f64| if w > 0.0 { (0.5 * w - 1.0) * 0.5 } else { 0.0 };
    let sigmoid = |w: f64| (1.0 / (1.0 + (0.5 * w).exp()) - 1.0) * -0.5;
    let cases: [(fn(&Var) -> Var, fn(f64) -> f64, f64, f64); 2] = [
        (descent::relu_loss, relu, 1.0, 2.0000203818374),
        (descent::sigmoid_loss, sigmoid, 0.0, -7.5548101393106),
    ];
    for (loss, gradient, w_1, w_167) in cases {
        let path = descent::momentum(loss, w_1, 0.5, 167);
        let want = recurrence(gradient, w_1, 0.5);
        assert_eq!(path.len(), 167);
        path.iter().zip(&want).for_each(|(got, want)| close(*got, *want, 1e-9));
        close(path[166], w_167, 1e-9);
    }
}

#[test]
fn the_steps_on_gelu() {
    let slope = |x: f64| {
        let s = 1.0 / (1.0 + (-1.702 * x).exp());
        s + 1.702 * x * s * (1.0 - s)
    };
    for (x_0, rate) in [(0.0, 0.1), (0.0, 1.0), (-3.0, 0.1), (-3.0, 1.0)] {
        let (plain, averaged) =
            (descent::descend(descent::gelu, x_0, rate, 3), descent::averaged(descent::gelu, x_0, rate, 3));
        let (mut x, mut y, mut v) = (x_0, x_0, slope(x_0));
        for t in 0..4 {
            close(plain[t], x, 1e-12);
            close(averaged[t], y, 1e-12);
            v = 0.9 * v + 0.1 * slope(y);
            (x, y) = (x - rate * slope(x), y - rate * v);
        }
    }
    close(descent::descend(descent::gelu, 0.0, 1.0, 1)[1], -0.5, 0.0);
    close(slope(descent::descend(descent::gelu, 0.0, 1.0, 300)[300]), 0.0, 1e-12);
}

/// PyTorch counts the parameters of the same models as these numbers.
#[test]
fn the_models_have_as_many_parameters_as_in_pytorch() {
    assert_eq!(LeNet5::new(10).num_parameters(), 61_706);
    assert_eq!(Vgg::vgg11(10).num_parameters(), 9_231_114);
    assert_eq!(ResNet::resnet18(10).num_parameters(), 11_173_962);
}

#[test]
fn the_exact_gates_have_their_truth_tables() {
    for gate in logic_gates::GATES {
        assert_eq!(gate.exact().decide(&gate.inputs()), gate.truth, "{}", gate.name);
    }
    let parameters = logic_gates::GATES.map(|gate| gate.exact().num_parameters());
    assert_eq!(parameters, [2, 3, 3, 9, 9, 7]);
}

#[test]
fn training_finds_the_gates_but_not_xor_in_one_unit() {
    manual_seed(0);
    for gate in logic_gates::GATES {
        let found = (0..20).any(|_| gate.train(400).0.decide(&gate.inputs()) == gate.truth);
        assert!(found, "{}", gate.name);
    }
    // The loss is convex, and the best that one unit can do is to output 1/2 for everything.
    let (_, losses) = logic_gates::ONE_UNIT.train(1000);
    close(losses[999], 2f64.ln(), 1e-4);
}

#[test]
fn conv1d_is_what_its_definition_says() {
    let mut generator = Generator::manual_seed(1);
    for _ in 0..200 {
        let case = conv1d::Case::random(&mut generator);
        let d = case.compare(&mut generator);
        assert!(d.largest() < 1e-12, "{case:?}: {d:?}");
    }
}

#[test]
fn average_pooling_is_a_strided_convolution() {
    let mut generator = Generator::manual_seed(2);
    for (channels, kernel) in [(1, [2, 2]), (3, [3, 1]), (4, [2, 5])] {
        let x = Var::from(generator.normal(&[2, channels, 13, 11], 0.0, 1.0).cast(DType::F64));
        let options = ops::ConvOptions::new().stride(kernel).groups(channels);
        let strided = ops::conv2d_with(&x, &conv1d::averaging_filters(channels, &kernel), None, options);
        let pooled = ops::avg_pool2d(&x, kernel);
        assert_eq!(strided.shape(), pooled.shape());
        strided.to_vec::<f64>().iter().zip(pooled.to_vec::<f64>()).for_each(|(a, b)| close(*a, b, 1e-14));
    }
}

#[test]
fn alexnet_with_and_without_shared_weights() {
    let layer = conv1d::alexnet_layer();
    assert_eq!(layer.num_parameters(), 34_944);
    let y = no_grad(|| layer.forward(&Var::from(Tensor::zeros_with(&[1, 3, 227, 227], DType::F32))));
    assert_eq!(y.shape(), [1, 96, 55, 55]);
    assert_eq!(conv1d::parameters_without_sharing(&layer, y.shape()), 105_705_600);
}

/// The steps of `docs/coursework.md`, whose numbers are those of torchvision.
#[test]
fn anchors_and_their_object() {
    let object = Var::from_vec(vec![12f32, 20., 44., 50.], (1, 4));
    let anchors = ops::detection::anchor_boxes([4, 4], [16, 16], &[24.0, 32.0], &[0.5, 1.0, 2.0]);
    let anchors = ops::detection::clip_boxes_to_image(&anchors, [64, 64]);
    let overlap = ops::detection::box_iou(&anchors, &object).squeeze(1);
    let positive = overlap.ge(0.4).nonzero().squeeze(1).to_vec::<i64>();
    assert_eq!(positive, POSITIVE);
    close(overlap.sum_all().item(), OVERLAP, 1e-4);
    let kept = ops::detection::nms(&anchors, &overlap, 0.3).to_vec::<i64>();
    assert_eq!(kept[..5], KEPT);
}

/// By torchvision: the anchors with an overlap of 0.4, the sum of all overlaps, and the first that remain.
const POSITIVE: [i64; 8] = [55, 60, 61, 62, 63, 64, 65, 89];
const OVERLAP: f64 = 12.812208;
const KEPT: [i64; 5] = [63, 56, 86, 81, 40];

#[test]
#[should_panic = "conv1d: the kernel (with dilation, 9) is larger than the padded input (8) in spatial dimension 0"]
fn a_kernel_that_does_not_fit_is_refused() {
    nn::Conv1d::new(3, 4, 9).padding(1).forward(&Var::from(Tensor::zeros_with(&[8, 3, 6], DType::F32)));
}

/// Modular networks: what has one right answer.
mod modular_networks {
    use super::close;
    use super::measures::{half_squares, layers, relative_errors};
    use tapegrad::nn::models::{ThreeLayerConvNet, mlp};
    use tapegrad::nn::optim::{Adam, SGD};
    use tapegrad::nn::train::{Source, Trainer};
    use tapegrad::prelude::*;

    fn shapes(n: usize) -> (Var, Var) {
        let set = datasets::synthetic::shapes(n, 0);
        let statistics = set.statistics();
        let loader = datasets::ImageLoader::new(set.with_normalization(statistics)).batch_size(n);
        let batch = loader.iter().next().expect("one batch");
        (batch.images.into(), batch.labels.into())
    }

    #[test]
    fn the_first_loss_is_that_of_a_guess_and_l2_adds_half_the_squares() {
        let (x, labels) = shapes(50);
        let nets: [Box<dyn Forward>; 2] = [Box::new(layers(&[100])), Box::new(ThreeLayerConvNet::new(10))];
        for net in nets {
            manual_seed(0);
            for p in net.parameters() {
                if p.ndim() > 1 { nn::init::normal_(&p, 0.0, 1e-3) } else { nn::init::zeros_(&p) }
            }
            let loss = ops::cross_entropy(&net.forward(&x), &labels);
            close(loss.item(), 10f64.ln(), 2e-3);

            net.to_dtype(DType::F64);
            let weights = || net.parameters().into_iter().filter(|p| p.ndim() > 1);
            let sum: f64 = weights().flat_map(|w| w.to_vec::<f64>()).map(|w| 0.5 * w * w).sum();
            let term = half_squares(&*net);
            close(term.item(), sum, 1e-9 * sum);
            net.zero_grad();
            (&term * 0.3).backward();
            for w in weights() {
                let gradient = w.grad().expect("of every weight").to_vec::<f64>();
                gradient.iter().zip(w.to_vec::<f64>()).for_each(|(g, w)| close(*g, 0.3 * w, 1e-15));
            }
        }
    }

    #[test]
    fn l2_in_the_loss_is_weight_decay_in_the_optimizer() {
        let step = |in_the_loss: bool| {
            manual_seed(4);
            let net = nn::sequential![nn::Linear::new(5, 4).bias(false), nn::Linear::new(4, 3).bias(false)];
            net.to_dtype(DType::F64);
            let mut sgd = SGD::new(net.parameters(), 0.1);
            if !in_the_loss {
                sgd = sgd.weight_decay(0.7);
            }
            let x = Var::from(Tensor::ones_with(&[2, 5], DType::F64));
            for _ in 0..3 {
                sgd.zero_grad();
                let target = Var::from_vec(vec![0i64, 2], &[2]);
                let mut loss = ops::cross_entropy(&net.forward(&x), &target);
                if in_the_loss {
                    loss = loss + half_squares(&net) * 0.7;
                }
                loss.backward();
                sgd.step();
            }
            net.parameters().iter().flat_map(|p| p.to_vec::<f64>()).collect::<Vec<f64>>()
        };
        step(true).iter().zip(step(false)).for_each(|(a, b)| close(*a, b, 1e-14));
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let convnet = ThreeLayerConvNet::with_sizes(3, 7, 10);
        let flat = mlp(&[15, 20, 30, 10]);
        for (model, shape, strength) in [
            (&flat as &dyn Forward, &[2, 15][..], 0.0),
            (&flat, &[2, 15], 3.0),
            (&convnet, &[2, 3, 32, 32], 0.1),
        ] {
            model.to_dtype(DType::F64);
            let mut random = Generator::manual_seed(2);
            let x = Var::from(random.normal(shape, 0.0, 1.0)).cast(DType::F64);
            let labels = Var::from_vec(vec![3i64, 7], &[2]);
            let loss = || ops::cross_entropy(&model.forward(&x), &labels) + strength * half_squares(model);
            for (name, error, _) in relative_errors(model, loss, &mut random) {
                assert!(error < 1e-6, "{name}: {error:e}");
            }
        }
    }

    #[test]
    fn fifty_images_are_learned_by_heart_in_twenty_epochs() {
        let (x, labels) = shapes(50);
        for hidden in [[100; 2].as_slice(), &[100; 4]] {
            manual_seed(0);
            let net = layers(hidden);
            let batches = || (0..5).map(|i| (x.narrow(0, i * 10, 10), labels.narrow(0, i * 10, 10)));
            let mut trainer = Trainer::new(&net, Adam::new(net.parameters(), 1e-3)).epochs(20);
            trainer.fit(Source::new(batches), None).expect("no files");
            let wrong =
                nn::train::evaluate(&net, [(x.clone(), labels.clone())], |y, t| ops::cross_entropy(y, t))
                    .wrong();
            assert_eq!(wrong, 0, "{hidden:?}");
        }
    }
}
