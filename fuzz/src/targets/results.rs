//! What the library itself has written, or another library: saved interventions, journals, checkpoints.

use super::target::any;
use crate::Scene;
use causalcone_engine::train::Checkpoint;
use causalcone_engine::{ControlVector, Journal, Runtime, Saved};
use std::path::Path;

pub(super) fn control_vector(scene: &Scene, data: &[u8]) -> Option<()> {
    ControlVector::read(&scene.write("control.gguf", data)?).ok().map(drop)
}

pub(super) fn saved(scene: &Scene, data: &[u8]) -> Option<()> {
    let saved = Saved::open(&scene.stage("fuzz/seeds/place/saved", "intervention.json", data)?).ok()?;
    let model = scene.model("tiny-llama-tied")?;
    let _ = saved.check(model, false, "a test");
    saved.test(model, &Runtime::default()).ok().map(drop)
}

pub(super) fn pyvene(scene: &Scene, data: &[u8]) -> Option<()> {
    let open = |name: &str| {
        Saved::open(&scene.stage(&format!("fixtures/pyvene-saved/{name}"), "config.json", data)?)
            .ok()
            .map(drop)
    };
    any([open("tiny-llama"), open("tiny-gpt2")])
}

pub(super) fn pyvene_weights(scene: &Scene, data: &[u8]) -> Option<()> {
    let folder = "fixtures/pyvene-saved/tiny-llama";
    any(["0_comp_block", "0_comp_mlp", "1_comp_block"].map(|place| {
        let file = format!("intkey_layer_{place}_output_unit_pos_nunit_1#0.bin");
        Saved::open(&scene.stage(folder, &file, data)?).ok().map(drop)
    }))
}

/// The experiment whose journal it is, its cells, and the values of each.
const SWEEP: (&str, usize, usize) = ("a sweep", 9, 2);

pub(super) fn journal(scene: &Scene, data: &[u8]) -> Option<()> {
    // Once as it is, and once with right sums, so that what is behind their check is reached, too.
    let summed = with_sums(scene, data)?;
    any([data, &summed].map(|data| resume(&scene.write("journal.jsonl", data)?)))
}

/// Opens a journal, adds the first cell that is missing, and reads it again.
fn resume(path: &Path) -> Option<()> {
    let (experiment, cells, values) = SWEEP;
    let (mut journal, mut done) = Journal::open(path, experiment, cells, values).ok()?;
    let next = (0..cells).find(|cell| !done.contains_key(cell))?;
    let value = vec![Some(0.5), None];
    journal.append([(next, value.clone())]).ok()?;
    drop(journal);
    done.insert(next, value);
    // What was repaired and written must be read again.
    let again = Journal::open(path, experiment, cells, values).ok().map(|(_, again)| again);
    assert_eq!(again, Some(done), "a cell was lost or changed");
    Some(())
}

/// The same lines; those that have a cell and values as a journal writes them, with the sum that belongs to them.
fn with_sums(scene: &Scene, data: &[u8]) -> Option<Vec<u8>> {
    let parsed = |line: &[u8]| {
        let tree: serde_json::Value = serde_json::from_slice(line).ok()?;
        let values: Vec<Option<f64>> = serde_json::from_value(tree.get("values")?.clone()).ok()?;
        Some((usize::try_from(tree.get("cell")?.as_u64()?).ok()?, values))
    };
    let lines = || data.split(|b| *b == b'\n');
    let path = scene.write("summed.jsonl", b"")?;
    let (mut journal, _) = Journal::open(&path, SWEEP.0, SWEEP.1, SWEEP.2).ok()?;
    journal.append(lines().filter_map(parsed)).ok()?;
    let written = std::fs::read(&path).ok()?;
    let mut written = written.split(|b| *b == b'\n');
    let mended = lines().map(|line| parsed(line).and_then(|_| written.next()).unwrap_or(line));
    Some(mended.collect::<Vec<_>>().join(&b'\n'))
}

/// A journal with all but one of its cells.
pub(super) fn journals() -> Vec<Vec<u8>> {
    let (experiment, cells, values) = SWEEP;
    let write = || {
        let folder = tempfile::tempdir().ok()?;
        let path = folder.path().join("journal.jsonl");
        let (mut journal, _) = Journal::open(&path, experiment, cells, values).ok()?;
        let numbers = [Some(0.1), Some(-1e300), None, Some(0.0)];
        let value = |cell: usize| (0..values).map(|value| numbers[(cell + value) % 4]).collect();
        journal.append((1..cells).map(|cell| (cell, value(cell)))).ok()?;
        std::fs::read(path).ok()
    };
    write().into_iter().collect()
}

pub(super) fn checkpoint(scene: &Scene, data: &[u8]) -> Option<()> {
    let checkpoint = Checkpoint::read(&scene.write("checkpoint.safetensors", data)?).ok()?;
    checkpoint.to_bytes().ok().map(drop)
}
