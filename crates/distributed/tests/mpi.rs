//! The scenarios with ranks that are processes: this program starts itself under `mpirun`. Skipped, with a message, without the
//! feature `mpi` or without `mpirun`.

#![allow(dead_code)]

mod scenarios;

use scenarios::training::train;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tapegrad_distributed::Communicator;
use tapegrad_nn::Checkpoint;

/// The step before which a rank is killed.
const KILLED_AT: u64 = 5;
const EPOCHS: u64 = 4;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if Communicator::is_launched() {
        return rank(&args[1], args.get(2).map(Path::new));
    }
    if !cfg!(feature = "mpi") {
        return println!("skipped: built without the feature `mpi`");
    }
    if Command::new("mpirun").arg("--version").output().is_err() {
        return println!("skipped: there is no mpirun");
    }
    for ranks in [1, 2, 4] {
        let begin = Instant::now();
        let output = mpirun(ranks, &["scenarios"]);
        assert!(output.status.success(), "{}", text(&output));
        println!("all scenarios with {ranks} ranks: {:.1} s", begin.elapsed().as_secs_f64());
    }
    killed_and_resumed();
    a_panic_ends_all();
    a_rank_that_hangs_is_named();
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn mpirun(ranks: usize, args: &[&str]) -> Output {
    let own = std::env::current_exe().expect("this program");
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", &ranks.to_string()]);
    // More ranks than cores: they give way while they wait.
    command.env("OMPI_MCA_mpi_yield_when_idle", "1").env("OMPI_MCA_btl_vader_single_copy_mechanism", "none");
    command.arg(own).args(args).output().expect("mpirun starts")
}

/// What each rank does.
fn rank(task: &str, folder: Option<&Path>) {
    let comm = Communicator::world().unwrap_or_else(|e| panic!("{e}"));
    tapegrad_tape::set_num_threads(1);
    match task {
        "scenarios" => {
            for (name, scenario) in scenarios::ALL {
                let begin = Instant::now();
                scenario(&comm);
                if comm.rank() == 0 {
                    println!("{name}: {:.2} s", begin.elapsed().as_secs_f64());
                }
            }
        }
        "killed" => {
            let (own, last) = (comm.rank(), comm.size() - 1);
            train(&comm, folder, EPOCHS, |step| {
                if step == KILLED_AT && own == last {
                    Command::new("kill").args(["-KILL", &std::process::id().to_string()]).status().unwrap();
                    std::thread::sleep(Duration::from_secs(60));
                }
            });
        }
        "resumed" => {
            let (weights, _) = train(&comm, folder, EPOCHS, |step| assert!(step >= KILLED_AT));
            let (expected, _) = train(&Communicator::single(), None, EPOCHS, |_| {});
            assert_eq!(weights, expected);
        }
        "panic" => {
            if comm.rank() == 1 {
                panic!("on purpose");
            }
            comm.barrier().unwrap_or_else(|e| panic!("{e}"));
        }
        "hang" => {
            let comm = comm.timeout(Duration::from_secs(2));
            comm.barrier().unwrap();
            if comm.rank() == 2 {
                std::thread::sleep(Duration::from_secs(60));
            }
            comm.barrier().unwrap_or_else(|e| panic!("{e}"));
        }
        other => panic!("there is no task {other}"),
    }
}

fn killed_and_resumed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a name");
    let begin = Instant::now();
    let output = mpirun(4, &["killed", path]);
    let (message, taken) = (text(&output), begin.elapsed());
    assert!(!output.status.success() && taken < Duration::from_secs(30), "{taken:?}: {message}");
    assert!(message.contains("rank 3") && message.contains("signal 9"), "{message}");
    let checkpoint = Checkpoint::load(folder.path().join("last.safetensors")).expect("it is whole");
    assert_eq!(checkpoint.numbers("progress").expect("a trainer's")[1] as u64, KILLED_AT);
    println!("a rank was killed: the others ended, {:.1} s after the start", taken.as_secs_f64());
    let output = mpirun(2, &["resumed", path]);
    assert!(output.status.success(), "{}", text(&output));
    println!("resumed with 2 ranks: the same bits");
}

fn a_panic_ends_all() {
    let begin = Instant::now();
    let output = mpirun(3, &["panic"]);
    let message = text(&output);
    assert!(!output.status.success() && begin.elapsed() < Duration::from_secs(30), "{message}");
    assert!(message.contains("rank 1 of 3 has panicked"), "{message}");
    println!("a panic of one rank ended all");
}

fn a_rank_that_hangs_is_named() {
    let begin = Instant::now();
    let output = mpirun(4, &["hang"]);
    let message = text(&output);
    assert!(!output.status.success() && begin.elapsed() < Duration::from_secs(30), "{message}");
    assert!(message.contains("barrier: rank 2 has not come within 2s"), "{message}");
    println!("a rank that hangs was named by the others");
}
