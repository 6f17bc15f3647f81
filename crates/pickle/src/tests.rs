mod python3;

use super::machine::MOST_VALUES;
use super::*;
use proptest::prelude::*;
use python3::{BYTES_KEYS, TEXT_KEYS};

/// `pickle.dumps({"data": numpy.array([[1, 2, 250], [4, 5, 6]], "u1"), "labels": [3, 70000, -2], "raw": b"xy\xff",
/// "tuple": (1,), "float": 1.5, "none": None, "long": 2**40, "below": -2**40})` in protocols 2 to 5, numpy 2.4.6.
#[rustfmt::skip]
const PYTHON3: [&[u8]; 4] = [
    b"\x80\x02}q\x00(X\x04\x00\x00\x00dataq\x01cnumpy._core.multiarray\x0a_reconstruct\x0aq\x02cnumpy\x0andarray\x0aq\x03K\x00\x85q\x04c_codecs\x0aencode\x0aq\x05X\x01\x00\x00\x00bq\x06X\x06\x00\x00\x00latin1q\x07\x86q\x08Rq\x09\x87q\x0aRq\x0b(K\x01K\x02K\x03\x86q\x0ccnumpy\x0adtype\x0aq\x0dX\x02\x00\x00\x00u1q\x0e\x89\x88\x87q\x0fRq\x10(K\x03X\x01\x00\x00\x00|q\x11NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x12b\x89h\x05X\x07\x00\x00\x00\x01\x02\xc3\xba\x04\x05\x06q\x13h\x07\x86q\x14Rq\x15tq\x16bX\x06\x00\x00\x00labelsq\x17]q\x18(K\x03Jp\x11\x01\x00J\xfe\xff\xff\xffeX\x03\x00\x00\x00rawq\x19h\x05X\x04\x00\x00\x00xy\xc3\xbfq\x1ah\x07\x86q\x1bRq\x1cX\x05\x00\x00\x00tupleq\x1dK\x01\x85q\x1eX\x05\x00\x00\x00floatq\x1fG?\xf8\x00\x00\x00\x00\x00\x00X\x04\x00\x00\x00noneq NX\x04\x00\x00\x00longq!\x8a\x06\x00\x00\x00\x00\x00\x01X\x05\x00\x00\x00belowq\"\x8a\x06\x00\x00\x00\x00\x00\xffu.",
    b"\x80\x03}q\x00(X\x04\x00\x00\x00dataq\x01cnumpy._core.multiarray\x0a_reconstruct\x0aq\x02cnumpy\x0andarray\x0aq\x03K\x00\x85q\x04C\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02K\x03\x86q\x08cnumpy\x0adtype\x0aq\x09X\x02\x00\x00\x00u1q\x0a\x89\x88\x87q\x0bRq\x0c(K\x03X\x01\x00\x00\x00|q\x0dNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89C\x06\x01\x02\xfa\x04\x05\x06q\x0ftq\x10bX\x06\x00\x00\x00labelsq\x11]q\x12(K\x03Jp\x11\x01\x00J\xfe\xff\xff\xffeX\x03\x00\x00\x00rawq\x13C\x03xy\xffq\x14X\x05\x00\x00\x00tupleq\x15K\x01\x85q\x16X\x05\x00\x00\x00floatq\x17G?\xf8\x00\x00\x00\x00\x00\x00X\x04\x00\x00\x00noneq\x18NX\x04\x00\x00\x00longq\x19\x8a\x06\x00\x00\x00\x00\x00\x01X\x05\x00\x00\x00belowq\x1a\x8a\x06\x00\x00\x00\x00\x00\xffu.",
    b"\x80\x04\x95\x05\x01\x00\x00\x00\x00\x00\x00}\x94(\x8c\x04data\x94\x8c\x16numpy._core.multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x02K\x03\x86\x94h\x05\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94b\x89C\x06\x01\x02\xfa\x04\x05\x06\x94t\x94b\x8c\x06labels\x94]\x94(K\x03Jp\x11\x01\x00J\xfe\xff\xff\xffe\x8c\x03raw\x94C\x03xy\xff\x94\x8c\x05tuple\x94K\x01\x85\x94\x8c\x05float\x94G?\xf8\x00\x00\x00\x00\x00\x00\x8c\x04none\x94N\x8c\x04long\x94\x8a\x06\x00\x00\x00\x00\x00\x01\x8c\x05below\x94\x8a\x06\x00\x00\x00\x00\x00\xffu.",
    b"\x80\x05\x95\xf0\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x04data\x94\x8c\x13numpy._core.numeric\x94\x8c\x0b_frombuffer\x94\x93\x94(\x96\x06\x00\x00\x00\x00\x00\x00\x00\x01\x02\xfa\x04\x05\x06\x94\x8c\x05numpy\x94\x8c\x05dtype\x94\x93\x94\x8c\x02u1\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01|\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x02K\x03\x86\x94\x8c\x01C\x94t\x94R\x94\x8c\x06labels\x94]\x94(K\x03Jp\x11\x01\x00J\xfe\xff\xff\xffe\x8c\x03raw\x94C\x03xy\xff\x94\x8c\x05tuple\x94K\x01\x85\x94\x8c\x05float\x94G?\xf8\x00\x00\x00\x00\x00\x00\x8c\x04none\x94N\x8c\x04long\x94\x8a\x06\x00\x00\x00\x00\x00\x01\x8c\x05below\x94\x8a\x06\x00\x00\x00\x00\x00\xffu.",
];

