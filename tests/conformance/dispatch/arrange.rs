//! Stacking, splitting, diagonals, grids, and parts replaced.

use super::super::call::Call;
use super::super::data::Value;
use super::super::outcome::Outcome;
use tapegrad::tape::{self, Indexing, Sections, Slice, Var};

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let name = call.function.strip_prefix("torch.")?;
    let x = || call.var("input");
    let of_list = named!(name, tape as fn(&[Var]) -> Var:
        hstack vstack dstack column_stack block_diag cartesian_prod);
    if let Some(f) = of_list {
        return Some(f(&call.variadic("tensors")).into());
    }
    if let Some(f) =
        named!(name, Var as fn(&Var) -> Var: ravel fliplr flipud atleast_1d atleast_2d atleast_3d)
    {
        return Some(match call.has("tensors") {
            true => call.vars("tensors").iter().map(f).collect::<Vec<_>>().into(),
            false => f(&x()).into(),
        });
    }
    let (offset, dim) = (|| call.dim_or("offset", 0), || call.dim_or("dim", 0));
    Some(match name {
        "broadcast_tensors" => tape::broadcast_tensors(&call.variadic("tensors")).into(),
        "meshgrid" => {
            let indexing = call.choice("indexing", "ij", &[("ij", Indexing::Ij), ("xy", Indexing::Xy)]);
            tape::meshgrid_with(&call.variadic("tensors"), indexing).into()
        }
        "diag" => x().diag_with(call.dim_or("diagonal", 0)).into(),
        "diagflat" => x().diagflat_with(offset()).into(),
        "diag_embed" => {
            x().diag_embed_with(offset(), call.dim_or("dim1", -2), call.dim_or("dim2", -1)).into()
        }
        "diagonal_scatter" => {
            let (dim1, dim2) = (call.dim_or("dim1", 0), call.dim_or("dim2", 1));
            x().diagonal_scatter_with(&call.var("src"), offset(), dim1, dim2).into()
        }
        "select_scatter" => x().select_scatter(&call.var("src"), dim(), call.dim("index")).into(),
        "slice_scatter" => {
            let range = Slice {
                start: call.dim_opt("start"),
                end: call.dim_opt("end"),
                step: call.size_or("step", 1),
            };
            x().slice_scatter(&call.var("src"), dim(), range).into()
        }
        "hsplit" => x().hsplit(sections(call)).into(),
        "vsplit" => x().vsplit(sections(call)).into(),
        "dsplit" => x().dsplit(sections(call)).into(),
        "tensor_split" => x().tensor_split(sections(call), dim()).into(),
        "split_with_sizes" => x().split_with_sizes(&call.sizes("split_sizes"), dim()).into(),
        "rot90" => {
            let dims = if call.has("dims") { call.dims("dims") } else { vec![0, 1] };
            x().rot90_with(call.dim_or("k", 1), dims).into()
        }
        "repeat_interleave" => {
            // The size of the result follows from the repeats.
            call.size_opt("output_size");
            x().repeat_interleave(call.operand("repeats"), call.dim_opt("dim")).into()
        }
        "Tensor.expand_as" => x().expand_as(&call.var("other")).into(),
        "Tensor.sum_to_size" => x().sum_to_size(&call.sizes("size")).into(),
        "Tensor.unfold" => x().unfold(call.dim("dimension"), call.size("size"), call.size("step")).into(),
        _ => return None,
    })
}

/// A number of sections or the positions between them, which may be a tensor.
fn sections(call: &Call) -> Sections {
    let names = ["sections", "indices", "indices_or_sections", "tensor_indices_or_sections", "other"];
    let name = names.into_iter().find(|n| call.has(n)).unwrap_or("sections");
    match call.value(name) {
        Some(Value::Tensor(t)) if t.ndim() == 0 => Sections::Count(t.item() as usize),
        Some(Value::Tensor(t)) => Sections::At(t.to_vec::<i64>().into_iter().map(|i| i as isize).collect()),
        Some(Value::Int(_)) => Sections::Count(call.size(name)),
        _ => Sections::At(call.isizes(name)),
    }
}
