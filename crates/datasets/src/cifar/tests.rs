mod rewritten;

use super::*;
use proptest::prelude::*;
use std::io::Write;

/// A record for each label: the head, then pixels counting up from the label.
fn binary(heads: &[&[u8]]) -> Vec<u8> {
    heads
        .iter()
        .flat_map(|head| head.iter().copied().chain((0..PIXELS).map(|i| (i + head[0] as usize) as u8)))
        .collect()
}

/// The same images as a Python 2 pickle with the given lists of labels.
fn python(rows: &[u8], lists: &[(&str, &[u8])]) -> Vec<u8> {
    let text = |s: &str| [b"U", &[s.len() as u8][..], s.as_bytes()].concat();
    let mut bytes = b"\x80\x02}(".to_vec();
    for (name, labels) in lists {
        bytes.extend(text(name));
        bytes.extend(b"](");
        labels.iter().for_each(|&l| bytes.extend([b'K', l]));
        bytes.extend(b"e");
    }
    bytes.extend(text("data"));
    bytes.extend(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01");
    for size in [(rows.len() / PIXELS) as u16, PIXELS as u16] {
        bytes.push(b'M');
        bytes.extend(size.to_le_bytes());
    }
    bytes.extend(b"\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T");
    bytes.extend((rows.len() as u32).to_le_bytes());
    bytes.extend(rows);
    bytes.extend(b"tbu.");
    bytes
}

fn rows(labels: &[u8]) -> Vec<u8> {
    labels.iter().flat_map(|&l| (0..PIXELS).map(move |i| (i + l as usize) as u8)).collect()
}

/// The files of a form with an image of each of these labels in every training file, and one of label 9 for the test.
fn published(form: Form) -> Vec<(String, Vec<u8>)> {
    let files = FORMS.iter().find(|f| f.form == form).unwrap();
    let one = |labels: &[u8]| match form {
        Form::Binary10 => binary(&labels.iter().map(std::slice::from_ref).collect::<Vec<_>>()),
        Form::Binary100 => binary(
            &labels.iter().map(|l| [*l, *l]).collect::<Vec<_>>().iter().map(|h| &h[..]).collect::<Vec<_>>(),
        ),
        Form::Python10 => python(&rows(labels), &[("labels", labels)]),
        Form::Python100 => python(&rows(labels), &[("coarse_labels", labels), ("fine_labels", labels)]),
    };
    let mut out: Vec<(String, Vec<u8>)> =
        files.train.iter().zip(0u8..).map(|(name, i)| (name.to_string(), one(&[i, i + 1]))).collect();
    out.push((files.test.into(), one(&[9])));
    match form {
        Form::Binary10 => out.push(("batches.meta.txt".into(), b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n".to_vec())),
        Form::Python10 => out.push((
            "batches.meta".into(),
            b"\x80\x02}(U\x0blabel_names](U\x01aU\x01bU\x01cU\x01dU\x01eU\x01fU\x01gU\x01hU\x01iU\x01jeu."
                .to_vec(),
        )),
        _ => {}
    }
    out
}

fn archive(form: Form) -> Vec<u8> {
    let files = FORMS.iter().find(|f| f.form == form).unwrap();
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(encoder);
    let mut add = |name: &str, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, data).unwrap();
    };
    add(&format!("{}/readme.html", files.folder), b"<html>");
    for (name, data) in published(form) {
        add(&format!("{}/{name}", files.folder), &data);
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn check(set: &Cifar, form: Form) {
    let ten = matches!(form, Form::Binary10 | Form::Python10);
    let expected: Vec<i64> = if ten { (0..5).flat_map(|i| [i, i + 1]).collect() } else { vec![0, 1] };
    assert_eq!(set.train.labels(), expected);
    assert_eq!(set.test.labels(), [9]);
    assert_eq!(set.train.image(1)[..3], [1, 2, 3]);
    assert_eq!(set.test.image(0)[PIXELS - 1], ((PIXELS - 1 + 9) % 256) as u8);
    assert_eq!(set.train.classes()[9], if ten { "j" } else { "9" });
    assert_eq!(
        set.coarse.as_ref().map(|c| (&c.train[..], c.classes.len())),
        (!ten).then_some((&[0, 1][..], 20))
    );
}

const ALL: [Form; 4] = [Form::Binary10, Form::Python10, Form::Binary100, Form::Python100];

#[test]
fn recognizes_all_forms_in_folders_and_archives() {
    for form in ALL {
        let dir = tempfile::tempdir().unwrap();
        let files = FORMS.iter().find(|f| f.form == form).unwrap();
        // The archive, by its own path and by the folder that contains it.
        let packed = dir.path().join(files.archive);
        std::fs::write(&packed, archive(form)).unwrap();
        check(&Cifar::open(&packed).unwrap(), form);
        check(&Cifar::open(dir.path()).unwrap(), form);
        // The unpacked folder, by its own path and by its parent.
        let inner = dir.path().join(files.folder);
        std::fs::create_dir(&inner).unwrap();
        for (name, data) in published(form) {
            std::fs::write(inner.join(name), data).unwrap();
        }
        check(&Cifar::open(&inner).unwrap(), form);
        check(&Cifar::open(dir.path()).unwrap(), form);
    }
}

#[test]
fn reads_what_python3_wrote_again() {
    let unpack = |bytes: &[u8]| {
        let mut out = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut out).unwrap();
        out
    };
    for protocol in 0..6 {
        let dir = tempfile::tempdir().unwrap();
        let batch = unpack(rewritten::REWRITTEN_BATCH[protocol]);
        for name in FORMS[1].train.iter().chain([&FORMS[1].test]) {
            std::fs::write(dir.path().join(name), &batch).unwrap();
        }
        std::fs::write(dir.path().join("batches.meta"), unpack(rewritten::REWRITTEN_NAMES[protocol]))
            .unwrap();
        let set = Cifar::open(dir.path()).unwrap_or_else(|e| panic!("protocol {protocol}: {e}"));
        assert_eq!(set.train.labels(), [6, 9].repeat(5));
        assert!(set.test.pixels() == [0, 10, 92, 255].repeat(2 * PIXELS / 4));
        assert_eq!(set.test.classes()[9], "jjj");
    }
}

#[test]
fn coarse_labels_can_be_the_classes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x.tar.gz"), archive(Form::Binary100)).unwrap();
    let set = Cifar::open(dir.path().join("x.tar.gz")).unwrap().with_coarse_labels();
    assert_eq!((set.train.classes().len(), set.train.labels()), (20, &[0, 1][..]));
}

#[test]
fn broken_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let message = |dir: &Path| {
        let message = Cifar::open(dir).unwrap_err().to_string();
        assert!(!message.contains('\n'));
        message
    };
    assert!(message(dir.path()).contains("found none of them, expected the files of cifar-10-batches-bin"));
    assert!(message(&dir.path().join("nothing")).contains("No such file"));
    for (name, data) in published(Form::Binary10) {
        std::fs::write(dir.path().join(name), data).unwrap();
    }
    let batch = dir.path().join("data_batch_4.bin");
    let good = std::fs::read(&batch).unwrap();
    std::fs::write(&batch, &good[..good.len() - 1]).unwrap();
    assert!(message(dir.path()).ends_with("data_batch_4.bin: offset 3073: found 3072 bytes after 1 records, expected whole records of 3073 bytes"));
    let mut bad = good.clone();
    bad[3073] = 10;
    std::fs::write(&batch, bad).unwrap();
    assert!(message(dir.path()).ends_with("data_batch_4.bin: offset 3073: found label 10, expected 0 to 9"));
    std::fs::remove_file(&batch).unwrap();
    assert!(message(dir.path()).ends_with("found no such file, expected data_batch_4.bin beside the others"));

    let short = python(&rows(&[1, 2]), &[("labels", &[1])]);
    let refused = |bytes: &[u8]| parse_python("f", bytes, false).err().unwrap().to_string();
    assert_eq!(refused(&short), "f: offset 0: found 1 numbers in labels, expected one for each of 2 images");
    assert!(refused(&python(&rows(&[1]), &[("labels", &[77])])).contains("found label 77, expected 0 to 9"));
    assert!(refused(&python(&rows(&[1]), &[])).contains("found no labels of the expected form"));
    assert!(refused(b"\x80\x02}.").contains("found no data of the expected form"));
}

