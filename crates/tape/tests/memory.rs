//! What the tape promises of memory. It is counted for the whole process, so these tests take turns and have a
//! process of their own.

use std::cell::RefCell;
use std::sync::Mutex;
use tape::{DType, Tensor, Var, pool_stats};

static MEMORY: Mutex<()> = Mutex::new(());

#[test]
fn a_million_operations_run_backward_and_are_dropped() {
    let _lock = MEMORY.lock().unwrap_or_else(|e| e.into_inner());
    let before = pool_stats().live_bytes;
    {
        let x = Var::parameter(Tensor::scalar(1.0));
        let y = (0..1_000_000).fold(x.clone(), |y, _| y + 1.0);
        y.backward();
        assert_eq!(x.grad().unwrap().item(), 1.0);
        // And a graph that is dropped without a backward pass, with everything still saved.
        let unused = (0..1_000_000).fold(x.clone(), |y, _| &y * &x);
        drop(unused);
    }
    assert_eq!(pool_stats().live_bytes, before);
}

/// A thread's graph is dropped when the thread ends, after other thread-local variables or before them.
#[test]
fn a_thread_local_graph_is_dropped_without_recursion() {
    thread_local! {
        static GRAPH: RefCell<Option<Var>> = const { RefCell::new(None) };
    }
    let _lock = MEMORY.lock().unwrap_or_else(|e| e.into_inner());
    let before = pool_stats().live_bytes;
    let graph = || (0..150_000).fold(Var::parameter(Tensor::scalar(1.0)), |y, _| &y * 1.5);
    for graph_is_first in [true, false] {
        let work = move || {
            if graph_is_first {
                GRAPH.set(None);
            }
            drop((0..10).fold(Var::parameter(Tensor::scalar(1.0)), |y, _| &y * 1.5));
            tape::with_default_generator(|g| g.next_u64());
            GRAPH.set(Some(graph()));
        };
        std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap().join().unwrap();
        assert_eq!(pool_stats().live_bytes, before);
    }
}

#[test]
fn a_steady_loop_asks_the_system_for_nothing() {
    let _lock = MEMORY.lock().unwrap_or_else(|e| e.into_inner());
    let w = Var::parameter(Tensor::ones(&[64, 64], DType::F32));
    let step = || {
        let y = (&w * &w).exp() / (&w + 1.0);
        y.sum_all().backward();
        let g = w.take_grad().unwrap().into_tensor();
        w.update(|v| {
            v.make_mut::<f32>().iter_mut().zip(g.as_slice::<f32>().unwrap()).for_each(|(v, g)| *v -= 1e-3 * g)
        });
    };
    (0..3).for_each(|_| step());
    let before = pool_stats();
    for _ in 0..20 {
        step();
        assert_eq!(pool_stats().live_bytes, before.live_bytes);
    }
    assert_eq!(pool_stats().system_allocations, before.system_allocations);
}
