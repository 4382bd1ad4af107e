//! `logs`.

use std::io::{self, Write};

use secovia_agent_api::LogQuery;
use secovia_agent_api::client::Client;

use crate::args::LogsArgs;
use crate::failure::Failure;
use crate::output::{human, log::LogPrinter};
use crate::session::pump::Output;

/// `secovia logs`.
pub(super) async fn logs(client: &Client, args: LogsArgs) -> Result<u8, Failure> {
    let operation = format!("logs {}", args.name);
    let query = LogQuery {
        container: args.container,
        follow: args.follow,
        tail: args.tail,
        since: args.since.map(|since| since.resolve(human::now_ms())),
    };
    let mut stream = client
        .vm_logs(&args.name, &query)
        .await
        .map_err(Failure::agent(operation.clone()))?;
    let mut printer = LogPrinter::new(args.timestamps);
    while let Some(record) = stream.next().await.map_err(Failure::agent(operation.clone()))? {
        let (output, bytes) = if args.json {
            let mut line = serde_json::to_vec(&record)
                .map_err(|error| Failure::other(format!("{operation}: put the record into JSON: {error}")))?;
            line.push(b'\n');
            (Output::Stdout, line)
        } else {
            printer
                .take(record)
                .map_err(|error| Failure::other(format!("{operation}: {error}")))?
        };
        write(output, &bytes).map_err(|error| Failure::output(&error))?;
    }
    Ok(0)
}

fn write(output: Output, bytes: &[u8]) -> io::Result<()> {
    match output {
        Output::Stdout => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes)?;
            stdout.flush()
        }
        Output::Stderr => io::stderr().lock().write_all(bytes),
    }
}
