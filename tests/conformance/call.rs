//! A call as a sample describes it, with its arguments by PyTorch's parameter names.
//!
//! A dispatch row asks for what its operation takes. An argument that no row asked for fails the sample, and an
//! argument that Rust's types cannot express ends the row with [`Unwritable`].

use std::cell::RefCell;
use std::fmt::Debug;
use std::panic::panic_any;

use serde_json::Value as Json;
use tapegrad::tape::{DType, Operand, Scalar, Tensor, Var};

use super::data::{Leaf, Store, Value};
use super::signatures;

/// The call cannot be written with Rust's types: a panic payload with the reason.
pub struct Unwritable(pub String);

struct Argument {
    name: String,
    path: String,
    value: Value,
    seen: bool,
}

/// The arguments of one call.
pub struct Call {
    /// PyTorch's path of the function or class.
    pub function: String,
    arguments: RefCell<Vec<Argument>>,
    changed: RefCell<Vec<(String, Tensor)>>,
    /// The tensors among the arguments.
    pub leaves: Vec<Leaf>,
}

impl Call {
    /// A function call: `function(input, *args, **kwargs)` with `names` for the first of them.
    pub fn of_function(function: &str, sample: &Json, store: &Store) -> Result<Call, String> {
        let mut positional = vec![(sample.get("input").ok_or("no input")?, "input".to_string())];
        for (i, a) in list(sample, "args").iter().enumerate() {
            positional.push((a, format!("args.{i}")));
        }
        Call::new(function, positional, sample, "kwargs", store)
    }

    /// A call of a module or a constructor: `(*args, **kwargs)`; `prefix` precedes the paths.
    pub fn of_method(function: &str, sample: &Json, prefix: &str, store: &Store) -> Result<Call, String> {
        let positional =
            list(sample, "args").iter().enumerate().map(|(i, a)| (a, format!("{prefix}args.{i}"))).collect();
        Call::new(function, positional, sample, &format!("{prefix}kwargs"), store)
    }

    fn new(
        function: &str,
        positional: Vec<(&Json, String)>,
        sample: &Json,
        kwargs: &str,
        store: &Store,
    ) -> Result<Call, String> {
        let mut leaves = Vec::new();
        let mut arguments = Vec::new();
        let known: Option<Vec<String>> = sample
            .get("names")
            .and_then(Json::as_array)
            .map(|names| names.iter().map(|n| n.as_str().unwrap_or_default().to_string()).collect());
        let keywords: Vec<&str> = sample
            .get("kwargs")
            .and_then(Json::as_object)
            .map(|m| m.keys().map(String::as_str).collect())
            .unwrap_or_default();
        let names = signatures::names(function, known, positional.len(), &keywords);
        for (i, (value, path)) in positional.into_iter().enumerate() {
            let value = store.value(value, &path, &mut leaves)?;
            match names.get(i) {
                Some(name) => arguments.push(Argument { name: name.clone(), path, value, seen: false }),
                // `x.view(2, 3)`: what follows the last parameter belongs to its list.
                None => {
                    let last: &mut Argument = arguments.last_mut().ok_or("arguments without a name")?;
                    let head = std::mem::replace(&mut last.value, Value::None);
                    last.value = match head {
                        Value::List(mut items) if i > names.len() => {
                            items.push(value);
                            Value::List(items)
                        }
                        first => Value::List(vec![first, value]),
                    };
                }
            }
        }
        if let Some(map) = sample.get("kwargs").and_then(Json::as_object) {
            for (name, value) in map {
                let path = format!("{kwargs}.{name}");
                let value = store.value(value, &path, &mut leaves)?;
                let name = signatures::keyword(function, name);
                arguments.push(Argument { name, path, value, seen: false });
            }
        }
        Ok(Call {
            function: function.to_string(),
            arguments: arguments.into(),
            changed: RefCell::default(),
            leaves,
        })
    }

    /// Puts a variable in the place of a parameter.
    pub fn replace(&self, old: &Var, new: &Var) {
        self.arguments.borrow_mut().iter_mut().for_each(|a| a.value.replace(old, new));
    }

    /// The last component of the function's path.
    pub fn op(&self) -> &str {
        self.function.rsplit('.').next().unwrap_or(&self.function)
    }

    /// Names of arguments that were not read.
    pub fn unused(&self) -> Vec<String> {
        self.arguments.borrow().iter().filter(|a| !a.seen).map(|a| a.name.clone()).collect()
    }

