//! What the library itself has written, or another library: saved interventions, journals, checkpoints.

use crate::Scene;
use causalcone_engine::train::Checkpoint;
use causalcone_engine::{Cone, ControlVector, Journal, Saved};

pub(super) fn control_vector(scene: &Scene, data: &[u8]) -> Option<()> {
    ControlVector::read(&scene.write("control.gguf", data)?).ok().map(drop)
}

pub(super) fn saved(scene: &Scene, data: &[u8]) -> Option<()> {
    let saved = Saved::open(&scene.stage("fuzz/seeds/place/saved", "intervention.json", data)?).ok()?;
    let model = scene.model("tiny-llama-tied")?;
    let _ = saved.check(model, false, "a test");
    saved.test(model, &Cone::default()).ok().map(drop)
}

pub(super) fn pyvene(scene: &Scene, data: &[u8]) -> Option<()> {
    for name in ["tiny-llama", "tiny-gpt2"] {
        let _ = Saved::open(&scene.stage(&format!("fixtures/pyvene-saved/{name}"), "config.json", data)?);
    }
    Some(())
}

pub(super) fn pyvene_weights(scene: &Scene, data: &[u8]) -> Option<()> {
    let folder = "fixtures/pyvene-saved/tiny-llama";
    for place in ["0_comp_block", "0_comp_mlp", "1_comp_block"] {
        let file = format!("intkey_layer_{place}_output_unit_pos_nunit_1#0.bin");
        let _ = Saved::open(&scene.stage(folder, &file, data)?);
    }
    Some(())
}

/// The experiment whose journal it is, its cells, and the values of each.
const SWEEP: (&str, usize, usize) = ("a sweep", 9, 2);

pub(super) fn journal(scene: &Scene, data: &[u8]) -> Option<()> {
    let (experiment, cells, values) = SWEEP;
    let path = scene.write("journal.jsonl", data)?;
    let (mut journal, done) = Journal::open(&path, experiment, cells, values).ok()?;
    let next = (0..cells).find(|cell| !done.contains_key(cell))?;
    journal.append([(next, vec![Some(0.5), None])]).ok()?;
    drop(journal);
    // What was repaired and written must be read again.
    let again = Journal::open(&path, experiment, cells, values);
    assert_eq!(again.ok()?.1.len(), done.len() + 1, "a cell was lost");
    Some(())
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
