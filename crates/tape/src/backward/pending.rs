//! The nodes that a backward walk has still to visit.

use crate::node::Node;
use crate::var::Var;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

/// A hash of sequence numbers, which differ in their low bits.
#[derive(Clone, Copy, Default)]
pub(super) struct Numbers(u64);

impl Hasher for Numbers {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed");
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl BuildHasher for Numbers {
    type Hasher = Numbers;
    fn build_hasher(&self) -> Numbers {
        Numbers::default()
    }
}

/// The nodes that have received a gradient, by their sequence numbers.
#[derive(Default)]
pub(super) struct Pending {
    /// The one with the largest number, where it is known: along a chain of operations there is no other.
    front: Option<(Arc<Node>, Var)>,
    rest: HashMap<u64, (Arc<Node>, Var), Numbers>,
    /// The numbers in `rest`, and of nodes that have been removed from it.
    order: BinaryHeap<u64>,
}

impl Pending {
    /// The gradient that a node has received so far.
    pub(super) fn get_mut(&mut self, node: &Node) -> Option<&mut Var> {
        match &mut self.front {
            Some((front, grad)) if front.seq == node.seq => Some(grad),
            _ if self.rest.is_empty() => None,
            _ => self.rest.get_mut(&node.seq).map(|(_, grad)| grad),
        }
    }

    pub(super) fn insert(&mut self, node: Arc<Node>, grad: Var) {
        let largest = self.front.as_ref().map(|(front, _)| front.seq).or(self.order.peek().copied());
        if largest.is_none_or(|largest| largest < node.seq) {
            if let Some((node, grad)) = self.front.replace((node, grad)) {
                self.insert_rest(node, grad);
            }
        } else {
            self.insert_rest(node, grad);
        }
    }

    fn insert_rest(&mut self, node: Arc<Node>, grad: Var) {
        self.order.push(node.seq);
        self.rest.insert(node.seq, (node, grad));
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<(Arc<Node>, Var)> {
        match &self.front {
            Some((front, _)) if front.seq == seq => self.front.take(),
            _ => self.rest.remove(&seq),
        }
    }

    /// Takes the one with the largest number.
    pub(super) fn pop(&mut self) -> Option<(Arc<Node>, Var)> {
        if self.front.is_some() {
            return self.front.take();
        }
        while let Some(seq) = self.order.pop() {
            if let Some(found) = self.rest.remove(&seq) {
                return Some(found);
            }
        }
        None
    }
}
