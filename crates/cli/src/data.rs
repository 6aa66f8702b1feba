//! `data`: a data set of counterfactuals, drawn from a causal model.

use crate::args::DataArgs;
use crate::failure::{Failure, taken};
use crate::terminal::Terminal;
use causalcone::EngineError;
use causalcone::causal::{CausalFile, DataSet, Drawn};
use causalcone::jobs::{Observer, shown};
use causalcone_files::{IfExists, check_output, is_same_place};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

#[derive(Serialize)]
struct Summary {
    model: String,
    files: Vec<String>,
    examples: usize,
    held_out: usize,
    /// How many examples there are of each label.
    labels: BTreeMap<String, usize>,
    settings: usize,
    asked: usize,
    right: usize,
}

/// `causalcone data`.
pub(crate) fn data(args: &DataArgs, terminal: &Terminal) -> Result<(), Failure> {
    let file = CausalFile::load(&args.file)?;
    let outs = match (&args.held_out, file.held_out) {
        (Some(held_out), Some(_)) => vec![args.out.as_path(), held_out],
        (None, None) => vec![args.out.as_path()],
        (Some(_), None) => {
            let message = format!("{} holds nothing out, which --held-out asks for", args.file.display());
            return Err(
                Failure::input(message).hint("add held_out, the part of the settings that is held out")
            );
        }
        (None, Some(_)) => {
            let message =
                format!("{} holds examples out, and there is no file for them", args.file.display());
            return Err(Failure::input(message).hint("give --held-out"));
        }
    };
    let if_exists = IfExists::forced(args.force);
    for out in &outs {
        check_output(out, if_exists).map_err(taken)?;
    }
    if let [out, held_out] = outs[..]
        && is_same_place(out, held_out)?
    {
        return Err(Failure::input("--out and --held-out are the same file"));
    }
    let Some(name) = args.model.as_ref().or(file.model.as_ref()) else {
        return Err(Failure::input(format!("{} names no model", args.file.display()))
            .hint("add model = \"smollm2\" or give -m"));
    };
    // Before a model is loaded for it.
    file.causal_model()?;
    let model = terminal.load(name, args.weights.given())?;
    let drawn = file.draw(&model, &args.memory.runtime(&model, &terminal.report()));
    terminal.finished();
    let DataSet { examples, held_out, settings, asked, right } = drawn.map_err(|e| match e {
        EngineError::Interrupted => Failure::interrupted("; nothing was written"),
        other => other.into(),
    })?;
    for (out, lines) in outs.iter().zip([&examples, &held_out]) {
        // Some disks do not tell X from x, which shows once one of them is there.
        if *out != outs[0] && is_same_place(out, outs[0])? {
            return Err(Failure::input("--out and --held-out are the same file on this disk"));
        }
        write_lines(out, lines, if_exists)?;
    }
    let mut labels: BTreeMap<String, usize> = BTreeMap::new();
    for example in &examples {
        *labels.entry(example.label.clone()).or_default() += 1;
    }
    let summary = Summary {
        model: model.name().into(),
        files: outs.iter().map(shown).collect(),
        examples: examples.len(),
        held_out: held_out.len(),
        labels,
        settings,
        asked,
        right,
    };
    terminal.result(&summary, |summary| {
        let right = match summary.asked {
            0 => String::new(),
            asked => format!("{} of the {asked} prompts it was asked are answered rightly\n", summary.right),
        };
        let files: String = summary.files.iter().map(|file| format!("  {file}\n")).collect();
        let (examples, held_out, labels) = (summary.examples, summary.held_out, summary.labels.len());
        format!(
            "{examples} examples of {labels} labels, {held_out} held out, from {} settings\n{right}{files}",
            summary.settings
        )
    })
}

fn write_lines(path: &Path, lines: &[Drawn], if_exists: IfExists) -> Result<(), Failure> {
    let fill = |w: &mut (dyn Write + Send)| {
        for line in lines {
            serde_json::to_writer(&mut *w, line)?;
            w.write_all(b"\n")?;
        }
        Ok(())
    };
    if_exists.write(path, fill).map_err(taken)
}