    /// Whether an argument was passed, be it `None`.
    pub fn has(&self, name: &str) -> bool {
        self.arguments.borrow().iter().any(|a| a.name == name)
    }

    /// The value of an argument if it was passed, `None` as `Value::None`.
    pub fn value(&self, name: &str) -> Option<Value> {
        let mut arguments = self.arguments.borrow_mut();
        let found = arguments.iter_mut().find(|a| a.name == name)?;
        found.seen = true;
        Some(found.value.clone())
    }

    /// The value if it was passed and is not `None`.
    fn given(&self, name: &str) -> Option<Value> {
        self.value(name).filter(|v| !matches!(v, Value::None))
    }

    /// Ends the row: this argument cannot be written in Rust.
    pub fn unwritable(&self, name: &str, why: impl AsRef<str>) -> ! {
        panic_any(Unwritable(format!("{}: argument `{name}`: {}", self.op(), why.as_ref())))
    }

    fn convert<T>(&self, name: &str, wanted: &str, convert: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let v = self.given(name)?;
        match convert(&v) {
            Some(x) => Some(x),
            None => self.unwritable(name, format!("{} where {wanted} is expected", v.kind())),
        }
    }

    fn required<T>(&self, name: &str, wanted: &str, x: Option<T>) -> T {
        x.unwrap_or_else(|| self.unwritable(name, format!("nothing where {wanted} is required")))
    }

    /// A tensor that may be missing.
    pub fn var_opt(&self, name: &str) -> Option<Var> {
        self.convert(name, "a tensor", |v| match v {
            Value::Tensor(t) => Some(t.clone()),
            _ => None,
        })
    }

    /// A tensor.
    pub fn var(&self, name: &str) -> Var {
        let x = self.var_opt(name);
        self.required(name, "a tensor", x)
    }

    /// A list of tensors that may be missing.
    pub fn vars_opt(&self, name: &str) -> Option<Vec<Var>> {
        self.convert(name, "a list of tensors", |v| match v {
            Value::List(items) => items
                .iter()
                .map(|i| match i {
                    Value::Tensor(t) => Some(t.clone()),
                    _ => None,
                })
                .collect(),
            _ => None,
        })
    }

    /// Tensors that are passed one after the other, or one tensor alone.
    pub fn variadic(&self, name: &str) -> Vec<Var> {
        match self.given(name) {
            Some(Value::Tensor(one)) => vec![one],
            _ => self.vars(name),
        }
    }

    /// A list of tensors.
    pub fn vars(&self, name: &str) -> Vec<Var> {
        let x = self.vars_opt(name);
        self.required(name, "a list of tensors", x)
    }

    /// A tensor or a number that may be missing.
    pub fn operand_opt(&self, name: &str) -> Option<Operand> {
        self.convert(name, "a tensor or a number", |v| match v {
            Value::Tensor(t) => Some(Operand::Var(t.clone())),
            other => scalar(other).map(Operand::Scalar),
        })
    }

    /// A tensor or a number.
    pub fn operand(&self, name: &str) -> Operand {
        let x = self.operand_opt(name);
        self.required(name, "a tensor or a number", x)
    }

    /// A number that may be missing.
    pub fn scalar_opt(&self, name: &str) -> Option<Scalar> {
        self.convert(name, "a number", scalar)
    }

    /// A number, or a default.
    pub fn scalar_or(&self, name: &str, default: impl Into<Scalar>) -> Scalar {
        self.scalar_opt(name).unwrap_or_else(|| default.into())
    }

    /// An int that may be missing.
    pub fn int_opt(&self, name: &str) -> Option<i64> {
        self.convert(name, "an int", int)
    }

    /// An int.
    pub fn int(&self, name: &str) -> i64 {
        let x = self.int_opt(name);
        self.required(name, "an int", x)
    }

    /// An int, or a default.
    pub fn int_or(&self, name: &str, default: i64) -> i64 {
        self.int_opt(name).unwrap_or(default)
    }

    /// A dimension, as the operations take it.
    pub fn dim(&self, name: &str) -> isize {
        self.int(name) as isize
    }

    /// A dimension, or a default.
    pub fn dim_or(&self, name: &str, default: isize) -> isize {
        self.int_or(name, default as i64) as isize
    }