#[test]
fn broken_archives_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cifar.tar.gz");
    let message = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let message = Cifar::open(&path).unwrap_err().to_string();
        assert!(!message.contains('\n'));
        message
    };
    let good = archive(Form::Binary10);
    assert!(message(&good[..good.len() / 2]).contains("truncated archive"));
    assert!(message(&good[..good.len() - 4]).contains("truncated archive"));
    let mut bad = good.clone();
    let at = bad.len() - 5;
    bad[at] ^= 0xff;
    assert!(message(&bad).contains("a corrupt archive"));
    assert!(message(b"not an archive at all").contains("archive"));
    // A header that claims more than there is, and more than is plausible.
    let liar = |claim: u64| {
        let mut header = tar::Header::new_ustar();
        header.set_path("cifar-10-batches-bin/data_batch_1.bin").unwrap();
        header.set_size(claim);
        header.set_cksum();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(header.as_bytes()).unwrap();
        encoder.write_all(&[1; 1000]).unwrap();
        encoder.finish().unwrap()
    };
    assert!(message(&liar(1 << 25)).contains("found the end of"));
    assert!(message(&liar(1 << 27)).contains("found a file of 134217728 bytes, expected at most"));
    assert!(message(&liar(1 << 35)).contains("found a file of 34359738368 bytes, expected at most"));
}

