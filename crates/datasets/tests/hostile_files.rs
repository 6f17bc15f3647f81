//! Mutated files of every form: no panic, and no more memory than the file's size and the format justify.

mod hostile;

use flate2::{Compression, write::GzEncoder};
use hostile::attack;
use std::io::Write;
use tapegrad_datasets::pickle::Pickle;
use tapegrad_datasets::{Cifar, csv, idx};

const KB: usize = 1 << 10;
const MB: usize = 1 << 20;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn images() -> Vec<u8> {
    let mut file = vec![0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0, 5];
    file.extend((0..120).map(|i| i * 2));
    file
}

/// Batches of two images in the binary form.
fn batch() -> Vec<u8> {
    (0..2u8).flat_map(|label| std::iter::once(label).chain((0..3072).map(|i| (i % 251) as u8))).collect()
}

/// The same images as Python 3 writes them in protocol 2, with bytes for keys.
fn pickle() -> Vec<u8> {
    let text = |s: &str| [b"X", &(s.len() as u32).to_le_bytes()[..], s.as_bytes()].concat();
    let bytes = |s: &str| [b"h\x01", &text(s)[..], b"h\x03\x86R"].concat();
    let pixels: String = (0..6144).map(|i| char::from((i % 251) as u8)).collect();
    let mut out =
        b"\x80\x02}q\x00(c_codecs\nencode\nq\x01X\x04\x00\x00\x00dataq\x02X\x06\x00\x00\x00latin1q\x03\x86R"
            .to_vec();
    out.extend(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85");
    out.extend(bytes("b"));
    out.extend(b"\x87R(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\n");
    out.extend(text("u1"));
    out.extend(b"\x89\x88\x87R(K\x03");
    out.extend(text("|"));
    out.extend(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89");
    out.extend(bytes(&pixels));
    out.extend(b"tb");
    out.extend(bytes("labels"));
    out.extend(b"](K\x03K\x07eu.");
    out
}

/// An archive of all files of a form.
fn archive(folder: &str, names: &[&str], content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for name in names {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("{folder}/{name}"), content).unwrap();
    }
    builder.into_inner().unwrap()
}

const PYTHON: [&str; 6] =
    ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];

/// A single test, since the allocator counts for all threads.
#[test]
fn mutated_files_neither_panic_nor_fill_the_memory() {
    let idx = |bytes: &[u8]| drop(idx::parse("f", bytes, 3));
    attack("idx", &images(), 20_000, 2, 4 * KB, idx);
    attack("idx.gz", &gzip(&images()), 5_000, 200, 256 * KB, idx);
    let text = "label,a,b,c\r\n5,0,1.0,\"255\"\r\n9,3,4,5\n".repeat(4);
    attack("csv", text.as_bytes(), 20_000, 64, 600 * KB, |bytes| drop(csv::parse("f", bytes, 3, 10)));

    let names = PYTHON.map(|name| format!("{name}.bin"));
    let binary = |bytes: &[u8]| drop(Cifar::parse_files(names.iter().map(|name| (&name[..], bytes))));
    attack("cifar binary", &batch(), 5_000, 24, 16 * KB, binary);
    let pickled = pickle();
    assert!(Cifar::parse_files(PYTHON.map(|name| (name, &pickled[..]))).is_ok());
    attack("pickle", &pickled, 20_000, 64, 64 * KB, |bytes| drop(Pickle::parse("f", bytes)));
    let lists = vec![b']'; 4_000];
    attack("pickle of lists", &lists, 1_000, 256, 64 * KB, |bytes| drop(Pickle::parse("f", bytes)));
    attack("cifar python", &pickled, 3_000, 64, 64 * KB, |bytes| {
        drop(Cifar::parse_files(PYTHON.map(|name| (name, bytes))));
    });

    let open = |bytes: &[u8]| drop(Cifar::parse_archive("f", bytes));
    let tar = archive("cifar-10-batches-py", &PYTHON, &pickled);
    assert!(Cifar::parse_archive("f", &gzip(&tar)).is_ok());
    attack("tar", &tar, 2_000, 16, 256 * KB, open);
    attack("tar.gz", &gzip(&tar), 1_000, 1000, MB, open);
    // Mutations before compression, so that the checksum matches.
    attack("tar in gz", &tar, 300, 16, MB, |bytes| open(&gzip(bytes)));
    attack("idx in gz", &images(), 3_000, 16, MB, |bytes| idx(&gzip(bytes)));
}
