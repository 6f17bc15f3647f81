//! The smallest networks for NOT, AND, OR, XOR and XNOR, with exact weights and by training.
//!
//! ```text
//! cargo run --release --example logic_gates
//! ```

#[path = "../common/mod.rs"]
#[macro_use]
mod common;
mod gates;

use common::course::{Common, headline};
use common::or_warn;
use gates::{GATES, Gate, Network, ONE_UNIT};
use tapegrad::nn::Linear;
use tapegrad::nn::plots::{Corner, Panel, Series, panels};
use tapegrad::prelude::*;

fn main() {
    let common = Common::start("logic_gates", "The smallest networks for NOT, AND, OR, XOR and XNOR");
    headline("Exact weights: a unit is 1 where its sum is above zero");
    let exact = GATES.map(|gate| gate.exact());
    GATES.iter().zip(&exact).for_each(|(gate, network)| show(gate, network));
    draw(&common, "exact.png", &exact, |network, x| network.decide(x));

    headline("The same networks found by training: sigmoid units, cross-entropy, Adam");
    let steps = common.either(2000, 500);
    let starts = common.either(40, 10);
    let mut trained = Vec::new();
    let mut curves = Vec::new();
    for gate in GATES {
        // A hidden layer may end in a local minimum: keep the best of several starts.
        let mut runs: Vec<_> = (0..starts).map(|_| gate.train(steps)).collect();
        let solved = runs.iter().filter(|(n, _)| n.decide(&gate.inputs()) == gate.truth).count();
        runs.sort_by(|a, b| a.1[steps - 1].total_cmp(&b.1[steps - 1]));
        let (network, losses) = runs.swap_remove(0);
        println!("{solved} of {starts} starts find {}; the best of them:", gate.name);
        show(&gate, &network);
        curves.push(Series::new(gate.name, points(&losses)));
        trained.push(network);
    }
    let probability = |network: &Network, x: &Var| no_grad(|| network.forward(x).sigmoid()).to_vec();
    draw(&common, "trained.png", &trained, probability);

    headline("Why XOR needs more than one unit");
    let (network, losses) = ONE_UNIT.train(steps);
    show(&ONE_UNIT, &network);
    let (end, guess) = (losses[steps - 1], 2f64.ln());
    println!("Its loss ends at {end:.4}; a unit that outputs 1/2 for everything has ln 2 = {guess:.4}.");
    curves.push(Series::new(ONE_UNIT.name, points(&losses)));
    let title = format!("The best of {starts} starts; one unit: the only start");
    let panel = Panel::new(title, "step", "cross-entropy", curves).log().legend(Corner::MiddleRight);
    or_warn(panels(&common.file("losses.png"), &[panel]));
    println!("\nimages: {}", common.file("").display());
}

fn points(losses: &[f64]) -> Vec<(f64, f64)> {
    (1..).map(f64::from).zip(losses.iter().copied()).collect()
}

/// Prints the units of a network and its truth table.
fn show(gate: &Gate, network: &Network) {
    let inputs: Vec<String> = (1..=gate.inputs().size(1)).map(|i| format!("x{i}")).collect();
    let mut seen = inputs.clone();
    println!("{} ({} parameters)", gate.name, network.num_parameters());
    if let Some(hidden) = &network.hidden {
        let units: Vec<String> = (1..=hidden.weight.size(0)).map(|i| format!("h{i}")).collect();
        print_units(hidden, &units, &inputs);
        // The output receives the inputs only if it has weights for them.
        if network.output.weight.size(1) == units.len() {
            seen.clear();
        }
        seen.extend(units);
    }
    print_units(&network.output, &["y".into()], &seen);
    let x = gate.inputs().to_vec::<f32>();
    let row = |(x, y): (&[f32], f32)| format!("{} -> {y}", x.iter().map(f32::to_string).collect::<String>());
    let table: Vec<String> = x.chunks(inputs.len()).zip(network.decide(&gate.inputs())).map(row).collect();
    let verdict = if network.decide(&gate.inputs()) == gate.truth { "right" } else { "WRONG" };
    println!("    {}   {verdict}", table.join(", "));
}

/// A line for each unit, as `h1 = f(1.00 x1 + 1.00 x2 - 0.50)`.
fn print_units(layer: &Linear, names: &[String], inputs: &[String]) {
    let weights = layer.weight.to_vec::<f32>();
    let bias = layer.bias.as_ref().map_or_else(|| vec![0.0; names.len()], |b| b.to_vec::<f32>());
    for ((name, row), bias) in names.iter().zip(weights.chunks(inputs.len())).zip(bias) {
        let mut sum = String::new();
        for (w, x) in row.iter().zip(inputs) {
            let sign = if *w < 0.0 { "-" } else { "+" };
            sum += &format!("{sign} {:.2} {x} ", w.abs());
        }
        let sign = if bias < 0.0 { "-" } else { "+" };
        println!("    {name} = f({} {sign} {:.2})", sum.trim_start_matches("+ ").trim_end(), bias.abs());
    }
}

/// The regions in which each network outputs 0 and 1, with the truth table.
fn draw(common: &Common, file: &str, networks: &[Network], f: impl Fn(&Network, &Var) -> Vec<f32>) {
    let side = common.either(140, 70);
    let range = (-0.5, 1.5);
    let panel = |(gate, network): (&Gate, &Network)| {
        let x = gate.inputs().to_vec::<f32>();
        if gate.truth.len() == 2 {
            let xs: Vec<f32> = (0..=400).map(|i| -0.5 + i as f32 / 200.0).collect();
            let ys = f(network, &Var::from_vec(xs.clone(), (xs.len(), 1)));
            let number = |(x, y): (&f32, &f32)| (f64::from(*x), f64::from(*y));
            let series = vec![
                Series::new("output", xs.iter().zip(&ys).map(number)),
                Series::new("truth table", x.iter().zip(gate.truth).map(number)).dots().color(3),
            ];
            return Panel::new(gate.name, "x1", "y", series).window(range, (-0.2, 1.2));
        }
        let corners = |truth: f32| {
            let of =
                move |(p, t): (&[f32], &f32)| (*t == truth).then_some((f64::from(p[0]), f64::from(p[1])));
            x.chunks(2).zip(gate.truth).filter_map(of).collect::<Vec<_>>()
        };
        let series = vec![
            Series::new("0", corners(0.0)).rings().color(3),
            Series::new("1", corners(1.0)).dots().color(0),
        ];
        Panel::new(gate.name, "x1", "x2", series).regions(range, range, side, |cells| {
            let flat = cells.iter().flat_map(|p| [p.0 as f32, p.1 as f32]).collect();
            f(network, &Var::from_vec(flat, (cells.len(), 2))).into_iter().map(f64::from).collect()
        })
    };
    let all: Vec<Panel> = GATES.iter().zip(networks).map(panel).collect();
    or_warn(panels(&common.file(file), &all));
}
