//! Indexing, gathering, scattering.

use super::super::call::Call;
use super::super::data::Value;
use super::super::outcome::Outcome;
use tapegrad::tape::{Index, Reduce, Slice};

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let x = || call.var("input");
    Some(match call.function.as_str() {
        "torch.gather" => x().gather(call.dim("dim"), &call.var("index")).into(),
        "torch.scatter" => {
            let src = if call.has("value") { call.operand("value") } else { call.operand("src") };
            x().scatter(call.dim("dim"), &call.var("index"), src).into()
        }
        "torch.scatter_add" => x().scatter_add(call.dim("dim"), &call.var("index"), &call.var("src")).into(),
        "torch.index_select" => x().index_select(call.dim("dim"), &call.var("index")).into(),
        "torch.index_add" => {
            let alpha = call.float_or("alpha", 1.0);
            x().index_add_with(call.dim("dim"), &call.var("index"), &call.var("source"), alpha).into()
        }
        "torch.masked_fill" => x().masked_fill(&call.var("mask"), call.operand("value")).into(),
        "torch.masked_select" => x().masked_select(&call.var("mask")).into(),
        "torch.index_copy" => x().index_copy(call.dim("dim"), &call.var("index"), &call.var("source")).into(),
        "torch.index_fill" => {
            x().index_fill(call.dim("dim"), &call.var("index"), call.operand("value")).into()
        }
        "torch.index_reduce" => {
            let (source, include) = (call.var("source"), call.bool_or("include_self", true));
            x().index_reduce_with(call.dim("dim"), &call.var("index"), &source, reduce(call), include).into()
        }
        "torch.scatter_reduce" => {
            let (src, include) = (call.var("src"), call.bool_or("include_self", true));
            x().scatter_reduce_with(call.dim("dim"), &call.var("index"), &src, reduce(call), include).into()
        }
        "torch.index_put" => {
            let indices = match call.value("indices") {
                Some(Value::List(entries)) => entries.iter().map(|e| put_entry(call, e)).collect::<Vec<_>>(),
                _ => call.unwritable("indices", "no list"),
            };
            x().index_put_with(indices, call.operand("values"), call.bool_or("accumulate", false)).into()
        }
        "torch.take" => x().take(&call.var("index")).into(),
        "torch.put" => {
            x().put_with(&call.var("index"), &call.var("source"), call.bool_or("accumulate", false)).into()
        }
        "torch.masked_scatter" => x().masked_scatter(&call.var("mask"), &call.var("source")).into(),
        "torch.take_along_dim" => match call.dim_opt("dim") {
            Some(dim) => x().take_along_dim(&call.var("indices"), dim),
            None => x().flatten(()).take_along_dim(&call.var("indices").flatten(()), 0),
        }
        .into(),
        "torch.nn.functional.one_hot" => x().one_hot(call.int_or("num_classes", -1)).into(),
        "torch.Tensor.__getitem__" => {
            let index = match call.value("index") {
                Some(Value::List(entries)) => entries.iter().map(|e| entry(call, e)).collect(),
                Some(one) => vec![entry(call, &one)],
                None => call.unwritable("index", "nothing"),
            };
            x().get(index).into()
        }
        _ => return None,
    })
}

fn reduce(call: &Call) -> Reduce {
    use Reduce::{Amax, Amin, Mean, Prod, Sum};
    let variants = [("sum", Sum), ("prod", Prod), ("mean", Mean), ("amax", Amax), ("amin", Amin)];
    call.choice("reduce", "", &variants)
}

/// In `index_put` None stands for all of a dimension.
fn put_entry(call: &Call, value: &Value) -> Index {
    match value {
        Value::None => Index::Full,
        other => entry(call, other),
    }
}

fn entry(call: &Call, value: &Value) -> Index {
    match value {
        Value::Int(i) => Index::from(*i),
        Value::Slice([start, end, step]) => {
            let place = |p: &Option<i64>| p.map(|p| p as isize);
            let step = usize::try_from(step.unwrap_or(1))
                .unwrap_or_else(|_| call.unwritable("index", "a negative step"));
            Slice { start: place(start), end: place(end), step }.into()
        }
        Value::Ellipsis => Index::Ellipsis,
        Value::None => Index::NewAxis,
        Value::Tensor(t) => Index::from(t),
        other => call.unwritable("index", other.kind()),
    }
}
