use super::*;
use proptest::prelude::*;
use tapegrad_tape::DType;

/// One object in both formats of PyTorch 2.15: `{"model": state_dict, "epoch": 3, ...}`.
const FILES: [&[u8]; 2] = [include_bytes!("new.pt"), include_bytes!("legacy.pt")];

#[test]
fn reads_what_pytorch_wrote() {
    for bytes in FILES {
        let state = StateDict::from_torch(bytes).unwrap();
        let values = |key: &str| {
            let t = state.get(key).unwrap_or_else(|| panic!("{key}"));
            (t.dtype(), t.shape().to_vec(), t.to_vec::<f64>())
        };
        // torch.arange(12.).view(3, 4).t()[1:, ::2]
        assert_eq!(values("model.strided"), (DType::F32, vec![3, 2], vec![1.0, 9.0, 2.0, 10.0, 3.0, 11.0]));
        assert_eq!(values("model.row"), (DType::F32, vec![4], vec![4.0, 5.0, 6.0, 7.0]));
        assert_eq!(values("model.tied.a"), (DType::F32, vec![2], vec![1.5, -2.0]));
        let [a, b] = ["model.tied.a", "model.tied.b"].map(|key| state.get(key).unwrap());
        assert!(a.shares_memory_with(b));
        assert_eq!(values("model.half"), (DType::F16, vec![2], vec![1.0, 0.5]));
        assert_eq!(values("model.brain"), (DType::BF16, vec![2, 1], vec![3.0, 0.25]));
        assert_eq!(values("model.int"), (DType::I64, vec![2], vec![1.0, -7.0]));
        assert_eq!(state.stored_type("model.int"), Some(crate::StoredType::I32));
        assert_eq!(values("model.flag"), (DType::Bool, vec![], vec![1.0]));
        assert_eq!(values("model.empty"), (DType::F32, vec![0, 3], vec![]));
        assert_eq!((values("list.0").2, values("list.1.x").2), (vec![5.0], vec![2.0]));
        assert_eq!(values("state.0.step"), (DType::F32, vec![], vec![4.0]));
        assert_eq!(state.len(), 12);
        let note = |key: &str| state.metadata.get(key).map(String::as_str);
        assert_eq!(
            [note("epoch"), note("lr"), note("name"), note("done")],
            [Some("3"), Some("0.1"), Some("net"), Some("false")]
        );
        assert_eq!(note("none"), None);
    }
}

#[test]
fn what_is_written_is_read_back() {
    let state = StateDict::from_torch(FILES[0]).unwrap();
    let bytes = state.to_torch().unwrap();
    let back = StateDict::from_torch(&bytes).unwrap();
    assert_eq!(back.keys().collect::<Vec<_>>(), state.keys().collect::<Vec<_>>());
    for (key, t) in state.iter() {
        let b = back.get(key).unwrap();
        assert_eq!((b.dtype(), b.shape(), b.to_vec::<f64>()), (t.dtype(), t.shape(), t.to_vec()), "{key}");
        assert_eq!(back.stored_type(key), state.stored_type(key), "{key}");
    }
    let [a, b] = ["model.tied.a", "model.tied.b"].map(|key| back.get(key).unwrap());
    assert!(a.shares_memory_with(b), "tied tensors are written once");
    // Storages begin at multiples of 64.
    let mut archive = ZipArchive::new(Cursor::new(&bytes)).unwrap();
    for i in 0..archive.len() {
        let entry = archive.by_index(i).unwrap();
        assert_eq!(entry.data_start().unwrap() % 64, 0, "member {i}");
    }
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        archive.start_file(format!("archive/{name}"), options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// A pickle of one tensor with this offset, shape and strides, on a storage of this many floats.
fn one(offset: &str, shape: &str, strides: &str, numel: &str) -> Vec<u8> {
    format!(
        "(dVx\nctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI{numel}\ntQ\
         I{offset}\n({shape}t({strides}tI00\nccollections\nOrderedDict\n(tRtRs."
    )
    .into_bytes()
}

#[test]
fn tensors_stay_within_their_storages() {
    let zeros = [0; 24];
    let read = |pickle: &[u8]| StateDict::from_torch(&archive(&[("data.pkl", pickle), ("data/0", &zeros)]));
    let message = |pickle: &[u8]| read(pickle).unwrap_err().to_string();
    assert_eq!(read(&one("1", "I5\n", "I1\n", "6")).unwrap().get("x").unwrap().shape(), [5]);
    for (offset, shape, strides) in [
        ("2", "I5\n", "I1\n"),
        ("0", "I2\nI3\n", "I4\nI1\n"),
        ("0", "I2\n", "I9223372036854775807\n"),
        ("9223372036854775807", "I1\n", "I1\n"),
    ] {
        let text = message(&one(offset, shape, strides, "6"));
        assert!(text.contains("x: shape") && text.contains("lie outside the 24 bytes"), "{text}");
    }
    // One element repeated: a shape may claim far more than the file holds.
    for shape in ["I1000000\nI1000000\n", "I4611686018427387904\nI4\n"] {
        let text = message(&one("0", shape, "I0\nI0\n", "6"));
        assert!(text.contains("is larger than the file justifies"), "{text}");
    }
    assert!(message(&one("-1", "I1\n", "I1\n", "6")).contains("RebuildTensor with other arguments"));
    assert!(message(&one("0", "I1\n", "I1\nI1\n", "6")).contains("RebuildTensor with other arguments"));
    let missing = StateDict::from_torch(&archive(&[("data.pkl", &one("0", "I1\n", "I1\n", "6"))]));
    assert!(missing.unwrap_err().to_string().starts_with("x: "));
}

#[test]
fn other_files_are_refused_by_name() {
    let message =
        |members: &[(&str, &[u8])]| StateDict::from_torch(&archive(members)).unwrap_err().to_string();
    assert!(message(&[("x", b"")]).contains("holds no data.pkl"));
    assert!(message(&[("data.pkl", b"cos\nsystem\n.")]).contains("found the global os.system"));
    assert!(message(&[("data.pkl", b"}."), ("byteorder", b"big")]).contains("big-endian"));
    assert!(StateDict::from_torch(b"PK").unwrap_err().to_string().contains("not a file of torch.save"));
    // A list that contains itself, and lists that double with each level.
    assert!(message(&[("data.pkl", b"]q\x00h\x00a.")]).contains("deeper nesting"));
    let mut doubling = b"]q\x00".to_vec();
    for level in 0..28u8 {
        doubling.extend([b']', b'q', level + 1, b'(', b'h', level, b'h', level, b'e']);
    }
    doubling.push(b'.');
    // The innermost list is empty, so that only the walk could take long.
    assert!(message(&[("data.pkl", &doubling)]).contains("more values than a checkpoint has"));
}

#[test]
fn a_bomb_is_refused_unless_the_caller_allows_it() {
    let bytes =
        archive(&[("data.pkl", &one("0", "I1048576\n", "I1\n", "1048576")), ("data/0", &vec![0; 4 << 20])]);
    assert!(StateDict::from_torch(&bytes).is_err());
    let state = LoadOptions::new().max_bytes(9 << 20).from_torch(&bytes).unwrap();
    assert_eq!(state.get("x").unwrap().numel(), 1 << 20);
}

proptest! {
    #[test]
    fn altered_files_do_not_panic(which in 0usize..2, at in any::<prop::sample::Index>(), value: u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = FILES[which].to_vec();
        let i = at.index(bytes.len());
        bytes[i] = value;
        let _ = StateDict::from_torch(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = StateDict::from_torch(&bytes);
    }
}
