//! The blocks of the families that there are.

use super::builder::Builder;
use super::list::{ENTERING, Kernel, Matrix, Stages};
use crate::site::Site;

/// Where the norms of a block stand: at attention and at the MLP alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// Before each.
    Before,
    /// After each, before the residual add (OLMo 2).
    After,
    /// Before and after each (Gemma 2 and 3).
    Around,
}

/// How attention and the MLP of a block are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halves {
    /// The MLP reads the residual stream that attention has added to.
    InTurn,
    /// Both read the residual stream that enters the block (GPT-NeoX).
    SideBySide,
}

impl Stages {
    /// The block of the decoder families that there are: attention and an MLP around a residual stream.
    pub fn decoder(norms: Norms, halves: Halves, is_gated: bool) -> Self {
        let (is_before, is_after) = (norms != Norms::After, norms != Norms::Before);
        let after = |name: &'static str| is_after.then_some(name);
        let mut block = Builder::new();
        // With the norm of the same rows, and what is added to them.
        let input = block.row(Site::BlockInput, Kernel::Same, &[ENTERING], 3);
        block.part();
        let attention_input = if is_before {
            block.row(Site::AttentionInput, Kernel::Norm("attention_norm"), &[input], 0)
        } else {
            block.lacks(
                Site::AttentionInput,
                "its blocks have no norm before attention, which reads block_input itself",
            );
            input
        };
        // Each with what scores see of it.
        block.part();
        let query = block.row(Site::QueryOutput, Kernel::Linear(Matrix::Query), &[attention_input], 2);
        block.part();
        let key = block.row(Site::KeyOutput, Kernel::Linear(Matrix::Key), &[attention_input], 2);
        let value = block.row(Site::ValueOutput, Kernel::Linear(Matrix::Value), &[attention_input], 2);
        block.part();
        let mixed = block.attention(query, key, value);
        let attention =
            block.row(Site::AttentionOutput, Kernel::Linear(Matrix::AttentionOutput), &[mixed], 1);
        let is_in_turn = halves == Halves::InTurn;
        if !is_in_turn {
            block.lacks(
                Site::BlockMiddle,
                "attention and MLP stand side by side in its blocks, so there is nothing between them",
            );
        }
        let middle = block.row(
            is_in_turn.then_some(Site::BlockMiddle),
            Kernel::Add(after("attention_after")),
            &[input, attention],
            1,
        );
        block.part();
        let residual = if is_in_turn { middle } else { input };
        let mlp_input = if is_before {
            block.row(Site::MlpInput, Kernel::Norm("mlp_norm"), &[residual], 1)
        } else {
            block.lacks(
                Site::MlpInput,
                "its blocks have no norm before the MLP, which reads block_middle itself",
            );
            residual
        };
        let activation = block.row(Site::MlpActivation, Kernel::Activate(Matrix::Into), &[mlp_input], 1);
        let hidden = if is_gated {
            block.row(Site::MlpHidden, Kernel::Gate(Matrix::Up), &[activation, mlp_input], 2)
        } else {
            block.row(Site::MlpHidden, Kernel::Same, &[activation], 1)
        };
        // With what the MLP reads and what leaves the block, which another part holds where the halves stand side by side.
        let held = 1 + usize::from(!is_before) + usize::from(!is_in_turn);
        let mlp = block.row(Site::MlpOutput, Kernel::Linear(Matrix::Down), &[hidden], held);
        if !is_in_turn {
            block.part();
        }
        let add = Kernel::Add(after("mlp_after"));
        block.row(Site::BlockOutput, add, &[middle, mlp], usize::from(is_in_turn));
        block.build()
    }

    /// The end of a decoder: the last norm and the logits.
    pub fn ending() -> Self {
        let mut end = Builder::new();
        let normed = end.row(Site::FinalNorm, Kernel::Norm("final_norm"), &[ENTERING], 0);
        end.part();
        end.row(Site::Logits, Kernel::Same, &[normed], 0);
        end.build()
    }
}
