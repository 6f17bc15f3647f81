//! The tape as a table and as a graph.

use crate::dtype::DType;
use crate::node::Node;
use crate::var::Var;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One operation, or leaf, of a [`Trace`].
#[derive(Clone, Debug)]
pub struct TraceRow {
    /// The sequence number; those of the inputs are smaller.
    pub id: u64,
    /// The operation's name, `leaf` for a parameter.
    pub op: &'static str,
    /// The result's sizes.
    pub shape: Vec<usize>,
    /// The result's element type.
    pub dtype: DType,
    /// The inputs that require gradients.
    pub inputs: Vec<u64>,
    /// Bytes that the derivative rule has saved.
    pub saved_bytes: u64,
    /// Floating-point operations of the forward pass, if the operation reports them.
    pub flops: u64,
    /// Time of the forward pass, if profiling was on.
    pub forward: Duration,
    /// Time of the backward passes so far, if profiling was on.
    pub backward: Duration,
    /// The line that called the operation.
    pub location: String,
}

/// The tape behind a variable, in the order in which it was recorded. Prints as a table.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The operations and leaves.
    pub rows: Vec<TraceRow>,
}

/// The tape that leads to a variable. After a backward pass it still has the operations and their times.
///
/// ```
/// use tapegrad_tape::{Tensor, Var, trace};
/// let x = Var::parameter(Tensor::scalar(2.0));
/// let t = trace(&(x.exp() * 3.0));
/// assert_eq!(t.rows.iter().map(|r| r.op).collect::<Vec<_>>(), ["leaf", "exp", "mul"]);
/// println!("{t}");
/// ```
pub fn trace(var: &Var) -> Trace {
    let mut seen: BTreeMap<u64, Arc<Node>> = BTreeMap::new();
    let mut stack: Vec<Arc<Node>> = var.node().into_iter().cloned().collect();
    while let Some(node) = stack.pop() {
        seen.entry(node.seq).or_insert_with(|| {
            stack.extend(node.inputs.iter().flatten().cloned());
            node
        });
    }
    let row = |node: &Node| TraceRow {
        id: node.seq,
        op: node.op,
        shape: node.shape.to_vec(),
        dtype: node.dtype(),
        inputs: node.inputs.iter().flatten().map(|n| n.seq).collect(),
        saved_bytes: node.cost.saved_bytes(),
        flops: node.cost.flops,
        forward: Duration::from_nanos(node.cost.forward_ns),
        backward: Duration::from_nanos(node.cost.backward_ns()),
        location: node.location.to_string(),
    };
    Trace { rows: seen.values().map(|n| row(n)).collect() }
}

impl Trace {
    /// The graph in the DOT language, for Graphviz: leaves as boxes, operations as ellipses.
    pub fn to_dot(&self) -> String {
        let mut out = String::from("digraph tape {\n  rankdir=LR;\n");
        for r in &self.rows {
            let shape = if r.op == "leaf" { "box" } else { "ellipse" };
            out += &format!("  n{} [label=\"{}\\n{:?}\", shape={shape}];\n", r.id, r.op, r.shape);
            for i in &r.inputs {
                out += &format!("  n{i} -> n{};\n", r.id);
            }
        }
        out + "}\n"
    }

    /// The bytes that all rules have saved.
    pub fn saved_bytes(&self) -> u64 {
        self.rows.iter().map(|r| r.saved_bytes).sum()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position: BTreeMap<u64, usize> = self.rows.iter().enumerate().map(|(k, r)| (r.id, k)).collect();
        let timed = self.rows.iter().any(|r| !r.forward.is_zero());
        write!(f, "{:>4}  {:<24} {:<20} {:<14} {:>12}", "#", "operation", "shape", "inputs", "saved bytes")?;
        if timed {
            write!(f, " {:>12} {:>12}", "forward us", "backward us")?;
        }
        writeln!(f)?;
        for (k, r) in self.rows.iter().enumerate() {
            let inputs: Vec<String> =
                r.inputs.iter().filter_map(|i| position.get(i)).map(|i| format!("#{i}")).collect();
            write!(
                f,
                "{k:>4}  {:<24} {:<20} {:<14} {:>12}",
                r.op,
                format!("{:?}", r.shape),
                inputs.join(" "),
                r.saved_bytes
            )?;
            if timed {
                write!(
                    f,
                    " {:>12.1} {:>12.1}",
                    r.forward.as_nanos() as f64 / 1e3,
                    r.backward.as_nanos() as f64 / 1e3
                )?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;
    use crate::set_profiling;

    #[test]
    fn saved_bytes_and_times() {
        set_profiling(true);
        let x = Var::parameter(Tensor::zeros_with(&[10], DType::F32));
        let y = (x.exp() * &x).sum_all();
        y.backward();
        set_profiling(false);
        let t = trace(&y);
        let saved: Vec<(&str, u64)> = t.rows.iter().map(|r| (r.op, r.saved_bytes)).collect();
        assert_eq!(saved, [("leaf", 0), ("exp", 40), ("mul", 80), ("sum", 0)]);
        assert!(t.rows.iter().skip(1).all(|r| !r.forward.is_zero() && !r.backward.is_zero()), "{t}");
        assert!(t.to_dot().contains(&format!("n{} -> n{};", t.rows[0].id, t.rows[1].id)));
    }
}