/// A batch file as Python 2 writes it: two images of three bytes.
fn python2() -> Vec<u8> {
    let mut bytes = b"\x80\x02}(U\x0bbatch_labelU\x04noteU\x06labels](K\x07K\x01eU\x04data".to_vec();
    bytes.extend(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01M\x02\x00M\x03\x00\x86");
    bytes.extend(
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
    );
    bytes.extend(b"T\x06\x00\x00\x00\x0a\x0b\x0c\x0d\x0e\xfftbU\x09filenames](U\x01aU\x01beu.");
    bytes
}

fn message(bytes: &[u8]) -> String {
    let message = Pickle::parse("f", bytes).unwrap_err().to_string();
    assert!(!message.contains('\n'));
    message
}

#[test]
fn reads_what_python2_wrote() {
    let bytes = python2();
    let pickle = Pickle::parse("f", &bytes).unwrap();
    assert_eq!(
        pickle.array(pickle.get("data").unwrap()),
        Some((&[2, 3][..], &[10, 11, 12, 13, 14, 255][..]))
    );
    assert_eq!(pickle.ints(pickle.get("labels").unwrap()), Some(vec![7, 1]));
    assert_eq!(pickle.texts(pickle.get("filenames").unwrap()), Some(vec!["a".into(), "b".into()]));
    assert_eq!(pickle.text(pickle.get("batch_label").unwrap()).as_deref(), Some("note"));
    assert_eq!(pickle.get("nothing"), None);
}

#[test]
fn reads_what_python3_wrote() {
    for (protocol, bytes) in (2..).zip(PYTHON3) {
        let pickle = Pickle::parse("f", bytes).unwrap_or_else(|e| panic!("protocol {protocol}: {e}"));
        let get = |key| pickle.get(key).unwrap();
        assert_eq!(pickle.array(get("data")), Some((&[2, 3][..], &[1, 2, 250, 4, 5, 6][..])));
        assert_eq!(pickle.ints(get("labels")), Some(vec![3, 70000, -2]));
        assert_eq!(bytes_of(&pickle.objects, get("raw")), Some(&b"xy\xff"[..]));
        assert_eq!(pickle.ints(get("tuple")), Some(vec![1]));
        assert_eq!((get("float"), get("none")), (Value::Float(1.5), Value::None));
        assert_eq!((get("long"), get("below")), (Value::Int(1 << 40), Value::Int(-(1 << 40))));
    }
}

/// The module's older name, in the forms of all protocols.
fn numpy1(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for (new, old) in [
        (&b"cnumpy._core."[..], &b"cnumpy.core."[..]),
        (b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray"),
        (b"\x13numpy._core.numeric", b"\x12numpy.core.numeric"),
    ] {
        if let Some(at) = out.windows(new.len()).position(|w| w == new) {
            out.splice(at..at + new.len(), old.iter().copied());
        }
    }
    assert_eq!(out.len(), bytes.len() - 1);
    out
}

#[test]
fn keys_and_texts_may_be_bytes_in_every_protocol() {
    for (protocol, bytes) in BYTES_KEYS.iter().enumerate() {
        for bytes in [bytes.to_vec(), numpy1(bytes)] {
            let pickle = Pickle::parse("f", &bytes).unwrap_or_else(|e| panic!("protocol {protocol}: {e}"));
            let get = |key| pickle.get(key).unwrap_or_else(|| panic!("protocol {protocol}: {key}"));
            assert_eq!(pickle.array(get("data")), Some((&[2, 3][..], &[1, 92, 250, 4, 5, 10][..])));
            assert_eq!(pickle.ints(get("labels")), Some(vec![3, 70000, -2]));
            assert_eq!(raw_of(&pickle.objects, get("raw")), Some(&b"xy\\\0\n\xff"[..]));
            assert_eq!(pickle.text(get("empty")).as_deref(), Some(""));
            assert_eq!(pickle.texts(get("names")), Some(vec!["a.png".into(), "b\\".into()]));
            assert_eq!(pickle.get("Data"), None);
        }
    }
}

#[test]
fn every_value_in_every_protocol() {
    for (protocol, bytes) in TEXT_KEYS.iter().enumerate() {
        for bytes in [bytes.to_vec(), numpy1(bytes)] {
            let pickle = Pickle::parse("f", &bytes).unwrap_or_else(|e| panic!("protocol {protocol}: {e}"));
            let get = |key| pickle.get(key).unwrap_or_else(|| panic!("protocol {protocol}: {key}"));
            assert_eq!(pickle.array(get("data")), Some((&[2, 3][..], &[1, 92, 250, 4, 5, 10][..])));
            assert_eq!(raw_of(&pickle.objects, get("raw")), Some(&b"xy\\\0\n\xff"[..]));
            assert_eq!(pickle.texts(get("names")), Some(vec!["\u{e4}\n".into(), "b\\".into()]));
            assert_eq!(pickle.ints(get("numbers")), Some(vec![0, 1 << 40, -(1 << 40)]));
            assert_eq!((get("float"), get("none")), (Value::Float(-1.5e300), Value::None));
            assert_eq!((get("true"), get("false")), (Value::Bool(true), Value::Bool(false)));
            assert_eq!((pickle.ints(get("one")), pickle.ints(get("nothing"))), (Some(vec![1]), Some(vec![])));
        }
    }
}

/// What `pickle.dump(batch, file)` of Python 2 writes: protocol 0, in which bytes are literals.
#[test]
fn reads_the_lines_of_python2() {
    let bytes = b"(dp1\nS'data'\np2\ncnumpy.core.multiarray\n_reconstruct\np3\n(cnumpy\nndarray\np4\n(I0\ntp5\nS'b'\np6\ntp7\nRp8\n(I1\n(L1L\nI6\ntp9\n\
        cnumpy\ndtype\np10\n(S'u1'\np11\nI0\nI1\ntp12\nRp13\n(I3\nS'|'\np14\nNNNI-1\nI-1\nI0\ntp15\nbI00\nS'\\x00\\n\\\\\\'\"\\xff'\np16\ntp17\nbs\
        S'labels'\np18\n(lp19\nI7\nasVfile\\u005c\xe4\\U0001f600\np20\nS\"it's\"\np21\ns.";
    let pickle = Pickle::parse("f", bytes).unwrap();
    assert_eq!(pickle.array(pickle.get("data").unwrap()), Some((&[1, 6][..], &b"\0\n\\'\"\xff"[..])));
    assert_eq!(pickle.ints(pickle.get("labels").unwrap()), Some(vec![7]));
    assert_eq!(pickle.text(pickle.get("file\\\u{e4}\u{1f600}").unwrap()).as_deref(), Some("it's"));
}

#[test]
fn memo_keeps_one_list_for_all() {
    // l = []; d = {"a": l, "b": l}, with an item appended to the list before it is used again.
    let bytes = b"\x80\x02}(X\x01\x00\x00\x00a]q\x01K\x05aX\x01\x00\x00\x00bh\x01u.";
    let pickle = Pickle::parse("f", bytes).unwrap();
    assert_eq!(pickle.get("a"), pickle.get("b"));
    assert_eq!(pickle.ints(pickle.get("b").unwrap()), Some(vec![5]));
}

#[test]
fn whatever_could_run_is_refused_by_name() {
    for (bytes, expected) in [
        (
            &b"cos\nsystem\n(S'id'\ntR."[..],
            "f: offset 0: found the global os.system, expected one of those that make an array",
        ),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "found the global builtins.eval"),
        (b"cnumpy\nload\n.", "found the global numpy.load"),
        (b"(ios\nsystem\n.", "offset 1: found the opcode INST, expected an opcode that plain data needs"),
        (b"(os.", "found the opcode OBJ"),
        (b"\x80\x02)\x81.", "found the opcode NEWOBJ"),
        (b"P1\n.", "found the opcode PERSID"),
        (b"\x82\x01.", "found the opcode EXT1"),
        (b"\xff", "found the byte 0xff, which is not an opcode"),
        (b"cnumpy\nndarray\n)R.", "found Array with other arguments"),
        (b"K\x01)R.", "found a call of a value"),
        (b"}}b.", "found a state for something else"),
        // The two calls that return bytes do nothing else.
        (
            b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",
            "found Encode with other arguments",
        ),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00atR.", "found Encode with other arguments"),
        (b"c_codecs\nencode\n(K\x05X\x06\x00\x00\x00latin1tR.", "found Encode of something else"),
        (b"c_codecs\nencode\n(C\x01aX\x06\x00\x00\x00latin1tR.", "found Encode of something else"),
        (
            b"c_codecs\nencode\n(X\x02\x00\x00\x00\xc4\x80X\x06\x00\x00\x00latin1tR.",
            "found a string beyond latin1",
        ),
        (b"c_codecs\ndecode\n.", "found the global _codecs.decode"),
        (b"c__builtin__\nbytes\n(K\x05tR.", "found Bytes with other arguments"),
        (b"c__builtin__\nbytes\nNR.", "found a call without arguments"),
        (b"c__builtin__\ngetattr\n.", "found the global __builtin__.getattr"),
    ] {
        let message = message(bytes);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn broken_pickles_are_refused() {
    for (bytes, expected) in [
        (&b""[..], "offset 0: found the end of the file (0 bytes left), expected an opcode of 1 bytes"),
        (
            b"T\xff\xff\xff\xffab",
            "found the end of the file (2 bytes left), expected a string of 4294967295 bytes",
        ),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffab", "bytes of 18446744073709551615 bytes"),
        (b".", "found an empty stack"),
        (b"K\x01(a.", "found an empty stack"),
        (b"]K\x01e.", "found no mark"),
        (b"}(K\x01u.", "found a key without a value"),
        (b"h\x05.", "found memo key 5"),
        (b"\x80\x09.", "found protocol 9"),
        (b"X\x01\x00\x00\x00\xff.", "not UTF-8"),
        (b"cnumpy", "found an unterminated line"),
        (b"I5x\n.", "found the line \"5x\", expected an integer of at most 8 bytes"),
        (b"L9223372036854775808L\n.", "expected an integer of at most 8 bytes"),
        (b"Fx\n.", "expected a number"),
        (b"S'ab\n.", "expected a string between quotes"),
        (b"S'\n.", "expected a string between quotes"),
        (b"S'\\x4'\n.", "expected the escapes of Python"),
        (b"V\\u12\n.", "expected the escapes of Python"),
        (b"V\\ud800\n.", "expected the escapes of Python"),
        (b"g7\n.", "found memo key 7"),
        (b"p-1\n.", "expected a memo key"),
        (b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R.", "found an array of type \"f4\", expected u1"),
    ] {
        let message = message(bytes);
        assert!(message.contains(expected), "{message}");
    }
    // An array whose shape asks for more than there is.
    let mut bytes = python2();
    let at = bytes.windows(6).position(|w| w == b"M\x02\x00M\x03\x00").unwrap();
    bytes[at + 1] = 200;
    assert!(message(&bytes).contains("found 6 bytes of data, expected those of an array of shape [200, 3]"));
}

#[test]
fn what_only_fills_the_memory_is_refused() {
    assert!(message(&vec![b']'; MOST_VALUES]).contains("too many values"));
    assert!(message(&vec![b'('; MOST_VALUES + 1]).contains("too many values"));
    // One string, encoded again and again.
    let mut bytes = b"c_codecs\nencode\nq\x00X\x64\x00\x00\x00".to_vec();
    bytes.extend([b'a'; 100]);
    bytes.extend(b"q\x01X\x06\x00\x00\x00latin1q\x02");
    for _ in 0..20 {
        bytes.extend(b"h\x00h\x01h\x02\x86R");
    }
    bytes.push(b'.');
    assert!(message(&bytes).contains("found the same string encoded again and again"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Pickle::parse("f", &bytes);
    }

    #[test]
    fn arbitrary_programs_never_panic(
        program in proptest::collection::vec((prop::sample::select(b"(.0NJKMGTUBCX]laetIVSpg)\x85\x86\x87}dsuhqrjcRb\x88\x89\x8a\x94\x95".to_vec()), any::<[u8; 2]>()), 0..80),
    ) {
        let bytes: Vec<u8> = program.iter().flat_map(|(code, [a, b])| match code {
            b'K' | b'h' | b'q' => vec![*code, a % 8],
            b'M' => vec![*code, *a, *b],
            b'U' | b'C' => vec![*code, 1, *a],
            b'c' if a % 2 == 0 => b"cnumpy\ndtype\n".to_vec(),
            b'c' => b"c_codecs\nencode\n".to_vec(),
            b'I' | b'p' | b'g' => vec![*code, b'0' + a % 8, b'\n'],
            b'V' | b'S' => vec![*code, b'\'', *a, b'\'', b'\n'],
            _ => vec![*code],
        }).collect();
        if let Ok(pickle) = Pickle::parse("f", &bytes) {
            let root = pickle.root();
            let _ = (pickle.get("a"), pickle.ints(root), pickle.texts(root), pickle.array(root).is_some());
        }
    }

    #[test]
    fn mutated_files_never_panic(which in 0usize..17, at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = match which {
            0..4 => PYTHON3[which].to_vec(),
            4..10 => BYTES_KEYS[which - 4].to_vec(),
            10..16 => TEXT_KEYS[which - 10].to_vec(),
            _ => python2(),
        };
        let _ = Pickle::parse("f", &bytes[..cut.index(bytes.len())]);
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(pickle) = Pickle::parse("f", &bytes)
            && let Some((shape, data)) = pickle.get("data").and_then(|v| pickle.array(v))
        {
            prop_assert_eq!(shape.iter().product::<usize>(), data.len());
        }
    }
}
