//! Products of matrices and vectors, linear algebra, distances.

use tapegrad::ops;
use tapegrad::ops::linalg::{Driver, NormOrd, PinvOptions, TriangularOptions, Uplo};
use tapegrad::ops::{CdistMode, CovOptions};
use tapegrad::tape::{Scalar, Var};

use super::super::call::Call;
use super::super::data::Value;
use super::super::outcome::Outcome;

/// Runs the operation if it is one of these.
pub fn run(call: &Call) -> Option<Outcome> {
    let (x, v) = (|| call.var("input"), |name: &str| call.var(name));
    type Add = fn(&Var, &Var, &Var, Scalar, Scalar) -> Var;
    let add = |f: Add, a: &str, b: &str| {
        f(&x(), &v(a), &v(b), call.scalar_or("beta", 1), call.scalar_or("alpha", 1)).into()
    };
    Some(match call.function.strip_prefix("torch.")? {
        "matmul" => ops::matmul(&x(), &v("other")).into(),
        "mm" => ops::mm(&x(), &v("mat2")).into(),
        "bmm" => ops::bmm(&x(), &v("mat2")).into(),
        "mv" => ops::mv(&x(), &v("vec")).into(),
        "dot" => ops::dot(&x(), &v("tensor")).into(),
        "vdot" => ops::vdot(&x(), &v("other")).into(),
        "outer" => ops::outer(&x(), &v("vec2")).into(),
        "addmm" => add(ops::addmm_with, "mat1", "mat2"),
        "baddbmm" => add(ops::baddbmm_with, "batch1", "batch2"),
        "addmv" => add(ops::addmv_with, "mat", "vec"),
        "addbmm" => add(ops::addbmm_with, "batch1", "batch2"),
        "addr" => add(ops::addr_with, "vec1", "vec2"),
        "einsum" => ops::einsum(&call.text_or("equation", ""), &call.vars("operands")).into(),
        "tensordot" => {
            let (a, b) = (v("a"), v("b"));
            if call.is_list("dims") {
                let [x, y] = call.int_lists("dims");
                ops::tensordot_with(&a, &b, (&x[..], &y[..])).into()
            } else {
                ops::tensordot_with(&a, &b, call.size("dims")).into()
            }
        }
        "nn.functional.bilinear" => {
            ops::bilinear(&v("input1"), &v("input2"), &v("weight"), call.var_opt("bias").as_ref()).into()
        }
        "nn.functional.linear" => ops::linear(&x(), &v("weight"), call.var_opt("bias").as_ref()).into(),
        name => return decomposition(call, name).or_else(|| table(call, name)),
    })
}

type Unary = fn(&Var) -> Var;
type Binary = fn(&Var, &Var) -> Var;

/// Functions of one matrix, by the name of their argument.
const UNARY: &[(&str, &str, Unary)] = &[
    ("trace", "input", ops::trace),
    ("corrcoef", "input", ops::corrcoef),
    ("logdet", "input", ops::logdet),
    ("linalg.det", "A", ops::linalg::det),
    ("linalg.inv", "A", ops::linalg::inv),
    ("linalg.svdvals", "A", ops::linalg::svdvals),
    ("linalg.matrix_exp", "A", ops::linalg::matrix_exp),
];

/// Functions of two tensors.
const BINARY: &[(&str, [&str; 2], Binary)] = &[
    ("inner", ["input", "other"], ops::inner),
    ("kron", ["input", "other"], ops::kron),
    ("linalg.solve", ["A", "B"], ops::linalg::solve),
];

fn table(call: &Call, name: &str) -> Option<Outcome> {
    if let Some((_, a, f)) = UNARY.iter().find(|row| row.0 == name) {
        return Some(f(&call.var(a)).into());
    }
    let (_, [a, b], f) = BINARY.iter().find(|row| row.0 == name)?;
    if name == "linalg.solve" {
        call.only("left", call.bool_or("left", true), true);
    }
    Some(f(&call.var(a), &call.var(b)).into())
}

