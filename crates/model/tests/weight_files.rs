//! The same weights in other files give the same model: what torch.save wrote, GGUF in parts, and block types with a table
//! of values (`fixtures/make_weight_files.py`, `make_fixtures.py`).
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/gguf.rs"]
#[allow(dead_code)]
mod gguf;
#[path = "common/oracle.rs"]
mod oracle;

use candle_core::{Device, Tensor};
use causalcone_model::file::{DataFile, Encoding, Weights};
use causalcone_model::{Error, Model, Precision, silent};
use causalcone_ops::Blocks;
use gguf::{Gguf, raw, u32v};
use oracle::{Record, fixtures, load};
use std::path::{Path, PathBuf};

const IDS: [u32; 6] = [5, 1, 40, 5, 9, 0];

fn weight_file(name: &str) -> PathBuf {
    fixtures().join("weight-files").join(name)
}

fn logits(model: &Model) -> Vec<f32> {
    let logits = model.decoder().unwrap().forward(&IDS, &mut Record::default()).unwrap();
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

fn model(path: &Path) -> Result<Model, Error> {
    Model::load(path.to_str().unwrap())
}

/// A folder with the configuration of a fixture.
fn folder(of: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixtures().join(of).join("config.json"), folder.path().join("config.json")).unwrap();
    folder
}

fn copy(from: &Path, folder: &tempfile::TempDir, name: &str) {
    std::fs::copy(from, folder.path().join(name)).unwrap();
}

fn names(model: &Model) -> Vec<&str> {
    model.files().iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect()
}

#[test]
fn every_type_is_as_gguf_py_widens_it() {
    let file = DataFile::open(&fixtures().join("quants.gguf")).unwrap();
    let header = causalcone_model::file::gguf::read(&file).unwrap();
    let weights = Weights::from_gguf(file, &header).unwrap();
    let expected =
        candle_core::safetensors::load(fixtures().join("quants.safetensors"), &Device::Cpu).unwrap();
    let bits = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits);
    for name in ["IQ4_NL", "IQ4_XS", "MXFP4"] {
        let ours = weights.take(name, &[2, 256]).unwrap();
        assert!(bits(&ours).eq(bits(&expected[name])), "{name}");
    }
}

#[test]
fn tensors_of_torch_are_read_wherever_they_lie() {
    let expected = candle_core::safetensors::load(weight_file("views.safetensors"), &Device::Cpu).unwrap();
    for name in ["views.bin", "views.legacy.bin"] {
        let weights = Weights::from_torch(&weight_file(name)).unwrap();
        let mut floats = 0;
        for entry in weights.entries() {
            let Some(theirs) = expected.get(&entry.name) else {
                assert!(matches!(entry.encoding, Encoding::Other(_)), "{}", entry.name);
                assert!(weights.take(&entry.name, &entry.shape).is_err(), "{}", entry.name);
                continue;
            };
            floats += 1;
            assert_eq!(entry.shape, theirs.dims(), "{name}: {}", entry.name);
            let ours = weights.take(&entry.name, &entry.shape).unwrap();
            let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(numbers(&ours), numbers(theirs), "{name}: {}", entry.name);
        }
        assert_eq!(floats, expected.len());
    }
}

