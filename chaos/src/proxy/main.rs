//! A proxy in front of Kafka brokers that knows where requests and answers begin and end, and spoils some of them.
//!
//! `chaos-proxy [OPTION VALUE]… LISTEN=BROKER…` prints `ready`, ends when its standard input does, and says then how
//! often it did what. Everything it decides comes from `--seed`; what that hits depends on time.
//!
//! | option | default | |
//! |---|---|---|
//! | `--seed N` | 1 | |
//! | `--every MS` | 600 | a fault on this average; 0: none |
//! | `--hold MS` | 500 | answers are held back so long at most |
//! | `--hold-all MS` | 0 | besides, every answer is held back so long at most |
//! | `--stall MS` | 6000 | a stalled connection passes nothing for so long: longer than the client waits |
//! | `--turn-every MS` | 0 | a good Produce answer turned into an error on this average; 0: none |

mod faults;
mod frames;
mod link;
mod turn;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use faults::{Faults, Plan};

/// One listener and where it leads.
type Route = (TcpListener, SocketAddr);

fn parse(args: impl Iterator<Item = String>) -> Result<(Plan, Vec<Route>), String> {
    let (mut plan, mut routes) = (Plan::default(), Vec::new());
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        if let Some((listen, broker)) = arg.split_once('=') {
            let listener = TcpListener::bind(listen).map_err(|error| format!("{listen}: {error}"))?;
            routes.push((listener, broker.parse().map_err(|error| format!("{broker}: {error}"))?));
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        let number: u64 = value.parse().map_err(|error| format!("{arg} {value}: {error}"))?;
        let time = Duration::from_millis(number);
        match arg.as_str() {
            "--seed" => plan.seed = number,
            "--every" => plan.every = time,
            "--hold" => plan.hold = time,
            "--hold-all" => plan.hold_all = time,
            "--stall" => plan.stall = time,
            "--turn-every" => plan.turn_every = time,
            _ => return Err(format!("there is no option {arg}")),
        }
    }
    if routes.is_empty() { Err("no LISTEN=BROKER given".into()) } else { Ok((plan, routes)) }
}

fn main() -> ExitCode {
    let (plan, routes) = match parse(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("chaos-proxy: {error}");
            return ExitCode::from(2);
        }
    };
    let faults = Arc::new(Faults::new(plan));
    for (listener, broker) in routes {
        let faults = faults.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let faults = faults.clone();
                std::thread::spawn(move || link::serve(client, broker, &faults));
            }
        });
    }
    let mut out = std::io::stdout();
    let _ = writeln!(out, "ready").and_then(|()| out.flush());
    // Its end is the signal; what is read does not matter.
    let mut sink = [0; 64];
    while std::io::stdin().read(&mut sink).is_ok_and(|read| read > 0) {}
    let _ = writeln!(out, "{}", faults.counts());
    ExitCode::SUCCESS
}
