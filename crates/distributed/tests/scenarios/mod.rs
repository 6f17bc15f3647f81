//! What the tests do on each rank, whichever way the ranks communicate.

pub(crate) mod training;

use tapegrad_distributed::{Communicator, DdpOptions, DistributedDataParallel, Reduce};
use tapegrad_nn::optim::{AdamW, Optimizer, SGD};
use tapegrad_nn::{
    BatchNorm2d, Conv2d, Dropout, Flatten, Forward, Linear, Module, ReLU, Sequential, module, sequential,
};
use tapegrad_tape::{DType, Generator, Tensor, Var, bf16, manual_seed};

/// A test, by its name.
pub(crate) type Scenario = (&'static str, fn(&Communicator));

/// All of them.
pub(crate) const ALL: &[Scenario] = &[
    ("collective calls", collective_calls),
    ("calls that do not wait", calls_that_do_not_wait),
    ("a thousand tiny sums", a_thousand_tiny_sums),
    ("gradients are those of one process", gradients_of_one_process),
    ("the same bits for every number of ranks", same_bits),
    ("tails of other sizes", unequal_tails),
    ("buckets in every order", buckets_in_every_order),
    ("no_sync accumulates", no_sync_accumulates),
    ("unused parameters", unused_parameters),
    ("ranks that differ are told", ranks_that_differ),
    ("buffers are those of rank 0", buffers_of_rank_0),
    ("normalization over ranks", training::normalization_over_ranks),
    ("optimizer states divided among ranks", training::divided_states),
    ("divided optimizers switch all weights", training::divided_weights_are_switched),
    ("trainers agree for every number of ranks", training::trainers_agree),
    ("trainers that differ are told", training::trainers_that_differ),
];

fn collective_calls(comm: &Communicator) {
    let (rank, size) = (comm.rank(), comm.size());
    for dtype in [DType::F32, DType::F64, DType::BF16, DType::I64] {
        for n in [0usize, 1, 3, 1000] {
            let mine = Tensor::full_with(&[n], 1 + rank as i64, dtype);
            let sum = (1..=size as i64).sum::<i64>() as f64;
            for (how, value) in [
                (Reduce::Sum, sum),
                (Reduce::SumAnyOrder, sum),
                (Reduce::Max, size as f64),
                (Reduce::Min, 1.0),
            ] {
                let all = comm.all_reduce(mine.clone(), how).unwrap();
                assert_eq!(
                    (all.dtype(), all.to_vec::<f64>()),
                    (dtype, vec![value; n]),
                    "{how:?} of {n} {dtype}"
                );
            }
            // The argument is as it was.
            assert_eq!(mine.to_vec::<f64>(), vec![1.0 + rank as f64; n]);
            let each = n.div_ceil(size);
            let own = (n - (rank * each).min(n)).min(each);
            let part = comm.reduce_scatter(mine.clone(), Reduce::Sum).unwrap();
            assert_eq!(part.to_vec::<f64>(), vec![sum; own]);
            let gathered = comm.all_gather(&mine).unwrap();
            assert_eq!(gathered.shape(), [size, n]);
            let expected: Vec<f64> = (0..size).flat_map(|r| vec![1.0 + r as f64; n]).collect();
            assert_eq!(gathered.to_vec::<f64>(), expected);
            let root = size - 1;
            assert_eq!(comm.broadcast(mine, root).unwrap().to_vec::<f64>(), vec![size as f64; n]);
        }
    }
    let bytes = vec![rank as u8; rank * 3];
    let all = comm.all_gather_bytes(&bytes).unwrap();
    assert_eq!(all, (0..size).map(|r| vec![r as u8; r * 3]).collect::<Vec<_>>());
    let sent: &[u8] = if rank == 0 { b"from rank 0" } else { b"" };
    assert_eq!(comm.broadcast_bytes(sent).unwrap(), b"from rank 0");
    comm.barrier().unwrap();
    let half = Tensor::from_slice(&[bf16::from_f32(1.5)], &[1]);
    assert_eq!(comm.all_reduce(half, Reduce::Sum).unwrap().to_vec::<f64>(), [1.5 * size as f64]);
}

fn calls_that_do_not_wait(comm: &Communicator) {
    let mine = |i: i64| Tensor::full_with(&[500], i + comm.rank() as i64, DType::F32);
    let sums: Vec<_> = (0..20).map(|i| comm.start_all_reduce(mine(i), Reduce::Sum).unwrap()).collect();
    let gathered = comm.start_all_gather(&mine(7)).unwrap();
    let barrier = comm.start_barrier().unwrap();
    let shares = comm.start_reduce_scatter(mine(3), Reduce::Max).unwrap();
    let sent = comm.start_broadcast(mine(5), 0).unwrap();
    // The results are asked for in another order, and one is never asked for.
    drop(comm.start_all_reduce(mine(1), Reduce::Sum).unwrap());
    assert_eq!(sent.wait().unwrap().to_vec::<f32>(), vec![5.0; 500]);
    assert_eq!(gathered.wait().unwrap().numel(), 500 * comm.size());
    let top = (3 + comm.size() - 1) as f32;
    let shares = shares.wait().unwrap().to_vec::<f32>();
    assert!(shares.contains(&top));
    for (i, sum) in sums.into_iter().enumerate().rev() {
        let expected = (0..comm.size()).map(|r| (i + r) as f32).sum::<f32>();
        assert_eq!(sum.wait().unwrap().to_vec::<f32>(), vec![expected; 500]);
    }
    while !barrier.is_done().unwrap() {}
}

fn a_thousand_tiny_sums(comm: &Communicator) {
    let pending: Vec<_> = (0..1000)
        .map(|i| comm.start_all_reduce(Tensor::full(&[1 + i % 7], i as f64), Reduce::Sum).unwrap())
        .collect();
    for (i, sum) in pending.into_iter().enumerate() {
        assert_eq!(sum.wait().unwrap().to_vec::<f32>()[0], (i * comm.size()) as f32);
    }
}

/// Images, and the classes of a rule.
fn batch(samples: usize, seed: u64) -> (Var, Var) {
    let x = Generator::manual_seed(seed).normal(&[samples, 3, 8, 8], 0.0, 1.0);
    let classes = x.to_vec::<f32>().chunks(192).map(|image| i64::from(image[0] > 0.0)).collect::<Vec<_>>();
    (Var::from(x), Var::from_vec(classes, &[samples]))
}

fn rows(v: &Var, range: std::ops::Range<usize>) -> Var {
    v.narrow(0, range.start, range.len())
}

fn net() -> Sequential {
    manual_seed(5);
    sequential![
        Conv2d::new(3, 8, 3),
        BatchNorm2d::new(8),
        ReLU::new(),
        Flatten::new(),
        Dropout::new(0.3),
        Linear::new(288, 32),
        ReLU::new(),
        Linear::new(32, 2)
    ]
}

fn plain_net() -> Sequential {
    manual_seed(6);
    sequential![Flatten::new(), Linear::new(192, 32), ReLU::new(), Linear::new(32, 2)]
}

fn bits(model: &dyn Forward) -> Vec<(String, Vec<u64>)> {
    let state = model.state_dict();
    let list = |t: &Tensor| t.to_vec::<f64>().iter().map(|x| x.to_bits()).collect();
    state.iter().map(|(name, t)| (name.to_string(), list(t))).collect()
}

/// The samples of a batch that a rank has.
fn block(comm: &Communicator, total: usize) -> std::ops::Range<usize> {
    (comm.rank() * total).div_ceil(comm.size())..((comm.rank() + 1) * total).div_ceil(comm.size())
}

fn gradients_of_one_process(comm: &Communicator) {
    for deterministic in [true, false] {
        let alone = plain_net();
        let (x, t) = batch(24, 1);
        tapegrad_ops::cross_entropy(&alone.forward(&x), &t).backward();
        let options = DdpOptions::new().deterministic(deterministic).bucket_bytes(1000);
        let model = DistributedDataParallel::with_options(plain_net(), comm, options).unwrap();
        let mut optimizer = model.optimizer(SGD::new(model.parameters(), 0.0));
        for step in 0..3 {
            optimizer.zero_grad();
            let own = block(comm, 24);
            tapegrad_ops::cross_entropy(&model.forward(&rows(&x, own.clone())), &rows(&t, own)).backward();
            if step == 0 {
                optimizer.step();
            } else {
                model.synchronize().unwrap();
            }
            for (a, b) in alone.parameters().iter().zip(model.parameters()) {
                tapegrad_tape::assert_close(&b.grad().expect("a gradient"), &a.grad().unwrap());
            }
        }
        let norm = tapegrad_nn::optim::clip_grad_norm_(&alone.parameters(), 0.1);
        assert!((model.clip_grad_norm_(0.1).unwrap() - norm).abs() < 1e-5 * norm);
    }
}

/// Trains on all samples, of which each rank has its block, and returns all weights and buffers.
fn trained(comm: &Communicator, options: DdpOptions, batches: &[usize]) -> Vec<(String, Vec<u64>)> {
    let model = DistributedDataParallel::with_options(net(), comm, options).unwrap();
    let mut optimizer = model.optimizer(AdamW::new(model.parameters(), 0.01));
    manual_seed(9);
    for (step, &total) in batches.iter().enumerate() {
        let (x, t) = batch(total, step as u64);
        let own = block(comm, total);
        let (x, t) = (rows(&x, own.clone()), rows(&t, own.clone()));
        optimizer.zero_grad();
        let loss = |part: std::ops::Range<usize>| {
            tapegrad_ops::cross_entropy(&model.module().forward(&rows(&x, part.clone())), &rows(&t, part))
        };
        let mean = model.backward(own.len(), loss).unwrap();
        assert!(mean.is_finite());
        let norm = model.clip_grad_norm_(1.0).unwrap();
        assert!(norm > 0.0);
        optimizer.step();
    }
    bits(&model)
}

fn same_bits(comm: &Communicator) {
    let batches = [16, 16, 32, 16];
    let alone = trained(&Communicator::single(), DdpOptions::new(), &batches);
    assert_eq!(trained(comm, DdpOptions::new(), &batches), alone);
    assert_eq!(trained(comm, DdpOptions::new().bucket_bytes(100).first_bucket_bytes(10), &batches), alone);
    // Other shards, other bits: the test can see a difference.
    let other = trained(&Communicator::single(), DdpOptions::new().shards(4), &batches);
    assert_ne!(other, alone);
    if 16usize.is_multiple_of(comm.size()) {
        assert_eq!(trained(comm, DdpOptions::new().shards(16), &[16, 16]), {
            trained(&Communicator::single(), DdpOptions::new().shards(16), &[16, 16])
        });
    }
}

fn unequal_tails(comm: &Communicator) {
    let batches = [16, 13, 7, 3, 1];
    let alone = trained(&Communicator::single(), DdpOptions::new(), &batches);
    assert_eq!(trained(comm, DdpOptions::new(), &batches), alone);
    // Blocks that nobody planned: rank 0 has one sample, the last rank all others. The mean is still that of all.
    let (x, t) = batch(9, 3);
    let reference = plain_net();
    tapegrad_ops::cross_entropy(&reference.forward(&x), &t).backward();
    let last = comm.rank() + 1 == comm.size();
    let own = match comm.rank() {
        0 if last => 0..9,
        0 => 0..1,
        _ if last => 1..9,
        _ => 0..0,
    };
    let model = DistributedDataParallel::new(plain_net(), comm).unwrap();
    let (x, t) = (rows(&x, own.clone()), rows(&t, own.clone()));
    let loss = |part: std::ops::Range<usize>| {
        tapegrad_ops::cross_entropy(&model.forward(&rows(&x, part.clone())), &rows(&t, part))
    };
    model.backward(own.len(), loss).unwrap();
    for (a, b) in reference.parameters().iter().zip(model.parameters()) {
        tapegrad_tape::assert_close(&b.grad().unwrap(), &a.grad().unwrap());
    }
}

module! {
    /// Layers that are used in the order that a list gives.
    pub struct InOrder {
        layers: Vec<Linear>,
        order: Vec<usize>,
    }
}

impl Forward for InOrder {
    fn forward(&self, x: &Var) -> Var {
        self.order.iter().fold(x.clone(), |x, &i| self.layers[i].forward(&x).tanh())
    }
}

/// A model whose layers are used in an order of their own: their gradients become ready in the reverse of it.
pub(crate) fn in_order(order: Vec<usize>) -> InOrder {
    manual_seed(3);
    let count = order.iter().max().map_or(0, |&n| n + 1);
    InOrder { layers: (0..count).map(|_| Linear::new(6, 6)).collect(), order }
}

/// The gradients of all ranks' samples, with buckets of some size and layers in some order, are those of one process.
pub(crate) fn bucket_order(comm: &Communicator, order: Vec<usize>, first: usize, bytes: usize) {
    let x = Var::from(Generator::manual_seed(8).normal(&[8, 6], 0.0, 1.0));
    let gradients = |comm: &Communicator| {
        let options = DdpOptions::new().first_bucket_bytes(first).bucket_bytes(bytes);
        let model = DistributedDataParallel::with_options(in_order(order.clone()), comm, options).unwrap();
        let mut all = Vec::new();
        for _ in 0..3 {
            model.parameters().iter().for_each(Var::zero_grad);
            let own = block(comm, 8);
            let x = rows(&x, own.clone());
            model.backward(own.len(), |part| model.forward(&rows(&x, part)).square().mean_all()).unwrap();
            all.push(
                model.parameters().iter().map(|p| p.grad().unwrap().to_vec::<f32>()).collect::<Vec<_>>(),
            );
        }
        all
    };
    assert_eq!(gradients(comm), gradients(&Communicator::single()));
}

fn buckets_in_every_order(comm: &Communicator) {
    let mut rng = Generator::manual_seed(11);
    for _ in 0..20 {
        let mut order: Vec<usize> = (0..5).collect();
        rng.shuffle(&mut order);
        bucket_order(comm, order, rng.below(400), rng.below(800));
    }
}

fn no_sync_accumulates(comm: &Communicator) {
    let model = DistributedDataParallel::new(plain_net(), comm).unwrap();
    let reference = plain_net();
    let (x, t) = batch(24, 2);
    let loss = |model: &dyn Forward, x: &Var, t: &Var| tapegrad_ops::cross_entropy(&model.forward(x), t);
    loss(&reference, &x, &t).backward();
    let own = block(comm, 24);
    let (x, t) = (rows(&x, own.clone()), rows(&t, own.clone()));
    let half = own.len() / 2;
    model.no_sync(|| (loss(&model, &rows(&x, 0..half), &rows(&t, 0..half)) * 0.5).backward());
    assert!(model.parameters()[0].grad().is_some());
    (loss(&model, &rows(&x, half..own.len()), &rows(&t, half..own.len())) * 0.5).backward();
    model.synchronize().unwrap();
    for (a, b) in reference.parameters().iter().zip(model.parameters()) {
        tapegrad_tape::assert_close(&b.grad().unwrap(), &a.grad().unwrap());
    }
    // Two passes outside of it are an error.
    model.parameters().iter().for_each(Var::zero_grad);
    loss(&model, &x, &t).backward();
    loss(&model, &x, &t).backward();
    let error = model.synchronize().unwrap_err().to_string();
    assert!(error.contains("a second gradient") && error.contains("no_sync"), "{error}");
}

module! {
    /// Two layers, of which some ranks use one.
    struct Branches {
        always: Linear,
        sometimes: Linear,
        never: Linear,
    }
}

fn unused_parameters(comm: &Communicator) {
    let make = || {
        manual_seed(2);
        Branches { always: Linear::new(4, 4), sometimes: Linear::new(4, 4), never: Linear::new(4, 4) }
    };
    let x = Var::from(Tensor::ones(&[2, 4]));
    let run = |model: &Branches| {
        let y = model.always.forward(&x);
        let y = if comm.rank() == 0 { model.sometimes.forward(&y) } else { y };
        y.sum_all().backward();
    };
    let options = DdpOptions::new().find_unused_parameters(true);
    let model = DistributedDataParallel::with_options(make(), comm, options).unwrap();
    for _ in 0..3 {
        model.parameters().iter().for_each(Var::zero_grad);
        run(model.module());
        model.synchronize().unwrap();
        let m = model.module();
        assert!(m.never.weight.grad().is_none() && m.always.weight.grad().is_some());
        // The mean of one gradient and zeros.
        let expected = make();
        let y = expected.always.forward(&x);
        expected.sometimes.forward(&y).sum_all().backward();
        let expected = expected.sometimes.weight.grad().unwrap().tensor().to_vec::<f64>();
        let found = m.sometimes.weight.grad().unwrap().to_vec::<f64>();
        assert!(expected.iter().zip(found).all(|(a, b)| (a / comm.size() as f64 - b).abs() < 1e-6));
    }
    let model = DistributedDataParallel::new(make(), comm).unwrap();
    run(model.module());
    let error = model.synchronize().unwrap_err().to_string();
    assert!(error.contains("never.weight") && error.contains("find_unused_parameters"), "{error}");
    assert_eq!(error.contains("sometimes.bias (ranks [1"), comm.size() > 1, "{error}");
    assert!(!error.contains("always"), "{error}");
}

fn ranks_that_differ(comm: &Communicator) {
    if comm.size() == 1 {
        return;
    }
    let last = comm.size() - 1;
    let width = if comm.rank() == last { 5 } else { 4 };
    let error = DistributedDataParallel::new(Linear::new(3, width), comm).err().expect("refused").to_string();
    assert!(error.contains("weight of shape [4, 3]") && error.contains("weight of shape [5, 3]"), "{error}");
    assert!(error.contains("rank 0 has") && error.contains(&format!("rank {last} has")), "{error}");
    let options = DdpOptions::new().bucket_bytes(100 + comm.rank());
    let error = DistributedDataParallel::with_options(Linear::new(3, 4), comm, options).err().unwrap();
    assert!(error.to_string().contains("bucket_bytes: 100"), "{error}");
    let options = DdpOptions::new().shards(comm.size() * 3);
    let error = DistributedDataParallel::with_options(Linear::new(3, 4), comm, options).err().unwrap();
    assert!(error.to_string().contains("virtual shards cannot be divided"), "{error}");
}

fn buffers_of_rank_0(comm: &Communicator) {
    let model = DistributedDataParallel::new(net(), comm).unwrap();
    let mean = |model: &DistributedDataParallel<Sequential>| {
        model.state_dict().get("1.running_mean").unwrap().clone()
    };
    let (x, _) = batch(4, comm.rank() as u64);
    model.forward(&x);
    let own = mean(&model);
    model.forward(&x);
    // The second pass began with those of rank 0 after the first one.
    let first = comm.broadcast(own, 0).unwrap();
    model.broadcast_buffers().unwrap();
    let all = comm.all_gather(&mean(&model)).unwrap().to_vec::<f32>();
    assert!(all.chunks(8).all(|part| part == &all[..8]));
    assert_ne!(&all[..8], first.to_vec::<f32>());
}