#[test]
fn what_torch_saved_is_the_same_model() {
    let expected = logits(&load("tiny-gpt2"));
    for name in ["tiny-gpt2.bin", "tiny-gpt2.legacy.bin"] {
        let folder = folder("tiny-gpt2");
        copy(&weight_file(name), &folder, "pytorch_model.bin");
        let model = model(folder.path()).unwrap();
        assert_eq!(logits(&model), expected, "{name}");
        assert_eq!(names(&model), ["config.json", "pytorch_model.bin"]);
    }
    // One bit of a number: the archive has a checksum of it.
    let folder = folder("tiny-gpt2");
    let mut bytes = std::fs::read(weight_file("tiny-gpt2.bin")).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(folder.path().join("pytorch_model.bin"), bytes).unwrap();
    let error = model(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is not what its checksum says"), "{error}");
}

#[test]
fn shards_of_torch_are_the_same_model() {
    let folder = folder("tiny-llama-tied");
    for file in std::fs::read_dir(weight_file("tiny-llama-tied")).unwrap() {
        let file = file.unwrap();
        copy(&file.path(), &folder, file.file_name().to_str().unwrap());
    }
    let sharded = model(folder.path()).unwrap();
    assert_eq!(logits(&sharded), logits(&load("tiny-llama-tied")));
    let shards = ["00001", "00002", "00003"].map(|n| format!("pytorch_model-{n}-of-00003.bin"));
    assert_eq!(names(&sharded)[1..], shards);
    // The hash is of all shards.
    let hash = sharded.sha256().unwrap().to_owned();
    let file = folder.path().join(&shards[2]);
    let (bytes, changed) = (std::fs::read(&file).unwrap(), std::fs::read(weight_file("views.bin")).unwrap());
    std::fs::write(&file, changed).unwrap();
    let error = model(folder.path()).unwrap_err().to_string();
    assert!(error.contains("pytorch_model.bin.index.json") && error.contains("does not hold it"), "{error}");
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(model(folder.path()).unwrap().sha256().unwrap(), hash);
}

/// The order in which transformers looks: safetensors in one file, in shards, then torch's.
#[test]
fn safetensors_come_before_what_torch_saved() {
    let folder = folder("tiny-gpt2");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("pytorch_model.bin.index.json"), "[]").unwrap();
    let refused = || model(folder.path()).unwrap_err().to_string();
    assert!(refused().contains("pytorch_model.bin.index.json: weight_map"));
    copy(&weight_file("tiny-gpt2.bin"), &folder, "pytorch_model.bin");
    assert_eq!(names(&model(folder.path()).unwrap())[1..], ["pytorch_model.bin"]);
    std::fs::write(at("model.safetensors.index.json"), "[]").unwrap();
    assert!(refused().contains("model.safetensors.index.json: weight_map"));
    copy(&fixtures().join("tiny-gpt2/model.safetensors"), &folder, "model.safetensors");
    assert_eq!(names(&model(folder.path()).unwrap())[1..], ["model.safetensors"]);
}

#[test]
fn any_part_of_a_split_file_loads_all() {
    let expected = load("tiny-llama-tied.gguf");
    let parts = ["00001", "00002", "00003"].map(|n| format!("split-{n}-of-00003.gguf"));
    let mut hashes = Vec::new();
    for part in &parts {
        let model = model(&weight_file(part)).unwrap();
        assert_eq!(logits(&model), logits(&expected), "{part}");
        assert_eq!(names(&model), parts, "{part}");
        let text = "The capital of Spain is";
        assert_eq!(model.prompt(text, None).unwrap(), expected.prompt(text, None).unwrap());
        hashes.push(model.sha256().unwrap().to_owned());
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
    // The hash is of all parts: of the last one, another weight.
    let folder = tempfile::tempdir().unwrap();
    for part in &parts {
        copy(&weight_file(part), &folder, part);
    }
    let last = folder.path().join(&parts[2]);
    let mut bytes = std::fs::read(&last).unwrap();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&0.5f32.to_le_bytes());
    std::fs::write(&last, bytes).unwrap();
    let changed = model(&folder.path().join(&parts[0])).unwrap();
    assert_ne!(changed.sha256().unwrap(), hashes[0]);
    assert_ne!(logits(&changed), logits(&expected));
}

/// `llama-gguf-split --merge` leaves the keys, and sets the count to 0.
#[test]
fn a_merged_file_is_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("merged.gguf");
    let load = |file: &Gguf| {
        std::fs::write(&path, file.bytes()).unwrap();
        let model = model(&path).unwrap();
        let logits = model.decoder().unwrap().forward(&[0, 1, 2], &mut Record::default()).unwrap();
        logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let expected = load(&Gguf::valid());
    for count in [0u16, 1] {
        let mut file = Gguf::valid();
        file.set("split.no", raw(2, &0u16.to_le_bytes()));
        file.set("split.count", raw(2, &count.to_le_bytes()));
        file.set("split.tensors.count", raw(5, &20i32.to_le_bytes()));
        assert_eq!(load(&file), expected);
    }
}

/// Blocks of bytes that look random, with scales that make numbers of about 0.1.
fn blocks(kind: Blocks, count: usize, state: &mut u64) -> Vec<u8> {
    let mut noise = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 40).to_le_bytes()[0]
    };
    let mut all = Vec::with_capacity(count * kind.bytes());
    for _ in 0..count {
        let mut block: Vec<u8> = (0..kind.bytes()).map(|_| noise()).collect();
        let size = 0.05 + f32::from(noise()) / 2560.0;
        match kind.name() {
            "IQ4_NL" => block[..2].copy_from_slice(&half::f16::from_f32(size / 127.0).to_le_bytes()),
            "IQ4_XS" => block[..2].copy_from_slice(&half::f16::from_f32(size / -127.0 / 32.0).to_le_bytes()),
            "MXFP4" => block[0] = 120 + block[0] % 3,
            other => panic!("no scale for {other}"),
        }
        all.extend(block);
    }
    all
}

