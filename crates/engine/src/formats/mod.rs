//! Files of other kinds: saved interventions, control vectors, causal models.

pub mod causal;
pub mod control_vector;
pub mod saved;
