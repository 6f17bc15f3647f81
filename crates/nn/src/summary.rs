//! A model as a table, and hooks on the forward passes of its layers.

use crate::fields::{Item, Module, walk};
use crate::hooks::{self, Pass};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use tapegrad_tape::{DType, Tensor, Var};

type Hook = Rc<dyn Fn(&dyn Module, &Var, &Var)>;

thread_local! {
    static HOOKED: Cell<bool> = const { Cell::new(false) };
    static HOOKS: RefCell<Vec<Hook>> = const { RefCell::new(Vec::new()) };
}

/// True while a hook observes every layer separately.
pub(crate) fn is_observed() -> bool {
    HOOKED.get() || hooks::are_registered()
}

/// Runs a layer's forward computation between its [`Hooks`](crate::Hooks), and shows input and output to the hooks of
/// [`with_forward_hook`].
///
/// The layers of this crate call it; in your own module it makes hooks work, and the module visible in summaries:
///
/// ```
/// use tapegrad_nn::{Forward, Linear, module, observe};
/// use tapegrad_tape::Var;
/// module! {
///     struct Twice { layer: Linear }
/// }
/// impl Forward for Twice {
///     fn forward(&self, x: &Var) -> Var {
///         observe(self, x, |x| self.layer.forward(&self.layer.forward(x)))
///     }
/// }
/// # Twice { layer: Linear::new(2, 2) }.forward(&Var::ones(2));
/// ```
pub fn observe<M: Module>(module: &M, input: &Var, forward: impl FnOnce(&Var) -> Var) -> Var {
    if !is_observed() {
        return forward(input);
    }
    let (pass, input) = Pass::begin(module, input, true);
    let output = forward(&input);
    show(module, pass, &input, output)
}

/// The output of a module of several inputs, of which the first is shown to the hooks.
pub(crate) fn observe_output<M: Module>(module: &M, input: &Var, output: Var) -> Var {
    if !is_observed() {
        return output;
    }
    let (pass, input) = Pass::begin(module, input, false);
    show(module, pass, &input, output)
}

#[cold]
fn show(module: &dyn Module, pass: Pass, input: &Var, output: Var) -> Var {
    let output = pass.end(input, output);
    let hooks = HOOKS.with_borrow(Clone::clone);
    hooks.iter().for_each(|hook| hook(module, input, &output));
    output
}

/// Runs `body`, calling `hook(module, input, output)` after the forward pass of each layer on this thread
/// (`torch.nn.modules.module.register_module_forward_hook`).
///
/// ```
/// use tapegrad_nn::{Linear, Forward, with_forward_hook};
/// use std::{cell::RefCell, rc::Rc};
/// use tapegrad_tape::{DType, Tensor, Var};
/// let net = tapegrad_nn::sequential![Linear::new(4, 8), Linear::new(8, 2)];
/// let shapes = Rc::new(RefCell::new(Vec::new()));
/// let seen = shapes.clone();
/// with_forward_hook(
///     move |m, _, y| seen.borrow_mut().push(format!("{} {:?}", m.class(), y.shape())),
///     || net.forward(&Var::from(Tensor::zeros_with(&[1, 4], DType::F32))),
/// );
/// assert_eq!(shapes.borrow()[..2], ["Linear [1, 8]", "Linear [1, 2]"]);
/// ```
pub fn with_forward_hook<R>(hook: impl Fn(&dyn Module, &Var, &Var) + 'static, body: impl FnOnce() -> R) -> R {
    struct Remove;
    impl Drop for Remove {
        fn drop(&mut self) {
            HOOKS.with_borrow_mut(|h| {
                h.pop();
                HOOKED.set(!h.is_empty());
            });
        }
    }
    HOOKS.with_borrow_mut(|h| h.push(Rc::new(hook)));
    HOOKED.set(true);
    let _remove = Remove;
    body()
}

/// One layer of a [`Summary`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryRow {
    /// Its path in the model.
    pub name: String,
    /// Its type.
    pub class: String,
    /// The shape of its output, if its forward pass was seen.
    pub output: Option<Vec<usize>>,
    /// The number of values in its own parameters.
    pub parameters: usize,
}

/// The layers of a model: what [`Forward::summary`](crate::Forward::summary) gives. Its `Display` is a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The model's type.
    pub class: String,
    /// The shape of the input; empty for a model that [`summarize`] ran.
    pub input: Vec<usize>,
    /// The shape of the output.
    pub output: Vec<usize>,
    /// The layers, in the order of declaration.
    pub rows: Vec<SummaryRow>,
    /// The number of values in all parameters, shared ones counted once.
    pub parameters: usize,
    /// The number of trainable ones.
    pub trainable: usize,
}

fn address(module: &dyn Module) -> (*const (), &'static str) {
    (module.address(), module.class())
}

impl Summary {
    /// Of a model with these parameters and modules, whose `forward` runs in evaluation mode.
    pub(crate) fn new(
        class: &str,
        parameters: Vec<Var>,
        modules: Vec<(String, &dyn Module)>,
        input_shape: &[usize],
        forward: &dyn Fn(&Var) -> Var,
    ) -> Summary {
        let dtype = parameters.first().map_or(DType::F32, Var::dtype);
        let x = Var::from(Tensor::zeros_with(input_shape, dtype));
        Summary::of(class, parameters, modules, input_shape.into(), &|| forward(&x))
    }