    /// A dimension that may be missing.
    pub fn dim_opt(&self, name: &str) -> Option<isize> {
        self.int_opt(name).map(|i| i as isize)
    }

    fn unsigned(&self, name: &str, i: i64) -> usize {
        usize::try_from(i)
            .unwrap_or_else(|_| self.unwritable(name, format!("{i} where the type is unsigned")))
    }

    /// A count that may be missing.
    pub fn size_opt(&self, name: &str) -> Option<usize> {
        self.int_opt(name).map(|i| self.unsigned(name, i))
    }

    /// A count that may be missing, in 64 bits.
    pub fn count_opt(&self, name: &str) -> Option<u64> {
        self.size_opt(name).map(|n| n as u64)
    }

    /// A count.
    pub fn size(&self, name: &str) -> usize {
        let i = self.int(name);
        self.unsigned(name, i)
    }

    /// A count, or a default.
    pub fn size_or(&self, name: &str, default: usize) -> usize {
        self.size_opt(name).unwrap_or(default)
    }

    /// A float that may be missing; an int is accepted.
    pub fn float_opt(&self, name: &str) -> Option<f64> {
        self.convert(name, "a float", |v| match v {
            Value::Float(x) => Some(*x),
            Value::Int(i) => Some(*i as f64),
            _ => None,
        })
    }

    /// A float.
    pub fn float(&self, name: &str) -> f64 {
        let x = self.float_opt(name);
        self.required(name, "a float", x)
    }

    /// A float, or a default.
    pub fn float_or(&self, name: &str, default: f64) -> f64 {
        self.float_opt(name).unwrap_or(default)
    }

    /// A bool that may be missing.
    pub fn bool_opt(&self, name: &str) -> Option<bool> {
        self.convert(name, "a bool", |v| match v {
            Value::Bool(b) => Some(*b),
            _ => None,
        })
    }

    /// A bool, or a default.
    pub fn bool_or(&self, name: &str, default: bool) -> bool {
        self.bool_opt(name).unwrap_or(default)
    }

    /// A string that may be missing; for a function the last part of its path.
    pub fn text_opt(&self, name: &str) -> Option<String> {
        self.convert(name, "a string", |v| match v {
            Value::Str(s) => Some(s.clone()),
            Value::Function(path) => path.rsplit('.').next().map(String::from),
            _ => None,
        })
    }

    /// A string, or a default.
    pub fn text_or(&self, name: &str, default: &str) -> String {
        self.text_opt(name).unwrap_or_else(|| default.to_string())
    }

    /// A string that names a variant of an enum; another string cannot be written.
    pub fn choice<T: Clone>(&self, name: &str, default: &str, variants: &[(&str, T)]) -> T {
        let text = self.text_or(name, default);
        match variants.iter().find(|(n, _)| *n == text) {
            Some((_, x)) => x.clone(),
            None => self.unwritable(name, format!("\"{text}\" names no variant of the enum")),
        }
    }

    /// A dtype that may be missing.
    pub fn dtype_opt(&self, name: &str) -> Option<DType> {
        self.convert(name, "a dtype", |v| match v {
            Value::DType(d) => Some(*d),
            _ => None,
        })
    }

    /// Ints that may be missing: a list, or one int for a list of one.
    pub fn ints_opt(&self, name: &str) -> Option<Vec<i64>> {
        self.convert(name, "a list of ints", ints)
    }

    /// Ints.
    pub fn ints(&self, name: &str) -> Vec<i64> {
        let x = self.ints_opt(name);
        self.required(name, "a list of ints", x)
    }

    /// `N` lists of ints.
    pub fn int_lists<const N: usize>(&self, name: &str) -> [Vec<isize>; N] {
        let x = self.convert(name, "lists of ints", |v| match v {
            Value::List(items) => {
                let lists: Option<Vec<Vec<i64>>> = items.iter().map(ints).collect();
                lists?
                    .into_iter()
                    .map(|l| l.into_iter().map(|i| i as isize).collect())
                    .collect::<Vec<_>>()
                    .try_into()
                    .ok()
            }
            _ => None,
        });
        self.required(name, "lists of ints", x)
    }

