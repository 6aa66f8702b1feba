//! `collect`: activations over a data set into a folder.

use crate::args::CollectArgs;
use crate::failure::{Failure, all_fit};
use crate::loaded::Loaded;
use crate::terminal::{Terminal, before};
use causalcone::jobs::collect::{Options, run};
use causalcone::jobs::{Folder, Results};

/// `causalcone collect`.
pub(crate) fn collect(args: &CollectArgs, terminal: &Terminal) -> Result<(), Failure> {
    let folder = Folder::claim(&args.out, Results::Collection, args.again.into())?;
    let loaded = Loaded::new(&args.file, terminal)?;
    let report = terminal.report();
    let runtime = args.memory.runtime(&loaded.model, &report);
    let options = Options { shard: args.shard.bytes(), format: args.format };
    let collected = run(&loaded.source(), &folder, &options, &runtime, terminal)?;
    terminal.result(&collected.summary, |summary| {
        let again = before(summary.resumed);
        let (examples, shards, index) = (summary.examples, collected.shards.len(), &collected.index);
        format!(
            "{examples} examples{again} in {shards} shards; {index} says which row is what\n  {}\n",
            summary.out
        )
    })?;
    all_fit(&collected.left_out)
}
