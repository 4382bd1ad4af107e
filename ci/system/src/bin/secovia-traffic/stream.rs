//! Traffic over a stream. Its first byte says what the one who serves does with the rest.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::address::{Address, Listener};

/// Send back what comes.
const ECHO: u8 = b'e';
/// Take all that comes until its end, and then say how many bytes that was.
const TAKE: u8 = b't';
/// Send until the other hangs up.
const GIVE: u8 = b'g';

/// What is written or read at a time.
const PIECE: usize = 64 << 10;

/// Serves every stream that comes, each on a thread of its own, until the process is ended.
pub(crate) fn serve(addresses: &[Address]) -> io::Result<()> {
    let listeners: Vec<Listener> = addresses.iter().map(Address::listen).collect::<Result<_, _>>()?;
    println!("serving");
    thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(move || {
                loop {
                    match listener.accept() {
                        // What goes wrong with a stream is for its other end to see.
                        Ok(stream) => drop(thread::spawn(move || answer(stream))),
                        Err(error) => eprintln!("secovia-traffic: accept: {error}"),
                    }
                }
            });
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut mode = [0];
    stream.read_exact(&mut mode)?;
    let mut taken = 0_u64;
    loop {
        let length = match mode[0] {
            GIVE => buffer.len(),
            _ => stream.read(&mut buffer)?,
        };
        match (mode[0], length) {
            (TAKE, 0) => return stream.write_all(&taken.to_le_bytes()),
            (_, 0) => return Ok(()),
            (TAKE, _) => taken += length as u64,
            _ => stream.write_all(&buffer[..length])?,
        }
    }
}

/// Sends a message of `size` bytes and waits for it to come back, `count` times; how long all took.
pub(crate) fn ask(address: &Address, count: u64, size: usize) -> io::Result<Duration> {
    let mut stream = open(address, ECHO)?;
    let (message, mut answer) = (vec![0x5a; size], vec![0; size]);
    let mut turn = || {
        stream.write_all(&message)?;
        stream.read_exact(&mut answer)
    };
    // The first finds out where the other end is.
    turn()?;
    let begin = Instant::now();
    for _ in 0..count {
        turn()?;
    }
    Ok(begin.elapsed())
}

/// Sends so many bytes; how long it took until the other said that it has them.
pub(crate) fn send(address: &Address, bytes: u64) -> io::Result<Duration> {
    let mut stream = open(address, TAKE)?;
    let piece = vec![0x5a; PIECE];
    let begin = Instant::now();
    let mut rest = bytes;
    while rest > 0 {
        let length = rest.min(PIECE as u64);
        stream.write_all(&piece[..length as usize])?;
        rest -= length;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut taken = [0; 8];
    stream.read_exact(&mut taken)?;
    let elapsed = begin.elapsed();
    let taken = u64::from_le_bytes(taken);
    if taken != bytes {
        return Err(io::Error::other(format!("{taken} of {bytes} bytes arrived")));
    }
    Ok(elapsed)
}

/// Takes so many bytes; how long it took.
pub(crate) fn receive(address: &Address, bytes: u64) -> io::Result<Duration> {
    let mut stream = open(address, GIVE)?;
    let mut piece = vec![0; PIECE];
    let begin = Instant::now();
    let mut rest = bytes;
    while rest > 0 {
        let length = rest.min(PIECE as u64);
        match stream.read(&mut piece[..length as usize])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => rest -= length as u64,
        }
    }
    Ok(begin.elapsed())
}

fn open(address: &Address, mode: u8) -> io::Result<TcpStream> {
    let mut stream = address.connect()?;
    stream.write_all(&[mode])?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_traffic_is_answered() {
        // A free port, which is given up again for the one who serves.
        let port = Address::Tcp("127.0.0.1:0".parse().unwrap());
        let Listener::Tcp(free) = port.listen().unwrap() else {
            panic!("it listens for TCP")
        };
        let address = Address::Tcp(free.local_addr().unwrap());
        drop(free);
        let served = address.clone();
        thread::spawn(move || serve(&[served]));
        while address.connect().is_err() {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(ask(&address, 3, 100).unwrap() > Duration::ZERO);
        assert!(send(&address, PIECE as u64 + 1).unwrap() > Duration::ZERO);
        assert!(receive(&address, PIECE as u64 + 1).unwrap() > Duration::ZERO);
    }
}
