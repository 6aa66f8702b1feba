//! How much memory there is to work in.

/// Half of the memory that is free now ([`causalcone_model::memory::free`]), in bytes; `None` where the system does not
/// say.
pub fn half_of_free_memory() -> Option<u64> {
    // A size in the environment that cannot be read is reported when a model is opened.
    causalcone_model::memory::free().ok().flatten().map(|free| free / 2)
}