    /// Whether the argument is a list (and not one int).
    pub fn is_list(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::List(_)))
    }

    /// Dimensions, none where they were not given: for most reductions that means all.
    pub fn dims(&self, name: &str) -> Vec<isize> {
        self.ints_opt(name).unwrap_or_default().into_iter().map(|i| i as isize).collect()
    }

    /// Sizes, of which one may be -1.
    pub fn isizes(&self, name: &str) -> Vec<isize> {
        self.ints(name).into_iter().map(|i| i as isize).collect()
    }

    /// Sizes.
    pub fn sizes(&self, name: &str) -> Vec<usize> {
        self.ints(name).into_iter().map(|i| self.unsigned(name, i)).collect()
    }

    /// Sizes, as a list or as a tensor of integers.
    pub fn lengths(&self, name: &str) -> Vec<usize> {
        match self.value(name) {
            Some(Value::Tensor(t)) if t.dtype() == DType::I64 => {
                t.to_vec::<i64>().into_iter().map(|i| self.unsigned(name, i)).collect()
            }
            _ => self.sizes(name),
        }
    }

    /// One count for each of `N` dimensions: an int for all, a list of `N`, or a list of one for all.
    pub fn each_opt<const N: usize>(&self, name: &str) -> Option<[usize; N]> {
        let list = self.ints_opt(name)?;
        let list: Vec<usize> = list.into_iter().map(|i| self.unsigned(name, i)).collect();
        Some(match list[..] {
            [one] => [one; N],
            _ => list.try_into().unwrap_or_else(|l: Vec<usize>| {
                self.unwritable(name, format!("{} numbers where there are {N} dimensions", l.len()))
            }),
        })
    }

    /// The same with a default.
    pub fn each_or<const N: usize>(&self, name: &str, default: usize) -> [usize; N] {
        self.each_opt(name).unwrap_or([default; N])
    }

    /// The same, required.
    pub fn each<const N: usize>(&self, name: &str) -> [usize; N] {
        let x = self.each_opt(name);
        self.required(name, "a number a dimension", x)
    }

    /// One signed number for each of `N` sides: an int for all, or a list of `N`.
    pub fn sides<const N: usize>(&self, name: &str) -> [isize; N] {
        let list = self.isizes(name);
        match list[..] {
            [one] => [one; N],
            _ => list.try_into().unwrap_or_else(|l: Vec<isize>| {
                self.unwritable(name, format!("{} numbers where there are {N} sides", l.len()))
            }),
        }
    }

    /// Floats that may be missing: a list, or one float for a list of one.
    pub fn floats_opt(&self, name: &str) -> Option<Vec<f64>> {
        let number = |v: &Value| match v {
            Value::Float(x) => Some(*x),
            Value::Int(i) => Some(*i as f64),
            _ => None,
        };
        self.convert(name, "a list of floats", |v| match v {
            Value::List(items) => items.iter().map(number).collect(),
            other => number(other).map(|x| vec![x]),
        })
    }

    /// Accepts an argument that selects what the operation does anyway; another value cannot be written.
    pub fn only<T: PartialEq + Debug>(&self, name: &str, got: T, supported: T) {
        if got != supported {
            self.unwritable(name, format!("{got:?} where only {supported:?} exists"))
        }
    }

    /// Notes the value of an argument after the call, for an operation that changes a buffer.
    pub fn after(&self, name: &str, value: Tensor) {
        let path = self.arguments.borrow().iter().find(|a| a.name == name).map(|a| a.path.clone());
        self.changed.borrow_mut().push((path.unwrap_or_else(|| name.to_string()), value));
    }

    /// What the call has changed, by path.
    pub fn changed(&self) -> Vec<(String, Tensor)> {
        self.changed.borrow().clone()
    }
}

fn list<'a>(sample: &'a Json, key: &str) -> &'a [Json] {
    sample.get(key).and_then(Json::as_array).map(Vec::as_slice).unwrap_or(&[])
}

fn scalar(v: &Value) -> Option<Scalar> {
    match v {
        Value::Bool(b) => Some(Scalar::Bool(*b)),
        Value::Int(i) => Some(Scalar::Int(*i)),
        Value::Float(x) => Some(Scalar::Float(*x)),
        _ => None,
    }
}

fn int(v: &Value) -> Option<i64> {
    match v {
        Value::Int(i) => Some(*i),
        _ => None,
    }
}

fn ints(v: &Value) -> Option<Vec<i64>> {
    match v {
        Value::List(items) => items.iter().map(int).collect(),
        other => int(other).map(|i| vec![i]),
    }
}
