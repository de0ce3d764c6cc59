//! One client's connection: requests on this thread, answers on another, both whole frames.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::faults::{Fault, Faults};
use crate::frames::{self, Asked};
use crate::turn;

/// What both directions know.
#[derive(Default)]
struct Shared {
    /// Requests without an answer yet, in order: a broker answers a connection's requests one by one.
    asked: Mutex<VecDeque<Asked>>,
    /// No answer passes before this time.
    stalled_until: Mutex<Option<Instant>>,
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves a client until either side ends. A broker that is not there closes the client's connection.
pub fn serve(client: TcpStream, broker: SocketAddr, faults: &Arc<Faults>) {
    let Ok(to_broker) = TcpStream::connect_timeout(&broker, Duration::from_secs(2)) else { return };
    let _ = (client.set_nodelay(true), to_broker.set_nodelay(true));
    let shared = Arc::new(Shared::default());
    let (Ok(client_out), Ok(from_broker)) = (client.try_clone(), to_broker.try_clone()) else { return };
    let answers = {
        let (shared, faults) = (shared.clone(), faults.clone());
        std::thread::spawn(move || {
            let _ = pass_answers(&from_broker, &client_out, &shared, &faults);
            let _ = client_out.shutdown(Shutdown::Both);
            // What still comes is read to the end: a broker whose answers find nobody must not lose requests by that.
            let _ = io::copy(&mut &from_broker, &mut io::sink());
        })
    };
    let _ = pass_requests(&client, &to_broker, &shared, faults);
    // No more requests. The client hears nothing more, the broker answers what it has.
    let _ = (client.shutdown(Shutdown::Both), to_broker.shutdown(Shutdown::Write));
    let _ = answers.join();
}

fn pass_requests(mut client: &TcpStream, mut broker: &TcpStream, shared: &Shared, faults: &Faults) -> io::Result<()> {
    let mut frame = Vec::new();
    while frames::read(&mut client, &mut frame)? {
        let fault = faults.at_request();
        match fault {
            Some(Fault::CutBefore) => return Ok(()),
            Some(Fault::CutInside) => return broker.write_all(&frame[..frame.len() / 2]),
            // The broker gets it later than the client waits.
            Some(Fault::Stall) => {
                *lock(&shared.stalled_until) = Some(Instant::now() + faults.plan.stall);
                std::thread::sleep(faults.plan.stall);
            }
            _ => {}
        }
        if let Some(asked) = Asked::of(&frame) {
            lock(&shared.asked).push_back(asked);
        }
        if fault == Some(Fault::CutAfter) {
            client.shutdown(Shutdown::Both)?;
            broker.write_all(&frame)?;
            // Else the broker could see the end before it begins with the request.
            std::thread::sleep(Duration::from_millis(200));
            return Ok(());
        }
        broker.write_all(&frame)?;
    }
    Ok(())
}

fn pass_answers(mut broker: &TcpStream, mut client: &TcpStream, shared: &Shared, faults: &Faults) -> io::Result<()> {
    let mut frame = Vec::new();
    while frames::read(&mut broker, &mut frame)? {
        let asked = lock(&shared.asked).pop_front();
        if let Some(until) = lock(&shared.stalled_until).take_if(|until| *until > Instant::now()) {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
        if !faults.plan.hold_all.is_zero() {
            std::thread::sleep(faults.draw(faults.plan.hold_all));
        }
        if let Some(asked) = asked.filter(|asked| asked.is_produce())
            && let Some((fault, keep)) = faults.at_good_answer()
            && let Some(turned) = turn::turned(asked, &frame, fault, keep)
        {
            faults.count(fault);
            frame = turned;
        }
        match faults.at_answer() {
            Some(Fault::Hold) => std::thread::sleep(faults.draw(faults.plan.hold)),
            Some(Fault::Bytes) => {
                for byte in &frame {
                    client.write_all(std::slice::from_ref(byte))?;
                    std::thread::sleep(Duration::from_micros(100));
                }
                continue;
            }
            Some(Fault::CutAnswer) => return client.write_all(&frame[..frame.len() / 2]),
            _ => {}
        }
        client.write_all(&frame)?;
    }
    Ok(())
}
