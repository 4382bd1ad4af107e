//! `doctor`: is this host ready, and what to do where it is not. Needs no agent.
//!
//! `gather` looks (thin, no judgement), `facts` is what it saw, `checks` judges (pure), each a `check`, `report` tells.

mod check;
mod checks;
mod facts;
mod gather;
mod paths;
mod report;

use secovia_agent_api::client::Client;

use crate::args::DoctorArgs;
use crate::failure::{FAILED, Failure};
use crate::output::{print, print_json};
use report::Report;

/// `secovia doctor`: status 1 where something required is missing.
pub(crate) async fn doctor(client: &Client, args: &DoctorArgs) -> Result<u8, Failure> {
    let facts = gather::gather(client, &args.config).await;
    let report = Report::new(checks::all(&facts));
    if args.json {
        print_json(&report)?;
    } else {
        print(&report.text())?;
    }
    Ok(if report.ready { 0 } else { FAILED })
}
