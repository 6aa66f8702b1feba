//! Files of tensors: every tensor is read.

use crate::Scene;
use causalcone_model::file::Weights;

fn take_all(weights: causalcone_model::Result<Weights>) -> Option<()> {
    let weights = weights.ok()?;
    for entry in weights.entries() {
        let _ = weights.take(&entry.name, &entry.shape);
    }
    // Some hold tensors that no model has; what counts is that the file was read.
    let _ = weights.finish(|_| false);
    Some(())
}

pub(super) fn safetensors(scene: &Scene, data: &[u8]) -> Option<()> {
    take_all(Weights::from_safetensors(&[scene.write("tensors.safetensors", data)?]))
}

pub(super) fn torch(scene: &Scene, data: &[u8]) -> Option<()> {
    take_all(Weights::from_torch(&scene.write("tensors.bin", data)?))
}

pub(super) fn numpy(scene: &Scene, data: &[u8]) -> Option<()> {
    // The name decides which of the two formats is expected.
    let name = if data.starts_with(b"PK") { "arrays.npz" } else { "array.npy" };
    take_all(Weights::from_numpy(&scene.write(name, data)?))
}