fn decomposition(call: &Call, name: &str) -> Option<Outcome> {
    let (x, v) = (|| call.var("input"), |name: &str| call.var(name));
    let upper = || call.bool_or("upper", false);
    Some(match name {
        "cdist" => {
            let modes = [
                ("use_mm_for_euclid_dist_if_necessary", CdistMode::MmIfNecessary),
                ("use_mm_for_euclid_dist", CdistMode::Mm),
                ("donot_use_mm_for_euclid_dist", CdistMode::NoMm),
            ];
            let mode = call.choice("compute_mode", "use_mm_for_euclid_dist_if_necessary", &modes);
            ops::cdist_with(&v("x1"), &v("x2"), call.float_or("p", 2.0), mode).into()
        }
        "dist" => ops::dist_with(&x(), &v("other"), call.float_or("p", 2.0)).into(),
        "renorm" => ops::renorm(&x(), call.float("p"), call.dim("dim"), call.float("maxnorm")).into(),
        "cross" => ops::cross_with(&x(), &v("other"), call.dim_opt("dim")).into(),
        "cov" => {
            let options = CovOptions {
                correction: call.int_or("correction", 1),
                fweights: call.var_opt("fweights"),
                aweights: call.var_opt("aweights"),
            };
            ops::cov_with(&x(), options).into()
        }
        "cholesky_solve" => ops::cholesky_solve_with(&x(), &v("input2"), upper()).into(),
        "linalg.cross" => ops::linalg::cross_with(&x(), &v("other"), call.dim_or("dim", -1)).into(),
        "linalg.vecdot" => ops::linalg::vecdot_with(&v("x"), &v("y"), call.dim_or("dim", -1)).into(),
        "linalg.cholesky" => ops::linalg::cholesky_with(&x(), upper()).into(),
        "linalg.eigvalsh" => ops::linalg::eigvalsh_with(&x(), uplo(call)).into(),
        "linalg.slogdet" => ops::linalg::slogdet(&v("A")).into(),
        "linalg.matrix_power" => ops::linalg::matrix_power(&x(), call.int("n")).into(),
        "linalg.multi_dot" => {
            let list = call.vars("tensors");
            ops::linalg::multi_dot(&list.iter().collect::<Vec<_>>()).into()
        }
        "linalg.pinv" => ops::linalg::pinv_with(&x(), tolerances(call)).into(),
        "linalg.solve_triangular" => {
            let options = TriangularOptions {
                upper: upper(),
                left: call.bool_or("left", true),
                unitriangular: call.bool_or("unitriangular", false),
            };
            ops::linalg::solve_triangular(&x(), &v("B"), options).into()
        }
        "linalg.lstsq" => {
            let drivers = [
                ("gels", Driver::Gels),
                ("gelsy", Driver::Gelsy),
                ("gelsd", Driver::Gelsd),
                ("gelss", Driver::Gelss),
            ];
            let driver = call.choice("driver", "gelsy", &drivers);
            let y = ops::linalg::lstsq_with(&x(), &v("b"), call.float_opt("rcond"), driver);
            vec![y.solution, y.residuals, y.rank, y.singular_values].into()
        }
        "linalg.matrix_norm" => {
            let dims = if call.has("dim") { call.sides("dim") } else { [-2, -1] };
            let order = order(call).unwrap_or(NormOrd::Fro);
            ops::linalg::matrix_norm_with(&x(), order, dims, call.bool_or("keepdim", false)).into()
        }
        "linalg.norm" => {
            ops::linalg::norm_with(&x(), order(call), &call.dims("dim"), call.bool_or("keepdim", false))
                .into()
        }
        _ => return None,
    })
}

fn order(call: &Call) -> Option<NormOrd> {
    match call.value("ord") {
        Some(Value::Str(name)) if name == "fro" => Some(NormOrd::Fro),
        Some(Value::Str(name)) if name == "nuc" => Some(NormOrd::Nuc),
        _ => call.float_opt("ord").map(NormOrd::P),
    }
}

fn uplo(call: &Call) -> Uplo {
    call.choice("UPLO", "L", &[("L", Uplo::Lower), ("U", Uplo::Upper)])
}

fn tolerances(call: &Call) -> PinvOptions {
    PinvOptions {
        atol: call.operand_opt("atol"),
        rtol: call.operand_opt("rtol"),
        hermitian: call.bool_or("hermitian", false),
    }
}