/// A member's header and this many zero bytes, in chunks that are compressed once each.
fn bomb(name: &str, claim: u64, megabytes: usize) -> Vec<u8> {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_size(claim);
    header.set_cksum();
    [gzip(header.as_bytes()), gzip(&vec![0; 1 << 20]).repeat(megabytes)].concat()
}

#[test]
fn archives_that_unpack_to_more_than_any_set_are_refused() {
    let message = |bytes: &[u8]| Cifar::parse_archive("f", bytes).unwrap_err().to_string();
    // A file of the data set, one that would be skipped, and data after the end.
    let found = message(&bomb("cifar-10-batches-bin/data_batch_1.bin", 100 << 20, 100));
    assert!(found.contains("found a file of 104857600 bytes, expected at most 62720000"), "{found}");
    let found = message(&bomb("other/file", 1800 << 20, 1800));
    assert!(found.contains("found a file of 1887436800 bytes, expected at most 402653184"), "{found}");
    let more = "expands to more than the 402653184 bytes of any known data set";
    assert!(message(&bomb("other/file", 0, 1800)).contains(more));
    let many = bomb("other/file", 300 << 20, 300);
    let found = message(&many.repeat(6));
    assert!(found.contains(more), "{found}");
    // An archive of the largest data set in its largest form is accepted.
    assert!(FORMS.iter().all(|f| f.largest() * 5 / 4 + (1 << 20) < 3 << 27));
}

#[test]
fn a_file_twice_is_refused() {
    let one = archive(Form::Binary10);
    let batch = binary(&[&[1]]);
    let files = FORMS[0].train.iter().chain([&FORMS[0].test, &FORMS[0].train[2]]);
    let found = Cifar::parse_files(files.map(|&name| (name, &batch[..]))).unwrap_err().to_string();
    assert_eq!(
        found,
        "data_batch_3.bin: offset 0: found a second file of this name, expected each file once"
    );
    check(&Cifar::parse_archive("f", &one).unwrap(), Form::Binary10);
}