/// The tiny Llama of the writer, wide enough for blocks, with every matrix of one of these types, and the same as f32.
fn wide(kinds: &[u32]) -> [Gguf; 2] {
    let (mut state, mut matrices) = (11, 0);
    let mut packed = Gguf::valid();
    for (key, value) in [
        ("llama.embedding_length", 256),
        ("llama.feed_forward_length", 512),
        ("llama.rope.dimension_count", 64),
    ] {
        packed.set(key, u32v(value));
    }
    for tensor in &mut packed.tensors {
        for length in &mut tensor.dims {
            *length = match *length {
                8 => 256,
                4 => 128,
                12 if !tensor.name.starts_with(b"token_embd") => 512,
                other => other,
            };
        }
        // The embedding is 12 tokens long.
        if tensor.name.starts_with(b"token_embd") {
            tensor.dims = vec![256, 12];
        }
        let count = usize::try_from(tensor.dims.iter().product::<u64>()).unwrap();
        if tensor.dims.len() == 1 {
            tensor.data = (0..count).flat_map(|i| (1.0 + (i % 7) as f32 / 20.0).to_le_bytes()).collect();
            continue;
        }
        tensor.kind = kinds[matrices % kinds.len()];
        matrices += 1;
        let kind = Blocks::from_ggml(tensor.kind).unwrap();
        tensor.data = blocks(kind, count / kind.numbers(), &mut state);
    }
    let mut full = packed.clone();
    for tensor in &mut full.tensors {
        if let Some(kind) = Blocks::from_ggml(tensor.kind) {
            tensor.data = kind.widen(&tensor.data).iter().flat_map(|x| x.to_le_bytes()).collect();
            tensor.kind = 0;
        }
    }
    [packed, full]
}

#[test]
fn types_with_a_table_of_values_give_the_model_of_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let run = |file: &Gguf, precision: Precision| {
        std::fs::write(&path, file.bytes()).unwrap();
        let model = Model::load_as(path.to_str().unwrap(), precision, &silent).unwrap();
        let logits = model.decoder().unwrap().forward(&[0, 3, 11, 7, 7, 1], &mut Record::default()).unwrap();
        logits.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    for kinds in [&[20][..], &[23], &[39], &[39, 20, 23]] {
        let [blocks, full] = wide(kinds);
        let expected = run(&full, Precision::Full);
        assert!(expected.iter().all(|x| x.is_finite()) && expected.iter().any(|x| x.abs() > 0.1));
        assert_eq!(run(&blocks, Precision::Full), expected, "{kinds:?}");
        let largest = expected.iter().fold(1.0f32, |most, x| most.max(x.abs()));
        for (a, b) in run(&blocks, Precision::Packed).iter().zip(&expected) {
            // Sums of up to 512 products in another order, through two blocks.
            assert!((a - b).abs() <= 1e-5 * largest, "{kinds:?}: {a} {b}, {largest}");
        }
    }
}

/// A scale that is no number spoils its block, widened or not.
#[test]
fn a_scale_that_is_no_number_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    const NAME: &str = "blk.1.ffn_up.weight";
    for (kind, scale) in [
        (20, &half::f16::NAN.to_le_bytes()[..]),
        (20, &half::f16::NEG_INFINITY.to_le_bytes()),
        (23, &half::f16::NAN.to_le_bytes()),
        (23, &half::f16::INFINITY.to_le_bytes()),
        (39, &[255]),
        // 12 times this is more than the largest number.
        (39, &[254]),
    ] {
        let [mut file, _] = wide(&[kind]);
        let bytes = Blocks::from_ggml(kind).unwrap().bytes();
        file.tensor(NAME).data[500 * bytes..][..scale.len()].copy_from_slice(scale);
        std::fs::write(&path, file.bytes()).unwrap();
        for precision in [Precision::Full, Precision::Packed] {
            let error = Model::load_as(path.to_str().unwrap(), precision, &silent).unwrap_err().to_string();
            assert!(error.contains(NAME) && error.contains("which no weight can be"), "{kind}: {error}");
        }
    }
}
