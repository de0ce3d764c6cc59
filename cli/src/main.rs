//! The `ringmail` command: `produce` sends lines to Kafka, `demo` shows the library on an embedded broker, `bench`
//! measures it, `verifiable-producer` is for Kafka's system tests.

mod allocations;
mod args;
mod bench;
mod connect;
mod decoder;
mod demo;
mod diagnose;
mod escapes;
mod exit;
mod failures;
mod herald;
mod input;
mod lines;
mod log;
mod produce;
mod progress;
mod properties;
mod reader;
mod replay;
mod settings;
mod topics;
mod verifiable;
mod verify;
mod workload;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let args = args::Args::parse();
    log::init(args.verbose);
    let ended = match args.command {
        args::Command::Bench(bench) => bench::run(&bench),
        args::Command::BenchBroker(broker) => bench::run_broker(&broker),
        args::Command::Demo(demo) => demo::run(&demo),
        args::Command::Produce(produce) => produce::run(&produce),
        args::Command::VerifiableProducer(args) => verifiable::run(&args),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            log::say(&format!("ringmail: {}", failure.text));
            failure.exit.into()
        }
    }
}