#[test]
fn names_of_classes_are_taken_whole_or_refused() {
    let with = |form: Form, name: &str, bytes: &[u8]| {
        let mut files = published(form);
        files.retain(|(n, _)| n != name);
        files.push((name.into(), bytes.to_vec()));
        Cifar::parse_files(files.iter().map(|(n, b)| (&n[..], &b[..])))
    };
    let message = |form, name, bytes: &[u8]| with(form, name, bytes).unwrap_err().to_string();
    assert!(
        message(Form::Binary10, "batches.meta.txt", b"a\nb\n")
            .ends_with("found 2 names of classes, expected 10")
    );
    assert!(
        message(Form::Binary10, "batches.meta.txt", b"a\n\xff\n")
            .contains("offset 2: found bytes that are not text")
    );
    assert!(
        message(Form::Binary100, "fine_label_names.txt", b"")
            .ends_with("found 0 names of classes, expected 100")
    );
    assert!(message(Form::Binary100, "coarse_label_names.txt", b"a").ends_with("expected 20"));
    assert!(
        message(Form::Python10, "batches.meta", b"\x80\x02}.")
            .ends_with("found no label_names of the expected form, expected a list of 10 strings")
    );
    assert!(
        message(Form::Python10, "batches.meta", b"\x80\x02}(U\x0blabel_names](U\x01aeu.")
            .contains("no label_names")
    );
    assert!(
        message(Form::Python100, "meta", b"\x80\x02}.")
            .contains("no coarse_label_names of the expected form")
    );
    let names: String = (0..20).map(|i| format!("group {i}\n")).collect();
    let set = with(Form::Binary100, "coarse_label_names.txt", names.as_bytes()).unwrap();
    let normalized =
        Cifar { train: set.train.clone().with_normalization(crate::Normalization::cifar10()), ..set };
    let coarse = normalized.with_coarse_labels();
    assert_eq!(coarse.train.classes()[19], "group 19");
    assert!(coarse.train.normalization().is_some() && coarse.test.normalization().is_none());
}

#[test]
fn the_real_files_where_they_are() {
    let Some(binary) = crate::test_data("cifar-10-batches-bin") else { return };
    let Some(python) = crate::test_data("cifar-10-batches-py") else { return };
    let start = std::time::Instant::now();
    let binary = Cifar::open(binary).unwrap();
    println!("CIFAR-10 binary read in {:?}", start.elapsed());
    let start = std::time::Instant::now();
    let python = Cifar::open(python).unwrap();
    println!("CIFAR-10 Python read in {:?}", start.elapsed());
    assert_eq!(binary.train.shape(), [50000, 3, 32, 32]);
    assert!(binary.train.pixels() == python.train.pixels() && binary.test.pixels() == python.test.pixels());
    assert!(binary.train.labels() == python.train.labels() && binary.test.labels() == python.test.labels());
    assert_eq!(binary.train.classes(), CIFAR10_CLASSES);
    assert_eq!(python.train.classes(), CIFAR10_CLASSES);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hostile_bytes_never_panic(
        form in 0usize..4, at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>(),
        noise in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        let open = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let _ = Cifar::open(&path);
        };
        open(&noise);
        let mut bytes = archive(ALL[form]);
        open(&bytes[..cut.index(bytes.len())]);
        let at = at.index(bytes.len());
        bytes[at] = to;
        open(&bytes);
    }

    #[test]
    fn hostile_members_never_panic(
        form in 0usize..4, file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), to in any::<u8>(),
        noise in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let files = published(ALL[form]);
        let (name, data) = &files[file.index(files.len())];
        let mut parts = Parts::new(&FORMS[form]);
        let _ = parts.add(name, "f", &noise);
        let mut changed = data.clone();
        // Most interesting bytes are before and after the pixels.
        let at = at.index(changed.len());
        let at = if changed.len() > 6000 && at > 200 { changed.len() - at % 400 - 1 } else { at };
        changed[at] = to;
        let _ = parts.add(name, "f", &changed);
    }
}
