//! The `causalcone` command. Everything it does is in [`causalcone::cli`].

fn main() -> std::process::ExitCode {
    causalcone::cli::main()
}
