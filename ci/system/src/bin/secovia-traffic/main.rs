//! Puts a fixed amount of work on a machine's devices, from inside or outside of it, and says how long it took.
//!
//! One static program for guests and for their host, of whichever VMM.

mod address;
mod block;
mod stream;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use address::Address;
use block::Requests;

const HELP: &str = "\
usage: secovia-traffic serve ADDRESS...
       secovia-traffic ask ADDRESS COUNT SIZE     messages of SIZE bytes, each sent back before the next one goes
       secovia-traffic send ADDRESS BYTES         a stream to who serves
       secovia-traffic receive ADDRESS BYTES      a stream from who serves
       secovia-traffic read FILE ORDER SIZE DEPTH COUNT
       secovia-traffic write FILE ORDER SIZE DEPTH COUNT
                                                  requests past the page cache, DEPTH at a time; ORDER: random, sequential

ADDRESS: tcp:ADDRESS:PORT, vsock:CID:PORT (CID: any, to listen), unix:PATH:PORT (into a guest of secovia-vmm)

`serve` says `serving` when it does, and goes on until it is ended; the others print the nanoseconds that it took.
";

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0} (see --help)")]
    Usage(#[from] lexopt::Error),
    #[error("{what}: {source}")]
    Failed { what: String, source: io::Error },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("secovia-traffic: {error}");
            match error {
                Error::Usage(_) => ExitCode::from(2),
                Error::Failed { .. } => ExitCode::FAILURE,
            }
        }
    }
}

fn run() -> Result<(), Error> {
    use lexopt::prelude::*;
    let mut words = Vec::new();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(word) => words.push(word.string()?),
            Long("help") | Short('h') => {
                print!("{HELP}");
                return Ok(());
            }
            other => return Err(other.unexpected().into()),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let elapsed = match words[..] {
        ["serve", ref addresses @ ..] if !addresses.is_empty() => {
            let addresses = addresses
                .iter()
                .map(|address| address.parse())
                .collect::<Result<Vec<_>, String>>()
                .map_err(lexopt::Error::from)?;
            stream::serve(&addresses).map_err(failed("serve"))?;
            return Ok(());
        }
        ["ask", address, count, size] => {
            stream::ask(&place(address)?, number(count)?, size_of(size)?).map_err(failed(address))?
        }
        ["send", address, bytes] => {
            stream::send(&place(address)?, number(bytes)?).map_err(failed(address))?
        }
        ["receive", address, bytes] => {
            stream::receive(&place(address)?, number(bytes)?).map_err(failed(address))?
        }
        [
            verb @ ("read" | "write"),
            file,
            order @ ("random" | "sequential"),
            size,
            depth,
            count,
        ] => {
            let requests = Requests {
                count: number(count)?,
                size: size_of(size)?,
                depth: number(depth)?,
                random: order == "random",
                write: verb == "write",
            };
            requests.make(file.as_ref()).map_err(failed(file))?
        }
        _ => return Err(lexopt::Error::from("what is asked for is not known").into()),
    };
    print_time(elapsed);
    Ok(())
}

fn print_time(elapsed: Duration) {
    println!("{}", elapsed.as_nanos());
}

fn place(text: &str) -> Result<Address, Error> {
    Ok(text.parse().map_err(lexopt::Error::from)?)
}

fn number(text: &str) -> Result<u64, Error> {
    let bad = |_| lexopt::Error::from(format!("{text:?} is no number"));
    Ok(text.parse().map_err(bad)?)
}

fn size_of(text: &str) -> Result<usize, Error> {
    let bad = |_| lexopt::Error::from(format!("{text:?} is no size"));
    Ok(text.parse().map_err(bad)?)
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Failed {
        what: what.into(),
        source,
    }
}
