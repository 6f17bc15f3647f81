//! The tape's guarantees about memory. It is counted for the whole process, so these tests take turns and have a
//! process of their own.

use std::cell::RefCell;
use std::sync::Mutex;
use tapegrad_tape::{DType, Element, Tensor, Var, pool_stats};

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
            tapegrad_tape::with_default_generator(|g| g.next_u64());
            GRAPH.set(Some(graph()));
        };
        std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap().join().unwrap();
        assert_eq!(pool_stats().live_bytes, before);
    }
}

#[test]
fn a_steady_loop_asks_the_system_for_nothing() {
    let _lock = MEMORY.lock().unwrap_or_else(|e| e.into_inner());
    let w = Var::parameter(Tensor::ones_with(&[64, 64], DType::F32));
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

/// The bytes that `backward` asks for, of a tensor of `n` entries that is cut into pieces of one.
fn bytes_of_backward(n: usize, cut: impl Fn(&Var) -> Vec<Var>) -> usize {
    let x = Var::parameter(Tensor::ones_with(&[n, 8, 32], DType::F32));
    let parts = cut(&x);
    let loss = parts.iter().map(|p| p.sum_all()).reduce(|a, b| a + b).unwrap();
    let before = pool_stats().allocated_bytes;
    loss.backward();
    assert_eq!(x.grad().unwrap().to_vec::<f32>(), vec![1.0; n * 256]);
    pool_stats().allocated_bytes - before
}

#[test]
fn backward_of_many_pieces_takes_memory_for_one_gradient() {
    let _lock = MEMORY.lock().unwrap_or_else(|e| e.into_inner());
    let all = |n: usize, f: &dyn Fn(usize) -> Var| (0..n).map(f).collect::<Vec<_>>();
    let cuts: [(&str, &dyn Fn(&Var) -> Vec<Var>); 6] = [
        ("unbind", &|x| x.unbind(0)),
        ("split", &|x| x.split(1, 0)),
        ("chunk", &|x| x.chunk(x.shape()[0], 0)),
        ("select", &|x| all(x.shape()[0], &|i| x.select(0, i))),
        ("slice", &|x| all(x.shape()[0], &|i| x.slice(0, i..i + 1))),
        ("index_select", &|x| {
            all(x.shape()[0], &|i| x.index_select(0, &Var::from_vec(vec![i as i64], &[1])))
        }),
    ];
    for (name, cut) in cuts {
        let (small, large) = (bytes_of_backward(50, cut), bytes_of_backward(400, cut));
        assert!(large < 9 * small, "{name}: {small} bytes for 50 pieces, {large} for 400");
    }
}

/// Many sizes, and more bytes than are kept whatever was in use: what a step drops is there for the next one.
#[test]
fn a_steady_loop_of_large_tensors_asks_the_system_for_nothing() {
    let _lock = MEMORY.lock().unwrap_or_else(|e| e.into_inner());
    let w = Var::parameter(Tensor::ones_with(&[3 << 20], DType::F32));
    let step = || {
        let mut y = w.clone();
        for k in (5..=10).rev() {
            y = (y.narrow(0, 0, k << 18) * 0.5).exp();
        }
        y.sum_all().backward();
        drop(w.take_grad());
    };
    (0..3).for_each(|_| step());
    let before = pool_stats();
    assert!(before.peak_live_bytes > 64 << 20, "{before:?}");
    (0..5).for_each(|_| step());
    assert_eq!(pool_stats().system_allocations, before.system_allocations);
}

#[test]
fn a_vector_keeps_its_memory() {
    let _lock = MEMORY.lock().unwrap_or_else(|e| e.into_inner());
    fn check<T: Element>(mut data: Vec<T>) {
        data.reserve(7);
        let (memory, n, values) = (data.as_ptr(), data.len(), data.clone());
        let live = pool_stats().live_bytes;
        let t = Tensor::from_vec(data, n);
        assert_eq!(pool_stats().live_bytes, live);
        assert_eq!(t.as_slice::<T>().unwrap().as_ptr(), memory);
        // What is shared, or only a part, is copied; what is not is written and returned in place.
        let shared = t.clone();
        let copy = shared.into_vec::<T>();
        assert_ne!(copy.as_ptr(), memory);
        let view = t.reshape(&[1, n]);
        drop(t);
        let mut t = view;
        t.make_mut::<T>()[0] = values[n - 1];
        assert_eq!(t.narrow(1, 1, n - 1).into_vec::<T>(), values[1..]);
        let back = t.into_vec::<T>();
        assert_eq!((back.as_ptr(), back[0]), (memory, values[n - 1]));
        assert_eq!(back[1..], values[1..]);
    }
    check(vec![1f32, 2.0, 3.0]);
    check(vec![1f64, 2.0]);
    check(vec![1i64; 100_000]);
    check(vec![3u8, 4, 5]);
    check(vec![false, true, true]);
    check([1.0, 2.0].map(half::f16::from_f32).to_vec());
    check([1.0, 2.0].map(half::bf16::from_f32).to_vec());
    assert_eq!(Tensor::from_vec(vec![1f32, 2.5], 2).into_vec::<i64>(), [1, 2]);
    assert_eq!(Tensor::arange(0, 3).into_vec::<i64>(), [0, 1, 2]);
    assert!(Tensor::from_vec(Vec::<f32>::new(), (0, 3)).into_vec::<f32>().is_empty());
    assert_eq!(Tensor::from_vec(vec![1f32, 2.0], 2).expand(&[2, 2]).into_vec::<f32>(), [1.0, 2.0, 1.0, 2.0]);
}
