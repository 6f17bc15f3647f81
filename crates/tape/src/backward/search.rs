//! Searches of the graph before a backward walk.

use super::pending::Numbers;
use crate::node::Node;
use crate::tensor::Tensor;
use crate::var::Var;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// The variables with a sequence number below `start` on which a result directly depends: parameters, and results of
/// operations that were recorded earlier. The values of the returned variables are placeholders.
pub(crate) fn external_nodes(result: &Var, start: u64) -> Vec<Var> {
    let mut seen = HashSet::new();
    let mut found: BTreeMap<u64, Var> = BTreeMap::new();
    let mut stack: Vec<Arc<Node>> = result.node().into_iter().cloned().collect();
    while let Some(node) = stack.pop() {
        if !seen.insert(node.seq) {
            continue;
        }
        if node.seq < start {
            let stand_in = Tensor::full_with((), 0, node.dtype()).expand(&node.shape);
            found.insert(node.seq, Var::of_node(stand_in, node));
        } else {
            stack.extend(node.inputs.iter().flatten().cloned());
        }
    }
    found.into_values().collect()
}

/// The nodes below `roots` from which a target can be reached, the targets among them.
pub(super) fn reaching(
    roots: &[(Arc<Node>, Var)],
    targets: &HashSet<u64, Numbers>,
    through: bool,
) -> HashSet<u64, Numbers> {
    let mut seen: HashSet<u64, Numbers> = HashSet::default();
    let mut nodes: Vec<&Arc<Node>> = Vec::new();
    let mut stack: Vec<&Arc<Node>> = roots.iter().map(|(n, _)| n).collect();
    let lowest = targets.iter().min().copied().unwrap_or(0);
    while let Some(node) = stack.pop() {
        // Nodes made before every target cannot lead to one.
        if node.seq < lowest || !seen.insert(node.seq) {
            continue;
        }
        if through || !targets.contains(&node.seq) {
            stack.extend(node.inputs.iter().flatten());
        }
        nodes.push(node);
    }
    nodes.sort_unstable_by_key(|node| node.seq);
    let mut needed: HashSet<u64, Numbers> = HashSet::default();
    for node in nodes {
        if targets.contains(&node.seq) || node.inputs.iter().flatten().any(|n| needed.contains(&n.seq)) {
            needed.insert(node.seq);
        }
    }
    needed
}

/// How many operations below `roots`, of those up to a number, take each leaf as an input, counted once for each place.
pub(super) fn consumers_of_leaves(roots: &[Arc<Node>], last: u64) -> HashMap<u64, usize, Numbers> {
    let mut consumers: HashMap<u64, usize, Numbers> = HashMap::default();
    let mut seen: HashSet<u64, Numbers> = HashSet::default();
    let mut stack: Vec<&Arc<Node>> = roots.iter().collect();
    while let Some(node) = stack.pop() {
        if !seen.insert(node.seq) {
            continue;
        }
        for input in node.inputs.iter().flatten() {
            if input.leaf.is_none() {
                stack.push(input);
            } else if node.seq <= last {
                *consumers.entry(input.seq).or_default() += 1;
            }
        }
    }
    consumers
}