    fn of(
        class: &str,
        parameters: Vec<Var>,
        modules: Vec<(String, &dyn Module)>,
        input: Vec<usize>,
        forward: &dyn Fn() -> Var,
    ) -> Summary {
        let shapes: Rc<RefCell<HashMap<_, Vec<Vec<usize>>>>> = Rc::default();
        let seen = shapes.clone();
        let hook = move |m: &dyn Module, _: &Var, y: &Var| {
            seen.borrow_mut().entry(address(m)).or_default().push(y.shape().to_vec());
        };
        let y = with_forward_hook(hook, || tapegrad_tape::no_grad(forward));

        let mut shapes = shapes.borrow_mut();
        let rows = modules
            .into_iter()
            .map(|(name, m)| SummaryRow {
                name,
                class: m.class().into(),
                // Modules without fields may share an address: each is matched with the next output.
                output: shapes.get_mut(&address(m)).and_then(|s| match s.len() {
                    0 => None,
                    1 => s.first().cloned(),
                    _ => Some(s.remove(0)),
                }),
                parameters: m.own_parameters().iter().map(|(_, p)| p.numel()).sum(),
            })
            .collect();
        Summary {
            class: class.into(),
            input,
            output: y.shape().into(),
            rows,
            parameters: parameters.iter().map(Var::numel).sum(),
            trainable: parameters.iter().filter(|p| p.requires_grad()).map(Var::numel).sum(),
        }
    }
}

/// A summary of any model: of several inputs, or of inputs that are no zeros. `forward` runs once, in evaluation mode and
/// without recording; it returns the output. [`Forward::summary`](crate::Forward::summary) is shorter for a model of one input.
///
/// ```
/// use tapegrad_nn::{Bilinear, summarize};
/// use tapegrad_tape::{DType, Tensor, Var};
/// let model = Bilinear::new(2, 3, 4);
/// let x = |n: usize| Var::from(Tensor::ones_with(&[8, n], DType::F32));
/// let summary = summarize(&model, || model.forward(&x(2), &x(3)));
/// assert_eq!((summary.output.as_slice(), summary.parameters), (&[8, 4][..], 28));
/// ```
pub fn summarize<M: Module + ?Sized>(model: &M, forward: impl Fn() -> Var) -> Summary {
    let modes = Modes::of(model);
    model.eval();
    let summary = Summary::of(model.class(), model.parameters(), model.named_modules(), Vec::new(), &forward);
    modes.restore(model);
    summary
}

/// The training modes of a model.
pub(crate) struct Modes(Vec<bool>);

impl Modes {
    pub(crate) fn of<M: Module + ?Sized>(model: &M) -> Modes {
        let mut modes = Vec::new();
        walk(model, &mut |_, item| {
            if let Item::Training(t) = item {
                modes.push(t.get());
            }
        });
        Modes(modes)
    }

    pub(crate) fn restore<M: Module + ?Sized>(self, model: &M) {
        let mut modes = self.0.into_iter();
        walk(model, &mut |_, item| {
            if let (Item::Training(t), Some(mode)) = (item, modes.next()) {
                t.set(mode);
            }
        });
    }
}

/// A number with commas between thousands.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["Layer", "Type", "Output shape", "Parameters"].map(String::from);
        let mut table = vec![head];
        for row in &self.rows {
            let output = row.output.as_ref().map_or(String::new(), |s| format!("{s:?}"));
            let count = if row.parameters == 0 { "-".into() } else { grouped(row.parameters) };
            table.push([row.name.clone(), row.class.clone(), output, count]);
        }
        let width = |i: usize| table.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2), width(3)];
        let line = "-".repeat(widths.iter().sum::<usize>() + 6);
        match self.input.as_slice() {
            [] => writeln!(f, "{} -> {:?}", self.class, self.output)?,
            input => writeln!(f, "{} {input:?} -> {:?}", self.class, self.output)?,
        }
        for (i, [name, class, output, count]) in table.iter().enumerate() {
            let [a, b, c, d] = widths;
            writeln!(f, "{name:<a$}  {class:<b$}  {output:<c$}  {count:>d$}")?;
            if i == 0 {
                writeln!(f, "{line}")?;
            }
        }
        writeln!(f, "{line}")?;
        write!(f, "Parameters: {} ({} trained)", grouped(self.parameters), grouped(self.trainable))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn layers_of_several_inputs_have_rows() {
        use crate::{LSTM, MultiheadAttention, TransformerEncoderLayer, summarize};
        use tapegrad_tape::{DType, Tensor, Var};
        crate::module! {
            struct Both {
                lstm: LSTM,
                attention: MultiheadAttention,
            }
        }
        let net = Both { lstm: LSTM::new(3, 4), attention: MultiheadAttention::new(4, 2).dims(3, 3) };
        let x = Var::from(Tensor::ones_with(&[5, 2, 3], DType::F32));
        let summary = summarize(&net, || {
            let (y, _) = net.lstm.forward_with_state(&x, None);
            net.attention.attend(&y, &x, &x).0
        });
        let outputs: Vec<_> = summary.rows.iter().map(|r| (r.class.as_str(), r.output.clone())).collect();
        let wide = Some(vec![5, 2, 4]);
        assert_eq!(outputs[..2], [("LSTM", wide.clone()), ("MultiheadAttention", wide)]);
        assert!(summary.to_string().starts_with("Both -> [5, 2, 4]\n"));
        // Each pass is seen once, whichever method is called.
        let layer = TransformerEncoderLayer::new(4, 2);
        let seen = std::rc::Rc::new(std::cell::Cell::new(0));
        let count = seen.clone();
        let hook = move |m: &dyn crate::Module, _: &Var, _: &Var| {
            count.set(count.get() + u32::from(m.is::<MultiheadAttention>()));
        };
        let x = Var::from(Tensor::ones_with(&[5, 2, 4], DType::F32));
        crate::with_forward_hook(hook, || crate::Forward::forward(&layer, &x));
        assert_eq!(seen.get(), 1);
    }

    #[test]
    fn thousands() {
        assert_eq!(super::grouped(1234567), "1,234,567");
        assert_eq!(super::grouped(999), "999");
    }
}
