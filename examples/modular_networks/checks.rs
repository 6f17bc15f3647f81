//! Checks before a long training run.

use crate::Course;
use crate::common::fit::{accuracy, by_epoch, training};
use crate::common::{or_fail, or_warn};
use crate::measures::{half_squares, layers, relative_errors};
use tapegrad::datasets::ImageLoader;
use tapegrad::nn::models::{ThreeLayerConvNet, mlp};
use tapegrad::nn::optim::Adam;
use tapegrad::nn::plots::{Corner, Panel, panels};
use tapegrad::nn::train::Trainer;
use tapegrad::prelude::*;
use tapegrad::source;

/// With small weights every class is as likely as the others: the loss is ln 10.
pub(crate) fn loss(course: &Course) {
    let (train, _) = course.images();
    let batch = ImageLoader::new(train.clone().take(50)).batch_size(50).iter().next().expect("50 images");
    let (x, labels) = (Var::from(batch.images), Var::from(batch.labels));
    let nets: [(&str, Box<dyn Forward>); 2] = [
        ("fully connected, 3072-100-10", Box::new(layers(&[100]))),
        ("three-layer convnet", Box::new(ThreeLayerConvNet::new(10))),
    ];
    println!("ln 10 = {:.6}", 10f64.ln());
    for (name, net) in &nets {
        for p in net.parameters() {
            if p.ndim() > 1 { nn::init::normal_(&p, 0.0, 1e-3) } else { nn::init::zeros_(&p) }
        }
        println!("{name}\n   strength       loss  above the first");
        let data = no_grad(|| ops::cross_entropy(&net.forward(&x), &labels));
        for strength in [0.0, 0.1, 1.0, 10.0] {
            let all = no_grad(|| &data + strength * half_squares(&**net));
            println!("{strength:>11} {:>10.6} {:>16.6}", all.item(), all.item() - data.item());
        }
    }
}

/// The gradient of each parameter against central differences, in F64.
pub(crate) fn gradients(course: &Course) {
    let small = mlp(&[15, 20, 30, 10]);
    let convnet = ThreeLayerConvNet::with_sizes(3, 7, 10);
    let mut random = Generator::manual_seed(course.common.seed);
    let x = Var::from(random.normal(&[2, 15], 0.0, 1.0)).cast(DType::F64);
    let images = Var::from(random.normal(&[2, 3, 32, 32], 0.0, 1.0)).cast(DType::F64);
    println!("relative error: largest difference over the largest gradient of the parameter");
    for (name, model, x, strength) in [
        ("fully connected, 15-20-30-10", &small as &dyn Forward, &x, 0.0),
        ("the same with L2 regularization", &small, &x, 3.0),
        ("three-layer convnet", &convnet, &images, 0.1),
    ] {
        println!("{name}");
        model.to_dtype(DType::F64);
        let labels = Var::from_vec(vec![3i64, 7], 2);
        let loss = || ops::cross_entropy(&model.forward(x), &labels) + strength * half_squares(model);
        for (name, error, kinks) in relative_errors(model, loss, &mut random) {
            assert!(error < 1e-6, "{name}: {error:e}");
            let left_out = if kinks > 0 { format!("  ({kinks} at a kink left out)") } else { String::new() };
            println!("  {name:<14} {error:.1e}{left_out}");
        }
    }
}

/// A network that cannot overfit 50 images has a bug.
pub(crate) fn overfit(course: &Course) {
    let fifty = course.images().0.clone().take(50);
    let loader = ImageLoader::new(fifty.clone()).batch_size(10).shuffle(true).seed(course.common.seed);
    let (mut losses, mut accuracies) = (vec![], vec![]);
    for (name, hidden) in [("three layers", vec![100; 2]), ("five layers", vec![100; 4])] {
        let net = layers(&hidden);
        let mut trainer = Trainer::new(&net, Adam::new(net.parameters(), 1e-3)).epochs(20);
        let history = or_fail(trainer.fit(source(&loader), None));
        let whole = history.iter().find(|r| r.train.wrong() == 0);
        println!(
            "{name:<13} {:.0}% of 50 after 20 epochs{}",
            100.0 * accuracy(&net, fifty.clone()),
            whole.map_or(String::new(), |r| format!(", first perfect in epoch {}", r.epoch))
        );
        losses.push(by_epoch(name, &history, |r| r.train.loss()));
        accuracies.push(by_epoch(name, &history, training));
    }
    let charts = [
        Panel::new("Loss on 50 images", "epoch", "cross-entropy", losses).log(),
        Panel::new("Accuracy on 50 images", "epoch", "accuracy, %", accuracies).legend(Corner::LowerRight),
    ];
    or_warn(panels(&course.common.file("overfit.png"), &charts));
}
